package model

import (
	"fmt"

	"ringtail/autograd"
	"ringtail/tensor"
)

// Inputs are a batch of tokens on the tape.
type Inputs struct {
	IDs       *autograd.Var // I32 [T]
	Positions *autograd.Var // I32 [T], from 0 in each sequence
	// Starts I32 [n+1]: where packed sequences begin. Without it, Cache is used.
	Starts *autograd.Var
	// Longest bounds the length of a sequence, and so the positions. Dense promises that
	// every sequence has that length.
	Longest int
	Dense   bool
	// Cache and Slots, for generation: keys and values of earlier tokens, and
	// the sequence slot I32 [T] of each token.
	Cache *Cache
	Slots *autograd.Var
	// Checkpoint recomputes each layer in the backward pass instead of keeping
	// its values.
	Checkpoint bool
	// Kept, with Checkpoint, is how many of the last layers keep their values after all: what
	// memory is left spares their second forward pass.
	Kept int
	// Router adds the loss that keeps experts equally busy, where there are any.
	Router *RouterLoss
}

// RouterLoss is the load-balancing loss of a mixture of experts; see tensor.RouterLoss.
type RouterLoss struct {
	Coef  float64       // its weight
	Live  *autograd.Var // I32 [1]: tokens that aren't filler
	Loss  tensor.Tensor // F64 [1]: summed over batches, weighted by their tokens
	Scale tensor.Tensor // [1]: one over the tokens of the global batch
}

// Cache holds keys and values of each layer: [slots, capacity, KVHeads·HeadDim].
type Cache struct {
	K, V            []tensor.Tensor
	Slots, Capacity int
	buffers         []*tensor.Buffer
}

