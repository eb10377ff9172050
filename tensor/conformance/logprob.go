package conformance

import (
	"math"

	"ringtail/tensor"
)

var logProbShapes = [][3]int{ // T, H, V
	{0, 5, 3}, {1, 1, 1}, {1, 1, 2}, {1, 5, 300}, {2, 3, 7}, {3, 8, 33}, {7, 33, 50}, {33, 17, 130}, {70, 9, 1000}, {300, 16, 40},
}

func testLogProb(s *suite) {
	for _, l := range layouts {
		for i, shape := range logProbShapes {
			for _, ignored := range []string{"none", "some", "all"} {
				for _, entropies := range []bool{false, true} {
					temperature := []float32{1, 0.7, 2}[i%3]
					tr := s.trial(l, "LogProb [T H V] = %v, %s ignored, entropies %v, temperature %g", shape, ignored, entropies, temperature)
					logProbTrial(tr, tr.scored(shape, ignored), temperature, 0, entropies)

					limit := []float32{0.5, 3, 30}[shape[0]%3] // far below, near and above the logits
					tr = s.trial(l, "LogProb [T H V] = %v, %s ignored, entropies %v, temperature %g, SoftCap %g", shape, ignored, entropies, temperature, limit)
					logProbTrial(tr, tr.scored(shape, ignored), temperature, limit, entropies)
				}
			}
		}
	}
	for _, c := range scoredExtremes {
		for _, limit := range capsOfExtremes {
			tr := s.always(dense, "LogProb of %s, SoftCap %g", c.name, limit)
			logProbTrial(tr, c.make(tr), c.temperature, limit, true)
		}
	}
	tr := s.always(dense, "LogProb with NaN in row 3, and in a row without a target")
	r := tr.scored([3]int{7, 9, 33}, "none")
	r.targets[5] = -1
	r.x[3*9+2], r.x[5*9] = math.NaN(), math.NaN()
	logProbTrial(tr, r, 1, 0, true)
}

// capsOfExtremes are for scoredExtremes.
var capsOfExtremes = []float32{0, 5, 200}

func logProbTrial(tr *trial, r scored, temperature, limit float32, withEntropies bool) {
	x, w, y := tr.values("X", r.x, r.tokens, r.hidden), tr.values("W", r.w, r.vocab, r.hidden), tr.ints("Targets", r.targets...)
	logProbs, lse := tr.wideBlank("LogProbs", r.tokens), tr.wideBlank("LSE", r.tokens)
	var entropies *operand
	if withEntropies {
		entropies = tr.wideBlank("Entropies", r.tokens)
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.LogProb(tensor.LogProb{LogProbs: at(logProbs), Entropies: at(entropies), LSE: at(lse), X: at(x), W: at(w),
			Targets: at(y), Temperature: temperature, SoftCap: limit})
	})
}

func testLogProbBackward(s *suite) {
	for _, l := range layouts {
		for i, shape := range logProbShapes {
			for _, ignored := range []string{"none", "some", "all"} {
				for _, of := range []string{"log-probability", "entropy", "both"} {
					for _, wanted := range []string{"DX", "DW", "DX and DW"} {
						temperature := []float32{1, 0.7, 2}[i%3]
						tr := s.trial(l, "LogProbBackward [T H V] = %v, %s ignored, from %s, %s, temperature %g", shape, ignored, of, wanted, temperature)
						logProbBackwardTrial(tr, tr.scored(shape, ignored), temperature, 0, of, wanted)

						limit := []float32{0.5, 3, 30}[shape[0]%3]
						tr = s.trial(l, "LogProbBackward [T H V] = %v, %s ignored, from %s, %s, temperature %g, SoftCap %g", shape, ignored, of, wanted, temperature, limit)
						logProbBackwardTrial(tr, tr.scored(shape, ignored), temperature, limit, of, wanted)
					}
				}
			}
		}
	}
	for _, c := range scoredExtremes {
		for _, of := range []string{"log-probability", "both"} {
			for _, limit := range capsOfExtremes {
				tr := s.always(dense, "LogProbBackward of %s, from %s, SoftCap %g", c.name, of, limit)
				logProbBackwardTrial(tr, c.make(tr), c.temperature, limit, of, "DX and DW")
			}
		}
	}
	// A NaN must reach the gradients of its row, but none from rows that don't count:
	// row 5 has no target, and the derivatives of row 6 are 0.
	tr := s.always(dense, "LogProbBackward with NaN in rows 3, 5 and 6")
	r := tr.scored([3]int{7, 9, 33}, "none")
	r.targets[5] = -1
	for _, t := range []int{3, 5, 6} {
		r.x[t*9+2] = math.NaN()
	}
	logProbBackwardTrial(tr, r, 1, 0, "both", "DX")
}

