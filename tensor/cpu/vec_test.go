package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// atEveryLevel runs f once for each SIMD level that works here.
func atEveryLevel(t *testing.T, f func(t *testing.T)) {
	best := simdLevel
	defer func() { simdLevel = best }()
	for _, l := range availableSIMD() {
		simdLevel = l
		t.Run(l.String(), f)
	}
}

// ulps is the distance of got from want in units of the last place of want.
func ulps(got float32, want float64) float64 {
	w := float32(want)
	if math.IsInf(float64(w), 0) || w != w {
		if got == w || got != got && w != w {
			return 0
		}
		return math.Inf(1)
	}
	_, e := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Ldexp(1, max(e, -125)-24)
}

func TestExp(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		const n = 1 << 16
		x, y := make([]float32, n), make([]float32, n)
		for i := range x {
			x[i] = float32(r.Float64()*176.05 - 87.33)
			if i%4 == 0 {
				x[i] = float32(r.NormFloat64())
			}
		}
		vecExpSum(y, x, 0)
		worst := 0.0
		for i := range x {
			worst = max(worst, ulps(y[i], math.Exp(float64(x[i]))))
		}
		if worst > 2 {
			t.Errorf("off by %.2f units in the last place", worst)
		}
		inf := float32(math.Inf(1))
		nan := float32(math.NaN())
		in := []float32{-inf, inf, nan, 88.73, -87.34, -1e30, 1e30, 0, 88.722, -87.336, 3.4e38, -3.4e38, 1e-40}
		want := []float32{0, inf, nan, inf, 0, 0, inf, 1, float32(math.Exp(float64(float32(88.722)))), float32(math.Exp(float64(float32(-87.336)))), inf, 0, 1}
		// Both as whole vectors and as tails.
		for _, pad := range []int{0, 32} {
			got := make([]float32, len(in)+pad)
			copy(got, in)
			vecExpSum(got, got, 0)
			for i, w := range want {
				if ulps(got[i], float64(w)) > 2 {
					t.Errorf("exp(%v) = %v, want %v", in[i], got[i], w)
				}
			}
		}
	})
}

// vecCase is one kernel and what it computes, in float64. Vectors hold the
// operands in the order of the kernel's; the expected run changes them in place,
// and gives the result with the magnitude that its error is measured by.
type vecCase struct {
	name    string
	vectors int
	got     func(v [][]float32) float64
	want    func(v [][]float64) (result, magnitude float64)
}

func perElement(f func(v []float64)) func(v [][]float64) (float64, float64) {
	return func(v [][]float64) (float64, float64) {
		x := make([]float64, len(v))
		for i := range v[0] {
			for j := range v {
				x[j] = v[j][i]
			}
			f(x)
			for j := range v {
				v[j][i] = x[j]
			}
		}
		return 0, 0
	}
}

func sum(f func(v []float64) float64) func(v [][]float64) (float64, float64) {
	return func(v [][]float64) (s, m float64) {
		perElement(func(x []float64) {
			y := f(x)
			s += y
			m += math.Abs(y)
		})(v)
		return s, m
	}
}

func none(f func(v [][]float32)) func(v [][]float32) float64 {
	return func(v [][]float32) float64 { f(v); return 0 }
}

