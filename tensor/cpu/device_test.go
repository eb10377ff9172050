package cpu

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// place makes a tensor of the device's float type that holds v (zeros if nil).
func place(t testing.TB, dev tensor.Device, v []float32, shape ...int) tensor.Tensor {
	t.Helper()
	x, b, err := tensor.New(dev, dev.Float(), shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	if v != nil {
		tensor.SetFloat32(x, v)
	}
	return x
}

func placeInts(t testing.TB, dev tensor.Device, v []int32) tensor.Tensor {
	t.Helper()
	x, b, err := tensor.New(dev, tensor.I32, len(v))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	tensor.SetInt32(x, v)
	return x
}

func placeDoubles(t testing.TB, dev tensor.Device, v []float64) tensor.Tensor {
	t.Helper()
	x, b, err := tensor.New(dev, tensor.F64, len(v))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	tensor.SetFloat64(x, v)
	return x
}

// rowOps is a set of calls, one of each row operation, on shapes that make many
// tasks, with what they write.
type rowOps struct {
	names   []string
	calls   []func()
	results [][]tensor.Tensor
}

func newRowOps(t testing.TB, dev tensor.Device, tokens, hidden int) *rowOps {
	r := rand.New(rand.NewPCG(11, 12))
	random := func(shape ...int) tensor.Tensor {
		n := 1
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return place(t, dev, v, shape...)
	}
	blank := func(shape ...int) tensor.Tensor { return place(t, dev, nil, shape...) }
	ops := dev.Ops()
	set := &rowOps{}
	call := func(name string, f func(), results ...tensor.Tensor) {
		set.names = append(set.names, name)
		set.calls = append(set.calls, f)
		set.results = append(set.results, results)
	}

	const vocab, heads = 300, 5
	ids, positions := make([]int32, tokens), make([]int32, tokens)
	for i := range ids {
		ids[i], positions[i] = int32(r.IntN(vocab)), int32(r.IntN(64))
	}
	id, position := placeInts(t, dev, ids), placeInts(t, dev, positions)
	x, y, delta, w := random(tokens, hidden), blank(tokens, hidden), random(tokens, hidden), random(hidden)
	call("Add", func() { ops.Add(y, x, delta) }, y)
	call("Scale", func() { ops.Scale(y, 0.999) }, y)
	call("Zero", func() { ops.Zero(y) }, y)
	half, hb, err := tensor.New(dev, tensor.BF16, tokens, hidden)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hb.Free)
	call("Copy", func() { ops.Copy(half, x); ops.Copy(y, half) }, y)
	bias := blank(hidden)
	call("SumRows", func() { ops.SumRows(bias, x) }, bias)
	table, embedded := random(vocab, hidden), blank(tokens, hidden)
	call("Embedding", func() { ops.Embedding(embedded, table, id) }, embedded)
	dtable := blank(vocab, hidden)
	call("EmbeddingBackward", func() { ops.EmbeddingBackward(dtable, x, id) }, dtable)
	normed, sum, rstd := blank(tokens, hidden), blank(tokens, hidden), blank(tokens)
	call("RMSNorm", func() {
		ops.RMSNorm(tensor.RMSNorm{Y: normed, X: x, W: w, RStd: rstd, Delta: delta, Sum: sum, Eps: 1e-5})
	}, normed, sum, rstd)
	dx, dw := blank(tokens, hidden), blank(hidden)
	call("RMSNormBackward", func() {
		ops.RMSNormBackward(tensor.RMSNormBackward{DX: dx, DW: dw, DY: x, DSum: delta, S: sum, W: w, RStd: rstd})
	}, dx, dw)
	call("RMSNorm with WOffset", func() {
		ops.RMSNorm(tensor.RMSNorm{Y: normed, X: x, W: w, RStd: rstd, Eps: 1e-5, WOffset: 1})
	}, normed, rstd)
	call("RMSNormBackward with WOffset", func() {
		ops.RMSNormBackward(tensor.RMSNormBackward{DX: dx, DW: dw, DY: delta, S: x, W: w, RStd: rstd, WOffset: 1})
	}, dx, dw)
	shift, mean, dshift := random(hidden), blank(tokens), blank(hidden)
	call("LayerNorm", func() {
		ops.LayerNorm(tensor.LayerNorm{Y: normed, X: x, W: w, Bias: shift, Mean: mean, RStd: rstd, Delta: delta, Sum: sum, Eps: 1e-5})
	}, normed, sum, mean, rstd)
	call("LayerNormBackward", func() {
		ops.LayerNormBackward(tensor.LayerNormBackward{DX: dx, DW: dw, DBias: dshift, DY: x, DSum: delta, S: sum, W: w, Mean: mean, RStd: rstd})
	}, dx, dw, dshift)
	const kvHeads, headDim = 2, 24
	qkv, normedQKV, dqkv := random(tokens, (heads+2*kvHeads)*headDim), blank(tokens, (heads+2*kvHeads)*headDim), blank(tokens, (heads+2*kvHeads)*headDim)
	wq, wk, dwq, dwk, headRStd := random(headDim), random(headDim), blank(headDim), blank(headDim), blank(tokens, heads+kvHeads)
	call("HeadNorm", func() {
		ops.HeadNorm(tensor.HeadNorm{Y: normedQKV, X: qkv, WQ: wq, WK: wk, RStd: headRStd, Heads: heads, KVHeads: kvHeads, HeadDim: headDim, Eps: 1e-5, WOffset: 1})
	}, normedQKV, headRStd)
	call("HeadNormBackward", func() {
		ops.HeadNormBackward(tensor.HeadNormBackward{DX: dqkv, DWQ: dwq, DWK: dwk, DY: normedQKV, X: qkv, WQ: wq, WK: wk, RStd: headRStd,
			Heads: heads, KVHeads: kvHeads, HeadDim: headDim, WOffset: 1})
	}, dqkv, dwq, dwk)
	cos, sin, q := random(64, 8), random(64, 8), random(tokens, heads*16+3)
	call("RoPE", func() {
		ops.RoPE(tensor.RoPE{X: q, Cos: cos, Sin: sin, Positions: position, Heads: heads, HeadDim: 16})
	}, q)
	gates, gated, dgates := random(tokens, 2*hidden), blank(tokens, hidden), blank(tokens, 2*hidden)
	for _, act := range []tensor.Activation{tensor.SiLU, tensor.GELU, tensor.GELUTanh, tensor.ReLU} {
		call("GLU", func() { ops.GLU(gated, gates, act) }, gated)
		call("GLUBackward", func() { ops.GLUBackward(dgates, x, gates, act) }, dgates)
	}
	flatGates := gates.Reshape(2*tokens, hidden)
	activated, dactivated := blank(2*tokens, hidden), blank(2*tokens, hidden)
	for _, act := range []tensor.Activation{tensor.SiLU, tensor.GELU, tensor.GELUTanh, tensor.ReLU} {
		call("Activate", func() { ops.Activate(activated, flatGates, act) }, activated)
		call("ActivateBackward", func() { ops.ActivateBackward(dactivated, activated, flatGates, act) }, dactivated)
	}
	call("SoftCap", func() { ops.SoftCap(activated, flatGates, 0.7) }, activated)
	call("SoftCapBackward", func() { ops.SoftCapBackward(dactivated, flatGates, activated, 0.7) }, dactivated)
	step := make([]float64, tensor.StepSize)
	step[tensor.StepLR], step[tensor.StepBias1], step[tensor.StepBias2] = 1e-2, 0.1, 0.01
	block := placeDoubles(t, dev, step)
	n := tokens * hidden
	param, grad, m, v := random(n), random(n), blank(n), blank(n)
	squares := block.Slice(tensor.StepSumSquares, 1)
	call("SumSquares", func() { ops.SumSquares(squares, grad) }, block)
	call("ClipFactor", func() { ops.ClipFactor(tensor.ClipFactor{Step: block, MaxNorm: 1}) }, block)
	call("AdamW", func() {
		ops.AdamW(tensor.AdamW{Param: param, Grad: grad, M: m, V: v, Step: block, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, WeightDecay: 0.1})
	}, param, m, v)
	const draws = 7
	logits, drawn, logProbs := random(draws, 5000), placeInts(t, dev, make([]int32, draws)), blank(draws)
	rows := make([]tensor.SampleRow, draws)
	for i := range rows {
		rows[i] = tensor.SampleRow{Temperature: float32(i) / 3, Uniform: r.Float64(), Banned: []int32{3}, Seen: []int32{4}, RepetitionPenalty: 1.2,
			TopK: i % 3 * 40, TemperedLogProb: i%2 == 1, TopP: []float32{0, 0.9}[i%2], MinP: []float32{0, 0.01}[i/2%2]}
	}
	call("Sample", func() {
		ops.Sample(tensor.Sample{IDs: drawn, LogProbs: logProbs, Logits: logits, Rows: rows})
	}, drawn, logProbs)
	set.addExperts(t, dev, tokens, hidden, random, blank)
	b := random(hidden, hidden)
	call("Matmul", func() { ops.Matmul(tensor.Matmul{C: y, A: x, B: b, TransB: true, Bias: w}) }, y)
	return set
}

