package autograd

import "ringtail/tensor"

// addition adds what an operation wrote to a temporary to the gradients that it
// belongs to, where the operation itself could not.
type addition struct {
	from *binding
	buf  *buffer
	to   []*Var
}

func newGrads(n *Node) *Grads {
	return &Grads{node: n, in: make([]gradSlot, len(n.In)), out: make([]*Var, len(n.Out))}
}

// emitBackward emits the backward pass: nodes in reverse, each preceded by what
// must be computed again for it.
func (c *compiler) emitBackward() {
	for v, seed := range c.opt.Seeds {
		if v.needsGrad {
			c.hasGrad[v] = true
			v.grad = seed
		}
	}
	for i := len(c.t.nodes) - 1; i >= 0; i-- {
		n := c.t.nodes[i]
		if n.Backward == nil {
			continue
		}
		flows := false
		for _, v := range n.Out {
			flows = flows || v.needsGrad && c.hasGrad[v]
		}
		if !flows {
			continue
		}
		for _, v := range n.Needs {
			c.remake(v)
		}
		for _, v := range n.Needs {
			c.readValue(v)
		}
		c.emitGradients(n, instruction{phase: Backward, node: n}, n.Backward)
	}
}

// emitGradients emits the instruction in, in which n writes the gradients of its
// inputs by calling f, and the additions that must follow it.
func (c *compiler) emitGradients(n *Node, in instruction, f func(*Grads)) {
	g := newGrads(n)
	g.Train = true
	for i, v := range n.Out {
		if c.hasGrad[v] {
			g.out[i] = v
			c.use(c.grad[v], false)
		}
	}
	sharedBy := map[int]int{} // input → the input whose gradient it shares
	mains := map[int][]int{}  // input → those that share its gradient
	for _, s := range n.SharedGrad {
		if n.In[s[0]].needsGrad && n.In[s[1]].needsGrad {
			sharedBy[s[1]] = s[0]
			mains[s[0]] = append(mains[s[0]], s[1])
		}
	}
	var zero []*Var
	var adds []addition
	for i, v := range n.In {
		if _, ok := sharedBy[i]; ok || !v.needsGrad {
			continue
		}
		others := mains[i]
		if len(others) > 0 && !c.canShare(n, v, others) {
			targets := []*Var{v}
			for _, o := range others {
				targets = append(targets, n.In[o])
			}
			adds = append(adds, c.throughTemporary(&g.in[i], v, targets))
			continue
		}
		first := !c.hasGrad[v]
		if !first && !n.Accumulates && !n.AddsOnly {
			adds = append(adds, c.throughTemporary(&g.in[i], v, []*Var{v}))
			continue
		}
		c.ensureGrad(v)
		c.use(c.grad[v], true)
		g.in[i].accumulate = !first || n.AddsOnly
		c.bindSlot(v, &g.in[i])
		if first && n.AddsOnly {
			zero = append(zero, v)
		}
		if first {
			c.takeGradient(n, g, i)
		}
		for _, o := range others {
			same := n.In[o]
			c.ensureGrad(same)
			c.use(c.grad[same], true)
			c.shares = append(c.shares, share{n, c.grad[v], c.grad[same], len(c.p.code)})
		}
	}
	ops := c.t.dev.Ops()
	in.run = func() {
		for _, v := range zero {
			ops.Zero(v.grad)
		}
		f(g)
	}
	c.p.code = append(c.p.code, in)
	for _, a := range adds {
		c.emitAddition(n, a)
	}
}

// canShare tells whether the gradients of v and of n's inputs others may, as far as is
// known here, be one buffer; resolveShares has the last word.
func (c *compiler) canShare(n *Node, v *Var, others []int) bool {
	if n.unshare || c.hasGrad[v] || v.external {
		return false
	}
	for _, o := range others {
		if s := n.In[o]; c.hasGrad[s] || s.external || s == v {
			return false
		}
	}
	return true
}

// takeGradient lets the gradient of input i live where that of an output lies.
func (c *compiler) takeGradient(n *Node, g *Grads, i int) {
	newer := c.grad[n.In[i]]
	for _, p := range n.GradInPlace {
		if p[0] != i || g.out[p[1]] == nil {
			continue
		}
		if older := c.grad[g.out[p[1]]]; older != nil && newer != nil {
			c.takes = append(c.takes, take{newer, older, len(c.p.code)})
		}
	}
}

// throughTemporary makes a slot write to scratch memory of v's shape.
func (c *compiler) throughTemporary(slot *gradSlot, v *Var, to []*Var) addition {
	b := c.newBuffer(v.Dtype, v.Shape)
	c.use(b, true)
	bd := &binding{v: v, buf: b, dst: &slot.t}
	c.p.bindings = append(c.p.bindings, bd)
	return addition{bd, b, to}
}

func (c *compiler) emitAddition(n *Node, a addition) {
	ops := c.t.dev.Ops()
	for _, v := range a.to {
		first := !c.hasGrad[v]
		c.ensureGrad(v)
		c.use(a.buf, false)
		c.use(c.grad[v], true)
		run := func() { ops.Add(v.grad, v.grad, a.from.at) }
		if first {
			run = func() { ops.Copy(v.grad, a.from.at) }
		}
		sum := &Node{Name: n.Name + ": sum of gradients"}
		c.p.code = append(c.p.code, instruction{phase: Backward, node: sum, run: run})
	}
}

// ensureGrad gives v's gradient a place.
func (c *compiler) ensureGrad(v *Var) {
	if c.hasGrad[v] {
		return
	}
	c.hasGrad[v] = true
	if v.external {
		return
	}
	b := c.newBuffer(v.Dtype, v.Shape)
	c.grad[v] = b
	c.p.bindings = append(c.p.bindings, &binding{v: v, buf: b, dst: &v.grad})
}

// bindSlot makes a slot point to v's own gradient.
func (c *compiler) bindSlot(v *Var, slot *gradSlot) {
	if b := c.grad[v]; b != nil {
		c.p.bindings = append(c.p.bindings, &binding{v: v, buf: b, dst: &slot.t})
		return
	}
	slot.t = v.grad
}

// Grad is where v's gradient lies after a backward pass, for values whose memory
// is the caller's; the zero Tensor if none reached it.
func (v *Var) Grad() tensor.Tensor { return v.grad }
