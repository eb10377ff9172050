package cpu

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// The output projection and the cross-entropy in one, without the logits of all
// tokens: rows with a target are gathered into blocks of a fixed size, and for
// each block
//
//	Z = X·Wᵀ                                  [rows, V]
//	E = exp(Z − max),  s = Σ E,  loss = max + log s − z_target
//	E_target −= s,  c = Scale/s               so that dZ = c·E, row by row
//	dX = c·(E·W),  dW += Eᵀ·(c·X)
//
// E_target −= s takes place before dX where the target has at least half of the
// probability, which keeps the small difference exact. Elsewhere it comes after,
// and dX −= Scale·W_target instead: a term as large as the whole row's sum would
// cost the V small ones added to it their last digits.
//
// The factor c of a row never touches the [rows, V] matrix: it goes into the far
// narrower rows of dX and X. So logits are written once by the product, turned
// into E in place, a row at a time in the second-level cache, and read by the two
// products of the backward pass.
//
// Work is shared among threads inside the products and by rows between them.
// The sums that cross rows are those of dW, in the order of rows within a block
// and of blocks, and of the loss, in the order of rows.

const (
	// crossEntropyLogits bounds the logits of a block, between the bounds of its
	// rows: each block packs W twice and adds to all of dW, which more rows pay for
	// (docs/log.md has the figures), and past crossEntropyMaxRows they hardly do.
	crossEntropyLogits  = 12 << 20
	crossEntropyMaxRows = 384
	crossEntropyMinRows = 192
	// crossEntropyTile is a multiple of the rows of the micro-kernels' tiles.
	crossEntropyTile = 24
	// sumRun is the number of exponentials summed in float32: the sums of runs are
	// added in float64, lest the error grow with the vocabulary.
	sumRun = 2048
	// productRun is the number of terms of E·W summed at a time, for the same reason.
	productRun = 4096
)

// crossEntropyPhase is the region that a job is in.
type crossEntropyPhase uint8

const (
	crossEntropyGather crossEntropyPhase = iota
	crossEntropySoftmax
	crossEntropyAdd
	crossEntropyScatter
)

// crossEntropyJob is the job of CrossEntropy.
type crossEntropyJob struct {
	phase   crossEntropyPhase
	hidden  int
	vocab   int
	x, w    rows
	dx, dw  rows
	grad    bool
	scale   float32
	targets []int32
	index   []int32 // rows with a target, in order
	block   []int32 // those of the block at hand
	xb, dxb floats  // gathered X, then c·X; dX before the factor
	part    floats  // a run's part of dxb
	z       floats  // logits, then E, in rows of ldz
	ldz     int
	factor  []float32
	loss    []float64 // of each row of the block
	sum     []float64 // s
	correct []bool
	done    []bool // E_target −= s has taken place
}

var crossEntropies freeList[crossEntropyJob]

func crossEntropy(a tensor.CrossEntropy) {
	tokens, hidden, vocab := a.X.Rows(), a.X.Cols(), a.W.Rows()
	j := crossEntropies.take()
	j.hidden, j.vocab = hidden, vocab
	j.x = rowsOf("CrossEntropy's X", a.X, tokens, hidden)
	j.w = rowsOf("CrossEntropy's W", a.W, vocab, hidden)
	if a.Loss.Dtype != tensor.F64 || a.Loss.Len() != 3 {
		panic(fmt.Sprintf("cpu: CrossEntropy's Loss is %v; it must be F64[3]", a.Loss))
	}
	if a.Targets.Dtype != tensor.I32 || a.Targets.Rank() != 1 || a.Targets.Len() != tokens {
		panic(fmt.Sprintf("cpu: CrossEntropy's Targets is %v; it must be I32[%d]", a.Targets, tokens))
	}
	loss := a.Loss.Float64()
	j.targets = a.Targets.Int32()
	wantDX, wantDW := !a.DX.IsZero(), !a.DW.IsZero()
	j.grad = wantDX || wantDW
	if wantDX {
		j.dx = rowsOf("CrossEntropy's DX", a.DX, tokens, hidden)
	}
	if wantDW {
		j.dw = rowsOf("CrossEntropy's DW", a.DW, vocab, hidden)
	}
	if j.grad {
		if a.Scale.Dtype != tensor.F32 || a.Scale.Len() != 1 {
			panic(fmt.Sprintf("cpu: CrossEntropy's Scale is %v; it must be F32[1]", a.Scale))
		}
		j.scale = a.Scale.Float32()[0]
	}
	j.index = j.index[:0]
	for t, target := range j.targets {
		switch {
		case int(target) >= vocab:
			panic(fmt.Sprintf("cpu: CrossEntropy's Targets[%d] is %d; the vocabulary has %d", t, target, vocab))
		case target >= 0:
			j.index = append(j.index, int32(t))
		case wantDX:
			clear(j.dx.row(t, hidden))
		}
	}
	size := blockRows(len(j.index), vocab)
	for at := 0; at < len(j.index); at += size {
		j.block = j.index[at:min(at+size, len(j.index))]
		j.oneBlock(wantDX, wantDW)
		for i, l := range j.loss[:len(j.block)] {
			loss[0] += l
			loss[1]++
			if j.correct[i] {
				loss[2]++
			}
		}
	}
	j.x, j.w, j.dx, j.dw = rows{}, rows{}, rows{}, rows{}
	j.targets, j.block = nil, nil
	crossEntropies.give(j)
}

