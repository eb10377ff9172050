package cpu

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of a transparent huge page on amd64 and, with 4 KiB
// pages, on arm64.
const hugePage = 2 << 20

// adviseHuge asks for huge pages: a pass over gigabytes of weights then misses
// the translation buffer 512 times less often. It is advice; where the system
// has huge pages switched off, nothing changes.
func adviseHuge(p unsafe.Pointer, n int) {
	if n >= 2*hugePage {
		_ = unix.Madvise(unsafe.Slice((*byte)(p), n), unix.MADV_HUGEPAGE)
	}
}
