//go:build unix

package cpu

import (
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guarded returns an allocator whose memory touches a page that may not be
// accessed: with its end, or else with its start.
func guarded(t testing.TB, atEnd bool) func(n int) []float32 {
	page := os.Getpagesize()
	return func(n int) []float32 {
		if n == 0 {
			return nil
		}
		size := (4*n + page - 1) / page * page
		m, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(m) })
		for _, p := range [][]byte{m[:page], m[size+page:]} {
			if err := unix.Mprotect(p, unix.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		from := page
		if atEnd {
			from = page + size - 4*n
		}
		return unsafe.Slice((*float32)(unsafe.Pointer(&m[from])), n)
	}
}

// Nothing outside the operands may be read or written, not even to be thrown away.
func TestGemmGuardPages(t *testing.T) {
	forEachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(13, 14))
		ws := &workspace{}
		for i := range 150 {
			t.Run("", func(t *testing.T) {
				alloc := guarded(t, i%2 == 0)
				randomCase(r, 70).data(r, alloc).check(t, []*workspace{nil, ws}[i/2%2])
			})
		}
		for i, g := range edgeCases() {
			t.Run("", func(t *testing.T) { g.data(r, guarded(t, i%2 == 0)).check(t, nil) })
		}
	})
}