// The activations and their derivatives in float64.
var activations = []struct {
	name   string
	act, d func(x float64) float64
	glu    func(y, g, u []float32)
	grad   func(dg, du, dy, g, u []float32)
	plain  func(y, x []float32)
	slope  func(dx, dy, x []float32)
}{
	{"SiLU",
		func(x float64) float64 { return x / (1 + math.Exp(-x)) },
		func(x float64) float64 { s := 1 / (1 + math.Exp(-x)); return s + x*s*(1-s) }, vecGLUSiLU, vecGLUSiLUGrad, vecSiLU, vecSiLUGrad},
	{"GELU",
		func(x float64) float64 { return x * math.Erfc(-x/math.Sqrt2) / 2 },
		func(x float64) float64 {
			return math.Erfc(-x/math.Sqrt2)/2 + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
		}, vecGLUGELU, vecGLUGELUGrad, vecGELU, vecGELUGrad},
	{"GELUTanh",
		func(x float64) float64 {
			return x / (1 + math.Exp(-2*math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		},
		func(x float64) float64 {
			c := 2 * math.Sqrt(2/math.Pi)
			s := 1 / (1 + math.Exp(-c*(x+0.044715*x*x*x)))
			return s + x*s*(1-s)*c*(1+3*0.044715*x*x)
		}, vecGLUGELUTanh, vecGLUGELUTanhGrad, vecGELUTanh, vecGELUTanhGrad},
	{"ReLU",
		func(x float64) float64 { return max(x, 0) },
		func(x float64) float64 {
			if x > 0 {
				return 1
			}
			return 0
		}, vecGLUReLU, vecGLUReLUGrad, vecReLU, vecReLUGrad},
}

func vecCases() []vecCase {
	cases := []vecCase{
		{"Max", 1, func(v [][]float32) float64 { return float64(vecMax(v[0])) },
			func(v [][]float64) (float64, float64) {
				m := math.Inf(-1)
				for _, x := range v[0] {
					m = max(m, x)
				}
				return m, 0
			}},
		{"ExpSum", 2, func(v [][]float32) float64 { return float64(vecExpSum(v[0], v[1], 0.75)) },
			sum(func(x []float64) float64 { x[0] = math.Exp(x[1] - 0.75); return x[0] })},
		{"SumExp", 1, func(v [][]float32) float64 { return float64(vecSumExp(v[0], 0.75)) },
			sum(func(x []float64) float64 { return math.Exp(x[0] - 0.75) })},
		{"Scale", 1, none(func(v [][]float32) { vecScale(v[0], 1.5) }),
			perElement(func(x []float64) { x[0] *= 1.5 })},
		{"ShiftScale", 1, none(func(v [][]float32) { vecShiftScale(v[0], 0.5, 1.5) }),
			perElement(func(x []float64) { x[0] = (x[0] - 0.5) * 1.5 })},
		{"Axpy", 2, none(func(v [][]float32) { vecAxpy(v[0], v[1], -2.5) }),
			perElement(func(x []float64) { x[0] += -2.5 * x[1] })},
		{"Ramp", 1, none(func(v [][]float32) { vecRamp(v[0], -700, 0.0625) }),
			func(v [][]float64) (float64, float64) {
				for i := range v[0] {
					v[0][i] += float64(i-700) * 0.0625
				}
				return 0, 0
			}},
		{"Add", 3, none(func(v [][]float32) { vecAdd(v[0], v[1], v[2]) }),
			perElement(func(x []float64) { x[0] = x[1] + x[2] })},
		{"Dot", 2, func(v [][]float32) float64 { return float64(vecDot(v[0], v[1])) },
			sum(func(x []float64) float64 { return x[0] * x[1] })},
		{"SumSquares", 1, func(v [][]float32) float64 { return vecSumSquares(v[0]) },
			sum(func(x []float64) float64 { return x[0] * x[0] })},
		{"AddSquares", 3, func(v [][]float32) float64 { return float64(vecAddSquares(v[0], v[1], v[2])) },
			sum(func(x []float64) float64 { x[0] = x[1] + x[2]; return x[0] * x[0] })},
		{"MulScale", 3, none(func(v [][]float32) { vecMulScale(v[0], v[1], v[2], 0.3) }),
			perElement(func(x []float64) { x[0] = x[1] * 0.3 * x[2] })},
		{"NormDot", 3, func(v [][]float32) float64 { return float64(vecNormDot(v[0], v[1], v[2])) },
			sum(func(x []float64) float64 { return x[0] * x[1] * x[2] })},
		{"NormDotWeight", 4, func(v [][]float32) float64 { return float64(vecNormDotWeight(v[0], v[1], v[2], v[3], 0.4)) },
			sum(func(x []float64) float64 { x[0] += x[1] * x[2] * 0.4; return x[1] * x[2] * x[3] })},
		{"NormGrad", 4, none(func(v [][]float32) { vecNormGrad(v[0], v[1], v[2], v[3], 0.4, 0.2) }),
			perElement(func(x []float64) { x[0] = x[1]*x[3]*0.4 - x[2]*0.2 })},
		{"NormGradAdd", 5, none(func(v [][]float32) { vecNormGradAdd(v[0], v[1], v[2], v[3], v[4], 0.4, 0.2) }),
			perElement(func(x []float64) { x[0] = x[1] + x[2]*x[4]*0.4 - x[3]*0.2 })},
		{"NormGradAddInPlace", 4, none(func(v [][]float32) { vecNormGradAdd(v[0], v[0], v[1], v[2], v[3], 0.4, 0.2) }),
			perElement(func(x []float64) { x[0] += x[1]*x[3]*0.4 - x[2]*0.2 })},
		{"Sum", 1, func(v [][]float32) float64 { return vecSum(v[0]) },
			sum(func(x []float64) float64 { return x[0] })},
		{"AddSum", 3, func(v [][]float32) float64 { return vecAddSum(v[0], v[1], v[2]) },
			sum(func(x []float64) float64 { x[0] = float64(float32(x[1]) + float32(x[2])); return x[0] })},
		{"SquaresFrom", 1, func(v [][]float32) float64 { return vecSquaresFrom(v[0], 0.5, 0.125) },
			sum(func(x []float64) float64 { return (x[0] - 0.625) * (x[0] - 0.625) })},
		{"LayerNorm", 3, none(func(v [][]float32) { vecLayerNorm(v[0], v[1], v[2], 0.5, 0.125, 0.3) }),
			perElement(func(x []float64) { x[0] = (x[1] - 0.625) * 0.3 * x[2] })},
		{"LayerNormBias", 4, none(func(v [][]float32) { vecLayerNormBias(v[0], v[1], v[2], v[3], 0.5, 0.125, 0.3) }),
			perElement(func(x []float64) { x[0] = (x[1]-0.625)*0.3*x[2] + x[3] })},
		{"LayerDot", 3, func(v [][]float32) float64 { return float64(vecLayerDot(v[0], v[1], v[2], 0.5, 0.3)) },
			sum(func(x []float64) float64 { return x[0] * (x[1] - 0.5) * 0.3 * x[2] })},
		{"LayerDotWeight", 4, func(v [][]float32) float64 { return float64(vecLayerDotWeight(v[0], v[1], v[2], v[3], 0.5, 0.3)) },
			sum(func(x []float64) float64 {
				t := x[1] * (x[2] - 0.5) * 0.3
				x[0] += t
				return t * x[3]
			})},
		{"LayerGrad", 4, none(func(v [][]float32) { vecLayerGrad(v[0], v[1], v[2], v[3], 0.5, 0.3, 0.2, 0.1) }),
			perElement(func(x []float64) { x[0] = (x[1]*x[3] - 0.2 - (x[2]-0.5)*0.3*0.1) * 0.3 })},
		{"LayerGradAdd", 5, none(func(v [][]float32) { vecLayerGradAdd(v[0], v[1], v[2], v[3], v[4], 0.5, 0.3, 0.2, 0.1) }),
			perElement(func(x []float64) { x[0] = x[1] + (x[2]*x[4]-0.2-(x[3]-0.5)*0.3*0.1)*0.3 })},
		{"LayerGradAddInPlace", 4, none(func(v [][]float32) { vecLayerGradAdd(v[0], v[0], v[1], v[2], v[3], 0.5, 0.3, 0.2, 0.1) }),
			perElement(func(x []float64) { x[0] += (x[1]*x[3] - 0.2 - (x[2]-0.5)*0.3*0.1) * 0.3 })},
		{"SoftCap", 2, none(func(v [][]float32) { vecSoftCap(v[0], v[1], 1/1.5, 1.5) }),
			perElement(func(x []float64) { x[0] = 1.5 * math.Tanh(x[1]/1.5) })},
		{"SoftCapInPlace", 1, none(func(v [][]float32) { vecSoftCap(v[0], v[0], 1/1.5, 1.5) }),
			perElement(func(x []float64) { x[0] = 1.5 * math.Tanh(x[0]/1.5) })},
		{"SoftCapGrad", 3, none(func(v [][]float32) { vecSoftCapGrad(v[0], v[1], v[2], 4, 1.0/16) }),
			perElement(func(x []float64) { x[0] = x[1] * (1 - x[2]*x[2]/16) })},
		{"SoftCapGradInY", 2, none(func(v [][]float32) { vecSoftCapGrad(v[0], v[1], v[0], 4, 1.0/16) }),
			perElement(func(x []float64) { x[0] = x[1] * (1 - x[0]*x[0]/16) })},
		{"Rotate", 4, none(func(v [][]float32) { vecRotate(v[0], v[1], v[2], v[3], 1) }),
			perElement(func(x []float64) { x[0], x[1] = x[0]*x[2]-x[1]*x[3], x[1]*x[2]+x[0]*x[3] })},
		{"RotateBack", 4, none(func(v [][]float32) { vecRotate(v[0], v[1], v[2], v[3], -1) }),
			perElement(func(x []float64) { x[0], x[1] = x[0]*x[2]+x[1]*x[3], x[1]*x[2]-x[0]*x[3] })},
		{"AdamW", 4, none(func(v [][]float32) {
			for i, x := range v[2] {
				v[2][i] = x * x
			}
			vecAdamW(v[0], v[1], v[2], v[3], 0.5, 0.01, 0.9, 0.1, 0.99, 0.01, 0.02, 3, 1e-3)
		}),
			perElement(func(x []float64) {
				g := x[3] * 0.5
				x[1] = 0.9*x[1] + 0.1*g
				x[2] = 0.99*float64(float32(x[2])*float32(x[2])) + 0.01*g*g
				x[0] -= 0.01 * x[0]
				x[0] -= 0.02 * x[1] / (math.Sqrt(x[2])*3 + 1e-3)
			})},
	}
	for _, a := range activations {
		cases = append(cases,
			vecCase{"GLU" + a.name, 3, none(func(v [][]float32) { a.glu(v[0], v[1], v[2]) }),
				perElement(func(x []float64) { x[0] = a.act(x[1]) * x[2] })},
			vecCase{"GLU" + a.name + "Grad", 5, none(func(v [][]float32) { a.grad(v[0], v[1], v[2], v[3], v[4]) }),
				perElement(func(x []float64) { x[0], x[1] = x[2]*x[4]*a.d(x[3]), x[2]*a.act(x[3]) })},
			vecCase{"GLU" + a.name + "GradInPlace", 3, none(func(v [][]float32) { a.grad(v[1], v[2], v[0], v[1], v[2]) }),
				perElement(func(x []float64) { x[1], x[2] = x[0]*x[2]*a.d(x[1]), x[0]*a.act(x[1]) })},
			vecCase{a.name, 2, none(func(v [][]float32) { a.plain(v[0], v[1]) }),
				perElement(func(x []float64) { x[0] = a.act(x[1]) })},
			vecCase{a.name + "InPlace", 1, none(func(v [][]float32) { a.plain(v[0], v[0]) }),
				perElement(func(x []float64) { x[0] = a.act(x[0]) })},
			vecCase{a.name + "Grad", 3, none(func(v [][]float32) { a.slope(v[0], v[1], v[2]) }),
				perElement(func(x []float64) { x[0] = x[1] * a.d(x[2]) })},
			vecCase{a.name + "GradInX", 2, none(func(v [][]float32) { a.slope(v[1], v[0], v[1]) }),
				perElement(func(x []float64) { x[1] = x[0] * a.d(x[1]) })},
			vecCase{a.name + "GradInDY", 2, none(func(v [][]float32) { a.slope(v[0], v[0], v[1]) }),
				perElement(func(x []float64) { x[0] *= a.d(x[1]) })})
	}
	return cases
}

// Every kernel equals float64 over ragged lengths and touches no memory outside
// its operands, which lie against guard pages.
func TestVectorKernels(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for _, c := range vecCases() {
			t.Run(c.name, func(t *testing.T) {
				const longest = 1031
				r := rand.New(rand.NewPCG(7, uint64(c.vectors)))
				var mem [2][]unsafe.Pointer
				for i := range mem {
					for range c.vectors {
						mem[i] = append(mem[i], guardedMemory(t, 4*longest, i == 0))
					}
				}
				for n := 0; n <= longest; n++ {
					if n > 70 && n < longest-1 {
						continue
					}
					for i := range mem {
						checkKernel(t, c, mem[i], n, longest, i == 0, r)
					}
				}
			})
		}
	})
}

