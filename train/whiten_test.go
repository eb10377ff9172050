package train

import (
	"math"
	"slices"
	"testing"
)

func TestWhiten(t *testing.T) {
	x := newRagged(8)
	v := x.normal(x.tokens, 3)
	for i := range v {
		v[i] += 1e6 // far from 0, where a sum of squares would lose the variance
	}
	out := make([]float64, x.tokens)
	for _, w := range []Whitening{{}, {Population: true}, {KeepMean: true}, {Population: true, KeepMean: true}} {
		mean, deviation := Whiten(out, x.poisoned(v), x.mask, w)
		n := float64(x.trained())
		wantMean := 0.0
		if w.KeepMean {
			wantMean = mean
		}
		wantNear(t, "mean", MaskedMean(out, x.mask), wantMean, 1e-8)
		sum := 0.0
		for i, o := range out {
			if x.mask[i] {
				sum += (o - wantMean) * (o - wantMean)
				wantNear(t, "value", (o-wantMean)*(deviation+whitenEpsilon)+mean, v[i], 1e-8)
			} else if o != 0 {
				t.Errorf("%+v: token %d isn't trained and becomes %g", w, i, o)
			}
		}
		if !w.Population {
			n--
		}
		wantNear(t, "variance", sum/n, 1, 1e-6)
	}
}

func TestWhitenDegenerate(t *testing.T) {
	for _, c := range []struct {
		name string
		x    []float64
		mask []bool
	}{
		{"nothing", nil, nil},
		{"one", []float64{3}, nil},
		{"one trained", []float64{math.NaN(), 3}, []bool{false, true}},
		{"none trained", []float64{math.NaN(), 3}, []bool{false, false}},
		{"equal", []float64{0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1}, nil},
		{"equal and large", slices.Repeat([]float64{-1e3 / 3}, 1000), nil},
	} {
		for _, population := range []bool{false, true} {
			out := make([]float64, len(c.x))
			Whiten(out, c.x, c.mask, Whitening{Population: population})
			for i := range out {
				wantNear(t, c.name, out[i], 0, 1e-3)
			}
			Whiten(out, c.x, c.mask, Whitening{Population: population, KeepMean: true})
			for i := range out {
				if isTrained(c.mask, i) {
					wantNear(t, c.name+" with its mean", out[i], c.x[i], 1e-3)
				}
			}
		}
	}
}

// TestWhitenInvariance: a shift and a positive factor change nothing; nor does
// working in place.
func TestWhitenInvariance(t *testing.T) {
	x := newRagged(9)
	v := x.normal(x.tokens, 1)
	a, b := make([]float64, x.tokens), slices.Clone(v)
	Whiten(a, v, x.mask, Whitening{})
	for i := range b {
		b[i] = 5*b[i] - 3
	}
	Whiten(b, b, x.mask, Whitening{})
	for i := range a {
		wantNear(t, "whitened", b[i], a[i], 1e-7)
	}
}
