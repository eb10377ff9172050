package autograd

import (
	"fmt"
	"slices"

	"ringtail/tensor"
)

// Param is a tensor of weights that operations use. Value and Grad are views into
// chunks (package shard) and may be several stored tensors seen as one, such as
// q, k and v. Operations look at Value and Grad when they run, so that hooks may
// move them. Frozen weights, which receive no gradient, have neither Grad nor InArena.
type Param struct {
	Name  string
	Shape []int
	Value tensor.Tensor
	Grad  tensor.Tensor
	// InArena, where it isn't nil, is the chunk of gradients that Grad becomes part of
	// when a training program runs, and which the program makes; see GradChunk.
	InArena *GradChunk
	At      int // elements from the chunk's start to Grad's
	// Chunk numbers the chunk that holds the weights, for hooks.
	Chunk int
	// Eight, where it isn't nil, has Linear multiply 8-bit floats; Value is what they are made from.
	Eight *Eight
	// Padded, where it is more than the first dimension, says that rows of zeros up to so
	// many follow in Value and Grad.
	Padded int
}

// Trainable tells whether the parameter receives a gradient.
func (p *Param) Trainable() bool { return p.InArena != nil || !p.Grad.IsZero() }

func (p *Param) String() string { return fmt.Sprintf("%s %v", p.Name, p.Shape) }

// Var is a value computed by the tape, or an input of it.
type Var struct {
	Shape []int
	Dtype tensor.Dtype

	id        int
	name      string
	value     tensor.Tensor // where the value now lies; programs set it as they run
	grad      tensor.Tensor // of a GradInput: where its gradient goes
	external  bool          // memory belongs to the caller
	output    bool          // kept until the program runs again
	needsGrad bool          // something trained lies below it
	region    int           // checkpointed region that makes it, 0 for none
	producer  *Node
	consumers []*Node
}

// Value is where v lies: for operations while they run, for inputs always, and
// for outputs after a run, until another program runs or grows the same arena.
func (v *Var) Value() tensor.Tensor { return v.value }

// Grad is where the gradient of a GradInput is written; the zero Tensor for
// other values, whose gradients live no longer than they are needed.
func (v *Var) Grad() tensor.Tensor { return v.grad }

// Rows is the product of all of v's dimensions but the last.
func (v *Var) Rows() int { return tensor.Tensor{Shape: v.Shape}.Rows() }

// Cols is the last dimension of v.
func (v *Var) Cols() int { return tensor.Tensor{Shape: v.Shape}.Cols() }

func (v *Var) String() string { return fmt.Sprintf("%s %v", v.name, v.Shape) }

// Node is one recorded operation: what it computes and what it promises about
// memory. The promises are about one buffer each: an operation that may overwrite
// an operand must read what it needs of each row or element before writing there,
// but no two of its results are ever given the same memory.
type Node struct {
	Name   string
	In     []*Var
	Out    []*Var
	Params []*Param

	// Forward computes Out from In.
	Forward func()
	// Backward computes the gradients of In from those of Out, and adds those of
	// Params to Param.Grad. Its argument tells where they lie. It runs if a gradient
	// reached at least one of Out. Without Backward nothing may flow through.
	Backward func(g *Grads)
	// Needs are the values, out of In and Out, that Backward reads.
	Needs []*Var
	// FusedForward stands in place of Forward and Backward where the gradients of
	// In and Params are made along with Out: a loss whose scale is known
	// beforehand. Without gradients wanted, its Grads are empty.
	FusedForward func(g *Grads)

	// Accumulates: Backward can add to a gradient that others have begun.
	Accumulates bool
	// AddsOnly: Backward can only add; a first gradient is zeroed before it.
	AddsOnly bool
	// Overwrites are those of Params whose gradient Backward can write instead of adding
	// to it, as Grads.Beta says.
	Overwrites []*Param
	// InPlace lists {out, in}: Out[out] may take over the memory of In[in].
	InPlace [][2]int
	// Remake tells how a result is cheaply made again; nil: it isn't.
	Remake *Remake
	// GradInPlace lists {in, out}: the gradient of In[in] may take over the
	// memory of that of Out[out].
	GradInPlace [][2]int
	// GradOver lists {in, need}: the gradient of In[in] may take over the memory of
	// the value Needs[need].
	GradOver [][2]int
	// SharedGrad lists {in, same}: where both are wanted the gradient of In[same]
	// equals that of In[in] (they are summands), and Backward writes it once, for In[in].
	SharedGrad [][2]int
	// Scratch: Backward needs a place for the gradient of In[0] even where no input's
	// is wanted (only those of parameters are).
	Scratch bool
	// Temporaries are values that Backward writes for itself, at Grads.Temporary.
	Temporaries []Temporary

	region int
}

// Temporary is memory that is needed during one operation only.
type Temporary struct {
	Name  string
	Dtype tensor.Dtype
	Shape []int
}

