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
	train   bool
}

// chunk is one chunk's memory. Frozen chunks have values only.
type chunk struct {
	value, grad, m, v tensor.Tensor
	runs              []run
	buffers           []*tensor.Buffer
}

// NewStore allocates the chunks of a layout, zeroed. With train, chunks that
// aren't frozen get gradients and both moments too: 16 bytes a trained parameter
// in float32, 4 a frozen one.
func NewStore(dev tensor.Device, l *Layout, train bool) (*Store, error) {
	s := &Store{Layout: l, dev: dev, entries: map[string]Entry{}, params: map[string]*autograd.Param{}, train: train}
	for i, cl := range l.Chunks {
		c := &chunk{runs: l.runs(i)}
		s.chunks = append(s.chunks, c)
		parts := []*tensor.Tensor{&c.value}
		if train && !cl.Frozen {
			parts = append(parts, &c.grad, &c.m, &c.v)
		}
		for _, t := range parts {
			x, b, err := tensor.New(dev, dev.Float(), cl.Len)
			if err != nil {
				s.Free()
				return nil, fmt.Errorf("memory for %d parameters (chunk %d of %d): %w", cl.Len, i+1, len(l.Chunks), err)
			}
			*t = x
			c.buffers = append(c.buffers, b)
		}
	}
	for _, e := range l.Entries {
		s.entries[e.Name] = e
		s.params[e.Name] = s.view(e.Name, e.Chunk, e.Offset, e.Shape)
	}
	return s, nil
}

// view is a parameter at an offset of a chunk.
func (s *Store) view(name string, chunk, offset int, shape []int) *autograd.Param {
	c := s.chunks[chunk]
	n := Spec{Shape: shape}.Len()
	p := &autograd.Param{Name: name, Shape: shape, Chunk: chunk, Value: c.value.Slice(offset, n).Reshape(shape...)}
	if !c.grad.IsZero() {
		p.Grad = c.grad.Slice(offset, n).Reshape(shape...)
	}
	return p
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
		if s.train && !e.Frozen {
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

// ZeroGrads sets all gradients to 0.
func (s *Store) ZeroGrads() {
	for _, c := range s.chunks {
		if !c.grad.IsZero() {
			s.dev.Ops().Zero(c.grad)
		}
	}
}

// GradSumSquares adds the sum of the squares of all gradients to out (F64 [1]).
func (s *Store) GradSumSquares(out tensor.Tensor) {
	for _, c := range s.chunks {
		if !c.grad.IsZero() {
			s.dev.Ops().SumSquares(out, c.grad)
		}
	}
}

// Update makes one optimizer step on every trained chunk, from the step block.
func (s *Store) Update(step tensor.Tensor, o optim.AdamW) {
	for _, c := range s.chunks {
		if c.grad.IsZero() {
			continue
		}
		for _, r := range c.runs {
			n := r.to - r.from
			a := tensor.AdamW{Param: c.value.Slice(r.from, n), Grad: c.grad.Slice(r.from, n), M: c.m.Slice(r.from, n),
				V: c.v.Slice(r.from, n), Step: step, Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps}
			if r.decay {
				a.WeightDecay = o.WeightDecay
			}
			s.dev.Ops().AdamW(a)
		}
	}
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
// gradients or moments.
func (s *Store) Copy() (*Store, error) {
	c, err := NewStore(s.dev, s.Layout, false)
	if err != nil {
		return nil, err
	}
	for i := range s.chunks {
		s.dev.Ops().Copy(c.chunks[i].value, s.chunks[i].value)
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
	x, b, err := tensor.New(s.dev, s.dev.Float(), averagePiece)
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
			piece, scratch := c.value.Slice(at, n), x.Slice(0, n)
			ops.Copy(scratch, from.chunks[i].value.Slice(at, n))
			ops.Scale(scratch, float32(1-decay))
			ops.Scale(piece, float32(decay))
			ops.Add(piece, piece, scratch)
		}
	}
	return s.dev.Sync()
}