// NewCache allocates a cache for slots sequences of up to capacity tokens.
func (m *Model) NewCache(slots, capacity int) (*Cache, error) {
	defer tensor.Label(m.dev, "KV cache")()
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

// ropeKey tells tables of cosines apart: whose (layers with a window may have
// their own), and the class of lengths.
type ropeKey struct {
	windowed bool
	class    int
}

// rope is the table of cosines and sines of a layer, for sequences of up to length tokens.
func (m *Model) rope(layer, length int) (*ropeTable, error) {
	r, key := m.Config.Rope, ropeKey{}
	if m.Config.WindowedRope != nil && m.Config.windowed(layer) {
		r, key.windowed = *m.Config.WindowedRope, true
	}
	key.class = r.lengthClass(length)
	if t := m.ropes[key]; t != nil {
		if t.cos.Shape[0] >= length {
			return t, nil
		}
		m.retired = append(m.retired, t) // compiled programs may still use it
	}
	size := length
	if key.class == 0 { // one table serves most programs
		size = max(length, min(m.Config.MaxPositions, 4096))
	}
	t, err := newRopeTable(m.dev, r, length, size)
	if err == nil {
		m.ropes[key] = t
	}
	return t, err
}

// Hidden records the decoder: tokens → final hidden states after the last norm, [T, EmbedDim].
func (m *Model) Hidden(t *autograd.Tape, in Inputs) (*autograd.Var, error) {
	c := m.Config
	if c.Positions == Learned && in.Longest > c.MaxPositions {
		return nil, fmt.Errorf("sequences of %d tokens are longer than the model's table of %d positions", in.Longest, c.MaxPositions)
	}
	p := &pass{m: m, t: t, in: in}
	p.x = t.Embedding(in.IDs, m.embed)
	if m.in != nil {
		p.x = t.Linear(p.x, m.in, nil)
	}
	if c.EmbedScale != 0 {
		p.x = t.Scale(p.x, float32(c.EmbedScale))
	}
	if m.position != nil {
		p.x = t.Add(p.x, t.Embedding(in.Positions, m.position))
	}
	if m.embedNorm != nil {
		p.x = t.Norm(p.x, *m.embedNorm)
	}
	for i := range m.block {
		var rope *ropeTable
		if c.Positions == Rotary {
			var err error
			if rope, err = m.rope(i, in.Longest); err != nil {
				return nil, err
			}
		}
		if in.Checkpoint && i < len(m.block)-in.Kept {
			t.Checkpoint(func() {
				p.layer(i, rope)
				p.settle() // one value crosses to the next region, not two
			})
		} else {
			p.layer(i, rope)
		}
	}
	var h *autograd.Var
	if m.norm != nil {
		h = p.norm(*m.norm)
	} else {
		p.settle()
		h = p.x
	}
	if m.out != nil {
		h = t.Linear(h, m.out, nil)
	}
	if r := in.Router; r != nil && len(p.routers) > 0 {
		t.RouterLoss(p.routers, r.Live, c.Experts.Used, float32(r.Coef), r.Loss, r.Scale)
	}
	return h, nil
}

// pass is the recording of one forward pass.
type pass struct {
	m       *Model
	t       *autograd.Tape
	in      Inputs
	x       *autograd.Var   // residual stream
	delta   *autograd.Var   // what is still to be added to it; nil for nothing
	routers []*autograd.Var // logits of the routers of experts
}

// settle adds what is still to be added.
func (p *pass) settle() {
	if p.delta != nil {
		p.x, p.delta = p.t.Add(p.x, p.delta), nil
	}
}

// norm settles the residual stream and normalises it, in one pass.
func (p *pass) norm(n autograd.Norm) *autograd.Var {
	var y *autograd.Var
	if p.delta == nil {
		y = p.t.Norm(p.x, n)
	} else {
		p.x, y = p.t.AddNorm(p.x, p.delta, n)
		p.delta = nil
	}
	return y
}

// layer records one layer: attention, then the MLP, each with its norm (NormPlace)
// and its residual connection.
func (p *pass) layer(i int, rope *ropeTable) {
	b, place := &p.m.block[i], p.m.Config.Place
	switch place {
	case PostNorm:
		p.delta = p.attention(i, p.x, rope)
		p.x = p.norm(b.attnNorm)
		p.delta = p.mlp(i, p.x)
		p.x = p.norm(b.mlpNorm)
	case ParallelNorm:
		n := p.norm(b.attnNorm)
		a := p.attention(i, n, rope)
		p.delta = p.t.Add(a, p.mlp(i, p.t.Norm(p.x, b.mlpNorm)))
	default:
		n := p.norm(b.attnNorm)
		if p.m.Config.ResidualFromNorm {
			p.x = n
		}
		p.delta = p.attention(i, n, rope)
		if place == SandwichNorm {
			p.delta = p.t.Norm(p.delta, *b.attnPost)
		}
		n = p.norm(b.mlpNorm)
		if p.m.Config.ResidualFromNorm {
			p.x = n
		}
		p.delta = p.mlp(i, n)
		if place == SandwichNorm {
			p.delta = p.t.Norm(p.delta, *b.mlpPost)
		}
	}
}

// attention is layer i's self-attention of n [T, hidden].
func (p *pass) attention(i int, n *autograd.Var, rope *ropeTable) *autograd.Var {
	t, c, b, in := p.t, p.m.Config, &p.m.block[i], p.in
	shape := c.Attention(i)
	qkv := t.Linear(n, b.qkv, b.qkvBias)
	if c.QKNorm {
		qkv = t.HeadNorm(qkv, b.qNorm, b.kNorm, shape, float32(c.NormEps), float32(c.NormOffset))
	}
	if rope != nil {
		qkv = t.RoPE(qkv, in.Positions, rope.cos, rope.sin, c.Heads+c.KVHeads, c.HeadDim)
	}
	var a *autograd.Var
	if in.Cache != nil {
		a = t.CachedAttention(qkv, in.Slots, in.Positions, in.Cache.K[i], in.Cache.V[i], shape)
	} else {
		attention := t.Attention
		if in.Dense {
			attention = t.DenseAttention
		}
		a = attention(qkv, in.Starts, shape, in.Longest)
	}
	return t.Linear(a, b.o, b.oBias)
}

// mlp is layer i's MLP of n [T, hidden]: gated, plain, or a mixture of gated experts.
func (p *pass) mlp(i int, n *autograd.Var) *autograd.Var {
	t, c, b := p.t, p.m.Config, &p.m.block[i]
	if b.router == nil {
		if c.Plain && c.Activation == tensor.GELUTanh && p.in.Cache == nil {
			return t.GELUMLP(n, b.up, b.upBias, b.down, b.downBias)
		}
		y := t.Linear(n, b.up, b.upBias)
		if c.Plain {
			y = t.Activate(y, c.Activation)
		} else {
			y = t.GLU(y, c.Activation)
		}
		return t.Linear(y, b.down, b.downBias)
	}
	logits := t.Linear(n, b.router, nil)
	if p.in.Router != nil {
		p.routers = append(p.routers, logits)
	}
	weights, r := t.Route(logits, c.Experts.Used, c.Experts.Normalize)
	y := t.GroupedLinear(t.Gather(n, r.Tokens), r.Starts, b.expertUp)
	y = t.GroupedLinear(t.GLU(y, c.Activation), r.Starts, b.expertDown)
	return t.Combine(y, weights, r.Slots)
}

// Logits records the output projection: [T, hidden] → [T, vocabulary]; with a
// scalar head [T, 1].
func (m *Model) Logits(t *autograd.Tape, hidden *autograd.Var) *autograd.Var {
	y := t.LinearWide(hidden, m.head)
	if m.Config.LogitCap > 0 && m.Head == CausalLM {
		y = t.SoftCap(y, m.Config.LogitCap)
	}
	return y
}

// Loss records the output projection fused with the cross-entropy of targets
// I32 [T]; see tensor.CrossEntropy for loss F64 [3] and scale [1].
func (m *Model) Loss(t *autograd.Tape, hidden, targets *autograd.Var, loss, scale tensor.Tensor) {
	t.CrossEntropy(hidden, targets, m.head, m.Config.LogitCap, loss, scale)
}

// LogProb records the output projection fused with the log-probabilities of
// targets I32 [T] at a temperature and, if asked for, the entropies (else nil),
// [T] each; see tensor.LogProb.
func (m *Model) LogProb(t *autograd.Tape, hidden, targets *autograd.Var, temperature float32, entropy bool) (logProbs, entropies *autograd.Var) {
	return t.LogProb(hidden, targets, m.head, temperature, m.Config.LogitCap, entropy)
}
