package cpu

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"ringtail/tensor"
)

// Causal self-attention over packed sequences, forward and backward, without
// ever holding the matrix of all scores: FlashAttention's blocking (Dao et al.
// 2022, Dao 2023) on the matrix product of gemm.go.
//
// A task is one block of queries of one sequence and one key/value head. The
// query heads that share the key/value head are stacked, token by token, so that
// its keys and values are packed once for all of them:
//
//	rows = (token, head of the group)    S = Q·Kᵀ    P = exp(S − max)    O = P·V
//
// Keys come in blocks, with a running maximum and sum a row (online softmax,
// Milakov & Gimelshein 2018); up to keyBlock keys, a row's maximum is exact at
// once. Blocks of scores that causality or the window mask altogether are never
// computed; rows above the first key of a block are left out of its product.
//
// The backward pass makes P again from LSE. With D = rowsum(dO∘O):
//
//	dV += Pᵀ·dO    dP = dO·Vᵀ    dS = P∘(dP − D)    dQ += dS·K    dK += dSᵀ·Q
//
// A soft cap and ALiBi's bias, where the model has them, are put on a row of scores
// once its masked ends are known; the bias is a ramp in the place of the key.
//
// It has two schedules of the same tiles. By pairs, a task has all of one
// sequence and key/value head to itself and computes each tile once (5 products).
// With too few pairs to occupy the threads, dQ by blocks of queries and dK, dV by
// blocks of keys are tasks of their own, and each computes what it needs of a tile
// (7 products). Both add the same tiles in the same order, so results are the
// same to the last bit whichever runs, and the number of threads may choose.

const (
	// queryRows bounds the stacked rows of a block of queries: enough that packing
	// keys and values costs little beside the products.
	queryRows = 128
	// diagonalBlock is the number of keys in a block that causality cuts through:
	// about half of it per query is computed in vain.
	diagonalBlock = 64
	// keyBlock bounds the keys of a block below the diagonal: with queryRows, the
	// scores take a quarter of a second-level cache of 1 MiB.
	keyBlock = 512
	// gradKeyBlock is the same for the backward pass, which holds two such blocks.
	gradKeyBlock = 64
)

// Slots of a worker's scratch memory. CachedAttention shares them with Attention.
const (
	slotQuery = iota
	slotOut
	slotScores
	slotStats
	slotGradOut
	slotGradScores
	slotGradQuery
)

// attendShape is the shape of attention with what follows from it.
type attendShape struct {
	tensor.AttentionShape
	group  int       // query heads of one key/value head
	block  int       // tokens of a block of queries
	slopes []float32 // ALiBi's, of each head
}

func (a *attendShape) set(what string, shape tensor.AttentionShape) {
	if shape.Heads <= 0 || shape.KVHeads <= 0 || shape.HeadDim <= 0 || shape.Heads%shape.KVHeads != 0 || shape.Window < 0 || shape.SoftCap < 0 {
		panic(fmt.Sprintf("cpu: %s of shape %+v", what, shape))
	}
	a.AttentionShape = shape
	a.group = shape.Heads / shape.KVHeads
	a.block = max(queryRows/a.group, 1)
	a.slopes = a.slopes[:0]
	if shape.ALiBi {
		for h := range shape.Heads {
			a.slopes = append(a.slopes, float32(tensor.ALiBiSlope(h, shape.Heads)))
		}
	}
}

// score makes scores of the products of one query and adjacent keys, the first of
// them `distance` tokens after the query (before it, where negative). The products
// hold the scale already.
func (a *attendShape) score(products []float32, head, distance int) {
	if a.SoftCap > 0 {
		vecSoftCap(products, products, inverse(a.SoftCap), a.SoftCap)
	}
	if a.ALiBi {
		vecRamp(products, float32(distance), a.slopes[head])
	}
}

// firstKey is the first key that the query at position p sees.
func (a *attendShape) firstKey(p int) int {
	if a.Window > 0 {
		return max(0, p-a.Window+1)
	}
	return 0
}

