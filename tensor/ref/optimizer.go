package ref

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// sumSquares sets out[0] += Σ x².
func sumSquares(out, x tensor.Tensor) {
	if out.Dtype != tensor.F64 || out.Len() < 1 {
		panic(fmt.Sprintf("ref: SumSquares' out is %v; it must be F64 of one element or more", out))
	}
	m := matrixOf("SumSquares' x", x, x.Rows(), x.Cols())
	for i := range m.rows {
		for _, v := range m.row(i) {
			out.Float64()[0] += v * v
		}
	}
}

// clipFactor sets norm = √(Σ g²) and clip = min(1, MaxNorm/(norm + 1e-6)), and
// marks the step as one to skip where the norm or one of Check is not finite. With
// Beta1 and Beta2 it counts those that aren't, and sets bias = 1 − β^t for the t-th.
func clipFactor(a tensor.ClipFactor) {
	step := vectorOf("ClipFactor's Step", a.Step, tensor.StepSize)
	norm := math.Sqrt(step[tensor.StepSumSquares])
	step[tensor.StepGradNorm] = norm
	step[tensor.StepClip] = 1
	if a.MaxNorm > 0 {
		step[tensor.StepClip] = min(1, a.MaxNorm/(norm+1e-6))
	}
	finite := isFinite(norm)
	if !a.Check.IsZero() {
		check := matrixOf("ClipFactor's Check", a.Check, a.Check.Rows(), a.Check.Cols())
		for i := range check.rows {
			for _, v := range check.row(i) {
				finite = finite && isFinite(v)
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

// adamW is Adam with decoupled weight decay, on g = Grad·clip:
//
//	p = p − lr·λ·p
//	m = β1·m + (1−β1)·g
//	v = β2·v + (1−β2)·g²
//	p = p − lr·(m/bias1)/(√(v/bias2) + ε)
//
// where p is Master, which Param then copies, or Param itself. In float64 there is
// nothing that Stochastic could round.
func adamW(a tensor.AdamW) {
	n := a.Param.Len()
	param := vectorOf("AdamW's Param", a.Param, n)
	p := param
	if !a.Master.IsZero() {
		p = vectorOf("AdamW's Master", a.Master, n)
	}
	grad := vectorOf("AdamW's Grad", a.Grad, n)
	m := vectorOf("AdamW's M", a.M, n)
	v := vectorOf("AdamW's V", a.V, n)
	step := vectorOf("AdamW's Step", a.Step, tensor.StepSize)
	if step[tensor.StepSkip] != 0 {
		return
	}
	lr, bias1, bias2 := step[tensor.StepLR], step[tensor.StepBias1], step[tensor.StepBias2]
	beta1, beta2 := a.Beta1, a.Beta2
	for i := range n {
		g := grad[i] * step[tensor.StepClip]
		p[i] -= lr * a.WeightDecay * p[i]
		m[i] = beta1*m[i] + (1-beta1)*g
		v[i] = beta2*v[i] + (1-beta2)*g*g
		p[i] -= lr * (m[i] / bias1) / (math.Sqrt(v[i]/bias2) + a.Eps)
		param[i] = p[i]
	}
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
