package autograd

import (
	"slices"

	"ringtail/tensor"
)

// The operations. Each checks shapes as it is recorded, where the mistake is
// still near; T is the number of tokens, other letters as in package tensor.

// isInts tells whether v is a list of n whole numbers, of any length if n < 0.
func isInts(v *Var, n int) bool {
	return v.Dtype == tensor.I32 && len(v.Shape) == 1 && (n < 0 || v.Shape[0] == n)
}

// Embedding looks up rows: ids I32 [T] → [T, H], table w [V, H].
func (t *Tape) Embedding(ids *Var, w *Param) *Var {
	must(isInts(ids, -1), "embedding", "ids %v is not a list of whole numbers", ids)
	must(len(w.Shape) == 2, "embedding", "table %v has not two dimensions", w)
	ops := t.dev.Ops()
	y := t.NewVar("embedding", t.dev.Float(), ids.Shape[0], w.Shape[1])
	look := func() { ops.Embedding(y.value, w.Value, ids.value) }
	t.Record(&Node{
		Name: "embedding", In: []*Var{ids}, Out: []*Var{y}, Params: []*Param{w}, Needs: []*Var{ids},
		Forward: look, Remake: &Remake{Out: y, From: []*Var{ids}, Run: look},
		Backward: func(g *Grads) {
			if w.Trainable() {
				ops.EmbeddingBackward(w.Grad, g.Out(0), ids.value)
			}
		},
	})
	return y
}

// Gather picks rows of x [T, H]: rows I32 [n] → [n, H].
func (t *Tape) Gather(x, rows *Var) *Var {
	must(isInts(rows, -1), "gather", "rows %v is not a list of whole numbers", rows)
	ops := t.dev.Ops()
	y := t.NewVar("gather", x.Dtype, rows.Shape[0], x.Cols())
	look := func() { ops.Embedding(y.value, x.value, rows.value) }
	t.Record(&Node{
		Name: "gather", In: []*Var{x, rows}, Out: []*Var{y}, Needs: []*Var{rows}, AddsOnly: true,
		Forward: look, Remake: &Remake{Out: y, From: []*Var{x, rows}, Run: look},
		Backward: func(g *Grads) {
			if dx, _ := g.In(0); !dx.IsZero() {
				ops.EmbeddingBackward(dx, g.Out(0), rows.value)
			}
		},
	})
	return y
}

// Linear is y [T, out] = x [T, in] · wᵀ + bias, with w [out, in] and an optional
// bias [out].
func (t *Tape) Linear(x *Var, w, bias *Param) *Var { return t.linear(x, w, bias, x.Dtype) }

// LinearWide is Linear without bias whose result is Wide: logits and scores, which
// losses and samplers take differences of.
func (t *Tape) LinearWide(x *Var, w *Param) *Var { return t.linear(x, w, nil, x.Dtype.Wide()) }

func (t *Tape) linear(x *Var, w, bias *Param, result tensor.Dtype) *Var {
	must(len(w.Shape) == 2 && x.Cols() == w.Shape[1], "linear", "%v times %v transposed", x, w)
	must(bias == nil || slices.Equal(bias.Shape, w.Shape[:1]), "linear", "bias %v beside %v", bias, w)
	if w.Eight != nil {
		must(result == x.Dtype, "linear", "%v of 8-bit floats with a wide result", w)
		return t.linear8(x, w, bias)
	}
	ops := t.dev.Ops()
	y := t.NewVar("linear", result, x.Rows(), w.Shape[0])
	n := &Node{Name: "linear", In: []*Var{x}, Out: []*Var{y}, Params: []*Param{w}, Overwrites: []*Param{w}, Accumulates: true}
	if w.Trainable() {
		n.Needs = []*Var{x}
	}
	if bias != nil {
		n.Params = append(n.Params, bias)
	}
	n.Forward = func() {
		m := tensor.Matmul{C: y.value, A: x.value, B: w.Value, TransB: true}
		if bias != nil {
			m.Bias = bias.Value
		}
		ops.Matmul(m)
	}
	n.Backward = func(g *Grads) {
		dy := g.Out(0)
		linearGradients(ops, g, w, bias, dy, x.value)
		if dx, accumulate := g.In(0); !dx.IsZero() {
			ops.Matmul(tensor.Matmul{C: dx, A: dy, B: w.Value, Beta: beta(accumulate)})
		}
	}
	t.Record(n)
	return y
}

// linearGradients makes the gradients of a linear layer's weights and bias, where they are
// wanted, from dy and the layer's input. It may write that of the weights (Overwrites).
func linearGradients(ops *tensor.Ops, g *Grads, w, bias *Param, dy, x tensor.Tensor) {
	m := tensor.Matmul{C: w.Grad, A: dy, B: x, TransA: true, Beta: g.Beta(w)}
	switch biased := bias != nil && bias.Trainable(); {
	case w.Trainable():
		if biased {
			m.DBias = bias.Grad
		}
		ops.Matmul(m)
	case biased:
		ops.SumRows(bias.Grad, dy)
	}
}