// endQuery is past the last position whose query sees the key k1-1 and with it
// any key before k1: with a window, keys go out of sight.
func (a *attendShape) endQuery(k1 int) int {
	if a.Window > 0 {
		return k1 - 1 + a.Window
	}
	return math.MaxInt
}

// rows is a matrix of float32 with a stride between rows; data begins at its
// first element.
type rows struct {
	data   []float32
	stride int
}

// from is the matrix from row i and column j on.
func (r rows) from(i, j int) rows { return rows{r.data[i*r.stride+j:], r.stride} }

// at is the address of row i.
func (r rows) at(i int) unsafe.Pointer { return unsafe.Pointer(&r.data[i*r.stride]) }

// row is the first n elements of row i.
func (r rows) row(i, n int) []float32 { return r.data[i*r.stride:][:n] }

// rowsOf checks the shape of an operand.
func rowsOf(what string, t tensor.Tensor, n, cols int) rows {
	if t.Dtype != tensor.F32 || t.Rank() < 1 || t.Rows() != n || t.Cols() != cols {
		panic(fmt.Sprintf("cpu: %s is %v; it must be F32[%d %d]", what, t, n, cols))
	}
	return rows{t.Float32(), t.Stride}
}

func first(s []float32) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

// stackQueries copies the queries of n tokens, of columns [0, group·dim) of q, one
// below the other, times scale: what the scores are multiplied by is far cheaper
// to multiply into the queries.
func (a *attendShape) stackQueries(dst []float32, q rows, n int, scale float32) {
	w := a.group * a.HeadDim
	for i := range n {
		copy(dst[i*w:][:w], q.row(i, w))
	}
	vecScale(dst[:n*w], scale)
}

// attend sets o, m and l for the stacked queries q of n tokens and one key/value
// head, the first of them at position p0, over keys [lo, hi) of k and v, which begin at position 0:
// m is the largest score of each row, l the sum of exp(score − m), and o the sum of
// exp(score − m)·value. A row that sees none of the keys has m = −Inf, l = 0, o = 0.
func (a *attendShape) attend(ws *workspace, o, m, l, q []float32, kvHead, p0, n int, k, v rows, lo, hi int) {
	dim, group := a.HeadDim, a.group
	for r := range m {
		m[r], l[r] = float32(math.Inf(-1)), 0
	}
	clear(o)
	for k0 := lo; k0 < hi; {
		// Up to the first block of the diagonal all tokens see most keys.
		k1 := k0 + diagonalBlock
		if k1 <= p0 {
			k1 = min(k0+keyBlock, p0+diagonalBlock)
		}
		k1 = min(k1, hi)
		// Tokens [i0, i1) see some of the keys.
		i0, i1 := max(0, k0-p0), n
		if last := a.endQuery(k1); last < p0+n {
			i1 = last - p0
		}
		if i0 >= i1 {
			k0 = k1
			continue
		}
		keys := k1 - k0
		r0, nr := i0*group, (i1-i0)*group
		s := ws.scratch(slotScores, nr*keys)
		sgemmSerial(ws, false, true, nr, keys, dim, first(q[r0*dim:]), dim, k.at(k0), k.stride, first(s), keys, false, nil)
		for i := i0; i < i1; i++ {
			p := p0 + i
			from, to := max(k0, a.firstKey(p))-k0, min(k1, p+1)-k0
			for r := i * group; r < (i+1)*group; r++ {
				row := s[(r-r0)*keys:][:keys]
				if from >= to {
					clear(row)
					continue
				}
				clear(row[:from])
				clear(row[to:])
				row = row[from:to]
				a.score(row, kvHead*group+r-i*group, k0+from-p)
				largest := vecMax(row)
				if !(largest > m[r]) && largest == largest {
					largest = m[r]
				} else if l[r] != 0 {
					f := exp32(m[r] - largest)
					l[r] *= f
					vecScale(o[r*dim:][:dim], f)
				}
				m[r] = largest
				l[r] += vecExpSum(row, row, largest)
			}
		}
		sgemmSerial(ws, false, false, nr, dim, keys, first(s), keys, v.at(k0), v.stride, first(o[r0*dim:]), dim, true, nil)
		k0 = k1
	}
}