func (s *rowOps) run() {
	for _, f := range s.calls {
		f()
	}
}

// content is the bytes of all that one call wrote.
func content(results []tensor.Tensor) []byte {
	var all []byte
	for _, t := range results {
		b := make([]byte, t.Bytes())
		t.Device.Read(b, t)
		all = append(all, b...)
	}
	return all
}

// The shapes of the conformance suite are small; these make many tasks.
func TestManyTasksEqualReference(t *testing.T) {
	got, want := newRowOps(t, New(), 391, 515), newRowOps(t, ref.New(), 391, 515)
	for i, f := range got.calls {
		f()
		want.calls[i]()
		for k, g := range got.results[i] {
			if g.Dtype == tensor.I32 {
				if !bytes.Equal(content(got.results[i][k:k+1]), content(want.results[i][k:k+1])) {
					t.Errorf("%s: result %d differs from the reference", got.names[i], k)
				}
				continue
			}
			x, y := tensor.GetFloat64(g), tensor.GetFloat64(want.results[i][k])
			tol := 1e-5
			if got.names[i] == "Copy" {
				tol = 0
			}
			squares := 0.0
			for _, v := range y {
				squares += v * v
			}
			unit := max(1, math.Sqrt(squares/float64(len(y))))
			for e := range x {
				if math.Abs(x[e]-y[e]) > tol*max(unit, math.Abs(y[e])) {
					t.Errorf("%s: result %d [%d] = %v, want %v", got.names[i], k, e, x[e], y[e])
					break
				}
			}
		}
	}
}

