package ref

import (
	"math"

	"ringtail/tensor"
)

// crossEntropy is, for each row t with target y ≥ 0 and logits z = cap(W·x_t):
//
//	loss = −z_y + log Σ_v exp(z_v)
//	dz_v = Scale·(softmax(z)_v − [v = y])·cap'
//	dx_t = Σ_v dz_v·W_v,  dW_v += dz_v·x_t
//
// Among equal largest logits the lowest id counts as the prediction; a cap, which
// keeps their order, must not make equals of them by rounding.
func crossEntropy(a tensor.CrossEntropy) {
	rows, h, vocab := a.X.Rows(), a.X.Cols(), a.W.Rows()
	loss := vectorOf("CrossEntropy's Loss", a.Loss, 3)
	x := matrixOf("CrossEntropy's X", a.X, rows, h)
	w := matrixOf("CrossEntropy's W", a.W, vocab, h)
	targets := intsOf("CrossEntropy's Targets", a.Targets, rows)
	var dx, dw matrix
	scale := 0.0
	if !a.DX.IsZero() {
		dx = matrixOf("CrossEntropy's DX", a.DX, rows, h)
		zero(a.DX)
	}
	if !a.DW.IsZero() {
		dw = matrixOf("CrossEntropy's DW", a.DW, vocab, h)
	}
	if !a.DX.IsZero() || !a.DW.IsZero() {
		scale = vectorOf("CrossEntropy's Scale", a.Scale, 1)[0]
	}
	products, z, slopes := make([]float64, vocab), make([]float64, vocab), make([]float64, vocab)
	for t := range rows {
		if targets[t] < 0 {
			continue
		}
		target := index("target", targets[t], vocab)
		for v := range z {
			products[v] = dot(x.row(t), w.row(v))
			z[v], slopes[v] = capped(products[v], a.SoftCap)
		}
		lse := logSumExp(z)
		loss[0] += lse - z[target]
		loss[1]++
		if argmax(products) == target {
			loss[2]++
		}
		for v := range z {
			dz := math.Exp(z[v] - lse)
			if v == target {
				dz--
			}
			dz *= slopes[v]
			if !a.DX.IsZero() {
				axpy(dx.row(t), scale*dz, w.row(v))
			}
			if !a.DW.IsZero() {
				axpy(dw.row(v), scale*dz, x.row(t))
			}
		}
	}
}

// capped is limit·tanh(z/limit) and its derivative; z and 1 with a limit of 0.
func capped(z float64, limit float32) (y, slope float64) {
	if limit <= 0 {
		return z, 1
	}
	th := math.Tanh(z / float64(limit))
	return float64(limit) * th, 1 - th*th
}

// logSumExp is log Σ exp(z), without overflow.
func logSumExp(z []float64) float64 {
	largest := math.Inf(-1)
	for _, v := range z {
		largest = max(largest, v)
	}
	if math.IsInf(largest, 0) {
		return largest // −∞ − (−∞) would be NaN
	}
	sum := 0.0
	for _, v := range z {
		sum += math.Exp(v - largest)
	}
	return largest + math.Log(sum)
}

// argmax is the lowest index of a largest element; −1 if no element is a number
// above −∞.
func argmax(z []float64) int {
	best, at := math.Inf(-1), -1
	for i, v := range z {
		if v > best {
			best, at = v, i
		}
	}
	return at
}
