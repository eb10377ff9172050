package autograd

import (
	"slices"

	"ringtail/tensor"
)

// Norm is a normalisation of rows [H]: LayerNorm where Layer is set, else RMSNorm.
// W [H]; Bias [H] is LayerNorm's and optional; WOffset is RMSNorm's (see tensor.RMSNorm).
type Norm struct {
	W, Bias      *Param
	Layer        bool
	Eps, WOffset float32
}

// RMSNorm normalises the rows of x [T, H] with weights w [H].
func (t *Tape) RMSNorm(x *Var, w *Param, eps float32) *Var { return t.Norm(x, Norm{W: w, Eps: eps}) }

// AddRMSNorm is AddNorm with RMSNorm.
func (t *Tape) AddRMSNorm(x, delta *Var, w *Param, eps float32) (sum, y *Var) {
	return t.AddNorm(x, delta, Norm{W: w, Eps: eps})
}

// Norm normalises the rows of x [T, H].
func (t *Tape) Norm(x *Var, n Norm) *Var {
	r := n.newRecord(t, "norm", x)
	forward := func() { r.forward(x.value, tensor.Tensor{}, tensor.Tensor{}) }
	t.Record(&Node{
		Name: r.op, In: []*Var{x}, Out: append([]*Var{r.y}, r.stats...), Params: r.params(),
		Needs: append([]*Var{x}, r.stats...), Accumulates: true, Scratch: true,
		Forward: forward, Remake: &Remake{Out: r.y, From: []*Var{x}, Also: r.stats, Run: forward},
		Backward: func(g *Grads) {
			dx, accumulate := g.In(0)
			r.backward(dx, accumulate, g.Out(0), tensor.Tensor{}, x.value)
		},
	})
	return r.y
}

// AddNorm is the residual connection and the norm after it in one pass:
// sum = x + delta, y = norm(sum), with x and delta [T, H].
func (t *Tape) AddNorm(x, delta *Var, n Norm) (sum, y *Var) {
	r := n.newRecord(t, "add+norm", x)
	must(slices.Equal(x.Shape, delta.Shape) && x.Dtype == delta.Dtype, r.op, "%v and %v", x, delta)
	sum = t.NewVar("residual", x.Dtype, x.Shape...)
	last := 1 + len(r.stats) // the sum's place among the results
	t.Record(&Node{
		Name: r.op, In: []*Var{x, delta}, Out: append(append([]*Var{r.y}, r.stats...), sum), Params: r.params(),
		Needs: append([]*Var{sum}, r.stats...), Accumulates: true, Scratch: true,
		InPlace: [][2]int{{last, 0}, {last, 1}}, GradInPlace: [][2]int{{0, last}, {1, last}}, SharedGrad: [][2]int{{0, 1}},
		Forward: func() { r.forward(x.value, delta.value, sum.value) },
		Remake: &Remake{Out: r.y, From: []*Var{sum}, Also: r.stats,
			Run: func() { r.forward(sum.value, tensor.Tensor{}, tensor.Tensor{}) }},
		Backward: func(g *Grads) {
			dx, accumulate := g.In(0)
			if dx.IsZero() { // only delta's is wanted; otherwise this one is both
				dx, accumulate = g.In(1)
			}
			if g.Out(0).IsZero() { // nothing came through the norm
				pass(t.dev.Ops(), dx, g.Out(last), accumulate)
				return
			}
			r.backward(dx, accumulate, g.Out(0), g.Out(last), sum.value)
		},
	})
	return sum, r.y
}

// normRecord is one norm being recorded: its result and what the backward pass
// needs of its rows.
type normRecord struct {
	Norm
	op    string
	ops   *tensor.Ops
	y     *Var
	stats []*Var // RStd; of LayerNorm, then Mean
}

func (n Norm) newRecord(t *Tape, op string, x *Var) *normRecord {
	r := &normRecord{Norm: n, op: op, ops: t.dev.Ops()}
	must(slices.Equal(n.W.Shape, []int{x.Cols()}), op, "%v with %v", x, n.W)
	must(n.Bias == nil || n.Layer && slices.Equal(n.Bias.Shape, n.W.Shape), op, "%v with %v and bias %v", x, n.W, n.Bias)
	r.y = t.NewVar("norm", x.Dtype, x.Shape...)
	r.stats = []*Var{t.NewVar("norm.rstd", x.Dtype.Wide(), x.Rows())}
	if n.Layer {
		r.stats = append(r.stats, t.NewVar("norm.mean", x.Dtype.Wide(), x.Rows()))
	}
	return r
}

