package train

import (
	"math"
	"slices"
	"testing"
)

var policyClips = []PolicyClip{{Low: 0.2, High: 0.2}, {Low: 0.2, High: 0.28}, {Low: 0.2, High: 0.2, Dual: 3}, {Low: 1, High: math.Inf(1)}}

func TestPolicyLossGradient(t *testing.T) {
	x := newRagged(13)
	n := x.trained() + 5 // the global batch has others
	old, advantages := x.normal(x.tokens, 1), x.normal(x.tokens, 2)
	policy, grad := x.normal(x.tokens, 0.4), make([]float64, x.tokens)
	for i := range policy {
		policy[i] += old[i]
		if i%9 == 0 {
			policy[i] = old[i] + 2 // far enough for the dual clip
		}
	}
	for _, clip := range policyClips {
		s := PolicyLoss(grad, x.poisoned(policy), x.poisoned(old), x.poisoned(advantages), x.mask, clip, n)
		checkGradient(t, "policy", policy, grad, func() float64 {
			return PolicyLoss(nil, policy, old, advantages, x.mask, clip, n).Loss
		})
		zero := 0
		for i, g := range grad {
			if !x.mask[i] && g != 0 {
				t.Errorf("token %d isn't trained but has gradient %g", i, g)
			}
			if x.mask[i] && g == 0 {
				zero++
			}
		}
		wantNear(t, "clip fraction", s.ClipFraction, float64(zero)/float64(n), 1e-12)
		if bounded := !math.IsInf(clip.High, 1); bounded != (zero > 0) {
			t.Errorf("%+v: %d tokens without a gradient", clip, zero)
		}
	}
}

// TestPolicyLossAtRatioOne: in the first minibatch the loss is −mean A with the plain
// policy gradient −A/n, ratio 1, no divergence, nothing clipped.
func TestPolicyLossAtRatioOne(t *testing.T) {
	x := newRagged(14)
	n := x.trained()
	lp, advantages, grad := x.normal(x.tokens, 3), x.normal(x.tokens, 1), make([]float64, x.tokens)
	for _, clip := range policyClips {
		s := PolicyLoss(grad, lp, lp, advantages, x.mask, clip, n)
		wantNear(t, "loss", s.Loss, -MaskedMean(advantages, x.mask), 1e-14)
		wantNear(t, "ratio", s.Ratio, 1, 1e-14)
		if s.MaxDeviation != 0 || s.ApproxKL != 0 || s.ClipFraction != 0 || s.Limited != 0 {
			t.Errorf("stats at ratio 1: %+v", s)
		}
		for i := range grad {
			want := 0.0
			if x.mask[i] {
				want = -advantages[i] / float64(n)
			}
			wantNear(t, "gradient", grad[i], want, 1e-16)
		}
	}
}

// TestPolicyClipTable: where the clip takes the gradient away, by the ratio and the sign of A.
func TestPolicyClipTable(t *testing.T) {
	for _, c := range []struct {
		ratio, advantage, loss, gradient float64
		clip                             PolicyClip
	}{
		{1.1, 2, -2.2, -2.2, policyClips[0]},
		{1.5, 2, -2.4, 0, policyClips[0]},     // has risen enough
		{1.5, -2, 3, 3, policyClips[0]},       // has risen and must come down
		{0.5, 2, -1, -1, policyClips[0]},      // has fallen and must come up
		{0.5, -2, 1.6, 0, policyClips[0]},     // has fallen enough
		{1.25, 2, -2.5, -2.5, policyClips[1]}, // the higher upper bound
		{1.5, 2, -2.56, 0, policyClips[1]},    //
		{2.5, -2, 5, 5, policyClips[2]},       // below the dual clip
		{5, -2, 6, 0, policyClips[2]},         // beyond it
		{5, 2, -2.4, 0, policyClips[2]},       // it is for negative advantages alone
		{5, 0, 0, 0, policyClips[0]},          //
		{50, 3, -150, -150, policyClips[3]},   // no clip at all
	} {
		grad := make([]float64, 1)
		s := PolicyLoss(grad, []float64{math.Log(c.ratio)}, []float64{0}, []float64{c.advantage}, nil, c.clip, 1)
		wantNear(t, "loss", s.Loss, c.loss, 1e-12)
		wantNear(t, "gradient", grad[0], c.gradient, 1e-12)
		wantNear(t, "ratio", s.Ratio, c.ratio, 1e-12)
		wantNear(t, "deviation", s.MaxDeviation, math.Abs(c.ratio-1), 1e-12)
		wantNear(t, "KL", s.ApproxKL, c.ratio-1-math.Log(c.ratio), 1e-12)
	}
}

