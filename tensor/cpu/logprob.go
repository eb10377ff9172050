package cpu

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// The log-probabilities and entropies of chosen tokens over a fused projection
// (projection.go). A row's logits are seen from the largest, m at index top, and its
// exponential, 1, is left out of the sums:
//
//	D = (Z − m)/T,  E = exp(D)
//	r = Σ_{j≠top} E,  s = 1 + r,  μ = Σ E·D / s  (the mean of D)
//	log-probability = D_a − log1p(r),  LSE = m/T + log1p(r),  entropy = log1p(r) − μ
//
// Nothing cancels: D ≤ 0, so that the entropy is the sum of two positive terms, and
// where one token has nearly all of the probability, r is what is left of it, to
// the last digit. As log p_j + entropy = D_j − μ, the gradient needs neither of them:
//
//	dZ = (dl·([j=a] − E/s) − dh·E/s·(D − μ)) / T
//	   = c·G,  c = −u/(T·s),  G = E·(α + β·(D − μ)), but G_a = … − α·s
//
// with α = dl/u, β = dh/u and u the larger of |dl| and |dh|, so that G is of the
// size of E however small the derivatives are. Where dh = 0, u = dl, α = 1 and G = E.
// G_a = E_a·β·(D_a − μ) − α·(s − E_a), and s − E_a = r where a = top.
//
// A soft cap makes Z of the products and multiplies G by its slope 1 − (Z/SoftCap)².

// logProbJob is what LogProb knows of its rows.
type logProbJob struct {
	*projection
	temperature, softCap     float32
	logProbs, entropies, lse []float32 // entropies may be nil
}

// logProbBackwardJob is what LogProbBackward knows of its rows.
type logProbBackwardJob struct {
	*projection
	temperature, softCap  float32
	dLogProbs, dEntropies []float32 // either may be nil
}

var (
	logProbs             freeList[logProbJob]
	logProbBackwards     freeList[logProbBackwardJob]
	logProbNames         = projectionNamesOf("LogProb")
	logProbBackwardNames = projectionNamesOf("LogProbBackward")
)

func logProb(a tensor.LogProb) {
	j := logProbs.take()
	n := a.X.Rows()
	j.projection = openProjection(logProbNames, j, a.X, a.W, a.Targets, tensor.Tensor{}, tensor.Tensor{})
	j.temperature, j.softCap = temperatureOf("LogProb", a.Temperature), a.SoftCap
	j.logProbs, j.lse = vectorOf("LogProb's LogProbs", a.LogProbs, n), vectorOf("LogProb's LSE", a.LSE, n)
	if !a.Entropies.IsZero() {
		j.entropies = vectorOf("LogProb's Entropies", a.Entropies, n)
	}
	for t, target := range j.targets {
		j.count(t, target >= 0)
		if target < 0 {
			j.logProbs[t], j.lse[t] = 0, 0
			if j.entropies != nil {
				j.entropies[t] = 0
			}
		}
	}
	for j.next() {
	}
	j.close()
	*j = logProbJob{}
	logProbs.give(j)
}

func (j *logProbJob) row(ws *workspace, i int) {
	t := j.block[i]
	z := j.logits(i)
	if j.softCap > 0 {
		capLogits(z, j.softCap)
	}
	at := float64(z[j.targets[t]])
	var e []float32
	if j.entropies != nil {
		e = ws.scratch(0, len(z))
	}
	s := softmaxOf(z, e, j.temperature)
	logSum, largest, temperature := math.Log1p(s.rest), float64(s.largest), float64(j.temperature)
	j.logProbs[t] = float32((at-largest)/temperature - logSum)
	j.lse[t] = float32(largest/temperature + logSum)
	if e != nil {
		j.entropies[t] = float32(logSum - s.mean)
	}
}

