package conformance

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// headShapes are Heads, KVHeads and HeadDim.
var headShapes = [][3]int{{1, 1, 1}, {1, 1, 7}, {3, 1, 16}, {4, 2, 33}, {2, 2, 64}, {5, 1, 80}, {2, 1, 256}}

func testHeadNorm(s *suite) {
	for _, l := range layouts {
		for _, c := range headShapes {
			for _, t := range []int{0, 1, 3, 33} {
				for _, offset := range []float32{0, 1} {
					headNormTrial(s, l, t, c, false, 1e-5, 1, offset)
					headNormTrial(s, l, t, c, true, 1e-6, 1, offset)
				}
			}
		}
		headNormTrial(s, l, 5, headShapes[3], false, 0.5, 1, 0)          // an Eps that counts
		headNormTrial(s, l, 5, headShapes[3], false, 1e-6, s.large(), 0) // large activations
		headNormTrial(s, l, 5, headShapes[3], false, 1e-6, 1e-4, 0)      // and small ones, where Eps counts again
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		tr := s.always(dense, "HeadNorm with %g in one head and one value", bad)
		v := tr.normal(3, 4*5)
		v[20+7], v[20+16] = bad, bad
		x, wq, wk := tr.values("X", v, 3, 20), tr.random("WQ", 5), tr.random("WK", 5)
		y, rstd := tr.blank("Y", 3, 20), tr.wideBlank("RStd", 3, 3)
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
			ops.HeadNorm(tensor.HeadNorm{Y: at(y), X: at(x), WQ: at(wq), WK: at(wk), RStd: at(rstd), Heads: 2, KVHeads: 1, HeadDim: 5, Eps: 1e-5})
		})
	}
}

func headNormTrial(s *suite, l layout, t int, c [3]int, inPlace bool, eps float32, size float64, offset float32) {
	tr := s.trial(l, "HeadNorm of %d tokens, %d heads, %d KV heads, HeadDim %d, Y = X %v, Eps %g, size %g, WOffset %g", t, c[0], c[1], c[2], inPlace, eps, size, offset)
	width := (c[0] + 2*c[1]) * c[2]
	v := tr.normal(t, width)
	for i := range v {
		v[i] *= size
	}
	x, wq, wk := tr.values("X", v, t, width), tr.random("WQ", c[2]), tr.random("WK", c[2])
	rstd, y := tr.wideBlank("RStd", t, c[0]+c[1]), x
	if !inPlace {
		y = tr.blank("Y", t, width)
	}
	y.out()
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.HeadNorm(tensor.HeadNorm{Y: at(y), X: at(x), WQ: at(wq), WK: at(wk), RStd: at(rstd),
			Heads: c[0], KVHeads: c[1], HeadDim: c[2], Eps: eps, WOffset: offset})
	})
}

func testHeadNormBackward(s *suite) {
	for _, l := range layouts {
		for _, c := range headShapes {
			for _, t := range []int{0, 1, 3, 33} {
				for _, weights := range []string{"", "DWQ", "DWK", "DWQ and DWK"} {
					headNormBackwardTrial(s, l, t, c, weights, false, 0)
				}
				headNormBackwardTrial(s, l, t, c, "DWQ and DWK", true, 1)
				headNormBackwardTrial(s, l, t, c, "", true, 1)
			}
		}
	}
}

func headNormBackwardTrial(s *suite, l layout, t int, c [3]int, weights string, inPlace bool, offset float32) {
	name := fmt.Sprintf("HeadNormBackward of %d tokens, %d heads, %d KV heads, HeadDim %d", t, c[0], c[1], c[2])
	tr := s.trial(l, "%s, %s, DX = DY %v, WOffset %g", name, weights, inPlace, offset)
	heads, width := c[0]+c[1], (c[0]+2*c[1])*c[2]
	xv, rv := tr.normal(t, width), make([]float64, t*heads) // what the forward pass gives
	for i := range rv {
		rv[i] = 1 / math.Sqrt(meanSquare(xv[i/heads*width+i%heads*c[2]:][:c[2]])+1e-5)
	}
	x, rstd := tr.values("X", xv, t, width), tr.wide("RStd", rv, t, heads)
	wq, wk, dy := tr.random("WQ", c[2]), tr.random("WK", c[2]), tr.random("DY", t, width)
	dx := dy
	if !inPlace {
		dx = tr.blank("DX", t, width)
	}
	dx.out()
	var dwq, dwk *operand
	if weights == "DWQ" || weights == "DWQ and DWK" {
		dwq = tr.gradient("DWQ", c[2])
	}
	if weights == "DWK" || weights == "DWQ and DWK" {
		dwk = tr.gradient("DWK", c[2])
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.HeadNormBackward(tensor.HeadNormBackward{DX: at(dx), DWQ: at(dwq), DWK: at(dwk), DY: at(dy), X: at(x), WQ: at(wq), WK: at(wk),
			RStd: at(rstd), Heads: c[0], KVHeads: c[1], HeadDim: c[2], WOffset: offset})
	})
}
