//go:build !unix && !windows

package cpu

import (
	"errors"
	"sync"
	"unsafe"
)

// Where there is nothing to map, memory comes from the Go heap, which this map
// keeps from being collected: tensors hold only addresses. The collector never
// moves what lies in the heap.
var (
	mappedMu sync.Mutex
	mapped   = map[unsafe.Pointer][]byte{}
)

func mapMemory(n int) (unsafe.Pointer, error) {
	if n > 1<<31-2*pageSize {
		return nil, errors.New("more than a slice can hold here")
	}
	m := make([]byte, n+pageSize)
	p := unsafe.Pointer(&m[0])
	p = unsafe.Add(p, -uintptr(p)&(pageSize-1))
	mappedMu.Lock()
	defer mappedMu.Unlock()
	mapped[p] = m
	return p, nil
}

func unmapMemory(p unsafe.Pointer, _ int) error {
	mappedMu.Lock()
	defer mappedMu.Unlock()
	delete(mapped, p)
	return nil
}
