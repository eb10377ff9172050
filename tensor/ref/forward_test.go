package ref

import (
	"math"
	"math/cmplx"
	"strings"
	"testing"

	"ringtail/tensor"
)

// The tests of this file compare forward operations with values and formulas of
// another origin, since differences cannot tell a forward operation from a wrong
// one that its backward agrees with.

func (m *maker) set(x tensor.Tensor, v ...float64) tensor.Tensor {
	i := 0
	each(x, func(p *float64) { *p = v[i]; i++ })
	return x
}

func (m *maker) expect(name string, x tensor.Tensor, tol float64, want ...float64) {
	m.t.Helper()
	got := flat(x)
	if len(got) != len(want) {
		m.t.Fatalf("%s has %d elements, want %d", name, len(got), len(want))
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tol) {
			m.t.Errorf("%s[%d] = %.17g, want %.17g", name, i, got[i], want[i])
		}
	}
}

func TestMatmul(t *testing.T) {
	m := newMaker(t)
	a, b := m.set(m.blank(2, 3), 1, 2, 3, 4, 5, 6), m.set(m.blank(3, 2), 1, -1, 0, 2, 5, 0.5)
	at, bt := m.set(m.blank(3, 2), 1, 4, 2, 5, 3, 6), m.set(m.blank(2, 3), 1, 0, 5, -1, 2, 0.5)
	product := []float64{16, 4.5, 34, 9}
	for _, p := range []tensor.Matmul{{A: a, B: b}, {A: at, B: b, TransA: true}, {A: a, B: bt, TransB: true}, {A: at, B: bt, TransA: true, TransB: true}} {
		p.C = m.blank(2, 2)
		m.ops.Matmul(p)
		m.expect("C", p.C, 0, product...)
		p.Beta, p.Bias = 1, m.set(m.blank(2), 10, 20)
		m.ops.Matmul(p)
		m.expect("C with Beta 1 and Bias", p.C, 0, 42, 29, 78, 38)
	}
}

func TestRMSNorm(t *testing.T) {
	m := newMaker(t)
	a := tensor.RMSNorm{X: m.set(m.blank(1, 2), 1, 3), Delta: m.set(m.blank(1, 2), 2, 1), Sum: m.blank(1, 2),
		W: m.set(m.blank(2), 1, -2), Y: m.blank(1, 2), RStd: m.blank(1), Eps: 0.5}
	m.ops.RMSNorm(a)
	r := 1 / math.Sqrt(13)
	m.expect("Sum", a.Sum, 0, 3, 4)
	m.expect("RStd", a.RStd, 1e-15, r)
	m.expect("Y", a.Y, 1e-15, 3*r, -8*r)
	a.WOffset = 1
	m.ops.RMSNorm(a)
	m.expect("Y with WOffset", a.Y, 1e-15, 6*r, -4*r)
}

// TestLayerNorm is of rows whose means and variances are whole or nearly so, one of
// equal numbers among them.
func TestLayerNorm(t *testing.T) {
	m := newMaker(t)
	a := tensor.LayerNorm{X: m.set(m.blank(2, 4), 1, 1, 1, 3, 5, 5, 5, 5), W: m.set(m.blank(4), 1, -2, 3, 4), Y: m.blank(2, 4),
		Mean: m.blank(2), RStd: m.blank(2), Eps: 0.25}
	m.ops.LayerNorm(a) // the first row's variance is 0.75
	m.expect("Mean", a.Mean, 0, 1.5, 5)
	m.expect("RStd", a.RStd, 1e-15, 1, 2)
	m.expect("Y", a.Y, 1e-15, -0.5, 1, -1.5, 6, 0, 0, 0, 0)
	a.Delta, a.Sum = m.set(m.blank(2, 4), 1, 1, 5, 3, -5, -5, -1, -1), m.blank(2, 4)
	a.Bias, a.Eps = m.set(m.blank(4), 10, 20, 30, 40), 0
	m.ops.LayerNorm(a)
	m.expect("Sum", a.Sum, 0, 2, 2, 6, 6, 0, 0, 4, 4)
	m.expect("Mean of Sum", a.Mean, 0, 4, 2)
	m.expect("RStd of Sum", a.RStd, 1e-15, 0.5, 0.5)
	m.expect("Y of Sum", a.Y, 1e-15, 9, 22, 33, 44, 9, 22, 33, 44)
}

