// Package autograd differentiates models built from few, coarse operations.
//
// A Tape records operations without running them. Compile turns the record into
// a Program: a fixed list of instructions (forward, and for training backward
// with what must be recomputed), each value and gradient placed at a fixed
// offset of one arena by its lifetime. A program is then run as often as wanted;
// it allocates nothing, and as addresses never change while its arena stays, a
// device can capture it as a graph.
//
// Reverse accumulation is the textbook's (Griewank & Walther 2008, ch. 3);
// recomputation follows Chen et al. 2016, "Training Deep Nets with Sublinear
// Memory Cost": a value of a checkpointed region that the backward pass needs is
// made again from what was kept, once, just before it is needed.
package autograd

import (
	"fmt"

	"ringtail/tensor"
)

// Param is a tensor of weights that operations use. Grad is the zero Tensor for
// frozen weights, which then receive no gradient. Value and Grad are views into
// chunks (package shard) and may be several stored tensors seen as one, such as
// q, k and v.
type Param struct {
	Name  string
	Shape []int
	Value tensor.Tensor
	Grad  tensor.Tensor
	// Chunk numbers the chunk that holds the weights, for hooks.
	Chunk int
}

// Trainable tells whether the parameter receives a gradient.
func (p *Param) Trainable() bool { return !p.Grad.IsZero() }

// Var is a value computed by the tape, or an input of it.
type Var struct {
	Shape []int
	Dtype tensor.Dtype

	id        int
	name      string
	value     tensor.Tensor // where the value now lies; set as the program runs
	grad      tensor.Tensor // where its gradient lies
	external  bool          // memory belongs to the caller
	output    bool          // kept until the program runs again
	needsGrad bool
	region    int // checkpointed region that makes it, 0 for none
	producer  *Node
	consumers []*Node
}

// Value is where v lies: valid during a run for operations, and after a run for
// outputs and inputs.
func (v *Var) Value() tensor.Tensor { return v.value }

// Rows and Cols are v's dimensions as a matrix.
func (v *Var) Rows() int { return tensor.Tensor{Shape: v.Shape}.Rows() }

// Cols is the last dimension of v.
func (v *Var) Cols() int { return tensor.Tensor{Shape: v.Shape}.Cols() }

// Node is one recorded operation.
type Node struct {
	Name   string
	In     []*Var
	Out    []*Var
	Params []*Param

	// Forward computes Out from In.
	Forward func()
	// Backward computes the gradients of In from those of Out, and adds those of
	// Params to Param.Grad. Its argument tells where they lie.
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
	// InPlace lists {out, in}: Out[out] may take over the memory of In[in].
	InPlace [][2]int
	// GradInPlace lists {in, out}: the gradient of In[in] may take over the
	// memory of that of Out[out].
	GradInPlace [][2]int
	// SharedGrad lists {in, same}: the gradient of In[same] equals that of In[in]
	// (both are summands), and Backward writes it once, for In[in].
	SharedGrad [][2]int

	region  int
	unshare bool // sharing was found impossible
}

// Tape records operations for one device.
type Tape struct {
	dev    tensor.Device
	nodes  []*Node
	vars   []*Var
	region int
	inside bool
}

// NewTape starts an empty record.
func NewTape(dev tensor.Device) *Tape { return &Tape{dev: dev} }

// Device is where the tape's operations run.
func (t *Tape) Device() tensor.Device { return t.dev }

// Input is a value in memory of the caller's, filled before each run.
func (t *Tape) Input(name string, x tensor.Tensor) *Var {
	v := t.newVar(name, x.Dtype, x.Shape)
	v.external = true
	v.value = x
	return v
}

// GradInput is an Input whose gradient is wanted: it is written to grad, dense
// and of x's shape, by each backward pass.
func (t *Tape) GradInput(name string, x, grad tensor.Tensor) *Var {
	v := t.Input(name, x)
	v.needsGrad = true
	v.grad = grad
	return v
}

// Output keeps v's memory until the program runs again.
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
	return t.newVar(name, d, shape)
}

func (t *Tape) newVar(name string, d tensor.Dtype, shape []int) *Var {
	v := &Var{Shape: shape, Dtype: d, id: len(t.vars), name: name}
	t.vars = append(t.vars, v)
	return v
}

// Record adds an operation.
func (t *Tape) Record(n *Node) {
	if t.inside {
		n.region = t.region
	}
	needs := false
	for _, p := range n.Params {
		needs = needs || p.Trainable()
	}
	for _, v := range n.In {
		if v == nil {
			panic("autograd: nil input of " + n.Name)
		}
		needs = needs || v.needsGrad
		v.consumers = append(v.consumers, n)
	}
	for _, v := range n.Out {
		if v.producer != nil {
			panic(fmt.Sprintf("autograd: %s makes %s again", n.Name, v.name))
		}
		v.producer = n
		v.region = n.region
		v.needsGrad = needs && v.Dtype != tensor.I32
	}
	t.nodes = append(t.nodes, n)
}

// Grads tells a node's Backward where gradients lie.
type Grads struct {
	// Train tells a FusedForward that gradients are wanted.
	Train bool

	node *Node
	in   []gradSlot
	out  []*Var
}

type gradSlot struct {
	v          *Var
	t          tensor.Tensor // destination; zero if not wanted
	accumulate bool
}

// Out is the gradient of the node's i-th output; zero if nothing flowed there.
func (g *Grads) Out(i int) tensor.Tensor {
	if g.out[i] == nil {
		return tensor.Tensor{}
	}
	return g.out[i].grad
}

// In is where the gradient of the i-th input goes, zero if it isn't wanted, and
// whether to add to what is there.
func (g *Grads) In(i int) (dst tensor.Tensor, accumulate bool) {
	return g.in[i].t, g.in[i].accumulate
}
