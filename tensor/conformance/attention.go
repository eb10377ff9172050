package conformance

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// attentionHeads are [Heads, KVHeads, HeadDim].
var attentionHeads = [][3]int{{1, 1, 1}, {1, 1, 8}, {2, 2, 5}, {4, 2, 16}, {6, 2, 33}, {4, 1, 64}, {3, 3, 80}, {8, 2, 128}}

// attentionBatches are lengths of packed sequences.
var attentionBatches = [][]int{{}, {0}, {1}, {2, 3}, {0, 7, 0, 1}, {33}, {3, 0, 0, 17, 2, 33, 0}}

// windows are tried in each layout: those that differ in kind, and, where the
// layout is simple, those at the ends.
var windows = map[layout][]int{dense: {0, 1, 4, 1000}, window: {0, 4}}

// scoring is what is done to scores beside scaling them.
type scoring struct {
	softCap float32
	alibi   bool
}

// scorings but the plain one: the cap, small enough to bend scores of order one,
// and the bias alone and together.
var scorings = []scoring{{softCap: 1.5}, {alibi: true}, {softCap: 0.75, alibi: true}}

// eachAttention calls f with every combination that the suite tries, and with a
// sequence longer than the blocks that a kernel takes.
func eachAttention(f func(l layout, heads [3]int, lengths []int, window int, sc scoring)) {
	for _, l := range layouts {
		for _, heads := range attentionHeads {
			for _, lengths := range attentionBatches {
				for _, window := range windows[l] {
					f(l, heads, lengths, window, scoring{})
				}
			}
		}
		// Head counts that are no power of two have slopes of two sequences.
		for _, heads := range [][3]int{{1, 1, 8}, {6, 2, 33}, {8, 2, 64}} {
			for _, lengths := range [][]int{{0}, {2, 3}, {3, 0, 0, 17, 2, 33, 0}} {
				for _, window := range []int{0, 4} {
					for _, sc := range scorings {
						f(l, heads, lengths, window, sc)
					}
				}
			}
		}
	}
	for _, window := range []int{0, 70} {
		for _, sc := range []scoring{{}, scorings[2]} {
			f(dense, [3]int{4, 2, 16}, []int{5, 300}, window, sc)
		}
	}
	f(dense, [3]int{2, 1, 8}, []int{1, 700}, 0, scorings[2]) // keys in several blocks
}

func testAttention(s *suite) {
	eachAttention(func(l layout, heads [3]int, lengths []int, window int, sc scoring) {
		tr := s.trial(l, "Attention [Heads KVHeads HeadDim] = %v, lengths %v, Window %d%v", heads, lengths, window, sc)
		shape, starts, longest, tokens := packed(heads, lengths, window)
		sc.set(&shape)
		attentionTrial(tr, shape, tr.normal(tokens, qkvColumns(shape)), starts, longest)
	})
	// Small whole numbers make large scores without rounding: exponentials must
	// not overflow, nor all vanish.
	for _, sign := range []float64{1, -1} {
		tr := s.always(dense, "Attention with scores of about %g", sign*300)
		shape, starts, longest, tokens := packed([3]int{2, 1, 8}, []int{9, 4}, 0)
		shape.Scale = 4
		v := make([]float64, tokens*qkvColumns(shape))
		for i := range v {
			v[i] = float64(1 + tr.rng.IntN(5))
			if i%qkvColumns(shape) < shape.Heads*shape.HeadDim {
				v[i] *= sign
			}
		}
		attentionTrial(tr, shape, v, starts, longest)
	}
}

func attentionTrial(tr *trial, shape tensor.AttentionShape, v []float64, starts []int, longest int) {
	tokens := starts[len(starts)-1]
	qkv, begin := tr.values("QKV", v, tokens, qkvColumns(shape)), tr.ints("Starts", starts...)
	o, lse := tr.blank("O", tokens, shape.Heads*shape.HeadDim).through(probabilities), tr.wideBlank("LSE", shape.Heads, tokens)
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Attention(tensor.Attention{AttentionShape: shape, O: at(o), LSE: at(lse), QKV: at(qkv), Starts: at(begin), Longest: longest})
	})
}

func testAttentionBackward(s *suite) {
	eachAttention(func(l layout, heads [3]int, lengths []int, window int, sc scoring) {
		tr := s.trial(l, "AttentionBackward [Heads KVHeads HeadDim] = %v, lengths %v, Window %d%v", heads, lengths, window, sc)
		shape, starts, longest, tokens := packed(heads, lengths, window)
		sc.set(&shape)
		v := tr.held(tr.normal(tokens, qkvColumns(shape)))
		ov, lsev := tr.forward(shape, v, starts, longest)
		qkv, begin := tr.values("QKV", v, tokens, qkvColumns(shape)), tr.ints("Starts", starts...)
		o, lse := tr.values("O", ov, tokens, shape.Heads*shape.HeadDim), tr.wide("LSE", lsev, shape.Heads, tokens)
		do, dqkv := tr.random("DO", tokens, shape.Heads*shape.HeadDim), tr.blank("DQKV", tokens, qkvColumns(shape)).through(gradients)
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
			ops.AttentionBackward(tensor.AttentionBackward{AttentionShape: shape, DQKV: at(dqkv), DO: at(do),
				O: at(o), LSE: at(lse), QKV: at(qkv), Starts: at(begin), Longest: longest})
		})
	})
}

