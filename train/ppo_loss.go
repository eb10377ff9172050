package train

import "math"

// PolicyClip bounds what one update may do to the probability of a token.
type PolicyClip struct {
	// Low and High clip the ratio to [1 − Low, 1 + High]. PPO has 0.2 for both; a
	// High of 0.28 lets unlikely tokens rise (Yu et al. 2025, "DAPO", section 3.1).
	Low, High float64
	// Dual, if above 1, bounds the loss of a token with negative advantage A by
	// −Dual·A, however high its ratio has become (Ye et al. 2020, "Mastering Complex
	// Control in MOBA Games with Deep Reinforcement Learning", dual-clip PPO); 3 is
	// usual. 0: off.
	Dual float64
}

// PolicyStats are a policy loss and what to watch with it. But for MaxDeviation
// and Limited they are sums over tokens divided by n, so that Add makes a minibatch
// of its micro-batches.
type PolicyStats struct {
	Loss         float64
	Ratio        float64 // mean of ρ; 1 in the first minibatch
	MaxDeviation float64 // largest |ρ − 1|; 0 in the first minibatch, but for rounding
	ClipFraction float64 // share of tokens whose gradient the clip took away
	ApproxKL     float64 // mean of ρ − 1 − log ρ, an estimate (k3) of KL(old ‖ new); 0 in the first minibatch
	Limited      int     // tokens with ρ above e^20, where it goes on along its tangent
}

// Add adds the statistics of another micro-batch of the same minibatch.
func (s *PolicyStats) Add(o PolicyStats) {
	s.Loss += o.Loss
	s.Ratio += o.Ratio
	s.MaxDeviation = math.Max(s.MaxDeviation, o.MaxDeviation)
	s.ClipFraction += o.ClipFraction
	s.ApproxKL += o.ApproxKL
	s.Limited += o.Limited
}

// PolicyLoss is PPO's clipped surrogate objective, as a loss:
//
//	ρ[t] = e^(logProbs[t] − oldLogProbs[t])
//	loss = Σ mask·−min(ρ·A, clip(ρ, 1−Low, 1+High)·A) / n
//
// (Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 7.)
// logProbs [T] are those of the policy being trained, oldLogProbs [T] were
// recorded while sampling, A is advantages [T]. The gradient by logProbs is
//
//	grad[t] = −ρ·A/n, or 0 where the clipped term is the smaller one
//
// which at ρ = 1 is −A/n, the plain policy gradient. The entropy bonus beside it
// goes through TokenLogProbsGrad, a KL loss through AddKLLoss.
func PolicyLoss[T Float](grad, logProbs, oldLogProbs, advantages []T, mask []bool, clip PolicyClip, n int) PolicyStats {
	mustLen("oldLogProbs", len(oldLogProbs), len(logProbs))
	mustLen("advantages", len(advantages), len(logProbs))
	mustMask(mask, len(logProbs))
	mustGrad("grad", grad, len(logProbs))
	scale := inverse(n)
	var s PolicyStats
	for i := range logProbs {
		if !isTrained(mask, i) {
			store(grad, i, 0)
			continue
		}
		d := float64(logProbs[i]) - float64(oldLogProbs[i])
		a := float64(advantages[i])
		ratio, slope := boundedExp(d)
		objective, clipped := ratio*a, clamp(ratio, 1-clip.Low, 1+clip.High)*a
		g := slope * a
		if clipped < objective { // false for NaN, which then shows in the gradient too
			objective, g = clipped, 0
			s.ClipFraction += scale
		}
		if bound := clip.Dual * a; clip.Dual > 1 && a < 0 && objective < bound {
			objective, g = bound, 0
			s.ClipFraction += scale
		}
		store(grad, i, -g*scale)
		s.Loss -= objective * scale
		s.Ratio += ratio * scale
		s.MaxDeviation = math.Max(s.MaxDeviation, math.Abs(ratio-1))
		s.ApproxKL += (ratio - 1 - d) * scale
		if d > expLimit {
			s.Limited++
		}
	}
	return s
}

// ValueStats are a value loss and the share of tokens whose gradient the clip
// took away, sums over tokens divided by n.
type ValueStats struct {
	Loss         float64
	ClipFraction float64
}

// Add adds the statistics of another micro-batch of the same minibatch.
func (s *ValueStats) Add(o ValueStats) {
	s.Loss += o.Loss
	s.ClipFraction += o.ClipFraction
}

// ValueLoss is the squared error of values [T] against returns [T], where a
// value that has left oldValues [T] by more than clip pays the larger error:
//
//	V' = oldValues + clip(values − oldValues, ±clip)
//	loss = ½·Σ mask·max((values − returns)², (V' − returns)²) / n
//
// (Not in the paper but in its code, OpenAI baselines' ppo2; Huang et al. 2022,
// "The 37 Implementation Details of Proximal Policy Optimization", core detail 9.)
// The gradient by values is (values − returns)/n, or 0 where the clipped error is
// the larger one. A clip of +Inf leaves the squared error.
func ValueLoss[T Float](grad, values, oldValues, returns []T, mask []bool, clip float64, n int) ValueStats {
	mustLen("oldValues", len(oldValues), len(values))
	mustLen("returns", len(returns), len(values))
	mustMask(mask, len(values))
	mustGrad("grad", grad, len(values))
	scale := inverse(n)
	var s ValueStats
	for i := range values {
		if !isTrained(mask, i) {
			store(grad, i, 0)
			continue
		}
		v, old, r := float64(values[i]), float64(oldValues[i]), float64(returns[i])
		g := v - r
		loss := g * g
		// Within the range both errors are one and the same; old + (v − old) may
		// differ from v in the last place and must not win by that.
		if move := v - old; math.Abs(move) > clip {
			e := old + math.Copysign(clip, move) - r
			if e*e > loss {
				loss, g = e*e, 0
				s.ClipFraction += scale
			}
		}
		store(grad, i, g*scale)
		s.Loss += loss / 2 * scale
	}
	return s
}

// ExplainedVariance is 1 − Var(returns − values)/Var(returns) over the trained
// tokens of both [T]: 1 for a perfect value model, 0 for one that is no better than
// a constant, below 0 for a worse one. Where returns don't vary it is 0.
func ExplainedVariance[T Float](values, returns []T, mask []bool) float64 {
	mustLen("values", len(values), len(returns))
	meanReturn := MaskedMean(returns, mask)
	meanError := meanReturn - MaskedMean(values, mask)
	var spread, left float64
	for i := range returns {
		if !isTrained(mask, i) {
			continue
		}
		r := float64(returns[i])
		e := r - float64(values[i]) - meanError
		spread += (r - meanReturn) * (r - meanReturn)
		left += e * e
	}
	if spread == 0 {
		return 0
	}
	return 1 - left/spread
}