func checkKernel(t *testing.T, c vecCase, mem []unsafe.Pointer, n, longest int, atEnd bool, r *rand.Rand) {
	t.Helper()
	got, want := make([][]float32, c.vectors), make([][]float64, c.vectors)
	for j := range got {
		p := mem[j]
		if atEnd {
			p = unsafe.Add(p, 4*(longest-n))
		}
		got[j] = unsafe.Slice((*float32)(p), longest)[:n]
		want[j] = make([]float64, n)
		for i := range n {
			got[j][i] = float32(r.NormFloat64() * 2)
			want[j][i] = float64(got[j][i])
		}
	}
	g := c.got(got)
	w, m := c.want(want)
	if math.Abs(g-w) > 1e-6*(math.Abs(w)+m) {
		t.Errorf("n=%d: result %v, want %v", n, g, w)
	}
	for j := range got {
		for i := range n {
			if math.Abs(float64(got[j][i])-want[j][i]) > 1e-6*(math.Abs(want[j][i])+1) {
				t.Fatalf("n=%d: vector %d [%d] = %v, want %v", n, j, i, got[j][i], want[j][i])
			}
		}
	}
}

// The activations keep their relative accuracy away from 0 and give finite
// slopes at extreme arguments.
func TestActivationAccuracy(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for _, a := range activations {
			const n = 4001
			x, one := make([]float32, n), make([]float32, n)
			y, dx, du := make([]float32, n), make([]float32, n), make([]float32, n)
			for i := range x {
				x[i], one[i] = float32(i-n/2)*(9.0/n), 1 // -4.5 to 4.5
			}
			a.glu(y, x, one)
			a.grad(dx, du, one, x, one)
			plain, slope := make([]float32, n), make([]float32, n)
			a.plain(plain, x)
			a.slope(slope, one, x)
			for i := range x { // the gated form times 1
				if plain[i] != y[i] || slope[i] != dx[i] {
					t.Fatalf("%s(%v) is %v, %v when gated; its slope %v and %v", a.name, x[i], plain[i], y[i], slope[i], dx[i])
				}
			}
			for i := range x {
				f, d := a.act(float64(x[i])), a.d(float64(x[i]))
				if math.Abs(float64(y[i])-f) > 3e-6*math.Abs(f) || math.Abs(float64(du[i])-f) > 3e-6*math.Abs(f) {
					t.Fatalf("%s(%v) = %v and %v, want %v", a.name, x[i], y[i], du[i], f)
				}
				if math.Abs(float64(dx[i])-d) > 3e-6*(math.Abs(d)+0.02) {
					t.Fatalf("%s'(%v) = %v, want %v", a.name, x[i], dx[i], d)
				}
			}
			for i := range x {
				x[i] = []float32{-1e9, -1000, -100, -20, 20, 100, 1000, 1e9}[i%8]
			}
			a.grad(dx, du, one, x, one)
			a.slope(slope, one, x)
			for i := range x {
				if d := a.d(float64(x[i])); math.Abs(float64(dx[i])-d) > 1e-6 || slope[i] != dx[i] {
					t.Fatalf("%s'(%v) = %v and %v, want %v", a.name, x[i], dx[i], slope[i], d)
				}
			}
		}
	})
}