func logProbBackward(a tensor.LogProbBackward) {
	j := logProbBackwards.take()
	n := a.X.Rows()
	j.projection = openProjection(logProbBackwardNames, j, a.X, a.W, a.Targets, a.DX, a.DW)
	j.temperature, j.softCap = temperatureOf("LogProbBackward", a.Temperature), a.SoftCap
	vectorOf("LogProbBackward's LSE", a.LSE, n)
	if !a.DLogProbs.IsZero() {
		j.dLogProbs = vectorOf("LogProbBackward's DLogProbs", a.DLogProbs, n)
	}
	if !a.DEntropies.IsZero() {
		j.dEntropies = vectorOf("LogProbBackward's DEntropies", a.DEntropies, n)
		vectorOf("LogProbBackward's Entropies", a.Entropies, n)
	}
	for t, target := range j.targets {
		dl, dh := j.derivatives(t)
		j.count(t, target >= 0 && (dl != 0 || dh != 0))
	}
	for j.wantGrad() && j.next() {
	}
	j.close()
	*j = logProbBackwardJob{}
	logProbBackwards.give(j)
}

// derivatives are those by row t's log-probability and entropy.
func (j *logProbBackwardJob) derivatives(t int) (dl, dh float64) {
	if j.dLogProbs != nil {
		dl = float64(j.dLogProbs[t])
	}
	if j.dEntropies != nil {
		dh = float64(j.dEntropies[t])
	}
	return dl, dh
}

func (j *logProbBackwardJob) row(ws *workspace, i int) {
	t := int(j.block[i])
	target := int(j.targets[t])
	dl, dh := j.derivatives(t)
	z := j.logits(i)
	slope := 1.0
	var capped []float32
	if j.softCap > 0 {
		capLogits(z, j.softCap)
		slope = capSlope(z[target], j.softCap)
		capped = ws.scratch(1, len(z))
		copy(capped, z)
	}
	e := z
	if dh != 0 {
		e = ws.scratch(0, len(z))
	}
	s := softmaxOf(z, e, j.temperature)
	sum := 1 + s.rest
	others := sum - float64(e[target]) // s − E_a
	if target == s.top {
		others = s.rest
	}
	u, alpha, spread := dl, 1.0, 0.0 // spread: E_a·β·(D_a − μ)
	if dh != 0 {
		u = max(math.Abs(dl), math.Abs(dh))
		alpha = dl / u
		beta := dh / u
		spread = float64(e[target]) * beta * (float64(z[target]) - s.mean)
		vecMulScale(z, z, e, float32(beta))
		vecAxpy(z, e, float32(alpha-beta*s.mean))
	}
	if capped != nil {
		vecSoftCapGrad(z, z, capped, j.softCap, 1/(j.softCap*j.softCap))
	}
	temperature := float64(j.temperature)
	j.grads[i] = rowGrad{
		factor: float32(-u / (temperature * sum)),
		target: float32((spread - alpha*others) * slope),
		own:    float32(dl / temperature * slope),
	}
	if target == s.top && s.rest <= 1 {
		j.place(i)
	}
}

// softmaxed is what softmaxOf finds.
type softmaxed struct {
	largest float32 // m
	top     int
	rest    float64 // r
	mean    float64 // μ
}

// softmaxOf turns the logits z into D and e, which may be z itself, into E. Where
// e is other memory it gives the mean too. Without e it makes no E at all.
func softmaxOf(z, e []float32, temperature float32) softmaxed {
	var s softmaxed
	s.largest, s.top = largestOf(z)
	vecShiftScale(z, s.largest, inverse(temperature))
	// An infinite logit stays, and makes NaN of everything.
	exclude := s.top >= 0 && !math.IsInf(float64(s.largest), 1)
	if exclude {
		z[s.top] = -math.MaxFloat32 // e^z and z·e^z are 0
	}
	inPlace := e != nil && &e[0] == &z[0]
	weighted := 0.0
	for k := 0; k < len(z); k += sumRun {
		run := z[k:min(k+sumRun, len(z))]
		switch {
		case e == nil:
			s.rest += float64(vecSumExp(run, 0))
		case inPlace:
			s.rest += float64(vecExpSum(run, run, 0))
		default:
			er := e[k:][:len(run)]
			s.rest += float64(vecExpSum(er, run, 0))
			weighted += float64(vecDot(er, run))
		}
	}
	s.mean = weighted / (1 + s.rest)
	if exclude {
		z[s.top] = 0
		if e != nil {
			e[s.top] = 1
		}
	}
	return s
}

func temperatureOf(op string, t float32) float32 {
	if !(t > 0) {
		panic(fmt.Sprintf("cpu: %s at temperature %g; it must be above 0", op, t))
	}
	return t
}
