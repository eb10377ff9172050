package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

var attentionDevice = New()

// wide returns an F32 matrix of n rows with extra columns on both sides that
// belong to nobody, and the function that checks that nobody wrote to them.
func wide(t testing.TB, n, cols, extra int) (tensor.Tensor, func()) {
	whole, buffer, err := tensor.New(attentionDevice, tensor.F32, n, cols+2*extra)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(buffer.Free)
	all := whole.Float32()
	for i := range all {
		all[i] = 1e30
	}
	check := func() {
		t.Helper()
		for i, x := range all {
			if c := i % (cols + 2*extra); (c < extra || c >= cols+extra) && x != 1e30 {
				t.Fatalf("wrote %v to column %d of row %d, outside of the operand", x, c-extra, i/(cols+2*extra))
			}
		}
	}
	return whole.Columns(extra, cols), check
}

// fill sets the elements of x in order.
func fill(x tensor.Tensor, v []float32) {
	data := x.Float32()
	for i := range x.Rows() {
		copy(data[i*x.Stride:][:x.Cols()], v[i*x.Cols():])
	}
}

// get returns the elements of x in order.
func get(x tensor.Tensor) []float32 {
	out := make([]float32, 0, x.Len())
	data := x.Float32()
	for i := range x.Rows() {
		out = append(out, data[i*x.Stride:][:x.Cols()]...)
	}
	return out
}

func randomFloats(r *rand.Rand, n int, scale float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(scale * r.NormFloat64())
	}
	return v
}

func newRef(t testing.TB, v []float32, shape ...int) tensor.Tensor {
	x, buffer, err := tensor.New(ref.New(), tensor.F64, shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(buffer.Free)
	if v != nil {
		tensor.SetFloat32(x, v)
	}
	return x
}

func newInts(t testing.TB, dev tensor.Device, v []int32) tensor.Tensor {
	x, buffer, err := tensor.New(dev, tensor.I32, len(v))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(buffer.Free)
	tensor.SetInt32(x, v)
	return x
}

// near checks that got is within tol of want, relative to the largest of want.
func near(t testing.TB, what string, got []float32, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", what, len(got), len(want))
	}
	top := 0.0
	for _, w := range want {
		top = max(top, math.Abs(w))
	}
	for i, w := range want {
		if e := math.Abs(float64(got[i]) - w); !(e <= tol*top) {
			t.Fatalf("%s[%d] is %v, want %v: off by %.2g of the largest, %v", what, i, got[i], w, e/top, top)
		}
	}
}

func equalBits(t testing.TB, what string, a, b []float32) {
	t.Helper()
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			t.Fatalf("%s[%d]: %v and %v", what, i, a[i], b[i])
		}
	}
}

// withThreads runs f with n threads.
func withThreads(n int, f func()) {
	before := Threads()
	SetThreads(n)
	defer SetThreads(before)
	f()
}

type attentionCase struct {
	heads, kv, dim, window int
	lengths                []int
	extra                  int
	spread                 float64 // of the elements of QKV
	softCap                float32
	alibi                  bool
}

func (c attentionCase) String() string {
	return fmt.Sprintf("heads=%d,%d,dim=%d,window=%d,lengths=%v,extra=%d,spread=%g,cap=%g,alibi=%v",
		c.heads, c.kv, c.dim, c.window, c.lengths, c.extra, c.spread, c.softCap, c.alibi)
}

func (c attentionCase) shape() tensor.AttentionShape {
	return tensor.AttentionShape{Heads: c.heads, KVHeads: c.kv, HeadDim: c.dim, Window: c.window, Scale: float32(1 / math.Sqrt(float64(c.dim))),
		SoftCap: c.softCap, ALiBi: c.alibi}
}

func (c attentionCase) starts() (starts []int32, longest int) {
	at := 0
	for _, n := range c.lengths {
		starts = append(starts, int32(at))
		at += n
		longest = max(longest, n)
	}
	return append(starts, int32(at)), longest
}