// TestHeadNorm is of two query heads, a key head and a value head.
func TestHeadNorm(t *testing.T) {
	m := newMaker(t)
	a := tensor.HeadNorm{X: m.set(m.blank(1, 8), 1, 7, 3, 4, 0, 5, 8, 9), WQ: m.set(m.blank(2), 1, -2), WK: m.set(m.blank(2), 3, 4),
		RStd: m.blank(1, 3), Heads: 2, KVHeads: 1, HeadDim: 2, Eps: 0, WOffset: 1}
	a.Y = a.X
	m.ops.HeadNorm(a)
	r := math.Sqrt2 / 5
	m.expect("RStd", a.RStd, 1e-15, 1.0/5, r, r)
	m.expect("Y", a.Y, 1e-15, 2.0/5, -7.0/5, 6*r, -4*r, 0, 25*r, 8, 9)
}

// TestRoPE compares with multiplication by e^(i·angle), the form in which the
// paper states it.
func TestRoPE(t *testing.T) {
	m := newMaker(t)
	const heads, headDim, half, longest = 2, 7, 3, 20
	cos, sin := m.blank(longest, half), m.blank(longest, half)
	angle := func(p, i int) float64 { return float64(p) * math.Pow(10000, -float64(i)/half) }
	for p := range longest {
		for i := range half {
			cos.Float64()[p*cos.Stride+i], sin.Float64()[p*sin.Stride+i] = math.Cos(angle(p, i)), math.Sin(angle(p, i))
		}
	}
	positions := []int32{0, 19, 4, 4}
	x := m.random(len(positions), heads*headDim)
	before := flat(x)
	a := tensor.RoPE{X: x, Cos: cos, Sin: sin, Positions: m.ints(positions...), Heads: heads, HeadDim: headDim}
	m.ops.RoPE(a)
	want := append([]float64(nil), before...)
	for row, p := range positions {
		for h := range heads {
			at := row*heads*headDim + h*headDim
			for i := range half {
				z := complex(before[at+i], before[at+i+half]) * cmplx.Exp(complex(0, angle(int(p), i)))
				want[at+i], want[at+i+half] = real(z), imag(z)
			}
		}
	}
	m.expect("X", x, 1e-14, want...)
	a.Inverse = true
	m.ops.RoPE(a)
	m.expect("X turned back", x, 1e-14, before...)
}

