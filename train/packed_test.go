package train

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// ragged is random packed rows: some empty, some without a trained token, some
// with holes in the mask.
type ragged struct {
	starts []int32
	mask   []bool
	tokens int
	r      *rand.Rand
}

func newRagged(seed uint64) *ragged {
	x := &ragged{starts: []int32{0}, r: rand.New(rand.NewPCG(seed, 5))}
	for _, n := range []int{0, 1, 7, 1, 0, 12, 3, 30} {
		x.tokens += n
		x.starts = append(x.starts, int32(x.tokens))
	}
	x.mask = make([]bool, x.tokens)
	for i := range x.mask {
		x.mask[i] = x.r.Float64() < 0.7
	}
	x.mask[x.starts[1]] = true  // a row of one token, trained
	x.mask[x.starts[3]] = false // and one that isn't
	return x
}

func (x *ragged) rows() int    { return len(x.starts) - 1 }
func (x *ragged) trained() int { return TrainedTokens(x.mask, x.tokens) }

// normal is n numbers of deviation scale.
func (x *ragged) normal(n int, scale float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = x.r.NormFloat64() * scale
	}
	return out
}

// poisoned is a copy with NaN where the mask is false: nothing may read it there.
func (x *ragged) poisoned(v []float64) []float64 {
	v = slices.Clone(v)
	for i := range v {
		if !x.mask[i] {
			v[i] = math.NaN()
		}
	}
	return v
}

// checkGradient compares grad with central differences of f by each element of x.
func checkGradient(t *testing.T, what string, x, grad []float64, f func() float64) {
	t.Helper()
	for i, v := range x {
		h := 1e-5 * math.Max(1, math.Abs(v))
		x[i] = v + h
		up := f()
		x[i] = v - h
		down := f()
		x[i] = v
		want := (up - down) / (2 * h)
		if d := math.Abs(grad[i] - want); !(d <= 1e-8+1e-6*math.Abs(want)) {
			t.Errorf("%s: gradient[%d] = %g, finite differences give %g", what, i, grad[i], want)
		}
	}
}

func wantNear(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if d := math.Abs(got - want); !(d <= tolerance) {
		t.Errorf("%s = %.12g, want %.12g (difference %g)", what, got, want, d)
	}
}

func wantFinite(t *testing.T, what string, values ...float64) {
	t.Helper()
	for i, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("%s: value %d is %g", what, i, v)
		}
	}
}

// wantPanic wants do to refuse what breaks an invariant.
func wantPanic(t *testing.T, what string, do func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	do()
}

func TestSumAnswers(t *testing.T) {
	starts := []int32{0, 3, 3, 5, 6}
	mask := []bool{true, false, true, false, false, true}
	tokens := []float64{1, math.NaN(), 3, math.NaN(), math.NaN(), 5}
	got := make([]float64, 4)
	if SumAnswers(got, tokens, starts, mask, false); !slices.Equal(got, []float64{4, 0, 0, 5}) {
		t.Errorf("sums %v", got)
	}
	if SumAnswers(got, tokens, starts, mask, true); !slices.Equal(got, []float64{2, 0, 0, 5}) {
		t.Errorf("means %v", got)
	}
	spread := make([]float64, 6)
	if SpreadAnswers(spread, []float64{8, 9, 9, 7}, starts, mask, false); !slices.Equal(spread, []float64{8, 0, 8, 0, 0, 7}) {
		t.Errorf("spread %v", spread)
	}
	if SpreadAnswers(spread, []float64{8, 9, 9, 7}, starts, mask, true); !slices.Equal(spread, []float64{4, 0, 4, 0, 0, 7}) {
		t.Errorf("spread mean %v", spread)
	}
}

// TestSpreadIsGradientOfSum: Σ w·SumAnswers(x) has the gradient SpreadAnswers(w).
func TestSpreadIsGradientOfSum(t *testing.T) {
	x := newRagged(1)
	tokens, w := x.normal(x.tokens, 1), x.normal(x.rows(), 1)
	answers, grad := make([]float64, x.rows()), make([]float64, x.tokens)
	for _, mean := range []bool{false, true} {
		SpreadAnswers(grad, w, x.starts, x.mask, mean)
		checkGradient(t, "SumAnswers", tokens, grad, func() float64 {
			SumAnswers(answers, tokens, x.starts, x.mask, mean)
			sum := 0.0
			for i, a := range answers {
				sum += w[i] * a
			}
			return sum
		})
	}
}

func TestBoundedExp(t *testing.T) {
	for _, x := range []float64{-1e9, -3, 0, 1, expLimit - 1e-9} {
		y, slope := boundedExp(x)
		wantNear(t, "e^x", y, math.Exp(x), 0)
		wantNear(t, "slope", slope, math.Exp(x), 0)
	}
	// Beyond the limit it goes on without a jump or a kink, and stays finite.
	below, slope := boundedExp(expLimit)
	above, tangent := boundedExp(expLimit + 1e-6)
	wantNear(t, "step at the limit", (above-below)/1e-6/slope, 1, 1e-6)
	wantNear(t, "slope beyond the limit", tangent, slope, 0)
	y, s := boundedExp(1e30)
	wantFinite(t, "e^1e30", y, s)
}