var attentionCases = []attentionCase{
	{1, 1, 16, 0, []int{5}, 0, 1, 0, false},
	{1, 1, 1, 0, []int{3, 1, 2}, 0, 1, 0, false},
	{2, 1, 3, 0, []int{7, 0, 9}, 3, 1, 0, false},
	{6, 6, 48, 0, []int{70, 130, 0, 1}, 0, 1, 0, false},
	{4, 2, 64, 0, []int{129, 64}, 5, 1, 0, false},
	{8, 1, 16, 0, []int{90, 33}, 1, 1, 0, false},
	{6, 2, 80, 0, []int{65}, 0, 1, 0, false},
	{7, 1, 8, 5, []int{40, 3}, 0, 1, 0, false},
	{2, 1, 128, 0, []int{150}, 2, 1, 0, false},
	{1, 1, 256, 0, []int{67}, 0, 1, 0, false},
	{3, 3, 16, 1, []int{20, 20}, 0, 1, 0, false},
	{4, 2, 16, 17, []int{200, 5, 16, 17, 18}, 0, 1, 0, false},
	{2, 1, 32, 64, []int{400}, 0, 1, 0, false},
	{2, 1, 32, 100, []int{333}, 4, 1, 0, false},
	{2, 1, 16, 1000, []int{60}, 0, 1, 0, false},
	{1, 1, 8, 0, []int{1300}, 0, 1, 0, false},     // several blocks of keys
	{1, 1, 8, 700, []int{1500}, 0, 1, 0, false},   // and a window over several
	{2, 1, 16, 0, []int{150}, 0, 30, 0, false},    // scores of hundreds
	{160, 1, 4, 0, []int{9}, 0, 1, 0, false},      // more query heads than rows of a block
	{4, 4, 32, 0, []int{0, 0, 0}, 0, 1, 0, false}, // no token
	{12, 4, 16, 0, []int{5, 1100}, 0, 1, 0, true},
	{2, 1, 32, 100, []int{333}, 4, 1, 0, true},
	{4, 2, 64, 0, []int{129, 64}, 5, 1, 2, false},
	{2, 1, 16, 0, []int{150}, 0, 30, 50, false}, // capped scores of hundreds
	{3, 3, 80, 70, []int{0, 200, 7}, 1, 2, 1.5, true},
	{2, 1, 8, 0, []int{900}, 0, 1, 3, true},
}

func randomAttention(r *rand.Rand) attentionCase {
	kv := 1 + r.IntN(3)
	c := attentionCase{heads: kv * (1 + r.IntN(8)), kv: kv, dim: []int{1, 3, 8, 16, 31, 48, 64}[r.IntN(7)], extra: r.IntN(4), spread: 1}
	if r.IntN(2) == 0 {
		c.window = 1 + r.IntN(150)
	}
	if r.IntN(3) == 0 {
		c.softCap = 1 + 3*r.Float32()
	}
	c.alibi = r.IntN(3) == 0
	for range 1 + r.IntN(4) {
		c.lengths = append(c.lengths, r.IntN(140))
	}
	return c
}

type attentionRun struct {
	forward  tensor.Attention
	backward tensor.AttentionBackward
	check    func()
}

func (c attentionCase) inputs(seed uint64) (qkv, do []float32) {
	starts, _ := c.starts()
	tokens := int(starts[len(starts)-1])
	r := rand.New(rand.NewPCG(seed, 1))
	return randomFloats(r, tokens*(c.heads+2*c.kv)*c.dim, c.spread), randomFloats(r, tokens*c.heads*c.dim, 1)
}

func (c attentionCase) on(t testing.TB, qkv, do []float32) attentionRun {
	starts, longest := c.starts()
	tokens := int(starts[len(starts)-1])
	var r attentionRun
	q, _ := wide(t, tokens, (c.heads+2*c.kv)*c.dim, c.extra)
	fill(q, qkv)
	d, _ := wide(t, tokens, c.heads*c.dim, c.extra)
	fill(d, do)
	o, oCheck := wide(t, tokens, c.heads*c.dim, c.extra)
	lse, lseCheck := wide(t, c.heads, tokens, c.extra)
	dq, dqCheck := wide(t, tokens, (c.heads+2*c.kv)*c.dim, c.extra)
	s := newInts(t, attentionDevice, starts)
	r.forward = tensor.Attention{AttentionShape: c.shape(), O: o, LSE: lse, QKV: q, Starts: s, Longest: longest}
	r.backward = tensor.AttentionBackward{AttentionShape: c.shape(), DQKV: dq, DO: d, O: o, LSE: lse, QKV: q, Starts: s, Longest: longest}
	r.check = func() { t.Helper(); oCheck(); lseCheck(); dqCheck() }
	return r
}

