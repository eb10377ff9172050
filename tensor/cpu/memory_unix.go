//go:build unix

package cpu

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapMemory maps n bytes of zeroed memory, which the kernel gives page by page
// when they are first touched.
func mapMemory(n int) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	adviseHuge(p, n)
	return p, nil
}

func unmapMemory(p unsafe.Pointer, n int) error { return unix.MunmapPtr(p, uintptr(n)) }
