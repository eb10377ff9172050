package cpu

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// mapMemory reserves and commits n bytes of zeroed memory.
func mapMemory(n int) (unsafe.Pointer, error) {
	addr, err := windows.VirtualAlloc(0, uintptr(n), windows.MEM_RESERVE|windows.MEM_COMMIT, windows.PAGE_READWRITE)
	if err != nil {
		return nil, err
	}
	return *(*unsafe.Pointer)(unsafe.Pointer(&addr)), nil
}

func unmapMemory(p unsafe.Pointer, _ int) error {
	return windows.VirtualFree(uintptr(p), 0, windows.MEM_RELEASE)
}