func checkAttention(t *testing.T, c attentionCase, seed uint64) {
	qkv, do := c.inputs(seed)
	starts, longest := c.starts()
	tokens := int(starts[len(starts)-1])
	width := (c.heads + 2*c.kv) * c.dim
	dev := ref.New()
	rq, rdo := newRef(t, qkv, tokens, width), newRef(t, do, tokens, c.heads*c.dim)
	ro, rl := newRef(t, nil, tokens, c.heads*c.dim), newRef(t, nil, c.heads, tokens)
	rd := newRef(t, nil, tokens, width)
	rs := newInts(t, dev, starts)
	dev.Ops().Attention(tensor.Attention{AttentionShape: c.shape(), O: ro, LSE: rl, QKV: rq, Starts: rs, Longest: longest})
	dev.Ops().AttentionBackward(tensor.AttentionBackward{AttentionShape: c.shape(), DQKV: rd, DO: rdo, O: ro, LSE: rl, QKV: rq, Starts: rs, Longest: longest})

	// A score of size s has an error of s units in the last place, and with it
	// whatever is made from exp(s).
	tol := 3e-6 * max(1, c.spread*c.spread)
	run := c.on(t, qkv, do)
	attention(run.forward)
	near(t, "O", get(run.forward.O), tensor.GetFloat64(ro), tol)
	near(t, "LSE", get(run.forward.LSE), tensor.GetFloat64(rl), 2e-6)
	attentionBackward(run.backward)
	near(t, "DQKV", get(run.backward.DQKV), tensor.GetFloat64(rd), 2*tol)
	run.check()
}

func TestAttention(t *testing.T) {
	for _, c := range attentionCases {
		t.Run(c.String(), func(t *testing.T) { checkAttention(t, c, 1) })
	}
}

func TestAttentionRandomShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	for i := range 20 {
		c := randomAttention(r)
		t.Run(c.String(), func(t *testing.T) { checkAttention(t, c, uint64(i)) })
	}
}

// One sequence and few heads take the schedule of blocks on many threads, that of
// pairs on one; both must give the same bits.
func TestAttentionThreads(t *testing.T) {
	cases := append([]attentionCase{{1, 1, 48, 0, []int{500}, 0, 1, 0, false}, {4, 1, 16, 70, []int{333}, 0, 1, 0, false}}, attentionCases...)
	byPairs := map[bool]int{}
	for _, c := range cases {
		qkv, do := c.inputs(3)
		var o, lse, d []float32
		for _, threads := range []int{1, 2, 16} {
			withThreads(threads, func() {
				run := c.on(t, qkv, do)
				attention(run.forward)
				attentionBackward(run.backward)
				a, b, e := get(run.forward.O), get(run.forward.LSE), get(run.backward.DQKV)
				if o == nil {
					o, lse, d = a, b, e
				}
				what := fmt.Sprintf("%v with %d threads: ", c, threads)
				equalBits(t, what+"O", o, a)
				equalBits(t, what+"LSE", lse, b)
				equalBits(t, what+"DQKV", d, e)
				if len(e) > 0 {
					byPairs[lastByPairs()]++
				}
			})
		}
	}
	if byPairs[true] == 0 || byPairs[false] == 0 {
		t.Errorf("schedules taken, by pairs or not: %v; the cases must reach both", byPairs)
	}
}

func lastByPairs() bool {
	j := attentionGrads.take()
	defer attentionGrads.give(j)
	return j.byPairs
}

