package conformance

import (
	"math"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// attentionMistakes are mistakes of scores that are capped or biased.
var attentionMistakes = []mistake{
	{"the slope of the next head", "Attention", "ALiBi", func(ops *tensor.Ops) {
		ops.Attention = func(a tensor.Attention) {
			score := scoreOf(a.AttentionShape)
			attentionBy(a, func(h int, s float64, back int) (float64, float64) { return score((h+1)%a.Heads, s, back) })
		}
	}},
	{"the bias on the wrong side", "Attention", "ALiBi", func(ops *tensor.Ops) {
		ops.Attention = func(a tensor.Attention) {
			score := scoreOf(a.AttentionShape)
			attentionBy(a, func(h int, s float64, back int) (float64, float64) { return score(h, s, -back) })
		}
	}},
	{"the bias scaled like the product", "Attention", "ALiBi", func(ops *tensor.Ops) {
		ops.Attention = func(a tensor.Attention) {
			score := scoreOf(a.AttentionShape)
			attentionBy(a, func(h int, s float64, back int) (float64, float64) {
				s0, _ := score(h, s, 0)
				s1, slope := score(h, s, back)
				return s0 + float64(a.Scale)*(s1-s0), slope
			})
		}
	}},
	{"no cap", "Attention", "SoftCap", func(ops *tensor.Ops) {
		ops.Attention = func(a tensor.Attention) { a.SoftCap = 0; good.Attention(a) }
	}},
	{"the cap after the bias", "Attention", "SoftCap 0.75, ALiBi", func(ops *tensor.Ops) {
		ops.Attention = func(a tensor.Attention) {
			biased, capped := a.AttentionShape, a.AttentionShape
			biased.SoftCap, capped.ALiBi = 0, false
			first, second := scoreOf(biased), scoreOf(capped)
			attentionBy(a, func(h int, s float64, back int) (float64, float64) {
				s, _ = first(h, s, back)
				return second(h, s, back)
			})
		}
	}},
	{"the cap's slope forgotten", "AttentionBackward", "SoftCap", func(ops *tensor.Ops) {
		ops.AttentionBackward = func(a tensor.AttentionBackward) {
			score := scoreOf(a.AttentionShape)
			attentionBackwardBy(a, func(h int, s float64, back int) (float64, float64) {
				s, _ = score(h, s, back)
				return s, 1
			})
		}
	}},
	{"the cap's slope at the score with its bias", "AttentionBackward", "SoftCap 0.75, ALiBi", func(ops *tensor.Ops) {
		ops.AttentionBackward = func(a tensor.AttentionBackward) {
			score := scoreOf(a.AttentionShape)
			attentionBackwardBy(a, func(h int, s float64, back int) (float64, float64) {
				s, slope := score(h, s, back)
				if limit := float64(a.SoftCap); limit > 0 {
					slope = 1 - s/limit*s/limit
				}
				return s, slope
			})
		}
	}},
	{"no bias", "AttentionBackward", "ALiBi", func(ops *tensor.Ops) {
		ops.AttentionBackward = func(a tensor.AttentionBackward) { a.ALiBi = false; good.AttentionBackward(a) }
	}},
	{"no bias", "CachedAttention", "ALiBi", func(ops *tensor.Ops) {
		ops.CachedAttention = func(a tensor.CachedAttention) { a.ALiBi = false; good.CachedAttention(a) }
	}},
	{"no cap", "CachedAttention", "SoftCap", func(ops *tensor.Ops) {
		ops.CachedAttention = func(a tensor.CachedAttention) { a.SoftCap = 0; good.CachedAttention(a) }
	}},
}

// scoreFunc makes a score of a scaled product of a head's query and the key `back`
// tokens before it, and gives the score's derivative by the product.
type scoreFunc func(head int, s float64, back int) (score, slope float64)

// scoreOf is the right one.
func scoreOf(a tensor.AttentionShape) scoreFunc {
	return func(head int, s float64, back int) (float64, float64) {
		slope := 1.0
		if limit := float64(a.SoftCap); limit > 0 {
			s = limit * math.Tanh(s/limit)
			slope = 1 - s/limit*s/limit
		}
		if a.ALiBi {
			s -= tensor.ALiBiSlope(head, a.Heads) * float64(back)
		}
		return s, slope
	}
}

// TestNaiveAttentionPasses: what TestSuiteFindsMistakes spoils is right before, by a part of
// the trials, as nothing is fast here.
func TestNaiveAttentionPasses(t *testing.T) {
	ops := ref.New().Ops()
	special := func(a tensor.AttentionShape) bool { return a.SoftCap > 0 || a.ALiBi }
	ops.Attention = func(a tensor.Attention) {
		if special(a.AttentionShape) {
			attentionBy(a, scoreOf(a.AttentionShape))
		} else {
			good.Attention(a)
		}
	}
	ops.AttentionBackward = func(a tensor.AttentionBackward) {
		if special(a.AttentionShape) {
			attentionBackwardBy(a, scoreOf(a.AttentionShape))
		} else {
			good.AttentionBackward(a)
		}
	}
	for _, section := range []string{"Attention", "AttentionBackward"} {
		if message := firstFailureOf(&broken{ref.New(), ops}, section, 6); message != "" {
			t.Errorf("%s: %s", section, message)
		}
	}
}

// eachScore calls f with every pair of a query i and a key j ≤ i that it sees, and
// with the columns at which the head's query, key and value begin.
func eachScore(a tensor.AttentionShape, starts []int32, f func(h, i, j, q, k, v int)) {
	for n := range len(starts) - 1 {
		for i := int(starts[n]); i < int(starts[n+1]); i++ {
			for h := range a.Heads {
				kv := h / (a.Heads / a.KVHeads)
				for j := int(starts[n]); j <= i; j++ {
					if a.Window == 0 || i-j < a.Window {
						f(h, i, j, h*a.HeadDim, (a.Heads+kv)*a.HeadDim, (a.Heads+a.KVHeads+kv)*a.HeadDim)
					}
				}
			}
		}
	}
}

func product(a, b []float64) (s float64) {
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

// part is n columns of a row of t, from column c on.
func part(t tensor.Tensor, row, c, n int) []float64 { return t.Float64()[row*t.Stride+c:][:n] }

// attentionBy is attention by another score.
func attentionBy(a tensor.Attention, score scoreFunc) {
	ref.New().Ops().Zero(a.O)
	ref.New().Ops().Zero(a.LSE)
	d := a.HeadDim
	eachScore(a.AttentionShape, a.Starts.Int32(), func(h, i, j, q, k, v int) {
		s, _ := score(h, float64(a.Scale)*product(part(a.QKV, i, q, d), part(a.QKV, j, k, d)), i-j)
		for c, x := range part(a.QKV, j, v, d) {
			part(a.O, i, h*d, d)[c] += math.Exp(s) * x
		}
		part(a.LSE, h, i, 1)[0] += math.Exp(s)
	})
	for i := range a.QKV.Rows() {
		for h := range a.Heads {
			lse := part(a.LSE, h, i, 1)
			for c := range part(a.O, i, h*d, d) {
				part(a.O, i, h*d, d)[c] /= lse[0]
			}
			lse[0] = math.Log(lse[0])
		}
	}
}

// attentionBackwardBy is attention's backward pass by another score.
func attentionBackwardBy(a tensor.AttentionBackward, score scoreFunc) {
	ref.New().Ops().Zero(a.DQKV)
	d := a.HeadDim
	eachScore(a.AttentionShape, a.Starts.Int32(), func(h, i, j, q, k, v int) {
		query, key, value := part(a.QKV, i, q, d), part(a.QKV, j, k, d), part(a.QKV, j, v, d)
		do, o := part(a.DO, i, h*d, d), part(a.O, i, h*d, d)
		s, slope := score(h, float64(a.Scale)*product(query, key), i-j)
		p := math.Exp(s - part(a.LSE, h, i, 1)[0])
		ds := p * (product(do, value) - product(do, o)) * slope * float64(a.Scale)
		dq, dk, dv := part(a.DQKV, i, q, d), part(a.DQKV, j, k, d), part(a.DQKV, j, v, d)
		for c := range d {
			dq[c] += ds * key[c]
			dk[c] += ds * query[c]
			dv[c] += p * do[c]
		}
	})
}
