package autograd

import (
	"fmt"
	"slices"
	"strings"

	"ringtail/invariants"
	"ringtail/tensor"
)

// Phase is the part of a step in which an instruction runs.
type Phase uint8

// The phases, in the order of a step; recomputation happens within the backward
// pass. A fused loss makes its gradients, those of its parameters too, in Forward.
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
	// Train adds the backward pass from all fused losses and Seeds.
	Train bool
	// Seeds are values whose gradient the caller provides: Seeds[v] is its memory,
	// of v's shape, and is only read.
	Seeds map[*Var]tensor.Tensor
	Hooks Hooks
	// Gradients, with Train, are the chunks of gradients that the program makes in its
	// arena (GradChunk). A step must then be one run of the program.
	Gradients []*GradChunk
	// Selective doesn't keep cheap values (Node.Remake) for the backward pass but makes
	// them again just before they are needed. They get the same bits, provided that a norm
	// of a sum goes on with the sum as it is stored; tensor.Ops allows devices not to.
	Selective bool

	// separate gives every buffer memory of its own, and keep keeps the values of
	// checkpointed regions: tests compare programs with and without.
	separate, keep bool
}

// Program is a compiled tape: a list of instructions over buffers of an arena.
type Program struct {
	tape     *Tape
	hooks    Hooks
	code     []instruction
	backward int // where the backward pass begins
	buffers  []*buffer
	grads    []*gradPlace
	size     int
	arena    *Arena
	base     uintptr // of the arena, when addresses were computed
}

// instruction runs one node, in one phase.
type instruction struct {
	phase Phase
	node  *Node
	run   func()
	// The buffers that it touches; one that it adds to is in both lists.
	reads, writes []*buffer
	define        []pointer // values that it makes, pointed to before it runs
	restore       []pointer // values to point to where they were kept, after it
	shares        [][]*buffer
	takes         []take
}

// pointer says where a value lies from some instruction on.
type pointer struct {
	v  *Var
	to *buffer
}

func (in *instruction) read(b *buffer)  { in.reads = append(in.reads, b) }
func (in *instruction) write(b *buffer) { in.writes = append(in.writes, b) }

// compiler is the state of one compilation. Maps are looked up, never ranged
// over: the same record gives the same program.
type compiler struct {
	t        *Tape
	opt      Options
	p        *Program
	value    map[*Var]*buffer // where each value lies at this point of the program
	grad     map[*Var]*buffer // where its gradient lies, once something flowed there
	remade   map[*Var]bool    // values that were made again
	dropped  map[*Var]bool    // values outside regions that aren't kept; see drop
	unshared map[*Node]bool   // nodes whose summands' gradients can't be one buffer
}

// Compile turns the record into a program that runs in arena. Without an arena
// the program is only planned: its Size and Instructions are known, no memory is
// allocated and parameters and inputs need none.
//
// It first writes the program down with a buffer of its own for every value and
// gradient (emitForward; emitBackward in backward.go), each instruction noting
// which buffers it reads and writes. From these notes it then finds which buffers
// can be one (mergeShares, mergeTakes) and where each lies (place; all in
// memory.go). Where a gradient can't be shared as was assumed while writing,
// everything is written again without that.
func (t *Tape) Compile(arena *Arena, opt Options) (*Program, error) {
	unshared := map[*Node]bool{}
	for {
		c := &compiler{t: t, opt: opt, value: map[*Var]*buffer{}, grad: map[*Var]*buffer{},
			remade: map[*Var]bool{}, unshared: unshared}
		c.p = &Program{tape: t, hooks: opt.Hooks, arena: arena}
		if opt.Train {
			c.placeGradients()
			c.dropCheap()
		}
		c.emitForward()
		c.p.backward = len(c.p.code)
		if opt.Train {
			c.emitBackward()
			c.settleGradients()
		}
		if !c.mergeShares() {
			continue
		}
		c.mergeTakes()
		c.place()
		if invariants.Enabled {
			c.p.verify()
		}
		if arena == nil {
			return c.p, nil
		}
		if err := arena.reserve(c.p.size); err != nil {
			return nil, err
		}
		c.p.bind()
		return c.p, nil
	}
}

// emit adds an instruction to the program.
func (c *compiler) emit(in *instruction) {
	i := len(c.p.code)
	for _, b := range in.reads {
		b.reads = append(b.reads, i)
		b.touch(i)
	}
	for _, b := range in.writes {
		b.writes = append(b.writes, i)
		b.touch(i)
	}
	c.p.code = append(c.p.code, *in)
}

// emitForward emits every node in the order of the record.
func (c *compiler) emitForward() {
	for _, v := range c.t.vars {
		if v.external {
			c.value[v] = fixedBuffer(v.name, v.value)
		}
	}
	for _, n := range c.t.nodes {
		c.emitApply(n, Forward, n.In, n.Out, n.Forward)
	}
}

