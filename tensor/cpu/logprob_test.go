package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// logProbCase takes its inputs from crossEntropyCase; DEntropies and Entropies are
// there with entropy alone.
type logProbCase struct {
	crossEntropyCase
	temperature float32
	entropy     bool
}

// capped is s with a soft cap.
func (s scoring) capped(limit float32) scoring {
	s.forward.SoftCap, s.backward.SoftCap = limit, limit
	return s
}

func (c logProbCase) String() string {
	return fmt.Sprintf("%v,T°=%g,entropy=%v", c.crossEntropyCase, c.temperature, c.entropy)
}

// scoring is a forward and a backward pass on one device.
type scoring struct {
	forward  tensor.LogProb
	backward tensor.LogProbBackward
	check    func()
}

func (s scoring) run(dev tensor.Device) {
	dev.Ops().LogProb(s.forward)
	dev.Ops().LogProbBackward(s.backward)
}

// inputs are c's and derivatives of its results, some of them 0.
func (c logProbCase) inputs(seed uint64) (x, w, dw []float32, targets []int32, dl, dh []float32) {
	x, w, dw, targets = c.crossEntropyCase.inputs(seed)
	r := rand.New(rand.NewPCG(seed, 3))
	dl, dh = randomFloats(r, c.tokens, 1), randomFloats(r, c.tokens, 0.1)
	for t := range dl {
		if r.IntN(5) == 0 {
			dl[t] = 0
		}
		if r.IntN(5) == 0 {
			dh[t] = 0
		}
	}
	return
}

func (c logProbCase) on(t testing.TB, dev tensor.Device, seed uint64) scoring {
	x, w, dw, targets, dl, dh := c.inputs(seed)
	matrix := func(v []float32, rows, cols int) (tensor.Tensor, func()) {
		if dev.Float() == tensor.F64 {
			return newRef(t, v, rows, cols), func() {}
		}
		m, check := wide(t, rows, cols, c.extra)
		if v != nil {
			fill(m, v)
		}
		return m, check
	}
	s := scoring{}
	s.forward.X, _ = matrix(x, c.tokens, c.hidden)
	s.forward.W, _ = matrix(w, c.vocab, c.hidden)
	s.forward.Targets, s.forward.Temperature = placeInts(t, dev, targets), c.temperature
	nan := make([]float32, c.tokens)
	for i := range nan {
		nan[i] = float32(math.NaN())
	}
	s.forward.LogProbs, s.forward.LSE = place(t, dev, nan, c.tokens), place(t, dev, nan, c.tokens)
	if c.entropy {
		s.forward.Entropies = place(t, dev, nan, c.tokens)
	}
	f := s.forward
	s.backward = tensor.LogProbBackward{X: f.X, W: f.W, Targets: f.Targets, Temperature: f.Temperature, LSE: f.LSE, Entropies: f.Entropies,
		DLogProbs: place(t, dev, dl, c.tokens)}
	if c.entropy {
		s.backward.DEntropies = place(t, dev, dh, c.tokens)
	}
	check1, check2 := func() {}, func() {}
	if c.dx {
		s.backward.DX, check1 = matrix(nil, c.tokens, c.hidden)
	}
	if c.dw {
		s.backward.DW, check2 = matrix(dw, c.vocab, c.hidden)
	}
	s.check = func() { t.Helper(); check1(); check2() }
	return s
}

// results are all that was written, with names.
func (s scoring) results() (names []string, list []tensor.Tensor) {
	for _, r := range []struct {
		name string
		x    tensor.Tensor
	}{{"LogProbs", s.forward.LogProbs}, {"LSE", s.forward.LSE}, {"Entropies", s.forward.Entropies}, {"DX", s.backward.DX}, {"DW", s.backward.DW}} {
		if !r.x.IsZero() {
			names, list = append(names, r.name), append(list, r.x)
		}
	}
	return
}

func checkLogProb(t *testing.T, c logProbCase, seed uint64, softCap float32) {
	t.Helper()
	dev, reference := New(), ref.New()
	got, want := c.on(t, dev, seed).capped(softCap), c.on(t, reference, seed).capped(softCap)
	got.run(dev)
	want.run(reference)
	tol := 3e-6 * max(1, c.spread/4/float64(c.temperature))
	names, results := got.results()
	_, wanted := want.results()
	for i, name := range names {
		near(t, name, get(results[i]), tensor.GetFloat64(wanted[i]), tol)
	}
	got.check()
}

