package runs

import (
	"math"
	"strings"
	"testing"
)

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		lo, hi float64
		want   string
	}{
		{0, 10, "0 2 4 6 8 10"},
		{1.3, 2.9, "1.5 2.0 2.5"},
		{-1, 1, "-1.0 -0.5 0 0.5 1.0"},
		{0, 3e-4, "0 0.0001 0.0002 0.0003"},
		{0, 2e-5, "0 5e-6 1e-5 1.5e-5 2e-5"},
		{0, 6800, "0 2k 4k 6k"},
		{0, 2.4e6, "0 500k 1.0M 1.5M 2.0M"},
		{997, 1003, "998 1000 1002"},
		{12340, 12360, "12.340k 12.345k 12.350k 12.355k 12.360k"},
		{0, 1e12, "0 200B 400B 600B 800B 1.0T"},
	} {
		var got []string
		for _, tick := range valueTicks(axis{c.lo, c.hi}) {
			got = append(got, tick.Label)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("[%g, %g]: %s, want %s", c.lo, c.hi, s, c.want)
		}
	}
}

// Any axis has a few ticks, inside it, with labels that differ.
func TestTicksAlways(t *testing.T) {
	for e := -250; e <= 250; e += 3 {
		for _, base := range []float64{0, 1, -3, 17.3} {
			span := math.Pow(10, float64(e)) * 3.7
			a := axis{base * span, base*span + span}
			ticks := valueTicks(a)
			seen := map[string]bool{}
			for _, tick := range ticks {
				if seen[tick.Label] {
					t.Errorf("[%g, %g]: label %s twice", a.lo, a.hi, tick.Label)
				}
				seen[tick.Label] = true
			}
			if len(ticks) < 2 || len(ticks) > 8 {
				t.Errorf("[%g, %g]: %d ticks", a.lo, a.hi, len(ticks))
			}
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 0.5: "0.5000", 1.70234: "1.702", 12.3456: "12.35", 123.456: "123.5", 1234.56: "1235", 9999.7: "10k", 3e-4: "3e-4", 2.345e-5: "2.35e-5", -0.25: "-0.2500",
		1e300: "1e+288T",
	} {
		if got := figure(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	if figure(math.NaN()) != "not finite" || figure(math.Inf(-1)) != "not finite" {
		t.Error("NaN and infinity have no words")
	}
}

func series(n int, f func(i int) float64) *Series {
	s := &Series{Name: "x"}
	for i := range n {
		s.Steps = append(s.Steps, int64(i))
		s.Values = append(s.Values, f(i))
	}
	return s
}

func TestValueAxis(t *testing.T) {
	wave := series(200, func(i int) float64 {
		switch i {
		case 50:
			return 1e9
		case 60:
			return -1e9
		case 70:
			return math.NaN()
		}
		return 5 + math.Sin(float64(i))
	})
	a, hidden := valueAxis([]*Series{wave}, false)
	if hidden != 2 || a.lo < 3 || a.hi > 7 {
		t.Errorf("outliers: axis %+v with %d hidden", a, hidden)
	}
	falling := series(1000, func(i int) float64 { return 2 + 8*math.Exp(-float64(i)/100) })
	if a, hidden := valueAxis([]*Series{falling}, false); hidden != 0 || a.hi < 10 {
		t.Errorf("a loss that falls: axis %+v with %d hidden", a, hidden)
	}
	flat := series(3, func(int) float64 { return 4 })
	if a, _ := valueAxis([]*Series{flat}, false); !(a.lo < 4 && a.hi > 4) {
		t.Errorf("constant: axis %+v", a)
	}
	if a, _ := valueAxis([]*Series{flat}, true); a.lo != 0 || a.hi < 4 {
		t.Errorf("from zero: axis %+v", a)
	}
	if a, _ := valueAxis(nil, false); a.hi <= a.lo {
		t.Errorf("nothing: axis %+v", a)
	}
}

func TestSmooth(t *testing.T) {
	wide := axis{-1e9, 1e9}
	// A straight line stays one, to its very ends.
	for _, n := range []int{20, 100, 5000} {
		line := series(n, func(i int) float64 { return 3 - 0.01*float64(i) })
		s := smooth(line, wide)
		if s.Steps[len(s.Steps)-1] < int64(n-1-n/100) || len(s.Steps) > smoothPoints+2 {
			t.Errorf("n=%d: %d points up to step %d", n, len(s.Steps), s.Steps[len(s.Steps)-1])
		}
		for i, v := range s.Values {
			want := 3 - 0.01*float64(s.Steps[i])
			if math.Abs(v-want) > 0.01*float64(n)/1000+1e-9 {
				t.Errorf("n=%d step %d: %v, want %v", n, s.Steps[i], v, want)
				break
			}
		}
	}
	// Noise shrinks, and an outlier counts as the axis's end.
	noise := series(1000, func(i int) float64 { return float64(i%2)*2 - 1 })
	noise.Values[500] = 1e12
	for i, v := range smooth(noise, axis{-2, 2}).Values {
		if math.Abs(v) > 0.4 {
			t.Errorf("point %d: %v", i, v)
		}
	}
}

func TestExtremesKeepSpikes(t *testing.T) {
	s := series(100_000, func(i int) float64 {
		switch i {
		case 777:
			return 100
		case 88_888:
			return -100
		}
		return 0
	})
	got := extremes(s, rawPoints)
	if len(got.Steps) > rawPoints {
		t.Errorf("%d points", len(got.Steps))
	}
	hi, lo := got.extreme(-1), got.extreme(1)
	if got.Steps[hi] != 777 || got.Steps[lo] != 88_888 {
		t.Errorf("extremes at %d and %d", got.Steps[hi], got.Steps[lo])
	}
	for i := 1; i < len(got.Steps); i++ {
		if got.Steps[i] < got.Steps[i-1] {
			t.Fatal("steps run backwards")
		}
	}
}

func TestHovers(t *testing.T) {
	loss := series(1000, func(i int) float64 { return float64(i) })
	eval := &Series{Name: "eval/loss", Steps: []int64{0, 500, 999}, Values: []float64{7, 8, 9}}
	p := newPanel("Loss", axis{0, 999}, false, true, []string{"Training", "Evaluation"}, []*Series{loss, eval})
	if len(p.Hovers) != hoverSlices {
		t.Errorf("%d slices, want %d", len(p.Hovers), hoverSlices)
	}
	found := 0
	for _, h := range p.Hovers {
		if !strings.HasPrefix(h.Text, "step ") || !strings.Contains(h.Text, "\nTraining ") || !strings.Contains(h.Text, ", smoothed ") {
			t.Fatalf("hover %q", h.Text)
		}
		found += strings.Count(h.Text, "Evaluation ")
	}
	if found != 3 { // each evaluation in the slice it belongs to
		t.Errorf("evaluations in %d slices, want 3", found)
	}
}

func TestKeyNames(t *testing.T) {
	for key, want := range map[string]string{
		"lr": "Learning rate", "ppo/clip_fraction": "Clip fraction", "ppo/kl": "KL divergence", "skipped_steps": "Skipped steps", "eval/accuracy/zh": "Accuracy zh", "": "",
	} {
		if got := keyName(key); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
