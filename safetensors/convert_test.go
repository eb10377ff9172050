package safetensors

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// halfValue is the value of a small float by its definition (IEEE 754 §3.4),
// with e exponent bits and m mantissa bits.
func halfValue(h uint16, e, m int) float64 {
	bias := 1<<(e-1) - 1
	exponent := int(h>>m) & (1<<e - 1)
	mantissa := float64(int(h) & (1<<m - 1))
	var v float64
	switch {
	case exponent == 1<<e-1 && mantissa != 0:
		return math.NaN()
	case exponent == 1<<e-1:
		v = math.Inf(1)
	case exponent == 0:
		v = math.Ldexp(mantissa, 1-bias-m)
	default:
		v = math.Ldexp(mantissa+float64(int(1)<<m), exponent-bias-m)
	}
	if h>>15 == 1 {
		v = -v
	}
	return v
}

type half struct {
	name    string
	e, m    int
	widen   func(uint16) float32
	narrow  func(float32) uint16
	largest uint16
}

var halves = []half{
	{"F16", 5, 10, F16ToFloat32, Float32ToF16, 0x7bff},
	{"BF16", 8, 7, BF16ToFloat32, Float32ToBF16, 0x7f7f},
}

// All 65536 values widen to what they mean and narrow to themselves.
func TestHalvesExhaustively(t *testing.T) {
	for _, f := range halves {
		for i := range 1 << 16 {
			h := uint16(i)
			want, got := halfValue(h, f.e, f.m), float64(f.widen(h))
			if math.IsNaN(want) {
				back := f.narrow(f.widen(h))
				if !math.IsNaN(got) || !math.IsNaN(halfValue(back, f.e, f.m)) || back>>15 != h>>15 {
					t.Errorf("%s %04x: NaN became %v, then %04x", f.name, h, got, back)
				}
				continue
			}
			if got != want || math.Signbit(got) != math.Signbit(want) {
				t.Errorf("%s %04x: %v, want %v", f.name, h, got, want)
			}
			if back := f.narrow(f.widen(h)); back != h {
				t.Errorf("%s %04x: back as %04x", f.name, h, back)
			}
		}
	}
}

// Between any two neighbours: the middle goes to the even one, and the
// float32s just beside the middle to the nearer one.
func TestHalvesRoundToNearestEven(t *testing.T) {
	for _, f := range halves {
		for h := uint16(0); h <= f.largest; h++ {
			low := float64(f.widen(h))
			high := halfValue(h+1, f.e, f.m)
			if h == f.largest { // infinity stands where the next value would
				high = 2*low - float64(f.widen(h-1))
			}
			middle := float32((low + high) / 2) // exact: it has one bit more than a half
			if float64(middle) != (low+high)/2 {
				t.Fatalf("%s: %g is no float32, so the test proves nothing", f.name, (low+high)/2)
			}
			even := h + h&1
			for _, c := range []struct {
				v    float32
				want uint16
			}{
				{middle, even},
				{math.Nextafter32(middle, float32(math.Inf(-1))), h},
				{math.Nextafter32(middle, float32(math.Inf(1))), h + 1},
			} {
				if got := f.narrow(c.v); got != c.want {
					t.Errorf("%s(%g) = %04x, want %04x", f.name, c.v, got, c.want)
				}
				if got := f.narrow(-c.v); got != c.want|0x8000 {
					t.Errorf("%s(%g) = %04x, want %04x", f.name, -c.v, got, c.want|0x8000)
				}
			}
		}
		inf := f.largest + 1
		if got := f.narrow(math.MaxFloat32); got != inf {
			t.Errorf("%s(MaxFloat32) = %04x, want infinity", f.name, got)
		}
		if got := f.narrow(math.SmallestNonzeroFloat32); got != 0 {
			t.Errorf("%s(smallest float32) = %04x, want 0", f.name, got)
		}
	}
}

// Any float32 goes to the nearest half, judged by distance in float64.
func TestHalvesNearest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, f := range halves {
		for range 300_000 {
			v := math.Float32frombits(rng.Uint32())
			if rng.IntN(2) == 0 { // most bits are far out of F16's range
				v = float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(50)-30)))
			}
			h := f.narrow(v)
			got := halfValue(h, f.e, f.m)
			if v != v {
				if !math.IsNaN(got) {
					t.Fatalf("%s(NaN %08x) = %04x", f.name, math.Float32bits(v), h)
				}
				continue
			}
			if math.IsInf(got, 0) {
				continue // judged by the test above
			}
			err := math.Abs(got - float64(v))
			for _, other := range []uint16{h - 1, h + 1} {
				o := halfValue(other, f.e, f.m)
				if math.Abs(o-float64(v)) < err { // false for NaN
					t.Fatalf("%s(%g) = %g, but %g is nearer", f.name, v, got, o)
				}
			}
		}
	}
}

func TestConvertSlices(t *testing.T) {
	src := []float32{0, 1, -2.5, 65504, 1e-7, float32(math.Inf(-1)), 3.1415927}
	for _, dtype := range []string{"F32", "F16", "BF16", "F64"} {
		bits, _ := DtypeBits(dtype)
		buf := make([]byte, len(src)*bits/8)
		if err := FromFloat32(buf, dtype, src); err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(src))
		if err := (Tensor{Name: "x", Dtype: dtype, Data: buf}).ToFloat32(got); err != nil {
			t.Fatal(err)
		}
		for i, v := range src {
			want := v
			switch dtype {
			case "F16":
				want = F16ToFloat32(Float32ToF16(v))
			case "BF16":
				want = BF16ToFloat32(Float32ToBF16(v))
			}
			if got[i] != want {
				t.Errorf("%s: %v became %v, want %v", dtype, v, got[i], want)
			}
		}
		if err := FromFloat32(buf[1:], dtype, src); err == nil {
			t.Errorf("%s: accepted a short destination", dtype)
		}
		if err := ToFloat32(got[1:], dtype, buf); err == nil {
			t.Errorf("%s: accepted a short destination", dtype)
		}
	}
	f64 := binary.LittleEndian.AppendUint64(nil, math.Float64bits(1+0x1p-24+0x1p-40))
	one := make([]float32, 1)
	if err := ToFloat32(one, "F64", f64); err != nil || one[0] != 1+0x1p-23 {
		t.Errorf("F64 rounded to %v, %v", one[0], err)
	}
	err := Tensor{Name: "ids", Dtype: "I64", Data: make([]byte, 8)}.ToFloat32(one)
	if err == nil || !strings.Contains(err.Error(), `"ids"`) || !strings.Contains(err.Error(), "I64") {
		t.Errorf("I64: %v, want an error naming tensor and dtype", err)
	}
	if err := FromFloat32(nil, "I8", nil); err == nil {
		t.Error("converted to I8")
	}
}

func BenchmarkConvert(b *testing.B) {
	values := make([]float32, 1<<16)
	for i := range values {
		values[i] = float32(i%1000)/500 - 1
	}
	for _, dtype := range []string{"F32", "BF16", "F16"} {
		bits, _ := DtypeBits(dtype)
		buf := make([]byte, len(values)*bits/8)
		b.Run("From/"+dtype, func(b *testing.B) {
			b.SetBytes(int64(4 * len(values)))
			for b.Loop() {
				FromFloat32(buf, dtype, values)
			}
		})
		b.Run("To/"+dtype, func(b *testing.B) {
			b.SetBytes(int64(4 * len(values)))
			for b.Loop() {
				ToFloat32(values, dtype, buf)
			}
		})
	}
}