// TestAttention compares with softmax over a full row of scores in which a mask
// has set what may not be seen to −∞; and CachedAttention, fed in pieces, with the
// same.
func TestAttention(t *testing.T) {
	m := newMaker(t)
	for _, window := range []int{0, 2} {
		starts := []int32{0, 3, 3, 8}
		shape := tensor.AttentionShape{Heads: 4, KVHeads: 2, HeadDim: 3, Scale: 0.5, Window: window}
		const tokens, heads, d, width = 8, 4, 3, 24
		sequence := []int{0, 0, 0, 2, 2, 2, 2, 2}
		qkv := m.random(tokens, width)
		x := flat(qkv)
		var want, wantLSE []float64
		for i := range tokens {
			for h := range heads {
				k, v := (heads+h/2)*d, (heads+2+h/2)*d
				p, total := make([]float64, tokens), 0.0
				for j := range tokens {
					score := 0.0
					for c := range d {
						score += 0.5 * x[i*width+h*d+c] * x[j*width+k+c]
					}
					if j > i || sequence[i] != sequence[j] || window > 0 && i-j >= window {
						score = math.Inf(-1)
					}
					p[j] = math.Exp(score)
					total += p[j]
				}
				for c := range d {
					o := 0.0
					for j := range tokens {
						o += p[j] / total * x[j*width+v+c]
					}
					want = append(want, o)
				}
				wantLSE = append(wantLSE, math.Log(total))
			}
		}
		o, lse := m.blank(tokens, heads*d), m.blank(heads, tokens)
		m.ops.Attention(tensor.Attention{AttentionShape: shape, O: o, LSE: lse, QKV: qkv, Starts: m.ints(starts...), Longest: 5})
		m.expect("O", o, 1e-14, want...)
		for h := range heads {
			for i := range tokens {
				if got := lse.Float64()[h*lse.Stride+i]; math.Abs(got-wantLSE[i*heads+h]) > 1e-14 {
					t.Errorf("LSE[%d,%d] = %g, want %g", h, i, got, wantLSE[i*heads+h])
				}
			}
		}

		// The first sequence lives in slot 1, the second in slot 0; two calls, which
		// cut the second sequence in two.
		k, v, got := m.blank(2, 6, 6), m.blank(2, 6, 6), m.blank(tokens, heads*d)
		slots, positions := []int32{1, 1, 1, 0, 0, 0, 0, 0}, []int32{0, 1, 2, 0, 1, 2, 3, 4}
		for _, part := range [][2]int{{0, 5}, {5, 8}} {
			from, n := part[0], part[1]-part[0]
			m.ops.CachedAttention(tensor.CachedAttention{AttentionShape: shape, O: got.Slice(from, n), QKV: qkv.Slice(from, n),
				K: k, V: v, Slots: m.ints(slots[from:part[1]]...), Positions: m.ints(positions[from:part[1]]...)})
		}
		m.expect("cached O", got, 1e-14, want...)
	}
}

// TestGLU holds values that torch 2.11 gives, of Activate too.
func TestGLU(t *testing.T) {
	m := newMaker(t)
	gates := []float64{-2, -0.5, 1, 3}
	for act, want := range map[tensor.Activation][]float64{
		tensor.SiLU:     {-0.2384058440442351, -0.1887703343990727, 0.7310585786300049, 2.8577223804672998},
		tensor.GELU:     {-0.04550026389635842, -0.15426876936299344, 0.841344746068543, 2.99595030590511},
		tensor.GELUTanh: {-0.04540230591222494, -0.15428599017485606, 0.8411919906082768, 2.996362607918227},
		tensor.ReLU:     {0, 0, 1, 3},
	} {
		x, y := m.set(m.blank(1, 8), append(append([]float64(nil), gates...), 1, 1, 2, -1)...), m.blank(1, 4)
		m.ops.GLU(y, x, act)
		m.expect("y", y, 1e-15, want[0], want[1], 2*want[2], -want[3])
		plain := m.set(m.blank(2, 2), gates...)
		m.ops.Activate(plain, plain, act)
		m.expect("Activate's y", plain, 1e-15, want...)
	}
}

// TestSoftCap: tanh(ln √3) is (3−1)/(3+1).
func TestSoftCap(t *testing.T) {
	m := newMaker(t)
	x := m.set(m.blank(1, 4), 0, 10*math.Log(3), -10*math.Log(3), math.Inf(1))
	m.ops.SoftCap(x, x, 20)
	m.expect("y", x, 1e-14, 0, 10, -10, 20)
	m.ops.SoftCapBackward(x, m.set(m.blank(1, 4), 1, 2, 4, 8), x, 20)
	m.expect("dx", x, 1e-14, 1, 1.5, 3, 0)
}

