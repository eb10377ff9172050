package train

import (
	"math"
	"slices"
	"testing"
)

func TestTokenRewards(t *testing.T) {
	nan := math.NaN()
	// Rows: three tokens of which the middle one isn't the policy's; none; one that isn't trained; one.
	starts := []int32{0, 4, 4, 5, 6}
	mask := []bool{true, false, true, false, false, true}
	logProbs := []float64{-1, nan, -2, nan, nan, -0.5}
	ref := []float64{-1.5, nan, -1, nan, nan, -0.5}
	rewards := make([]float64, 6)
	s := TokenRewards(rewards, logProbs, ref, []float64{7, 1, 2, -0.5}, starts, mask, K1, 0.1, 5)
	for i, want := range []float64{-0.05, 0, 0.1 + 5, 0, 0, -0.5} {
		wantNear(t, "reward", rewards[i], want, 1e-15)
	}
	if want := (ScoreStats{Empty: 2, Clipped: 1}); s != want {
		t.Errorf("stats %+v, want %+v", s, want)
	}
	for _, k := range []KLEstimator{K2, K3} {
		TokenRewards(rewards, logProbs, ref, []float64{0, 0, 0, 0}, starts, mask, k, 1, 5)
		if rewards[0] >= 0 || rewards[2] >= 0 || rewards[5] != 0 {
			t.Errorf("%s: rewards %v", k, rewards)
		}
	}
	// Without a penalty there need be no reference.
	s = TokenRewards(rewards, logProbs, nil, []float64{nan, 0, 0, math.Inf(1)}, starts, mask, K1, 0, math.Inf(1))
	if s.NonFinite != 2 {
		t.Errorf("%d scores that aren't finite, want 2", s.NonFinite)
	}
}

// TestTokenRewardsOnce: an answer's rewards add up to its clipped score less the
// coefficient times its divergence, wherever padding stands.
func TestTokenRewardsOnce(t *testing.T) {
	x := newRagged(4)
	lp, ref, scores := x.normal(x.tokens, 1), x.normal(x.tokens, 1), x.normal(x.rows(), 3)
	rewards, sums, kls, kl := make([]float64, x.tokens), make([]float64, x.rows()), make([]float64, x.rows()), make([]float64, x.tokens)
	s := TokenRewards(rewards, x.poisoned(lp), x.poisoned(ref), scores, x.starts, x.mask, K3, 0.3, 2)
	TokenKL(kl, nil, lp, ref, K3)
	SumAnswers(kls, kl, x.starts, x.mask, false)
	SumAnswers(sums, rewards, x.starts, nil, false)
	empty := 0
	for b := range sums {
		want := clamp(scores[b], -2, 2) - 0.3*kls[b]
		if TrainedTokens(x.mask[x.starts[b]:x.starts[b+1]], 0) == 0 {
			empty++
			want = 0
		}
		wantNear(t, "sum of rewards", sums[b], want, 1e-12)
	}
	if s.Empty != empty || empty < 3 {
		t.Errorf("%d empty rows counted, are %d", s.Empty, empty)
	}
}

// TestGAEAgainstDoubleSum compares with A[t] = Σ_l (γλ)^l·δ[t+l] over the trained tokens.
func TestGAEAgainstDoubleSum(t *testing.T) {
	x := newRagged(5)
	rewards, values := x.normal(x.tokens, 1), x.normal(x.tokens, 1)
	advantages, returns := make([]float64, x.tokens), make([]float64, x.tokens)
	for _, c := range []struct{ gamma, lambda float64 }{{1, 0.95}, {0.99, 0.95}, {0.9, 0.5}, {1, 1}, {1, 0}, {0.7, 1}, {0, 0.9}} {
		GAE(advantages, returns, x.poisoned(rewards), x.poisoned(values), x.starts, x.mask, c.gamma, c.lambda)
		for b := range x.rows() {
			var steps []int
			for i := int(x.starts[b]); i < int(x.starts[b+1]); i++ {
				if x.mask[i] {
					steps = append(steps, i)
				} else if advantages[i] != 0 || returns[i] != 0 {
					t.Errorf("token %d isn't trained, but has advantage %g, return %g", i, advantages[i], returns[i])
				}
			}
			value := func(k int) float64 {
				if k < len(steps) {
					return values[steps[k]]
				}
				return 0
			}
			for k, i := range steps {
				want := 0.0
				for l := k; l < len(steps); l++ {
					delta := rewards[steps[l]] + c.gamma*value(l+1) - value(l)
					want += math.Pow(c.gamma*c.lambda, float64(l-k)) * delta
				}
				wantNear(t, "advantage", advantages[i], want, 1e-12)
				wantNear(t, "return", returns[i], want+values[i], 1e-12)
			}
		}
	}
}

