package shard

import (
	"fmt"

	"ringtail/autograd"
	"ringtail/optim"
	"ringtail/tensor"
)

// Store holds the chunks of one model on a device.
type Store struct {
	Layout *Layout

	dev     tensor.Device
	chunks  []*chunk
	entries map[string]Entry
	params  map[string]*autograd.Param
	opt     Options
}

// Options say what a store holds beside the weights, which are of the device's type.
type Options struct {
	// Train gives chunks that aren't frozen gradients, moments and, where the device's
	// type is a 16-bit one, master weights.
	Train bool
	// Grad is the type of gradients: the device's or its Wide(), which gradients that
	// add up over micro-batches need; 0: the device's.
	Grad tensor.Dtype
	// State is the type of the moments: the device's Wide(), or the device's own 16-bit
	// one, and then there are no master weights and updates are rounded at random;
	// 0: Wide().
	State tensor.Dtype
	// Seed of that rounding.
	Seed uint64
	// GradsInArena leaves gradients to training programs, which make them in their arena
	// (autograd.Options.Gradients): for runs in which a step is one run of one program.
	GradsInArena bool
}

// chunk is one chunk's memory. Frozen chunks have values only.
type chunk struct {
	value, master, grad, m, v tensor.Tensor
	runs                      []run
	buffers                   []*tensor.Buffer
	first                     uint64 // elements of the chunks before it
	eights                    eights // of a chunk whose weights are multiplied as 8-bit floats
	// In place of memory for gradients, where they are in the arena; views are of the
	// parameters whose Grad is part of it.
	inArena *autograd.GradChunk
	views   []*autograd.Param
}

// trained tells whether the chunk has gradients.
func (c *chunk) trained() bool { return c.inArena != nil || !c.grad.IsZero() }

// bind sets where the chunk's gradients lie.
func (c *chunk) bind(at tensor.Tensor) {
	c.grad = at
	for _, p := range c.views {
		p.Grad = at.Slice(p.At, p.Value.Len()).Reshape(p.Shape...)
	}
}

// gradient is where the chunk's gradients are after a step's backward pass.
func (c *chunk) gradient() tensor.Tensor {
	if c.inArena != nil && !c.inArena.Held() {
		panic("shard: gradients are looked for in an arena where another program has run since, or none")
	}
	return c.grad
}

// exact is the weights as exactly as they are known.
func (c *chunk) exact() tensor.Tensor {
	if !c.master.IsZero() {
		return c.master
	}
	return c.value
}

// NewStore allocates the chunks of a layout, zeroed: in float32 16 bytes a trained
// parameter and 4 a frozen one; in bfloat16 16 to 18 and 2, or 8 without master weights;
// less those of gradients that are in the arena.
func NewStore(dev tensor.Device, l *Layout, opt Options) (*Store, error) {
	float := dev.Float()
	if opt.Grad == tensor.Invalid {
		opt.Grad = float
	}
	if opt.State == tensor.Invalid {
		opt.State = float.Wide()
	}
	s := &Store{Layout: l, dev: dev, entries: map[string]Entry{}, params: map[string]*autograd.Param{}, opt: opt}
	first := uint64(0)
	for i, cl := range l.Chunks {
		c := &chunk{runs: l.runs(i), first: first}
		first += uint64(cl.Len)
		s.chunks = append(s.chunks, c)
		type part struct {
			t     *tensor.Tensor
			dtype tensor.Dtype
			label string
		}
		parts := []part{{&c.value, float, "weights"}}
		if cl.Eight {
			parts[0].dtype = float.Wide() // what a master weight is elsewhere
			if err := s.openEights(c, i); err != nil {
				s.Free()
				return nil, err
			}
		}
		if opt.Train && !cl.Frozen {
			if opt.GradsInArena {
				c.inArena = &autograd.GradChunk{Dtype: opt.Grad, Len: cl.Len, Bind: c.bind}
			} else {
				parts = append(parts, part{&c.grad, opt.Grad, "gradients"})
			}
			parts = append(parts, part{&c.m, opt.State, "moments"}, part{&c.v, opt.State, "moments"})
			if opt.State != float && !cl.Eight {
				parts = append(parts, part{&c.master, opt.State, "master weights"})
			}
		}
		for _, p := range parts {
			restore := tensor.Label(dev, p.label)
			x, b, err := tensor.New(dev, p.dtype, cl.Len)
			restore()
			if err != nil {
				err = fmt.Errorf("memory for %d parameters (chunk %d of %d, %.2f GiB so far): %w", cl.Len, i+1, len(l.Chunks), float64(s.Bytes())/(1<<30), err)
				s.Free()
				return nil, err
			}
			*p.t = x
			c.buffers = append(c.buffers, b)
		}
	}
	for _, e := range l.Entries {
		s.entries[e.Name] = e
		s.params[e.Name] = s.view(e.Name, e.Chunk, e.Offset, e.Shape)
		if e.Pad > 0 {
			s.params[e.Name].Padded = e.Shape[0] + e.Pad
		}
	}
	return s, nil
}

