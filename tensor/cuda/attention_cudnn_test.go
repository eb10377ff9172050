package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// openDNNDevice opens a BF16 device with cuDNN, or skips.
func openDNNDevice(t *testing.T, fast bool) *Device {
	if !onGPU() {
		t.Skip("cuDNN needs a GPU: set " + testGPU)
	}
	d := open(t, Options{Float: tensor.BF16, Fast: fast})
	t.Cleanup(d.Close)
	if d.dnn.handle == 0 {
		t.Skip("no cuDNN: ", d.cudnnWhyNot())
	}
	t.Logf("%s, cuDNN %s of %s, NVRTC %s %v", d.gpu.Name, d.dnn.lib.Version, d.dnn.lib.Path, d.dnn.nvrtc.Path, d.dnn.nvrtc.Err)
	return d
}

// dnnCase is an attention of sequences of these lengths.
type dnnCase struct {
	name    string
	shape   tensor.AttentionShape
	lengths []int
	dense   bool
}

func attentionOf(heads, kvHeads, headDim, window int) tensor.AttentionShape {
	return tensor.AttentionShape{Heads: heads, KVHeads: kvHeads, HeadDim: headDim, Window: window, Scale: float32(1 / math.Sqrt(float64(headDim)))}
}

var dnnCases = []dnnCase{
	{"dense D64", attentionOf(2, 2, 64, 0), []int{256, 256}, true},
	{"dense D128", attentionOf(2, 2, 128, 0), []int{256, 256, 256}, true},
	{"dense D128, odd length", attentionOf(2, 2, 128, 0), []int{201, 201}, true},
	{"dense D80", attentionOf(2, 2, 80, 0), []int{192, 192}, true},
	{"dense GQA", attentionOf(8, 2, 128, 0), []int{320, 320}, true},
	{"dense MQA D64", attentionOf(4, 1, 64, 0), []int{320}, true},
	{"dense window", attentionOf(2, 2, 128, 70), []int{300, 300}, true},
	{"packed D64", attentionOf(2, 2, 64, 0), []int{100, 300, 112}, false},
	{"packed D128", attentionOf(2, 2, 128, 0), []int{100, 300, 112}, false},
	{"packed, odd and empty", attentionOf(2, 2, 128, 0), []int{0, 1, 257, 0, 0, 33, 129, 0}, false},
	{"packed GQA, odd and empty", attentionOf(8, 2, 128, 0), []int{7, 0, 200, 65}, false},
	{"packed GQA D64", attentionOf(4, 1, 64, 0), []int{130, 3, 64}, false},
	{"packed window", attentionOf(4, 2, 128, 33), []int{100, 0, 300, 1}, false},
	{"packed, equal", attentionOf(2, 2, 128, 0), []int{256, 256}, false},
}

// dnnResult are relative errors (‖x−want‖/‖want‖) of a case.
type dnnResult struct{ o, lse, dq, dk, dv float64 }

func (r dnnResult) String() string {
	return fmt.Sprintf("o %.2e lse %.2e dq %.2e dk %.2e dv %.2e", r.o, r.lse, r.dq, r.dk, r.dv)
}

