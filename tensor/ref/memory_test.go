package ref

import (
	"math"
	"runtime"
	"testing"

	"ringtail/tensor"
)

func TestAllocIsZeroedAlignedAndKept(t *testing.T) {
	d := New()
	var tensors []tensor.Tensor
	for n := range 40 {
		x, b, err := tensor.New(d, tensor.F64, n, 3)
		if err != nil {
			t.Fatal(err)
		}
		if b.Addr%tensor.Align != 0 {
			t.Fatalf("address %#x is not a multiple of %d", b.Addr, tensor.Align)
		}
		for i, v := range tensor.GetFloat64(x) {
			if v != 0 {
				t.Fatalf("element %d of new memory is %g", i, v)
			}
		}
		v := make([]float64, x.Len())
		for i := range v {
			v[i] = float64(n*100 + i)
		}
		tensor.SetFloat64(x, v)
		tensors = append(tensors, x) // the Buffer is dropped, the memory must stay
	}
	for range 3 {
		runtime.GC()
		_ = make([]byte, 1<<20)
	}
	for n, x := range tensors {
		for i, v := range tensor.GetFloat64(x) {
			if v != float64(n*100+i) {
				t.Fatalf("tensor %d changed at %d: %g", n, i, v)
			}
		}
	}
}

func TestFree(t *testing.T) {
	d := New()
	b, err := d.Alloc(100)
	if err != nil {
		t.Fatal(err)
	}
	liveMu.Lock()
	memory := live[b.Addr]
	liveMu.Unlock()
	b.Free()
	b.Free()
	if live[b.Addr] != nil {
		t.Error("freed memory is still held")
	}
	if !math.IsNaN(memory[0]) {
		t.Error("freed memory still reads as numbers")
	}
	if _, err := d.Alloc(-1); err == nil {
		t.Error("Alloc(-1) succeeded")
	}
}

// TestCopyRounds compares conversions to narrow floats with IEEE 754's own
// values: exact ones, ties (to even), the largest, subnormals and overflow.
func TestCopyRounds(t *testing.T) {
	inf := math.Inf(1)
	cases := []struct {
		d    tensor.Dtype
		x    float64
		bits uint16
		back float64
	}{
		{tensor.BF16, 1, 0x3f80, 1},
		{tensor.BF16, -2.5, 0xc020, -2.5},
		{tensor.BF16, 1 + 1.0/256, 0x3f80, 1},                     // tie, down to even
		{tensor.BF16, 1 + 3.0/256, 0x3f82, 1 + 4.0/256},           // tie, up to even
		{tensor.BF16, 1 + 1.0/256 + 1e-12, 0x3f81, 1 + 2.0/256},   // just past the tie
		{tensor.BF16, math.MaxFloat32, 0x7f80, inf},               // rounds past the largest
		{tensor.BF16, 0x1p-133, 0x0001, 0x1p-133},                 // smallest subnormal
		{tensor.BF16, 0x1p-134, 0x0000, 0},                        // tie to zero
		{tensor.F16, 65504, 0x7bff, 65504},                        // largest
		{tensor.F16, 65520, 0x7c00, inf},                          // tie, to infinity
		{tensor.F16, 65519.99, 0x7bff, 65504},                     // below the tie
		{tensor.F16, 0x1p-24, 0x0001, 0x1p-24},                    // smallest subnormal
		{tensor.F16, 0x1p-14 - 0x1p-26, 0x0400, 0x1p-14},          // subnormal carries into normal
		{tensor.F16, -0.333251953125, 0xb555, -0.333251953125},    // exact
		{tensor.F16, -inf, 0xfc00, -inf},                          //
		{tensor.F16, math.Copysign(0, -1), 0x8000, 0},             //
		{tensor.F16, 2047.5, 0x6800, 2048},                        // carries into the exponent
		{tensor.F32, 0.1, 0, float64(float32(0.1))},               // as Go converts
		{tensor.F32, 0x1p-150 + 0x1p-160, 0, 0x1p-149},            // subnormal
		{tensor.F64, math.Pi, 0, math.Pi},                         //
		{tensor.BF16, math.SmallestNonzeroFloat64, 0x0000, 0},     //
		{tensor.BF16, 0x1.fefffffp127, 0x7f7f, 0x1.fep127},        // rounds down to the largest
		{tensor.BF16, -0x1.ffp127, 0xff80, -inf},                  // tie past the largest
		{tensor.F16, 1.0009765625 + 0x1p-11, 0x3c02, 1.001953125}, // tie, up to even
	}
	d := New()
	for _, c := range cases {
		wide, _, _ := tensor.New(d, tensor.F64, 1)
		narrow, _, _ := tensor.New(d, c.d, 1)
		tensor.SetFloat64(wide, []float64{c.x})
		d.Ops().Copy(narrow, wide)
		if c.d.Size() == 2 && narrow.Uint16()[0] != c.bits {
			t.Errorf("%v of %g: bits %#04x, want %#04x", c.d, c.x, narrow.Uint16()[0], c.bits)
		}
		d.Ops().Copy(wide, narrow)
		if got := wide.Float64()[0]; got != c.back {
			t.Errorf("%v of %g reads back %g, want %g", c.d, c.x, got, c.back)
		}
	}
	narrow, _, _ := tensor.New(d, tensor.F16, 1)
	wide, _, _ := tensor.New(d, tensor.F64, 1)
	tensor.SetFloat64(wide, []float64{math.NaN()})
	d.Ops().Copy(narrow, wide)
	d.Ops().Copy(wide, narrow)
	if !math.IsNaN(wide.Float64()[0]) {
		t.Error("NaN does not survive F16")
	}
}
