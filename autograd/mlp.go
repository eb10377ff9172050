package autograd

import (
	"slices"

	"ringtail/tensor"
)

// GELUMLP is a plain MLP, Linear(GELU(Linear(x))), with GELU's tanh form: what it is Linear,
// Activate and Linear for, but with GELU and its gradient made as the products are stored.
// Biases are optional.
func (t *Tape) GELUMLP(x *Var, up, upBias, down, downBias *Param) *Var {
	must(len(up.Shape) == 2 && len(down.Shape) == 2 && x.Cols() == up.Shape[1] && up.Shape[0] == down.Shape[1], "MLP", "%v times %v and %v, transposed", x, up, down)
	must(upBias == nil || slices.Equal(upBias.Shape, up.Shape[:1]), "MLP", "bias %v beside %v", upBias, up)
	must(downBias == nil || slices.Equal(downBias.Shape, down.Shape[:1]), "MLP", "bias %v beside %v", downBias, down)
	if up.Eight != nil || down.Eight != nil {
		return t.Linear(t.Activate(t.Linear(x, up, upBias), tensor.GELUTanh), down, downBias)
	}
	ops := t.dev.Ops()
	pre, h := t.NewVar("mlp.pre", x.Dtype, x.Rows(), up.Shape[0]), t.NewVar("mlp.gelu", x.Dtype, x.Rows(), up.Shape[0])
	first := &Node{Name: "linear gelu", In: []*Var{x}, Out: []*Var{pre, h}, Params: params(up, upBias), Overwrites: []*Param{up}, Accumulates: true}
	if up.Trainable() {
		first.Needs = []*Var{x}
	}
	first.Forward = func() {
		ops.Matmul(tensor.Matmul{C: h.value, A: x.value, B: up.Value, TransB: true, Bias: valueOf(upBias), Fused: tensor.GELUForward, Pre: pre.value})
	}
	first.Remake = &Remake{Out: h, From: []*Var{pre}, Run: func() { ops.Activate(h.value, pre.value, tensor.GELUTanh) }}
	first.Backward = func(g *Grads) {
		dPre := g.Out(0)
		linearGradients(ops, g, up, upBias, dPre, x.value)
		if dx, accumulate := g.In(0); !dx.IsZero() {
			ops.Matmul(tensor.Matmul{C: dx, A: dPre, B: up.Value, Beta: beta(accumulate)})
		}
	}
	t.Record(first)
	h.needsGrad = false // GELU's gradient is made with the second product's: pre's

	y := t.NewVar("linear", x.Dtype, x.Rows(), down.Shape[0])
	second := &Node{Name: "linear of gelu", In: []*Var{pre, h}, Out: []*Var{y}, Params: params(down, downBias), Overwrites: []*Param{down}, Needs: []*Var{pre}}
	if down.Trainable() {
		second.Needs = append(second.Needs, h)
	}
	second.Forward = func() {
		ops.Matmul(tensor.Matmul{C: y.value, A: h.value, B: down.Value, TransB: true, Bias: valueOf(downBias)})
	}
	second.Backward = func(g *Grads) {
		dy := g.Out(0)
		linearGradients(ops, g, down, downBias, dy, h.value)
		if dPre, _ := g.In(0); !dPre.IsZero() {
			ops.Matmul(tensor.Matmul{C: dPre, A: dy, B: down.Value, Fused: tensor.GELUBackward, Pre: pre.value})
		}
	}
	t.Record(second)
	return y
}

// params are those that there are.
func params(list ...*Param) []*Param {
	return slices.DeleteFunc(list, func(p *Param) bool { return p == nil })
}

// valueOf is the zero Tensor for no parameter.
func valueOf(p *Param) tensor.Tensor {
	if p == nil {
		return tensor.Tensor{}
	}
	return p.Value
}