// forward is the reference device's attention, whose results the backward pass
// takes as inputs.
func (tr *trial) forward(shape tensor.AttentionShape, v []float64, starts []int, longest int) (o, lse []float64) {
	aid := tr.suite.always(dense, "forward")
	tokens := starts[len(starts)-1]
	if tr.skipped {
		return nil, nil
	}
	qkv, begin := aid.typed("QKV", tensor.F64, v, tokens, qkvColumns(shape)), aid.ints("Starts", starts...)
	out, sums := aid.typed("O", tensor.F64, nil, tokens, shape.Heads*shape.HeadDim), aid.typed("LSE", tensor.F64, nil, shape.Heads, tokens)
	defer aid.free()
	images, ok := aid.runOn(tr.ref, func(o *operand) side { return o.ref }, func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Attention(tensor.Attention{AttentionShape: shape, O: at(out), LSE: at(sums), QKV: at(qkv), Starts: at(begin), Longest: longest})
	})
	if !ok {
		panic("conformance: the reference's attention failed")
	}
	return decode(tensor.F64, out.ref.unpack(images[2])), decode(tensor.F64, sums.ref.unpack(images[3]))
}

// held rounds numbers to what the device's floats can hold.
func (tr *trial) held(v []float64) []float64 {
	if tr.skipped {
		return v
	}
	return decode(tr.dev.Float(), encode(tr.dev.Float(), v))
}

func (sc scoring) set(a *tensor.AttentionShape) { a.SoftCap, a.ALiBi = sc.softCap, sc.alibi }

func (sc scoring) String() string {
	s := ""
	if sc.softCap > 0 {
		s += fmt.Sprintf(", SoftCap %g", sc.softCap)
	}
	if sc.alibi {
		s += ", ALiBi"
	}
	return s
}

func packed(heads [3]int, lengths []int, window int) (shape tensor.AttentionShape, starts []int, longest, tokens int) {
	shape = tensor.AttentionShape{Heads: heads[0], KVHeads: heads[1], HeadDim: heads[2],
		Scale: float32(1 / math.Sqrt(float64(heads[2]))), Window: window}
	starts = []int{0}
	for _, n := range lengths {
		tokens += n
		longest = max(longest, n)
		starts = append(starts, tokens)
	}
	return shape, starts, longest, tokens
}

func qkvColumns(a tensor.AttentionShape) int { return (a.Heads + 2*a.KVHeads) * a.HeadDim }

// chunk is tokens [from, from+n) of a cache slot.
type chunk struct{ slot, from, n int }

func testCachedAttention(s *suite) {
	batches := [][]chunk{
		{},
		{{0, 0, 1}},
		{{2, 0, 7}},
		{{1, 5, 1}, {0, 32, 1}, {3, 0, 1}}, // one token each
		{{3, 0, 33}, {1, 20, 1}, {0, 7, 9}, {2, 0, 3}}, // prompts, a continued prompt, and a token
	}
	for _, l := range layouts {
		for _, heads := range attentionHeads {
			for _, batch := range batches {
				for _, window := range windows[l] {
					cachedTrial(s, l, heads, batch, window, 41, scoring{})
				}
			}
		}
		for _, heads := range [][3]int{{6, 2, 33}, {8, 2, 64}} {
			for _, batch := range batches[1:] {
				for _, window := range []int{0, 4} {
					for _, sc := range scorings {
						cachedTrial(s, l, heads, batch, window, 41, sc)
					}
				}
			}
		}
	}
	for _, sc := range append([]scoring{{}}, scorings...) {
		cachedTrial(s, dense, [3]int{4, 2, 16}, []chunk{{1, 299, 1}, {0, 200, 90}}, 0, 300, sc)
	}
	cachedTrial(s, dense, [3]int{8, 2, 128}, []chunk{{1, 699, 1}, {0, 590, 4}}, 0, 700, scorings[2]) // in several chunks
}

func cachedTrial(s *suite, l layout, heads [3]int, batch []chunk, window, capacity int, sc scoring) {
	const slots = 4
	tr := s.trial(l, "CachedAttention [Heads KVHeads HeadDim] = %v, {slot from n} %v, Window %d%v", heads, batch, window, sc)
	shape, _, _, _ := packed(heads, nil, window)
	sc.set(&shape)
	width := shape.KVHeads * shape.HeadDim
	// Rows of the cache that a query may see hold numbers, all others NaN.
	kv, vv := notANumber(slots*capacity*width), notANumber(slots*capacity*width)
	var slot, position []int
	for _, c := range batch {
		first := 0
		if window > 0 {
			first = max(0, c.from-window+1)
		}
		for p := first; p < c.from; p++ {
			at := (c.slot*capacity + p) * width
			copy(kv[at:], tr.normal(width))
			copy(vv[at:], tr.normal(width))
		}
		for p := c.from; p < c.from+c.n; p++ {
			slot, position = append(slot, c.slot), append(position, p)
		}
	}
	qkv, o := tr.random("QKV", len(slot), qkvColumns(shape)), tr.blank("O", len(slot), shape.Heads*shape.HeadDim).through(probabilities)
	k, v := tr.values("K", kv, slots, capacity, width).exactly(), tr.values("V", vv, slots, capacity, width).exactly()
	sl, ps := tr.ints("Slots", slot...), tr.ints("Positions", position...)
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.CachedAttention(tensor.CachedAttention{AttentionShape: shape, O: at(o), QKV: at(qkv), K: at(k), V: at(v),
			Slots: at(sl), Positions: at(ps)})
	})
}

func notANumber(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
}
