package autograd

import (
	"fmt"
	"sort"

	"ringtail/tensor"
)

// Phase is the part of a step in which an instruction runs.
type Phase uint8

// The phases, in the order of a step; recomputation happens within the backward pass.
const (
	Forward Phase = iota
	Recompute
	Backward
)

func (p Phase) String() string { return [...]string{"forward", "recompute", "backward"}[p] }

// Hooks are called around each operation with the parameters that it uses; a
// placement policy fetches, pins and releases chunks there. They only enqueue.
type Hooks interface {
	Before(phase Phase, op string, params []*Param)
	After(phase Phase, op string, params []*Param)
}

// Options of Compile.
type Options struct {
	// Train adds the backward pass from all Fused nodes and Seeds.
	Train bool
	// Seeds are outputs whose gradient the caller provides: Seeds[v] is its memory.
	Seeds map[*Var]tensor.Tensor
	Hooks Hooks
}

// buffer is a stretch of the arena that one value or gradient occupies during
// part of the program.
type buffer struct {
	bytes       int
	first, last int // instructions between which it is occupied
	group       *buffer
	offset      int
	pinned      bool // occupied to the program's end
}

func (b *buffer) root() *buffer {
	for b.group != nil {
		b = b.group
	}
	return b
}

// binding places a value or a gradient of v at a buffer.
type binding struct {
	v   *Var
	buf *buffer
	dst *tensor.Tensor // what points there
	at  tensor.Tensor  // where that is; made by bind
}

type instruction struct {
	phase   Phase
	node    *Node
	run     func()
	defs    []*binding // values that it makes, pointed to before it runs
	restore []*binding // values to point to after it
}

// Program is a compiled tape.
type Program struct {
	dev      tensor.Device
	hooks    Hooks
	code     []instruction
	backward int // where the backward pass begins
	bindings []*binding
	buffers  []*buffer
	size     int
	arena    *Arena
	base     uintptr
}

// Size is the number of bytes of the arena that the program needs.
func (p *Program) Size() int { return p.size }

// Instructions describes the program, one line each, for plans and tests.
func (p *Program) Instructions() []string {
	var out []string
	for _, in := range p.code {
		out = append(out, in.phase.String()+" "+in.node.Name)
	}
	return out
}

// compiler holds the state of one compilation.
type compiler struct {
	t       *Tape
	opt     Options
	p       *Program
	current map[*Var]*binding // where each value lies at this point of the program
	remade  map[*Var]bool
	hasGrad map[*Var]bool
	grad    map[*Var]*buffer // absent for gradients in memory of the caller's
	takes   []take
	shares  []share
	reads   map[*buffer][]int
	writes  map[*buffer][]int
}

// take asks that newer lives in older's memory from instruction at on.
type take struct {
	newer, older *buffer
	at           int
}

// share asks that two gradients be one buffer.
type share struct {
	node       *Node
	main, same *buffer
	at         int
}

// Compile turns the record into a program that runs in arena.
func (t *Tape) Compile(arena *Arena, opt Options) (*Program, error) {
	for {
		c := &compiler{t: t, opt: opt, current: map[*Var]*binding{}, remade: map[*Var]bool{},
			grad: map[*Var]*buffer{}, hasGrad: map[*Var]bool{},
			reads: map[*buffer][]int{}, writes: map[*buffer][]int{}}
		c.p = &Program{dev: t.dev, hooks: opt.Hooks, arena: arena}
		c.emitForward()
		c.p.backward = len(c.p.code)
		if opt.Train {
			c.emitBackward()
		}
		if !c.resolveShares() {
			continue // a node was marked unshared; lay it out again
		}
		c.resolveTakes()
		c.place()
		if err := arena.reserve(c.p.size); err != nil {
			return nil, err
		}
		c.p.bind()
		return c.p, nil
	}
}

func (c *compiler) newBuffer(d tensor.Dtype, shape []int) *buffer {
	x := tensor.Tensor{Shape: shape, Dtype: d}
	x.Stride = x.Cols()
	b := &buffer{bytes: tensor.AlignUp(max(x.Bytes(), 1)), first: -1}
	c.p.buffers = append(c.p.buffers, b)
	return b
}

func (c *compiler) use(b *buffer, write bool) {
	if b == nil {
		return
	}
	i := len(c.p.code)
	if b.first < 0 {
		b.first = i
	}
	b.last = i
	if write {
		c.writes[b] = append(c.writes[b], i)
	} else {
		c.reads[b] = append(c.reads[b], i)
	}
}

// readValue marks a use of v's value by the instruction being emitted.
func (c *compiler) readValue(v *Var) {
	if v.external {
		return
	}
	b := c.current[v]
	if b == nil {
		panic(fmt.Sprintf("autograd: %s is read before it is made", v.name))
	}
	c.use(b.buf, false)
}

