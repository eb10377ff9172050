package conformance

import (
	"math"

	"ringtail/tensor"
)

var hiddens = []int{1, 2, 7, 16, 33, 65, 130, 1027}

func testRMSNorm(s *suite) {
	for _, l := range layouts {
		for _, t := range []int{0, 1, 2, 3, 7, 33} {
			for _, h := range hiddens {
				for _, form := range []string{"alone", "sum", "sum in X", "sum in Delta"} {
					rmsNormTrial(s, l, t, h, form, 1e-5, 1, 0)
				}
				rmsNormTrial(s, l, t, h, "sum", 1e-6, 1, 1)
			}
		}
		rmsNormTrial(s, l, 5, 33, "alone", 0.5, 1, 0)        // an Eps that counts
		rmsNormTrial(s, l, 5, 33, "sum", 1e-6, s.large(), 0) // large activations
		rmsNormTrial(s, l, 5, 33, "alone", 1e-6, 1e-4, 0)    // and small ones, where Eps counts again
	}
	tr := s.always(dense, "RMSNorm with NaN in row 1")
	v := tr.normal(3, 9)
	v[12] = math.NaN()
	x, w, y, rstd := tr.values("X", v, 3, 9), tr.random("W", 9), tr.blank("Y", 3, 9), tr.wideBlank("RStd", 3)
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.RMSNorm(tensor.RMSNorm{Y: at(y), X: at(x), W: at(w), RStd: at(rstd), Eps: 1e-5})
	})
}

func rmsNormTrial(s *suite, l layout, t, h int, form string, eps float32, size float64, offset float32) {
	tr := s.trial(l, "RMSNorm [%d %d] %s, Eps %g, size %g, WOffset %g", t, h, form, eps, size, offset)
	v := tr.normal(t, h)
	for i := range v {
		v[i] *= size
	}
	x, w := tr.values("X", v, t, h), tr.random("W", h)
	y, rstd := tr.blank("Y", t, h), tr.wideBlank("RStd", t)
	var delta, sum *operand
	switch form {
	case "sum":
		delta, sum = tr.random("Delta", t, h), tr.blank("Sum", t, h)
	case "sum in X":
		delta, sum = tr.random("Delta", t, h), x.out()
	case "sum in Delta":
		delta = tr.random("Delta", t, h).out()
		sum = delta
	}
	if sum != nil {
		y.through(2) // Sum may have been rounded before it is squared and normalised
		rstd.through(1)
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.RMSNorm(tensor.RMSNorm{Y: at(y), X: at(x), W: at(w), RStd: at(rstd), Delta: at(delta), Sum: at(sum), Eps: eps, WOffset: offset})
	})
}

func testRMSNormBackward(s *suite) {
	for _, l := range layouts {
		for _, t := range []int{0, 1, 2, 3, 7, 33} {
			for _, h := range hiddens {
				for _, residual := range []string{"no DSum", "DSum", "DX = DSum"} {
					rmsNormBackwardTrial(s, l, t, h, residual, false, true, 0)
				}
				rmsNormBackwardTrial(s, l, t, h, "no DSum", true, false, 0)
				rmsNormBackwardTrial(s, l, t, h, "DSum", true, true, 0)
				rmsNormBackwardTrial(s, l, t, h, "no DX", false, true, 0)
				rmsNormBackwardTrial(s, l, t, h, "DSum", false, true, 1)
				rmsNormBackwardTrial(s, l, t, h, "no DSum", false, false, 1)
			}
		}
	}
}

func rmsNormBackwardTrial(s *suite, l layout, t, h int, residual string, accumulate, weight bool, offset float32) {
	tr := s.trial(l, "RMSNormBackward [%d %d] %s, Accumulate %v, DW %v, WOffset %g", t, h, residual, accumulate, weight, offset)
	sv := tr.normal(t, h)
	rv := make([]float64, t) // what the forward pass gives
	for i := range rv {
		rv[i] = 1 / math.Sqrt(meanSquare(sv[i*h:][:h])+1e-5)
	}
	sum, rstd := tr.values("S", sv, t, h), tr.wide("RStd", rv, t)
	w, dy := tr.random("W", h), tr.random("DY", t, h)
	var dx, dw, dsum *operand
	if weight {
		dw = tr.gradient("DW", h)
	}
	switch residual {
	case "DSum":
		dsum = tr.random("DSum", t, h)
	case "DX = DSum":
		dsum = tr.random("DSum", t, h).out()
		dx = dsum
	}
	switch {
	case dx != nil, residual == "no DX":
	case accumulate:
		dx = tr.random("DX", t, h).out()
	default:
		dx = tr.blank("DX", t, h)
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.RMSNormBackward(tensor.RMSNormBackward{DX: at(dx), DW: at(dw), DY: at(dy), DSum: at(dsum),
			S: at(sum), W: at(w), RStd: at(rstd), WOffset: offset, Accumulate: accumulate})
	})
}

func meanSquare(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x * x
	}
	return sum / float64(len(v))
}