func TestLogProb(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for _, c := range []logProbCase{
			{crossEntropyCase{1, 1, 1, 0, 0, 1, true, true}, 1, true},
			{crossEntropyCase{1, 1, 2, 0, 0, 1, true, true}, 1, true},
			{crossEntropyCase{3, 5, 7, 2, 0, 1, true, true}, 0.7, true},
			{crossEntropyCase{64, 32, 300, 0, 0.5, 1, true, true}, 1, false},
			{crossEntropyCase{64, 32, 300, 3, 0.5, 3, true, false}, 1.5, true},
			{crossEntropyCase{64, 32, 300, 0, 0.5, 3, false, true}, 0.5, true},
			{crossEntropyCase{64, 32, 300, 1, 0.5, 1, false, false}, 1, true},
			{crossEntropyCase{17, 48, 129, 0, 1, 1, true, true}, 1, true},      // no row has a target
			{crossEntropyCase{0, 16, 20, 0, 0, 1, true, true}, 1, true},        // no row
			{crossEntropyCase{1100, 8, 50, 0, 0.1, 2, true, true}, 0.7, true},  // several blocks of rows
			{crossEntropyCase{195, 1, 64000, 0, 0.02, 1, true, true}, 1, true}, // a large vocabulary, blocks of few rows
			{crossEntropyCase{40, 24, 200, 0, 0.2, 1000, true, true}, 1, true}, // exp of the logits would overflow
			{crossEntropyCase{40, 24, 200, 0, 0.2, 3, true, true}, 0.01, true}, // tempered ones too
			{crossEntropyCase{9, 3, 1000, 1, 0.2, 0.01, true, true}, 1, true},  // nearly uniform
		} {
			t.Run(c.String(), func(t *testing.T) {
				checkLogProb(t, c, 1, 0)
				checkLogProb(t, c, 2, float32(c.spread))
			})
		}
	})
}

func TestLogProbRandomShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for i := range 40 {
		c := logProbCase{crossEntropyCase{r.IntN(90), 1 + r.IntN(70), 1 + r.IntN(500), r.IntN(3), r.Float64(), 1 + 3*r.Float64(), r.IntN(4) > 0, r.IntN(4) > 0},
			0.5 + r.Float32(), r.IntN(3) > 0}
		t.Run(c.String(), func(t *testing.T) { checkLogProb(t, c, uint64(i), []float32{0, 4}[i%2]) })
	}
}

// Where one token has nearly all of the probability, the log-probability, the
// entropy and the gradient are what the others have: small numbers that are kept
// to their digits, though the float32 nearest to the token's probability is 1.
func TestLogProbNearlyCertain(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const vocab, certain = 3000, 7
		dev := New()
		for _, gap := range []float32{0, 4, 10, 20, 40, 70} {
			// X is 1 and W one column, so that W are the logits and DX is Σ dz_j·W_j.
			w := make([]float32, vocab)
			r := rand.New(rand.NewPCG(1, 1))
			for i := range w {
				w[i] = float32(r.IntN(1025)-512) / 1024
			}
			w[certain] = gap
			rest, weighted := 0.0, 0.0 // Σ e^d and Σ e^d·d of the others, d the distance from the gap
			for i, x := range w {
				if d := float64(x) - float64(gap); i != certain {
					rest += math.Exp(d)
					weighted += math.Exp(d) * d
				}
			}
			sum, mean := 1+rest, weighted/(1+rest)
			f := tensor.LogProb{X: place(t, dev, []float32{1}, 1, 1), W: place(t, dev, w, vocab, 1), Targets: placeInts(t, dev, []int32{certain}),
				Temperature: 1, LogProbs: place(t, dev, nil, 1), Entropies: place(t, dev, nil, 1), LSE: place(t, dev, nil, 1)}
			expect := func(name string, x tensor.Tensor, want, tol float64) {
				t.Helper()
				if got := float64(x.Float32()[0]); !(math.Abs(got-want) <= tol*math.Abs(want)) {
					t.Errorf("gap %g: %s is %.9g, want %.9g", gap, name, got, want)
				}
			}
			dev.Ops().LogProb(f)
			expect("log-probability", f.LogProbs, -math.Log1p(rest), 1e-6)
			expect("entropy", f.Entropies, math.Log1p(rest)-mean, 1e-6)
			for _, d := range [][2]float64{{1, 0}, {0, 1}, {-1e-7, 1e-9}} {
				b := tensor.LogProbBackward{X: f.X, W: f.W, Targets: f.Targets, Temperature: 1, LSE: f.LSE, Entropies: f.Entropies,
					DLogProbs: place(t, dev, []float32{float32(d[0])}, 1), DEntropies: place(t, dev, []float32{float32(d[1])}, 1), DX: place(t, dev, nil, 1, 1)}
				dev.Ops().LogProbBackward(b)
				dx := float64(gap) * (d[0]*rest + d[1]*mean) / sum
				for i, x := range w {
					if i != certain {
						away := float64(x) - float64(gap)
						dx -= float64(x) * math.Exp(away) / sum * (d[0] + d[1]*(away-mean))
					}
				}
				expect(fmt.Sprintf("DX from %g", d), b.DX, dx, 5e-6) // a product of the plain kernels sums 3000 terms one by one
			}
		}
	})
}