// The hyperbolic tangent keeps its relative accuracy everywhere, so that a cap hardly
// changes a number that is small beside it.
func TestTanh(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 3))
		const n = 1 << 16
		x, y := make([]float32, n), make([]float32, n)
		for i := range x {
			switch i % 4 {
			case 0:
				x[i] = float32(r.NormFloat64())
			case 1:
				x[i] = float32(r.Float64()*24 - 12)
			case 2:
				x[i] = float32(math.Ldexp(r.Float64()-0.5, -r.IntN(120)))
			case 3:
				x[i] = float32(math.Ln2 / 4 * float64(r.IntN(60)-30) * (1 + r.NormFloat64()*1e-6)) // where n changes
			}
		}
		vecSoftCap(y, x, 1, 1)
		worst := 0.0
		for i := range x {
			worst = max(worst, ulps(y[i], math.Tanh(float64(x[i]))))
		}
		if worst > 3 {
			t.Errorf("off by %.2f units in the last place", worst)
		}
		t.Logf("off by %.2f units in the last place at most", worst)
		inf, nan := float32(math.Inf(1)), float32(math.NaN())
		in := []float32{-inf, inf, nan, 9, -9, 10, -10, 3.4e38, -3.4e38, 0, float32(math.Copysign(0, -1)), 1e-45, -1e-40, 1.5e-38}
		for _, pad := range []int{0, 32} { // as tails and as whole vectors
			got := make([]float32, len(in)+pad)
			copy(got, in)
			vecSoftCap(got, got, 1, 1)
			for i, v := range in {
				want := math.Tanh(float64(v))
				if ulps(got[i], want) > 3 || math.Signbit(float64(got[i])) != math.Signbit(want) && want == want || got[i] > 1 || got[i] < -1 {
					t.Errorf("tanh(%v) = %v, want %v", v, got[i], want)
				}
			}
		}
	})
}

