package autograd

import (
	"fmt"

	"ringtail/tensor"
)

// Arena is the memory that programs of one device share: as programs run one at
// a time (a training step, an evaluation, a rollout), each overlays the whole of it.
type Arena struct {
	dev tensor.Device
	buf *tensor.Buffer
}

// NewArena is an empty arena; it grows to the largest program compiled for it.
func NewArena(dev tensor.Device) *Arena { return &Arena{dev: dev} }

// Size is the number of bytes that the arena holds.
func (a *Arena) Size() int {
	if a.buf == nil {
		return 0
	}
	return a.buf.Size
}

// reserve makes the arena hold at least n bytes. Growing moves it; programs
// notice when they next run.
func (a *Arena) reserve(n int) error {
	if a.buf != nil && a.buf.Size >= n {
		return nil
	}
	if a.buf != nil {
		if err := a.dev.Sync(); err != nil {
			return err
		}
		a.buf.Free()
		a.buf = nil
	}
	b, err := a.dev.Alloc(max(n, 1))
	if err != nil {
		return fmt.Errorf("memory for activations: %w", err)
	}
	a.buf = b
	return nil
}

// Free gives the memory back. Programs of the arena must not run afterwards.
func (a *Arena) Free() {
	if a.buf != nil {
		a.buf.Free()
		a.buf = nil
	}
}

// bind computes the addresses of everything in the program.
func (p *Program) bind() {
	p.base = p.arena.buf.Addr
	for _, b := range p.bindings {
		root := b.buf.root()
		t := tensor.Tensor{Device: p.dev, Dtype: b.v.Dtype, Shape: b.v.Shape, Addr: p.base + uintptr(root.offset)}
		t.Stride = t.Cols()
		b.at = t
		if b.dst != &b.v.value {
			*b.dst = t // gradients have one place each
		}
	}
}

// Forward runs the forward pass (in a training program, the losses with it).
func (p *Program) Forward() { p.exec(p.code[:p.backward]) }

// Backward runs the backward pass; Forward must have run just before.
func (p *Program) Backward() { p.exec(p.code[p.backward:]) }

func (p *Program) exec(code []instruction) {
	if p.arena.buf == nil || p.arena.buf.Size < p.size {
		panic("autograd: program run after its arena was freed")
	}
	if p.arena.buf.Addr != p.base {
		p.bind()
	}
	for i := range code {
		in := &code[i]
		for _, b := range in.defs {
			*b.dst = b.at
		}
		if p.hooks != nil && len(in.node.Params) > 0 {
			p.hooks.Before(in.phase, in.node.Name, in.node.Params)
			in.run()
			p.hooks.After(in.phase, in.node.Name, in.node.Params)
		} else {
			in.run()
		}
		for _, b := range in.restore {
			*b.dst = b.at
		}
	}
}