// queryBlock is tokens [at, at+n) of the sequence of tokens [start, end).
type queryBlock struct{ start, end, at, n, cost int }

// costliestFirst is the order in which tasks of unequal cost leave the threads
// idle least (longest processing time first).
func costliestFirst(a, b queryBlock) int { return cmp.Compare(b.cost, a.cost) }

// sequences calls f for each sequence of at least one token, after checking that
// starts rise from 0 to the number of tokens.
func sequences(what string, t tensor.Tensor, tokens int, f func(start, end int)) {
	if t.Dtype != tensor.I32 || t.Rank() != 1 || t.Len() == 0 {
		panic(fmt.Sprintf("cpu: %s's Starts is %v; it must be I32 of at least one element", what, t))
	}
	starts := t.Int32()
	if starts[0] != 0 || int(starts[len(starts)-1]) != tokens {
		panic(fmt.Sprintf("cpu: %s's Starts go from %d to %d; they must go from 0 to the number of tokens, %d", what, starts[0], starts[len(starts)-1], tokens))
	}
	for i := range len(starts) - 1 {
		if starts[i] > starts[i+1] {
			panic(fmt.Sprintf("cpu: %s's Starts[%d] is %d, after %d; they must not fall", what, i+1, starts[i+1], starts[i]))
		}
		if starts[i] < starts[i+1] {
			f(int(starts[i]), int(starts[i+1]))
		}
	}
}

// attentionForward is the job of Attention: a task is a block and a key/value head.
type attentionForward struct {
	attendShape
	q, k, v, o, lse rows
	blocks          []queryBlock
}

var attentionForwards freeList[attentionForward]

func attention(a tensor.Attention) {
	tokens := a.QKV.Rows()
	j := attentionForwards.take()
	j.set("Attention", a.AttentionShape)
	qkv := rowsOf("Attention's QKV", a.QKV, tokens, (a.Heads+2*a.KVHeads)*a.HeadDim)
	j.o = rowsOf("Attention's O", a.O, tokens, a.Heads*a.HeadDim)
	j.lse = rowsOf("Attention's LSE", a.LSE, a.Heads, tokens)
	j.blocks = j.blocks[:0]
	sequences("Attention", a.Starts, tokens, func(start, end int) {
		for at := start; at < end; at += j.block {
			n := min(j.block, end-at)
			keys := at - start + n
			if j.Window > 0 {
				keys = min(keys, j.Window+n)
			}
			j.blocks = append(j.blocks, queryBlock{start, end, at, n, n * keys})
		}
	})
	if len(j.blocks) > 0 {
		slices.SortStableFunc(j.blocks, costliestFirst)
		j.q, j.k, j.v = j.heads(qkv)
		parallel(len(j.blocks)*j.KVHeads, j)
	}
	j.q, j.k, j.v, j.o, j.lse = rows{}, rows{}, rows{}, rows{}, rows{}
	attentionForwards.give(j)
}

// heads cuts the columns of merged queries, keys and values.
func (a *attendShape) heads(qkv rows) (q, k, v rows) {
	return qkv, qkv.from(0, a.Heads*a.HeadDim), qkv.from(0, (a.Heads+a.KVHeads)*a.HeadDim)
}

func (j *attentionForward) run(ws *workspace, task int) {
	b, head := j.blocks[task/j.KVHeads], task%j.KVHeads
	dim, group := j.HeadDim, j.group
	width := group * dim
	n := b.n * group
	q, o, stats := ws.scratch(slotQuery, n*dim), ws.scratch(slotOut, n*dim), ws.scratch(slotStats, 2*n)
	m, l := stats[:n], stats[n:]
	j.stackQueries(q, j.q.from(b.at, head*width), b.n, j.Scale)
	p0 := b.at - b.start
	k, v := j.k.from(b.start, head*dim), j.v.from(b.start, head*dim)
	j.attend(ws, o, m, l, q, head, p0, b.n, k, v, j.firstKey(p0), p0+b.n)
	for i := range b.n {
		out := j.o.from(b.at+i, head*width).data
		for g := range group {
			r := i*group + g
			dst := out[g*dim:][:dim]
			copy(dst, o[r*dim:][:dim])
			vecScale(dst, 1/l[r])
			j.lse.data[(head*group+g)*j.lse.stride+b.at+i] = m[r] + float32(math.Log(float64(l[r])))
		}
	}
}