func beta(accumulate bool) float32 {
	if accumulate {
		return 1
	}
	return 0
}

// Add is a + b, of one shape.
func (t *Tape) Add(a, b *Var) *Var {
	must(slices.Equal(a.Shape, b.Shape) && a.Dtype == b.Dtype, "add", "%v and %v", a, b)
	ops := t.dev.Ops()
	y := t.NewVar("add", a.Dtype, a.Shape...)
	t.Record(&Node{
		Name: "add", In: []*Var{a, b}, Out: []*Var{y},
		InPlace: [][2]int{{0, 0}, {0, 1}}, GradInPlace: [][2]int{{0, 0}, {1, 0}}, SharedGrad: [][2]int{{0, 1}},
		Accumulates: true,
		Forward:     func() { ops.Add(y.value, a.value, b.value) },
		Backward: func(g *Grads) {
			for i := range 2 {
				d, accumulate := g.In(i)
				pass(ops, d, g.Out(0), accumulate)
			}
		},
	})
	return y
}

// pass hands a gradient on to a summand, if it is wanted there.
func pass(ops *tensor.Ops, dx, dy tensor.Tensor, accumulate bool) {
	switch {
	case dx.IsZero():
	case accumulate:
		ops.Add(dx, dx, dy)
	case dx.Addr != dy.Addr:
		ops.Copy(dx, dy)
	}
}

// RoPE rotates the first heads heads (of headDim columns) of each row of x by
// the token's position; other columns pass. cos and sin are tables
// [positions, half].
func (t *Tape) RoPE(x, positions *Var, cos, sin tensor.Tensor, heads, headDim int) *Var {
	must(heads*headDim <= x.Cols(), "rope", "%d heads of %d columns in %v", heads, headDim, x)
	must(isInts(positions, x.Rows()), "rope", "positions %v for %v", positions, x)
	must(slices.Equal(cos.Shape, sin.Shape) && cos.Rank() == 2 && 2*cos.Cols() <= headDim, "rope",
		"tables of cosines %v and sines %v for heads of %d columns", cos, sin, headDim)
	ops := t.dev.Ops()
	y := t.NewVar("rope", x.Dtype, x.Shape...)
	rotate := func(v tensor.Tensor, inverse bool) {
		ops.RoPE(tensor.RoPE{X: v, Cos: cos, Sin: sin, Positions: positions.value, Heads: heads, HeadDim: headDim, Inverse: inverse})
	}
	forward := func() {
		if y.value.Addr != x.value.Addr {
			ops.Copy(y.value, x.value)
		}
		rotate(y.value, false)
	}
	t.Record(&Node{
		Name: "rope", In: []*Var{x, positions}, Out: []*Var{y}, Needs: []*Var{positions},
		InPlace: [][2]int{{0, 0}}, GradInPlace: [][2]int{{0, 0}},
		Forward: forward, Remake: &Remake{Out: y, From: []*Var{x, positions}, Run: forward},
		Backward: func(g *Grads) {
			dx, _ := g.In(0)
			if dx.Addr != g.Out(0).Addr {
				ops.Copy(dx, g.Out(0))
			}
			rotate(dx, true)
		},
	})
	return y
}

// Attention is causal self-attention within the sequences of a packed batch:
// qkv [T, (Heads+2·KVHeads)·HeadDim] and starts I32 [n+1] → [T, Heads·HeadDim].
// longest bounds the sequences' length.
func (t *Tape) Attention(qkv, starts *Var, shape tensor.AttentionShape, longest int) *Var {
	return t.attention(qkv, starts, shape, longest, false)
}

// DenseAttention is Attention where every sequence has longest tokens.
func (t *Tape) DenseAttention(qkv, starts *Var, shape tensor.AttentionShape, longest int) *Var {
	return t.attention(qkv, starts, shape, longest, true)
}