func TestVectorKernelsSpecial(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for n := 1; n < 70; n++ {
			x := make([]float32, n)
			for i := range x {
				x[i] = -5
			}
			for i := range x {
				x[i] = nan
				want := float32(-5)
				if n == 1 {
					want = -inf
				}
				if got := vecMax(x); got != want {
					t.Fatalf("n=%d: maximum beside NaN = %v", n, got)
				}
				if s := vecSumExp(x, 0); s == s {
					t.Fatalf("n=%d: NaN at %d is lost in the sum of exponentials", n, i)
				}
				if s := vecSumSquares(x); s == s {
					t.Fatalf("n=%d: NaN at %d is lost in the sum of squares", n, i)
				}
				x[i] = inf
				if got := vecMax(x); got != inf {
					t.Fatalf("n=%d: maximum = %v, want Inf", n, got)
				}
				x[i] = -5
			}
		}
	})
}

func TestHalfConversions(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for _, f := range []struct {
			name   string
			widen  func([]float32, []uint16)
			narrow func([]uint16, []float32)
			digits int // bits of the mantissa, the hidden one included
			least  int // exponent of the smallest positive number
			most   float64
		}{
			{"BF16", vecWidenBF16, vecNarrowBF16, 8, -133, 0x1.fep127},
			{"F16", vecWidenF16, vecNarrowF16, 11, -24, 65504},
		} {
			t.Run(f.name, func(t *testing.T) {
				all, back := make([]uint16, 1<<16), make([]uint16, 1<<16)
				wide := make([]float32, 1<<16)
				for i := range all {
					all[i] = uint16(i)
				}
				f.widen(wide, all)
				f.narrow(back, wide)
				for i, h := range all {
					if wide[i] == wide[i] && back[i] != h {
						t.Fatalf("%#04x becomes %v, then %#04x", h, wide[i], back[i])
					}
					if wide[i] != wide[i] && (back[i]&0x7fff)<<1>>1 <= 0x7c00 {
						t.Fatalf("NaN %#04x becomes %#04x", h, back[i])
					}
				}
				r := rand.New(rand.NewPCG(3, 4))
				for n := range 70 {
					x, y, h := make([]float32, n), make([]float32, n), make([]uint16, n)
					for i := range x {
						x[i] = math.Float32frombits(r.Uint32())
						if i%3 == 0 {
							x[i] = float32(r.NormFloat64() * math.Exp(r.NormFloat64()*6))
						}
						if i%7 == 0 { // halfway between two
							x[i] = math.Float32frombits(math.Float32bits(x[i])&^0x1fff | 0x1000)
						}
					}
					f.narrow(h, x)
					f.widen(y, h)
					for i, v := range x {
						if want := roundTo(float64(v), f.digits, f.least, f.most); float64(y[i]) != want && (v == v || y[i] == y[i]) {
							t.Fatalf("n=%d: %v becomes %v, want %v", n, v, y[i], want)
						}
					}
				}
			})
		}
	})
}

