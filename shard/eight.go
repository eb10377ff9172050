package shard

import (
	"fmt"

	"ringtail/autograd"
	"ringtail/tensor"
)

// eights are the matrices of a chunk as 8-bit floats (docs/fp8.md), one for each view that is
// multiplied. Their scales and largest values lie in vectors with an element for each of the
// chunk's tensors, at the place of the first of those that a view is made of.
type eights struct {
	scales, amaxes, nexts tensor.Tensor
	list                  []eight
}

type eight struct {
	*autograd.Eight
	value tensor.Tensor // [out, in]
	at    int           // elements from the chunk's start
}

// openEights allocates what chunk c, the i-th, has beside its matrices.
func (s *Store) openEights(c *chunk, i int) error {
	wide := s.dev.Float().Wide()
	if s.dev.Ops().Quantize == nil {
		return fmt.Errorf("%s has no 8-bit floats; train in another precision", s.dev.Name())
	}
	n := 0
	for _, e := range s.Layout.Entries {
		if e.Chunk == i {
			n++
		}
	}
	for _, to := range []*tensor.Tensor{&c.eights.scales, &c.eights.amaxes, &c.eights.nexts} {
		if err := s.allocate(c, to, wide, "scales", n); err != nil {
			return err
		}
	}
	return nil
}

// allocate makes a tensor that is freed with the chunk.
func (s *Store) allocate(c *chunk, to *tensor.Tensor, d tensor.Dtype, label string, shape ...int) error {
	restore := tensor.Label(s.dev, label)
	defer restore()
	x, b, err := tensor.New(s.dev, d, shape...)
	if err != nil {
		return fmt.Errorf("memory for %s %v: %w", label, shape, err)
	}
	*to, c.buffers = x, append(c.buffers, b)
	return nil
}

// Eight has p, a matrix of the store or several seen as one, multiplied as 8-bit floats. All views
// of one place share them. They hold nothing before MakeEights.
func (s *Store) Eight(p *autograd.Param) error {
	c := s.chunks[p.Chunk]
	if c.eights.scales.IsZero() || len(p.Shape) != 2 {
		return fmt.Errorf("%v is no matrix that the layout has for products of 8-bit floats", p)
	}
	for _, e := range c.eights.list {
		if e.at == p.At && e.value.Shape[0] == p.Shape[0] && e.value.Shape[1] == p.Shape[1] {
			p.Eight = e.Eight
			return nil
		}
	}
	place := 0
	for _, e := range s.Layout.Entries {
		if e.Chunk == p.Chunk && e.Offset < p.At {
			place++
		}
	}
	one := func(t tensor.Tensor) tensor.Tensor { return t.Slice(place, 1) }
	out, in := p.Shape[0], p.Shape[1]
	made := &autograd.Eight{Scale: one(c.eights.scales), AMax: one(c.eights.amaxes), Next: one(c.eights.nexts)}
	if err := s.allocate(c, &made.W, tensor.F8E4M3, "weights", out, in); err != nil {
		return err
	}
	if err := s.allocate(c, &made.WT, tensor.F8E4M3, "weights", in, out); err != nil {
		return err
	}
	c.eights.list = append(c.eights.list, eight{made, p.Value, p.At})
	p.Eight = made
	return nil
}

// MakeEights makes all 8-bit weights from those that were set, by scales of their own.
func (s *Store) MakeEights() {
	for _, c := range s.chunks {
		for _, e := range c.eights.list {
			e.Measure(s.dev.Ops(), e.value)
			e.Update(s.dev.Ops(), e.value)
		}
	}
}

// updateEights makes the 8-bit weights of trained chunks anew.
func (s *Store) updateEights() {
	for _, c := range s.chunks {
		for _, e := range c.eights.list {
			if c.trained() {
				e.Update(s.dev.Ops(), e.value)
			}
		}
	}
}

// restore makes 8-bit weights by the scales that a checkpoint has: those of the update before it, which
// those of the weights needn't be.
func (l *eights) restore() {
	for _, e := range l.list {
		ops := e.value.Device.Ops()
		ops.Copy(e.AMax, e.Scale)
		ops.Scale(e.AMax, 448) // E4M3's largest number: by it a scale is that of its own
		e.Update(ops, e.value)
	}
}