// view is a parameter at an offset of a chunk.
func (s *Store) view(name string, chunk, offset int, shape []int) *autograd.Param {
	c := s.chunks[chunk]
	n := Spec{Shape: shape}.Len()
	p := &autograd.Param{Name: name, Shape: shape, Chunk: chunk, Value: c.value.Slice(offset, n).Reshape(shape...), InArena: c.inArena, At: offset}
	if !c.grad.IsZero() {
		p.Grad = c.grad.Slice(offset, n).Reshape(shape...)
	}
	if c.inArena != nil {
		c.views = append(c.views, p)
	}
	return p
}

// Gradients are the chunks of gradients that training programs make in their arena; nil
// without GradsInArena.
func (s *Store) Gradients() []*autograd.GradChunk {
	var out []*autograd.GradChunk
	for _, c := range s.chunks {
		if c.inArena != nil {
			out = append(out, c.inArena)
		}
	}
	return out
}

// Device is where the store's chunks are.
func (s *Store) Device() tensor.Device { return s.dev }

// Param is the stored tensor of that name, nil if there is none.
func (s *Store) Param(name string) *autograd.Param { return s.params[name] }

// Rows is a stored tensor without the first rows of it, a view.
func (s *Store) Rows(name string, skip int) (*autograd.Param, error) {
	e, ok := s.entries[name]
	if !ok || len(e.Shape) == 0 || skip < 0 || skip > e.Shape[0] {
		return nil, fmt.Errorf("no tensor %s of at least %d rows", name, skip)
	}
	shape := append([]int(nil), e.Shape...)
	shape[0] -= skip
	return s.view(name, e.Chunk, e.Offset+skip*(e.Len()/max(e.Shape[0], 1)), shape), nil
}

// Merged is the tensors of a group seen as one: their first dimensions added up,
// or the shape, which has as many elements, if it isn't nil.
func (s *Store) Merged(name string, as []int, parts ...string) (*autograd.Param, error) {
	if len(parts) == 0 {
		return nil, fmt.Errorf("no tensors to merge into %s", name)
	}
	first, ok := s.entries[parts[0]]
	if !ok {
		return nil, fmt.Errorf("no tensor %s to merge into %s", parts[0], name)
	}
	shape := append([]int(nil), first.Shape...)
	at := first.Offset + first.Len()
	for _, p := range parts[1:] {
		e, ok := s.entries[p]
		if !ok {
			return nil, fmt.Errorf("no tensor %s to merge into %s", p, name)
		}
		if e.Chunk != first.Chunk || e.Offset != at || len(e.Shape) != len(shape) {
			return nil, fmt.Errorf("tensor %s does not follow %s in its chunk", p, parts[0])
		}
		for i := 1; i < len(shape); i++ {
			if e.Shape[i] != shape[i] {
				return nil, fmt.Errorf("tensor %s of shape %v can't be merged with %s of shape %v", p, e.Shape, parts[0], first.Shape)
			}
		}
		shape[0] += e.Shape[0]
		at += e.Len()
	}
	if as != nil {
		if (Spec{Shape: as}).Len() != at-first.Offset {
			return nil, fmt.Errorf("%s of shape %v can't be merged from %d elements", name, as, at-first.Offset)
		}
		shape = as
	}
	return s.view(name, first.Chunk, first.Offset, shape), nil
}

// Params is the number of parameters, and how many of them are trained.
func (s *Store) Params() (all, trained int) {
	for _, e := range s.Layout.Entries {
		all += e.Len()
		if s.opt.Train && !e.Frozen {
			trained += e.Len()
		}
	}
	return all, trained
}

// Bytes is the memory that the chunks take.
func (s *Store) Bytes() int {
	n := 0
	for _, c := range s.chunks {
		for _, b := range c.buffers {
			n += b.Size
		}
	}
	return n
}