// A capped target that is nearly certain leaves a gradient that is small twice over, by
// the others' probability and by the cap's slope; it keeps its digits.
func TestLogProbNearlyCertainUnderCap(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const vocab, limit = 40, 20
		dev := New()
		w := make([]float32, vocab)
		w[7] = 60
		f := tensor.LogProb{X: place(t, dev, []float32{1}, 1, 1), W: place(t, dev, w, vocab, 1), Targets: placeInts(t, dev, []int32{7}),
			Temperature: 1, SoftCap: limit, LogProbs: place(t, dev, nil, 1), LSE: place(t, dev, nil, 1)}
		b := tensor.LogProbBackward{X: f.X, W: f.W, Targets: f.Targets, Temperature: 1, SoftCap: limit, LSE: f.LSE,
			DLogProbs: place(t, dev, []float32{0.37}, 1), DX: place(t, dev, nil, 1, 1)}
		dev.Ops().LogProb(f)
		dev.Ops().LogProbBackward(b)
		z := limit * math.Tanh(60.0/limit)
		rest := (vocab - 1) * math.Exp(-z)
		for name, v := range map[string][2]float64{
			"log-probability": {float64(f.LogProbs.Float32()[0]), -math.Log1p(rest)},
			"DX":              {float64(b.DX.Float32()[0]), float64(float32(0.37)) * 60 * rest / (1 + rest) * (1 - z*z/(limit*limit))},
		} {
			// What rounding z does to e^-z and, ten times as much, to the slope.
			if got, want := v[0], v[1]; !(math.Abs(got-want) <= 5e-5*math.Abs(want)) {
				t.Errorf("%s is %.9g, want %.9g", name, got, want)
			}
		}
	})
}

// Rows that don't count change nothing: what they hold, even infinities, reaches
// no result.
func TestLogProbIgnoresRows(t *testing.T) {
	c := logProbCase{crossEntropyCase{20, 16, 40, 0, 0.5, 1, true, true}, 1, true}
	dev := New()
	a, b := c.on(t, dev, 3), c.on(t, dev, 3)
	for _, s := range []scoring{a, b} {
		s.backward.DLogProbs.Float32()[4], s.backward.DEntropies.Float32()[4] = 0, 0
		s.backward.Targets.Int32()[4] = 3
	}
	a.run(dev)
	spoil := func(rows ...int) {
		for _, y := range rows {
			for k := range c.hidden {
				b.forward.X.Float32()[y*b.forward.X.Stride+k] = float32(math.Inf(1))
			}
		}
	}
	for i, y := range b.forward.Targets.Int32() {
		if y < 0 {
			spoil(i)
		}
	}
	dev.Ops().LogProb(b.forward)
	spoil(4) // its derivatives are 0
	dev.Ops().LogProbBackward(b.backward)
	names, x := a.results()
	_, y := b.results()
	for i, name := range names {
		equalBits(t, name, get(x[i]), get(y[i]))
	}
}

func TestLogProbThreads(t *testing.T) {
	for _, base := range []crossEntropyCase{{300, 48, 700, 0, 0.3, 1, true, true}, {33, 65, 3000, 1, 0, 1, true, true}, {3, 8, 17, 0, 0, 1, true, true}} {
		c := logProbCase{base, 0.7, true}
		var first []tensor.Tensor
		for _, threads := range []int{1, 2, 3, 7} {
			withThreads(threads, func() {
				s := c.on(t, New(), 5).capped(float32(c.tokens % 2)) // of some cases
				s.run(New())
				names, results := s.results()
				if threads == 1 {
					first = results
					return
				}
				for i, name := range names {
					equalBits(t, fmt.Sprintf("%v with %d threads: %s", c, threads, name), get(first[i]), get(results[i]))
				}
			})
		}
	}
}

// A NaN or an infinite logit makes NaN of a row's results and gradients, and of
// no other row's.
func TestLogProbNotFinite(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		for _, entropy := range []bool{false, true} {
			c := logProbCase{crossEntropyCase{3, 8, 50, 0, 0, 1, true, false}, 1, entropy}
			s := c.on(t, New(), 5)
			s.backward.DLogProbs.Float32()[1] = 1
			s.forward.X.Float32()[s.forward.X.Stride+3] = bad
			s.run(New())
			names, results := s.results()
			for i, x := range results {
				for k, v := range get(x) {
					row := k / (x.Len() / c.tokens)
					if (v != v) != (row == 1) {
						t.Errorf("%g, entropy %v: %s[%d] is %g", bad, entropy, names[i], k, v)
					}
				}
			}
		}
	}
}