// TestCuDNNAttention compares each case with the reference device. It poisons the
// workspace with NaN, runs twice, and then tries what the device can do otherwise
// (dnn's flags), so that one run shows what cuDNN makes of each.
func TestCuDNNAttention(t *testing.T) {
	d := openDNNDevice(t, true)
	for _, variant := range []struct {
		name       string
		set        func(n *dnn)
		must, lses bool
		only       func(c dnnCase) bool
	}{
		{"as used", func(*dnn) {}, true, true, func(dnnCase) bool { return true }},
		{"cuDNN's layout of statistics", func(n *dnn) { n.tokenStats = true }, false, false, func(c dnnCase) bool { return c.shape.HeadDim == 128 && c.shape.Window == 0 && len(c.lengths) > 2 }},
		{"dQ's accumulator zeroed", func(n *dnn) { n.zeroDQ = true }, false, true, func(c dnnCase) bool { return !c.dense }},
		{"full heads by tokens", func(n *dnn) { n.fullRagged = true }, false, true, func(c dnnCase) bool { return !c.dense && c.shape.Heads != c.shape.KVHeads }},
	} {
		for _, c := range dnnCases {
			if !variant.only(c) {
				continue
			}
			d.dnn.tokenStats, d.dnn.zeroDQ, d.dnn.fullRagged, d.dnn.why = false, false, false, nil
			variant.set(&d.dnn)
			label := variant.name + ": " + c.name
			report := t.Logf
			if variant.must {
				report = t.Errorf
			}
			r, err := runDNN(t, d, c)
			bad := func(v, limit float64) bool { return !(v <= limit) }
			switch {
			case err != nil:
				report("%s: %v", label, err)
			case bad(r.o, 8e-3) || variant.lses && bad(r.lse, 2e-3) || bad(r.dq, 1.5e-2) || bad(r.dk, 1.5e-2) || bad(r.dv, 1.5e-2):
				report("%s: WRONG %v", label, r)
			default:
				t.Logf("%s: ok %v", label, r)
			}
		}
	}
	d.dnn.tokenStats, d.dnn.zeroDQ, d.dnn.fullRagged = false, false, false
}

// runDNN runs a case twice, forward and backward, over a poisoned workspace.
func runDNN(t *testing.T, d *Device, c dnnCase) (r dnnResult, err error) {
	rng := rand.New(rand.NewPCG(1, 2))
	starts, longest := []int32{0}, 0
	for _, n := range c.lengths {
		starts = append(starts, starts[len(starts)-1]+int32(n))
		longest = max(longest, n)
	}
	tokens, a := int(starts[len(starts)-1]), c.shape
	width, out := (a.Heads+2*a.KVHeads)*a.HeadDim, a.Heads*a.HeadDim
	normal := func(n int) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = float64(math.Float32frombits(math.Float32bits(float32(rng.NormFloat64())) &^ 0xffff)) // exact in bfloat16
		}
		return v
	}
	qkvValues, dOValues := normal(tokens*width), normal(tokens*out)

	type side struct{ qkv, o, lse, dO, dQKV, starts tensor.Tensor }
	var buffers []*tensor.Buffer
	defer func() {
		for _, b := range buffers {
			b.Free()
		}
	}()
	makeSide := func(dev tensor.Device, wide tensor.Dtype) (s side) {
		at := func(typ tensor.Dtype, shape ...int) tensor.Tensor {
			x, b, e := tensor.New(dev, typ, shape...)
			if e != nil {
				t.Fatal(e)
			}
			buffers = append(buffers, b)
			return x
		}
		f := dev.Float()
		s.qkv, s.o, s.lse = at(f, tokens, width), at(f, tokens, out), at(wide, a.Heads, tokens)
		s.dO, s.dQKV, s.starts = at(f, tokens, out), at(f, tokens, width), at(tensor.I32, len(starts))
		tensor.SetFloat64(s.qkv, qkvValues)
		tensor.SetFloat64(s.dO, dOValues)
		tensor.SetInt32(s.starts, starts)
		return s
	}
	host := ref.New()
	want := makeSide(host, tensor.F64)
	host.Ops().Attention(tensor.Attention{AttentionShape: a, O: want.o, LSE: want.lse, QKV: want.qkv, Starts: want.starts, Longest: longest, Dense: c.dense})
	host.Ops().AttentionBackward(tensor.AttentionBackward{AttentionShape: a, DQKV: want.dQKV, DO: want.dO, O: want.o, LSE: want.lse, QKV: want.qkv,
		Starts: want.starts, Longest: longest, Dense: c.dense})

	got := makeSide(d, tensor.F32)
	for range 2 {
		poison(d)
		if !d.cudnnAttention(tensor.Attention{AttentionShape: a, O: got.o, LSE: got.lse, QKV: got.qkv, Starts: got.starts, Longest: longest, Dense: c.dense}) {
			return r, fmt.Errorf("forward not taken: %s", d.cudnnWhyNot())
		}
		if err := d.Sync(); err != nil {
			return r, fmt.Errorf("forward: %w", err)
		}
		poison(d)
		if !d.cudnnAttentionBackward(tensor.AttentionBackward{AttentionShape: a, DQKV: got.dQKV, DO: got.dO, O: got.o, LSE: got.lse, QKV: got.qkv,
			Starts: got.starts, Longest: longest, Dense: c.dense}) {
			return r, fmt.Errorf("backward not taken: %s", d.cudnnWhyNot())
		}
		if err := d.Sync(); err != nil {
			return r, fmt.Errorf("backward: %w", err)
		}
	}
	r.o = relative(tensor.GetFloat64(got.o), tensor.GetFloat64(want.o), 1, 0, 1)
	r.lse = relative(tensor.GetFloat64(got.lse), tensor.GetFloat64(want.lse), 1, 0, 1)
	g, w := tensor.GetFloat64(got.dQKV), tensor.GetFloat64(want.dQKV)
	r.dq = relative(g, w, width, 0, out)
	r.dk = relative(g, w, width, out, out+a.KVHeads*a.HeadDim)
	r.dv = relative(g, w, width, out+a.KVHeads*a.HeadDim, width)
	return r, nil
}

