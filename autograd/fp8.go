package autograd

import "ringtail/tensor"

// Eight is the weights of a linear layer, [out, in], as 8-bit floats (docs/fp8.md): W [out, in] and,
// transposed, WT [in, out], F8E4M3, with one scale for both, Wide [1]. Update makes them from a
// parameter's Value.
type Eight struct {
	W, WT, Scale tensor.Tensor
	AMax, Next   tensor.Tensor // Wide [1]: the largest absolute value of Value at the last update, and room for that of this one
}

// Measure takes the largest absolute value of value [out, in], which Update goes by: for weights
// that come without.
func (e *Eight) Measure(ops *tensor.Ops, value tensor.Tensor) {
	ops.Zero(e.AMax)
	ops.AMax(tensor.AMax{X: value, All: e.AMax})
}

// Update makes the 8-bit weights from value, by AMax, and sets AMax for the next update.
func (e *Eight) Update(ops *tensor.Ops, value tensor.Tensor) {
	ops.Zero(e.Next)
	ops.Quantize(tensor.Quantize{X: value, Q: e.W, QT: e.WT, AMax: e.AMax, Scale: e.Scale, Next: e.Next})
	ops.Copy(e.AMax, e.Next)
}

// sixteens is n rounded up to what products of 8-bit floats ask of the summed dimension.
func sixteens(n int) int { return (n + 15) &^ 15 }

// linear8 is linear with products of 8-bit floats. x is quantised once, as it is for y and transposed
// for the gradient of the weights, which keeps that in x's place; dy likewise. Each goes by its own
// largest absolute value.
func (t *Tape) linear8(x *Var, w, bias *Param) *Var {
	ops, e := t.dev.Ops(), w.Eight
	rows, in, out, wide := x.Rows(), w.Shape[1], w.Shape[0], x.Dtype.Wide()
	y := t.NewVar("linear", x.Dtype, rows, out)
	q, qt := t.NewVar("linear.x8", tensor.F8E4M3, rows, in), t.NewVar("linear.x8T", tensor.F8E4M3, in, sixteens(rows))
	amax, scale := t.NewVar("linear.amax", wide, 1), t.NewVar("linear.scale", wide, 1)
	n := &Node{Name: "linear", In: []*Var{x}, Out: []*Var{y, q, amax, scale}, Params: params(w, bias), Overwrites: []*Param{w}, Accumulates: true}
	n.Temporaries = []Temporary{{"dy8", tensor.F8E5M2, []int{rows, out}}, {"dy.amax", wide, []int{1}}, {"dy.scale", wide, []int{1}}}
	if w.Trainable() {
		n.Out, n.Needs = append(n.Out, qt), []*Var{qt, scale}
		n.Temporaries = append(n.Temporaries, Temporary{"dy8T", tensor.F8E5M2, []int{out, sixteens(rows)}})
	}
	n.Forward = func() {
		quantise(ops, tensor.Quantize{X: x.value, Q: q.value, QT: qt.value, AMax: amax.value, Scale: scale.value})
		ops.Matmul(tensor.Matmul{C: y.value, A: q.value, B: e.W, TransB: true, ScaleA: scale.value, ScaleB: e.Scale, Bias: valueOf(bias)})
	}
	n.Backward = func(g *Grads) {
		dy, made := g.Out(0), tensor.Quantize{X: g.Out(0), AMax: g.Temporary(1), Scale: g.Temporary(2)}
		dx, accumulate := g.In(0)
		if !dx.IsZero() {
			made.Q = g.Temporary(0)
		}
		if w.Trainable() {
			made.QT = g.Temporary(3)
		}
		if !made.Q.IsZero() || !made.QT.IsZero() {
			quantise(ops, made)
		}
		if w.Trainable() {
			ops.Matmul(tensor.Matmul{C: w.Grad, A: made.QT, B: qt.value, TransB: true, ScaleA: made.Scale, ScaleB: scale.value, Beta: g.Beta(w)})
		}
		if bias != nil && bias.Trainable() {
			ops.SumRows(bias.Grad, dy)
		}
		if !dx.IsZero() {
			ops.Matmul(tensor.Matmul{C: dx, A: made.Q, B: e.WT, TransB: true, ScaleA: made.Scale, ScaleB: e.Scale, Beta: beta(accumulate)})
		}
	}
	t.Record(n)
	for _, v := range []*Var{q, qt, amax, scale} {
		v.needsGrad = false // nothing but y has a gradient
	}
	return y
}

// quantise is Quantize by X's own largest absolute value, which AMax receives.
func quantise(ops *tensor.Ops, a tensor.Quantize) {
	ops.Zero(a.AMax)
	ops.AMax(tensor.AMax{X: a.X, All: a.AMax})
	ops.Quantize(a)
}
