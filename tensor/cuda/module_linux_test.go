//go:build !nocuda

package cuda

import (
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// link against a linker that says what it was asked: no GPU is needed to see that the
// driver's conventions are kept.
func TestLink(t *testing.T) {
	held := cu
	defer func() { cu = held }()
	at := func(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }
	var (
		log       string // where the compiler writes
		result    uintptr
		source    string
		destroyed int
		values    []uintptr
		image     = []byte("\x7fELF and machine code")
	)
	cu.getErrorName = 0
	cu.linkCreate = purego.NewCallback(func(n uintptr, keys, vals, state uintptr) uintptr {
		if got := unsafe.Slice((*int32)(at(keys)), n); !slices.Equal(got, []int32{3, 4, 5, 6}) {
			t.Errorf("options %v", got)
		}
		values = unsafe.Slice((*uintptr)(at(vals)), n)
		*(*uintptr)(at(state)) = 77
		return 0
	})
	cu.linkAddData = purego.NewCallback(func(state, kind, data, size, name, n, keys, vals uintptr) uintptr {
		text := string(unsafe.Slice((*byte)(at(data)), size))
		if state != 77 || kind != 1 || !strings.HasSuffix(text, "\x00") || goString(name) != "norm.ptx" || n != 0 {
			t.Errorf("cuLinkAddData(%d, %d, %q, %d, %q, %d)", state, kind, text, size, goString(name), n)
		}
		source = strings.TrimRight(text, "\x00")
		if log != "" {
			if values[3] < uintptr(len(log)) {
				t.Errorf("%d bytes of log", values[3])
			}
			copy(unsafe.Slice((*byte)(at(values[2])), values[3]), log)
		}
		return result
	})
	cu.linkComplete = purego.NewCallback(func(state, cubin, size uintptr) uintptr {
		*(*uintptr)(at(cubin)), *(*uintptr)(at(size)) = uintptr(address(&image[0])), uintptr(len(image))
		return 0
	})
	cu.linkDestroy = purego.NewCallback(func(state uintptr) uintptr {
		destroyed++
		clear(image) // it is the state's
		return 0
	})

	want := string(image)
	got, err := link("norm", []byte(".version 8.4\n"))
	if err != nil || string(got) != want || source != ".version 8.4\n" || destroyed != 1 {
		t.Errorf("link: %q, %v, of %q, destroyed %d times", got, err, source, destroyed)
	}

	log, result = "ptxas application ptx input, line 9; error   :\nUnknown symbol", 218
	if _, err = link("norm", []byte(".version 8.4\n")); err == nil || destroyed != 2 ||
		!strings.Contains(err.Error(), "cuLinkAddData") || !strings.Contains(err.Error(), "line 9; error : Unknown symbol") {
		t.Errorf("error %v, destroyed %d times", err, destroyed)
	}
	log, result = "", 222
	if _, err = link("norm", []byte(".version 8.4\n")); err == nil || !strings.Contains(err.Error(), "update the NVIDIA driver to branch 550") {
		t.Errorf("error %v", err)
	}
}