func TestCrossEntropy(t *testing.T) {
	m := newMaker(t)
	// Logits of row 0 are (1, 2, 3); row 1 has no target; row 2's are equal, and the
	// lowest id counts as predicted; row 3's are (1001, 2002, 3003).
	x := m.set(m.blank(4, 2), 1, 0, 5, 5, 0, 0, 1000, 1)
	w := m.set(m.blank(3, 2), 1, 1, 2, 2, 3, 3)
	loss := m.set(m.blank(3), 10, 20, 30)
	m.ops.CrossEntropy(tensor.CrossEntropy{X: x, W: w, Targets: m.ints(1, -100, 0, 2), Loss: loss})
	first := math.Log(math.Exp(1)+math.Exp(2)+math.Exp(3)) - 2
	m.expect("Loss", loss, 1e-12, 10+first+math.Log(3), 23, 32)
}

// TestCappedProjections caps products of 0, 10·ln √3 and 10·ln 3 to 0, 10·(3−1)/(3+1) and
// 10·(9−1)/(9+1); and some so large that they differ no more, but whose order still counts.
func TestCappedProjections(t *testing.T) {
	m := newMaker(t)
	x, w := m.set(m.blank(2, 1), 1, 1000), m.set(m.blank(3, 1), 0, 5*math.Log(3), 10*math.Log(3))
	lse := math.Log(1 + math.Exp(5) + math.Exp(8))
	loss := m.zeros(3)
	m.ops.CrossEntropy(tensor.CrossEntropy{X: x, W: w, Targets: m.ints(1, 2), Loss: loss, SoftCap: 10})
	m.expect("Loss", loss, 1e-12, lse-5+math.Log(2+math.Exp(-10)), 2, 1)
	a := tensor.LogProb{X: x, W: w, Targets: m.ints(1, -1), Temperature: 2, SoftCap: 10, LogProbs: m.blank(2), LSE: m.blank(2)}
	m.ops.LogProb(a)
	lse = math.Log(1 + math.Exp(2.5) + math.Exp(4))
	m.expect("LSE", a.LSE, 1e-14, lse, 0)
	m.expect("LogProbs", a.LogProbs, 1e-14, 2.5-lse, 0)
}

// TestLogProb compares with probabilities worked out by hand: of logits that are
// logarithms, at temperatures that square them or take their roots.
func TestLogProb(t *testing.T) {
	m := newMaker(t)
	ln := math.Log
	x := m.set(m.blank(4, 1), 1, 1, 1, 0)
	w := m.set(m.blank(3, 1), ln(1), ln(4), ln(16))
	targets := m.ints(2, -100, 0, 1)
	for _, c := range []struct {
		temperature float32
		weights     [3]float64
	}{{1, [3]float64{1, 4, 16}}, {0.5, [3]float64{1, 16, 256}}, {2, [3]float64{1, 2, 4}}} {
		total, h := 0.0, 0.0
		for _, v := range c.weights {
			total += v
		}
		for _, v := range c.weights {
			h -= v / total * ln(v/total)
		}
		a := tensor.LogProb{X: x, W: w, Targets: targets, Temperature: c.temperature, LogProbs: m.blank(4), LSE: m.blank(4)}
		m.ops.LogProb(a)
		a.Entropies = m.blank(4)
		for range 2 { // without and with entropies
			m.expect("LogProbs", a.LogProbs, 1e-14, ln(c.weights[2]/total), 0, ln(c.weights[0]/total), -ln(3))
			m.expect("LSE", a.LSE, 1e-14, ln(total), 0, ln(total), ln(3))
			m.ops.LogProb(a)
		}
		m.expect("Entropies", a.Entropies, 1e-14, h, 0, h, ln(3))
	}
	// Probabilities of 1 and 0, the logits far apart.
	a := tensor.LogProb{X: m.set(m.blank(2, 1), 1e4, 1e4), W: w, Targets: m.ints(2, 0), Temperature: 1, LogProbs: m.blank(2), Entropies: m.blank(2), LSE: m.blank(2)}
	m.ops.LogProb(a)
	m.expect("LogProbs", a.LogProbs, 1e-8, 0, -1e4*ln(16))
	m.expect("Entropies", a.Entropies, 0, 0, 0)
}

