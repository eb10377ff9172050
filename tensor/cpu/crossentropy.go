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
// The factor c of a row never touches the [rows, V] matrix: it goes into the far
// narrower rows of dX and X. So logits are written once by the product, turned
// into E in place, a row at a time in the second-level cache, and read by the two
// products of the backward pass.
//
// Work is shared among threads inside the products and by rows between them.
// The sums that cross rows are those of dW, in the order of rows within a block
// and of blocks, and of the loss, in the order of rows.

const (
	// crossEntropyLogits bounds the logits of a block: a good part of a
	// last-level cache.
	crossEntropyLogits = 8 << 20
	// crossEntropyRows bounds the rows of a block from above and below. Each block
	// packs W twice and adds to all of dW, which fewer rows would not pay for.
	crossEntropyMaxRows = 512
	crossEntropyMinRows = 64
	// sumRun is the number of exponentials summed in float32: the sums of runs are
	// added in float64, lest the error grow with the vocabulary.
	sumRun = 2048
)

// crossEntropyStep is the region that a job is in.
type crossEntropyStep uint8

const (
	crossEntropyGather crossEntropyStep = iota
	crossEntropySoftmax
	crossEntropyScatter
)

// crossEntropyJob is the job of CrossEntropy.
type crossEntropyJob struct {
	step    crossEntropyStep
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
	z       floats  // logits, then E
	factor  []float32
	loss    []float64 // of each row of the block
	correct []bool
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
	size := min(max(crossEntropyLogits/max(vocab, 1), crossEntropyMinRows), crossEntropyMaxRows)
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

// oneBlock does the rows of j.block.
func (j *crossEntropyJob) oneBlock(wantDX, wantDW bool) {
	n := len(j.block)
	if cap(j.loss) < n {
		j.loss, j.correct, j.factor = make([]float64, n), make([]bool, n), make([]float32, n)
	}
	xb, z := first(j.xb.grow(n*j.hidden)), first(j.z.grow(n*j.vocab))
	w := j.w.at(0)
	j.each(crossEntropyGather)
	sgemm(false, true, n, j.vocab, j.hidden, xb, j.hidden, w, j.w.stride, z, j.vocab, false, nil)
	j.each(crossEntropySoftmax)
	if wantDX {
		dxb := first(j.dxb.grow(n * j.hidden))
		sgemm(false, false, n, j.hidden, j.vocab, z, j.vocab, w, j.w.stride, dxb, j.hidden, false, nil)
		j.each(crossEntropyScatter)
	}
	if wantDW {
		sgemm(true, false, j.vocab, j.hidden, n, z, j.vocab, xb, j.hidden, j.dw.at(0), j.dw.stride, true, nil)
	}
}

// each runs a step over the rows of the block.
func (j *crossEntropyJob) each(step crossEntropyStep) {
	j.step = step
	parallel(len(j.block), j)
}

func (j *crossEntropyJob) run(_ *workspace, i int) {
	t := int(j.block[i])
	xb := j.xb[:cap(j.xb)][i*j.hidden:][:j.hidden]
	switch j.step {
	case crossEntropyGather:
		copy(xb, j.x.row(t, j.hidden))
	case crossEntropySoftmax:
		j.softmax(i, int(j.targets[t]))
		if j.grad {
			vecScale(xb, j.factor[i])
		}
	case crossEntropyScatter:
		dx := j.dx.row(t, j.hidden)
		copy(dx, j.dxb[:cap(j.dxb)][i*j.hidden:])
		vecScale(dx, j.factor[i])
	}
}

func (j *crossEntropyJob) softmax(i, target int) {
	z := j.z[:cap(j.z)][i*j.vocab:][:j.vocab]
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
		z[target] -= float32(sum)
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