func TestThreadsDoNotChangeResults(t *testing.T) {
	defer SetThreads(Threads())
	var first [][]byte
	for _, n := range []int{1, 2, 3, 8} {
		SetThreads(n)
		set := newRowOps(t, New(), 203, 260)
		for range 2 {
			set.run()
		}
		for i, r := range set.results {
			b := content(r)
			if n == 1 {
				first = append(first, b)
			} else if !bytes.Equal(b, first[i]) {
				t.Errorf("%s differs between 1 and %d threads", set.names[i], n)
			}
		}
	}
}

func TestOperationsDoNotAllocate(t *testing.T) {
	defer SetThreads(Threads())
	for _, threads := range []int{1, 3} {
		SetThreads(threads)
		set := newRowOps(t, New(), 67, 260)
		// A worker's memory grows when it first meets its largest task.
		for range 20 {
			set.run()
		}
		for i, f := range set.calls {
			if n := testing.AllocsPerRun(50, f); n != 0 {
				t.Errorf("%s: %v allocations a call on %d threads", set.names[i], n, threads)
			}
		}
	}
}

// Devices share the pool and the jobs; run with -race.
func TestDevicesAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	results := make([][][]byte, 4)
	sets := make([]*rowOps, len(results))
	for i := range sets {
		sets[i] = newRowOps(t, New(), 37, 130)
	}
	for i := range results {
		wg.Go(func() {
			for range 5 {
				sets[i].run()
			}
			for _, r := range sets[i].results {
				results[i] = append(results[i], content(r))
			}
		})
	}
	wg.Wait()
	for i := range results {
		for k, b := range results[i] {
			if !bytes.Equal(b, results[0][k]) {
				t.Errorf("%s differs between devices that ran at once", sets[i].names[k])
			}
		}
	}
}

