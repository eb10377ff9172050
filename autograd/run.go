package autograd

import (
	"fmt"

	"ringtail/invariants"
	"ringtail/tensor"
)

// Arena is the memory that programs of one device share: as programs run one at
// a time (a training step, an evaluation, a rollout), each overlays the whole of it.
type Arena struct {
	dev    tensor.Device
	buf    *tensor.Buffer
	holder *Program // whose Forward ran last: what lies here is its
	moves  int
}

// Generation changes when the arena's memory has moved: graphs recorded before name
// addresses that are no longer its.
func (a *Arena) Generation() int { return a.moves }

// NewArena is an empty arena; it grows to the largest program compiled for it.
func NewArena(dev tensor.Device) *Arena { return &Arena{dev: dev} }

// Size is the number of bytes that the arena holds.
func (a *Arena) Size() int {
	if a.buf == nil {
		return 0
	}
	return a.buf.Size
}

// reserve makes the arena hold at least n bytes. Growing moves it, and what it
// held is lost; programs notice when they next run.
func (a *Arena) reserve(n int) error {
	if a.buf != nil && a.buf.Size >= n {
		return nil
	}
	if a.buf != nil {
		if err := a.dev.Sync(); err != nil {
			return err
		}
		a.Free()
	}
	restore := tensor.Label(a.dev, "activations")
	b, err := a.dev.Alloc(max(n, 1))
	restore()
	if err != nil {
		return fmt.Errorf("memory for activations: %w", err)
	}
	a.buf = b
	a.moves++
	return nil
}

// Free gives the memory back. Programs of the arena must not run afterwards.
func (a *Arena) Free() {
	if a.buf != nil {
		a.buf.Free()
		a.buf, a.holder = nil, nil
	}
}

// Forward runs the forward pass (in a training program, the losses with it).
func (p *Program) Forward() {
	p.hold()
	p.exec(0, p.backward)
}

// Backward runs the backward pass of the Forward before it. No other program of
// the arena or the tape may have run in between.
func (p *Program) Backward() {
	if p.arena == nil || p.arena.holder != p || p.tape.holder != p {
		panic("autograd: a backward pass without its forward pass just before it")
	}
	p.exec(p.backward, len(p.code))
}

// Launched tells the program that a graph recorded of its Forward has run.
func (p *Program) Launched() { p.hold() }

// bindIfMoved computes addresses anew where the arena has moved.
func (p *Program) bindIfMoved() {
	if p.arena.buf == nil || p.arena.buf.Size < p.size {
		panic("autograd: program run after its arena was freed")
	}
	if p.arena.buf.Addr != p.base {
		p.bind()
	}
}

// exec runs instructions [from, to).
func (p *Program) exec(from, to int) {
	p.bindIfMoved()
	for i := from; i < to; i++ {
		in := &p.code[i]
		for _, d := range in.define {
			d.v.value = d.to.at
		}
		if invariants.Enabled {
			p.checkBefore(i)
		}
		hooked := p.hooks != nil && len(in.node.Params) > 0
		if hooked {
			p.hooks.Before(in.phase, in.node.Name, in.node.Params)
		}
		in.run()
		if hooked {
			p.hooks.After(in.phase, in.node.Name, in.node.Params)
		}
		if invariants.Enabled {
			p.checkAfter(i)
		}
		for _, d := range in.restore {
			d.v.value = d.to.at
		}
	}
}
