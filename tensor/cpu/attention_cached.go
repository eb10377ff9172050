package cpu

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"ringtail/tensor"
)

// Attention for generation: keys and values of earlier tokens lie in a cache.
//
// Adjacent tokens of one slot at consecutive positions form a run: a prompt, or
// one token when decoding. A long run is cut into blocks of queries as in
// attention.go and each block walks over all its keys. A short one has little
// work a key, and reading the cache is what takes the time: it is cut along the
// keys instead (FlashDecoding), into chunks of a fixed size at fixed positions,
// so that one long context occupies all threads; what the chunks found, largest
// score, sum and weighted values, is merged in their order. Where the cache is too
// large to be at hand, a task has all heads of a chunk to itself: a row of the
// cache holds the heads side by side, and one head's part alone, a few hundred
// bytes a row, defeats the hardware's prefetching, so the chunk is first read
// through in the order in which it lies.
//
// How a token's attention is computed follows from its own run and position
// alone, so its result does not depend on what other slots are in the batch, nor
// on the number of threads.

const (
	// chunkTokens is the longest block of queries that is cut along the keys.
	chunkTokens = 8
	// chunkBytes is about the size of the keys of a chunk, and of its values: both
	// stay in the second-level cache.
	chunkBytes = 256 << 10
	// streamBytes of keys and values are too many to be found in a second-level
	// cache. Who does which heads changes no result, so a batch may decide on it.
	streamBytes = 2 << 20
)

// A cachedBlock is a block of queries: tokens [t, t+n) at positions [p, p+n) of
// a slot. Its chunks' findings, for each key/value head, start at partial.
type cachedBlock struct{ slot, t, p, n, lo, chunks, partial int }

// A cachedPiece is the part of a block that a task does: keys [from, to) of
// key/value heads [head, headEnd).
type cachedPiece struct{ block, chunk, from, to, head, headEnd, cost int }

type cachedStep uint8

const (
	cachedWrite cachedStep = iota
	cachedAttend
	cachedMerge
)

// cachedAttentionJob is the job of CachedAttention: three regions in turn.
type cachedAttentionJob struct {
	attendShape
	step             cachedStep
	q, k, v, o       rows // columns of QKV, and O
	keys, values     rows // the caches, slot by slot
	capacity         int
	slots, positions []int32
	blocks           []cachedBlock
	pieces           []cachedPiece
	split            []int // blocks of more than one chunk
	partial          floats
}

var cachedAttentions freeList[cachedAttentionJob]

// writeTokens is the number of tokens whose keys and values a task writes.
const writeTokens = 32

func cachedAttention(a tensor.CachedAttention) {
	tokens := a.QKV.Rows()
	j := cachedAttentions.take()
	j.set("CachedAttention", a.AttentionShape)
	qkv := rowsOf("CachedAttention's QKV", a.QKV, tokens, (a.Heads+2*a.KVHeads)*a.HeadDim)
	j.o = rowsOf("CachedAttention's O", a.O, tokens, a.Heads*a.HeadDim)
	if a.K.Rank() != 3 || a.V.Rank() != 3 {
		panic(fmt.Sprintf("cpu: CachedAttention's K is %v and V %v; they must be [slots, capacity, KVHeads*HeadDim]", a.K, a.V))
	}
	slots := a.K.Shape[0]
	j.capacity = a.K.Shape[1]
	j.keys = rowsOf("CachedAttention's K", a.K, slots*j.capacity, a.KVHeads*a.HeadDim)
	j.values = rowsOf("CachedAttention's V", a.V, slots*j.capacity, a.KVHeads*a.HeadDim)
	j.slots = indices("CachedAttention's Slots", a.Slots, tokens, slots)
	j.positions = indices("CachedAttention's Positions", a.Positions, tokens, j.capacity)
	if tokens > 0 {
		j.q, j.k, j.v = j.heads(qkv)
		j.cut()
		j.step = cachedWrite
		parallel((tokens+writeTokens-1)/writeTokens, j)
		j.step = cachedAttend
		parallel(len(j.pieces), j)
		j.step = cachedMerge
		parallel(len(j.split)*j.KVHeads, j)
	}
	j.q, j.k, j.v, j.o, j.keys, j.values = rows{}, rows{}, rows{}, rows{}, rows{}, rows{}
	j.slots, j.positions = nil, nil
	cachedAttentions.give(j)
}

