package conformance

import (
	"math"

	"ringtail/tensor"
)

func testLayerNorm(s *suite) {
	for _, l := range layouts {
		for _, t := range []int{0, 1, 2, 3, 7, 33} {
			for _, h := range hiddens {
				for _, form := range []string{"alone", "sum", "sum in X", "sum in Delta"} {
					layerNormTrial(s, l, t, h, form, form != "sum", 1e-5, 1, 0)
				}
			}
		}
		layerNormTrial(s, l, 5, 33, "alone", true, 0.5, 1, 0)        // an Eps that counts
		layerNormTrial(s, l, 5, 33, "sum", true, 1e-6, s.large(), 0) // large activations
		layerNormTrial(s, l, 5, 33, "alone", true, 1e-6, 1e-4, 0)    // and small ones, where Eps counts again
		layerNormTrial(s, l, 5, 130, "alone", false, 1e-5, 1, 300)
		layerNormTrial(s, l, 5, 130, "sum", true, 1e-5, 0, s.far()) // sums that differ by Delta alone
		layerNormTrial(s, l, 5, 130, "alone", true, 1e-5, 0, 0.1)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		tr := s.always(dense, "LayerNorm with %g in row 1", bad)
		v := tr.normal(3, 9)
		v[12] = bad
		x, w, b := tr.values("X", v, 3, 9), tr.random("W", 9), tr.random("Bias", 9)
		y, mean, rstd := tr.blank("Y", 3, 9), tr.wideBlank("Mean", 3), tr.wideBlank("RStd", 3)
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
			ops.LayerNorm(tensor.LayerNorm{Y: at(y), X: at(x), W: at(w), Bias: at(b), Mean: at(mean), RStd: at(rstd), Eps: 1e-5})
		})
	}
}

// layerNormTrial is of X with numbers of about size around offset. With a size of 0
// rows are of equal numbers, whose variance is 0.
func layerNormTrial(s *suite, l layout, t, h int, form string, bias bool, eps float32, size, offset float64) {
	tr := s.trial(l, "LayerNorm [%d %d] %s, Bias %v, Eps %g, size %g, offset %g", t, h, form, bias, eps, size, offset)
	v := tr.normal(t, h)
	for i := range v {
		v[i] = v[i]*size + offset
	}
	var dv []float64
	if form != "alone" {
		dv = tr.eighths(t, h)
		if narrow(s.dev) {
			// Rounding of sums would be large beside the differences of some of them: they are
			// multiples of one power of two, which 8 bits hold.
			grid := math.Exp2(math.Floor(math.Log2(max(size, 1)))) / 8
			for i := range v {
				v[i] = offset + min(max(math.Round((v[i]-offset)/grid), -31), 31)*grid
				dv[i] = min(max(dv[i], -31.0/8), 31.0/8) * grid * 8
			}
		}
	}
	x, w := tr.values("X", v, t, h), tr.random("W", h)
	y, mean, rstd := tr.blank("Y", t, h), tr.wideBlank("Mean", t), tr.wideBlank("RStd", t)
	var delta, sum, b *operand
	if bias {
		b = tr.random("Bias", h)
	}
	switch form {
	case "sum":
		delta, sum = tr.values("Delta", dv, t, h), tr.blank("Sum", t, h)
	case "sum in X":
		delta, sum = tr.values("Delta", dv, t, h), x.out()
	case "sum in Delta":
		delta = tr.values("Delta", dv, t, h).out()
		sum = delta
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.LayerNorm(tensor.LayerNorm{Y: at(y), X: at(x), W: at(w), Bias: at(b), Mean: at(mean), RStd: at(rstd), Delta: at(delta), Sum: at(sum), Eps: eps})
	})
}

// eighths are numbers of order one that add to others of up to a thousand without rounding
// where those are whole.
func (tr *trial) eighths(shape ...int) []float64 {
	v := tr.normal(shape...)
	for i := range v {
		v[i] = math.Round(8*v[i])/8 + 1.0/8
	}
	return v
}

func testLayerNormBackward(s *suite) {
	for _, l := range layouts {
		for _, t := range []int{0, 1, 2, 3, 7, 33} {
			for _, h := range hiddens {
				for _, residual := range []string{"no DSum", "DSum", "DX = DSum"} {
					layerNormBackwardTrial(s, l, t, h, residual, false, true, true, 0)
				}
				layerNormBackwardTrial(s, l, t, h, "no DSum", true, false, false, 0)
				layerNormBackwardTrial(s, l, t, h, "no DSum", false, true, false, 0)
				layerNormBackwardTrial(s, l, t, h, "DSum", true, false, true, 0)
			}
		}
		layerNormBackwardTrial(s, l, 7, 130, "DSum", false, true, true, 100)
	}
}

func layerNormBackwardTrial(s *suite, l layout, t, h int, residual string, accumulate, weight, bias bool, offset float64) {
	tr := s.trial(l, "LayerNormBackward [%d %d] %s, Accumulate %v, DW %v, DBias %v, offset %g", t, h, residual, accumulate, weight, bias, offset)
	sv := tr.normal(t, h)
	mv, rv := make([]float64, t), make([]float64, t) // what the forward pass gives
	for i := range rv {
		row := sv[i*h:][:h]
		for j := range row {
			row[j] += offset
			mv[i] += row[j] / float64(h)
		}
		rv[i] = 1 / math.Sqrt(max(meanSquare(row)-mv[i]*mv[i], 0)+1e-5)
	}
	sum, mean, rstd := tr.values("S", sv, t, h), tr.wide("Mean", mv, t), tr.wide("RStd", rv, t)
	w, dy := tr.random("W", h), tr.random("DY", t, h)
	var dx, dw, db, dsum *operand
	if weight {
		dw = tr.gradient("DW", h)
	}
	if bias {
		db = tr.gradient("DBias", h)
	}
	switch residual {
	case "DSum":
		dsum = tr.random("DSum", t, h)
	case "DX = DSum":
		dsum = tr.random("DSum", t, h).out()
		dx = dsum
	}
	switch {
	case dx != nil:
	case accumulate:
		dx = tr.random("DX", t, h).out()
	default:
		dx = tr.blank("DX", t, h)
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.LayerNormBackward(tensor.LayerNormBackward{DX: at(dx), DW: at(dw), DBias: at(db), DY: at(dy), DSum: at(dsum),
			S: at(sum), W: at(w), Mean: at(mean), RStd: at(rstd), Accumulate: accumulate})
	})
}
