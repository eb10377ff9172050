package cpu

import "unsafe"

// packed is memory for packed operands: it only grows, is mapped outside the Go
// heap and starts at a multiple of a huge page. A block of B fills most of the
// second-level cache; over small pages, which the system hands out at random
// physical addresses, some of the cache's sets get too much of it and others too little.
type packed struct {
	mem  []float32
	base unsafe.Pointer
	size int
}

const packedAlign = 2 << 20

// grow returns n floats with arbitrary content and gives back the memory it
// returned before if that is too small.
func (p *packed) grow(n int) []float32 {
	if n <= len(p.mem) {
		return p.mem[:n]
	}
	p.free()
	bytes := roundUp(4*n, packedAlign)
	base, err := mapMemory(bytes + packedAlign)
	if err != nil { // the Go heap says so itself if there is no memory left
		p.mem = alignedFloats(n)
		return p.mem
	}
	p.base, p.size = base, bytes+packedAlign
	p.mem = unsafe.Slice((*float32)(unsafe.Add(base, -uintptr(base)&(packedAlign-1))), bytes/4)
	return p.mem[:n]
}

func (p *packed) free() {
	if p.base != nil {
		_ = unmapMemory(p.base, p.size) // as much was mapped there
	}
	*p = packed{}
}
