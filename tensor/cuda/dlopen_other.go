//go:build !linux || nocuda

package cuda

import (
	"fmt"
	"runtime"
)

// unsupported says why no library can be opened by this program.
func unsupported() error {
	if runtime.GOOS == "linux" {
		return fmt.Errorf("this program was built without GPUs (the tag nocuda)")
	}
	return fmt.Errorf("GPUs are not supported on %s by this version", runtime.GOOS)
}

func openLibrary(string) (uintptr, error) { return 0, unsupported() }

func symbol(uintptr, string) (uintptr, error) {
	return 0, fmt.Errorf("no libraries on %s", runtime.GOOS)
}

func call(uintptr, ...any) int32 { panic("cuda: no driver") }

func callSize(uintptr, ...any) uintptr { panic("cuda: no driver") }
