package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// A cachedCase is a cache, whose slots hold past random rows each, and the steps
// that fill it: each a batch of runs of tokens that go on where their slot stands.
type cachedCase struct {
	heads, kv, dim, window, slots, extra int
	steps                                [][]cachedRun
	past                                 int
	softCap                              float32
	alibi                                bool
}

type cachedRun struct{ slot, n int }

func (c cachedCase) shape() tensor.AttentionShape {
	return attentionCase{heads: c.heads, kv: c.kv, dim: c.dim, window: c.window, softCap: c.softCap, alibi: c.alibi}.shape()
}

// cache is a device's cache with the positions reached.
type cache struct {
	c    cachedCase
	at   []int
	k, v tensor.Tensor
	dev  tensor.Device
	ops  func(tensor.CachedAttention)
}

func (c cachedCase) capacity() int {
	at, most := make([]int, c.slots), 1
	for _, step := range c.steps {
		for _, r := range step {
			at[r.slot] += r.n
			most = max(most, at[r.slot])
		}
	}
	return c.past + most + 3
}

func (c cachedCase) cache(t testing.TB, dev tensor.Device, d tensor.Dtype, op func(tensor.CachedAttention)) *cache {
	h := &cache{c: c, at: make([]int, c.slots), dev: dev, ops: op}
	for i, x := range []*tensor.Tensor{&h.k, &h.v} {
		whole, buffer, err := tensor.New(dev, d, c.slots, c.capacity(), c.kv*c.dim+2*c.extra)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(buffer.Free)
		*x = whole.Columns(c.extra, c.kv*c.dim)
		if c.past > 0 {
			tensor.SetFloat32(whole, randomFloats(rand.New(rand.NewPCG(11, uint64(i))), whole.Len(), 1))
		}
	}
	for i := range h.at {
		h.at[i] = c.past
	}
	return h
}

// step runs a batch; qkv holds the tokens of its runs one after another.
func (h *cache) step(t testing.TB, runs []cachedRun, qkv, o tensor.Tensor) tensor.CachedAttention {
	var slots, positions []int32
	for _, r := range runs {
		for range r.n {
			slots = append(slots, int32(r.slot))
			positions = append(positions, int32(h.at[r.slot]))
			h.at[r.slot]++
		}
	}
	a := tensor.CachedAttention{AttentionShape: h.c.shape(), O: o, QKV: qkv, K: h.k, V: h.v,
		Slots: newInts(t, h.dev, slots), Positions: newInts(t, h.dev, positions)}
	h.ops(a)
	return a
}

func tokensOf(runs []cachedRun) (n int) {
	for _, r := range runs {
		n += r.n
	}
	return n
}

var cachedCases = map[string]cachedCase{
	"decode":           {4, 2, 16, 0, 3, 0, [][]cachedRun{{{0, 1}, {1, 1}, {2, 1}}, {{2, 1}, {0, 1}}, {{0, 1}}}, 0, 0, false},
	"prompts":          {6, 6, 48, 0, 3, 2, [][]cachedRun{{{0, 70}, {2, 130}}, {{0, 1}, {1, 5}, {2, 1}}, {{2, 1}, {1, 60}}}, 0, 0, false},
	"long context":     {8, 1, 64, 0, 2, 0, [][]cachedRun{{{1, 1}, {0, 1}}, {{1, 4}}, {{0, 20}}}, 1022, 0, false},
	"window":           {4, 2, 8, 20, 2, 1, [][]cachedRun{{{0, 100}}, {{0, 1}, {1, 30}}, {{0, 3}}, {{0, 9}}}, 0, 0, false},
	"window, chunks":   {2, 2, 128, 400, 2, 0, [][]cachedRun{{{0, 30}}, {{0, 1}, {1, 30}}, {{0, 3}}, {{0, 9}}}, 700, 0, false},
	"chunk borders":    {4, 2, 64, 0, 1, 0, [][]cachedRun{{{0, 1}}, {{0, 1}}, {{0, 8}}, {{0, 9}}}, 511, 0, false},
	"streamed":         {8, 4, 64, 0, 3, 1, [][]cachedRun{{{0, 1}, {2, 1}}, {{0, 8}, {1, 2}, {2, 12}}}, 900, 0, false},
	"window 1":         {3, 1, 5, 1, 1, 0, [][]cachedRun{{{0, 600}}, {{0, 1}}}, 0, 0, false},
	"one element":      {1, 1, 1, 0, 1, 0, [][]cachedRun{{{0, 1}}, {{0, 2}}}, 0, 0, false},
	"many heads":       {160, 1, 8, 0, 1, 0, [][]cachedRun{{{0, 3}}, {{0, 1}}}, 0, 0, false},
	"no token":         {4, 2, 16, 0, 2, 0, [][]cachedRun{{}}, 0, 0, false},
	"ALiBi":            {12, 4, 64, 0, 2, 0, [][]cachedRun{{{1, 1}, {0, 1}}, {{1, 4}}, {{0, 20}}}, 1022, 0, true},
	"cap, window":      {2, 2, 128, 400, 2, 0, [][]cachedRun{{{0, 30}}, {{0, 1}, {1, 30}}, {{0, 9}}}, 700, 2, false},
	"ALiBi and cap":    {8, 4, 64, 0, 3, 1, [][]cachedRun{{{0, 1}, {2, 1}}, {{0, 8}, {1, 2}, {2, 12}}}, 900, 1.5, true},
	"head size of 256": {2, 1, 256, 0, 2, 0, [][]cachedRun{{{0, 40}, {1, 3}}, {{0, 1}, {1, 1}}}, 0, 0, false},
}