// ZeroGrads sets all gradients to 0; those in an arena begin with 0 in each run.
func (s *Store) ZeroGrads() {
	for _, c := range s.chunks {
		if c.trained() && c.inArena == nil {
			s.dev.Ops().Zero(c.grad)
		}
	}
}

// GradSumSquares adds the sum of the squares of all gradients to out (F64 [1]).
func (s *Store) GradSumSquares(out tensor.Tensor) {
	var grads []tensor.Tensor
	for _, c := range s.chunks {
		if c.trained() {
			grads = append(grads, c.gradient())
		}
	}
	ops := s.dev.Ops()
	if ops.SumSquaresAll != nil {
		ops.SumSquaresAll(out, grads)
		return
	}
	for _, g := range grads {
		ops.SumSquares(out, g)
	}
}

// Update makes one optimizer step on every trained chunk, from the step block.
func (s *Store) Update(step tensor.Tensor, o optim.AdamW) {
	var list []tensor.AdamW
	for _, c := range s.chunks {
		if !c.trained() {
			continue
		}
		grad := c.gradient()
		for _, r := range c.runs {
			n := r.to - r.from
			a := tensor.AdamW{Param: c.value.Slice(r.from, n), Grad: grad.Slice(r.from, n), M: c.m.Slice(r.from, n),
				V: c.v.Slice(r.from, n), Step: step, Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps}
			if r.decay {
				a.WeightDecay = o.WeightDecay
			}
			if !c.master.IsZero() {
				a.Master = c.master.Slice(r.from, n)
			}
			if s.opt.State != s.dev.Float().Wide() {
				a.Stochastic, a.Seed, a.First = true, s.opt.Seed, c.first+uint64(r.from)
			}
			list = append(list, a)
		}
	}
	ops := s.dev.Ops()
	if ops.AdamWAll != nil {
		ops.AdamWAll(list)
	} else {
		for _, a := range list {
			ops.AdamW(a)
		}
	}
	s.updateEights()
}

// Free gives the memory back.
func (s *Store) Free() {
	for _, c := range s.chunks {
		for _, b := range c.buffers {
			b.Free()
		}
		c.buffers = nil
	}
}

// Copy is a second store of the same layout, with the same weights and without
// gradients or moments. Weights that are trained are kept in the device's Wide(), for
// averages of them.
func (s *Store) Copy() (*Store, error) {
	c, err := NewStore(s.dev, s.Layout, Options{})
	if err != nil {
		return nil, err
	}
	wide := s.dev.Float().Wide()
	for i, from := range s.chunks {
		to := c.chunks[i]
		s.dev.Ops().Copy(to.value, from.value)
		if s.Layout.Chunks[i].Frozen || wide == s.dev.Float() {
			continue
		}
		master, b, err := tensor.New(s.dev, wide, to.value.Len())
		if err != nil {
			c.Free()
			return nil, fmt.Errorf("memory for a copy of the weights: %w", err)
		}
		to.master, to.buffers = master, append(to.buffers, b)
		s.dev.Ops().Copy(master, from.exact())
	}
	return c, s.dev.Sync()
}

// averagePiece is the number of elements averaged at a time.
const averagePiece = 1 << 18

// Average moves the weights towards those of from, a store of the same layout:
// w = decay·w + (1 − decay)·from, the exponential moving average (Polyak). Frozen
// chunks don't change and are left alone.
func (s *Store) Average(from *Store, decay float64) error {
	ops := s.dev.Ops()
	x, b, err := tensor.New(s.dev, s.dev.Float().Wide(), averagePiece)
	if err != nil {
		return err
	}
	defer b.Free()
	for i, c := range s.chunks {
		if s.Layout.Chunks[i].Frozen {
			continue
		}
		for at := 0; at < c.value.Len(); at += averagePiece {
			n := min(averagePiece, c.value.Len()-at)
			piece, scratch := c.exact().Slice(at, n), x.Slice(0, n)
			ops.Copy(scratch, from.chunks[i].exact().Slice(at, n))
			ops.Scale(scratch, float32(1-decay))
			ops.Scale(piece, float32(decay))
			ops.Add(piece, piece, scratch)
			if !c.master.IsZero() {
				ops.Copy(c.value.Slice(at, n), piece)
			}
		}
	}
	return s.dev.Sync()
}