// poison fills the workspace with NaN.
func poison(d *Device) {
	const bytes = 64 << 20
	at := d.workspace(bytes)
	d.enter()
	defer d.leave()
	d.fail(check("cuMemsetD8Async", call(cu.memsetD8Async, at, 0xff, uintptr(d.memory.spaceSize), d.stream)))
}

// relative is the distance of columns from to of rows, relative to the length of want's.
func relative(got, want []float64, row, from, to int) float64 {
	var num, den float64
	for i := range want {
		if c := i % row; c >= from && c < to {
			e := got[i] - want[i]
			num, den = num+e*e, den+want[i]*want[i]
		}
	}
	return math.Sqrt(num / den)
}

// TestCuDNNDeterministic runs the deterministic backward pass of dense rows twice, and
// asks for that of packed rows, which is refused.
func TestCuDNNDeterministic(t *testing.T) {
	d := openDNNDevice(t, false)
	for _, c := range []dnnCase{dnnCases[1], dnnCases[4], dnnCases[8]} { // each plan takes a second or two
		d.dnn.why = nil
		r, err := runDNN(t, d, c)
		t.Logf("deterministic %s: %v %v", c.name, r, err)
		if c.dense == (err != nil) {
			t.Errorf("deterministic %s: %v", c.name, err)
		}
		if c.dense && err == nil && !(r.o < 8e-3 && r.lse < 2e-3 && r.dq < 1.5e-2 && r.dk < 1.5e-2 && r.dv < 1.5e-2) {
			t.Errorf("deterministic %s: WRONG %v", c.name, r)
		}
	}
}

// TestCuDNNSpeed prints what training shapes reach: TFLOP/s of the causal half, and the
// time that making the plans takes.
func TestCuDNNSpeed(t *testing.T) {
	d := openDNNDevice(t, true)
	for _, deterministic := range []bool{false, true} {
		d.opt.Fast = !deterministic
		for _, c := range []struct{ sequences, heads, kvHeads, longest, headDim int }{
			{4, 32, 32, 2048, 128}, {4, 32, 32, 4096, 128}, {8, 32, 32, 2048, 64}, {8, 12, 12, 2048, 64}, {8, 16, 8, 2048, 128},
		} {
			for _, dense := range []bool{true, false} {
				if deterministic && !dense {
					continue
				}
				timeDNN(t, d, attentionOf(c.heads, c.kvHeads, c.headDim, 0), c.sequences, c.longest, dense)
			}
		}
	}
}

