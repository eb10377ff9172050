package cpu

import (
	"math"
	"math/rand/v2"
	"testing"
)

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

func TestExp32(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	worst := 0.0
	for range 300000 {
		x := float32(r.Float64()*176.5 - 87.33)
		if x > 88.72 {
			continue
		}
		worst = max(worst, ulps(exp32(x), math.Exp(float64(x))))
	}
	if worst > 2 {
		t.Errorf("exp32 is off by %.2f ulp", worst)
	}
	t.Logf("worst %.3f ulp", worst)
	inf := float32(math.Inf(1))
	for _, c := range [][2]float32{{-inf, 0}, {inf, inf}, {88.73, inf}, {-87.34, 0}, {-1e30, 0}, {1e30, inf}, {0, 1}} {
		if got := exp32(c[0]); got != c[1] {
			t.Errorf("exp32(%v) = %v, want %v", c[0], got, c[1])
		}
	}
	if x := exp32(float32(math.NaN())); x == x {
		t.Errorf("exp32(NaN) = %v", x)
	}
}