// indices checks an operand of whole numbers that each name one of n things.
func indices(what string, t tensor.Tensor, tokens, n int) []int32 {
	if t.Dtype != tensor.I32 || t.Rank() != 1 || t.Len() != tokens {
		panic(fmt.Sprintf("cpu: %s is %v; it must be I32[%d]", what, t, tokens))
	}
	v := t.Int32()
	for i, x := range v {
		if x < 0 || int(x) >= n {
			panic(fmt.Sprintf("cpu: %s[%d] is %d, outside [0,%d)", what, i, x, n))
		}
	}
	return v
}

// cut finds the runs and cuts them into blocks and pieces.
func (j *cachedAttentionJob) cut() {
	j.blocks, j.pieces, j.split = j.blocks[:0], j.pieces[:0], j.split[:0]
	partial := 0
	tokens := len(j.slots)
	heads := j.KVHeads // of a task
	if j.keysSeen()*8*j.KVHeads*j.HeadDim <= streamBytes {
		heads = 1
	}
	// A multiple of what the matrix product takes at a time.
	chunkKeys := roundUp(max(chunkBytes/(4*j.KVHeads*j.HeadDim), 32), 32)
	for t := 0; t < tokens; {
		end := t + 1
		for end < tokens && j.slots[end] == j.slots[t] && j.positions[end] == j.positions[end-1]+1 {
			end++
		}
		for ; t < end; t += j.block {
			n := min(j.block, end-t)
			p := int(j.positions[t])
			lo, hi := j.firstKey(p), p+n
			b := cachedBlock{slot: int(j.slots[t]), t: t, p: p, n: n, lo: lo, chunks: 1}
			at := len(j.blocks)
			if n > chunkTokens {
				for head := range j.KVHeads {
					j.pieces = append(j.pieces, cachedPiece{at, 0, lo, hi, head, head + 1, n * (hi - lo)})
				}
			} else {
				first := lo / chunkKeys
				b.chunks = (hi-1)/chunkKeys - first + 1
				for c := range b.chunks {
					from, to := max(lo, (first+c)*chunkKeys), min(hi, (first+c+1)*chunkKeys)
					for head := 0; head < j.KVHeads; head += heads {
						j.pieces = append(j.pieces, cachedPiece{at, c, from, to, head, head + heads, n * (to - from) * heads})
					}
				}
			}
			if b.chunks > 1 {
				b.partial = partial
				partial += b.chunks * j.KVHeads * j.partialSize(n)
				j.split = append(j.split, at)
			}
			j.blocks = append(j.blocks, b)
		}
		t = end
	}
	j.partial.grow(partial)
	slices.SortStableFunc(j.pieces, func(a, b cachedPiece) int { return cmp.Compare(b.cost, a.cost) })
}

// keysSeen is about the number of keys that the batch's runs see.
func (j *cachedAttentionJob) keysSeen() (n int) {
	for t, slot := range j.slots {
		if t+1 == len(j.slots) || j.slots[t+1] != slot {
			p := int(j.positions[t])
			n += p + 1 - j.firstKey(p)
		}
	}
	return n
}

// partialSize is the number of floats that a chunk leaves for a block of n
// tokens: a row's weighted values, largest score and sum.
func (j *cachedAttentionJob) partialSize(n int) int { return n * j.group * (j.HeadDim + 2) }

// found is where a chunk of a block leaves its findings.
func (j *cachedAttentionJob) found(b *cachedBlock, chunk, head int) (o, m, l []float32) {
	size, rows := j.partialSize(b.n), b.n*j.group
	p := j.partial[:cap(j.partial)][b.partial+(chunk*j.KVHeads+head)*size:][:size]
	return p[:rows*j.HeadDim], p[rows*j.HeadDim:][:rows], p[rows*(j.HeadDim+1):]
}

