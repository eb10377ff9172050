package autograd

import (
	"fmt"
	"math"
	"slices"
	"unsafe"

	"ringtail/tensor"
)

// Checks of the build tag invariants: of a program as it is compiled, by following
// who owns which memory, and of its run on devices whose memory is the host's, by
// filling memory that holds nothing with a pattern that must never be seen.

// verify follows the program through memory and panics if an instruction reads a
// buffer that is not as its last writer left it. It knows nothing of lifetimes,
// groups and takes, only where buffers came to lie.
func (p *Program) verify() {
	intact := map[*buffer]bool{}
	overlap := func(a, b *buffer) bool {
		x, y := a.root(), b.root()
		return x.offset < y.offset+y.bytes && y.offset < x.offset+x.bytes
	}
	for i := range p.code {
		in := &p.code[i]
		for _, b := range in.reads {
			if !b.fixed && !intact[b] {
				panic(fmt.Sprintf("autograd: instruction %d, %v %s, reads %v, which was overwritten or never made", i, in.phase, in.node.Name, b))
			}
		}
		shared := func(a, b *buffer) bool {
			return slices.ContainsFunc(in.shares, func(s []*buffer) bool { return slices.Contains(s, a) && slices.Contains(s, b) })
		}
		for _, w := range in.writes {
			for _, b := range p.buffers {
				if w == b || w.fixed || !overlap(w, b) || shared(w, b) {
					continue
				}
				if slices.Contains(in.writes, b) {
					panic(fmt.Sprintf("autograd: instruction %d, %v %s, writes %v over %v", i, in.phase, in.node.Name, w, b))
				}
				intact[b] = false
			}
		}
		for _, w := range in.writes {
			intact[w] = true
		}
	}
	for _, b := range p.buffers {
		if b.output && !intact[b] {
			panic(fmt.Sprintf("autograd: output %v was overwritten", b))
		}
	}
}

// checkBefore fills the memory that instruction i begins to use with the pattern,
// and looks for it in what the instruction reads.
func (p *Program) checkBefore(i int) {
	if !p.hostSync() {
		return
	}
	for _, b := range p.buffers {
		if b.group == nil && b.first == i {
			p.poison(b)
		}
	}
	for _, b := range p.code[i].reads {
		p.lookForPoison(i, "reads", b)
	}
}

// checkAfter looks for the pattern in what instruction i wrote, and fills the
// memory that is used no longer.
func (p *Program) checkAfter(i int) {
	if !p.hostSync() {
		return
	}
	for _, b := range p.code[i].writes {
		p.lookForPoison(i, "leaves", b)
	}
	if i == len(p.code)-1 {
		for _, g := range p.grads {
			p.lookForPoison(i, "leaves", g.to)
		}
	}
	for _, b := range p.buffers {
		if b.group == nil && b.last == i && !b.pinned {
			p.poison(b)
		}
	}
}

// hostSync waits for the device if its memory can be looked at.
func (p *Program) hostSync() bool {
	// An error of the device is reported by whoever syncs next.
	return p.tape.dev.Host() && p.tape.dev.Sync() == nil
}

// poison fills a buffer's memory with ones: a NaN of a kind that no operation makes.
func (p *Program) poison(b *buffer) {
	for i, m := 0, unsafe.Slice((*byte)(b.at.Pointer()), b.bytes); i < len(m); i++ {
		m[i] = 0xFF
	}
}

func (p *Program) lookForPoison(i int, how string, b *buffer) {
	at := -1
	switch {
	case b.fixed:
	case b.pieces && (how == "reads" || i < len(p.code)-1): // whole when the program has ended
	case b.dtype == tensor.F32:
		at = slices.IndexFunc(b.at.Float32(), func(v float32) bool { return math.Float32bits(v) == math.MaxUint32 })
	case b.dtype == tensor.F64:
		at = slices.IndexFunc(b.at.Float64(), func(v float64) bool { return math.Float64bits(v) == math.MaxUint64 })
	}
	if at >= 0 {
		in := &p.code[i]
		panic(fmt.Sprintf("autograd: instruction %d, %v %s, %s element %d of %v, which was never written", i, in.phase, in.node.Name, how, at, b))
	}
}