func TestGAELimits(t *testing.T) {
	x := newRagged(6)
	rewards, values := x.normal(x.tokens, 1), x.normal(x.tokens, 1)
	advantages, returns := make([]float64, x.tokens), make([]float64, x.tokens)
	// λ = 1: returns are the discounted rewards to come, whatever the values say.
	const gamma = 0.9
	GAE(advantages, returns, rewards, values, x.starts, nil, gamma, 1)
	for b := range x.rows() {
		toCome := 0.0
		for i := int(x.starts[b+1]) - 1; i >= int(x.starts[b]); i-- {
			toCome = rewards[i] + gamma*toCome
			wantNear(t, "return with lambda 1", returns[i], toCome, 1e-12)
		}
	}
	// λ = 0: returns are the reward and the next value.
	GAE(advantages, returns, rewards, values, x.starts, nil, gamma, 0)
	for b := range x.rows() {
		for i := int(x.starts[b]); i < int(x.starts[b+1]); i++ {
			want := rewards[i]
			if i+1 < int(x.starts[b+1]) {
				want += gamma * values[i+1]
			}
			wantNear(t, "return with lambda 0", returns[i], want, 1e-12)
		}
	}
	// Values that foresee every return leave no advantage.
	GAE(advantages, returns, rewards, make([]float64, x.tokens), x.starts, nil, gamma, 1)
	GAE(advantages, make([]float64, x.tokens), rewards, returns, x.starts, nil, gamma, 0.5)
	for i := range advantages {
		wantNear(t, "advantage of perfect values", advantages[i], 0, 1e-12)
	}
}

// TestGAEByHand is an answer of three tokens with a score of 0.8 at its end alone.
func TestGAEByHand(t *testing.T) {
	logProbs, ref := []float64{-1, -0.5, -2, -0.7}, []float64{-1.2, -0.4, -1.5, -0.9}
	mask, starts := []bool{true, true, true, false}, []int32{0, 4}
	rewards := make([]float64, 4)
	TokenRewards(rewards, logProbs, ref, []float64{0.8}, starts, mask, K1, 0.1, 5)
	advantages, returns := make([]float64, 4), make([]float64, 4)
	GAE(advantages, returns, rewards, []float64{0.1, 0.2, -0.1, 9}, starts, mask, 1, 0.95)
	// δ = (−0.02 + 0.2 − 0.1, 0.01 − 0.1 − 0.2, 0.85 + 0.1)
	want := []float64{0.08 + 0.95*(-0.29+0.95*0.95), -0.29 + 0.95*0.95, 0.95, 0}
	for i := range want {
		wantNear(t, "advantage", advantages[i], want[i], 1e-15)
	}
}

func TestGAEInPlace(t *testing.T) {
	x := newRagged(7)
	rewards, values := x.normal(x.tokens, 1), x.normal(x.tokens, 1)
	advantages, returns := make([]float64, x.tokens), make([]float64, x.tokens)
	GAE(advantages, returns, rewards, values, x.starts, x.mask, 1, 0.95)
	GAE(rewards, values, rewards, values, x.starts, x.mask, 1, 0.95)
	if !slices.Equal(rewards, advantages) || !slices.Equal(values, returns) {
		t.Error("results in place of the arguments differ")
	}
}
