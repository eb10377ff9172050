package ref

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// logProb is, for each row t with target a ≥ 0, z = cap(W·x_t)/Temperature and
// p = softmax(z):
//
//	lse = log Σ_j exp(z_j),  logprob = z_a − lse,  entropy = −Σ_j p_j·log p_j
func logProb(a tensor.LogProb) {
	n := a.X.Rows()
	r := scoredRowsOf("LogProb", a.X, a.W, a.Targets, a.Temperature, a.SoftCap)
	logProbs, lses := vectorOf("LogProb's LogProbs", a.LogProbs, n), vectorOf("LogProb's LSE", a.LSE, n)
	entropies := make([]float64, n)
	if !a.Entropies.IsZero() {
		entropies = vectorOf("LogProb's Entropies", a.Entropies, n)
	}
	for t := range n {
		logProbs[t], lses[t], entropies[t] = 0, 0, 0
		if r.targets[t] < 0 {
			continue
		}
		target, z := r.logits(t)
		lses[t] = logSumExp(z)
		logProbs[t], entropies[t] = z[target]-lses[t], entropy(z, lses[t])
	}
}

// logProbBackward sets, for each row t with target a ≥ 0 and the derivatives dl
// and dh of its log-probability and entropy h,
//
//	dz_j = (dl·([j = a] − p_j) − dh·p_j·(log p_j + h))·cap' / Temperature
//	dx_t = Σ_j dz_j·W_j,  dW_j += dz_j·x_t
//
// It computes log Σ exp(z) and h anew, so as to be no worse where a device has
// rounded them.
func logProbBackward(a tensor.LogProbBackward) {
	n, hidden, vocab := a.X.Rows(), a.X.Cols(), a.W.Rows()
	r := scoredRowsOf("LogProbBackward", a.X, a.W, a.Targets, a.Temperature, a.SoftCap)
	vectorOf("LogProbBackward's LSE", a.LSE, n)
	dl, dh := make([]float64, n), make([]float64, n)
	if !a.DLogProbs.IsZero() {
		dl = vectorOf("LogProbBackward's DLogProbs", a.DLogProbs, n)
	}
	if !a.DEntropies.IsZero() {
		dh = vectorOf("LogProbBackward's DEntropies", a.DEntropies, n)
		vectorOf("LogProbBackward's Entropies", a.Entropies, n)
	}
	var dx, dw matrix
	if !a.DX.IsZero() {
		dx = matrixOf("LogProbBackward's DX", a.DX, n, hidden)
		zero(a.DX)
	}
	if !a.DW.IsZero() {
		dw = matrixOf("LogProbBackward's DW", a.DW, vocab, hidden)
	}
	for t := range n {
		if r.targets[t] < 0 || dl[t] == 0 && dh[t] == 0 {
			continue
		}
		target, z := r.logits(t)
		lse := logSumExp(z)
		h := entropy(z, lse)
		for j := range z {
			dz := 0.0
			if p := math.Exp(z[j] - lse); p != 0 { // else 0·log 0, whose limit is 0
				dz = -p * (dl[t] + dh[t]*(z[j]-lse+h))
			}
			if j == target {
				dz += dl[t]
			}
			dz *= r.slopes[j] / float64(a.Temperature)
			if !a.DX.IsZero() {
				axpy(dx.row(t), dz, r.w.row(j))
			}
			if !a.DW.IsZero() {
				axpy(dw.row(j), dz, r.x.row(t))
			}
		}
	}
}

// entropy is −Σ p·log p, with log p = z − lse.
func entropy(z []float64, lse float64) float64 {
	h := 0.0
	for _, v := range z {
		if p := math.Exp(v - lse); p != 0 {
			h -= p * (v - lse)
		}
	}
	return h
}

// scoredRows are the rows of X, projected one at a time.
type scoredRows struct {
	x, w        matrix
	targets     []int32
	temperature float64
	softCap     float32
	z, slopes   []float64
}

func scoredRowsOf(op string, x, w, targets tensor.Tensor, temperature, softCap float32) *scoredRows {
	if !(temperature > 0) {
		panic(fmt.Sprintf("ref: %s at temperature %g; it must be above 0", op, temperature))
	}
	n, h, vocab := x.Rows(), x.Cols(), w.Rows()
	return &scoredRows{matrixOf(op+"'s X", x, n, h), matrixOf(op+"'s W", w, vocab, h), intsOf(op+"'s Targets", targets, n),
		float64(temperature), softCap, make([]float64, vocab), make([]float64, vocab)}
}

// logits is the target of row t and the row's logits over the temperature, until
// the next call.
func (r *scoredRows) logits(t int) (target int, z []float64) {
	for v := range r.z {
		r.z[v], r.slopes[v] = capped(dot(r.x.row(t), r.w.row(v)), r.softCap)
		r.z[v] /= r.temperature
	}
	return index("target", r.targets[t], len(r.z)), r.z
}
