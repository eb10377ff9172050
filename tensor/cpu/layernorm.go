package cpu

import (
	"math"

	"ringtail/tensor"
)

// LayerNorm and its gradients. With s a row, m its mean, w the weights, r = RStd,
// n = (s − m)·r and g = dy·w:
//
//	y_j  = n_j·w_j + b_j,  r = 1/√(Σ (s − m)²/H + ε)
//	dw_j = Σ_t dy_j·n_j,  db_j = Σ_t dy_j
//	dx_j = (g_j − Σ g/H − n_j·(Σ g·n)/H)·r
//
// The mean is summed in float64 and subtracted as two float32: a row of large
// numbers that hardly differ (of equal ones, at worst) would else be mostly the
// rounding of its mean. The squares are summed in float64 so that no row that has a
// mean overflows. A row is read three times, the later ones from the first-level cache.

type layerNormJob struct {
	y, x, delta, sum    rows
	w, bias, mean, rstd []float32
	n, cols, grain      int
	eps                 float32
}

var layerNormJobs freeList[layerNormJob]

func layerNorm(a tensor.LayerNorm) {
	j := layerNormJobs.take()
	n, cols := a.X.Rows(), a.X.Cols()
	j.n, j.cols, j.eps = n, cols, a.Eps
	j.x, j.y = rowsOf("LayerNorm's X", a.X, n, cols), rowsOf("LayerNorm's Y", a.Y, n, cols)
	j.w = vectorOf("LayerNorm's W", a.W, cols)
	j.mean, j.rstd = vectorOf("LayerNorm's Mean", a.Mean, n), vectorOf("LayerNorm's RStd", a.RStd, n)
	if !a.Bias.IsZero() {
		j.bias = vectorOf("LayerNorm's Bias", a.Bias, cols)
	}
	if a.Delta.IsZero() != a.Sum.IsZero() {
		panic("cpu: LayerNorm takes Delta and Sum together")
	}
	if !a.Delta.IsZero() {
		j.delta, j.sum = rowsOf("LayerNorm's Delta", a.Delta, n, cols), rowsOf("LayerNorm's Sum", a.Sum, n, cols)
	}
	j.grain = max(1, normGrain/max(cols, 1))
	if cols > 0 {
		parallel(tasksOf(n, j.grain), j)
	}
	*j = layerNormJob{}
	layerNormJobs.give(j)
}

func (j *layerNormJob) run(_ *workspace, task int) {
	for t := task * j.grain; t < min((task+1)*j.grain, j.n); t++ {
		s := j.x.row(t, j.cols)
		var total float64
		if j.delta.data != nil {
			sum := j.sum.row(t, j.cols)
			total = vecAddSum(sum, s, j.delta.row(t, j.cols))
			s = sum
		} else {
			total = vecSum(s)
		}
		mean := total / float64(j.cols)
		m := float32(mean)
		low := float32(mean - float64(m))
		r := float32(1 / math.Sqrt(vecSquaresFrom(s, m, low)/float64(j.cols)+float64(j.eps)))
		j.mean[t], j.rstd[t] = m, r
		if y := j.y.row(t, j.cols); j.bias != nil {
			vecLayerNormBias(y, s, j.w, j.bias, m, low, r)
		} else {
			vecLayerNorm(y, s, j.w, m, low, r)
		}
	}
}

type layerNormGradJob struct {
	step                     normGradStep
	dx, dy, dsum, s          rows
	w, mean, rstd, dw, dbias []float32
	partW, partB             floats // [blocks][cols], where dw and dbias are asked for
	n, cols, grain           int
	blocks                   int
	accumulate               bool
}

var layerNormGradJobs freeList[layerNormGradJob]

func layerNormBackward(a tensor.LayerNormBackward) {
	j := layerNormGradJobs.take()
	n, cols := a.S.Rows(), a.S.Cols()
	j.n, j.cols, j.accumulate = n, cols, a.Accumulate
	j.dx, j.dy = rowsOf("LayerNormBackward's DX", a.DX, n, cols), rowsOf("LayerNormBackward's DY", a.DY, n, cols)
	j.s, j.w = rowsOf("LayerNormBackward's S", a.S, n, cols), vectorOf("LayerNormBackward's W", a.W, cols)
	j.mean, j.rstd = vectorOf("LayerNormBackward's Mean", a.Mean, n), vectorOf("LayerNormBackward's RStd", a.RStd, n)
	if !a.DSum.IsZero() {
		j.dsum = rowsOf("LayerNormBackward's DSum", a.DSum, n, cols)
	}
	j.grain = normBlock(n, cols)
	j.blocks = tasksOf(n, j.grain)
	if !a.DW.IsZero() {
		j.dw = vectorOf("LayerNormBackward's DW", a.DW, cols)
		j.partW.grow(j.blocks * cols)
	}
	if !a.DBias.IsZero() {
		j.dbias = vectorOf("LayerNormBackward's DBias", a.DBias, cols)
		j.partB.grow(j.blocks * cols)
	}
	if n > 0 && cols > 0 {
		j.step = normGradRows
		parallel(j.blocks, j)
		if j.dw != nil || j.dbias != nil {
			j.step = normGradWeights
			parallel(tasksOf(cols, sumStrip), j)
		}
	}
	*j = layerNormGradJob{partW: j.partW, partB: j.partB}
	layerNormGradJobs.give(j)
}

func (j *layerNormGradJob) run(_ *workspace, task int) {
	if j.step == normGradWeights {
		if j.dw != nil {
			addParts(j.dw, j.partW, j.blocks, task)
		}
		if j.dbias != nil {
			addParts(j.dbias, j.partB, j.blocks, task)
		}
		return
	}
	var partW, partB []float32
	if j.dw != nil {
		partW = j.partW[task*j.cols:][:j.cols]
		clear(partW)
	}
	if j.dbias != nil {
		partB = j.partB[task*j.cols:][:j.cols]
		clear(partB)
	}
	for t := task * j.grain; t < min((task+1)*j.grain, j.n); t++ {
		j.row(t, partW, partB)
	}
}

// row computes dx of one token and adds its share of dw and dbias to the parts that
// are not nil.
func (j *layerNormGradJob) row(t int, partW, partB []float32) {
	dy, s, m, r := j.dy.row(t, j.cols), j.s.row(t, j.cols), j.mean[t], j.rstd[t]
	mg := vecDot(dy, j.w) / float32(j.cols)
	var dot float32
	if partW != nil {
		dot = vecLayerDotWeight(partW, dy, s, j.w, m, r)
	} else {
		dot = vecLayerDot(dy, s, j.w, m, r)
	}
	if partB != nil {
		vecAdd(partB, partB, dy)
	}
	mgn := dot / float32(j.cols)
	dx := j.dx.row(t, j.cols)
	if base := gradBase(dx, j.dsum, t, j.accumulate); base != nil {
		vecLayerGradAdd(dx, base, dy, s, j.w, m, r, mg, mgn)
	} else {
		vecLayerGrad(dx, dy, s, j.w, m, r, mg, mgn)
	}
}