// A sequence's attention doesn't depend on its neighbours in the batch.
func TestAttentionPackedEqualsAlone(t *testing.T) {
	c := attentionCase{4, 2, 48, 0, []int{100, 37, 200}, 0, 1, 0, false}
	qkv, do := c.inputs(5)
	run := c.on(t, qkv, do)
	attention(run.forward)
	attentionBackward(run.backward)
	o, d := get(run.forward.O), get(run.backward.DQKV)
	width, at := (c.heads+2*c.kv)*c.dim, 0
	for _, n := range c.lengths {
		alone := c
		alone.lengths = []int{n}
		one := alone.on(t, qkv[at*width:][:n*width], do[at*c.heads*c.dim:][:n*c.heads*c.dim])
		attention(one.forward)
		attentionBackward(one.backward)
		equalBits(t, "O", get(one.forward.O), o[at*c.heads*c.dim:])
		equalBits(t, "DQKV", get(one.backward.DQKV), d[at*width:])
		at += n
	}
}

func TestAttentionAllocatesNothing(t *testing.T) {
	c := attentionCase{4, 2, 48, 0, []int{100, 37, 200}, 0, 1, 0, false}
	qkv, do := c.inputs(5)
	run := c.on(t, qkv, do)
	if n := testing.AllocsPerRun(20, func() { attention(run.forward) }); n != 0 {
		t.Errorf("Attention allocates %v times", n)
	}
	if n := testing.AllocsPerRun(20, func() { attentionBackward(run.backward) }); n != 0 {
		t.Errorf("AttentionBackward by pairs allocates %v times", n)
	}
	c.lengths, c.kv = []int{400}, 1
	qkv, do = c.inputs(5)
	run = c.on(t, qkv, do)
	attention(run.forward)
	if n := testing.AllocsPerRun(20, func() { attentionBackward(run.backward) }); n != 0 {
		t.Errorf("AttentionBackward by blocks allocates %v times", n)
	}
}

func TestAttentionRefusesBrokenShapes(t *testing.T) {
	for name, spoil := range map[string]func(*tensor.Attention){
		"heads":       func(a *tensor.Attention) { a.KVHeads = 3 },
		"O":           func(a *tensor.Attention) { a.O = a.O.Slice(0, 1) },
		"last start":  func(a *tensor.Attention) { a.Starts.Int32()[2] = 8 },
		"first start": func(a *tensor.Attention) { a.Starts.Int32()[0] = 1 },
		"order":       func(a *tensor.Attention) { a.Starts.Int32()[1] = 10 },
	} {
		t.Run(name, func(t *testing.T) {
			c := attentionCase{4, 2, 8, 0, []int{3, 6}, 0, 1, 0, false}
			qkv, do := c.inputs(1)
			run := c.on(t, qkv, do)
			spoil(&run.forward)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			attention(run.forward)
		})
	}
}

// Causal FLOPs: 4 products' multiplications and additions a pair of tokens and
// head forward (2 products), 10 backward.
func benchmarkAttention(b *testing.B, c attentionCase, backward bool) {
	qkv, do := c.inputs(1)
	run := c.on(b, qkv, do)
	flops := 0.0
	for _, n := range c.lengths {
		pairs := 0
		for i := range n {
			seen := i + 1
			if c.window > 0 {
				seen = min(seen, c.window)
			}
			pairs += seen
		}
		flops += 4 * float64(pairs*c.heads*c.dim)
	}
	attention(run.forward)
	if backward {
		flops *= 2.5
	}
	for b.Loop() {
		if backward {
			attentionBackward(run.backward)
		} else {
			attention(run.forward)
		}
	}
	b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

var attentionBenchmarks = map[string]attentionCase{
	"15m-8x256":      {6, 6, 48, 0, []int{256, 256, 256, 256, 256, 256, 256, 256}, 0, 1, 0, false},
	"gqa8-1x2048":    {32, 4, 64, 0, []int{2048}, 0, 1, 0, false},
	"gqa4-window512": {16, 4, 128, 512, []int{2048}, 0, 1, 0, false},
	"alibi-1x2048":   {32, 4, 64, 0, []int{2048}, 0, 1, 0, true},
	"softcap-1x2048": {32, 4, 64, 0, []int{2048}, 0, 1, 50, false},
}

func BenchmarkAttention(b *testing.B) {
	for name, c := range attentionBenchmarks {
		b.Run(name, func(b *testing.B) { benchmarkAttention(b, c, false) })
	}
}

func BenchmarkAttentionBackward(b *testing.B) {
	for name, c := range attentionBenchmarks {
		b.Run(name, func(b *testing.B) { benchmarkAttention(b, c, true) })
	}
}
