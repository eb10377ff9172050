//go:build unix

package mapfile

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Release tells that b, a part of a map, won't be read soon: its whole pages leave
// this process's memory and come back from the file when they are touched again.
func Release(b []byte) {
	page := uintptr(os.Getpagesize())
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	from := (start + page - 1) / page * page
	to := (start + uintptr(len(b))) / page * page
	if from < to {
		_ = unix.Madvise(b[from-start:to-start], unix.MADV_DONTNEED) // advice: nothing depends on it
	}
}