func (t *Tape) attention(qkv, starts *Var, shape tensor.AttentionShape, longest int, dense bool) *Var {
	mustFit("attention", qkv, shape)
	must(isInts(starts, -1) && starts.Shape[0] > 0, "attention", "starts %v are not whole numbers, at least one", starts)
	ops := t.dev.Ops()
	o := t.NewVar("attention", qkv.Dtype, qkv.Rows(), shape.Heads*shape.HeadDim)
	lse := t.NewVar("attention.lse", qkv.Dtype.Wide(), shape.Heads, qkv.Rows())
	t.Record(&Node{
		Name: "attention", In: []*Var{qkv, starts}, Out: []*Var{o, lse}, Needs: []*Var{qkv, starts, o, lse},
		Forward: func() {
			ops.Attention(tensor.Attention{AttentionShape: shape, O: o.value, LSE: lse.value, QKV: qkv.value,
				Starts: starts.value, Longest: longest, Dense: dense})
		},
		Backward: func(g *Grads) {
			dqkv, _ := g.In(0)
			ops.AttentionBackward(tensor.AttentionBackward{AttentionShape: shape, DQKV: dqkv, DO: g.Out(0), O: o.value,
				LSE: lse.value, QKV: qkv.value, Starts: starts.value, Longest: longest, Dense: dense})
		},
	})
	return o
}

// mustFit checks that the rows of qkv hold the heads of shape.
func mustFit(op string, qkv *Var, shape tensor.AttentionShape) {
	fits := shape.KVHeads > 0 && shape.Heads%shape.KVHeads == 0 && qkv.Cols() == (shape.Heads+2*shape.KVHeads)*shape.HeadDim
	must(fits, op, "%v for %d heads and 2·%d of keys and values, of %d columns", qkv, shape.Heads, shape.KVHeads, shape.HeadDim)
}

// CachedAttention is attention for generation, over keys and values kept in k
// and v [slots, capacity, KVHeads·HeadDim]; slots and positions I32 [T] say where
// each row of qkv belongs. It has no backward pass.
func (t *Tape) CachedAttention(qkv, slots, positions *Var, k, v tensor.Tensor, shape tensor.AttentionShape) *Var {
	mustFit("cached attention", qkv, shape)
	must(isInts(slots, qkv.Rows()) && isInts(positions, qkv.Rows()), "cached attention", "%v and %v for %v", slots, positions, qkv)
	must(slices.Equal(k.Shape, v.Shape) && k.Rank() == 3 && k.Cols() == shape.KVHeads*shape.HeadDim, "cached attention",
		"cache of keys %v and values %v for %d heads of %d columns", k, v, shape.KVHeads, shape.HeadDim)
	ops := t.dev.Ops()
	o := t.NewVar("attention", qkv.Dtype, qkv.Rows(), shape.Heads*shape.HeadDim)
	t.Record(&Node{
		Name: "cached attention", In: []*Var{qkv, slots, positions}, Out: []*Var{o},
		Forward: func() {
			ops.CachedAttention(tensor.CachedAttention{AttentionShape: shape, O: o.value, QKV: qkv.value, K: k, V: v,
				Slots: slots.value, Positions: positions.value})
		},
	})
	return o
}

// GLU is the gated MLP's middle: [T, 2n] (gate, up) → act(gate)·up [T, n].
func (t *Tape) GLU(x *Var, act tensor.Activation) *Var {
	must(x.Cols()%2 == 0, "glu", "%v has an odd number of columns", x)
	ops := t.dev.Ops()
	y := t.NewVar("glu", x.Dtype, x.Rows(), x.Cols()/2)
	forward := func() { ops.GLU(y.value, x.value, act) }
	t.Record(&Node{
		Name: "glu", In: []*Var{x}, Out: []*Var{y}, Needs: []*Var{x}, GradOver: [][2]int{{0, 0}},
		Forward: forward, Remake: &Remake{Out: y, From: []*Var{x}, Run: forward},
		Backward: func(g *Grads) {
			dx, _ := g.In(0)
			ops.GLUBackward(dx, g.Out(0), x.value, act)
		},
	})
	return y
}

// Activate is act(x), of any shape.
func (t *Tape) Activate(x *Var, act tensor.Activation) *Var {
	ops := t.dev.Ops()
	y := t.NewVar("activation", x.Dtype, x.Shape...)
	forward := func() { ops.Activate(y.value, x.value, act) }
	t.Record(&Node{
		Name: "activate", In: []*Var{x}, Out: []*Var{y}, Needs: []*Var{x},
		InPlace: [][2]int{{0, 0}}, GradInPlace: [][2]int{{0, 0}}, GradOver: [][2]int{{0, 0}},
		Forward: forward, Remake: &Remake{Out: y, From: []*Var{x}, Run: forward},
		Backward: func(g *Grads) {
			dx, _ := g.In(0)
			ops.ActivateBackward(dx, g.Out(0), x.value, act)
		},
	})
	return y
}

// SoftCap is limit·tanh(x/limit), of any shape.
func (t *Tape) SoftCap(x *Var, limit float32) *Var {
	ops := t.dev.Ops()
	y := t.NewVar("capped", x.Dtype, x.Shape...)
	t.Record(&Node{
		Name: "softcap", In: []*Var{x}, Out: []*Var{y}, Needs: []*Var{y}, InPlace: [][2]int{{0, 0}}, GradInPlace: [][2]int{{0, 0}},
		GradOver: [][2]int{{0, 0}},
		Forward:  func() { ops.SoftCap(y.value, x.value, limit) },
		Backward: func(g *Grads) {
			dx, _ := g.In(0)
			ops.SoftCapBackward(dx, g.Out(0), y.value, limit)
		},
	})
	return y
}