func timeDNN(t *testing.T, d *Device, a tensor.AttentionShape, sequences, longest int, dense bool) {
	tokens := sequences * longest
	width, out := (a.Heads+2*a.KVHeads)*a.HeadDim, a.Heads*a.HeadDim
	var buffers []*tensor.Buffer
	at := func(typ tensor.Dtype, shape ...int) tensor.Tensor {
		x, b, err := tensor.New(d, typ, shape...)
		if err != nil {
			t.Fatal(err)
		}
		buffers = append(buffers, b)
		return x
	}
	defer func() {
		for _, b := range buffers {
			b.Free()
		}
	}()
	qkv, dQKV, o, dO, lse := at(tensor.BF16, tokens, width), at(tensor.BF16, tokens, width), at(tensor.BF16, tokens, out), at(tensor.BF16, tokens, out), at(tensor.F32, a.Heads, tokens)
	values := make([]float32, tokens*width)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range values {
		values[i] = float32(rng.IntN(257)-128) / 64 // as hot as training: random bits
	}
	tensor.SetFloat32(qkv, values)
	tensor.SetFloat32(dO, values[:tokens*out])
	starts := at(tensor.I32, sequences+1)
	begin := make([]int32, sequences+1)
	for i := range begin {
		begin[i] = int32(i * longest)
	}
	tensor.SetInt32(starts, begin)
	forward := func() bool {
		return d.cudnnAttention(tensor.Attention{AttentionShape: a, O: o, LSE: lse, QKV: qkv, Starts: starts, Longest: longest, Dense: dense})
	}
	backward := func() bool {
		return d.cudnnAttentionBackward(tensor.AttentionBackward{AttentionShape: a, DQKV: dQKV, DO: dO, O: o, LSE: lse, QKV: qkv, Starts: starts, Longest: longest, Dense: dense})
	}
	flops := 2 * float64(sequences*a.Heads*a.HeadDim) * float64(longest) * float64(longest)
	line := fmt.Sprintf("B%d H%d KV%d S%d D%d dense %v deterministic %v:", sequences, a.Heads, a.KVHeads, longest, a.HeadDim, dense, !d.opt.Fast)
	for _, pass := range []struct {
		name string
		f    func() bool
		work float64
	}{{"forward", forward, flops}, {"backward", backward, 2.5 * flops}} {
		d.dnn.why = nil
		begun := time.Now()
		if !pass.f() {
			line += fmt.Sprintf(" %s not taken: %s;", pass.name, d.cudnnWhyNot())
			continue
		}
		made := time.Since(begun)
		if err := d.Sync(); err != nil {
			t.Errorf("%s %s: %v", line, pass.name, err)
			return
		}
		const n = 20
		for range 3 {
			pass.f()
		}
		d.Sync()
		begun = time.Now()
		for range n {
			pass.f()
		}
		enqueued := time.Since(begun)
		if err := d.Sync(); err != nil {
			t.Errorf("%s %s: %v", line, pass.name, err)
			return
		}
		took := time.Since(begun).Seconds() / n
		line += fmt.Sprintf(" %s %.0f TFLOP/s (%.3f ms, %.0f µs to enqueue, plan %d ms);", pass.name, pass.work/took/1e12, took*1e3,
			float64(enqueued.Microseconds())/n, made.Milliseconds())
	}
	t.Logf("%s workspace %d MB", line, d.memory.spaceSize>>20)
}

