package ref

import (
	"math"

	"ringtail/tensor"
)

// layerNorm sets, for each row, s = x + delta, m = Σ_j s_j/H,
// r = 1/√(Σ_j (s_j − m)²/H + eps) and y_j = (s_j − m)·r·w_j + b_j.
func layerNorm(a tensor.LayerNorm) {
	rows, h := a.X.Rows(), a.X.Cols()
	x := matrixOf("LayerNorm's X", a.X, rows, h)
	y := matrixOf("LayerNorm's Y", a.Y, rows, h)
	w := vectorOf("LayerNorm's W", a.W, h)
	mean, rstd := vectorOf("LayerNorm's Mean", a.Mean, rows), vectorOf("LayerNorm's RStd", a.RStd, rows)
	bias := make([]float64, h)
	if !a.Bias.IsZero() {
		bias = vectorOf("LayerNorm's Bias", a.Bias, h)
	}
	residual := !a.Delta.IsZero()
	if residual != !a.Sum.IsZero() {
		panic("ref: LayerNorm takes Delta and Sum together")
	}
	s := make([]float64, h)
	for t := range rows {
		copy(s, x.row(t))
		if residual {
			axpy(s, 1, matrixOf("LayerNorm's Delta", a.Delta, rows, h).row(t))
			copy(matrixOf("LayerNorm's Sum", a.Sum, rows, h).row(t), s)
		}
		m := 0.0
		for _, v := range s {
			m += v
		}
		m /= float64(h)
		squares := 0.0
		for _, v := range s {
			squares += (v - m) * (v - m)
		}
		mean[t], rstd[t] = m, 1/math.Sqrt(squares/float64(h)+float64(a.Eps))
		for j := range s {
			y.row(t)[j] = (s[j]-m)*rstd[t]*w[j] + bias[j]
		}
	}
}

// layerNormBackward: with n_j = (s_j − m)·r (the normalised row) and g_j = dy_j·w_j,
//
//	dw_j += Σ_t dy_j·n_j,  db_j += Σ_t dy_j
//	dx_j = r·(g_j − Σ_i g_i/H − n_j·Σ_i g_i·n_i/H) + dsum_j
//
// since ∂m/∂s_j = 1/H and ∂r/∂s_j = −r³·(s_j − m)/H.
func layerNormBackward(a tensor.LayerNormBackward) {
	rows, h := a.S.Rows(), a.S.Cols()
	s := matrixOf("LayerNormBackward's S", a.S, rows, h)
	dx := matrixOf("LayerNormBackward's DX", a.DX, rows, h)
	dy := matrixOf("LayerNormBackward's DY", a.DY, rows, h)
	w := vectorOf("LayerNormBackward's W", a.W, h)
	mean, rstd := vectorOf("LayerNormBackward's Mean", a.Mean, rows), vectorOf("LayerNormBackward's RStd", a.RStd, rows)
	var dw, db []float64
	if !a.DW.IsZero() {
		dw = vectorOf("LayerNormBackward's DW", a.DW, h)
	}
	if !a.DBias.IsZero() {
		db = vectorOf("LayerNormBackward's DBias", a.DBias, h)
	}
	n, g := make([]float64, h), make([]float64, h)
	for t := range rows {
		sum, dot := 0.0, 0.0
		for j := range h {
			n[j] = (s.row(t)[j] - mean[t]) * rstd[t]
			g[j] = dy.row(t)[j] * w[j]
			sum += g[j]
			dot += g[j] * n[j]
			if dw != nil {
				dw[j] += dy.row(t)[j] * n[j]
			}
			if db != nil {
				db[j] += dy.row(t)[j]
			}
		}
		for j := range h {
			d := rstd[t] * (g[j] - sum/float64(h) - n[j]*dot/float64(h))
			if !a.DSum.IsZero() {
				d += matrixOf("LayerNormBackward's DSum", a.DSum, rows, h).row(t)[j]
			}
			if a.Accumulate {
				d += dx.row(t)[j]
			}
			dx.row(t)[j] = d
		}
	}
}
