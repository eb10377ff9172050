//go:build !unix

package cpu

import (
	"testing"
	"unsafe"
)

// guardedMemory has no guards here; see guard_unix_test.go.
func guardedMemory(t testing.TB, n int, atEnd bool) unsafe.Pointer {
	return unsafe.Pointer(unsafe.SliceData(make([]byte, n+1)))
}