// emitApply emits run, the computation of out, which are results of n, from the values
// from, in the forward pass or once more. What is computed once more though it was kept
// goes to scratch memory, and is read from where it was kept ever after.
func (c *compiler) emitApply(n *Node, phase Phase, from, out []*Var, run func()) {
	in := &instruction{phase: phase, node: n, run: run}
	for _, v := range from {
		in.read(c.valueOf(v))
	}
	made := map[*Var]*buffer{}
	for _, v := range out {
		b := c.newBuffer(v.name, v.Dtype, v.Shape)
		made[v] = b
		in.write(b)
		in.define = append(in.define, pointer{v, b})
		if phase == Recompute && c.kept(v) {
			in.restore = append(in.restore, pointer{v, c.value[v]})
			continue
		}
		b.output, b.pinned = v.output, v.output
		c.value[v] = b
	}
	for _, p := range n.InPlace {
		if to, v := made[n.Out[p[0]]], n.In[p[1]]; to != nil && slices.Contains(from, v) {
			in.takes = append(in.takes, take{newer: to, older: c.value[v]})
		}
	}
	if f := n.FusedForward; f != nil {
		if c.opt.Train && phase == Forward {
			c.emitGradients(in, f)
			return
		}
		g := &Grads{in: make([]gradSlot, len(n.In)), out: make([]*buffer, len(n.Out))}
		in.run = func() { f(g) }
	}
	c.emit(in)
}

// valueOf is where v lies now.
func (c *compiler) valueOf(v *Var) *buffer {
	b := c.value[v]
	if b == nil {
		panic(fmt.Sprintf("autograd: %v is used before it is made", v))
	}
	return b
}

// kept tells whether v, once made, is kept to its last use: it is not cheap, and was
// made outside checkpointed regions or is used outside its own.
func (c *compiler) kept(v *Var) bool {
	if c.dropped[v] {
		return false
	}
	if v.region == 0 || v.output || c.opt.keep {
		return true
	}
	return slices.ContainsFunc(v.consumers, func(n *Node) bool { return n.region != v.region })
}

// dropCheap chooses the values outside checkpointed regions that aren't kept, but made
// again where the backward pass needs them: those with a Remake whose operands are there
// anyway. They are inputs, or read by the backward pass themselves, or cheap as well.
func (c *compiler) dropCheap() {
	c.dropped = map[*Var]bool{}
	if !c.opt.Selective || c.opt.keep {
		return
	}
	read := map[*Var]bool{} // by the backward pass
	for _, n := range c.t.nodes {
		if slices.ContainsFunc(n.Out, func(v *Var) bool { return v.needsGrad }) {
			for _, v := range n.Needs {
				read[v] = true
			}
		}
	}
	for _, n := range c.t.nodes { // operands come before results
		if r := n.Remake; r != nil && n.region == 0 && !r.Out.output {
			there := func(v *Var) bool { return v.external || read[v] || c.dropped[v] }
			c.dropped[r.Out] = !slices.ContainsFunc(r.From, func(v *Var) bool { return !there(v) })
		}
	}
}

// remake makes the value of v available again if it was not kept, with all that was not
// kept of what it is made from. Once remade a value stays to its last use.
func (c *compiler) remake(v *Var) {
	if c.kept(v) || c.remade[v] {
		return
	}
	n := v.producer
	from, out, run := n.In, n.Out, n.Forward
	if r := n.Remake; c.dropped[v] {
		from, out, run = r.From, append([]*Var{v}, r.Also...), r.Run
	}
	for _, u := range from {
		c.remake(u)
	}
	for _, u := range out {
		c.remade[u] = true
	}
	c.emitApply(n, Recompute, from, out, run)
}

// Size is the number of bytes of the arena that the program needs.
func (p *Program) Size() int { return p.size }

// Instructions describes the program, one line each, for people and tests: phase,
// operation and parameters, buffers read, buffers written. A buffer of the arena
// is shown with its offset, as name@offset; others are memory of the caller's.
func (p *Program) Instructions() []string {
	list := func(l []*buffer) string {
		var names []string
		for _, b := range l {
			names = append(names, b.String())
		}
		return strings.Join(names, " ")
	}
	var out []string
	for _, in := range p.code {
		out = append(out, fmt.Sprintf("%s: %s -> %s", p.describe(&in), list(in.reads), list(in.writes)))
	}
	return out
}

// describe names an instruction: phase, operation and parameters.
func (p *Program) describe(in *instruction) string {
	text := fmt.Sprintf("%v %s", in.phase, in.node.Name)
	for _, q := range in.node.Params {
		text += " " + q.Name
	}
	return text
}
