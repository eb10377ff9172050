package train

import (
	"fmt"
	"math"
)

// A KLEstimator names an estimate, from one sampled token, of the divergence
// KL(π ‖ π_ref) = E_π[log π − log π_ref], where the sample comes from π. With
// d = log π − log π_ref (Schulman 2020, "Approximating KL Divergence",
// joschu.net/blog/kl-approx.html):
//
//	k1 = d                the exact mean, signed, of high variance
//	k2 = d²/2             a little biased, never negative
//	k3 = e^(−d) − 1 + d   the exact mean, never negative
//
// k1 is usual in the reward. As a loss it is useless, since its gradient has mean
// 0 whatever the models; k2's gradient has the mean of the divergence's own, and
// k3's, which GRPO uses, that of the reverse one's, KL(π_ref ‖ π).
type KLEstimator string

// The estimators.
const (
	K1 KLEstimator = "k1"
	K2 KLEstimator = "k2"
	K3 KLEstimator = "k3"
)

// Check tells whether k is one of the estimators.
func (k KLEstimator) Check() error {
	switch k {
	case K1, K2, K3:
		return nil
	}
	return fmt.Errorf("KL estimator %q: want k1, k2 or k3", string(k))
}

// of returns the estimate and its derivative by the policy's log-probability.
// Where the reference is more than e^20 times likelier, k3 goes on along its
// tangent: finite, and convex still.
func (k KLEstimator) of(policy, ref float64) (kl, slope float64) {
	d := policy - ref
	switch k {
	case K1:
		return d, 1
	case K2:
		return d * d / 2, d
	case K3:
		if -d > expLimit {
			e, s := boundedExp(-d)
			return e - 1 + d, 1 - s
		}
		e := math.Expm1(-d) // near d = 0, e^(−d) − 1 + d loses all digits
		return e + d, -e
	}
	panic("train: " + k.Check().Error())
}

// TokenKL writes to kl [T] the estimates for the log-probabilities of the policy
// and of the reference, [T] each, and to grad [T] their derivatives by the policy's.
// Tokens don't mix, so there is no mask.
func TokenKL[T Float](kl, grad, policy, ref []T, k KLEstimator) {
	mustLen("kl", len(kl), len(policy))
	mustLen("ref", len(ref), len(policy))
	mustGrad("grad", grad, len(policy))
	for i := range policy {
		v, slope := k.of(float64(policy[i]), float64(ref[i]))
		kl[i] = T(v)
		store(grad, i, slope)
	}
}

// AddKLLoss is coef·Σ mask·kl/n, a loss beside the policy's on the same
// log-probabilities [T] (Shao et al. 2024, "DeepSeekMath", equations 3 and 4). So
// its gradient by them is added to grad [T].
func AddKLLoss[T Float](grad, policy, ref []T, mask []bool, k KLEstimator, coef float64, n int) (loss float64) {
	mustLen("ref", len(ref), len(policy))
	mustMask(mask, len(policy))
	mustGrad("grad", grad, len(policy))
	scale := coef * inverse(n)
	if scale == 0 {
		return 0
	}
	for i := range policy {
		if !isTrained(mask, i) {
			continue
		}
		v, slope := k.of(float64(policy[i]), float64(ref[i]))
		loss += scale * v
		if grad != nil {
			grad[i] = T(float64(grad[i]) + scale*slope)
		}
	}
	return loss
}

// AnswerKL is the divergence of an answer in nats, Σ over its trained tokens, in
// the mean over rows that have any: what a KL controller steers and a KL stop
// watches.
func AnswerKL[T Float](policy, ref []T, starts []int32, mask []bool, k KLEstimator) float64 {
	mustRows(starts, mask, len(starts)-1, len(policy))
	mustLen("ref", len(ref), len(policy))
	sum, rows := 0.0, 0
	for b := range len(starts) - 1 {
		some := false
		for t := int(starts[b]); t < int(starts[b+1]); t++ {
			if isTrained(mask, t) {
				v, _ := k.of(float64(policy[t]), float64(ref[t]))
				sum += v
				some = true
			}
		}
		if some {
			rows++
		}
	}
	return sum * inverse(rows)
}

// KLController holds the coefficient of the KL penalty. With Target 0 it is
// fixed; else Update steers the divergence to Target nats an answer (Ziegler
// et al. 2019, section 2.2). Its whole state is Coef: a checkpoint keeps that.
type KLController struct {
	Coef    float64 // β
	Target  float64 // nats an answer; 0: the coefficient is fixed
	Horizon float64 // answers over which the coefficient follows, usually 10000
}

// maxKLError bounds the relative error, so that one odd batch can't throw the
// coefficient off.
const maxKLError = 0.2

// Update takes the measured divergence, nats an answer in the mean over n
// answers, into account:
//
//	e = clip((kl − Target)/Target, ±0.2),  β ← β·(1 + e·n/Horizon)
//
// The paper's K_β = 0.1 is n/Horizon here. A batch larger than Horizon counts as
// Horizon, so β changes by a fifth at most and stays positive. A divergence that
// isn't finite changes nothing.
func (c *KLController) Update(kl float64, n int) {
	if c.Target <= 0 || c.Horizon <= 0 || math.IsNaN(kl) || math.IsInf(kl, 0) {
		return
	}
	e := clamp((kl-c.Target)/c.Target, -maxKLError, maxKLError)
	c.Coef *= 1 + e*math.Min(float64(n)/c.Horizon, 1)
}