func (r *normRecord) params() []*Param {
	if r.Bias == nil {
		return []*Param{r.W}
	}
	return []*Param{r.W, r.Bias}
}

// forward normalises x, or x + delta, kept in sum.
func (r *normRecord) forward(x, delta, sum tensor.Tensor) {
	if !r.Layer {
		r.ops.RMSNorm(tensor.RMSNorm{Y: r.y.value, X: x, W: r.W.Value, RStd: r.stats[0].value, Delta: delta, Sum: sum,
			Eps: r.Eps, WOffset: r.WOffset})
		return
	}
	a := tensor.LayerNorm{Y: r.y.value, X: x, W: r.W.Value, RStd: r.stats[0].value, Mean: r.stats[1].value, Delta: delta, Sum: sum, Eps: r.Eps}
	if r.Bias != nil {
		a.Bias = r.Bias.Value
	}
	r.ops.LayerNorm(a)
}

// backward is the gradient at s, what was normalised, from that of the result and,
// if there is one, that which reaches s from elsewhere.
func (r *normRecord) backward(dx tensor.Tensor, accumulate bool, dy, dsum, s tensor.Tensor) {
	if !r.Layer {
		r.ops.RMSNormBackward(tensor.RMSNormBackward{DX: dx, DW: r.W.Grad, DY: dy, DSum: dsum, S: s, W: r.W.Value,
			RStd: r.stats[0].value, WOffset: r.WOffset, Accumulate: accumulate})
		return
	}
	a := tensor.LayerNormBackward{DX: dx, DW: r.W.Grad, DY: dy, DSum: dsum, S: s, W: r.W.Value, RStd: r.stats[0].value,
		Mean: r.stats[1].value, Accumulate: accumulate}
	if r.Bias != nil {
		a.DBias = r.Bias.Grad
	}
	r.ops.LayerNormBackward(a)
}

// HeadNorm normalises each query and key head of qkv [T, (Heads+2·KVHeads)·HeadDim]
// with wq and wk [HeadDim]; values pass. See tensor.HeadNorm.
func (t *Tape) HeadNorm(qkv *Var, wq, wk *Param, shape tensor.AttentionShape, eps, wOffset float32) *Var {
	mustFit("head norm", qkv, shape)
	for _, w := range []*Param{wq, wk} {
		must(slices.Equal(w.Shape, []int{shape.HeadDim}), "head norm", "%v for heads of %d columns", w, shape.HeadDim)
	}
	ops := t.dev.Ops()
	y := t.NewVar("head norm", qkv.Dtype, qkv.Shape...)
	rstd := t.NewVar("head norm.rstd", qkv.Dtype.Wide(), qkv.Rows(), shape.Heads+shape.KVHeads)
	forward := func() {
		ops.HeadNorm(tensor.HeadNorm{Y: y.value, X: qkv.value, WQ: wq.Value, WK: wk.Value, RStd: rstd.value,
			Heads: shape.Heads, KVHeads: shape.KVHeads, HeadDim: shape.HeadDim, Eps: eps, WOffset: wOffset})
	}
	t.Record(&Node{
		Name: "head norm", In: []*Var{qkv}, Out: []*Var{y, rstd}, Params: []*Param{wq, wk}, Needs: []*Var{qkv, rstd},
		Scratch: true, GradInPlace: [][2]int{{0, 0}},
		Forward: forward, Remake: &Remake{Out: y, From: []*Var{qkv}, Also: []*Var{rstd}, Run: forward},
		Backward: func(g *Grads) {
			dx, _ := g.In(0)
			ops.HeadNormBackward(tensor.HeadNormBackward{DX: dx, DWQ: wq.Grad, DWK: wk.Grad, DY: g.Out(0), X: qkv.value,
				WQ: wq.Value, WK: wk.Value, RStd: rstd.value, Heads: shape.Heads, KVHeads: shape.KVHeads, HeadDim: shape.HeadDim, WOffset: wOffset})
		},
	})
	return y
}