// Scale is x·f, of any shape.
func (t *Tape) Scale(x *Var, f float32) *Var {
	ops := t.dev.Ops()
	y := t.NewVar("scaled", x.Dtype, x.Shape...)
	scale := func(dst, src tensor.Tensor) {
		if dst.Addr != src.Addr {
			ops.Copy(dst, src)
		}
		ops.Scale(dst, f)
	}
	t.Record(&Node{
		Name: "scale", In: []*Var{x}, Out: []*Var{y}, InPlace: [][2]int{{0, 0}}, GradInPlace: [][2]int{{0, 0}},
		Forward: func() { scale(y.value, x.value) },
		Backward: func(g *Grads) {
			dx, _ := g.In(0)
			scale(dx, g.Out(0))
		},
	})
	return y
}

// CrossEntropy is the output projection with w [V, H], its logits capped at softCap (0: not),
// and the cross-entropy with targets I32 [T] (negative: ignored); loss F64 [3] and scale [1] are memory of
// the caller's, see tensor.CrossEntropy. Training, it makes the gradient of
// scale·loss at once.
func (t *Tape) CrossEntropy(x, targets *Var, w *Param, softCap float32, loss, scale tensor.Tensor) {
	must(len(w.Shape) == 2 && x.Cols() == w.Shape[1], "cross-entropy", "%v times %v transposed", x, w)
	must(isInts(targets, x.Rows()), "cross-entropy", "targets %v for %v", targets, x)
	must(loss.Dtype == tensor.F64 && loss.Len() == 3 && scale.Len() == 1, "cross-entropy", "loss %v and scale %v", loss, scale)
	ops := t.dev.Ops()
	t.Record(&Node{
		Name: "cross-entropy", In: []*Var{x, targets}, Params: []*Param{w},
		FusedForward: func(g *Grads) {
			a := tensor.CrossEntropy{Loss: loss, X: x.value, W: w.Value, Targets: targets.value, Scale: scale, SoftCap: softCap,
				Padded: w.Padded}
			if g.Train {
				a.DX, _ = g.In(0)
				a.DW = w.Grad
			}
			ops.CrossEntropy(a)
		},
	})
}

// LogProb is the output projection with w [V, H] and, for x [T, H], the
// log-probabilities [T] of targets I32 [T] (negative: none) among the logits over
// the temperature, and with entropy those distributions' entropies [T], else nil;
// see tensor.LogProb. Gradients may come to either result or to both.
func (t *Tape) LogProb(x, targets *Var, w *Param, temperature, softCap float32, entropy bool) (logProbs, entropies *Var) {
	must(len(w.Shape) == 2 && x.Cols() == w.Shape[1], "log-probabilities", "%v times %v transposed", x, w)
	must(isInts(targets, x.Rows()), "log-probabilities", "targets %v for %v", targets, x)
	must(temperature > 0, "log-probabilities", "temperature %g is not above 0", temperature)
	ops := t.dev.Ops()
	logProbs = t.NewVar("logprobs", x.Dtype.Wide(), x.Rows())
	lse := t.NewVar("logprobs.lse", x.Dtype.Wide(), x.Rows())
	n := &Node{Name: "log-probabilities", In: []*Var{x, targets}, Out: []*Var{logProbs, lse}, Params: []*Param{w},
		Needs: []*Var{x, targets, lse}}
	if entropy {
		entropies = t.NewVar("entropies", x.Dtype.Wide(), x.Rows())
		n.Out, n.Needs = append(n.Out, entropies), append(n.Needs, entropies)
	}
	n.Forward = func() {
		a := tensor.LogProb{LogProbs: logProbs.value, LSE: lse.value, X: x.value, W: w.Value, Targets: targets.value,
			Temperature: temperature, SoftCap: softCap, Padded: w.Padded}
		if entropy {
			a.Entropies = entropies.value
		}
		ops.LogProb(a)
	}
	n.Backward = func(g *Grads) {
		a := tensor.LogProbBackward{DW: w.Grad, DLogProbs: g.Out(0), X: x.value, W: w.Value, Targets: targets.value, LSE: lse.value,
			Temperature: temperature, SoftCap: softCap, Padded: w.Padded}
		a.DX, _ = g.In(0)
		if entropy {
			a.DEntropies, a.Entropies = g.Out(2), entropies.value
		}
		ops.LogProbBackward(a)
	}
	t.Record(n)
	return logProbs, entropies
}
