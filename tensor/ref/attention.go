package ref

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// attention is, for each query head h at token i of a sequence, over the tokens
// j ≤ i of the same sequence that the window lets it see:
//
//	s_j = score(q_i·k_j),  LSE = log Σ_j exp(s_j),  p_j = exp(s_j − LSE),  o_i = Σ_j p_j·v_j
func attention(a tensor.Attention) {
	checkHeads(a.AttentionShape)
	tokens := a.QKV.Rows()
	qkv := matrixOf("Attention's QKV", a.QKV, tokens, (a.Heads+2*a.KVHeads)*a.HeadDim)
	o := matrixOf("Attention's O", a.O, tokens, a.Heads*a.HeadDim)
	lse := matrixOf("Attention's LSE", a.LSE, a.Heads, tokens)
	forEachQuery(a.AttentionShape, startsOf(a.Starts, tokens, a.Longest), func(h, i, first int) {
		q := queryOf(a.AttentionShape, qkv, h, i)
		key := func(j int) []float64 { return keyOf(a.AttentionShape, qkv, h, j) }
		value := func(j int) []float64 { return valueOf(a.AttentionShape, qkv, h, j) }
		lse.row(h)[i] = attend(a.AttentionShape, h, o.row(i)[h*a.HeadDim:][:a.HeadDim], q, key, value, first, i)
	})
}

// attend sets o to the attention of query q to the keys and values of tokens
// first…last and returns the logarithm of the sum of the scores' exponentials.
// The largest score is taken out of the exponentials so that none overflows.
func attend(a tensor.AttentionShape, head int, o, q []float64, key, value func(j int) []float64, first, last int) float64 {
	scores := make([]float64, last-first+1)
	largest := math.Inf(-1)
	for n := range scores {
		scores[n], _ = score(a, head, dot(q, key(first+n)), last-first-n)
		largest = max(largest, scores[n])
	}
	sum := 0.0
	for _, s := range scores {
		sum += math.Exp(s - largest)
	}
	lse := largest + math.Log(sum)
	clear(o)
	for n, s := range scores {
		axpy(o, math.Exp(s-lse), value(first+n))
	}
	return lse
}

// score is that of a head's query and of a key `back` tokens before it, whose
// product is qk, and its derivative by qk.
func score(a tensor.AttentionShape, head int, qk float64, back int) (s, slope float64) {
	s, slope = float64(a.Scale)*qk, float64(a.Scale)
	if a.SoftCap > 0 {
		th := math.Tanh(s / float64(a.SoftCap))
		s, slope = float64(a.SoftCap)*th, slope*(1-th*th)
	}
	if a.ALiBi {
		s -= tensor.ALiBiSlope(head, a.Heads) * float64(back)
	}
	return s, slope
}

// attentionBackward: with the forward's p_j, made again from LSE,
//
//	dv_j += p_j·do_i
//	ds_j  = p_j·(do_i·v_j − do_i·o_i)·score'(q_i·k_j)       (softmax's backward pass)
//	dq_i += ds_j·k_j,  dk_j += ds_j·q_i
//
// Heads that share a key/value head add to the same dk and dv.
func attentionBackward(a tensor.AttentionBackward) {
	checkHeads(a.AttentionShape)
	tokens := a.QKV.Rows()
	width := (a.Heads + 2*a.KVHeads) * a.HeadDim
	qkv := matrixOf("AttentionBackward's QKV", a.QKV, tokens, width)
	dqkv := matrixOf("AttentionBackward's DQKV", a.DQKV, tokens, width)
	o := matrixOf("AttentionBackward's O", a.O, tokens, a.Heads*a.HeadDim)
	do := matrixOf("AttentionBackward's DO", a.DO, tokens, a.Heads*a.HeadDim)
	lse := matrixOf("AttentionBackward's LSE", a.LSE, a.Heads, tokens)
	zero(a.DQKV)
	forEachQuery(a.AttentionShape, startsOf(a.Starts, tokens, a.Longest), func(h, i, first int) {
		q, dq := queryOf(a.AttentionShape, qkv, h, i), queryOf(a.AttentionShape, dqkv, h, i)
		doi := do.row(i)[h*a.HeadDim:][:a.HeadDim]
		mean := dot(doi, o.row(i)[h*a.HeadDim:][:a.HeadDim])
		for j := first; j <= i; j++ {
			k, dk := keyOf(a.AttentionShape, qkv, h, j), keyOf(a.AttentionShape, dqkv, h, j)
			v, dv := valueOf(a.AttentionShape, qkv, h, j), valueOf(a.AttentionShape, dqkv, h, j)
			s, slope := score(a.AttentionShape, h, dot(q, k), i-j)
			p := math.Exp(s - lse.row(h)[i])
			ds := p * (dot(doi, v) - mean) * slope
			axpy(dv, p, doi)
			axpy(dq, ds, k)
			axpy(dk, ds, q)
		}
	})
}