// blockRows cuts n rows into blocks of about equal size and returns that size.
func blockRows(n, vocab int) int {
	most := min(max(crossEntropyLogits/max(vocab, 1), crossEntropyMinRows), crossEntropyMaxRows)
	blocks := max((n+most-1)/most, 1)
	return max(roundUp((n+blocks-1)/blocks, crossEntropyTile), 1)
}

// oneBlock does the rows of j.block.
func (j *crossEntropyJob) oneBlock(wantDX, wantDW bool) {
	n := len(j.block)
	if cap(j.loss) < n {
		j.loss, j.sum, j.factor = make([]float64, n), make([]float64, n), make([]float32, n)
		j.correct, j.done = make([]bool, n), make([]bool, n)
	}
	// An odd number of cache lines: a column then spreads over all cache sets.
	j.ldz = (roundUp(j.vocab, 16)/16 | 1) * 16
	xb, z := first(j.xb.grow(n*j.hidden)), first(j.z.grow(n*j.ldz))
	w := j.w.at(0)
	j.each(crossEntropyGather)
	sgemm(false, true, n, j.vocab, j.hidden, xb, j.hidden, w, j.w.stride, z, j.ldz, false, nil)
	j.each(crossEntropySoftmax)
	if wantDX {
		j.productDX(n)
		j.each(crossEntropyScatter)
	}
	if wantDW {
		for i, t := range j.block {
			j.subtract(i, int(j.targets[t]))
		}
		sgemm(true, false, j.vocab, j.hidden, n, z, j.ldz, xb, j.hidden, j.dw.at(0), j.dw.stride, true, nil)
	}
}

// productDX sets dxb = E·W for n rows, in runs along the vocabulary that are
// added up at the end.
func (j *crossEntropyJob) productDX(n int) {
	dx, part := j.dxb.grow(n*j.hidden), j.part.grow(n*j.hidden)
	for v := 0; v < j.vocab; v += productRun {
		run := min(productRun, j.vocab-v)
		c := dx
		if v > 0 {
			c = part
		}
		sgemm(false, false, n, j.hidden, run, first(j.z[v:cap(j.z)]), j.ldz, j.w.at(v), j.w.stride, first(c), j.hidden, false, nil)
		if v > 0 {
			j.each(crossEntropyAdd)
		}
	}
}

// each runs a phase over the rows of the block.
func (j *crossEntropyJob) each(phase crossEntropyPhase) {
	j.phase = phase
	parallel(len(j.block), j)
}

func (j *crossEntropyJob) run(_ *workspace, i int) {
	t := int(j.block[i])
	xb := j.xb[:cap(j.xb)][i*j.hidden:][:j.hidden]
	switch j.phase {
	case crossEntropyGather:
		copy(xb, j.x.row(t, j.hidden))
	case crossEntropySoftmax:
		j.softmax(i, int(j.targets[t]))
		if j.grad {
			vecScale(xb, j.factor[i])
		}
	case crossEntropyAdd:
		dx := j.dxb[:cap(j.dxb)][i*j.hidden:][:j.hidden]
		vecAdd(dx, dx, j.part[:cap(j.part)][i*j.hidden:])
	case crossEntropyScatter:
		dx := j.dx.row(t, j.hidden)
		copy(dx, j.dxb[:cap(j.dxb)][i*j.hidden:])
		vecScale(dx, j.factor[i])
		if !j.done[i] {
			vecAxpy(dx, j.w.row(int(j.targets[t]), j.hidden), -j.scale)
		}
	}
}

// logits is row i of the block's logits, or of E.
func (j *crossEntropyJob) logits(i int) []float32 {
	return j.z[:cap(j.z)][i*j.ldz:][:j.vocab]
}

// subtract does E_target −= s in row i, once.
func (j *crossEntropyJob) subtract(i, target int) {
	if !j.done[i] {
		e := &j.logits(i)[target]
		*e = float32(float64(*e) - j.sum[i])
		j.done[i] = true
	}
}

func (j *crossEntropyJob) softmax(i, target int) {
	z := j.logits(i)
	largest := vecMax(z)
	at := z[target]
	// Of equal largest logits the first is the prediction.
	j.correct[i] = at == largest && !contains(z[:target], largest)
	sum := 0.0
	for k := 0; k < len(z); k += sumRun {
		run := z[k:min(k+sumRun, len(z))]
		if j.grad {
			sum += float64(vecExpSum(run, run, largest))
		} else {
			sum += float64(vecSumExp(run, largest))
		}
	}
	j.loss[i] = float64(largest) - float64(at) + math.Log(sum)
	if j.grad {
		j.sum[i], j.done[i] = sum, false
		if float64(z[target]) >= sum/2 {
			j.subtract(i, target)
		}
		j.factor[i] = float32(float64(j.scale) / sum)
	}
}

func contains(s []float32, x float32) bool {
	for _, y := range s {
		if y == x {
			return true
		}
	}
	return false
}