// roundTo rounds to a binary format by arithmetic in float64.
func roundTo(v float64, digits, least int, most float64) float64 {
	if v == 0 || v != v || math.IsInf(v, 0) {
		return v
	}
	_, e := math.Frexp(v)
	unit := math.Ldexp(1, max(e-digits, least))
	v = math.RoundToEven(v/unit) * unit
	if math.Abs(v) > most {
		return math.Inf(int(math.Copysign(1, v)))
	}
	return v
}

func benchVec(b *testing.B, bytesEach int, f func(n int)) {
	for _, n := range []int{1 << 10, 1 << 22} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(bytesEach * n))
			for b.Loop() {
				f(n)
			}
		})
	}
}

// BenchmarkVec gives the rate of each kernel on one thread, in cache and from
// memory, in bytes read and written; Copy, the Go runtime's memmove, is what
// they are measured against.
func BenchmarkVec(b *testing.B) {
	var v [5][]float32
	for i := range v {
		v[i] = alignedFloats(1 << 22)
		for j := range v[i] {
			v[i][j] = float32(j%101)/50 - 1
		}
	}
	h := make([]uint16, 1<<22)
	for _, c := range []struct {
		name  string
		bytes int
		f     func(n int)
	}{
		{"Copy", 8, func(n int) { copy(v[0][:n], v[1][:n]) }},
		{"Max", 4, func(n int) { vecMax(v[0][:n]) }},
		{"ExpSum", 8, func(n int) { vecExpSum(v[0][:n], v[1][:n], 1) }},
		{"Scale", 8, func(n int) { vecScale(v[0][:n], 1) }},
		{"Axpy", 12, func(n int) { vecAxpy(v[0][:n], v[1][:n], 0) }},
		{"Add", 12, func(n int) { vecAdd(v[0][:n], v[1][:n], v[2][:n]) }},
		{"Dot", 8, func(n int) { vecDot(v[0][:n], v[1][:n]) }},
		{"SumSquares", 4, func(n int) { vecSumSquares(v[0][:n]) }},
		{"MulScale", 12, func(n int) { vecMulScale(v[0][:n], v[1][:n], v[2][:n], 1) }},
		{"NormDotWeight", 20, func(n int) { vecNormDotWeight(v[0][:n], v[1][:n], v[2][:n], v[3][:n], 0) }},
		{"NormGrad", 16, func(n int) { vecNormGrad(v[0][:n], v[1][:n], v[2][:n], v[3][:n], 1, 0) }},
		{"AddSum", 12, func(n int) { vecAddSum(v[0][:n], v[1][:n], v[2][:n]) }},
		{"SquaresFrom", 4, func(n int) { vecSquaresFrom(v[0][:n], 1, 0) }},
		{"LayerNormBias", 16, func(n int) { vecLayerNormBias(v[0][:n], v[1][:n], v[2][:n], v[3][:n], 0, 0, 1) }},
		{"LayerDotWeight", 20, func(n int) { vecLayerDotWeight(v[0][:n], v[1][:n], v[2][:n], v[3][:n], 0, 0) }},
		{"LayerGrad", 16, func(n int) { vecLayerGrad(v[0][:n], v[1][:n], v[2][:n], v[3][:n], 0, 1, 0, 0) }},
		{"GLUSiLU", 12, func(n int) { vecGLUSiLU(v[0][:n], v[1][:n], v[2][:n]) }},
		{"GLUSiLUGrad", 20, func(n int) { vecGLUSiLUGrad(v[0][:n], v[4][:n], v[1][:n], v[2][:n], v[3][:n]) }},
		{"GLUGELU", 12, func(n int) { vecGLUGELU(v[0][:n], v[1][:n], v[2][:n]) }},
		{"GLUGELUTanh", 12, func(n int) { vecGLUGELUTanh(v[0][:n], v[1][:n], v[2][:n]) }},
		{"SiLU", 8, func(n int) { vecSiLU(v[0][:n], v[1][:n]) }},
		{"SiLUGrad", 12, func(n int) { vecSiLUGrad(v[0][:n], v[1][:n], v[2][:n]) }},
		{"GELU", 8, func(n int) { vecGELU(v[0][:n], v[1][:n]) }},
		{"GELUTanh", 8, func(n int) { vecGELUTanh(v[0][:n], v[1][:n]) }},
		{"SoftCap", 8, func(n int) { vecSoftCap(v[0][:n], v[1][:n], 0.1, 10) }},
		{"SoftCapGrad", 12, func(n int) { vecSoftCapGrad(v[0][:n], v[1][:n], v[2][:n], 10, 0.01) }},
		{"WidenBF16", 6, func(n int) { vecWidenBF16(v[0][:n], h[:n]) }},
		{"NarrowBF16", 6, func(n int) { vecNarrowBF16(h[:n], v[1][:n]) }},
		{"WidenF16", 6, func(n int) { vecWidenF16(v[0][:n], h[:n]) }},
		{"AdamW", 28, func(n int) {
			vecAdamW(v[0][:n], v[1][:n], v[2][:n], v[3][:n], 1, 0, 0.9, 0.1, 0.99, 0.01, 1e-3, 1, 1e-8)
		}},
	} {
		b.Run(c.name, func(b *testing.B) { benchVec(b, c.bytes, c.f) })
	}
}
