package ref

import (
	"math"

	"ringtail/tensor"
)

// rmsNorm sets, for each row, s = x + delta, r = 1/√(Σ_j s_j²/H + eps) and
// y_j = s_j·r·(w_j + WOffset).
func rmsNorm(a tensor.RMSNorm) {
	rows, h := a.X.Rows(), a.X.Cols()
	x := matrixOf("RMSNorm's X", a.X, rows, h)
	y := matrixOf("RMSNorm's Y", a.Y, rows, h)
	w := vectorOf("RMSNorm's W", a.W, h)
	rstd := vectorOf("RMSNorm's RStd", a.RStd, rows)
	var delta, sum matrix
	residual := !a.Delta.IsZero()
	if residual != !a.Sum.IsZero() {
		panic("ref: RMSNorm takes Delta and Sum together")
	}
	if residual {
		delta = matrixOf("RMSNorm's Delta", a.Delta, rows, h)
		sum = matrixOf("RMSNorm's Sum", a.Sum, rows, h)
	}
	s := make([]float64, h)
	for t := range rows {
		copy(s, x.row(t))
		if residual {
			for j := range s {
				s[j] += delta.row(t)[j]
			}
			copy(sum.row(t), s)
		}
		squares := 0.0
		for _, v := range s {
			squares += v * v
		}
		rstd[t] = 1 / math.Sqrt(squares/float64(h)+float64(a.Eps))
		for j := range s {
			y.row(t)[j] = s[j] * rstd[t] * (w[j] + float64(a.WOffset))
		}
	}
}

// rmsNormBackward: with n_j = s_j·r (the normalised row) and
// g_j = dy_j·(w_j + WOffset),
//
//	dw_j += Σ_t dy_j·n_j
//	dx_j = r·(g_j − n_j·Σ_i g_i·n_i / H) + dsum_j
//
// since ∂r/∂s_j = −r³·s_j/H.
func rmsNormBackward(a tensor.RMSNormBackward) {
	rows, h := a.S.Rows(), a.S.Cols()
	s := matrixOf("RMSNormBackward's S", a.S, rows, h)
	var dx matrix
	if !a.DX.IsZero() {
		dx = matrixOf("RMSNormBackward's DX", a.DX, rows, h)
	}
	dy := matrixOf("RMSNormBackward's DY", a.DY, rows, h)
	w := vectorOf("RMSNormBackward's W", a.W, h)
	rstd := vectorOf("RMSNormBackward's RStd", a.RStd, rows)
	var dw []float64
	if !a.DW.IsZero() {
		dw = vectorOf("RMSNormBackward's DW", a.DW, h)
	}
	var dsum matrix
	if !a.DSum.IsZero() {
		dsum = matrixOf("RMSNormBackward's DSum", a.DSum, rows, h)
	}
	for t := range rows {
		r := rstd[t]
		dot := 0.0
		for j := range h {
			n := s.row(t)[j] * r
			dot += dy.row(t)[j] * (w[j] + float64(a.WOffset)) * n
			if dw != nil {
				dw[j] += dy.row(t)[j] * n
			}
		}
		if a.DX.IsZero() {
			continue
		}
		for j := range h {
			n := s.row(t)[j] * r
			g := dy.row(t)[j] * (w[j] + float64(a.WOffset))
			d := r * (g - n*dot/float64(h))
			if !a.DSum.IsZero() {
				d += dsum.row(t)[j]
			}
			if a.Accumulate {
				d += dx.row(t)[j]
			}
			dx.row(t)[j] = d
		}
	}
}
