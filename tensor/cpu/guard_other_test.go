//go:build !unix

package cpu

import (
	"testing"
	"unsafe"
)

// guarded has no guards here; see guard_unix_test.go.
func guarded(t testing.TB, n int, atEnd bool) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(make([]byte, n+1)))
}