// attentionGrad is the job of AttentionBackward.
type attentionGrad struct {
	attendShape
	q, k, v, o, do, lse rows
	dq, dk, dv          rows
	byPairs             bool
	seqs                []queryBlock // whole sequences
	blocks              []queryBlock // of queries, then of keys (see run)
	keyBlocks           int          // how many of blocks are of keys: the last
	loads               []int
}

var attentionGrads freeList[attentionGrad]

func attentionBackward(a tensor.AttentionBackward) {
	tokens := a.QKV.Rows()
	width := (a.Heads + 2*a.KVHeads) * a.HeadDim
	j := attentionGrads.take()
	j.set("AttentionBackward", a.AttentionShape)
	qkv := rowsOf("AttentionBackward's QKV", a.QKV, tokens, width)
	dqkv := rowsOf("AttentionBackward's DQKV", a.DQKV, tokens, width)
	j.do = rowsOf("AttentionBackward's DO", a.DO, tokens, a.Heads*a.HeadDim)
	j.o = rowsOf("AttentionBackward's O", a.O, tokens, a.Heads*a.HeadDim)
	j.lse = rowsOf("AttentionBackward's LSE", a.LSE, a.Heads, tokens)
	j.seqs = j.seqs[:0]
	sequences("AttentionBackward", a.Starts, tokens, func(start, end int) {
		n := end - start
		keys := n
		if j.Window > 0 {
			keys = min(keys, 2*j.Window)
		}
		j.seqs = append(j.seqs, queryBlock{start, end, start, n, n * keys})
	})
	if len(j.seqs) > 0 {
		j.q, j.k, j.v = j.heads(qkv)
		j.dq, j.dk, j.dv = j.heads(dqkv)
		slices.SortStableFunc(j.seqs, costliestFirst)
		j.byPairs = j.pairsOccupy(Threads())
		if j.byPairs {
			parallel(len(j.seqs)*j.KVHeads, j)
		} else {
			j.cutSequences()
			parallel(len(j.blocks)*j.KVHeads, j)
		}
	}
	j.q, j.k, j.v, j.o, j.do, j.lse = rows{}, rows{}, rows{}, rows{}, rows{}, rows{}
	j.dq, j.dk, j.dv = rows{}, rows{}, rows{}
	attentionGrads.give(j)
}

// pairsOccupy tells whether tasks of whole pairs of a sequence and a key/value
// head end sooner than smaller tasks that compute 7 products instead of 5.
func (j *attentionGrad) pairsOccupy(threads int) bool {
	if len(j.seqs)*j.KVHeads >= 8*threads {
		// Not worth a closer look unless one sequence outweighs the rest.
		total := 0
		for _, s := range j.seqs {
			total += s.cost * j.KVHeads
		}
		if j.seqs[0].cost*threads*5 <= total*2 {
			return true
		}
	}
	// The pool takes the costliest task that is left for the thread that is free first.
	if cap(j.loads) < threads {
		j.loads = make([]int, threads)
	}
	loads := j.loads[:threads]
	clear(loads)
	total := 0
	for _, s := range j.seqs {
		for range j.KVHeads {
			least := 0
			for t, l := range loads {
				if l < loads[least] {
					least = t
				}
			}
			loads[least] += s.cost
			total += s.cost
		}
	}
	return slices.Max(loads)*threads*5 <= total*7
}

