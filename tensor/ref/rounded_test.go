package ref

import (
	"math"
	"strings"
	"testing"

	"ringtail/tensor"
)

// on makes a tensor of the device that holds v.
func on(t *testing.T, dev *Device, d tensor.Dtype, v []float64, shape ...int) tensor.Tensor {
	t.Helper()
	x, b, err := tensor.New(dev, d, shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	if v != nil {
		tensor.SetFloat64(x, v)
	}
	return x
}

// TestRounded: intermediate sums keep what BF16 can't hold, results are rounded once,
// statistics are wide, and operands may be one tensor.
func TestRounded(t *testing.T) {
	dev := NewRounded(tensor.BF16)
	if dev.Float() != tensor.BF16 || dev.Name() != "ref:BF16" || NewRounded(tensor.F64).Name() != "ref" {
		t.Errorf("device %q of %v", dev.Name(), dev.Float())
	}
	// 256 + 1 − 256: BF16 has no 257.
	a, b := on(t, dev, tensor.BF16, []float64{256, 1, -256}, 1, 3), on(t, dev, tensor.BF16, []float64{1, 1, 1}, 3, 1)
	c, wide := on(t, dev, tensor.BF16, []float64{256}, 1, 1), on(t, dev, tensor.F32, []float64{256}, 1, 1)
	for _, c := range []tensor.Tensor{c, wide} {
		dev.Ops().Matmul(tensor.Matmul{C: c, A: a, B: b, Beta: 1})
	}
	if got, exact := tensor.GetFloat64(c)[0], tensor.GetFloat64(wide)[0]; got != 256 || exact != 257 {
		t.Errorf("256 + 256 + 1 − 256 is %g in BF16, %g in F32", got, exact)
	}

	x := on(t, dev, tensor.BF16, []float64{3, 4}, 1, 2)
	w, rstd := on(t, dev, tensor.BF16, []float64{1, 1}, 2), on(t, dev, tensor.F32, nil, 1)
	dev.Ops().RMSNorm(tensor.RMSNorm{Y: x, X: x, Delta: x, Sum: x, W: w, RStd: rstd})
	want := 1 / math.Sqrt(50)
	if got := tensor.GetFloat64(rstd)[0]; got != float64(float32(want)) {
		t.Errorf("RStd is %.9g, want %.9g", got, want)
	}

	nan := on(t, dev, tensor.BF16, nil, 2, 2)
	for i := range nan.Uint16() {
		nan.Uint16()[i] = uint16(0xff81 + i)
	}
	dev.Ops().Add(nan.Columns(0, 1), a.Reshape(3, 1).Slice(0, 2), b.Slice(0, 2))
	if u := nan.Uint16(); u[0] != 0x4380 || u[2] != 0x4000 || u[1] != 0xff82 || u[3] != 0xff84 {
		t.Errorf("a sum in a window left %#04x", u)
	}
}

// TestRoundedMaster: Param is the stored Master, rounded, unless the step is skipped.
func TestRoundedMaster(t *testing.T) {
	dev := NewRounded(tensor.BF16)
	param, master := on(t, dev, tensor.BF16, []float64{7}, 1), on(t, dev, tensor.F32, []float64{1 + 1.0/256}, 1)
	grad, m, v := on(t, dev, tensor.BF16, nil, 1), on(t, dev, tensor.F32, nil, 1), on(t, dev, tensor.F32, nil, 1)
	block := make([]float64, tensor.StepSize)
	block[tensor.StepBias1], block[tensor.StepBias2] = 1, 1
	for _, skip := range []float64{1, 0} {
		block[tensor.StepSkip] = skip
		step := on(t, dev, tensor.F64, block, len(block))
		dev.Ops().AdamW(tensor.AdamW{Param: param, Master: master, Grad: grad, M: m, V: v, Step: step, Eps: 1})
		if got, want := tensor.GetFloat64(param)[0], 1+6*skip; got != want {
			t.Errorf("with Skip %g Param is %g, want %g", skip, got, want)
		}
	}
}

func TestRoundedRefuses(t *testing.T) {
	dev := NewRounded(tensor.BF16)
	half, wide := on(t, dev, tensor.BF16, []float64{1}, 1, 1), on(t, dev, tensor.F32, []float64{1}, 1, 1)
	for want, f := range map[string]func(){
		"RMSNorm's RStd is BF16": func() {
			dev.Ops().RMSNorm(tensor.RMSNorm{Y: half, X: half, W: half.Reshape(1), RStd: half.Reshape(1)})
		},
		"GLU's 0 is F32":      func() { dev.Ops().GLU(wide, half, tensor.SiLU) },
		"RouterLoss's Logits": func() { dev.Ops().RouterLoss(tensor.RouterLoss{Logits: []tensor.Tensor{wide}}) },
		"device of I32":       func() { NewRounded(tensor.I32) },
		"with Stochastic":     func() { dev.Ops().AdamW(tensor.AdamW{Stochastic: true}) },
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				if msg, _ := recover().(string); !strings.Contains(msg, want) {
					t.Errorf("panic %q, want %q", msg, want)
				}
			}()
			f()
		})
	}
}
