package train

import (
	"math"
	"slices"
	"testing"
)

func TestTokenLogProbs(t *testing.T) {
	// softmax of (log 1, log 2, log 5) is (1, 2, 5)/8.
	z := []float64{0, math.Log(2), math.Log(5)}
	lp, h := make([]float64, 1), make([]float64, 1)
	TokenLogProbs(lp, h, z, 3, []int32{1}, 1)
	wantNear(t, "log-probability", lp[0], math.Log(2.0/8), 1e-15)
	want := 0.0
	for _, p := range []float64{1.0 / 8, 2.0 / 8, 5.0 / 8} {
		want -= p * math.Log(p)
	}
	wantNear(t, "entropy", h[0], want, 1e-15)
	// At temperature ½ probabilities go with their squares: (1, 4, 25)/30.
	TokenLogProbs(lp, nil, z, 3, []int32{2}, 0.5)
	wantNear(t, "at temperature 0.5", lp[0], math.Log(25.0/30), 1e-14)
}

func TestTokenLogProbsExtremes(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		z           []float64
		token       int32
		logProb, at float64
		entropy     float64
	}{
		{[]float64{1e8, 1e8, -1e8}, 0, -math.Ln2, 1, math.Ln2},
		{[]float64{-1e300, -1e300, -1e300}, 2, -math.Log(3), 1, math.Log(3)},
		{[]float64{800, 0, -800}, 0, 0, 1, 0},
		{[]float64{800, 0, -800}, 2, -1600, 1, 0},
		{[]float64{0, -inf, 0}, 0, -math.Ln2, 1, math.Ln2},
		{[]float64{0, -inf, -inf}, 0, 0, 1e-3, 0},
	} {
		lp, h, grad := make([]float64, 1), make([]float64, 1), make([]float64, 3)
		TokenLogProbs(lp, h, c.z, 3, []int32{c.token}, c.at)
		wantNear(t, "log-probability", lp[0], c.logProb, 1e-12)
		wantNear(t, "entropy", h[0], c.entropy, 1e-12)
		TokenLogProbsGrad(grad, []float64{1}, []float64{1}, c.z, 3, []int32{c.token}, c.at)
		wantFinite(t, "gradient", grad...)
	}
}

func TestTokenLogProbsGrad(t *testing.T) {
	x := newRagged(3)
	const vocab, rows = 7, 6
	ids := []int32{0, 6, -100, 3, 2, -1}
	for _, temperature := range []float64{1, 0.7, 3} {
		z, dl, dh := x.normal(rows*vocab, 2), x.normal(rows, 1), x.normal(rows, 1)
		lp, h := make([]float64, rows), make([]float64, rows)
		loss := func() float64 {
			TokenLogProbs(lp, h, z, vocab, ids, temperature)
			sum := 0.0
			for i := range lp {
				sum += dl[i]*lp[i] + dh[i]*h[i]
			}
			return sum
		}
		loss()
		if lp[2] != 0 || h[2] != 0 || lp[5] != 0 {
			t.Errorf("tokens without a target have log-probabilities %v, entropies %v", lp, h)
		}
		grad := make([]float64, len(z))
		TokenLogProbsGrad(grad, dl, dh, z, vocab, ids, temperature)
		checkGradient(t, "logits", z, grad, loss)
		// The gradient may take the place of the logits, and a shift of all logits changes nothing.
		place := slices.Clone(z)
		TokenLogProbsGrad(place, dl, dh, place, vocab, ids, temperature)
		if !slices.Equal(place, grad) {
			t.Error("the gradient in place of the logits differs")
		}
		for r := range rows {
			sum := 0.0
			for _, g := range grad[r*vocab : (r+1)*vocab] {
				sum += g
			}
			wantNear(t, "sum of a row's gradient", sum, 0, 1e-14)
		}
	}
}
