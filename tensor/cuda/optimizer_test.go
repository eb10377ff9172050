package cuda

import (
	"math"
	"testing"

	"ringtail/rng"
	"ringtail/tensor"
)

// TestStochasticRounding compares a step of all-bfloat16 AdamW, element by element, with
// one in float64 that is rounded by the same words of Philox.
func TestStochasticRounding(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16})
	t.Cleanup(d.Close)
	const n, step, seed = 4099, 77, 0x123456789abcdef
	const lr, beta1, beta2, eps, decay = 1e-3, 0.9, 0.999, 1e-8, 0.1
	bias1, bias2 := 1-math.Pow(beta1, 10), 1-math.Pow(beta2, 10)
	for _, first := range []uint64{0, 8, 1<<33 + 3} {
		for _, from := range []int{0, 1} { // an aligned start, and one that isn't
			var tensors [4]tensor.Tensor
			var values [4][]float64
			for i := range tensors {
				narrow, b1, err := tensor.New(d, tensor.BF16, n+from)
				if err != nil {
					t.Fatal(err)
				}
				wide, b2, err := tensor.New(d, tensor.F32, n+from)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(b1.Free)
				t.Cleanup(b2.Free)
				v := make([]float32, n+from)
				for j := range v {
					v[j] = float32(math.Sin(float64(j*(i+1)) + 0.3))
					if i == 3 {
						v[j] *= v[j]
					}
				}
				tensor.SetFloat32(wide, v)
				d.ops.Copy(narrow, wide)
				d.ops.Copy(wide, narrow)
				tensors[i], values[i] = narrow.Columns(from, n), tensor.GetFloat64(wide)[from:]
			}
			block, b, err := tensor.New(d, tensor.F64, tensor.StepSize)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Free)
			settings := make([]float64, tensor.StepSize)
			settings[tensor.StepLR], settings[tensor.StepBias1], settings[tensor.StepBias2] = lr, bias1, bias2
			settings[tensor.StepClip], settings[tensor.StepOffset] = 1, step
			tensor.SetFloat64(block, settings)
			d.ops.AdamW(tensor.AdamW{Param: tensors[0], Grad: tensors[1], M: tensors[2], V: tensors[3], Step: block,
				Beta1: beta1, Beta2: beta2, Eps: eps, WeightDecay: decay, Stochastic: true, Seed: seed, First: first})

			var got [4][]float64
			for i := range got {
				wide, b, err := tensor.New(d, tensor.F32, n)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(b.Free)
				d.ops.Copy(wide, tensors[i])
				got[i] = tensor.GetFloat64(wide)
			}
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			differ := 0
			for j := range n {
				p, g, m, v := values[0][j], values[1][j], values[2][j], values[3][j]
				p -= lr * decay * p
				m = beta1*m + (1-beta1)*g
				v = beta2*v + (1-beta2)*g*g
				p -= lr * (m / bias1) / (math.Sqrt(v/bias2) + eps)
				c := first + uint64(j)
				w := rng.Philox([4]uint32{uint32(c / 4), uint32(c / 4 >> 32), step, 0}, [2]uint32{seed & 0xffffffff, seed >> 32})[c%4]
				for i, want := range map[int]float64{0: roundStochastically(p, w>>16), 2: roundStochastically(m, w&0xff00|0x80), 3: roundStochastically(v, w&0xff<<8|0x80)} {
					if got[i][j] == want {
						continue
					}
					// float32 and float64 may fall on different sides of the draw, a unit apart, rarely.
					if differ++; differ > n/100 || math.Abs(got[i][j]-want) > 0x1p-7*math.Abs(want) {
						t.Fatalf("First %d, from %d: element %d of tensor %d is %g, want %g", first, from, j, i, got[i][j], want)
					}
				}
			}
		}
	}
}

// roundStochastically is the bfloat16 below x in magnitude, or above it where random, of
// 65536, is at least what is missing.
func roundStochastically(x float64, random uint32) float64 {
	return float64(math.Float32frombits((math.Float32bits(float32(x)) + random) &^ 0xffff))
}

// TestTables compares many tensors in one call with one call each: more than a launch's
// table holds, of several types, empty ones among them.
func TestTables(t *testing.T) {
	d := open(t, Options{Float: tensor.F32})
	t.Cleanup(d.Close)
	alloc := func(typ tensor.Dtype, n int) tensor.Tensor {
		v, b, err := tensor.New(d, typ, n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Free)
		return v
	}
	var xs []tensor.Tensor
	want := 0.0
	for i := range 300 {
		n := i * 7 % 100
		if i == 5 {
			n = 3*sumChunk + 1
		}
		wide := alloc(tensor.F32, n)
		v := make([]float32, n)
		for j := range v {
			v[j] = float32(i%5-2) + float32(j%3)/4
			want += float64(v[j]) * float64(v[j])
		}
		tensor.SetFloat32(wide, v)
		if i%4 == 3 {
			narrow := alloc(tensor.BF16, n)
			d.ops.Copy(narrow, wide)
			wide = narrow
		}
		xs = append(xs, wide)
	}
	out := alloc(tensor.F64, 1)
	d.sumSquaresAll(out, xs)
	if got := tensor.GetFloat64(out)[0]; math.Abs(got-want) > 1e-12*want {
		t.Errorf("Σ x² of %d tensors is %g, want %g", len(xs), got, want)
	}

	step := alloc(tensor.F64, tensor.StepSize)
	settings := make([]float64, tensor.StepSize)
	settings[tensor.StepLR], settings[tensor.StepBias1], settings[tensor.StepBias2], settings[tensor.StepClip] = 0.1, 0.1, 0.1, 1
	tensor.SetFloat64(step, settings)
	var together, alone []tensor.AdamW
	for i := range 100 {
		n := i * 37 % 50
		if i == 7 {
			n = 2*adamChunk + 3
		}
		for _, all := range []*[]tensor.AdamW{&together, &alone} {
			a := tensor.AdamW{Param: alloc(tensor.F32, n), Grad: alloc(tensor.F32, n), M: alloc(tensor.F32, n), V: alloc(tensor.F32, n), Step: step,
				Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, WeightDecay: float64(i%2) / 10}
			v := make([]float32, n)
			for j := range v {
				v[j] = float32(i+j) / 7
			}
			tensor.SetFloat32(a.Param, v)
			tensor.SetFloat32(a.Grad, v)
			*all = append(*all, a)
		}
	}
	d.adamWAll(together)
	for i, a := range alone {
		d.adamW(a)
		got, want := tensor.GetFloat64(together[i].Param), tensor.GetFloat64(a.Param)
		for j := range want {
			if got[j] != want[j] {
				t.Fatalf("parameter %d of tensor %d is %g updated with others, %g alone", j, i, got[j], want[j])
			}
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}