// logProbBackwardTrial makes derivatives that are 0 in every seventh row.
func logProbBackwardTrial(tr *trial, r scored, temperature, limit float32, of, wanted string) {
	if tr.skipped {
		return
	}
	r.x, r.w = tr.held(r.x), tr.held(r.w)
	x, w, y := tr.values("X", r.x, r.tokens, r.hidden), tr.values("W", r.w, r.vocab, r.hidden), tr.ints("Targets", r.targets...)
	derivatives := func() []float64 {
		d := tr.normal(r.tokens)
		for i := range d {
			if i%7 == 6 {
				d[i] = 0
			}
		}
		return d
	}
	lseValues, entropyValues := r.forward(float64(temperature), limit)
	lse := tr.wide("LSE", lseValues, r.tokens)
	var dx, dw, dl, dh, entropies *operand
	dlv, dhv := make([]float64, r.tokens), make([]float64, r.tokens)
	if of != "entropy" {
		dlv = derivatives()
		dl = tr.wide("DLogProbs", dlv, r.tokens)
	}
	if of != "log-probability" {
		dhv = derivatives()
		dh, entropies = tr.wide("DEntropies", dhv, r.tokens), tr.wide("Entropies", entropyValues, r.tokens)
	}
	if wanted != "DW" {
		dx = tr.blank("DX", r.tokens, r.hidden)
	}
	if wanted != "DX" {
		dw = tr.gradient("DW", r.vocab, r.hidden)
	}
	if narrow(tr.dev) {
		r.bound(dx, dw, float64(temperature), limit, dlv, dhv)
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.LogProbBackward(tensor.LogProbBackward{DX: at(dx), DW: at(dw), DLogProbs: at(dl), DEntropies: at(dh), X: at(x), W: at(w),
			Targets: at(y), LSE: at(lse), Entropies: at(entropies), Temperature: temperature, SoftCap: limit})
	})
}

// scored is what the log-probabilities of a trial are made of.
type scored struct {
	tokens, hidden, vocab int
	x, w                  []float64
	targets               []int
}

// scored makes normally distributed X and W.
func (tr *trial) scored(shape [3]int, ignored string) scored {
	return scored{shape[0], shape[1], shape[2], tr.normal(shape[0], shape[1]), tr.normal(shape[2], shape[1]), tr.targets(shape[0], shape[2], ignored)}
}

// forward is LSE and the entropies, as a forward pass leaves them.
func (r scored) forward(temperature float64, limit float32) (lse, entropies []float64) {
	lse, entropies = make([]float64, r.tokens), make([]float64, r.tokens)
	for t, target := range r.targets {
		if target < 0 {
			continue
		}
		z := r.logits(t, temperature, limit)
		lse[t] = logSumExp(z)
		for _, v := range z {
			if p := math.Exp(v - lse[t]); p != 0 {
				entropies[t] -= p * (v - lse[t])
			}
		}
	}
	return lse, entropies
}

// logits are those of row t, over the temperature.
func (r scored) logits(t int, temperature float64, limit float32) []float64 {
	z := make([]float64, r.vocab)
	for v := range z {
		for k := range r.hidden {
			z[v] += r.x[t*r.hidden+k] * r.w[v*r.hidden+k]
		}
	}
	z = capped(z, limit)
	for v := range z {
		z[v] /= temperature
	}
	return z
}

// bound tells DX and DW (see summed) what they are made of, by the derivatives dl and dh of each
// row's log-probability and entropy: products of the logits' gradients, which tensor cores take
// as 16-bit floats, with W and X.
func (r scored) bound(dx, dw *operand, temperature float64, limit float32, dl, dh []float64) {
	lse, entropies := r.forward(temperature, limit)
	boundX, boundW := make([]float64, r.tokens*r.hidden), make([]float64, r.vocab*r.hidden)
	for t, target := range r.targets {
		if target < 0 || dl[t] == 0 && dh[t] == 0 || math.IsNaN(lse[t]) {
			continue
		}
		for j, z := range r.logits(t, temperature, limit) {
			dz := 0.0
			if p := math.Exp(z - lse[t]); p != 0 {
				dz = -p * (dl[t] + dh[t]*(z-lse[t]+entropies[t]))
			}
			if j == target {
				dz += dl[t]
			}
			if limit > 0 {
				y := z * temperature / float64(limit)
				dz *= 1 - y*y
			}
			dz = math.Abs(dz / temperature)
			for k := range r.hidden {
				boundX[t*r.hidden+k] += dz * math.Abs(r.w[j*r.hidden+k])
				boundW[j*r.hidden+k] += dz * math.Abs(r.x[t*r.hidden+k])
			}
		}
	}
	if dx != nil {
		dx.summed(boundX)
	}
	if dw != nil {
		dw.summed(boundW)
	}
}

// scoredExtremes are distributions at which sums cancel or exponentials overflow.
// Logits are whole numbers, and so without rounding.
var scoredExtremes = []struct {
	name        string
	temperature float32
	make        func(tr *trial) scored
}{
	{"logits of about ±500", 0.75, func(tr *trial) scored {
		r := scored{9, 8, 37, make([]float64, 9*8), make([]float64, 37*8), tr.targets(9, 37, "some")}
		for _, v := range [][]float64{r.x, r.w} {
			for i := range v {
				v[i] = float64(tr.rng.IntN(31) - 15)
			}
		}
		return r
	}},
	{"tokens that are nearly certain or nearly impossible", 1, func(tr *trial) scored {
		// Row t's logits are 0, but t for token 3, which is every other row's target.
		r := scored{24, 1, 50, make([]float64, 24), make([]float64, 50), make([]int, 24)}
		r.w[3] = 1
		for t := range r.x {
			r.x[t], r.targets[t] = float64(t), 3+t%2
		}
		return r
	}},
	{"tokens that are all alike", 1, func(tr *trial) scored {
		return scored{3, 2, 5000, make([]float64, 3*2), tr.normal(5000, 2), tr.targets(3, 5000, "none")}
	}},
	{"two equal largest logits", 2, func(tr *trial) scored {
		r := scored{4, 1, 20, []float64{1, 8, 30, 100}, make([]float64, 20), []int{5, 6, 11, 12}}
		r.w[5], r.w[11] = 4, 4
		return r
	}},
}
