package cpu

import (
	"fmt"

	"ringtail/tensor"
)

// The output projection fused with what is made of the logits (crossentropy.go,
// logprob.go), without the logits of all tokens: rows that count are gathered into
// blocks of about one size, and for each block
//
//	Z = X·Wᵀ                       [rows, V]
//	row by row, the operation's results and, over Z, its G and c, so that dZ = c·G
//	dX = c·(G·W),  dW += Gᵀ·(c·X)
//
// The factor c of a row never touches the [rows, V] matrix: it goes into the far
// narrower rows of dX and X. So logits are written once by the product, turned
// into G in place, a row at a time in the second-level cache, and read by the two
// products of the backward pass.
//
// The target's element of G has a part that the others lack, as in softmax − [target].
// It is put in place before dX where the small difference of the two must be kept
// exact. Elsewhere it comes after, and dX += own·W_target instead: a term as large
// as the whole row's sum would cost the V small ones added to it their last digits.
//
// Work is shared among threads inside the products and by rows between them.
// The sums that cross rows are those of dW, in the order of rows within a block
// and of blocks, and what the operation sums in the order of rows.

const (
	// projectionLogits bounds the logits of a block, between the bounds of its
	// rows: each block packs W twice and adds to all of dW, which more rows pay for
	// (docs/log.md has the figures), and past projectionMaxRows they hardly do.
	projectionLogits  = 12 << 20
	projectionMaxRows = 384
	projectionMinRows = 192
	// projectionTile is a multiple of the rows of the micro-kernels' tiles.
	projectionTile = 24
	// sumRun is the number of exponentials summed in float32: the sums of runs are
	// added in float64, lest the error grow with the vocabulary.
	sumRun = 2048
	// productRun is the number of terms of G·W summed at a time, for the same reason.
	productRun = 4096
)

// capLogits caps a row of logits softly.
func capLogits(z []float32, limit float32) {
	for k := 0; k < len(z); k += sumRun {
		run := z[k:min(k+sumRun, len(z))]
		vecSoftCap(run, run, 1/limit, limit)
	}
}

// capSlope is the derivative of a soft cap where its result is y.
func capSlope(y, limit float32) float64 {
	l := float64(limit)
	return (l - float64(y)) * (l + float64(y)) / (l * l)
}

// projectionPhase is the region that a projection is in.
type projectionPhase uint8

const (
	projectionGather projectionPhase = iota
	projectionRow
	projectionAdd
	projectionScatter
)

// A rowOp is what an operation does with row i of a block, whose logits it finds
// in, and replaces in, projection.logits(i). Where gradients are wanted it leaves
// G there and sets grad[i].
type rowOp interface {
	row(ws *workspace, i int)
}

// rowGrad is what turns a row's G into dZ.
type rowGrad struct {
	factor float32 // c
	target float32 // G_target, its own part included
	own    float32 // c times that part
	placed bool    // G_target is in place
}

// projection is the state of the fused projections, and their job. Each operation
// takes one for the time of a call.
type projection struct {
	op      rowOp
	phase   projectionPhase
	hidden  int
	vocab   int
	x, w    rows
	dx, dw  rows
	wantDX  bool
	wantDW  bool
	targets []int32
	index   []int32 // rows that count, in order
	at      int     // how many of them lie before the block
	block   []int32 // those of the block at hand
	xb, dxb floats  // gathered X, then c·X; dX before the factor
	part    floats  // a run's part of dxb
	z       floats  // logits, then G, in rows of ldz
	ldz     int
	grads   []rowGrad // of each row of the block
}

var projections freeList[projection]

// projectionNames are what an operation's operands are called in a panic: made
// once, as a call must not allocate.
type projectionNames struct{ x, w, targets, dx, dw string }

func projectionNamesOf(op string) *projectionNames {
	return &projectionNames{op + "'s X", op + "'s W", op + "'s Targets", op + "'s DX", op + "'s DW"}
}

// openProjection checks the operands that fused projections share. dx and dw may
// be absent.
func openProjection(names *projectionNames, op rowOp, x, w, targets, dx, dw tensor.Tensor) *projection {
	tokens, hidden, vocab := x.Rows(), x.Cols(), w.Rows()
	p := projections.take()
	p.op, p.hidden, p.vocab = op, hidden, vocab
	p.x, p.w = rowsOf(names.x, x, tokens, hidden), rowsOf(names.w, w, vocab, hidden)
	p.targets = intsOf(names.targets, targets, tokens)
	for t, target := range p.targets {
		if int(target) >= vocab {
			panic(fmt.Sprintf("cpu: %s[%d] is %d; the vocabulary has %d", names.targets, t, target, vocab))
		}
	}
	if p.wantDX = !dx.IsZero(); p.wantDX {
		p.dx = rowsOf(names.dx, dx, tokens, hidden)
	}
	if p.wantDW = !dw.IsZero(); p.wantDW {
		p.dw = rowsOf(names.dw, dw, vocab, hidden)
	}
	p.index, p.block, p.at = p.index[:0], nil, 0
	return p
}

