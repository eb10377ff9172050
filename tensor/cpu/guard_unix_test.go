//go:build unix

package cpu

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guardedMemory is n bytes of memory between pages that fault when touched: against
// the page behind it if atEnd, else against the page before it.
func guardedMemory(t testing.TB, n int, atEnd bool) unsafe.Pointer {
	page := unix.Getpagesize()
	body := (n + page - 1) &^ (page - 1)
	mem, err := unix.Mmap(-1, 0, body+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	for _, p := range [][]byte{mem[:page], mem[page+body:]} {
		if err := unix.Mprotect(p, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	base := unsafe.Pointer(&mem[0])
	if atEnd {
		return unsafe.Add(base, page+body-n)
	}
	return unsafe.Add(base, page)
}
