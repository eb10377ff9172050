package conformance

import (
	"math"

	"ringtail/tensor"
)

func testCrossEntropy(s *suite) {
	shapes := [][3]int{ // T, H, V
		{0, 5, 3}, {1, 1, 2}, {1, 5, 300}, {2, 3, 7}, {3, 8, 33}, {7, 33, 50}, {33, 17, 130}, {70, 9, 1000}, {300, 16, 40},
	}
	for _, l := range layouts {
		for _, shape := range shapes {
			for _, ignored := range []string{"none", "some", "all"} {
				for _, wanted := range []string{"no gradients", "DX", "DX and DW"} {
					tr := s.trial(l, "CrossEntropy [T H V] = %v, %s ignored, %s", shape, ignored, wanted)
					x, w := tr.normal(shape[0], shape[1]), tr.normal(shape[2], shape[1])
					crossEntropyTrial(tr, shape, x, w, tr.targets(shape[0], shape[2], ignored), wanted, 0)

					limit := []float32{0.5, 3, 30}[shape[0]%3] // far below, near and above the logits
					tr = s.trial(l, "CrossEntropy [T H V] = %v, %s ignored, %s, SoftCap %g", shape, ignored, wanted, limit)
					x, w = tr.normal(shape[0], shape[1]), tr.normal(shape[2], shape[1])
					crossEntropyTrial(tr, shape, x, w, tr.targets(shape[0], shape[2], ignored), wanted, limit)
				}
			}
		}
	}
	// Logits of about ±500, made of whole numbers and so without rounding. The caps leave
	// nearly all of them, some, and none at the limit.
	for i, ignored := range []string{"none", "some", "some", "some", "none"} {
		shape, limit := [3]int{9, 8, 37}, []float32{0, 0, 20, 200, 2000}[i]
		tr := s.always(dense, "CrossEntropy of large logits, %s ignored, SoftCap %g", ignored, limit)
		x, w := make([]float64, shape[0]*shape[1]), make([]float64, shape[2]*shape[1])
		for i := range x {
			x[i] = float64(tr.rng.IntN(31) - 15)
		}
		for i := range w {
			w[i] = float64(tr.rng.IntN(31) - 15)
		}
		crossEntropyTrial(tr, shape, x, w, tr.targets(shape[0], shape[2], ignored), "DX and DW", limit)
	}
	// A NaN must reach the loss, which is how a step is found to be bad.
	for _, limit := range []float32{0, 5} {
		shape := [3]int{7, 9, 33}
		tr := s.always(dense, "CrossEntropy with NaN in row 3, SoftCap %g", limit)
		x := tr.normal(shape[0], shape[1])
		x[3*shape[1]+2] = math.NaN()
		crossEntropyTrial(tr, shape, x, tr.normal(shape[2], shape[1]), tr.targets(shape[0], shape[2], "none"), "DX", limit)
	}
}

func crossEntropyTrial(tr *trial, shape [3]int, xv, wv []float64, targets []int, wanted string, limit float32) {
	x, w, y := tr.values("X", xv, shape[0], shape[1]), tr.values("W", wv, shape[2], shape[1]), tr.ints("Targets", targets...)
	loss := tr.typed("Loss", tensor.F64, []float64{0.5, 2, 1}, 3).out()
	var dx, dw, scale *operand
	if wanted != "no gradients" {
		dx, scale = tr.blank("DX", shape[0], shape[1]), tr.wide("Scale", []float64{0.75}, 1)
	}
	if wanted == "DX and DW" {
		dw = tr.gradient("DW", shape[2], shape[1])
	}
	if dx != nil && narrow(tr.dev) && !tr.skipped {
		scales := make([]float64, shape[0])
		for i := range scales {
			scales[i] = 0.75
		}
		r := scored{shape[0], shape[1], shape[2], tr.held(xv), tr.held(wv), targets}
		r.bound(dx, dw, 1, limit, scales, make([]float64, shape[0]))
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.CrossEntropy(tensor.CrossEntropy{Loss: at(loss), X: at(x), W: at(w), Targets: at(y), DX: at(dx), DW: at(dw), Scale: at(scale), SoftCap: limit})
	})
}

// targets draws n targets, negative ones (of more than one kind) where ignored.
func (tr *trial) targets(n, vocab int, ignored string) []int {
	v := make([]int, n)
	for i := range v {
		v[i] = tr.rng.IntN(vocab)
		if ignored == "all" || ignored == "some" && tr.rng.IntN(2) == 0 {
			v[i] = []int{-100, -1}[i%2]
		}
	}
	return v
}