// close gives the projection back.
func (p *projection) close() {
	p.op, p.targets, p.block = nil, nil, nil
	p.x, p.w, p.dx, p.dw = rows{}, rows{}, rows{}, rows{}
	projections.give(p)
}

// wantGrad tells whether G is wanted.
func (p *projection) wantGrad() bool { return p.wantDX || p.wantDW }

// count makes row t one of those that are computed, or else sets its gradient to 0.
func (p *projection) count(t int, ok bool) {
	switch {
	case ok:
		p.index = append(p.index, int32(t))
	case p.wantDX:
		clear(p.dx.row(t, p.hidden))
	}
}

// next computes the next block of the rows that count and tells whether there was one.
func (p *projection) next() bool {
	p.at += len(p.block)
	if p.at == len(p.index) {
		return false
	}
	p.block = p.index[p.at:min(p.at+blockRows(len(p.index), p.vocab), len(p.index))]
	p.compute()
	return true
}

// blockRows cuts n rows into blocks of about equal size and returns that size.
func blockRows(n, vocab int) int {
	most := min(max(projectionLogits/max(vocab, 1), projectionMinRows), projectionMaxRows)
	blocks := max((n+most-1)/most, 1)
	return max(roundUp((n+blocks-1)/blocks, projectionTile), 1)
}

// compute does the rows of p.block.
func (p *projection) compute() {
	n := len(p.block)
	if cap(p.grads) < n {
		p.grads = make([]rowGrad, n)
	}
	// An odd number of cache lines: a column then spreads over all cache sets.
	p.ldz = (roundUp(p.vocab, 16)/16 | 1) * 16
	xb, z := first(p.xb.grow(n*p.hidden)), first(p.z.grow(n*p.ldz))
	p.each(projectionGather)
	sgemm(false, true, n, p.vocab, p.hidden, xb, p.hidden, p.w.at(0), p.w.stride, z, p.ldz, false, nil)
	p.each(projectionRow)
	if p.wantDX {
		p.productDX(n)
		p.each(projectionScatter)
	}
	if p.wantDW {
		for i := range n {
			p.place(i)
		}
		sgemm(true, false, p.vocab, p.hidden, n, z, p.ldz, xb, p.hidden, p.dw.at(0), p.dw.stride, true, nil)
	}
}

// productDX sets dxb = G·W for n rows, in runs along the vocabulary that are
// added up at the end.
func (p *projection) productDX(n int) {
	dx, part := p.dxb.grow(n*p.hidden), p.part.grow(n*p.hidden)
	for v := 0; v < p.vocab; v += productRun {
		run := min(productRun, p.vocab-v)
		c := dx
		if v > 0 {
			c = part
		}
		sgemm(false, false, n, p.hidden, run, first(p.z[v:cap(p.z)]), p.ldz, p.w.at(v), p.w.stride, first(c), p.hidden, false, nil)
		if v > 0 {
			p.each(projectionAdd)
		}
	}
}

// each runs a phase over the rows of the block.
func (p *projection) each(phase projectionPhase) {
	p.phase = phase
	parallel(len(p.block), p)
}

func (p *projection) run(ws *workspace, i int) {
	t := int(p.block[i])
	xb := p.xb[:cap(p.xb)][i*p.hidden:][:p.hidden]
	switch p.phase {
	case projectionGather:
		copy(xb, p.x.row(t, p.hidden))
	case projectionRow:
		p.op.row(ws, i)
		if p.wantGrad() {
			vecScale(xb, p.grads[i].factor)
		}
	case projectionAdd:
		dx := p.dxb[:cap(p.dxb)][i*p.hidden:][:p.hidden]
		vecAdd(dx, dx, p.part[:cap(p.part)][i*p.hidden:])
	case projectionScatter:
		dx := p.dx.row(t, p.hidden)
		copy(dx, p.dxb[:cap(p.dxb)][i*p.hidden:])
		vecScale(dx, p.grads[i].factor)
		if !p.grads[i].placed {
			vecAxpy(dx, p.w.row(int(p.targets[t]), p.hidden), p.grads[i].own)
		}
	}
}

// logits is row i of the block's logits, or of G.
func (p *projection) logits(i int) []float32 {
	return p.z[:cap(p.z)][i*p.ldz:][:p.vocab]
}

// place puts the target's element of row i's G in place, once.
func (p *projection) place(i int) {
	if g := &p.grads[i]; !g.placed {
		p.logits(i)[p.targets[p.block[i]]] = g.target
		g.placed = true
	}
}
