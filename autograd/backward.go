package autograd

import (
	"fmt"
	"slices"
)

// emitBackward emits the backward pass: nodes in reverse, each preceded by what
// must be computed again for it.
func (c *compiler) emitBackward() {
	c.emitSeeds()
	for _, n := range slices.Backward(c.t.nodes) {
		if !slices.ContainsFunc(n.Out, func(v *Var) bool { return c.grad[v] != nil }) {
			continue // nothing flows here, or nothing below is trained
		}
		must(n.Backward != nil, n.Name, "a gradient reached it, and it has no backward pass")
		in := &instruction{phase: Backward, node: n}
		for _, v := range n.Needs {
			c.remake(v)
		}
		for _, v := range n.Needs {
			in.read(c.valueOf(v))
		}
		c.emitGradients(in, n.Backward)
	}
	for _, v := range c.t.vars {
		if v.external && v.needsGrad && c.grad[v] == nil {
			c.emitZero(v)
		}
	}
}

// emitSeeds begins with the gradients that the caller provides. They are copied
// where others will be added to them, or where they must be in the caller's other memory.
func (c *compiler) emitSeeds() {
	for v := range c.opt.Seeds {
		must(c.t.owns(v), "compile", "a seed for a value of another tape")
	}
	for _, v := range c.t.vars {
		x, ok := c.opt.Seeds[v]
		if !ok || !v.needsGrad {
			continue
		}
		must(slices.Equal(x.Shape, v.Shape) && x.Dtype == v.Dtype, "compile", "seed of %v is %v", v, x)
		seed := fixedBuffer("seed", x)
		if len(v.consumers) == 0 && !v.external {
			c.grad[v] = seed
			continue
		}
		c.emitSum(Backward, "seed", v, seed)
	}
}

// emitGradients emits the instruction in, in which f writes the gradients of the
// inputs of in's node, and the sums that must follow it.
func (c *compiler) emitGradients(in *instruction, f func(*Grads)) {
	n := in.node
	g := &Grads{Train: true, in: make([]gradSlot, len(n.In)), out: make([]*buffer, len(n.Out))}
	for i, v := range n.Out {
		if b := c.grad[v]; b != nil {
			g.out[i] = b
			in.read(b)
		}
	}
	var zeros []*buffer
	var sums []func()
	for i := range n.In {
		// f writes one gradient, that of all of targets.
		targets := summands(n, i)
		if len(targets) == 0 {
			continue
		}
		slot := &g.in[i]
		begun := slices.IndexFunc(targets, func(v *Var) bool { return c.grad[v] == nil })
		switch {
		case len(targets) == 1 && begun < 0 && (n.Accumulates || n.AddsOnly):
			// It adds to what others have begun.
			*slot = gradSlot{c.grad[targets[0]], true}
			in.read(slot.to)
			in.write(slot.to)
		case begun >= 0 && distinct(targets):
			// It begins a gradient, which the other targets share or add.
			first := targets[begun]
			*slot = gradSlot{c.newGradient(first), n.AddsOnly}
			in.write(slot.to)
			if n.AddsOnly {
				zeros = append(zeros, slot.to)
			}
			for _, p := range n.GradInPlace {
				if p[0] == i && g.out[p[1]] != nil {
					in.takes = append(in.takes, take{newer: slot.to, older: g.out[p[1]]})
				}
			}
			same := []*buffer{slot.to}
			for _, v := range targets {
				switch {
				case v == first:
				case c.mayShare(n, first, v):
					b := c.newGradient(v)
					in.write(b)
					same = append(same, b)
				default:
					sums = append(sums, func() { c.emitSum(in.phase, n.Name+": gradient", v, slot.to) })
				}
			}
			if len(same) > 1 {
				in.shares = append(in.shares, same)
			}
		default:
			// It goes through scratch memory.
			v := targets[0]
			*slot = gradSlot{c.newBuffer("part of d "+v.name, v.Dtype, v.Shape), n.AddsOnly}
			in.write(slot.to)
			if n.AddsOnly {
				zeros = append(zeros, slot.to)
			}
			for _, v := range targets {
				sums = append(sums, func() { c.emitSum(in.phase, n.Name+": gradient", v, slot.to) })
			}
		}
	}
	if n.Scratch && !slices.ContainsFunc(n.In, func(v *Var) bool { return v.needsGrad }) {
		b := c.newBuffer("unwanted d "+n.In[0].name, n.In[0].Dtype, n.In[0].Shape)
		g.in[0].to = b
		in.write(b)
	}
	ops := c.t.dev.Ops()
	in.run = func() {
		for _, b := range zeros {
			ops.Zero(b.at)
		}
		f(g)
	}
	c.emit(in)
	for _, sum := range sums {
		sum()
	}
}

// summands are the inputs of n whose gradient is that of input i, written once:
// In[i] itself, and its fellow summands. Empty if no gradient is wanted there, or
// if In[i] is among those of another.
func summands(n *Node, i int) []*Var {
	if !n.In[i].needsGrad {
		return nil
	}
	out := []*Var{n.In[i]}
	for _, s := range n.SharedGrad {
		switch {
		case s[1] == i && n.In[s[0]].needsGrad:
			return nil
		case s[0] == i && n.In[s[1]].needsGrad:
			out = append(out, n.In[s[1]])
		}
	}
	return out
}

func distinct(list []*Var) bool {
	for i, v := range list {
		if slices.Contains(list[:i], v) {
			return false
		}
	}
	return true
}

// mayShare tells whether, as far as is known here, the gradients of two summands
// can be one buffer; mergeShares has the last word.
func (c *compiler) mayShare(n *Node, a, b *Var) bool {
	return !c.opt.separate && !c.unshared[n] && c.grad[b] == nil && !a.external && !b.external
}

// newGradient gives v's gradient a place.
func (c *compiler) newGradient(v *Var) *buffer {
	b := c.grad[v]
	if b != nil {
		panic(fmt.Sprintf("autograd: the gradient of %v begins twice", v))
	}
	if v.external {
		b = fixedBuffer("d "+v.name, v.grad)
	} else {
		b = c.newBuffer("d "+v.name, v.Dtype, v.Shape)
	}
	c.grad[v] = b
	return b
}

// emitSum adds what lies in from to v's gradient.
func (c *compiler) emitSum(phase Phase, name string, v *Var, from *buffer) {
	in := &instruction{phase: phase, node: &Node{Name: name}}
	in.read(from)
	ops, to := c.t.dev.Ops(), c.grad[v]
	if to == nil {
		to = c.newGradient(v)
		in.run = func() { ops.Copy(to.at, from.at) }
	} else {
		in.read(to)
		in.run = func() { ops.Add(to.at, to.at, from.at) }
	}
	in.write(to)
	c.emit(in)
}

// emitZero clears the gradient of an input that nothing reached.
func (c *compiler) emitZero(v *Var) {
	in := &instruction{phase: Backward, node: &Node{Name: "no gradient"}}
	ops, to := c.t.dev.Ops(), c.newGradient(v)
	in.write(to)
	in.run = func() { ops.Zero(to.at) }
	c.emit(in)
}