// cutSequences lists the blocks of queries and of keys of all sequences. Each is
// about as much work as the other of its place.
func (j *attentionGrad) cutSequences() {
	j.blocks = j.blocks[:0]
	for _, keys := range []bool{false, true} {
		at := len(j.blocks)
		for _, s := range j.seqs {
			size := j.block
			if keys {
				size = gradKeyBlock
			}
			for p := 0; p < s.n; p += size {
				n := min(size, s.n-p)
				seen := p + n
				if keys {
					seen = s.n - p
				}
				if j.Window > 0 {
					seen = min(seen, j.Window+n)
				}
				j.blocks = append(j.blocks, queryBlock{s.start, s.end, s.start + p, n, n * seen})
			}
		}
		j.keyBlocks = len(j.blocks) - at
		slices.SortStableFunc(j.blocks[at:], costliestFirst)
	}
}

func (j *attentionGrad) run(ws *workspace, task int) {
	if j.byPairs {
		j.pair(ws, j.seqs[task/j.KVHeads], task%j.KVHeads)
		return
	}
	b, head := j.blocks[task/j.KVHeads], task%j.KVHeads
	p := b.at - b.start
	if task/j.KVHeads >= len(j.blocks)-j.keyBlocks {
		j.keys(ws, b, p, head)
		return
	}
	g := gradTile{attentionGrad: j, ws: ws, start: b.start, head: head}
	g.queries(p, b.n)
	g.gradQueries(false)
}

// pair computes all gradients of one sequence and key/value head.
func (j *attentionGrad) pair(ws *workspace, s queryBlock, head int) {
	j.zeroKeys(s.start, s.n, head)
	g := gradTile{attentionGrad: j, ws: ws, start: s.start, head: head}
	for p := 0; p < s.n; p += j.block {
		g.queries(p, min(j.block, s.n-p))
		g.gradQueries(true)
	}
}

// keys computes dK and dV of the keys at positions [p, p+b.n) of a sequence.
func (j *attentionGrad) keys(ws *workspace, b queryBlock, p, head int) {
	j.zeroKeys(b.at, b.n, head)
	end := b.end - b.start
	g := gradTile{attentionGrad: j, ws: ws, start: b.start, head: head}
	for q := p / j.block * j.block; q < end && q < j.endQuery(p+b.n); q += j.block {
		g.queries(q, min(j.block, end-q))
		g.tile(p, p+b.n, false, true)
	}
}

func (j *attentionGrad) zeroKeys(at, n, head int) {
	for i := at; i < at+n; i++ {
		clear(j.dk.from(0, head*j.HeadDim).row(i, j.HeadDim))
		clear(j.dv.from(0, head*j.HeadDim).row(i, j.HeadDim))
	}
}

// gradTile is a block of queries at hand, to be met with blocks of keys.
type gradTile struct {
	*attentionGrad
	ws          *workspace
	start, head int // first token of the sequence; key/value head
	p0, n       int // the block's tokens are at positions [p0, p0+n)
	// Stacked rows.
	q, do, dq []float32
	d, lse    []float32
}

// queries gathers n tokens at position p of the sequence.
func (g *gradTile) queries(p, n int) {
	dim, group, at := g.HeadDim, g.group, g.start+p
	width := group * dim
	g.p0, g.n = p, n
	g.q = g.ws.scratch(slotQuery, n*width)
	g.do = g.ws.scratch(slotGradOut, n*width)
	stats := g.ws.scratch(slotStats, 2*n*group)
	g.d, g.lse = stats[:n*group], stats[n*group:]
	g.stackQueries(g.q, g.attentionGrad.q.from(at, g.head*width), n, g.Scale)
	do, o := g.attentionGrad.do.from(at, g.head*width), g.o.from(at, g.head*width)
	for i := range n {
		copy(g.do[i*width:], do.row(i, width))
		for h := range group {
			r := i*group + h
			g.d[r] = vecDot(g.do[r*dim:][:dim], o.row(i, width)[h*dim:])
			g.lse[r] = g.attentionGrad.lse.data[(g.head*group+h)*g.attentionGrad.lse.stride+at+i]
		}
	}
}

