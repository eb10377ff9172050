package train

import (
	"math"
	"slices"
	"testing"
)

func TestGroupAdvantages(t *testing.T) {
	// A group with a spread; one without; one answer; no answer; the first again, scaled.
	rewards := []float64{1, 0, 10, 1, 0.1, 0.1, 0.1, 5, 2, 0, 20, 2}
	groups := []int32{0, 4, 7, 8, 8, 12}
	for _, c := range []struct {
		name      string
		f         func(a, r []float64, g []int32) int
		want      []float64
		invariant bool // to the scale of rewards
	}{
		{"GRPO", GRPOAdvantages[float64], []float64{-0.426392, -0.639589, 1.492373, -0.426392}, true},
		{"Dr. GRPO", DrGRPOAdvantages[float64], []float64{-2, -3, 7, -2}, false},
		{"RLOO", RLOOAdvantages[float64], []float64{-2.666667, -4, 9.333333, -2.666667}, false},
	} {
		got := make([]float64, len(rewards))
		if flat := c.f(got, rewards, groups); flat != 3 {
			t.Errorf("%s: %d groups that teach nothing, want 3", c.name, flat)
		}
		for i, want := range c.want {
			wantNear(t, c.name, got[i], want, 1e-6)
			if c.invariant {
				wantNear(t, c.name+" of twice the rewards", got[8+i], want, 1e-4)
			} else {
				wantNear(t, c.name+" of twice the rewards", got[8+i], 2*want, 1e-5)
			}
		}
		if !slices.Equal(got[4:8], make([]float64, 4)) {
			t.Errorf("%s: advantages %v of equal rewards", c.name, got[4:8])
		}
		sum := 0.0
		for _, a := range got {
			sum += a
		}
		wantNear(t, c.name+"'s sum", sum, 0, 1e-12)
		place := slices.Clone(rewards)
		if c.f(place, place, groups); !slices.Equal(place, got) {
			t.Errorf("%s in place gives %v, want %v", c.name, place, got)
		}
	}
}

// TestLeaveOneOut compares with the definition: less the mean of the others.
func TestLeaveOneOut(t *testing.T) {
	x := newRagged(23)
	rewards, got := x.normal(5, 1), make([]float64, 5)
	RLOOAdvantages(got, rewards, []int32{0, 5})
	for i := range rewards {
		others := 0.0
		for j, r := range rewards {
			if j != i {
				others += r / 4
			}
		}
		wantNear(t, "advantage", got[i], rewards[i]-others, 1e-12)
	}
}

// TestGRPOTinySpread: a spread in the last place is noise, not a signal.
func TestGRPOTinySpread(t *testing.T) {
	got := make([]float32, 4)
	GRPOAdvantages(got, []float32{1, 1, 1, math.Nextafter32(1, 2)}, []int32{0, 4})
	for _, a := range got {
		wantNear(t, "advantage", float64(a), 0, 2e-3)
	}
}
