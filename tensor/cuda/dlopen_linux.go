//go:build !nocuda

package cuda

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// unsupported says why no library can be opened by this program.
func unsupported() error { return nil }

func openLibrary(path string) (uintptr, error) {
	return purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
}

func symbol(handle uintptr, name string) (uintptr, error) { return purego.Dlsym(handle, name) }

// call calls a C function whose result is an int. Arguments are whole numbers, device
// addresses and handles (uintptr), and addresses of Go variables (address), which stay
// where they are, and alive, until it returns.
func call(f uintptr, args ...any) int32 { return int32(callSize(f, args...)) }

// callSize calls a C function whose result is a size_t.
func callSize(f uintptr, args ...any) uintptr {
	var raw [20]uintptr
	for i, a := range args {
		switch a := a.(type) {
		case uintptr:
			raw[i] = a
		case unsafe.Pointer:
			raw[i] = uintptr(a)
		case int:
			raw[i] = uintptr(a)
		default:
			panic(fmt.Sprintf("cuda: an argument of type %T", a))
		}
	}
	r, _, _ := purego.SyscallN(f, raw[:len(args)]...)
	runtime.KeepAlive(args)
	return r
}