// TestPolicyLossExample was worked out from the equation by another program.
func TestPolicyLossExample(t *testing.T) {
	policy, old := []float64{-0.8, -0.9, -1.9, -0.7}, []float64{-1, -0.5, -2, -0.7}
	advantages, mask := []float64{2.221875, 1.4125, 0.95, 0}, []bool{true, true, true, false}
	s := PolicyLoss(nil, policy, old, advantages, mask, policyClips[0], 3)
	wantNear(t, "loss", s.Loss, -1.554330, 1e-6)
	v := ValueLoss(nil, []float64{0.5, 0.15, 0.3, 9}, []float64{0.1, 0.2, -0.1, 0}, []float64{2.321875, 1.6125, 0.85, 0}, mask, 0.2, 3)
	wantNear(t, "value loss", v.Loss, 1.131564, 1e-6)
}

func TestPolicyLossExtremes(t *testing.T) {
	for _, d := range []float64{-1e6, -800, -expLimit, expLimit + 1, 800, 1e6} {
		for _, a := range []float64{-3, 0, 3} {
			grad := make([]float32, 1)
			s := PolicyLoss(grad, []float32{float32(d)}, []float32{0}, []float32{float32(a)}, nil, policyClips[0], 1)
			wantFinite(t, "policy loss", s.Loss, s.Ratio, s.MaxDeviation, s.ApproxKL, float64(grad[0]))
			if d > 0 && a < 0 && grad[0] <= 0 {
				t.Errorf("log-ratio %g, advantage %g: gradient %g doesn't bring the policy back", d, a, grad[0])
			}
			if limited := d > expLimit; (s.Limited == 1) != limited {
				t.Errorf("log-ratio %g counts %d times as limited", d, s.Limited)
			}
		}
	}
	// A NaN isn't hidden by the clip: the step's guard must see it.
	grad := make([]float64, 1)
	if s := PolicyLoss(grad, []float64{0}, []float64{0}, []float64{math.NaN()}, nil, policyClips[2], 1); !math.IsNaN(s.Loss) || !math.IsNaN(grad[0]) {
		t.Errorf("loss %g, gradient %g of a NaN advantage", s.Loss, grad[0])
	}
}

// TestMicroBatchesAddUp: losses, statistics and gradients of a minibatch don't depend on its cut.
func TestMicroBatchesAddUp(t *testing.T) {
	x := newRagged(15)
	n := x.trained()
	policy, old, adv := x.normal(x.tokens, 0.5), x.normal(x.tokens, 0.5), x.normal(x.tokens, 1)
	whole, parts := make([]float64, x.tokens), make([]float64, x.tokens)
	want := PolicyLoss(whole, policy, old, adv, x.mask, policyClips[0], n)
	wantValue := ValueLoss(nil, policy, old, adv, x.mask, 0.2, n)
	var got PolicyStats
	var gotValue ValueStats
	for b := range x.rows() {
		i, j := x.starts[b], x.starts[b+1]
		got.Add(PolicyLoss(parts[i:j], policy[i:j], old[i:j], adv[i:j], x.mask[i:j], policyClips[0], n))
		gotValue.Add(ValueLoss(nil, policy[i:j], old[i:j], adv[i:j], x.mask[i:j], 0.2, n))
	}
	if !slices.Equal(whole, parts) {
		t.Error("the gradient depends on the cut")
	}
	for name, pair := range map[string][2]float64{
		"loss": {got.Loss, want.Loss}, "ratio": {got.Ratio, want.Ratio}, "deviation": {got.MaxDeviation, want.MaxDeviation},
		"clip fraction": {got.ClipFraction, want.ClipFraction}, "KL": {got.ApproxKL, want.ApproxKL},
		"value loss": {gotValue.Loss, wantValue.Loss}, "value clip": {gotValue.ClipFraction, wantValue.ClipFraction},
	} {
		wantNear(t, name, pair[0], pair[1], 1e-13)
	}
}