func TestCachedAttention(t *testing.T) {
	for name, c := range cachedCases {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, 7))
			got := c.cache(t, attentionDevice, tensor.F32, cachedAttention)
			want := c.cache(t, ref.New(), tensor.F64, ref.New().Ops().CachedAttention)
			width := (c.heads + 2*c.kv) * c.dim
			for i, runs := range c.steps {
				n := tokensOf(runs)
				data := randomFloats(r, n*width, 1)
				qkv, _ := wide(t, n, width, c.extra)
				fill(qkv, data)
				o, check := wide(t, n, c.heads*c.dim, c.extra)
				ro := newRef(t, nil, n, c.heads*c.dim)
				got.step(t, runs, qkv, o)
				want.step(t, runs, newRef(t, data, n, width), ro)
				near(t, fmt.Sprintf("O of step %d", i), get(o), tensor.GetFloat64(ro), 3e-6)
				check()
			}
			near(t, "K", got.k.Float32(), want.k.Float64(), 0)
			near(t, "V", got.v.Float32(), want.v.Float64(), 0)
		})
	}
}

// The same tokens, through a cache in one go, token by token and in pieces, and
// packed without a cache, are the same up to rounding.
func TestCachedAttentionPrefillEqualsDecode(t *testing.T) {
	for _, window := range []int{0, 50, 300} {
		c := cachedCase{heads: 4, kv: 2, dim: 32, window: window, slots: 1, steps: [][]cachedRun{{{0, 700}}}}
		n, width := 700, (c.heads+2*c.kv)*c.dim
		qkv, _ := wide(t, n, width, 0)
		fill(qkv, randomFloats(rand.New(rand.NewPCG(1, 9)), n*width, 1))
		p := attentionCase{heads: c.heads, kv: c.kv, dim: c.dim, window: window, lengths: []int{n}}
		packed := p.on(t, get(qkv), make([]float32, n*c.heads*c.dim))
		attention(packed.forward)
		want := make([]float64, 0, n*c.heads*c.dim)
		for _, x := range get(packed.forward.O) {
			want = append(want, float64(x))
		}
		for _, size := range []int{700, 1, 6, 100} {
			h := c.cache(t, attentionDevice, tensor.F32, cachedAttention)
			o, _ := wide(t, n, c.heads*c.dim, 0)
			for at := 0; at < n; at += size {
				m := min(size, n-at)
				h.step(t, []cachedRun{{0, m}}, qkv.Slice(at, m), o.Slice(at, m))
			}
			near(t, fmt.Sprintf("O with window %d in runs of %d", window, size), get(o), want, 1e-6)
		}
	}
}

// A token's result is the same to the last bit whatever else is in the batch,
// in whatever order, on any number of threads.
func TestCachedAttentionBatchInvariant(t *testing.T) {
	c := cachedCase{heads: 8, kv: 2, dim: 48, slots: 6, steps: [][]cachedRun{{{0, 600}, {1, 1500}, {2, 3}, {3, 64}, {4, 1}, {5, 700}}, {{0, 3}, {1, 3}, {2, 3}, {3, 3}, {4, 3}, {5, 3}}}}
	width := (c.heads + 2*c.kv) * c.dim
	r := rand.New(rand.NewPCG(3, 9))
	prompts, next := make([][]float32, c.slots), make([][]float32, c.slots)
	for _, run := range c.steps[0] {
		prompts[run.slot], next[run.slot] = randomFloats(r, run.n*width, 1), randomFloats(r, 3*width, 1)
	}
	// run fills slots with their prompts in one batch and then decodes three
	// tokens in batches of the same order.
	run := func(order []int) map[int][]float32 {
		h := c.cache(t, attentionDevice, tensor.F32, cachedAttention)
		out := map[int][]float32{}
		for step := range 4 {
			var runs []cachedRun
			var data []float32
			for _, s := range order {
				if step == 0 {
					runs, data = append(runs, cachedRun{s, len(prompts[s]) / width}), append(data, prompts[s]...)
				} else {
					runs, data = append(runs, cachedRun{s, 1}), append(data, next[s][(step-1)*width:][:width]...)
				}
			}
			n := tokensOf(runs)
			qkv, _ := wide(t, n, width, 0)
			fill(qkv, data)
			o, _ := wide(t, n, c.heads*c.dim, 0)
			h.step(t, runs, qkv, o)
			all := get(o)
			for _, x := range runs {
				out[x.slot] = append(out[x.slot], all[:x.n*c.heads*c.dim]...)
				all = all[x.n*c.heads*c.dim:]
			}
		}
		return out
	}
	var want map[int][]float32
	withThreads(1, func() { want = run([]int{0, 1, 2, 3, 4, 5}) })
	for _, threads := range []int{1, 2, 3} {
		withThreads(threads, func() {
			for _, order := range [][]int{{5, 3, 1, 0, 2, 4}, {0}, {1}, {2, 5}, {3}, {4}} {
				for slot, o := range run(order) {
					equalBits(t, fmt.Sprintf("slot %d in batch %v on %d threads: O", slot, order, threads), want[slot], o)
				}
			}
		})
	}
}