func TestAlloc(t *testing.T) {
	d := New()
	for _, n := range []int{0, 1, 4096, 4097, 5 << 20} {
		b, err := d.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		if b.Addr%pageSize != 0 || b.Size != n {
			t.Errorf("Alloc(%d): address %#x, size %d", n, b.Addr, b.Size)
		}
		for _, x := range b.Tensor(0, tensor.U8, n).Uint8() {
			if x != 0 {
				t.Fatalf("Alloc(%d) is not zeroed", n)
			}
		}
		b.Free()
		b.Free()
	}
	for _, n := range []int{-1, math.MaxInt / 4, math.MaxInt} {
		b, err := d.Alloc(n)
		if err == nil {
			b.Free()
			t.Fatalf("Alloc(%d) succeeded", n)
		}
		if !strings.Contains(err.Error(), fmt.Sprint(n)) {
			t.Errorf("Alloc(%d): %q does not say how many bytes", n, err)
		}
	}
}

// What breaks an operation's contract panics with a message that says what.
func TestBrokenInvariants(t *testing.T) {
	d := New()
	ops := d.Ops()
	x, w := place(t, d, nil, 3, 8), place(t, d, nil, 5, 8)
	half, hb, err := tensor.New(d, tensor.BF16, 3, 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hb.Free)
	logits, one := place(t, d, nil, 1, 8), place(t, d, nil, 1)
	draw := func(r tensor.SampleRow) {
		ops.Sample(tensor.Sample{IDs: placeInts(t, d, []int32{0}), LogProbs: one, Logits: logits, Rows: []tensor.SampleRow{r}})
	}
	for _, c := range []struct {
		want string
		f    func()
	}{
		{"token id 5 is not among the 5 rows", func() { ops.Embedding(x, w, placeInts(t, d, []int32{0, 5, 1})) }},
		{"token id -1 is not among the 5 rows", func() { ops.EmbeddingBackward(w, x, placeInts(t, d, []int32{0, 1, -1})) }},
		{"multiplies F32 only", func() { ops.Matmul(tensor.Matmul{C: x, A: half, B: w}) }},
		{"Add's b", func() { ops.Add(x, x, w) }},
		{"differ in shape", func() { ops.Copy(x, w) }},
		{"position 4 is not among the 4 rows", func() {
			c := place(t, d, nil, 4, 2)
			ops.RoPE(tensor.RoPE{X: x, Cos: c, Sin: c, Positions: placeInts(t, d, []int32{0, 4, 1}), Heads: 2, HeadDim: 4})
		}},
		{"banned token 8", func() { draw(tensor.SampleRow{Banned: []int32{8}}) }},
		{"seen token -2", func() { draw(tensor.SampleRow{Seen: []int32{-2}}) }},
		{"temperature of NaN", func() { draw(tensor.SampleRow{Temperature: float32(math.NaN())}) }},
		{"Delta and Sum together", func() {
			ops.RMSNorm(tensor.RMSNorm{Y: x, X: x, W: place(t, d, nil, 8), RStd: place(t, d, nil, 3), Delta: x})
		}},
		{"HeadNorm's WK", func() {
			ops.HeadNorm(tensor.HeadNorm{Y: x, X: x, WQ: place(t, d, nil, 2), WK: one, RStd: place(t, d, nil, 3, 3), Heads: 2, KVHeads: 1, HeadDim: 2})
		}},
		{"HeadNorm's RStd", func() {
			w := place(t, d, nil, 2)
			ops.HeadNorm(tensor.HeadNorm{Y: x, X: x, WQ: w, WK: w, RStd: place(t, d, nil, 3, 2), Heads: 2, KVHeads: 1, HeadDim: 2})
		}},
		{"SoftCap with a limit of 0; it must be above 0", func() { ops.SoftCap(x, x, 0) }},
		{"SoftCapBackward with a limit of NaN", func() { ops.SoftCapBackward(x, x, x, float32(math.NaN())) }},
		{"activation 9 is unknown", func() { ops.Activate(x, x, 9) }},
		{"ActivateBackward's dy", func() { ops.ActivateBackward(x, w, x, tensor.SiLU) }},
		{"LayerNorm takes Delta and Sum together", func() {
			ops.LayerNorm(tensor.LayerNorm{Y: x, X: x, W: place(t, d, nil, 8), Mean: place(t, d, nil, 3), RStd: place(t, d, nil, 3), Delta: x})
		}},
		{"LayerNorm's Bias", func() {
			ops.LayerNorm(tensor.LayerNorm{Y: x, X: x, W: place(t, d, nil, 8), Bias: one, Mean: place(t, d, nil, 3), RStd: place(t, d, nil, 3)})
		}},
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.Contains(r, c.want) {
					t.Errorf("panic %q, want one that says %q", r, c.want)
				}
			}()
			c.f()
		}()
	}
}

