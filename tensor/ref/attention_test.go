package ref

import (
	"fmt"
	"math"
	"testing"

	"ringtail/tensor"
)

// TestALiBiSlope holds the numbers of the paper's released code (get_slopes of
// attention_with_linear_biases) for powers of two and for counts between them.
func TestALiBiSlope(t *testing.T) {
	r := math.Sqrt2
	for heads, want := range map[int][]float64{
		1:  {1.0 / 256},
		2:  {1.0 / 16, 1.0 / 256},
		3:  {1.0 / 16, 1.0 / 256, 1.0 / 4},
		6:  {1.0 / 4, 1.0 / 16, 1.0 / 64, 1.0 / 256, 1.0 / 2, 1.0 / 8},
		8:  {1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32, 1.0 / 64, 1.0 / 128, 1.0 / 256},
		12: {1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16, 1.0 / 32, 1.0 / 64, 1.0 / 128, 1.0 / 256, 1 / r, 1 / (2 * r), 1 / (4 * r), 1 / (8 * r)},
		16: {1 / r, 1.0 / 2, 1 / (2 * r), 1.0 / 4, 1 / (4 * r), 1.0 / 8, 1 / (8 * r), 1.0 / 16, 1 / (16 * r), 1.0 / 32, 1 / (32 * r), 1.0 / 64,
			1 / (64 * r), 1.0 / 128, 1 / (128 * r), 1.0 / 256},
	} {
		for h, w := range want {
			if got := tensor.ALiBiSlope(h, heads); math.Abs(got-w) > 1e-15 {
				t.Errorf("slope of head %d of %d is %g, want %g", h, heads, got, w)
			}
		}
	}
}

// TestAttentionScores compares with probabilities worked out by hand. Two heads of
// one column share a key and a value; their slopes are 1/16 and 1/256. Of the second
// token, the products with its own key and the one before are a and b.
func TestAttentionScores(t *testing.T) {
	m := newMaker(t)
	const a, b = 3.0, -1.5
	for name, c := range map[string]struct {
		softCap    float32
		alibi      bool
		own, prior func(head int) float64 // scores
	}{
		"plain": {0, false, func(int) float64 { return a / 2 }, func(int) float64 { return b / 2 }},
		"alibi": {0, true, func(int) float64 { return a / 2 }, func(h int) float64 { return b/2 - []float64{1.0 / 16, 1.0 / 256}[h] }},
		"cap":   {2, false, func(int) float64 { return 2 * math.Tanh(0.75) }, func(int) float64 { return 2 * math.Tanh(-0.375) }},
		"both": {2, true, func(int) float64 { return 2 * math.Tanh(0.75) },
			func(h int) float64 { return 2*math.Tanh(-0.375) - []float64{1.0 / 16, 1.0 / 256}[h] }},
	} {
		t.Run(name, func(t *testing.T) {
			shape := tensor.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: 1, Scale: 0.5, SoftCap: c.softCap, ALiBi: c.alibi}
			// Rows: both queries, the key, the value.
			qkv := m.set(m.blank(2, 4), 7, 7, b, 10, 1, 1, a, 20)
			o, lse := m.blank(2, 2), m.blank(2, 2)
			m.ops.Attention(tensor.Attention{AttentionShape: shape, O: o, LSE: lse, QKV: qkv, Starts: m.ints(0, 2), Longest: 2})
			want := []float64{10, 10}
			for h := range 2 {
				p, q := math.Exp(c.own(h)), math.Exp(c.prior(h))
				want = append(want, (20*p+10*q)/(p+q))
				if got := lse.Float64()[h*lse.Stride+1]; math.Abs(got-math.Log(p+q)) > 1e-14 {
					t.Errorf("LSE of head %d is %g, want %g", h, got, math.Log(p+q))
				}
			}
			m.expect("O", o, 1e-13, want...)
			k, v, cached := m.blank(1, 4, 1), m.blank(1, 4, 1), m.blank(2, 2)
			for i := range 2 { // decoded token by token
				m.ops.CachedAttention(tensor.CachedAttention{AttentionShape: shape, O: cached.Slice(i, 1), QKV: qkv.Slice(i, 1), K: k, V: v,
					Slots: m.ints(0), Positions: m.ints(int32(i))})
			}
			m.expect("cached O", cached, 1e-13, want...)
		})
	}
}

// The first token of a sequence has no bias wherever the sequence begins, and the
// window cuts after the bias.
func TestALiBiOfPackedSequences(t *testing.T) {
	m := newMaker(t)
	shape := tensor.AttentionShape{Heads: 3, KVHeads: 1, HeadDim: 2, Scale: 0.5, ALiBi: true, SoftCap: 1.5, Window: 3}
	width := 10
	qkv := m.random(9, width)
	o, lse := m.blank(9, 6), m.blank(3, 9)
	m.ops.Attention(tensor.Attention{AttentionShape: shape, O: o, LSE: lse, QKV: qkv, Starts: m.ints(0, 4, 9), Longest: 5})
	alone, lseAlone := m.blank(5, 6), m.blank(3, 5)
	m.ops.Attention(tensor.Attention{AttentionShape: shape, O: alone, LSE: lseAlone, QKV: qkv.Slice(4, 5), Starts: m.ints(0, 5), Longest: 5})
	m.expect("O of the second sequence", o.Slice(4, 5), 0, flat(alone)...)
}

func TestScoredAttentionGradient(t *testing.T) {
	for _, heads := range [][3]int{{1, 1, 1}, {4, 2, 2}, {3, 1, 5}} {
		for _, starts := range [][]int32{{0, 1}, {0, 2, 2, 7, 8}} {
			for _, window := range []int{0, 3} {
				for _, softCap := range []float32{0, 0.75, 3} {
					for _, alibi := range []bool{false, true} {
						t.Run(fmt.Sprint(heads, starts, window, softCap, alibi), func(t *testing.T) {
							m := newMaker(t)
							shape := tensor.AttentionShape{Heads: heads[0], KVHeads: heads[1], HeadDim: heads[2], Scale: 0.7, Window: window,
								SoftCap: softCap, ALiBi: alibi}
							tokens := int(starts[len(starts)-1])
							qkv, c := m.random(tokens, (heads[0]+2*heads[1])*heads[2]), m.random(tokens, heads[0]*heads[2])
							a := tensor.Attention{AttentionShape: shape, QKV: qkv, O: m.blank(tokens, heads[0]*heads[2]),
								LSE: m.blank(heads[0], tokens), Starts: m.ints(starts...), Longest: 8}
							loss := func() float64 { m.ops.Attention(a); return weigh(c, a.O) }
							loss()
							dqkv := m.blank(qkv.Shape...)
							m.ops.AttentionBackward(tensor.AttentionBackward{AttentionShape: shape, DQKV: dqkv, DO: c,
								O: a.O, LSE: a.LSE, QKV: qkv, Starts: a.Starts, Longest: 8})
							m.differ("QKV", qkv, dqkv, loss)
						})
					}
				}
			}
		}
	}
}
