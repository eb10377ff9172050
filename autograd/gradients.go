package autograd

import (
	"fmt"
	"slices"

	"ringtail/tensor"
)

// Gradients of parameters in the arena. Where one program makes all gradients of a step,
// they needn't exist before it: each chunk of them begins at the first instruction that
// adds to one of its parameters, late in the backward pass, in memory that activations
// gave back, and stays to the program's end and until another program of the arena
// runs. In between the optimizer finds it there.

// GradChunk is the gradients of a chunk of parameters, which training programs make in
// their arena: one flat tensor.
type GradChunk struct {
	Dtype tensor.Dtype
	Len   int
	// Bind is called when they come to lie elsewhere; it sets Param.Grad of the
	// chunk's parameters.
	Bind func(at tensor.Tensor)

	at     tensor.Tensor
	holder *Program // which made them last
}

// Held tells whether the gradients are as a training program left them: one ran, and no
// other program of its arena since.
func (g *GradChunk) Held() bool { return g.holder != nil && g.holder.arena.holder == g.holder }

// gradPlace is where a program makes a chunk's gradients.
type gradPlace struct {
	chunk *GradChunk
	to    *buffer
}

// placeGradients makes a buffer for each chunk of Options.Gradients.
func (c *compiler) placeGradients() {
	for i, g := range c.opt.Gradients {
		must(!slices.Contains(c.opt.Gradients[:i], g), "compile", "the gradients of chunk %d are listed twice", i)
		b := c.newBuffer(fmt.Sprintf("gradients, chunk %d", i), g.Dtype, []int{g.Len})
		b.output, b.pinned = true, true
		c.p.grads = append(c.p.grads, gradPlace{g, b})
	}
}

// addsTo notes that in adds to the gradients of its node's parameters, and lets those in
// the arena begin that didn't before.
func (c *compiler) addsTo(in *instruction) {
	for _, q := range in.node.Params {
		if q.InArena == nil {
			continue
		}
		i := slices.IndexFunc(c.p.grads, func(g gradPlace) bool { return g.chunk == q.InArena })
		must(i >= 0, in.node.Name, "the gradient of %v lies in the arena, and Options.Gradients lacks its chunk", q)
		b := c.p.grads[i].to
		if slices.Contains(in.writes, b) {
			continue
		}
		if len(b.writes) == 0 {
			c.emitClear(in.phase, b)
		}
		in.read(b)
		in.write(b)
	}
}

// emitClear lets the gradients of a chunk begin with 0.
func (c *compiler) emitClear(phase Phase, b *buffer) {
	in := &instruction{phase: phase, node: &Node{Name: "zero"}}
	ops := c.t.dev.Ops()
	in.write(b)
	in.run = func() { ops.Zero(b.at) }
	c.emit(in)
}

// clearUntouched clears the gradients of chunks that nothing added to.
func (c *compiler) clearUntouched() {
	for _, g := range c.p.grads {
		if len(g.to.writes) == 0 {
			c.emitClear(Backward, g.to)
		}
	}
}

// hold makes p the program whose values and gradients lie in the arena.
func (p *Program) hold() {
	if p.arena == nil {
		panic("autograd: a program that was only planned can't run")
	}
	p.bindIfMoved()
	p.arena.holder, p.tape.holder = p, p
	for _, g := range p.grads {
		g.chunk.holder = p
		if g.chunk.at.Addr != g.to.at.Addr {
			g.chunk.at = g.to.at
			g.chunk.Bind(g.to.at)
		}
	}
}