// BenchmarkRows gives the rate of the operations in bytes that must be read and
// written, on all threads, for a packed batch of 2048 tokens of width 1024.
func BenchmarkRows(b *testing.B) {
	const tokens, hidden = 2048, 1024
	set := newRowOps(b, New(), tokens, hidden)
	each := map[string]int{ // bytes an element of [tokens, hidden]
		"Add": 12, "Scale": 8, "Zero": 4, "Copy": 12, "SumRows": 4, "Embedding": 8, "EmbeddingBackward": 12,
		"RMSNorm": 16, "RMSNormBackward": 16, "RMSNorm with WOffset": 8, "LayerNorm": 16, "LayerNormBackward": 16, "GLU": 12, "GLUBackward": 20, "Activate": 16, "ActivateBackward": 24, "SoftCap": 16, "SoftCapBackward": 24, "SumSquares": 4, "AdamW": 28,
	}
	for i, f := range set.calls {
		if n := each[set.names[i]]; n > 0 {
			b.Run(set.names[i], func(b *testing.B) {
				f() // the first call also maps the pages of results
				b.SetBytes(int64(n * tokens * hidden))
				for b.Loop() {
					f()
				}
			})
		}
	}
}

// TestMemoryLimit: more memory than the machine has is refused before it is
// touched, whatever the system would promise.
func TestMemoryLimit(t *testing.T) {
	have := machineMemory()
	if have == 0 {
		t.Skip("the machine's memory is not known on this system")
	}
	d := New()
	before := live.Load()
	if b, err := d.Alloc(int(have)); err == nil && before > 0 {
		b.Free()
		t.Error("as much as the machine has was allocated beside what is in use")
	} else if err == nil {
		b.Free()
	}
	if _, err := d.Alloc(int(have) + pageSize); err == nil || !strings.Contains(err.Error(), "GiB") {
		t.Errorf("more than the machine has: %v", err)
	}
	b, err := d.Alloc(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	b.Free()
	b.Free()
	if after := live.Load(); after != before {
		t.Errorf("%d bytes are counted in use, %d before", after, before)
	}
}
