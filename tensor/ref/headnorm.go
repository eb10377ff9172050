package ref

import (
	"math"

	"ringtail/tensor"
)

// headNorm is rmsNorm of each query and key head by itself; values are copied.
func headNorm(a tensor.HeadNorm) {
	rows, d := a.X.Rows(), a.HeadDim
	width := (a.Heads + 2*a.KVHeads) * d
	x, y := matrixOf("HeadNorm's X", a.X, rows, width), matrixOf("HeadNorm's Y", a.Y, rows, width)
	wq, wk := vectorOf("HeadNorm's WQ", a.WQ, d), vectorOf("HeadNorm's WK", a.WK, d)
	rstd := matrixOf("HeadNorm's RStd", a.RStd, rows, a.Heads+a.KVHeads)
	for t := range rows {
		copy(y.row(t)[(a.Heads+a.KVHeads)*d:], x.row(t)[(a.Heads+a.KVHeads)*d:])
		for h := range a.Heads + a.KVHeads {
			w := wq
			if h >= a.Heads {
				w = wk
			}
			in, out := x.row(t)[h*d:][:d], y.row(t)[h*d:][:d]
			r := 1 / math.Sqrt(dot(in, in)/float64(d)+float64(a.Eps))
			rstd.row(t)[h] = r
			for j := range d {
				out[j] = in[j] * r * (w[j] + float64(a.WOffset))
			}
		}
	}
}

// headNormBackward is rmsNormBackward of each query and key head by itself.
func headNormBackward(a tensor.HeadNormBackward) {
	rows, d := a.X.Rows(), a.HeadDim
	width := (a.Heads + 2*a.KVHeads) * d
	x, dx := matrixOf("HeadNormBackward's X", a.X, rows, width), matrixOf("HeadNormBackward's DX", a.DX, rows, width)
	dy := matrixOf("HeadNormBackward's DY", a.DY, rows, width)
	wq, wk := vectorOf("HeadNormBackward's WQ", a.WQ, d), vectorOf("HeadNormBackward's WK", a.WK, d)
	rstd := matrixOf("HeadNormBackward's RStd", a.RStd, rows, a.Heads+a.KVHeads)
	var dwq, dwk []float64
	if !a.DWQ.IsZero() {
		dwq = vectorOf("HeadNormBackward's DWQ", a.DWQ, d)
	}
	if !a.DWK.IsZero() {
		dwk = vectorOf("HeadNormBackward's DWK", a.DWK, d)
	}
	for t := range rows {
		copy(dx.row(t)[(a.Heads+a.KVHeads)*d:], dy.row(t)[(a.Heads+a.KVHeads)*d:])
		for h := range a.Heads + a.KVHeads {
			w, dw := wq, dwq
			if h >= a.Heads {
				w, dw = wk, dwk
			}
			in, up, out := x.row(t)[h*d:][:d], dy.row(t)[h*d:][:d], dx.row(t)[h*d:][:d]
			r := rstd.row(t)[h]
			mean := 0.0
			for j := range d {
				mean += up[j] * (w[j] + float64(a.WOffset)) * in[j] * r / float64(d)
				if dw != nil {
					dw[j] += up[j] * in[j] * r
				}
			}
			for j := range d {
				out[j] = r * (up[j]*(w[j]+float64(a.WOffset)) - in[j]*r*mean)
			}
		}
	}
}
