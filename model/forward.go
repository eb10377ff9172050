package model

import (
	"ringtail/autograd"
	"ringtail/tensor"
)

// Inputs are a batch of tokens on the tape.
type Inputs struct {
	IDs       *autograd.Var // I32 [T]
	Positions *autograd.Var // I32 [T], from 0 in each sequence
	// Starts I32 [n+1]: where packed sequences begin. Without it, Cache is used.
	Starts *autograd.Var
	// Longest bounds the length of a sequence, and so the positions.
	Longest int
	// Cache and Slots, for generation: keys and values of earlier tokens, and
	// the sequence slot I32 [T] of each token.
	Cache *Cache
	Slots *autograd.Var
	// Checkpoint recomputes each layer in the backward pass instead of keeping
	// its values.
	Checkpoint bool
}

// Cache holds keys and values of each layer: [slots, capacity, KVHeads·HeadDim].
type Cache struct {
	K, V            []tensor.Tensor
	Slots, Capacity int
	buffers         []*tensor.Buffer
}

// NewCache allocates a cache for slots sequences of up to capacity tokens.
func (m *Model) NewCache(slots, capacity int) (*Cache, error) {
	c := &Cache{Slots: slots, Capacity: capacity}
	for range m.Config.Layers {
		for _, list := range []*[]tensor.Tensor{&c.K, &c.V} {
			x, b, err := tensor.New(m.dev, m.dev.Float(), slots, capacity, m.Config.KVHeads*m.Config.HeadDim)
			if err != nil {
				c.Free()
				return nil, err
			}
			*list = append(*list, x)
			c.buffers = append(c.buffers, b)
		}
	}
	return c, nil
}

// Bytes is the cache's memory.
func (c *Cache) Bytes() int {
	n := 0
	for _, b := range c.buffers {
		n += b.Size
	}
	return n
}

// Free gives the cache's memory back.
func (c *Cache) Free() {
	for _, b := range c.buffers {
		b.Free()
	}
	c.buffers = nil
}

// rope is the table of cosines and sines for sequences of up to length tokens.
func (m *Model) rope(length int) (*ropeTable, error) {
	class := m.Config.Rope.lengthClass(length)
	if t := m.ropes[class]; t != nil {
		if t.cos.Shape[0] >= length {
			return t, nil
		}
		m.retired = append(m.retired, t) // compiled programs may still use it
	}
	size := length
	if class == 0 { // one table serves most programs
		size = max(length, min(m.Config.MaxPositions, 4096))
	}
	t, err := newRopeTable(m.dev, m.Config.Rope, length, size)
	if err == nil {
		m.ropes[class] = t
	}
	return t, err
}

// Hidden records the decoder: tokens → final hidden states after the last norm, [T, hidden].
func (m *Model) Hidden(t *autograd.Tape, in Inputs) (*autograd.Var, error) {
	c := m.Config
	rope, err := m.rope(in.Longest)
	if err != nil {
		return nil, err
	}
	eps := float32(c.NormEps)
	x := t.Embedding(in.IDs, m.embed) // residual stream
	var delta *autograd.Var           // what is still to be added to it
	for i := range m.block {
		b := &m.block[i]
		layer := func() {
			var n *autograd.Var
			if delta == nil {
				n = t.RMSNorm(x, b.attnNorm, eps)
			} else {
				x, n = t.AddRMSNorm(x, delta, b.attnNorm, eps)
			}
			qkv := t.Linear(n, b.qkv, b.qkvBias)
			qkv = t.RoPE(qkv, in.Positions, rope.cos, rope.sin, c.Heads+c.KVHeads, c.HeadDim)
			var a *autograd.Var
			if in.Cache != nil {
				a = t.CachedAttention(qkv, in.Slots, in.Positions, in.Cache.K[i], in.Cache.V[i], c.Attention())
			} else {
				a = t.Attention(qkv, in.Starts, c.Attention(), in.Longest)
			}
			x, n = t.AddRMSNorm(x, t.Linear(a, b.o, b.oBias), b.mlpNorm, eps)
			delta = t.Linear(t.GLU(t.Linear(n, b.gateUp, b.gateUpBias), c.Activation), b.down, b.downBias)
			if in.Checkpoint { // one value crosses to the next region, not two
				x, delta = t.Add(x, delta), nil
			}
		}
		if in.Checkpoint {
			t.Checkpoint(layer)
		} else {
			layer()
		}
	}
	if delta == nil {
		return t.RMSNorm(x, m.norm, eps), nil
	}
	_, n := t.AddRMSNorm(x, delta, m.norm, eps)
	return n, nil
}

// Logits records the output projection: [T, hidden] → [T, vocabulary]; with a
// scalar head [T, 1].
func (m *Model) Logits(t *autograd.Tape, hidden *autograd.Var) *autograd.Var {
	return t.Linear(hidden, m.head, nil)
}

// Loss records the output projection fused with the cross-entropy of targets
// I32 [T]; see tensor.CrossEntropy for loss F64 [3] and scale [1].
func (m *Model) Loss(t *autograd.Tape, hidden, targets *autograd.Var, loss, scale tensor.Tensor) {
	t.CrossEntropy(hidden, targets, m.head, loss, scale)
}

// LogProb records the output projection fused with the log-probabilities of
// targets I32 [T] at a temperature and, if asked for, the entropies (else nil),
// [T] each; see tensor.LogProb.
func (m *Model) LogProb(t *autograd.Tape, hidden, targets *autograd.Var, temperature float32, entropy bool) (logProbs, entropies *autograd.Var) {
	return t.LogProb(hidden, targets, m.head, temperature, entropy)
}
