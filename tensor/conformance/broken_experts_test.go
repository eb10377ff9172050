package conformance

import (
	"slices"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// scratch is a copy of t, which may be altered.
func scratch(t tensor.Tensor) tensor.Tensor {
	c, _, err := tensor.New(ref.New(), t.Dtype, t.Shape...)
	if err != nil {
		panic(err)
	}
	if t.Dtype == tensor.I32 {
		copy(c.Int32(), t.Int32())
	} else {
		good.Copy(c, t)
	}
	return c
}

// expertMistakes are mistakes of the operations of experts.
var expertMistakes = []mistake{
	{"the highest id among equals", "Route", "Experts[", func(ops *tensor.Ops) {
		ops.Route = func(a tensor.Route) {
			good.Route(a)
			k := a.Weights.Cols()
			for t := range a.Logits.Rows() {
				z, first := part(a.Logits, t, 0, a.Logits.Cols()), a.Experts.Int32()[t*k:]
				for e := range z {
					if z[e] == z[first[0]] {
						first[0] = int32(e)
					}
				}
			}
		}
	}},
	{"weights not divided by their sum", "Route", "Weights[", func(ops *tensor.Ops) {
		ops.Route = func(a tensor.Route) { a.Normalize = false; good.Route(a) }
	}},
	{"weights always divided by their sum", "Route", "Weights[", func(ops *tensor.Ops) {
		ops.Route = func(a tensor.Route) { a.Normalize = true; good.Route(a) }
	}},
	{"tokens of an expert in another order", "Route", "Tokens[", func(ops *tensor.Ops) {
		ops.Route = func(a tensor.Route) {
			good.Route(a)
			starts := a.Starts.Int32()
			for e := range len(starts) - 1 {
				slices.Reverse(a.Tokens.Int32()[starts[e]:starts[e+1]])
			}
		}
	}},
	{"slots without their group's start", "Route", "Slots[", func(ops *tensor.Ops) {
		ops.Route = func(a tensor.Route) {
			good.Route(a)
			for i, e := range a.Experts.Int32() {
				a.Slots.Int32()[i] -= a.Starts.Int32()[e]
			}
		}
	}},
	{"a softmax that overflows", "Route", "Weights[", func(ops *tensor.Ops) {
		ops.Route = func(a tensor.Route) {
			good.Route(a)
			for t := range a.Logits.Rows() {
				if z := part(a.Logits, t, 0, 1); z[0] > 709 {
					good.Scale(a.Weights.Slice(t, 1), 0)
				}
			}
		}
	}},
	{"chosen experts' gradients alone", "RouteBackward", "DLogits[", func(ops *tensor.Ops) {
		ops.RouteBackward = func(a tensor.RouteBackward) { a.Normalize = true; good.RouteBackward(a) }
	}},
	{"Accumulate ignored", "RouteBackward", "DLogits[", func(ops *tensor.Ops) {
		ops.RouteBackward = func(a tensor.RouteBackward) { a.Accumulate = false; good.RouteBackward(a) }
	}},
	{"experts not chosen left as they were", "RouteBackward", "DLogits[", func(ops *tensor.Ops) {
		ops.RouteBackward = func(a tensor.RouteBackward) {
			before := scratch(a.DLogits)
			good.RouteBackward(a)
			k := a.Weights.Cols()
			for t := range a.Logits.Rows() {
				for e := range a.Logits.Cols() {
					if !slices.Contains(a.Experts.Int32()[t*k:][:k], int32(e)) {
						part(a.DLogits, t, e, 1)[0] = part(before, t, e, 1)[0]
					}
				}
			}
		}
	}},
	{"the first group's matrix for all", "GroupedMatmul", "C[", func(ops *tensor.Ops) {
		ops.GroupedMatmul = func(a tensor.GroupedMatmul) {
			a.B = scratch(a.B)
			for e := range a.B.Shape[0] {
				good.Copy(a.B.Slice(e, 1), a.B.Slice(0, 1))
			}
			good.GroupedMatmul(a)
		}
	}},
	{"the last row of a group forgotten", "GroupedMatmul", "C[", func(ops *tensor.Ops) {
		ops.GroupedMatmul = func(a tensor.GroupedMatmul) {
			before := scratch(a.C)
			good.GroupedMatmul(a)
			if n := a.C.Rows(); n > 1 {
				good.Copy(a.C.Slice(n-1, 1), before.Slice(n-1, 1))
			}
		}
	}},
	{"rows past the longest of kernels forgotten", "GroupedMatmul", "C[", func(ops *tensor.Ops) {
		ops.GroupedMatmul = func(a tensor.GroupedMatmul) {
			good.GroupedMatmul(a)
			for r := 1024; r < a.C.Rows(); r++ {
				good.Scale(a.C.Slice(r, 1), 0)
			}
		}
	}},
	{"Accumulate ignored", "GroupedMatmul", "C[", func(ops *tensor.Ops) {
		ops.GroupedMatmul = func(a tensor.GroupedMatmul) { a.Accumulate = false; good.GroupedMatmul(a) }
	}},
	{"C read without Accumulate", "GroupedMatmul", "C[", func(ops *tensor.Ops) {
		ops.GroupedMatmul = func(a tensor.GroupedMatmul) { a.Accumulate = true; good.GroupedMatmul(a) }
	}},
	{"set in place of added", "GroupedOuter", "C[", func(ops *tensor.Ops) {
		ops.GroupedOuter = func(a tensor.GroupedOuter) { good.Zero(a.C); good.GroupedOuter(a) }
	}},
	{"empty groups set to 0", "GroupedOuter", "C[", func(ops *tensor.Ops) {
		ops.GroupedOuter = func(a tensor.GroupedOuter) {
			good.GroupedOuter(a)
			starts := a.Starts.Int32()
			for e := range a.C.Shape[0] {
				if starts[e] == starts[e+1] {
					good.Zero(a.C.Slice(e, 1))
				}
			}
		}
	}},
	{"weights forgotten", "Combine", "Y[", func(ops *tensor.Ops) {
		ops.Combine = func(a tensor.Combine) {
			a.Weights = scratch(a.Weights)
			for i := range a.Weights.Float64() {
				a.Weights.Float64()[i] = 1
			}
			good.Combine(a)
		}
	}},
	{"rows in place of Slots", "Combine", "Y[", func(ops *tensor.Ops) {
		ops.Combine = func(a tensor.Combine) {
			a.Slots = scratch(a.Slots)
			for i := range a.Slots.Int32() {
				a.Slots.Int32()[i] = int32(i)
			}
			good.Combine(a)
		}
	}},
	{"DX in the order of tokens", "CombineBackward", "DX[", func(ops *tensor.Ops) {
		ops.CombineBackward = func(a tensor.CombineBackward) {
			good.CombineBackward(a)
			if k := a.Slots.Cols(); !a.DX.IsZero() {
				sorted := scratch(a.DX)
				for i, s := range a.Slots.Int32() {
					good.Copy(a.DX.Slice(i/k*k+i%k, 1), sorted.Slice(int(s), 1))
				}
			}
		}
	}},
	{"DWeights from the weighted rows", "CombineBackward", "DWeights[", func(ops *tensor.Ops) {
		ops.CombineBackward = func(a tensor.CombineBackward) {
			good.CombineBackward(a)
			if !a.DWeights.IsZero() {
				for t := range a.Weights.Rows() {
					for i, w := range part(a.Weights, t, 0, a.Weights.Cols()) {
						part(a.DWeights, t, i, 1)[0] *= w
					}
				}
			}
		}
	}},
	{"filler counted", "RouterLoss", "Loss[", func(ops *tensor.Ops) {
		ops.RouterLoss = func(a tensor.RouterLoss) {
			if len(a.Logits) > 0 {
				a.Live = scratch(a.Live)
				a.Live.Int32()[0] = int32(a.Logits[0].Rows())
			}
			good.RouterLoss(a)
		}
	}},
	{"the mean in place of the sum over tokens", "RouterLoss", "Loss[", func(ops *tensor.Ops) {
		ops.RouterLoss = func(a tensor.RouterLoss) {
			before := a.Loss.Float64()[0]
			good.RouterLoss(a)
			if live := a.Live.Int32()[0]; live > 0 {
				a.Loss.Float64()[0] = before + (a.Loss.Float64()[0]-before)/float64(live)
			}
		}
	}},
	{"each layer's own fractions", "RouterLoss", "[", func(ops *tensor.Ops) {
		ops.RouterLoss = func(a tensor.RouterLoss) {
			all := a
			for i := range all.Logits {
				a.Logits = all.Logits[i : i+1]
				if len(all.DLogits) > 0 {
					a.DLogits, a.Accumulate = all.DLogits[i:i+1], all.Accumulate[i:i+1]
				}
				good.RouterLoss(a)
			}
		}
	}},
	{"filler's gradients not set", "RouterLoss", "DLogits[", func(ops *tensor.Ops) {
		ops.RouterLoss = func(a tensor.RouterLoss) {
			var before []tensor.Tensor
			for _, d := range a.DLogits {
				if d.IsZero() {
					before = append(before, d)
				} else {
					before = append(before, scratch(d))
				}
			}
			good.RouterLoss(a)
			for i, d := range a.DLogits {
				for t := int(a.Live.Int32()[0]); !d.IsZero() && t < d.Rows(); t++ {
					good.Copy(d.Slice(t, 1), before[i].Slice(t, 1))
				}
			}
		}
	}},
	{"Accumulate ignored", "RouterLoss", "DLogits[", func(ops *tensor.Ops) {
		ops.RouterLoss = func(a tensor.RouterLoss) {
			a.Accumulate = make([]bool, len(a.DLogits))
			good.RouterLoss(a)
		}
	}},
	{"Coef forgotten", "RouterLoss", "DLogits[", func(ops *tensor.Ops) {
		ops.RouterLoss = func(a tensor.RouterLoss) { a.Coef = 1; good.RouterLoss(a) }
	}},
}
