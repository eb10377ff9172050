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
// runs. In between the optimizer finds it there. Products whose gradient is the first of
// their weights write it (Node.Overwrites); the rest of a chunk begins with 0.

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
	adds  []addition // in the program's order
	clear []span     // what begins with 0
}

// addition is an instruction's to the gradient of a parameter.
type addition struct {
	param  *Param
	grads  *Grads // of the instruction
	writes bool   // the instruction could write instead of adding
}

// span is elements [from, to) of a chunk.
type span struct{ from, to int }

func (s span) overlaps(o span) bool { return s.from < o.to && o.from < s.to }

// placeGradients makes a buffer for each chunk of Options.Gradients.
func (c *compiler) placeGradients() {
	for i, g := range c.opt.Gradients {
		must(!slices.Contains(c.opt.Gradients[:i], g), "compile", "the gradients of chunk %d are listed twice", i)
		b := c.newBuffer(fmt.Sprintf("gradients, chunk %d", i), g.Dtype, []int{g.Len})
		b.output, b.pinned, b.pieces = true, true, true
		c.p.grads = append(c.p.grads, &gradPlace{chunk: g, to: b})
	}
}

// addsTo notes that in, whose Grads are g, adds to the gradients of its node's parameters,
// and lets those in the arena begin that didn't before.
func (c *compiler) addsTo(in *instruction, g *Grads) {
	for _, q := range in.node.Params {
		if q.InArena == nil {
			continue
		}
		i := slices.IndexFunc(c.p.grads, func(p *gradPlace) bool { return p.chunk == q.InArena })
		must(i >= 0, in.node.Name, "the gradient of %v lies in the arena, and Options.Gradients lacks its chunk", q)
		place := c.p.grads[i]
		place.adds = append(place.adds, addition{q, g, slices.Contains(in.node.Overwrites, q)})
		b := place.to
		if slices.Contains(in.writes, b) {
			continue
		}
		if len(b.writes) == 0 {
			c.emitClear(in.phase, place)
		}
		in.read(b)
		in.write(b)
	}
}

// emitClear lets the gradients of a chunk begin with 0, where nothing writes them.
func (c *compiler) emitClear(phase Phase, place *gradPlace) {
	in := &instruction{phase: phase, node: &Node{Name: "zero"}}
	ops := c.t.dev.Ops()
	in.write(place.to)
	in.run = func() {
		for _, s := range place.clear {
			ops.Zero(place.to.at.Slice(s.from, s.to-s.from))
		}
	}
	c.emit(in)
}

// settleGradients decides, when all additions are known, which are written and what is
// cleared before them; chunks that nothing adds to are cleared at the program's end.
func (c *compiler) settleGradients() {
	for _, place := range c.p.grads {
		if len(place.adds) == 0 {
			c.emitClear(Backward, place)
		}
		place.settle()
	}
}

// settle lets the first addition to a parameter write its gradient, if it can. What no
// such addition covers is cleared.
func (p *gradPlace) settle() {
	var seen, written []span
	for _, a := range p.adds {
		s := span{a.param.At, a.param.At + tensor.Tensor{Shape: a.param.Shape}.Len()}
		if a.writes && !slices.ContainsFunc(seen, s.overlaps) {
			a.grads.fresh = append(a.grads.fresh, a.param)
			written = append(written, s)
		}
		seen = append(seen, s)
	}
	slices.SortFunc(written, func(a, b span) int { return a.from - b.from })
	at := 0
	for _, s := range append(written, span{p.chunk.Len, p.chunk.Len}) {
		if s.from > at {
			p.clear = append(p.clear, span{at, s.from})
		}
		at = s.to
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
