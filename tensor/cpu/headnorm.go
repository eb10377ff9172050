package cpu

import (
	"math"

	"ringtail/tensor"
)

// HeadNorm and its gradients: RMSNorm (norm.go) of each query and key head of
// attention's rows, with the weights of its kind. A task is a block of tokens.

// headRows is what both passes know of their rows.
type headRows struct {
	wq, wk             []float32 // WOffset added
	shiftedQ, shiftedK floats
	rstd               rows // [T, heads]
	n, dim             int
	queries, heads     int // query heads; query and key heads
	width, normalised  int // columns; those of query and key heads
	grain              int
}

func (h *headRows) set(n, queries, keys, dim int) {
	h.n, h.dim, h.queries, h.heads = n, dim, queries, queries+keys
	h.width, h.normalised = (queries+2*keys)*dim, (queries+keys)*dim
}

// weights are those of head i.
func (h *headRows) weights(i int) []float32 {
	if i < h.queries {
		return h.wq
	}
	return h.wk
}

type headNormJob struct {
	headRows
	y, x rows
	eps  float32
}

var headNormJobs freeList[headNormJob]

func headNorm(a tensor.HeadNorm) {
	j := headNormJobs.take()
	j.set(a.X.Rows(), a.Heads, a.KVHeads, a.HeadDim)
	j.x, j.y = rowsOf("HeadNorm's X", a.X, j.n, j.width), rowsOf("HeadNorm's Y", a.Y, j.n, j.width)
	j.wq = shiftedBy(&j.shiftedQ, vectorOf("HeadNorm's WQ", a.WQ, j.dim), a.WOffset)
	j.wk = shiftedBy(&j.shiftedK, vectorOf("HeadNorm's WK", a.WK, j.dim), a.WOffset)
	j.rstd, j.eps = rowsOf("HeadNorm's RStd", a.RStd, j.n, j.heads), a.Eps
	j.grain = max(1, normGrain/max(j.width, 1))
	if j.width > 0 {
		parallel(tasksOf(j.n, j.grain), j)
	}
	*j = headNormJob{headRows: headRows{shiftedQ: j.shiftedQ, shiftedK: j.shiftedK}}
	headNormJobs.give(j)
}

func (j *headNormJob) run(_ *workspace, task int) {
	for t := task * j.grain; t < min((task+1)*j.grain, j.n); t++ {
		x, y, rstd := j.x.row(t, j.width), j.y.row(t, j.width), j.rstd.row(t, j.heads)
		for h := range rstd {
			in := x[h*j.dim:][:j.dim]
			r := float32(1 / math.Sqrt(float64(vecDot(in, in))/float64(j.dim)+float64(j.eps)))
			rstd[h] = r
			vecMulScale(y[h*j.dim:][:j.dim], in, j.weights(h), r)
		}
		copy(y[j.normalised:], x[j.normalised:])
	}
}

type headNormGradJob struct {
	headRows
	step         normGradStep
	dx, dy, x    rows
	dwq, dwk     []float32
	partQ, partK floats // [blocks][dim], where dwq and dwk are asked for
	blocks       int
}

var headNormGradJobs freeList[headNormGradJob]

func headNormBackward(a tensor.HeadNormBackward) {
	j := headNormGradJobs.take()
	j.set(a.X.Rows(), a.Heads, a.KVHeads, a.HeadDim)
	j.dx, j.dy = rowsOf("HeadNormBackward's DX", a.DX, j.n, j.width), rowsOf("HeadNormBackward's DY", a.DY, j.n, j.width)
	j.x, j.rstd = rowsOf("HeadNormBackward's X", a.X, j.n, j.width), rowsOf("HeadNormBackward's RStd", a.RStd, j.n, j.heads)
	j.wq = shiftedBy(&j.shiftedQ, vectorOf("HeadNormBackward's WQ", a.WQ, j.dim), a.WOffset)
	j.wk = shiftedBy(&j.shiftedK, vectorOf("HeadNormBackward's WK", a.WK, j.dim), a.WOffset)
	j.grain = normBlock(j.n, j.width)
	j.blocks = tasksOf(j.n, j.grain)
	if !a.DWQ.IsZero() {
		j.dwq = vectorOf("HeadNormBackward's DWQ", a.DWQ, j.dim)
		j.partQ.grow(j.blocks * j.dim)
	}
	if !a.DWK.IsZero() {
		j.dwk = vectorOf("HeadNormBackward's DWK", a.DWK, j.dim)
		j.partK.grow(j.blocks * j.dim)
	}
	if j.n > 0 && j.width > 0 {
		j.step = normGradRows
		parallel(j.blocks, j)
		if j.dwq != nil || j.dwk != nil {
			j.step = normGradWeights
			parallel(tasksOf(j.dim, sumStrip), j)
		}
	}
	*j = headNormGradJob{headRows: headRows{shiftedQ: j.shiftedQ, shiftedK: j.shiftedK}, partQ: j.partQ, partK: j.partK}
	headNormGradJobs.give(j)
}

func (j *headNormGradJob) run(_ *workspace, task int) {
	if j.step == normGradWeights {
		if j.dwq != nil {
			addParts(j.dwq, j.partQ, j.blocks, task)
		}
		if j.dwk != nil {
			addParts(j.dwk, j.partK, j.blocks, task)
		}
		return
	}
	var partQ, partK []float32
	if j.dwq != nil {
		partQ = j.partQ[task*j.dim:][:j.dim]
		clear(partQ)
	}
	if j.dwk != nil {
		partK = j.partK[task*j.dim:][:j.dim]
		clear(partK)
	}
	for t := task * j.grain; t < min((task+1)*j.grain, j.n); t++ {
		j.row(t, partQ, partK)
	}
}

// row computes dx of one token and adds its heads' shares of dwq and dwk to the
// parts that are not nil.
func (j *headNormGradJob) row(t int, partQ, partK []float32) {
	x, dx, dy, rstd := j.x.row(t, j.width), j.dx.row(t, j.width), j.dy.row(t, j.width), j.rstd.row(t, j.heads)
	for h, r := range rstd {
		s, up, w, part := x[h*j.dim:][:j.dim], dy[h*j.dim:][:j.dim], j.weights(h), partQ
		if h >= j.queries {
			part = partK
		}
		var dot float32
		if part != nil {
			dot = vecNormDotWeight(part, up, s, w, r)
		} else {
			dot = vecNormDot(up, s, w)
		}
		k := float32(float64(r) * float64(r) * float64(r) * float64(dot) / float64(j.dim))
		vecNormGrad(dx[h*j.dim:][:j.dim], up, s, w, r, k)
	}
	copy(dx[j.normalised:], dy[j.normalised:])
}