// TestCuDNNGraph captures both passes as a CUDA graph and replays it.
func TestCuDNNGraph(t *testing.T) {
	d := openDNNDevice(t, true)
	for _, c := range []dnnCase{dnnCases[1], dnnCases[9], dnnCases[10]} {
		a := c.shape
		starts, longest := []int32{0}, 0
		for _, n := range c.lengths {
			starts = append(starts, starts[len(starts)-1]+int32(n))
			longest = max(longest, n)
		}
		tokens := int(starts[len(starts)-1])
		width, out := (a.Heads+2*a.KVHeads)*a.HeadDim, a.Heads*a.HeadDim
		at := func(typ tensor.Dtype, shape ...int) tensor.Tensor {
			x, b, err := tensor.New(d, typ, shape...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Free)
			return x
		}
		qkv, dQKV, o, dO, lse := at(tensor.BF16, tokens, width), at(tensor.BF16, tokens, width), at(tensor.BF16, tokens, out), at(tensor.BF16, tokens, out), at(tensor.F32, a.Heads, tokens)
		begin := at(tensor.I32, len(starts))
		tensor.SetInt32(begin, starts)
		values := make([]float32, tokens*width)
		rng := rand.New(rand.NewPCG(5, 6))
		for i := range values {
			values[i] = float32(rng.IntN(257)-128) / 64
		}
		tensor.SetFloat32(qkv, values)
		tensor.SetFloat32(dO, values[:tokens*out])
		both := func() {
			d.cudnnAttention(tensor.Attention{AttentionShape: a, O: o, LSE: lse, QKV: qkv, Starts: begin, Longest: longest, Dense: c.dense})
			d.cudnnAttentionBackward(tensor.AttentionBackward{AttentionShape: a, DQKV: dQKV, DO: dO, O: o, LSE: lse, QKV: qkv, Starts: begin, Longest: longest, Dense: c.dense})
		}
		both()
		if err := d.Sync(); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		want, wantO := tensor.GetFloat64(dQKV), tensor.GetFloat64(o)
		graph, err := d.Capture(both)
		if err != nil {
			t.Errorf("%s: capture: %v", c.name, err)
			continue
		}
		d.ops.Zero(dQKV)
		d.ops.Zero(o)
		graph.Launch()
		if err := d.Sync(); err != nil {
			t.Errorf("%s: replay: %v", c.name, err)
			continue
		}
		errO, errG := relative(tensor.GetFloat64(o), wantO, 1, 0, 1), relative(tensor.GetFloat64(dQKV), want, 1, 0, 1)
		t.Logf("%s: replayed: o off by %.1e, dQKV by %.1e", c.name, errO, errG)
		if !(errO == 0) || !(errG < 1e-3) {
			t.Errorf("%s: a replayed graph gives other numbers: o by %.1e, dQKV by %.1e", c.name, errO, errG)
		}
		graph.Free()
	}
}

// TestRaggedOffsets needs no cuDNN: its kernel runs on the emulator as well.
func TestRaggedOffsets(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16})
	defer d.Close()
	for _, lengths := range [][]int{{3}, {0, 7, 0, 1}, make([]int, 300)} {
		starts := []int32{0}
		for i, n := range lengths {
			if len(lengths) == 300 {
				n = i % 5
				lengths[i] = n
			}
			starts = append(starts, starts[len(starts)-1]+int32(n))
		}
		s := sdpa{packed: true, sequences: len(lengths), q: 96, o: 32, statsToken: 1, dO: 40, dQ: 104}
		at, b, err := tensor.New(d, tensor.I32, len(starts))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Free()
		tensor.SetInt32(at, starts)
		space := newLayout(300)
		first := space.ragged(s)
		if first != 512 || space.bytes%256 != 0 {
			t.Errorf("the offsets lie at %d of %d bytes", first, space.bytes)
		}
		to, b2, err := tensor.New(d, tensor.I32, space.bytes/4)
		if err != nil {
			t.Fatal(err)
		}
		defer b2.Free()
		var m [roles]uintptr
		d.raggedOffsets(&m, at, s, to.Addr+uintptr(first))
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		all := tensor.GetInt32(to)
		for r, stride := range map[role]int32{roleOffsetQ: 96, roleOffsetKV: 96, roleOffsetO: 32, roleOffsetStats: 1, roleOffsetDO: 40, roleOffsetDQKV: 104} {
			for i, v := range all[(m[r]-to.Addr)/4:][:len(starts)] {
				if v != starts[i]*stride {
					t.Errorf("%d sequences, role %d: offset %d is %d, want %d", len(lengths), r, i, v, starts[i]*stride)
				}
			}
		}
		for i, v := range all[(m[roleLengths]-to.Addr)/4:][:len(lengths)] {
			if int(v) != lengths[i] {
				t.Errorf("%d sequences: length %d is %d, want %d", len(lengths), i, v, lengths[i])
			}
		}
	}
}
