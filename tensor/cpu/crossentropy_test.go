package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

type crossEntropyCase struct {
	tokens, hidden, vocab, extra int
	ignored                      float64 // share of rows without a target
	spread                       float64 // about the size of the logits
	dx, dw                       bool
}

func (c crossEntropyCase) String() string {
	return fmt.Sprintf("T=%d,H=%d,V=%d,extra=%d,ignored=%g,spread=%g,dx=%v,dw=%v", c.tokens, c.hidden, c.vocab, c.extra, c.ignored, c.spread, c.dx, c.dw)
}

func (c crossEntropyCase) inputs(seed uint64) (x, w, dw []float32, targets []int32) {
	r := rand.New(rand.NewPCG(seed, 2))
	x = randomFloats(r, c.tokens*c.hidden, c.spread/math.Sqrt(float64(c.hidden)))
	w, dw = randomFloats(r, c.vocab*c.hidden, 1), randomFloats(r, c.vocab*c.hidden, 0.1)
	targets = make([]int32, c.tokens)
	for i := range targets {
		targets[i] = int32(r.IntN(c.vocab))
		if r.Float64() < c.ignored {
			targets[i] = -1 - int32(r.IntN(100))
		}
	}
	return
}

func (c crossEntropyCase) on(t testing.TB, x, w, dw []float32, targets []int32) (tensor.CrossEntropy, func()) {
	xt, _ := wide(t, c.tokens, c.hidden, c.extra)
	fill(xt, x)
	wt, _ := wide(t, c.vocab, c.hidden, c.extra)
	fill(wt, w)
	loss, buffer, err := tensor.New(attentionDevice, tensor.F64, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(buffer.Free)
	copy(loss.Float64(), []float64{10, 20, 30})
	a := tensor.CrossEntropy{Loss: loss, X: xt, W: wt, Targets: newInts(t, attentionDevice, targets)}
	check1, check2 := func() {}, func() {}
	if c.dx {
		a.DX, check1 = wide(t, c.tokens, c.hidden, c.extra)
	}
	if c.dw {
		a.DW, check2 = wide(t, c.vocab, c.hidden, c.extra)
		fill(a.DW, dw)
	}
	if c.dx || c.dw {
		scale, buffer, err := tensor.New(attentionDevice, tensor.F32, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(buffer.Free)
		scale.Float32()[0] = 0.37
		a.Scale = scale
	}
	return a, func() { t.Helper(); check1(); check2() }
}

func checkCrossEntropy(t *testing.T, c crossEntropyCase, seed uint64, softCap float32) {
	x, w, dw, targets := c.inputs(seed)
	if seed == 0 { // some right predictions
		for i := range targets {
			if targets[i] >= 0 && i%2 == 0 {
				copy(x[i*c.hidden:][:c.hidden], w[int(targets[i])*c.hidden:])
				for k := range c.hidden {
					x[i*c.hidden+k] *= 3 / float32(c.hidden) * float32(c.spread)
				}
			}
		}
	}
	a, check := c.on(t, x, w, dw, targets)
	a.SoftCap = softCap
	crossEntropy(a)

	dev := ref.New()
	want := tensor.CrossEntropy{
		Loss: newRef(t, []float32{10, 20, 30}, 3), X: newRef(t, x, c.tokens, c.hidden), W: newRef(t, w, c.vocab, c.hidden),
		Targets: newInts(t, dev, targets), Scale: newRef(t, []float32{0.37}, 1), SoftCap: softCap,
	}
	if c.dx {
		want.DX = newRef(t, nil, c.tokens, c.hidden)
	}
	if c.dw {
		want.DW = newRef(t, dw, c.vocab, c.hidden)
	}
	dev.Ops().CrossEntropy(want)
	got, loss := a.Loss.Float64(), want.Loss.Float64()
	if e := math.Abs(got[0] - loss[0]); !(e <= 2e-6*math.Abs(loss[0])) {
		t.Errorf("loss is %v, want %v", got[0], loss[0])
	}
	if got[1] != loss[1] || got[2] != loss[2] {
		t.Errorf("rows and right predictions are %v, want %v", got[1:], loss[1:])
	}
	tol := 3e-6 * max(1, c.spread/4)
	if c.dx {
		near(t, "DX", get(a.DX), tensor.GetFloat64(want.DX), tol)
	}
	if c.dw {
		near(t, "DW", get(a.DW), tensor.GetFloat64(want.DW), tol)
	}
	check()
}

func TestCrossEntropy(t *testing.T) {
	for _, c := range []crossEntropyCase{
		{1, 1, 1, 0, 0, 1, true, true},
		{3, 5, 7, 2, 0, 1, true, true},
		{64, 32, 300, 0, 0.5, 1, true, true},
		{64, 32, 300, 3, 0.5, 1, true, false},
		{64, 32, 300, 0, 0.5, 1, false, true},
		{64, 32, 300, 1, 0.5, 1, false, false},
		{17, 48, 129, 0, 1, 1, true, true},      // no row has a target
		{0, 16, 20, 0, 0, 1, true, true},        // no row
		{1100, 8, 50, 0, 0.1, 1, true, true},    // several blocks of rows
		{195, 1, 64000, 0, 0.02, 1, true, true}, // a large vocabulary, blocks of few rows
		{40, 24, 200, 0, 0.2, 1000, true, true}, // exp of the logits would overflow
		{9, 3, 1000, 1, 0.2, 0.01, true, true},
	} {
		t.Run(c.String(), func(t *testing.T) {
			checkCrossEntropy(t, c, 0, 0)
			checkCrossEntropy(t, c, 1, 0)
			checkCrossEntropy(t, c, 0, float32(c.spread))
			checkCrossEntropy(t, c, 1, 30)
		})
	}
}

func TestCrossEntropyRandomShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for i := range 40 {
		c := crossEntropyCase{r.IntN(90), 1 + r.IntN(70), 1 + r.IntN(500), r.IntN(3), r.Float64(), 1, r.IntN(4) > 0, r.IntN(4) > 0}
		t.Run(c.String(), func(t *testing.T) { checkCrossEntropy(t, c, uint64(i), []float32{0, 2}[i%2]) })
	}
}

// Of equal largest logits the lowest id is the prediction.
func TestCrossEntropyTies(t *testing.T) {
	c := crossEntropyCase{tokens: 4, hidden: 2, vocab: 5}
	a, _ := c.on(t, []float32{1, 0, 1, 0, 1, 0, 1, 0}, []float32{0, 1, 2, 0, 2, 0, 2, 0, 1, 0}, nil, []int32{1, 2, 3, 4})
	crossEntropy(a)
	if got := a.Loss.Float64()[2] - 30; got != 1 {
		t.Errorf("%v of 4 predictions counted as right, want the 1 of the lowest id", got)
	}
}

// Rows without a target cost nothing and change nothing: what they hold, even
// infinities, reaches no result.
func TestCrossEntropyIgnoresRowsWithoutTarget(t *testing.T) {
	c := crossEntropyCase{20, 16, 40, 0, 0.5, 1, true, true}
	x, w, dw, targets := c.inputs(3)
	a, _ := c.on(t, x, w, dw, targets)
	crossEntropy(a)
	for i, y := range targets {
		if y < 0 {
			for k := range c.hidden {
				x[i*c.hidden+k] = float32(math.Inf(1))
			}
		}
	}
	b, _ := c.on(t, x, w, dw, targets)
	crossEntropy(b)
	equalBits(t, "DX", get(a.DX), get(b.DX))
	equalBits(t, "DW", get(a.DW), get(b.DW))
	if a.Loss.Float64()[0] != b.Loss.Float64()[0] {
		t.Errorf("losses %v and %v", a.Loss.Float64()[0], b.Loss.Float64()[0])
	}
}

func TestCrossEntropyThreads(t *testing.T) {
	for _, c := range []crossEntropyCase{{300, 48, 700, 0, 0.3, 1, true, true}, {33, 65, 3000, 1, 0, 1, true, true}, {3, 8, 17, 0, 0, 1, true, true}} {
		x, w, dw, targets := c.inputs(5)
		var first tensor.CrossEntropy
		for _, threads := range []int{1, 2, 3, 7} {
			withThreads(threads, func() {
				a, _ := c.on(t, x, w, dw, targets)
				a.SoftCap = float32(c.tokens % 2) // of some cases
				crossEntropy(a)
				if threads == 1 {
					first = a
					return
				}
				what := fmt.Sprintf("%v with %d threads: ", c, threads)
				equalBits(t, what+"DX", get(first.DX), get(a.DX))
				equalBits(t, what+"DW", get(first.DW), get(a.DW))
				for i, l := range first.Loss.Float64() {
					if l != a.Loss.Float64()[i] {
						t.Errorf("%sloss[%d] is %v, was %v", what, i, a.Loss.Float64()[i], l)
					}
				}
			})
		}
	}
}

// A NaN must reach the loss, where the step's guard looks for it.
func TestCrossEntropyNaN(t *testing.T) {
	c := crossEntropyCase{3, 8, 50, 0, 0, 1, true, true}
	x, w, dw, targets := c.inputs(5)
	x[11] = float32(math.NaN())
	a, _ := c.on(t, x, w, dw, targets)
	crossEntropy(a)
	if l := a.Loss.Float64()[0]; l == l {
		t.Errorf("loss is %v, want NaN", l)
	}
}

func TestCrossEntropyAllocatesNothing(t *testing.T) {
	for i, grad := range []bool{false, true, false, true} {
		c := crossEntropyCase{200, 32, 500, 0, 0.3, 1, grad, grad}
		x, w, dw, targets := c.inputs(1)
		a, _ := c.on(t, x, w, dw, targets)
		a.SoftCap = float32(i / 2)
		for range 20 { // a worker's memory grows when it first meets a row
			crossEntropy(a)
		}
		if n := testing.AllocsPerRun(20, func() { crossEntropy(a) }); n != 0 {
			t.Errorf("CrossEntropy allocates %v times", n)
		}
	}
}

func TestCrossEntropyRefusesBrokenOperands(t *testing.T) {
	for name, spoil := range map[string]func(*tensor.CrossEntropy){
		"target": func(a *tensor.CrossEntropy) { a.Targets.Int32()[0] = 50 },
		"loss":   func(a *tensor.CrossEntropy) { a.Loss = a.X },
		"W":      func(a *tensor.CrossEntropy) { a.W = a.W.Columns(0, 3) },
		"DX":     func(a *tensor.CrossEntropy) { a.DX = a.DX.Slice(0, 1) },
		"scale":  func(a *tensor.CrossEntropy) { a.Scale = tensor.Tensor{} },
	} {
		t.Run(name, func(t *testing.T) {
			c := crossEntropyCase{3, 8, 50, 0, 0, 1, true, true}
			x, w, dw, targets := c.inputs(5)
			a, _ := c.on(t, x, w, dw, targets)
			spoil(&a)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			crossEntropy(a)
		})
	}
}

// The prediction is of the logits before the cap: after it, rounding makes equals of
// large ones.
func TestCrossEntropyPredictionUnderCap(t *testing.T) {
	c := crossEntropyCase{tokens: 2, hidden: 1, vocab: 3}
	a, _ := c.on(t, []float32{1, -1}, []float32{300, 301, -400}, nil, []int32{1, 2})
	a.SoftCap = 10
	crossEntropy(a)
	if got := a.Loss.Float64()[2] - 30; got != 2 {
		t.Errorf("%v of 2 predictions counted as right", got)
	}
}

var crossEntropyBenchmarks = []crossEntropyCase{
	{2048, 288, 32000, 0, 0, 1, true, true},
	{2048, 512, 6400, 0, 0, 1, true, true},
	{2048, 64, 3000, 0, 0, 1, true, true},
}

// FLOPs: three products of 2·T·V·H. The sub-benchmark "products" is their time
// alone, whole, as the floor.
func BenchmarkCrossEntropy(b *testing.B) {
	for _, c := range crossEntropyBenchmarks {
		flops := 6 * float64(c.tokens) * float64(c.hidden) * float64(c.vocab)
		x, w, dw, targets := c.inputs(1)
		b.Run(fmt.Sprintf("T=%d,V=%d,H=%d", c.tokens, c.vocab, c.hidden), func(b *testing.B) {
			a, _ := c.on(b, x, w, dw, targets)
			for b.Loop() {
				crossEntropy(a)
			}
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
		b.Run(fmt.Sprintf("T=%d,V=%d,H=%d/products", c.tokens, c.vocab, c.hidden), func(b *testing.B) {
			z, dx := make([]float32, c.tokens*c.vocab), make([]float32, c.tokens*c.hidden)
			for b.Loop() {
				sgemm(false, true, c.tokens, c.vocab, c.hidden, first(x), c.hidden, first(w), c.hidden, first(z), c.vocab, false, nil)
				sgemm(false, false, c.tokens, c.hidden, c.vocab, first(z), c.vocab, first(w), c.hidden, first(dx), c.hidden, false, nil)
				sgemm(true, false, c.vocab, c.hidden, c.tokens, first(z), c.vocab, first(x), c.hidden, first(dw), c.hidden, true, nil)
			}
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
