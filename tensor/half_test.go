package tensor

import (
	"math"
	"testing"
)

// TestNarrow compares rounding with a search for the nearest 16-bit float, on both
// sides of every one of them, of every middle, and next to those.
func TestNarrow(t *testing.T) {
	for _, c := range []struct {
		d   Dtype
		inf uint16
	}{{BF16, 0x7f80}, {F16, 0x7c00}} {
		value := func(h uint16) float64 {
			if h == c.inf { // the value that would follow, which decides what becomes infinite
				return 2*float64(half(c.d, c.inf-1)) - float64(half(c.d, c.inf-2))
			}
			return float64(half(c.d, h))
		}
		round := func(x float64) uint16 {
			var h [1]uint16
			narrow(h[:], c.d, []float32{sticky(x)})
			return h[0]
		}
		for h := range c.inf {
			low, high := value(h), value(h+1)
			middle := (low + high) / 2
			even := h + h&1
			for _, p := range []struct {
				x    float64
				want uint16
			}{{low, h}, {math.Nextafter(low, high), h}, {math.Nextafter(middle, low), h}, {middle, even},
				{math.Nextafter(middle, high), h + 1}, {math.Nextafter(high, low), h + 1}} {
				if got := round(p.x); got != p.want {
					t.Fatalf("%v of %g is %#04x, want %#04x", c.d, p.x, got, p.want)
				}
				if got := round(-p.x); got != p.want|0x8000 {
					t.Fatalf("%v of %g is %#04x, want %#04x", c.d, -p.x, got, p.want|0x8000)
				}
			}
		}
		for _, x := range []float64{math.NaN(), math.Float64frombits(0x7ff0000000000001), float64(math.Float32frombits(0x7f800001))} {
			if h := round(x); h&0x7fff <= c.inf {
				t.Errorf("%v of NaN is %#04x", c.d, h)
			}
		}
		for _, x := range []float64{math.Inf(1), math.MaxFloat64} {
			if h := round(x); h != c.inf {
				t.Errorf("%v of %g is %#04x", c.d, x, h)
			}
		}
		if v := half(c.d, c.inf); !math.IsInf(float64(v), 1) {
			t.Errorf("%v reads its infinity as %g", c.d, v)
		}
		if v := half(c.d, c.inf+1); v == v {
			t.Errorf("%v reads a NaN as %g", c.d, v)
		}
	}
}

func half(d Dtype, h uint16) float32 {
	var v [1]float32
	widen(v[:], d, []uint16{h})
	return v[0]
}