func TestPPONoTokens(t *testing.T) {
	grad := []float64{5}
	s := PolicyLoss(grad, []float64{1}, []float64{2}, []float64{3}, []bool{false}, policyClips[0], 0)
	v := ValueLoss(grad, []float64{1}, []float64{2}, []float64{3}, []bool{false}, 0.2, 0)
	if s != (PolicyStats{}) || v != (ValueStats{}) || grad[0] != 0 {
		t.Errorf("%+v, %+v, gradient %g without a trained token", s, v, grad[0])
	}
	PolicyLoss([]float64{}, []float64{}, []float64{}, []float64{}, nil, policyClips[0], 0)
	if m := MaskedMean([]float64{}, nil); m != 0 {
		t.Errorf("mean %g of nothing", m)
	}
}

func TestValueLossGradient(t *testing.T) {
	x := newRagged(16)
	n := x.trained() + 2
	values, old, returns := x.normal(x.tokens, 1), x.normal(x.tokens, 1), x.normal(x.tokens, 1)
	grad := make([]float64, x.tokens)
	for _, clip := range []float64{0.2, 0.5, math.Inf(1)} {
		s := ValueLoss(grad, x.poisoned(values), x.poisoned(old), x.poisoned(returns), x.mask, clip, n)
		checkGradient(t, "value", values, grad, func() float64 {
			return ValueLoss(nil, values, old, returns, x.mask, clip, n).Loss
		})
		// The clipped loss is never below the squared error.
		free := ValueLoss(nil, values, old, returns, x.mask, math.Inf(1), n)
		if s.Loss < free.Loss || (s.ClipFraction > 0) == math.IsInf(clip, 1) {
			t.Errorf("clip %g: %+v, squared error %g", clip, s, free.Loss)
		}
	}
	values = slices.Clone(old)
	ValueLoss(grad, values, old, returns, x.mask, 0.2, n)
	for i := range grad {
		if x.mask[i] {
			wantNear(t, "gradient at the old values", grad[i], (old[i]-returns[i])/float64(n), 1e-16)
		}
	}
}

// TestValueGradientWithinClip: values within the range keep their gradient although
// old + (value − old) rounds to something else.
func TestValueGradientWithinClip(t *testing.T) {
	x := newRagged(17)
	for range 2000 {
		old, r := x.r.NormFloat64(), x.r.NormFloat64()
		v := old + 0.19*(2*x.r.Float64()-1)
		grad := make([]float32, 1)
		ValueLoss(grad, []float32{float32(v)}, []float32{float32(old)}, []float32{float32(r)}, nil, 0.2, 1)
		if want := float32(v) - float32(r); math.Abs(float64(grad[0]-want)) > 1e-6 {
			t.Fatalf("value %g, old %g, return %g: gradient %g, want %g", v, old, r, grad[0], want)
		}
	}
}

func TestExplainedVariance(t *testing.T) {
	x := newRagged(18)
	returns, values := x.normal(x.tokens, 1), make([]float64, x.tokens)
	ev := func() float64 { return ExplainedVariance(x.poisoned(values), x.poisoned(returns), x.mask) }
	wantNear(t, "of a constant", ev(), 0, 1e-12)
	copy(values, returns)
	wantNear(t, "of the returns", ev(), 1, 1e-12)
	for i := range values {
		values[i] = returns[i]/2 + 7
	}
	wantNear(t, "of half the returns", ev(), 0.75, 1e-12)
	for i := range values {
		values[i] = -returns[i]
	}
	wantNear(t, "of the opposite", ev(), -3, 1e-12)
	wantNear(t, "where returns don't vary", ExplainedVariance([]float64{1, 2}, []float64{3, 3}, nil), 0, 0)
}
