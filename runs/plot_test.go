package runs

import (
	"fmt"
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
		if got := Figure(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	if Figure(math.NaN()) != "not finite" || Figure(math.Inf(-1)) != "not finite" {
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
	p := Plot{Title: "Loss", Wide: true, Lines: []Line{{Name: "Training", Series: loss}, {Name: "Evaluation", Series: eval}}}.draw(axis{0, 999})
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
		if got := Grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// Levels are on the axis, with room for their labels, and what is missing is left out.
func TestPanel(t *testing.T) {
	s := series(30, func(i int) float64 { return 90 + float64(i)/10 })
	p := Plot{Title: "Accuracy", Unit: "%", Lines: []Line{{"unseen", s, 3}, {"nothing", nil, 0}, {"empty", &Series{Name: "e"}, 0}},
		Levels: []Level{{"coin", 50}, {"length", 56.26}, {"none", math.NaN()}}}.Panel()
	if len(p.Curves) != 1 || p.Curves[0].Color != 3 || p.Curves[0].Last != "92.9%" || len(p.Levels) != 2 {
		t.Fatalf("%d curves %+v, %d levels", len(p.Curves), p.Curves, len(p.Levels))
	}
	above, below := p.Levels[0], p.Levels[1]
	if above.Label != "length 56.3%" || above.Below || below.Label != "coin 50%" || !below.Below {
		t.Errorf("levels %+v %+v", above, below)
	}
	for _, l := range p.Levels {
		var at float64
		if _, err := fmt.Sscan(l.At, &at); err != nil || at < 5 || at > 95 {
			t.Errorf("level %q stands at %s%%", l.Label, l.At)
		}
	}
	if last := p.YTicks[len(p.YTicks)-1]; !strings.HasSuffix(last.Label, "0%") {
		t.Errorf("tick %q", last.Label)
	}
	for _, want := range []string{"Accuracy: unseen from 90% at step 0 to 92.9% at step 29", "coin at 50%"} {
		if !strings.Contains(p.Alt, want) {
			t.Errorf("alt %q lacks %q", p.Alt, want)
		}
	}
	if !strings.Contains(p.Hovers[0].Text, "unseen 90%") {
		t.Errorf("hover %q", p.Hovers[0].Text)
	}
	// A score that begins at its level, below 0; the label of the highest level stands above it.
	q := Plot{Lines: []Line{{"score", series(5, func(i int) float64 { return float64(i) - 2 }), 0}}, Levels: []Level{{"before", -2}}}.Panel()
	if len(q.Levels) != 1 || q.Levels[0].Below || q.Levels[0].Label != "before -2" {
		t.Errorf("levels %+v", q.Levels)
	}
	for _, empty := range []Plot{{}, {Levels: []Level{{"x", 3}}}, {Lines: []Line{{"x", nil, 0}}, Levels: []Level{{"x", math.Inf(1)}}}} {
		if p := empty.Panel(); len(p.Curves) != 0 || len(p.YTicks) < 2 || len(p.XTicks) < 1 {
			t.Errorf("%+v gives %+v", empty, p)
		}
	}
}

// A page has a run report's policy and style, and its own style behind it.
func TestPageTemplate(t *testing.T) {
	panel := Plot{Title: "T", Lines: []Line{{"<i>\x1b", series(3, func(i int) float64 { return float64(i) }), 0}}, Levels: []Level{{"<u>\x1b", 1}}}.Panel()
	var b strings.Builder
	page := PageTemplate(`<html><head>{{template "head"}}<style>{{style}}</style></head><p>{{visible .Text}} {{figure .Number}}</p>{{template "panel" .Panel}}</html>`, "p { top: 7px; }")
	err := page.Execute(&b, map[string]any{"Text": "<a>\x00", "Number": 0.25, "Panel": panel})
	if err != nil {
		t.Fatal(err)
	}
	html := b.String()
	for _, part := range []string{"default-src 'none'", "prefers-color-scheme: dark", "p { top: 7px; }</style>", "&lt;a&gt;\u2400 0.2500", `<path class="dots"`, "&lt;u&gt;\u241b 1</span>", "&lt;i&gt;\u241b"} {
		if !strings.Contains(html, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
}