// gradQueries sets the block's dQ and, with keys, adds its part to dK and dV.
func (g *gradTile) gradQueries(keys bool) {
	width := g.group * g.HeadDim
	g.dq = g.ws.scratch(slotGradQuery, g.n*width)
	clear(g.dq)
	first := g.firstKey(g.p0) / gradKeyBlock * gradKeyBlock
	for k := first; k < g.p0+g.n; k += gradKeyBlock {
		g.tile(k, min(k+gradKeyBlock, g.p0+g.n), true, keys)
	}
	// Q was multiplied by the scale, so dK has it; dQ has not.
	vecScale(g.dq, g.Scale)
	dq := g.attentionGrad.dq.from(g.start+g.p0, g.head*width)
	for i := range g.n {
		copy(dq.row(i, width), g.dq[i*width:])
	}
}

// tile meets the block with the keys [k0, k1) of the sequence. Which rows and
// keys take part depends on the block's and the keys' place alone, so that every
// caller adds the same numbers.
func (g *gradTile) tile(k0, k1 int, queries, keys bool) {
	dim, group := g.HeadDim, g.group
	k1 = min(k1, g.p0+g.n)
	i0, i1 := max(0, k0-g.p0), g.n
	if last := g.endQuery(k1); last < g.p0+g.n {
		i1 = last - g.p0
	}
	if i0 >= i1 {
		return
	}
	r0, nr, nk := i0*group, (i1-i0)*group, k1-k0
	q, do := g.q[r0*dim:], g.do[r0*dim:]
	at := g.start + k0
	k, v := g.k.from(at, g.head*dim), g.v.from(at, g.head*dim)
	s := g.ws.scratch(slotScores, nr*nk)
	ds := g.ws.scratch(slotGradScores, nr*nk)
	sgemmSerial(g.ws, false, true, nr, nk, dim, first(q), dim, k.at(0), k.stride, first(s), nk, false, nil)
	sgemmSerial(g.ws, false, true, nr, nk, dim, first(do), dim, v.at(0), v.stride, first(ds), nk, false, nil)
	for i := i0; i < i1; i++ {
		p := g.p0 + i
		from, to := max(k0, g.firstKey(p))-k0, min(k1, p+1)-k0
		for r := i * group; r < (i+1)*group; r++ {
			ps, dss := s[(r-r0)*nk:][:nk], ds[(r-r0)*nk:][:nk]
			if from >= to {
				clear(ps)
				clear(dss)
				continue
			}
			clear(ps[:from])
			clear(ps[to:])
			clear(dss[:from])
			clear(dss[to:])
			ps, dss = ps[from:to], dss[from:to]
			head, distance := g.head*group+r-i*group, k0+from-p
			if g.SoftCap > 0 {
				g.cappedGrads(ps, dss, g.lse[r], g.d[r], head, distance)
				continue
			}
			g.score(ps, head, distance)
			vecExpSum(ps, ps, g.lse[r])
			// dS = P∘dP − D·P: the kernel computes dy·w·r − s·k.
			vecNormGrad(dss, dss, ps, ps, 1, g.d[r])
		}
	}
	if queries {
		sgemmSerial(g.ws, false, false, nr, dim, nk, first(ds), nk, k.at(0), k.stride, first(g.dq[r0*dim:]), dim, true, nil)
	}
	if keys {
		dk, dv := g.dk.from(at, g.head*dim), g.dv.from(at, g.head*dim)
		sgemmSerial(g.ws, true, false, nk, dim, nr, first(s), nk, first(do), dim, dv.at(0), dv.stride, true, nil)
		sgemmSerial(g.ws, true, false, nk, dim, nr, first(ds), nk, first(q), dim, dk.at(0), dk.stride, true, nil)
	}
}

// cappedGrads makes P of a row of products and dS of its dP where scores are capped:
// the cap's slope, 1 − (s/SoftCap)², is taken before the bias joins the score s.
func (a *attendShape) cappedGrads(ps, dss []float32, lse, d float32, head, distance int) {
	f := inverse(a.SoftCap)
	vecSoftCap(ps, ps, f, a.SoftCap)
	vecShiftScale(dss, d, 1)
	vecSoftCapGrad(dss, dss, ps, a.SoftCap, f*f)
	if a.ALiBi {
		vecRamp(ps, float32(distance), a.slopes[head])
	}
	vecExpSum(ps, ps, lse)
	vecMulScale(dss, dss, ps, 1)
}