func TestSoftplusAndSigmoid(t *testing.T) {
	for _, x := range []float64{-30, -2, -1e-3, 0, 1e-3, 2, 30} {
		wantNear(t, "softplus", softplus(x), math.Log1p(math.Exp(x)), 1e-14*math.Max(1, x))
		wantNear(t, "sigmoid", sigmoid(x), 1/(1+math.Exp(-x)), 1e-15)
	}
	for _, x := range []float64{1000, 1e300} {
		wantNear(t, "softplus", softplus(x), x, 0)
		wantNear(t, "softplus", softplus(-x), 0, 0)
		wantNear(t, "sigmoid", sigmoid(x), 1, 0)
		wantNear(t, "sigmoid", sigmoid(-x), 0, 0)
	}
}

func TestPackedShapesAreChecked(t *testing.T) {
	one, two := []float64{1}, []float64{1, 2}
	for name, do := range map[string]func(){
		"short mask":      func() { MaskedMean(two, []bool{true}) },
		"starts too few":  func() { SumAnswers(two, two, []int32{0, 2}, nil, false) },
		"starts too late": func() { SumAnswers(two, two, []int32{1, 1, 2}, nil, false) },
		"starts end":      func() { SumAnswers(one, two, []int32{0, 1}, nil, false) },
		"starts fall":     func() { GAE(two, two, two, two, []int32{0, 3, 1, 2}, nil, 1, 1) },
		"short returns":   func() { GAE(two, one, two, two, []int32{0, 2}, nil, 1, 1) },
		"short old":       func() { PolicyLoss(nil, two, one, two, nil, PolicyClip{}, 2) },
		"short gradient":  func() { ValueLoss(one, two, two, two, nil, 1, 2) },
		"no reference":    func() { DPOLoss(nil, nil, PreferencePairs[float64]{Chosen: two, Rejected: two}, 1, 0, 2) },
		"token beyond":    func() { TokenLogProbs(one, nil, two, 2, []int32{2}, 1) },
		"temperature 0":   func() { TokenLogProbs(one, nil, two, 2, []int32{0}, 0) },
		"estimator":       func() { TokenKL(one, nil, one, one, "k4") },
	} {
		wantPanic(t, name, do)
	}
}

// TestLossesDoNotAllocate: they run each step.
func TestLossesDoNotAllocate(t *testing.T) {
	x := newRagged(2)
	n, vocab := x.trained(), 5
	a, b, c, g, h := x.normal(x.tokens, 1), x.normal(x.tokens, 1), x.normal(x.tokens, 1), make([]float64, x.tokens), make([]float64, x.tokens)
	logits, scores, ids := x.normal(x.tokens*vocab, 1), x.normal(x.rows(), 1), make([]int32, x.tokens)
	pp := PreferencePairs[float64]{a, b, c, h}
	for name, do := range map[string]func(){
		"TokenLogProbs":        func() { TokenLogProbs(a, b, logits, vocab, ids, 1) },
		"TokenLogProbsGrad":    func() { TokenLogProbsGrad(logits, a, b, logits, vocab, ids, 1) },
		"TokenRewards":         func() { TokenRewards(g, a, b, scores, x.starts, x.mask, K3, 0.1, 5) },
		"GAE":                  func() { GAE(g, h, a, b, x.starts, x.mask, 1, 0.95) },
		"Whiten":               func() { Whiten(g, a, x.mask, Whitening{}) },
		"PolicyLoss":           func() { PolicyLoss(g, a, b, c, x.mask, PolicyClip{Low: 0.2, High: 0.2}, n) },
		"ValueLoss":            func() { ValueLoss(g, a, b, c, x.mask, 0.2, n) },
		"ExplainedVariance":    func() { ExplainedVariance(a, b, x.mask) },
		"TokenKL":              func() { TokenKL(g, h, a, b, K3) },
		"AddKLLoss":            func() { AddKLLoss(g, a, b, x.mask, K2, 0.1, n) },
		"AnswerKL":             func() { AnswerKL(a, b, x.starts, x.mask, K1) },
		"RewardLogSigmoidLoss": func() { RewardLogSigmoidLoss(g, h, a, b, nil, n) },
		"RankingLoss":          func() { RankingLoss(g, a, ids, nil, x.starts, n) },
		"DPOLoss":              func() { DPOLoss(g, h, pp, 0.1, 0.1, n) },
		"IPOLoss":              func() { IPOLoss(g, h, pp, 0.1, n) },
		"HingeLoss":            func() { HingeLoss(g, h, pp, 0.1, n) },
		"SimPOLoss":            func() { SimPOLoss(g, h, pp, 2, 0.5, n) },
		"GRPOAdvantages":       func() { GRPOAdvantages(g, a, x.starts) },
		"SumAnswers":           func() { SumAnswers(scores, a, x.starts, x.mask, true) },
		"SpreadAnswers":        func() { SpreadAnswers(a, scores, x.starts, x.mask, true) },
	} {
		if got := testing.AllocsPerRun(5, do); got != 0 {
			t.Errorf("%s allocates %g times", name, got)
		}
	}
}
