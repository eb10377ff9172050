package cpu

import (
	"math"

	"ringtail/tensor"
)

// RMSNorm and its gradients. With s a row, w the weights (WOffset added) and r = RStd:
//
//	y_j  = s_j·r·w_j,  r = 1/√(Σ s²/H + ε)
//	dw_j = Σ_t dy_j·s_j·r
//	dx_j = dy_j·w_j·r − s_j·r³·(Σ_i dy_i·w_i·s_i)/H
//
// A row is read twice, the second time from the first-level cache.

// normGrain is about how many elements a task has.
const normGrain = 8 << 10

type normJob struct {
	y, x, delta, sum rows
	w, rstd          []float32
	shifted          floats // w + WOffset
	n, cols, grain   int
	eps              float32
}

var normJobs freeList[normJob]

func rmsNorm(a tensor.RMSNorm) {
	j := normJobs.take()
	n, cols := a.X.Rows(), a.X.Cols()
	j.n, j.cols, j.eps = n, cols, a.Eps
	j.x, j.y = rowsOf("RMSNorm's X", a.X, n, cols), rowsOf("RMSNorm's Y", a.Y, n, cols)
	j.w, j.rstd = shiftedBy(&j.shifted, vectorOf("RMSNorm's W", a.W, cols), a.WOffset), vectorOf("RMSNorm's RStd", a.RStd, n)
	if a.Delta.IsZero() != a.Sum.IsZero() {
		panic("cpu: RMSNorm takes Delta and Sum together")
	}
	if !a.Delta.IsZero() {
		j.delta, j.sum = rowsOf("RMSNorm's Delta", a.Delta, n, cols), rowsOf("RMSNorm's Sum", a.Sum, n, cols)
	}
	j.grain = max(1, normGrain/max(cols, 1))
	if cols > 0 {
		parallel(tasksOf(n, j.grain), j)
	}
	*j = normJob{shifted: j.shifted}
	normJobs.give(j)
}

// shiftedBy is w + offset, in scratch memory unless it is w itself.
func shiftedBy(scratch *floats, w []float32, offset float32) []float32 {
	if offset == 0 {
		return w
	}
	s := scratch.grow(len(w))
	copy(s, w)
	vecShiftScale(s, -offset, 1)
	return s
}

func (j *normJob) run(_ *workspace, task int) {
	for t := task * j.grain; t < min((task+1)*j.grain, j.n); t++ {
		s := j.x.row(t, j.cols)
		var squares float32
		if j.delta.data != nil {
			sum := j.sum.row(t, j.cols)
			squares = vecAddSquares(sum, s, j.delta.row(t, j.cols))
			s = sum
		} else {
			squares = vecDot(s, s)
		}
		r := float32(1 / math.Sqrt(float64(squares)/float64(j.cols)+float64(j.eps)))
		j.rstd[t] = r
		vecMulScale(j.y.row(t, j.cols), s, j.w, r)
	}
}

// normParts is the greatest number of blocks of tokens whose parts of dw are
// summed apart, then added in order. What lies in a block depends on the shape
// alone, so that dw does not depend on the threads.
const normParts = 64

// normBlock is the number of tokens of a block.
func normBlock(n, cols int) int { return max(1, normGrain/max(cols, 1), tasksOf(n, normParts)) }

// addParts adds the sum of the blocks' parts [blocks][len(dw)] to a strip of dw, and
// leaves the sum in the first part.
func addParts(dw, parts []float32, blocks, strip int) {
	from := strip * sumStrip
	n := min(sumStrip, len(dw)-from)
	total := parts[from:][:n]
	for b := 1; b < blocks; b++ {
		vecAdd(total, total, parts[b*len(dw)+from:][:n])
	}
	dw = dw[from:][:n]
	vecAdd(dw, dw, total)
}

type normGradStep uint8

const (
	normGradRows    normGradStep = iota // a task is a block of tokens
	normGradWeights                     // a task is a strip of columns of dw
)

type normGradJob struct {
	step            normGradStep
	dx, dy, dsum, s rows
	w, rstd, dw     []float32
	part, shifted   floats // [blocks][cols], where dw is asked for; w + WOffset
	n, cols, grain  int
	blocks          int
	accumulate      bool
}

var normGradJobs freeList[normGradJob]

func rmsNormBackward(a tensor.RMSNormBackward) {
	j := normGradJobs.take()
	n, cols := a.S.Rows(), a.S.Cols()
	j.n, j.cols, j.accumulate = n, cols, a.Accumulate
	if !a.DX.IsZero() {
		j.dx = rowsOf("RMSNormBackward's DX", a.DX, n, cols)
	}
	j.dy = rowsOf("RMSNormBackward's DY", a.DY, n, cols)
	j.s = rowsOf("RMSNormBackward's S", a.S, n, cols)
	j.w = shiftedBy(&j.shifted, vectorOf("RMSNormBackward's W", a.W, cols), a.WOffset)
	j.rstd = vectorOf("RMSNormBackward's RStd", a.RStd, n)
	if !a.DSum.IsZero() {
		j.dsum = rowsOf("RMSNormBackward's DSum", a.DSum, n, cols)
	}
	j.grain = normBlock(n, cols)
	j.blocks = tasksOf(n, j.grain)
	if !a.DW.IsZero() {
		j.dw = vectorOf("RMSNormBackward's DW", a.DW, cols)
		j.part.grow(j.blocks * cols)
	}
	if n > 0 && cols > 0 {
		j.step = normGradRows
		parallel(j.blocks, j)
		if j.dw != nil {
			j.step = normGradWeights
			parallel(tasksOf(cols, sumStrip), j)
		}
	}
	*j = normGradJob{part: j.part, shifted: j.shifted}
	normGradJobs.give(j)
}

func (j *normGradJob) run(_ *workspace, task int) {
	if j.step == normGradWeights {
		addParts(j.dw, j.part, j.blocks, task)
		return
	}
	var part []float32
	if j.dw != nil {
		part = j.part[task*j.cols:][:j.cols]
		clear(part)
	}
	for t := task * j.grain; t < min((task+1)*j.grain, j.n); t++ {
		j.row(t, part)
	}
}

// row computes dx of one token, where that is wanted, and adds its share of dw to
// part, if not nil.
func (j *normGradJob) row(t int, part []float32) {
	dy, s, r := j.dy.row(t, j.cols), j.s.row(t, j.cols), j.rstd[t]
	var dot float32
	if part != nil {
		dot = vecNormDotWeight(part, dy, s, j.w, r)
	} else {
		dot = vecNormDot(dy, s, j.w)
	}
	if j.dx.data == nil {
		return
	}
	dx := j.dx.row(t, j.cols)
	k := float32(float64(r) * float64(r) * float64(r) * float64(dot) / float64(j.cols))
	if base := gradBase(dx, j.dsum, t, j.accumulate); base != nil {
		vecNormGradAdd(dx, base, dy, s, j.w, r, k)
	} else {
		vecNormGrad(dx, dy, s, j.w, r, k)
	}
}

// gradBase is what a norm's gradient dx of row t is added to: dx itself, the row of
// dsum, or their sum, in dx; nil if to nothing.
func gradBase(dx []float32, dsum rows, t int, accumulate bool) []float32 {
	if dsum.data == nil {
		if accumulate {
			return dx
		}
		return nil
	}
	base := dsum.row(t, len(dx))
	if accumulate {
		vecAdd(dx, dx, base)
		return dx
	}
	return base
}
