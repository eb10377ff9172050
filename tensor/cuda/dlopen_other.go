//go:build !linux || nocuda

package cuda

import (
	"fmt"
	"runtime"
)

func openLibrary(string) (uintptr, error) {
	if runtime.GOOS == "linux" {
		return 0, fmt.Errorf("this program was built without GPUs (the tag nocuda)")
	}
	return 0, fmt.Errorf("GPUs are not supported on %s by this version", runtime.GOOS)
}

func symbol(uintptr, string) (uintptr, error) {
	return 0, fmt.Errorf("no libraries on %s", runtime.GOOS)
}

func call(uintptr, ...any) int32 { panic("cuda: no driver") }

func callSize(uintptr, ...any) uintptr { panic("cuda: no driver") }
