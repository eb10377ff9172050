package train

import (
	"math"
	"testing"
)

var estimators = []KLEstimator{K1, K2, K3}

func TestTokenKL(t *testing.T) {
	x := newRagged(10)
	policy, ref := x.normal(40, 2), x.normal(40, 2)
	kl, grad, scratch := make([]float64, 40), make([]float64, 40), make([]float64, 40)
	for _, k := range estimators {
		TokenKL(kl, grad, policy, ref, k)
		for i := range kl {
			d := policy[i] - ref[i]
			want := map[KLEstimator]float64{K1: d, K2: d * d / 2, K3: math.Exp(-d) + d - 1}[k]
			wantNear(t, string(k), kl[i], want, 1e-12*math.Max(1, want))
			if k != K1 && kl[i] < 0 {
				t.Errorf("%s is %g, below 0", k, kl[i])
			}
		}
		checkGradient(t, string(k), policy, grad, func() float64 {
			TokenKL(scratch, nil, policy, ref, k)
			sum := 0.0
			for _, v := range scratch {
				sum += v
			}
			return sum
		})
	}
}

// TestKLUnbiased takes the mean over all tokens of a small vocabulary, weighted with
// the policy's probabilities: k1's and k3's is the divergence. The mean
// of estimate'·∇log π is 0 for k1, the divergence's gradient for k2 and
// that of the reverse divergence for k3.
func TestKLUnbiased(t *testing.T) {
	const vocab = 6
	x := newRagged(11)
	z, zRef := x.normal(vocab, 1), x.normal(vocab, 1)
	dist := func(z []float64) []float64 {
		lp := make([]float64, vocab)
		for j := range lp {
			TokenLogProbs(lp[j:j+1], nil, z, vocab, []int32{int32(j)}, 1)
		}
		return lp
	}
	divergence := func(a, b []float64) float64 {
		sum := 0.0
		for j := range a {
			sum += math.Exp(a[j]) * (a[j] - b[j])
		}
		return sum
	}
	lp, ref := dist(z), dist(zRef)
	for _, k := range estimators {
		mean, grad, row := 0.0, make([]float64, vocab), make([]float64, vocab)
		for j := range lp {
			v, slope := k.of(lp[j], ref[j])
			mean += math.Exp(lp[j]) * v
			TokenLogProbsGrad(row, []float64{math.Exp(lp[j]) * slope}, nil, z, vocab, []int32{int32(j)}, 1)
			for i := range grad {
				grad[i] += row[i]
			}
		}
		if k != K2 {
			wantNear(t, "mean of "+string(k), mean, divergence(lp, ref), 1e-12)
		}
		checkGradient(t, "mean gradient of "+string(k), z, grad, func() float64 {
			switch lp := dist(z); k {
			case K2:
				return divergence(lp, ref)
			case K3:
				return divergence(ref, lp)
			}
			return 0
		})
	}
}

func TestKLExtremes(t *testing.T) {
	for _, k := range estimators {
		for _, d := range []float64{-1e6, -800, -expLimit, 0, 1e-12, 800, 1e6} {
			v, slope := k.of(d, 0)
			wantFinite(t, string(k), v, slope, float64(float32(v)))
			if d < 0 && k != K1 && slope >= 0 || d > 0 && slope <= 0 {
				t.Errorf("%s at log-ratio %g has slope %g: it leads away from the reference", k, d, slope)
			}
		}
		if v, slope := k.of(-3, -3); v != 0 || k != K1 && slope != 0 {
			t.Errorf("%s of equal models is %g with slope %g", k, v, slope)
		}
	}
	// Near 0, k3 is d²/2, far below the rounding of e^d.
	v, _ := K3.of(1e-9, 0)
	wantNear(t, "k3 of 1e-9", v, 0.5e-18, 1e-24)
	// It goes on along its tangent without a step.
	a, _ := K3.of(-expLimit, 0)
	b, slope := K3.of(-expLimit-1e-6, 0)
	wantNear(t, "step of k3 at the limit", (b-a)/1e-6/-slope, 1, 1e-6)
}

func TestAddKLLoss(t *testing.T) {
	x := newRagged(12)
	policy, ref, before := x.normal(x.tokens, 1), x.normal(x.tokens, 1), x.normal(x.tokens, 1)
	for _, k := range estimators {
		n := x.trained()
		grad := append([]float64(nil), before...)
		loss := AddKLLoss(grad, x.poisoned(policy), x.poisoned(ref), x.mask, k, 0.3, n)
		kl := make([]float64, x.tokens)
		TokenKL(kl, nil, policy, ref, k)
		wantNear(t, "loss", loss, 0.3*MaskedMean(kl, x.mask), 1e-12)
		for i := range grad {
			if grad[i] -= before[i]; !x.mask[i] && grad[i] != 0 {
				t.Errorf("token %d isn't trained but gets gradient %g", i, grad[i])
			}
		}
		checkGradient(t, string(k), policy, grad, func() float64 { return AddKLLoss(nil, policy, ref, x.mask, k, 0.3, n) })
	}
	if loss := AddKLLoss(nil, []float64{0}, []float64{math.Inf(-1)}, nil, K3, 0, 1); loss != 0 {
		t.Errorf("loss %g with coefficient 0", loss)
	}
}

func TestAnswerKL(t *testing.T) {
	// Two answers with 3 and 1 nats; an empty one and one without trained tokens don't count.
	policy := []float64{1, 2, 7, 1, 9}
	mask := []bool{true, true, false, true, false}
	starts := []int32{0, 3, 3, 4, 5}
	wantNear(t, "KL of an answer", AnswerKL(policy, make([]float64, 5), starts, mask, K1), 2, 0)
	wantNear(t, "KL of none", AnswerKL([]float64{}, []float64{}, []int32{0, 0}, nil, K1), 0, 0)
}

func TestKLController(t *testing.T) {
	fixed := KLController{Coef: 0.05, Horizon: 10000}
	fixed.Update(100, 64)
	wantNear(t, "fixed coefficient", fixed.Coef, 0.05, 0)

	start := KLController{Coef: 0.15, Target: 6, Horizon: 10000}
	for _, c := range []struct {
		kl     float64
		n      int
		factor float64
	}{
		{6, 512, 1},
		{6.6, 512, 1 + 0.1*0.0512},
		{1e9, 512, 1 + 0.2*0.0512}, // the error is bounded
		{0, 512, 1 - 0.2*0.0512},   // on both sides
		{-50, 512, 1 - 0.2*0.0512}, // k1 can be below 0
		{0, 1 << 30, 0.8},          // a huge batch can't turn the sign
		{1e9, 1 << 30, 1.2},        //
		{math.NaN(), 512, 1},       // nor can a broken one poison it
		{math.Inf(1), 512, 1},      //
		{12, 0, 1},                 // no answers, no news
	} {
		got := start
		got.Update(c.kl, c.n)
		wantNear(t, "coefficient", got.Coef, 0.15*c.factor, 1e-15)
	}
	// Where the divergence falls as the coefficient rises, it ends at the target.
	c := start
	for range 20000 {
		c.Update(0.3/c.Coef, 64)
	}
	wantNear(t, "divergence", 0.3/c.Coef, 6, 0.01)
}

func TestKLEstimatorCheck(t *testing.T) {
	for _, k := range estimators {
		if err := k.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, k := range []KLEstimator{"", "K1", "k4"} {
		if k.Check() == nil {
			t.Errorf("estimator %q is taken", k)
		}
	}
}
