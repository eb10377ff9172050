package train

import "math"

// ScoreStats tells what TokenRewards did with scores, so that nothing happens to
// an answer silently.
type ScoreStats struct {
	Empty     int // rows without a trained token: their score goes nowhere
	Clipped   int // scores beyond the limit
	NonFinite int // NaN or infinite scores: the caller refuses the batch
}

// TokenRewards makes the rewards [T] of tokens from the log-probabilities
// [T] recorded while sampling, those of the reference model, and the scores [B]
// of whole answers, already normalised:
//
//	rewards[t] = −klCoef·kl(logProbs[t], refLogProbs[t]) + [t is its row's last trained token]·clip(score, ±limit)
//
// and 0 at tokens that aren't trained (Ziegler et al. 2019, "Fine-Tuning Language
// Models from Human Preferences", equation 2; Ouyang et al. 2022, "Training
// language models to follow instructions with human feedback", equation 2). The
// score belongs to the last real token alone, never to a pad nor to every token.
// limit may be +Inf. With klCoef 0 refLogProbs isn't read and may be nil.
func TokenRewards[T Float](rewards, logProbs, refLogProbs, scores []T, starts []int32, mask []bool, kl KLEstimator, klCoef, limit float64) ScoreStats {
	mustRows(starts, mask, len(scores), len(rewards))
	mustLen("logProbs", len(logProbs), len(rewards))
	if klCoef != 0 {
		mustLen("refLogProbs", len(refLogProbs), len(rewards))
	}
	var s ScoreStats
	for b := range scores {
		score := float64(scores[b])
		if math.IsNaN(score) || math.IsInf(score, 0) {
			s.NonFinite++
		}
		if math.Abs(score) > limit {
			s.Clipped++
		}
		last, lastReward := -1, 0.0
		for t := int(starts[b]); t < int(starts[b+1]); t++ {
			rewards[t] = 0
			if !isTrained(mask, t) {
				continue
			}
			last, lastReward = t, 0
			if klCoef != 0 {
				k, _ := kl.of(float64(logProbs[t]), float64(refLogProbs[t]))
				lastReward = -klCoef * k
			}
			rewards[t] = T(lastReward)
		}
		if last < 0 {
			s.Empty++
			continue
		}
		rewards[last] = T(lastReward + clamp(score, -limit, limit))
	}
	return s
}

// GAE computes generalised advantage estimates [T] and the returns [T] that the
// value model learns, from rewards [T] and the values [T] at the time of sampling.
// values[t] is the value before token t is chosen:
//
//	δ[t] = rewards[t] + γ·values[t+1] − values[t]
//	advantages[t] = Σ_{l≥0} (γλ)^l·δ[t+l] = δ[t] + γλ·advantages[t+1]
//	returns[t] = advantages[t] + values[t]
//
// (Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized
// Advantage Estimation", equation 16.) Past a row's last trained token value and
// advantage are 0: the answer is over. The steps are the trained tokens: where
// others stand between them (a tool's output), t+1 is the next trained one.
// Tokens that aren't trained get 0. γ = 1 and λ = 0.95 are usual (λ = 1: returns
// are the rewards to come; λ = 0: they look one step ahead). Results may overwrite
// rewards or values.
func GAE[T Float](advantages, returns, rewards, values []T, starts []int32, mask []bool, gamma, lambda float64) {
	mustRows(starts, mask, len(starts)-1, len(rewards))
	mustLen("advantages", len(advantages), len(rewards))
	mustLen("returns", len(returns), len(rewards))
	mustLen("values", len(values), len(rewards))
	for b := range len(starts) - 1 {
		var nextValue, advantage float64
		for t := int(starts[b+1]) - 1; t >= int(starts[b]); t-- {
			if !isTrained(mask, t) {
				advantages[t], returns[t] = 0, 0
				continue
			}
			value := float64(values[t])
			delta := float64(rewards[t]) + gamma*nextValue - value
			advantage = delta + gamma*lambda*advantage
			nextValue = value
			advantages[t], returns[t] = T(advantage), T(advantage+value)
		}
	}
}