// defineValues gives the outputs of n fresh buffers.
func (c *compiler) defineValues(n *Node, in *instruction) {
	for _, v := range n.Out {
		if v.external {
			continue
		}
		b := c.newBuffer(v.Dtype, v.Shape)
		b.pinned = v.output
		c.use(b, true)
		bd := &binding{v: v, buf: b, dst: &v.value}
		c.current[v] = bd
		in.defs = append(in.defs, bd)
		c.p.bindings = append(c.p.bindings, bd)
	}
	for _, p := range n.InPlace {
		out, src := n.Out[p[0]], n.In[p[1]]
		if !src.external && !out.external {
			c.takes = append(c.takes, take{c.current[out].buf, c.current[src].buf, len(c.p.code)})
		}
	}
}

// emitApply emits the forward computation of n, as part of the forward pass or again.
func (c *compiler) emitApply(n *Node, phase Phase) {
	in := instruction{phase: phase, node: n, run: n.Forward}
	for _, v := range n.In {
		c.readValue(v)
	}
	c.defineValues(n, &in)
	if f := n.FusedForward; f != nil {
		if c.opt.Train && phase == Forward {
			c.emitGradients(n, in, f)
			return
		}
		g := newGrads(n)
		in.run = func() { f(g) }
	}
	c.p.code = append(c.p.code, in)
}

func (c *compiler) emitForward() {
	for _, n := range c.t.nodes {
		c.emitApply(n, Forward)
	}
}

// remake makes v's value available again if its region was not kept.
func (c *compiler) remake(v *Var) {
	if v.external || v.producer == nil || v.region == 0 || c.remade[v] || c.leaves(v) {
		return
	}
	n := v.producer
	for _, u := range n.In {
		c.remake(u)
	}
	for _, u := range n.Out {
		if !c.leaves(u) {
			c.remade[u] = true
		}
	}
	c.emitRecompute(n)
}

// emitRecompute runs n again. Of its outputs those that were kept are written to
// scratch, and read from where they were kept ever after.
func (c *compiler) emitRecompute(n *Node) {
	kept := map[*Var]*binding{}
	for _, v := range n.Out {
		if c.leaves(v) {
			kept[v] = c.current[v]
		}
	}
	c.emitApply(n, Recompute)
	var restore []*binding
	for _, v := range n.Out {
		if b := kept[v]; b != nil {
			c.current[v] = b
			restore = append(restore, b)
		}
	}
	c.p.code[len(c.p.code)-1].restore = restore
}

// leaves tells whether v, made in a checkpointed region, is used outside it and
// therefore kept.
func (c *compiler) leaves(v *Var) bool {
	if v.output {
		return true
	}
	for _, n := range v.consumers {
		if n.region != v.region {
			return true
		}
	}
	return false
}

// resolveShares merges gradients of summands where no later write to the one
// could be seen by a reader of the other.
func (c *compiler) resolveShares() bool {
	ok := true
	for _, s := range c.shares {
		lastRead := s.at
		for _, r := range c.reads[s.same] {
			lastRead = max(lastRead, r)
		}
		for _, w := range c.writes[s.main] {
			if w > s.at && w <= lastRead {
				s.node.unshare = true
				ok = false
			}
		}
		for _, w := range c.writes[s.same] {
			if w > s.at {
				s.node.unshare = true
				ok = false
			}
		}
	}
	if !ok {
		return false
	}
	for _, s := range c.shares {
		merge(s.main, s.same)
	}
	return true
}

// merge makes b part of a's group.
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

// resolveTakes lets results live where their dying operand lies.
func (c *compiler) resolveTakes() {
	for _, k := range c.takes {
		older, newer := k.older.root(), k.newer.root()
		if older == newer || older.pinned || newer.pinned || older.last > k.at || newer.first < k.at || older.bytes != newer.bytes {
			continue
		}
		merge(older, newer)
	}
}

// place gives every group of buffers an offset such that none that live at the
// same time overlap: largest first, each at the lowest offset that is free.
func (c *compiler) place() {
	var roots []*buffer
	end := len(c.p.code)
	for _, b := range c.p.buffers {
		if b.group == nil && b.first >= 0 {
			if b.pinned {
				b.last = end
			}
			roots = append(roots, b)
		}
	}
	sort.SliceStable(roots, func(i, j int) bool { return roots[i].bytes > roots[j].bytes })
	var placed []*buffer // by offset
	for _, b := range roots {
		at := 0
		for _, o := range placed {
			if o.last < b.first || b.last < o.first {
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