func TestClipFactor(t *testing.T) {
	m := newMaker(t)
	for _, c := range []struct{ sumSquares, maxNorm, norm, clip float64 }{
		{25, 1, 5, 1 / 5.000001}, {0.25, 1, 0.5, 1}, {25, 0, 5, 1}, {0, 1, 0, 1},
	} {
		step := m.zeros(tensor.StepSize)
		s := step.Float64()
		s[tensor.StepSumSquares] = c.sumSquares
		m.ops.ClipFactor(tensor.ClipFactor{Step: step, MaxNorm: c.maxNorm})
		if s[tensor.StepGradNorm] != c.norm || math.Abs(s[tensor.StepClip]-c.clip) > 1e-15 || s[tensor.StepSkip] != 0 {
			t.Errorf("%+v: step block %v", c, s)
		}
	}
	step := m.zeros(tensor.StepSize)
	s := step.Float64()
	s[tensor.StepSkipped] = 2
	s[tensor.StepSumSquares] = math.Inf(1)
	m.ops.ClipFactor(tensor.ClipFactor{Step: step})
	s[tensor.StepSumSquares] = 1
	m.ops.ClipFactor(tensor.ClipFactor{Step: step, Check: m.set(m.blank(2), 0, math.NaN())})
	if s[tensor.StepSkip] != 1 || s[tensor.StepSkipped] != 4 {
		t.Errorf("two bad steps leave %v", s)
	}
	m.ops.ClipFactor(tensor.ClipFactor{Step: step})
	if s[tensor.StepSkip] != 0 || s[tensor.StepSkipped] != 4 {
		t.Errorf("a good step after bad ones leaves %v", s)
	}
}

// TestAdamW holds what torch.optim.AdamW of torch 2.11 makes of three steps in
// float64 with lr 0.01, betas (0.9, 0.95), eps 1e-8 and decoupled weight decay 0.1.
func TestAdamW(t *testing.T) {
	m := newMaker(t)
	grads := [][]float64{{0.5, -0.25, 3}, {-0.2, 0.1, -1}, {1, 0, 2}}
	want := [][]float64{
		{0.9890000002, -1.9880000004, 0.4895000000333333},
		{0.9845230344785371, -1.982524034770798, 0.4849674330331678},
		{0.9767469362554546, -1.9778104413827304, 0.4783977691989267},
	}
	p, mm, vv, step := m.set(m.blank(3), 1, -2, 0.5), m.zeros(3), m.zeros(3), m.zeros(tensor.StepSize)
	for i, g := range grads {
		s, n := step.Float64(), float64(i+1)
		s[tensor.StepLR], s[tensor.StepBias1], s[tensor.StepBias2] = 0.01, 1-math.Pow(0.9, n), 1-math.Pow(0.95, n)
		s[tensor.StepClip] = 0.5 // undone by gradients twice as large
		grad := m.set(m.blank(3), 2*g[0], 2*g[1], 2*g[2])
		m.ops.AdamW(tensor.AdamW{Param: p, Grad: grad, M: mm, V: vv, Step: step, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1})
		m.expect("Param", p, 1e-8, want[i]...) // the settings are float32
	}
	m.expect("M", mm, 1e-7, 0.1225, -0.01125, 0.353)
	m.expect("V", vv, 1e-6, 0.06318125, 0.0032953125, 0.653625)
	before := flat(p)
	step.Float64()[tensor.StepSkip] = 1
	m.ops.AdamW(tensor.AdamW{Param: p, Grad: m.random(3), M: mm, V: vv, Step: step, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1})
	m.expect("Param of a skipped step", p, 0, before...)
}

func TestSumSquares(t *testing.T) {
	m := newMaker(t)
	out := m.set(m.blank(2), 1, 7)
	m.ops.SumSquares(out, m.set(m.blank(2, 2), 1, -2, 3, 4))
	m.expect("out", out, 0, 31, 7)
}