// A logit that alone overflows leaves no probabilities either.
func TestLogProbOverflow(t *testing.T) {
	dev := New()
	f := tensor.LogProb{X: place(t, dev, []float32{1e38}, 1, 1), W: place(t, dev, []float32{1, 2, 30, -1}, 4, 1), Targets: placeInts(t, dev, []int32{2}),
		Temperature: 1, LogProbs: place(t, dev, nil, 1), Entropies: place(t, dev, nil, 1), LSE: place(t, dev, nil, 1)}
	b := tensor.LogProbBackward{X: f.X, W: f.W, Targets: f.Targets, Temperature: 1, LSE: f.LSE, Entropies: f.Entropies,
		DLogProbs: place(t, dev, []float32{1}, 1), DX: place(t, dev, nil, 1, 1)}
	dev.Ops().LogProb(f)
	dev.Ops().LogProbBackward(b)
	for name, x := range map[string]tensor.Tensor{"log-probability": f.LogProbs, "entropy": f.Entropies, "DX": b.DX} {
		if v := x.Float32()[0]; v == v {
			t.Errorf("%s beside an infinite logit is %g", name, v)
		}
	}
}

func TestLogProbAllocatesNothing(t *testing.T) {
	for i, entropy := range []bool{false, true, false, true} {
		c := logProbCase{crossEntropyCase{200, 32, 500, 0, 0.3, 1, true, true}, 0.7, entropy}
		dev := New()
		s := c.on(t, dev, 1).capped(float32(i / 2))
		for range 20 { // a worker's memory grows when it first meets a row
			s.run(dev)
		}
		if n := testing.AllocsPerRun(20, func() { dev.ops.LogProb(s.forward); dev.ops.LogProbBackward(s.backward) }); n != 0 {
			t.Errorf("entropy %v: LogProb and its backward pass allocate %v times", entropy, n)
		}
	}
}

func TestLogProbRefusesBrokenOperands(t *testing.T) {
	c := logProbCase{crossEntropyCase{3, 8, 50, 0, 0, 1, true, true}, 1, true}
	dev := New()
	panics := func(name string, f func()) {
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		f()
	}
	for name, spoil := range map[string]func(s *scoring){
		"target":                func(s *scoring) { s.forward.Targets.Int32()[0] = 50 },
		"W":                     func(s *scoring) { s.forward.W = s.forward.W.Columns(0, 3) },
		"log-probabilities":     func(s *scoring) { s.forward.LogProbs = tensor.Tensor{} },
		"entropies":             func(s *scoring) { s.forward.Entropies = s.forward.X },
		"LSE":                   func(s *scoring) { s.forward.LSE = s.forward.LSE.Slice(0, 2) },
		"temperature 0":         func(s *scoring) { s.forward.Temperature = 0 },
		"temperature NaN":       func(s *scoring) { s.forward.Temperature = float32(math.NaN()) },
		"DX":                    func(s *scoring) { s.backward.DX = s.backward.DX.Slice(0, 1) },
		"DW":                    func(s *scoring) { s.backward.DW = s.backward.X },
		"DLogProbs":             func(s *scoring) { s.backward.DLogProbs = s.backward.DLogProbs.Slice(0, 1) },
		"DEntropies, no H":      func(s *scoring) { s.backward.Entropies = tensor.Tensor{} },
		"backward's LSE":        func(s *scoring) { s.backward.LSE = tensor.Tensor{} },
		"backward, temperature": func(s *scoring) { s.backward.Temperature = -1 },
	} {
		s := c.on(t, dev, 5)
		spoil(&s)
		panics(name, func() { s.run(dev) })
	}
}

// BenchmarkLogProb is the counterpart of BenchmarkCrossEntropy: a forward and a
// backward pass, of four products of 2·T·V·H to its three.
func BenchmarkLogProb(b *testing.B) {
	for _, base := range crossEntropyBenchmarks {
		for _, entropy := range []bool{false, true} {
			c := logProbCase{base, 0.7, entropy}
			dev := New()
			s := c.on(b, dev, 1)
			flops := 8 * float64(c.tokens) * float64(c.hidden) * float64(c.vocab)
			run := func(name string, f func(), flops float64) {
				b.Run(fmt.Sprintf("T=%d,V=%d,H=%d/entropy=%v/%s", c.tokens, c.vocab, c.hidden, entropy, name), func(b *testing.B) {
					for b.Loop() {
						f()
					}
					b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
				})
			}
			for t := range c.tokens { // all rows count
				s.backward.DLogProbs.Float32()[t] = 1
				if entropy {
					s.backward.DEntropies.Float32()[t] = 0.01
				}
			}
			run("forward", func() { dev.ops.LogProb(s.forward) }, flops/4)
			run("both", func() { s.run(dev) }, flops)
		}
	}
}