// cachedAttention writes every token's key and value to its place in the cache,
// then lets every query attend to its slot's rows up to its own position.
func cachedAttention(a tensor.CachedAttention) {
	checkHeads(a.AttentionShape)
	tokens := a.QKV.Rows()
	qkv := matrixOf("CachedAttention's QKV", a.QKV, tokens, (a.Heads+2*a.KVHeads)*a.HeadDim)
	o := matrixOf("CachedAttention's O", a.O, tokens, a.Heads*a.HeadDim)
	if a.K.Rank() != 3 || a.V.Rank() != 3 {
		panic(fmt.Sprintf("ref: CachedAttention's K is %v and V %v; they must be [slots, capacity, KVHeads·HeadDim]", a.K, a.V))
	}
	slots, capacity := a.K.Shape[0], a.K.Shape[1]
	keys := matrixOf("CachedAttention's K", a.K, slots*capacity, a.KVHeads*a.HeadDim)
	values := matrixOf("CachedAttention's V", a.V, slots*capacity, a.KVHeads*a.HeadDim)
	slot := intsOf("CachedAttention's Slots", a.Slots, tokens)
	position := intsOf("CachedAttention's Positions", a.Positions, tokens)
	k := a.Heads * a.HeadDim // the column at which a row's keys start
	v := k + a.KVHeads*a.HeadDim
	for t := range tokens {
		at := index("slot", slot[t], slots)*capacity + index("position", position[t], capacity)
		copy(keys.row(at), qkv.row(t)[k:v])
		copy(values.row(at), qkv.row(t)[v:])
	}
	for t := range tokens {
		base := int(slot[t]) * capacity
		for h := range a.Heads {
			from := h / (a.Heads / a.KVHeads) * a.HeadDim
			key := func(p int) []float64 { return keys.row(base + p)[from:][:a.HeadDim] }
			value := func(p int) []float64 { return values.row(base + p)[from:][:a.HeadDim] }
			q := queryOf(a.AttentionShape, qkv, h, t)
			last := int(position[t])
			attend(a.AttentionShape, h, o.row(t)[h*a.HeadDim:][:a.HeadDim], q, key, value, firstSeen(a.Window, 0, last), last)
		}
	}
}

// forEachQuery calls f with every head h and token i, and the first token that i
// may attend to.
func forEachQuery(a tensor.AttentionShape, starts []int32, f func(h, i, first int)) {
	for n := range len(starts) - 1 {
		for i := int(starts[n]); i < int(starts[n+1]); i++ {
			for h := range a.Heads {
				f(h, i, firstSeen(a.Window, int(starts[n]), i))
			}
		}
	}
}

// firstSeen is the first token that token i attends to, in a sequence that
// begins at token start.
func firstSeen(window, start, i int) int {
	if window > 0 {
		return max(start, i-window+1)
	}
	return start
}

func queryOf(a tensor.AttentionShape, qkv matrix, h, i int) []float64 {
	return qkv.row(i)[h*a.HeadDim:][:a.HeadDim]
}

func keyOf(a tensor.AttentionShape, qkv matrix, h, i int) []float64 {
	return qkv.row(i)[(a.Heads+h/(a.Heads/a.KVHeads))*a.HeadDim:][:a.HeadDim]
}

func valueOf(a tensor.AttentionShape, qkv matrix, h, i int) []float64 {
	return qkv.row(i)[(a.Heads+a.KVHeads+h/(a.Heads/a.KVHeads))*a.HeadDim:][:a.HeadDim]
}

func checkHeads(a tensor.AttentionShape) {
	if a.Heads <= 0 || a.KVHeads <= 0 || a.HeadDim <= 0 || a.Heads%a.KVHeads != 0 || a.Window < 0 {
		panic(fmt.Sprintf("ref: attention of shape %+v", a))
	}
}

// startsOf checks that starts rise from 0 to the number of tokens, by at most
// longest.
func startsOf(t tensor.Tensor, tokens, longest int) []int32 {
	starts := intsOf("Starts", t, t.Len())
	if len(starts) == 0 || starts[0] != 0 || int(starts[len(starts)-1]) != tokens {
		panic(fmt.Sprintf("ref: Starts %v of %d tokens; they must begin with 0 and end with the number of tokens", starts, tokens))
	}
	for n := range len(starts) - 1 {
		if length := int(starts[n+1] - starts[n]); length < 0 || length > longest {
			panic(fmt.Sprintf("ref: Starts %v: sequence %d has %d tokens; Longest is %d", starts, n, length, longest))
		}
	}
	return starts
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

// axpy sets y += f·x.
func axpy(y []float64, f float64, x []float64) {
	for i := range y {
		y[i] += f * x[i]
	}
}