// Remake says how a result is made again from values that the backward pass has at
// hand, at the cost of reading and writing them. Under Options.Selective it is then
// not kept for the backward pass, provided that From are.
type Remake struct {
	Out  *Var
	From []*Var // of the node's In and Out
	// Also are other results that are written with it, as they were before: to
	// scratch memory, where they were kept.
	Also []*Var
	Run  func()
}

// Tape records operations for one device. A tape may be compiled more than once.
type Tape struct {
	dev    tensor.Device
	nodes  []*Node
	vars   []*Var
	region int      // number of checkpointed regions so far
	inside bool     // recording one
	holder *Program // whose Forward ran last: Var.value is its
}

// NewTape starts an empty record.
func NewTape(dev tensor.Device) *Tape { return &Tape{dev: dev} }

// Device is where the tape's operations run.
func (t *Tape) Device() tensor.Device { return t.dev }

// Input is a value in memory of the caller's, filled before each run.
func (t *Tape) Input(name string, x tensor.Tensor) *Var {
	v := t.NewVar(name, x.Dtype, x.Shape...)
	v.external = true
	v.value = x
	return v
}

// GradInput is an Input whose gradient is wanted: each backward pass writes it to
// grad, dense and of x's shape; 0 where nothing depends on x.
func (t *Tape) GradInput(name string, x, grad tensor.Tensor) *Var {
	v := t.Input(name, x)
	v.needsGrad = true
	v.grad = grad
	return v
}

// Output keeps v's memory until the program, or another one of its arena, runs.
func (t *Tape) Output(v *Var) *Var {
	v.output = true
	return v
}

// Checkpoint records what f records as a region whose values are not kept for
// the backward pass but computed again, from the values that enter the region.
// Values that leave it are kept. Regions don't nest.
func (t *Tape) Checkpoint(f func()) {
	if t.inside {
		panic("autograd: checkpointed regions don't nest")
	}
	t.region++
	t.inside = true
	f()
	t.inside = false
}

// NewVar declares a result of an operation that is about to be recorded.
func (t *Tape) NewVar(name string, d tensor.Dtype, shape ...int) *Var {
	v := &Var{Shape: shape, Dtype: d, id: len(t.vars), name: name}
	t.vars = append(t.vars, v)
	return v
}

// owns tells whether v was made by this tape.
func (t *Tape) owns(v *Var) bool { return v != nil && v.id < len(t.vars) && t.vars[v.id] == v }

// Record adds an operation.
func (t *Tape) Record(n *Node) {
	if t.inside {
		n.region = t.region
	}
	needs := false
	for _, p := range n.Params {
		needs = needs || p.Trainable()
	}
	for i, v := range n.In {
		must(t.owns(v), n.Name, "input %d is nil or of another tape", i)
		needs = needs || v.needsGrad
		v.consumers = append(v.consumers, n)
	}
	for i, v := range n.Out {
		must(t.owns(v) && v.producer == nil && !v.external, n.Name, "result %d is of another tape, or made already", i)
		v.producer = n
		v.region = n.region
		v.needsGrad = needs && v.Dtype != tensor.I32
	}
	t.nodes = append(t.nodes, n)
}

// must panics unless ok holds: a broken invariant of whoever records op.
func must(ok bool, op, format string, args ...any) {
	if !ok {
		panic("autograd: " + op + ": " + fmt.Sprintf(format, args...))
	}
}

// Grads tells a node's Backward where gradients lie.
type Grads struct {
	// Train tells a FusedForward that gradients are wanted.
	Train bool

	in    []gradSlot
	out   []*buffer // nil where nothing flowed
	temps []*buffer
	fresh []*Param // whose gradient holds nothing yet
}

// Beta is 1 if the gradient of p, one of Overwrites, is added to, and 0 if it holds nothing
// yet and is to be written.
func (g *Grads) Beta(p *Param) float32 { return beta(!slices.Contains(g.fresh, p)) }

// gradSlot is where the gradient of one input goes.
type gradSlot struct {
	to         *buffer // nil if it isn't wanted
	accumulate bool
}

// Out is the gradient of the node's i-th output; zero if nothing flowed there.
func (g *Grads) Out(i int) tensor.Tensor {
	if g.out[i] == nil {
		return tensor.Tensor{}
	}
	return g.out[i].at
}

// Temporary is the i-th of the node's Temporaries.
func (g *Grads) Temporary(i int) tensor.Tensor { return g.temps[i].at }

// In is where the gradient of the i-th input goes, zero if it isn't wanted, and
// whether to add to what is there.
func (g *Grads) In(i int) (dst tensor.Tensor, accumulate bool) {
	if g.in[i].to == nil {
		return tensor.Tensor{}, false
	}
	return g.in[i].to.at, g.in[i].accumulate
}
