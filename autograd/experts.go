package autograd

import (
	"slices"

	"ringtail/tensor"
)

// Mixture of experts: Route, then Gather of x by Routing.Tokens, GroupedLinear as
// often as the expert has layers, and Combine. Shapes don't depend on what is chosen.

// Routing is which tokens go to which expert; see tensor.Route.
type Routing struct {
	Experts, Slots *Var // I32 [T, K]
	Tokens         *Var // I32 [T·K]
	Starts         *Var // I32 [E+1]
}

// Route chooses k experts a token from logits [T, E]: weights [T, k], and which
// they are. See tensor.Route.
func (t *Tape) Route(logits *Var, k int, normalize bool) (weights *Var, r Routing) {
	rows, experts := logits.Rows(), logits.Cols()
	must(k >= 1 && k <= experts, "route", "%d experts of %v", k, logits)
	ops := t.dev.Ops()
	weights = t.NewVar("route.weights", logits.Dtype, rows, k)
	r = Routing{Experts: t.NewVar("route.experts", tensor.I32, rows, k), Slots: t.NewVar("route.slots", tensor.I32, rows, k),
		Tokens: t.NewVar("route.tokens", tensor.I32, rows*k), Starts: t.NewVar("route.starts", tensor.I32, experts+1)}
	t.Record(&Node{
		Name: "route", In: []*Var{logits}, Out: []*Var{weights, r.Experts, r.Slots, r.Tokens, r.Starts},
		Needs: []*Var{logits, weights, r.Experts}, Accumulates: true,
		Forward: func() {
			ops.Route(tensor.Route{Logits: logits.value, Weights: weights.value, Experts: r.Experts.value, Slots: r.Slots.value,
				Tokens: r.Tokens.value, Starts: r.Starts.value, Normalize: normalize})
		},
		Backward: func(g *Grads) {
			dl, accumulate := g.In(0)
			if dl.IsZero() {
				return
			}
			ops.RouteBackward(tensor.RouteBackward{DLogits: dl, DWeights: g.Out(0), Logits: logits.value, Weights: weights.value,
				Experts: r.Experts.value, Normalize: normalize, Accumulate: accumulate})
		},
	})
	return weights, r
}

// GroupedLinear is y = x·w[e]ᵀ for the rows Starts[e] … Starts[e+1]−1 of x [R, in] of each expert e, w [E, out, in].
func (t *Tape) GroupedLinear(x, starts *Var, w *Param) *Var {
	must(len(w.Shape) == 3 && x.Cols() == w.Shape[2], "grouped linear", "%v times %v transposed", x, w)
	must(isInts(starts, w.Shape[0]+1), "grouped linear", "starts %v for %v", starts, w)
	ops := t.dev.Ops()
	y := t.NewVar("grouped linear", x.Dtype, x.Rows(), w.Shape[1])
	n := &Node{Name: "grouped linear", In: []*Var{x, starts}, Out: []*Var{y}, Params: []*Param{w}, Needs: []*Var{starts}, Accumulates: true}
	if w.Trainable() {
		n.Needs = []*Var{x, starts}
	}
	n.Forward = func() {
		ops.GroupedMatmul(tensor.GroupedMatmul{C: y.value, A: x.value, B: w.Value, TransB: true, Starts: starts.value})
	}
	n.Backward = func(g *Grads) {
		if w.Trainable() {
			ops.GroupedOuter(tensor.GroupedOuter{C: w.Grad, A: g.Out(0), B: x.value, Starts: starts.value})
		}
		if dx, accumulate := g.In(0); !dx.IsZero() {
			ops.GroupedMatmul(tensor.GroupedMatmul{C: dx, A: g.Out(0), B: w.Value, Starts: starts.value, Accumulate: accumulate})
		}
	}
	t.Record(n)
	return y
}

// Combine is y[t] = Σ_k weights[t, k]·x[slots[t, k]]: x [T·K, H], weights and slots [T, K] → [T, H].
func (t *Tape) Combine(x, weights, slots *Var) *Var {
	must(slices.Equal(weights.Shape, slots.Shape) && slots.Dtype == tensor.I32 && x.Rows() == weights.Rows()*weights.Cols(), "combine",
		"%v by %v and %v", x, weights, slots)
	ops := t.dev.Ops()
	y := t.NewVar("combined", x.Dtype, weights.Rows(), x.Cols())
	t.Record(&Node{
		Name: "combine", In: []*Var{x, weights, slots}, Out: []*Var{y}, Needs: []*Var{x, weights, slots},
		Forward: func() {
			ops.Combine(tensor.Combine{Y: y.value, X: x.value, Weights: weights.value, Slots: slots.value})
		},
		Backward: func(g *Grads) {
			dx, _ := g.In(0)
			dw, _ := g.In(1)
			ops.CombineBackward(tensor.CombineBackward{DX: dx, DWeights: dw, DY: g.Out(0), X: x.value, Weights: weights.value, Slots: slots.value})
		},
	})
	return y
}

// RouterLoss adds the load-balancing loss of the routers whose logits [T, E] these
// are to loss F64 [1] and, training, makes coef·scale[0] times its gradient at once;
// live I32 [1] is the number of rows that count. See tensor.RouterLoss.
func (t *Tape) RouterLoss(logits []*Var, live *Var, k int, coef float32, loss, scale tensor.Tensor) {
	must(len(logits) > 0 && isInts(live, 1), "router loss", "%d routers, live rows %v", len(logits), live)
	for _, l := range logits {
		must(slices.Equal(l.Shape, logits[0].Shape) && k >= 1 && k <= l.Cols(), "router loss", "%d experts of %v beside %v", k, l, logits[0])
	}
	must(loss.Dtype == tensor.F64 && loss.Len() == 1 && scale.Len() == 1, "router loss", "loss %v and scale %v", loss, scale)
	ops := t.dev.Ops()
	a := tensor.RouterLoss{Loss: loss, K: k, Scale: scale, Coef: coef}
	t.Record(&Node{
		Name: "router loss", In: append(slices.Clone(logits), live), Accumulates: true,
		FusedForward: func(g *Grads) {
			a.Live = live.value
			a.Logits, a.DLogits, a.Accumulate = a.Logits[:0], a.DLogits[:0], a.Accumulate[:0]
			for i, l := range logits {
				a.Logits = append(a.Logits, l.value)
				if g.Train {
					dl, accumulate := g.In(i)
					a.DLogits, a.Accumulate = append(a.DLogits, dl), append(a.Accumulate, accumulate)
				}
			}
			ops.RouterLoss(a)
		},
	})
}
