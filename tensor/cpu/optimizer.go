package cpu

import (
	"math"

	"ringtail/tensor"
)

// clipFactor sets the gradients' norm, the factor that clips it to MaxNorm, and
// whether the step is to be skipped; it counts the others.
func clipFactor(a tensor.ClipFactor) {
	step := doublesOf("ClipFactor's Step", a.Step, tensor.StepSize)
	norm := math.Sqrt(step[tensor.StepSumSquares])
	step[tensor.StepGradNorm] = norm
	step[tensor.StepClip] = 1
	if a.MaxNorm > 0 {
		step[tensor.StepClip] = min(1, a.MaxNorm/(norm+1e-6))
	}
	finite := isFinite(norm)
	if !a.Check.IsZero() {
		rows, cols := a.Check.Rows(), a.Check.Cols()
		check := a.Check.Float64()
		for i := range rows {
			for j := range cols {
				finite = finite && isFinite(check[i*a.Check.Stride+j])
			}
		}
	}
	counts := a.Beta1 != 0 || a.Beta2 != 0
	if counts {
		n := step[tensor.StepUpdates] + 1
		step[tensor.StepBias1], step[tensor.StepBias2] = 1-math.Pow(a.Beta1, n), 1-math.Pow(a.Beta2, n)
	}
	step[tensor.StepSkip] = 0
	switch {
	case !finite:
		step[tensor.StepSkip] = 1
		step[tensor.StepSkipped]++
	case counts:
		step[tensor.StepUpdates]++
	}
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

type adamWJob struct {
	p, m, v, g                                               []float32
	param                                                    []float32 // nil: p
	clip, decay, beta1, rest1, beta2, rest2, rate, root, eps float32
}

var adamWJobs freeList[adamWJob]

// adamW is one pass over parameters, gradients and moments: 16 bytes read and 12
// written a parameter. Factors that are the same for all parameters are worked
// out in float64. Master, which has Param's type here, is copied to it; Stochastic
// is for narrower types.
func adamW(a tensor.AdamW) {
	step := doublesOf("AdamW's Step", a.Step, tensor.StepSize)
	n := a.Param.Len()
	j := adamWJobs.take()
	j.p, j.g = vectorOf("AdamW's Param", a.Param, n), vectorOf("AdamW's Grad", a.Grad, n)
	j.m, j.v = vectorOf("AdamW's M", a.M, n), vectorOf("AdamW's V", a.V, n)
	if !a.Master.IsZero() {
		j.p, j.param = vectorOf("AdamW's Master", a.Master, n), j.p
	}
	lr := step[tensor.StepLR]
	j.clip, j.decay = float32(step[tensor.StepClip]), float32(lr*a.WeightDecay)
	j.beta1, j.rest1 = float32(a.Beta1), float32(1-a.Beta1)
	j.beta2, j.rest2 = float32(a.Beta2), float32(1-a.Beta2)
	j.rate, j.root = float32(lr/step[tensor.StepBias1]), float32(1/math.Sqrt(step[tensor.StepBias2]))
	j.eps = float32(a.Eps)
	if step[tensor.StepSkip] == 0 {
		parallel(tasksOf(n, lightGrain), j)
	}
	*j = adamWJob{}
	adamWJobs.give(j)
}

func (j *adamWJob) run(_ *workspace, task int) {
	from, to := task*lightGrain, min((task+1)*lightGrain, len(j.p))
	vecAdamW(j.p[from:to], j.m[from:to], j.v[from:to], j.g[from:to],
		j.clip, j.decay, j.beta1, j.rest1, j.beta2, j.rest2, j.rate, j.root, j.eps)
	if j.param != nil {
		copy(j.param[from:to], j.p[from:to])
	}
}
