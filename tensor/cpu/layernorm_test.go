package cpu

import (
	"math"
	"testing"

	"ringtail/tensor"
)

// layerNormed normalises one row without weights and bias, in float32 and, from the row as
// float32 holds it, in float64.
func layerNormed(t *testing.T, v []float32, eps float32) (y, want []float64, rstd, wantRStd float64) {
	t.Helper()
	dev := New()
	n := len(v)
	one := make([]float32, n)
	for i := range one {
		one[i] = 1
	}
	a := tensor.LayerNorm{X: place(t, dev, v, 1, n), Y: place(t, dev, nil, 1, n), W: place(t, dev, one, n), Bias: place(t, dev, nil, n),
		Mean: place(t, dev, nil, 1), RStd: place(t, dev, nil, 1), Eps: eps}
	dev.Ops().LayerNorm(a)
	mean, squares := 0.0, 0.0
	for _, x := range v {
		mean += float64(x) / float64(n)
	}
	for _, x := range v {
		squares += (float64(x) - mean) * (float64(x) - mean)
	}
	wantRStd = 1 / math.Sqrt(squares/float64(n)+float64(eps))
	for _, x := range v {
		want = append(want, (float64(x)-mean)*wantRStd)
	}
	return tensor.GetFloat64(a.Y), want, float64(a.RStd.Float32()[0]), wantRStd
}

// Rows keep their digits however large or small their numbers are, and however
// small their differences beside their mean.
func TestLayerNormExtremes(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for _, c := range []struct {
			name         string
			offset, size float64
			eps          float32
		}{
			{"of order one", 0, 1, 1e-5},
			{"huge", 0, 1e37, 1e-5},
			{"huge around a huge mean", 1e36, 1e34, 1e-5},
			{"tiny without Eps", 0, 1e-30, 0},
			{"tiny", 0, 1e-30, 1e-5},
			{"denormal", 0, 1e-40, 1e-5},
			{"close to each other", 1e6, 1, 1e-5},
			{"units in the last place", 1 << 24, 2, 1e-5},
		} {
			for _, n := range []int{2, 7, 33, 1027} {
				v := make([]float32, n)
				for i := range v {
					v[i] = float32(c.offset + c.size*(float64(i*37%n)/float64(n)*3-1))
				}
				y, want, rstd, wantRStd := layerNormed(t, v, c.eps)
				if math.Abs(rstd-wantRStd) > 1e-6*wantRStd {
					t.Errorf("%s, %d numbers: RStd is %g, want %g", c.name, n, rstd, wantRStd)
				}
				for i := range y {
					if !(math.Abs(y[i]-want[i]) <= 2e-6*max(1, math.Abs(want[i]))) {
						t.Errorf("%s, %d numbers: Y[%d] is %.9g, want %.9g", c.name, n, i, y[i], want[i])
						break
					}
				}
			}
		}
	})
}

// A row of equal numbers becomes the bias, whatever the number: 0 here.
func TestLayerNormOfEqualNumbers(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for _, x := range []float32{0, 0.1, -1.0 / 3, 1e-40, 12345.678, 3.3e37} {
			for _, n := range []int{1, 2, 3, 7, 16, 33, 1027} {
				v := make([]float32, n)
				for i := range v {
					v[i] = x
				}
				y, _, rstd, _ := layerNormed(t, v, 1e-5)
				for i := range y {
					if !(math.Abs(y[i]) <= 1e-6) {
						t.Fatalf("%d times %g: Y[%d] is %g", n, x, i, y[i])
					}
				}
				if math.Abs(rstd-1/math.Sqrt(float64(float32(1e-5)))) > 1e-3 {
					t.Errorf("%d times %g: RStd is %g", n, x, rstd)
				}
			}
		}
	})
}

// The gradient of a huge row, and of a tiny one, keeps its digits: it is inversely as large.
func TestLayerNormBackwardExtremes(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for _, size := range []float64{1, 1e30, 1e-30} {
			const n = 130
			dev := New()
			s, w, dy := make([]float32, n), make([]float32, n), make([]float32, n)
			for i := range s {
				s[i], w[i], dy[i] = float32(size*(float64(i*37%n)/n*3-1)), float32(i%7)-2, float32(i%5)-1.5
			}
			f := tensor.LayerNorm{X: place(t, dev, s, 1, n), Y: place(t, dev, nil, 1, n), W: place(t, dev, w, n),
				Mean: place(t, dev, nil, 1), RStd: place(t, dev, nil, 1)}
			dev.Ops().LayerNorm(f)
			b := tensor.LayerNormBackward{DX: place(t, dev, nil, 1, n), DY: place(t, dev, dy, 1, n), S: f.X, W: f.W, Mean: f.Mean, RStd: f.RStd}
			dev.Ops().LayerNormBackward(b)
			m, r := float64(f.Mean.Float32()[0]), float64(f.RStd.Float32()[0])
			mg, mgn := 0.0, 0.0
			for i := range s {
				g := float64(dy[i]) * float64(w[i])
				mg += g / n
				mgn += g * (float64(s[i]) - m) * r / n
			}
			for i, got := range tensor.GetFloat64(b.DX) {
				want := r * (float64(dy[i])*float64(w[i]) - mg - (float64(s[i])-m)*r*mgn)
				if !(math.Abs(got-want) <= 2e-6*r) {
					t.Fatalf("size %g: DX[%d] is %.9g, want %.9g", size, i, got, want)
				}
			}
		}
	})
}
