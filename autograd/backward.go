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

// gradients is an instruction that makes gradients, being put together.
type gradients struct {
	*instruction
	c     *compiler
	g     *Grads
	zeros []*buffer // cleared before it
	sums  []func()  // emitted after it
}

// emitGradients emits the instruction in, in which f writes the gradients of the
// inputs of in's node, and the sums that must follow it.
func (c *compiler) emitGradients(in *instruction, f func(*Grads)) {
	n := in.node
	m := &gradients{instruction: in, c: c, g: &Grads{Train: true, in: make([]gradSlot, len(n.In)), out: make([]*buffer, len(n.Out))}}
	c.addsTo(in, m.g)
	for i, v := range n.Out {
		if b := c.grad[v]; b != nil {
			m.g.out[i] = b
			m.read(b)
		}
	}
	for i := range n.In {
		targets := summands(n, i) // f writes one gradient, that of all of them
		fresh := slices.IndexFunc(targets, func(v *Var) bool { return c.grad[v] == nil })
		switch {
		case len(targets) == 0: // not wanted, or written with another's
		case fresh >= 0 && distinct(targets):
			m.begin(i, targets[fresh], targets)
		case len(targets) == 1 && (n.Accumulates || n.AddsOnly):
			m.add(i, targets[0])
		default:
			m.through(i, targets)
		}
	}
	if n.Scratch && !slices.ContainsFunc(n.In, func(v *Var) bool { return v.needsGrad }) {
		m.through(0, nil)
	}
	for _, x := range n.Temporaries {
		b := c.newBuffer(x.Name, x.Dtype, x.Shape)
		m.write(b)
		m.g.temps = append(m.g.temps, b)
	}
	ops := c.t.dev.Ops()
	in.run = func() {
		for _, b := range m.zeros {
			ops.Zero(b.at)
		}
		f(m.g)
	}
	c.emit(in)
	for _, sum := range m.sums {
		sum()
	}
}

// to makes b, which holds nothing yet, what is written for input i.
func (m *gradients) to(i int, b *buffer) {
	m.g.in[i] = gradSlot{to: b, accumulate: m.node.AddsOnly}
	m.write(b)
	if m.node.AddsOnly {
		m.zeros = append(m.zeros, b)
	}
}

// sum lets v's gradient be increased by what is in b afterwards.
func (m *gradients) sum(v *Var, b *buffer) {
	m.sums = append(m.sums, func() { m.c.emitSum(m.phase, m.node.Name+": gradient", v, b) })
}

// add makes what is written for input i add to v's gradient, which others began.
func (m *gradients) add(i int, v *Var) {
	b := m.c.grad[v]
	m.g.in[i] = gradSlot{to: b, accumulate: true}
	m.read(b)
	m.write(b)
}

// begin makes what is written for input i the beginning of the gradient of first.
// The other targets share the buffer or, where that can't be, get the sum.
func (m *gradients) begin(i int, first *Var, targets []*Var) {
	b := m.c.newGradient(first)
	m.to(i, b)
	for _, p := range m.node.GradInPlace {
		if p[0] == i && m.g.out[p[1]] != nil {
			m.takes = append(m.takes, take{newer: b, older: m.g.out[p[1]]})
		}
	}
	for _, p := range m.node.GradOver {
		if p[0] == i {
			m.takes = append(m.takes, take{newer: b, older: m.c.value[m.node.Needs[p[1]]]})
		}
	}
	same := []*buffer{b}
	for _, v := range targets {
		switch {
		case v == first:
		case m.c.mayShare(m.node, first, v):
			same = append(same, m.c.newGradient(v))
			m.write(m.c.grad[v])
		default:
			m.sum(v, b)
		}
	}
	if len(same) > 1 {
		m.shares = append(m.shares, same)
	}
}

// through makes what is written for input i go to scratch memory, from where it
// is added to the gradients of targets, if any.
func (m *gradients) through(i int, targets []*Var) {
	v := m.node.In[i]
	b := m.c.newBuffer("part of d "+v.name, v.Dtype, v.Shape)
	m.to(i, b)
	for _, v := range targets {
		m.sum(v, b)
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