func TestCachedAttentionAllocatesNothing(t *testing.T) {
	c := cachedCase{heads: 8, kv: 2, dim: 48, slots: 3, steps: [][]cachedRun{{{0, 100}, {1, 400}, {2, 3}}}}
	for _, runs := range [][]cachedRun{c.steps[0], {{0, 1}, {1, 1}, {2, 1}}} {
		h := c.cache(t, attentionDevice, tensor.F32, cachedAttention)
		n, width := tokensOf(runs), (c.heads+2*c.kv)*c.dim
		qkv, _ := wide(t, n, width, 0)
		fill(qkv, make([]float32, n*width))
		o, _ := wide(t, n, c.heads*c.dim, 0)
		h.at[1] = 400 - runs[1].n
		a := h.step(t, runs, qkv, o)
		if allocs := testing.AllocsPerRun(20, func() { cachedAttention(a) }); allocs != 0 {
			t.Errorf("CachedAttention of %v allocates %v times", runs, allocs)
		}
	}
}

func TestCachedAttentionRefusesBrokenIndices(t *testing.T) {
	c := cachedCase{heads: 2, kv: 1, dim: 8, slots: 2, steps: [][]cachedRun{{{0, 3}}}}
	for name, spoil := range map[string]func(*tensor.CachedAttention){
		"slot":     func(a *tensor.CachedAttention) { a.Slots.Int32()[1] = 2 },
		"negative": func(a *tensor.CachedAttention) { a.Slots.Int32()[0] = -1 },
		"position": func(a *tensor.CachedAttention) { a.Positions.Int32()[2] = int32(c.capacity()) },
		"cache":    func(a *tensor.CachedAttention) { a.K = a.K.Columns(0, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			h := c.cache(t, attentionDevice, tensor.F32, cachedAttention)
			qkv, _ := wide(t, 3, 32, 0)
			o, _ := wide(t, 3, 16, 0)
			a := h.step(t, c.steps[0], qkv, o)
			spoil(&a)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			cachedAttention(a)
		})
	}
}

func BenchmarkCachedAttention(b *testing.B) {
	for _, x := range []struct {
		name                        string
		heads, kv, dim, slots, past int
		n                           int
	}{
		{"15m-decode-1x200", 6, 6, 48, 1, 200, 1},
		{"8b-decode-8x1000", 32, 8, 128, 8, 1000, 1},
		{"8b-decode-1x16000", 32, 8, 128, 1, 16000, 1},
		{"mha-decode-4x2000", 16, 16, 64, 4, 2000, 1},
		{"8b-prefill-1x512", 32, 8, 128, 1, 0, 512},
	} {
		b.Run(x.name, func(b *testing.B) {
			c := cachedCase{heads: x.heads, kv: x.kv, dim: x.dim, slots: x.slots, steps: [][]cachedRun{{{0, x.past + x.n}}}}
			h := c.cache(b, attentionDevice, tensor.F32, cachedAttention)
			r := rand.New(rand.NewPCG(1, 1))
			copy(h.k.Float32(), randomFloats(r, h.k.Len(), 1))
			copy(h.v.Float32(), randomFloats(r, h.v.Len(), 1))
			var runs []cachedRun
			for s := range x.slots {
				h.at[s] = x.past
				runs = append(runs, cachedRun{s, x.n})
			}
			n, width := tokensOf(runs), (c.heads+2*c.kv)*c.dim
			qkv, _ := wide(b, n, width, 0)
			fill(qkv, randomFloats(r, n*width, 1))
			o, _ := wide(b, n, c.heads*c.dim, 0)
			a := h.step(b, runs, qkv, o)
			for b.Loop() {
				cachedAttention(a)
			}
			keys := 0
			for i := range x.n {
				keys += x.slots * (x.past + i + 1)
			}
			seconds := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(4*float64(keys*x.heads*x.dim)/seconds/1e9, "GFLOP/s")
			if x.n == 1 {
				b.ReportMetric(8*float64(keys*x.kv*x.dim)/seconds/1e9, "GB/s")
			}
		})
	}
}
