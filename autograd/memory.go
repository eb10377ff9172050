package autograd

import (
	"fmt"
	"sort"

	"ringtail/tensor"
)

// buffer is the memory of one value, gradient or temporary: a stretch of the
// arena that it occupies from the first to the last instruction that touches it.
// Buffers that are merged into a group occupy one stretch together.
type buffer struct {
	name  string
	dtype tensor.Dtype
	shape []int
	at    tensor.Tensor // where it lies; made by bind

	fixed         bool // memory of the caller's, which is only pointed to
	output        bool // to be found there when the program has ended
	pieces        bool // gradients of parameters, written piece by piece
	reads, writes []int
	group         *buffer // what it was merged into

	// Of the group that it stands for, if group is nil:
	bytes       int
	first, last int  // instructions; first is −1 before any
	pinned      bool // occupied to the program's end
	offset      int  // in the arena; made by place
}

func (c *compiler) newBuffer(name string, d tensor.Dtype, shape []int) *buffer {
	x := tensor.Tensor{Shape: shape, Dtype: d}
	x.Stride = x.Cols()
	b := &buffer{name: name, dtype: d, shape: shape, bytes: tensor.AlignUp(max(x.Bytes(), 1)), first: -1}
	c.p.buffers = append(c.p.buffers, b)
	return b
}

// fixedBuffer is memory of the caller's.
func fixedBuffer(name string, x tensor.Tensor) *buffer {
	return &buffer{name: name, dtype: x.Dtype, shape: x.Shape, at: x, fixed: true, first: -1}
}

// touch notes that instruction i reads or writes b.
func (b *buffer) touch(i int) {
	if b.first < 0 {
		b.first = i
	}
	b.last = i
}

// root is the buffer that stands for b's group.
func (b *buffer) root() *buffer {
	for b.group != nil {
		b = b.group
	}
	return b
}

func (b *buffer) String() string {
	if b.fixed {
		return b.name
	}
	return fmt.Sprintf("%s@%d", b.name, b.root().offset)
}

// lastRead is the last instruction that reads b, −1 if none does.
func (b *buffer) lastRead() int {
	if len(b.reads) == 0 {
		return -1
	}
	return b.reads[len(b.reads)-1]
}

// take asks that newer, a result of an instruction, lie in the memory of older,
// which the instruction reads and which may be needed no longer.
type take struct{ newer, older *buffer }

// mergeShares makes one buffer of gradients that are equal when they are made.
// Where that would be seen later it marks the node and returns false.
func (c *compiler) mergeShares() bool {
	ok := true
	for i := range c.p.code {
		in := &c.p.code[i]
		for _, s := range in.shares {
			if diverge(s, i) {
				c.unshared[in.node] = true
				ok = false
			}
		}
	}
	if !ok {
		return false
	}
	for i := range c.p.code {
		for _, s := range c.p.code[i].shares {
			for _, b := range s[1:] {
				merge(s[0], b)
			}
		}
	}
	return true
}

// diverge tells whether the contents of buffers that are equal after instruction i
// become different while it matters: one is written while another is still to be read.
func diverge(same []*buffer, i int) bool {
	for _, a := range same {
		for _, b := range same {
			for _, w := range a.writes {
				if a != b && w > i && w <= b.lastRead() {
					return true
				}
			}
		}
	}
	return false
}

// mergeTakes lets results live where their dying operand lies.
func (c *compiler) mergeTakes() {
	if c.opt.separate {
		return
	}
	for i := range c.p.code {
		in := &c.p.code[i]
		for _, k := range in.takes {
			older, newer := k.older.root(), k.newer.root()
			switch {
			case older == newer || older.fixed || newer.fixed || older.pinned:
			case older.bytes != newer.bytes:
			case older.last > i: // somebody reads it later
			case newer.first < i: // its fellows hold something else until now
			case in.touches(older, k.older): // the node promised for one operand only
			default:
				merge(older, newer)
			}
		}
	}
}

// touches tells whether the instruction uses a group by another buffer than except.
func (in *instruction) touches(group, except *buffer) bool {
	for _, list := range [][]*buffer{in.reads, in.writes} {
		for _, b := range list {
			if b != except && b.root() == group {
				return true
			}
		}
	}
	return false
}

// merge makes b's group part of a's.
func merge(a, b *buffer) {
	a, b = a.root(), b.root()
	if a == b {
		return
	}
	a.first = min(a.first, b.first)
	a.last = max(a.last, b.last)
	a.bytes = max(a.bytes, b.bytes)
	a.pinned = a.pinned || b.pinned
	b.group = a
}

// place gives every group of buffers an offset such that none that live at the
// same time overlap: largest first, each at the lowest offset that is free.
func (c *compiler) place() {
	var roots []*buffer
	for _, b := range c.p.buffers {
		if b.group != nil {
			continue
		}
		if b.pinned {
			b.last = len(c.p.code)
		}
		roots = append(roots, b)
	}
	sort.SliceStable(roots, func(i, j int) bool { return roots[i].bytes > roots[j].bytes })
	var placed []*buffer // by offset
	for _, b := range roots {
		at := 0
		for _, o := range placed {
			if !c.opt.separate && (o.last < b.first || b.last < o.first) {
				continue
			}
			if at+b.bytes <= o.offset {
				break
			}
			at = max(at, o.offset+o.bytes)
		}
		b.offset = at
		i := sort.Search(len(placed), func(i int) bool { return placed[i].offset > at })
		placed = append(placed, nil)
		copy(placed[i+1:], placed[i:])
		placed[i] = b
		c.p.size = max(c.p.size, at+b.bytes)
	}
}

// bind computes the addresses of the program's buffers.
func (p *Program) bind() {
	p.base = p.arena.buf.Addr
	for _, b := range p.buffers {
		b.at = tensor.Tensor{Device: p.tape.dev, Dtype: b.dtype, Shape: b.shape, Addr: p.base + uintptr(b.root().offset)}
		b.at.Stride = b.at.Cols()
	}
}