func TestSampleWithoutChoice(t *testing.T) {
	m := newMaker(t)
	ids, logProbs := m.ints(9, 9, 9), m.blank(3)
	logits := m.set(m.blank(3, 3), 1, 2, 2, 0, 5, 1, 3, 2, 1)
	m.ops.Sample(tensor.Sample{IDs: ids, LogProbs: logProbs, Logits: logits, Rows: []tensor.SampleRow{
		{}, {Temperature: 1, Banned: []int32{0, 1}}, {Temperature: 1, Banned: []int32{0, 1, 2}}}})
	if got := ids.Int32(); got[0] != 1 || got[1] != 2 || got[2] != -1 {
		t.Errorf("ids %v, want [1 2 -1]", got)
	}
	if last := logProbs.Slice(2, 1).Float64(); !math.IsNaN(last[0]) {
		t.Errorf("the log-probability of no token is %g", last[0])
	}
	lse := func(a, b, c float64) float64 { return math.Log(math.Exp(a) + math.Exp(b) + math.Exp(c)) }
	m.expect("LogProbs", logProbs.Slice(0, 2), 1e-14, 2-lse(1, 2, 2), 1-lse(0, 5, 1))
}

// TestShapesAreChecked wants a panic that names the operand of a wrong shape.
func TestShapesAreChecked(t *testing.T) {
	m := newMaker(t)
	for name, f := range map[string]func(){
		"Matmul's B": func() { m.ops.Matmul(tensor.Matmul{C: m.blank(2, 3), A: m.blank(2, 4), B: m.blank(3, 3)}) },
		"RMSNorm's W": func() {
			m.ops.RMSNorm(tensor.RMSNorm{X: m.blank(2, 3), Y: m.blank(2, 3), W: m.blank(2), RStd: m.blank(2)})
		},
		"token id": func() { m.ops.Embedding(m.blank(1, 3), m.blank(2, 3), m.ints(2)) },
		"Starts": func() {
			m.ops.Attention(tensor.Attention{AttentionShape: tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 1}, QKV: m.blank(2, 3), O: m.blank(2, 1), LSE: m.blank(1, 2), Starts: m.ints(0, 1), Longest: 9})
		},
		"Delta and Sum": func() {
			m.ops.RMSNorm(tensor.RMSNorm{X: m.blank(2, 3), Y: m.blank(2, 3), W: m.blank(3), RStd: m.blank(2), Delta: m.blank(2, 3)})
		},
		"GLU's x":       func() { m.ops.GLU(m.blank(2, 3), m.blank(2, 5), tensor.SiLU) },
		"activation":    func() { m.ops.GLU(m.blank(1, 1), m.blank(1, 2), 99) },
		"Beta 0.5":      func() { m.ops.Matmul(tensor.Matmul{C: m.blank(1, 1), A: m.blank(1, 1), B: m.blank(1, 1), Beta: 0.5}) },
		"Copy of":       func() { m.ops.Copy(m.blank(2, 3), m.blank(3, 2)) },
		"temperature 0": func() { m.ops.LogProb(tensor.LogProb{X: m.blank(2, 3), W: m.blank(4, 3), Targets: m.ints(0, 1)}) },
		"LogProb's LSE": func() {
			m.ops.LogProb(tensor.LogProb{X: m.blank(2, 3), W: m.blank(4, 3), Targets: m.ints(0, 1), Temperature: 1, LogProbs: m.blank(2), LSE: m.blank(3)})
		},
		"SoftCap with a limit of 0": func() { m.ops.SoftCap(m.blank(1, 2), m.blank(1, 2), 0) },
		"settings for 0":            func() { m.ops.Sample(tensor.Sample{IDs: m.ints(0), LogProbs: m.blank(1), Logits: m.blank(1, 2)}) },
	} {
		message := panicOf(f)
		if message == "" || !strings.Contains(message, name) {
			t.Errorf("%s: panic %q", name, message)
		}
	}
}

func panicOf(f func()) (message string) {
	defer func() {
		if r := recover(); r != nil {
			message, _ = r.(string)
		}
	}()
	f()
	return ""
}
