package ref

import (
	"fmt"
	"math"
	"sync"
	"unsafe"

	"ringtail/tensor"
)

// live holds the memory behind every buffer that has not been freed. A tensor
// knows only an address, which does not keep memory alive for the garbage
// collector; this map does. (The collector never moves what lies in the heap.)
var (
	liveMu sync.Mutex
	live   = map[uintptr][]float64{}
)

// Alloc returns n zeroed bytes at a multiple of tensor.Align.
func (d *Device) Alloc(n int) (*tensor.Buffer, error) {
	if n < 0 {
		return nil, fmt.Errorf("ref: allocation of %d bytes", n)
	}
	const word = 8
	memory := make([]float64, (n+tensor.Align)/word+1)
	start := uintptr(unsafe.Pointer(&memory[0]))
	addr := (start + tensor.Align - 1) &^ (tensor.Align - 1)

	liveMu.Lock()
	live[addr] = memory
	liveMu.Unlock()
	return &tensor.Buffer{Device: d, Addr: addr, Size: n, Free: func() { free(addr) }}, nil
}

// free lets go of a buffer and fills it with NaN, so that a test that goes on
// using it notices. Freeing twice does nothing.
func free(addr uintptr) {
	liveMu.Lock()
	defer liveMu.Unlock()
	memory := live[addr]
	for i := range memory {
		memory[i] = math.NaN()
	}
	delete(live, addr)
}

// Write copies src into the dense tensor dst.
func (d *Device) Write(dst tensor.Tensor, src []byte) {
	if !dst.Dense() || dst.Bytes() != len(src) {
		panic(fmt.Sprintf("ref: write of %d bytes into %v of %d (dense: %v)", len(src), dst, dst.Bytes(), dst.Dense()))
	}
	copy(bytesOf(dst), src)
}

// Read copies the dense tensor src into dst.
func (d *Device) Read(dst []byte, src tensor.Tensor) {
	if !src.Dense() || src.Bytes() != len(dst) {
		panic(fmt.Sprintf("ref: read of %d bytes from %v of %d (dense: %v)", len(dst), src, src.Bytes(), src.Dense()))
	}
	copy(dst, bytesOf(src))
}

func bytesOf(t tensor.Tensor) []byte {
	if t.Bytes() == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(t.Pointer()), t.Bytes())
}
