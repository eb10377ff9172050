package conformance

import (
	"math"

	"ringtail/tensor"
)

func testSumSquares(s *suite) {
	for _, l := range layouts {
		for _, p := range append(planes, [2]int{1, 10007}) {
			tr := s.trial(l, "SumSquares of %v", p)
			x, out := tr.either("x", tr.normal(p[0], p[1]), p[0], p[1]), tr.typed("out", tensor.F64, []float64{3.5, 7}, 2).out()
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
				ops.SumSquares(at(out), at(x))
				ops.SumSquares(at(out), at(x))
			})
		}
	}
	for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
		for _, place := range []int{0, 9, 36} {
			tr := s.always(dense, "SumSquares with %g at %d", bad, place)
			v := tr.normal(37)
			v[place] = bad
			x, out := tr.values("x", v, 37), tr.typed("out", tensor.F64, []float64{1}, 1).out()
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.SumSquares(at(out), at(x)) })
		}
	}
}

// stepBlock is a step block with something in every place.
func stepBlock() []float64 {
	v := make([]float64, tensor.StepSize)
	for i := range v {
		v[i] = 0.25 + float64(i)
	}
	v[tensor.StepLR], v[tensor.StepBias1], v[tensor.StepBias2] = 0.3, 1-0.81, 1-0.9025
	v[tensor.StepClip], v[tensor.StepSkip], v[tensor.StepSkipped], v[tensor.StepUpdates] = 1, 0, 4, 7
	return v
}

func testClipFactor(s *suite) {
	nan, inf := math.NaN(), math.Inf(1)
	cases := []struct {
		name       string
		sumSquares float64
		maxNorm    float64
		check      []float64 // nil: absent
		skip       bool
	}{
		{"norm above MaxNorm", 25, 1, nil, false},
		{"norm below MaxNorm", 0.04, 1, nil, false},
		{"norm near MaxNorm, where 1e-6 decides", 1e-8, 1.005e-4, nil, false},
		{"zero norm", 0, 1, nil, false},
		{"no clipping", 25, 0, nil, false},
		{"negative MaxNorm", 25, -1, nil, false},
		{"finite losses", 25, 1, []float64{1, 2, 3}, false},
		{"NaN norm", nan, 1, nil, true},
		{"infinite norm", inf, 1, nil, true},
		{"NaN norm, no clipping", nan, 0, nil, true},
		{"NaN loss", 25, 1, []float64{1, 2, nan}, true},
		{"infinite loss", 25, 0, []float64{-inf, 2}, true},
		{"all of them", nan, 1, []float64{nan, inf}, true},
	}
	for _, l := range layouts {
		for _, c := range cases {
			for _, before := range []float64{0, 1} {
				var beta1, beta2 float64
				if before == 0 {
					beta1, beta2 = 0.9, 0.95
				}
				tr := s.always(l, "ClipFactor: %s, Skip %g before", c.name, before)
				v := stepBlock()
				v[tensor.StepSumSquares], v[tensor.StepSkip] = c.sumSquares, before
				step := tr.typed("Step", tensor.F64, v, len(v)).out()
				if c.skip {
					step.except(tensor.StepClip) // of no use in a step that is skipped
				}
				var check *operand
				if c.check != nil {
					check = tr.typed("Check", tensor.F64, c.check, len(c.check))
				}
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
					ops.ClipFactor(tensor.ClipFactor{Step: at(step), Check: at(check), MaxNorm: c.maxNorm, Beta1: beta1, Beta2: beta2})
				})
			}
		}
	}
}

func testAdamW(s *suite) {
	cases := []struct {
		name                      string
		clip, skip                float64
		beta1, beta2, eps, decay  float64
		zeroGradients, zeroMoment bool
	}{
		{name: "plain", clip: 1, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1},
		{name: "clipped", clip: 0.37, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.1},
		{name: "no decay", clip: 1, beta1: 0.9, beta2: 0.95, eps: 1e-8},
		{name: "an Eps that counts", clip: 1, beta1: 0.8, beta2: 0.9, eps: 0.3, decay: 0.5},
		{name: "first step", clip: 1, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1, zeroMoment: true},
		{name: "no gradient yet", clip: 1, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1, zeroMoment: true, zeroGradients: true},
		{name: "skipped", clip: math.NaN(), skip: 1, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1},
	}
	for _, l := range layouts {
		for _, n := range []int{0, 1, 2, 7, 16, 33, 1000, 5003} {
			for _, c := range cases {
				for i, state := range []string{"", ", Master", ", M and V as Param", ", wide Param", ", wide Param and M and V"} {
					if i >= 2 && !narrow(s.dev) {
						continue
					}
					tr := s.trial(l, "AdamW of %d, %s%s", n, c.name, state)
					pv, gv, mv, vv := tr.normal(n), tr.normal(n), tr.normal(n), tr.normal(n)
					for i := range n {
						vv[i] = math.Abs(vv[i]) + 0.1
						if c.zeroMoment {
							mv[i], vv[i] = 0, 0
						}
						if c.zeroGradients {
							gv[i] = 0
						}
					}
					block := stepBlock()
					block[tensor.StepClip], block[tensor.StepSkip] = c.clip, c.skip
					param := tr.values
					if i >= 3 {
						param = tr.wide
					}
					p, g := param("Param", pv, n).out(), tr.either("Grad", gv, n)
					var master *operand
					moments, steps := tr.wide, 2
					switch {
					case i == 1: // of master weights
						master = tr.wide("Master", tr.normal(n), n).out()
						p.rounds(master)
					case narrow(s.dev):
						steps = 1 // more would round what is stored in between
						if i == 2 || i == 3 {
							moments = tr.values
						}
					}
					m, v := moments("M", mv, n).out(), moments("V", vv, n).out()
					step := tr.typed("Step", tensor.F64, block, len(block))
					tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
						for range steps {
							ops.AdamW(tensor.AdamW{Param: at(p), Master: at(master), Grad: at(g), M: at(m), V: at(v), Step: at(step),
								Beta1: c.beta1, Beta2: c.beta2, Eps: c.eps, WeightDecay: c.decay})
						}
					})
				}
			}
		}
	}
}