func (j *cachedAttentionJob) run(ws *workspace, task int) {
	switch j.step {
	case cachedWrite:
		n := j.KVHeads * j.HeadDim
		for t := task * writeTokens; t < min((task+1)*writeTokens, len(j.slots)); t++ {
			at := int(j.slots[t])*j.capacity + int(j.positions[t])
			copy(j.keys.row(at, n), j.k.row(t, n))
			copy(j.values.row(at, n), j.v.row(t, n))
		}
	case cachedAttend:
		p := &j.pieces[task]
		if p.headEnd-p.head > 1 {
			b := &j.blocks[p.block]
			at, n := b.slot*j.capacity, j.KVHeads*j.HeadDim
			for i := at + p.from; i < at+p.to; i++ {
				touch(j.keys.row(i, n))
			}
			for i := at + p.from; i < at+p.to; i++ {
				touch(j.values.row(i, n))
			}
		}
		for head := p.head; head < p.headEnd; head++ {
			j.piece(ws, p, head)
		}
	case cachedMerge:
		j.merge(&j.blocks[j.split[task/j.KVHeads]], task%j.KVHeads)
	}
}

// touch reads one element of every cache line of x. What it returns serves to
// keep the compiler from leaving the reads out.
//
//go:noinline
func touch(x []float32) (bits uint32) {
	for i := 0; i < len(x); i += 16 {
		bits ^= math.Float32bits(x[i])
	}
	return bits
}

func (j *cachedAttentionJob) piece(ws *workspace, p *cachedPiece, head int) {
	b := &j.blocks[p.block]
	dim, n := j.HeadDim, b.n*j.group
	q := ws.scratch(slotQuery, n*dim)
	j.stackQueries(q, j.q.from(b.t, head*j.group*dim), b.n, j.Scale)
	k, v := j.keys.from(b.slot*j.capacity, head*dim), j.values.from(b.slot*j.capacity, head*dim)
	if b.chunks > 1 {
		o, m, l := j.found(b, p.chunk, head)
		j.attend(ws, o, m, l, q, head, b.p, b.n, k, v, p.from, p.to)
		return
	}
	o, stats := ws.scratch(slotOut, n*dim), ws.scratch(slotStats, 2*n)
	m, l := stats[:n], stats[n:]
	j.attend(ws, o, m, l, q, head, b.p, b.n, k, v, p.from, p.to)
	j.store(b, head, o, l)
}

// merge brings the chunks' findings to the largest score of all and adds them up,
// in the first chunk's place.
func (j *cachedAttentionJob) merge(b *cachedBlock, head int) {
	dim := j.HeadDim
	o, m, l := j.found(b, 0, head)
	for c := 1; c < b.chunks; c++ {
		co, cm, cl := j.found(b, c, head)
		for r := range m {
			if cl[r] == 0 {
				continue // saw none of the keys
			}
			largest := max(m[r], cm[r])
			f, cf := float32(1), exp32(cm[r]-largest)
			if l[r] != 0 {
				f = exp32(m[r] - largest)
			}
			m[r], l[r] = largest, l[r]*f+cl[r]*cf
			vecScale(o[r*dim:][:dim], f)
			vecAxpy(o[r*dim:][:dim], co[r*dim:], cf)
		}
	}
	j.store(b, head, o, l)
}

// store divides the weighted values by their weights' sum.
func (j *cachedAttentionJob) store(b *cachedBlock, head int, o, l []float32) {
	width := j.group * j.HeadDim
	for i := range b.n {
		dst := j.o.from(b.t+i, head*width).row(0, width)
		copy(dst, o[i*width:])
		for g := range j.group {
			vecScale(dst[g*j.HeadDim:][:j.HeadDim], 1/l[i*j.group+g])
		}
	}
}
