package train

// PreferencePairs are log-probabilities of P pairs of answers, each [P], summed
// over the tokens of an answer (SumAnswers). Where a loss has no reference
// model, its two may be nil.
type PreferencePairs[T Float] struct {
	Chosen, Rejected       []T // under the policy
	RefChosen, RefRejected []T // under the reference model
}

// The losses below are of the difference of log-ratios
//
//	d = (Chosen − RefChosen) − (Rejected − RefRejected)
//
// (SimPO's without the references), the mean over n pairs. Their gradient by
// Chosen is loss'(d)/n, by Rejected its negative. The rewards in their statistics
// are β·log-ratio, the reward that the policy has learnt implicitly (Rafailov et
// al. 2023, section 4).

// DPOLoss is direct preference optimisation,
//
//	loss(d) = −log σ(β·d)
//
// (Rafailov et al. 2023, "Direct Preference Optimization", equation 7). With
// smoothing ε in [0, ½) it is conservative DPO, for labels that are wrong with
// probability ε (Mitchell 2023, "A note on DPO with noisy preferences &
// relationship to IPO"): −(1−ε)·log σ(β·d) − ε·log σ(−β·d).
func DPOLoss[T Float](gradChosen, gradRejected []T, p PreferencePairs[T], beta, smoothing float64, n int) PairStats {
	return preferenceLoss(gradChosen, gradRejected, p, true, beta, n, func(d float64) (float64, float64) {
		x := beta * d
		loss := (1-smoothing)*softplus(-x) + smoothing*softplus(x)
		return loss, beta * (smoothing*sigmoid(x) - (1-smoothing)*sigmoid(-x))
	})
}

// IPOLoss is identity preference optimisation,
//
//	loss(d) = (d − 1/(2β))²
//
// (Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from
// Human Preferences", equation 17, with β for its τ), which unlike DPO's has its
// least at a finite d.
func IPOLoss[T Float](gradChosen, gradRejected []T, p PreferencePairs[T], beta float64, n int) PairStats {
	return preferenceLoss(gradChosen, gradRejected, p, true, beta, n, func(d float64) (float64, float64) {
		e := d - 1/(2*beta)
		return e * e, 2 * e
	})
}

// HingeLoss is the hinge of SLiC in DPO's form,
//
//	loss(d) = max(0, 1 − β·d)
//
// (Zhao et al. 2023, "SLiC-HF: Sequence Likelihood Calibration with Human
// Feedback"; normalised by the reference in Liu et al. 2024, "Statistical Rejection
// Sampling Improves Preference Optimization", section 3). At the kink the gradient
// is 0.
func HingeLoss[T Float](gradChosen, gradRejected []T, p PreferencePairs[T], beta float64, n int) PairStats {
	return preferenceLoss(gradChosen, gradRejected, p, true, beta, n, func(d float64) (float64, float64) {
		if h := 1 - beta*d; !(h <= 0) { // NaN goes through
			return h, -beta
		}
		return 0, 0
	})
}

// SimPOLoss is simple preference optimisation, without a reference model,
//
//	loss(d) = −log σ(β·d − γ),  d = Chosen − Rejected
//
// (Meng et al. 2024, "SimPO: Simple Preference Optimization with a Reference-Free
// Reward", equation 6). Here Chosen and Rejected are means over an answer's tokens,
// not sums. β = 2 and γ = 0.5 to 1.6 are usual.
func SimPOLoss[T Float](gradChosen, gradRejected []T, p PreferencePairs[T], beta, gamma float64, n int) PairStats {
	return preferenceLoss(gradChosen, gradRejected, p, false, beta, n, func(d float64) (float64, float64) {
		x := beta*d - gamma
		return softplus(-x), -beta * sigmoid(-x)
	})
}

// preferenceLoss is what these losses share; of gives a pair's loss and its
// derivative by d.
func preferenceLoss[T Float](gradChosen, gradRejected []T, p PreferencePairs[T], reference bool, beta float64, n int, of func(d float64) (loss, slope float64)) PairStats {
	pairs := len(p.Chosen)
	mustLen("Rejected", len(p.Rejected), pairs)
	if reference {
		mustLen("RefChosen", len(p.RefChosen), pairs)
		mustLen("RefRejected", len(p.RefRejected), pairs)
	}
	mustGrad("gradChosen", gradChosen, pairs)
	mustGrad("gradRejected", gradRejected, pairs)
	scale := inverse(n)
	var s PairStats
	for i := range pairs {
		c, r := float64(p.Chosen[i]), float64(p.Rejected[i])
		if reference {
			c -= float64(p.RefChosen[i])
			r -= float64(p.RefRejected[i])
		}
		loss, slope := of(c - r)
		store(gradChosen, i, slope*scale)
		store(gradRejected, i, -slope*scale)
		s.note(loss, beta*c, beta*r, scale)
	}
	return s
}
