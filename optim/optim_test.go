package optim

import (
	"math"
	"strings"
	"testing"
)

func TestSchedule(t *testing.T) {
	s2 := math.Sqrt2
	for _, c := range []struct {
		name string
		s    Schedule
		want map[int]float64
	}{
		{"constant", Schedule{Kind: Constant, LR: 3, Steps: 10}, map[int]float64{0: 3, 5: 3, 10: 3, 1000: 3}},
		{"constant ignores MinRatio", Schedule{Kind: Constant, LR: 3, MinRatio: 0.1}, map[int]float64{0: 3, 1000: 3}},
		{"constant with warm-up", Schedule{Kind: Constant, LR: 1, Warmup: 4}, map[int]float64{0: 0.25, 1: 0.5, 2: 0.75, 3: 1, 4: 1, 9: 1}},
		{"linear", Schedule{Kind: Linear, LR: 1, Steps: 10}, map[int]float64{0: 1, 1: 0.9, 5: 0.5, 9: 0.1, 10: 0, 11: 0}},
		{"linear with warm-up and least rate", Schedule{Kind: Linear, LR: 2, Steps: 12, Warmup: 2, MinRatio: 0.1},
			map[int]float64{0: 1, 1: 2, 2: 2, 3: 1.82, 7: 1.1, 11: 0.38, 12: 0.2, 99: 0.2}},
		{"cosine", Schedule{Kind: Cosine, LR: 1, Steps: 12}, map[int]float64{0: 1, 3: (2 + s2) / 4, 4: 0.75, 6: 0.5, 8: 0.25, 9: (2 - s2) / 4, 12: 0, 13: 0}},
		{"cosine with warm-up and least rate", Schedule{Kind: Cosine, LR: 1, Steps: 10, Warmup: 2, MinRatio: 0.1},
			map[int]float64{0: 0.5, 1: 1, 2: 1, 4: 0.1 + 0.9*(2+s2)/4, 6: 0.55, 10: 0.1, 50: 0.1}},
		{"wsd", Schedule{Kind: WSD, LR: 1, Steps: 20, Warmup: 2, Decay: 8},
			map[int]float64{0: 0.5, 1: 1, 2: 1, 11: 1, 12: 1, 14: 0.5, 18: 1 - math.Sqrt(0.75), 20: 0, 30: 0}},
		{"wsd with least rate", Schedule{Kind: WSD, LR: 1, Steps: 20, Decay: 4, MinRatio: 0.2}, map[int]float64{16: 1, 17: 0.6, 20: 0.2}},
		{"wsd without decay", Schedule{Kind: WSD, LR: 1, Steps: 20, MinRatio: 0.2}, map[int]float64{0: 1, 19: 1, 20: 1}},
		{"wsd: the decay never begins before the warm-up ends", Schedule{Kind: WSD, LR: 1, Steps: 6, Warmup: 2, Decay: 100}, map[int]float64{1: 1, 2: 1, 3: 0.5, 6: 0}},
		{"warm-up only", Schedule{Kind: Cosine, LR: 1, Steps: 4, Warmup: 4}, map[int]float64{0: 0.25, 3: 1, 4: 0}},
		{"a step before the first", Schedule{Kind: Linear, LR: 1, Steps: 4, Warmup: 2}, map[int]float64{-5: 0.5}},
	} {
		for step, want := range c.want {
			if got := c.s.At(step); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s: At(%d) = %g, want %g", c.name, step, got, want)
			}
		}
	}
}

// TestColossalCosine compares with the recurrence by which torch's CosineAnnealingLR,
// which ColossalAI's schedule hands over to after its warm-up, makes each rate
// from the last.
func TestColossalCosine(t *testing.T) {
	lr, warmup, total := 5e-6, 25, 1000
	low := 0.1 * lr
	s := Schedule{Kind: Cosine, LR: lr, Steps: total, Warmup: warmup, MinRatio: 0.1}
	for step := range warmup {
		if want := lr * float64(step+1) / float64(warmup); math.Abs(s.At(step)-want) > 1e-18 {
			t.Fatalf("At(%d) = %g, want %g", step, s.At(step), want)
		}
	}
	rate, period := lr, float64(total-warmup)
	for n := range total - warmup {
		if n > 0 {
			rate = (1+math.Cos(math.Pi*float64(n)/period))/(1+math.Cos(math.Pi*float64(n-1)/period))*(rate-low) + low
		}
		if got := s.At(warmup + n); math.Abs(got-rate) > 1e-9*lr {
			t.Fatalf("At(%d) = %g, want %g", warmup+n, got, rate)
		}
	}
}

// TestScheduleShape checks what holds for all schedules: the rate rises through
// the warm-up, never rises after it, and stays between its bounds.
func TestScheduleShape(t *testing.T) {
	for _, kind := range []Kind{Constant, Linear, Cosine, WSD} {
		for _, steps := range []int{0, 1, 2, 10, 101} {
			for _, warmup := range []int{0, 1, steps / 3, steps} {
				for _, decay := range []int{0, 1, steps - warmup} {
					for _, least := range []float64{0, 0.1, 1} {
						s := Schedule{Kind: kind, LR: 0.01, Steps: steps, Warmup: warmup, Decay: max(decay, 0), MinRatio: least}
						for step := range steps + 3 {
							now, next := s.At(step), s.At(step+1)
							switch {
							case math.IsNaN(now) || now < 0 || now > s.LR || step >= warmup && now < least*s.LR*(1-1e-12):
								t.Errorf("%+v: At(%d) = %g", s, step, now)
							case step+1 < warmup && next <= now:
								t.Errorf("%+v: no rise from step %d: %g, %g", s, step, now, next)
							case step >= warmup && next > now:
								t.Errorf("%+v: rise from step %d: %g, %g", s, step, now, next)
							}
						}
					}
				}
			}
		}
	}
}

func TestScheduleCheck(t *testing.T) {
	good := Schedule{Kind: WSD, LR: 1e-3, Steps: 100, Warmup: 10, MinRatio: 0.1, Decay: 20}
	if err := good.Check(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for want, change := range map[string]func(*Schedule){
		"not one of":          func(s *Schedule) { s.Kind = "step" },
		"learning rate NaN":   func(s *Schedule) { s.LR = math.NaN() },
		"learning rate -1":    func(s *Schedule) { s.LR = -1 },
		"learning rate +Inf":  func(s *Schedule) { s.LR = math.Inf(1) },
		"must lie in [0, 1]":  func(s *Schedule) { s.MinRatio = 1.5 },
		"none may be":         func(s *Schedule) { s.Warmup = -1 },
		"warm-up of 101":      func(s *Schedule) { s.Warmup = 101 },
		"and decay of 95":     func(s *Schedule) { s.Decay = 95 },
		"rate NaN, as a part": func(s *Schedule) { s.MinRatio = math.NaN() },
	} {
		s := good
		change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", s, err, want)
		}
	}
}

func TestStepsOf(t *testing.T) {
	for _, c := range []struct {
		length float64
		steps  int
		want   int
	}{{0, 100, 0}, {0.03, 100, 3}, {0.025, 100, 2}, {0.999, 100, 99}, {0.29, 100, 29}, {1, 100, 1}, {40, 100, 40}, {0.5, 0, 0}} {
		if got := StepsOf(c.length, c.steps); got != c.want {
			t.Errorf("StepsOf(%g, %d) = %d, want %d", c.length, c.steps, got, c.want)
		}
	}
}

// TestBias checks that corrected moments of a constant gradient are the gradient
// itself at every step, which is what the correction is for.
func TestBias(t *testing.T) {
	a := DefaultAdamW()
	m, v, g := 0.0, 0.0, 0.37
	for step := range 300 {
		m = a.Beta1*m + (1-a.Beta1)*g
		v = a.Beta2*v + (1-a.Beta2)*g*g
		b1, b2 := a.Bias(step)
		if math.Abs(m/b1-g) > 1e-12 || math.Abs(v/b2-g*g) > 1e-12 {
			t.Fatalf("step %d: corrected moments %g and %g, want %g and %g", step, m/b1, v/b2, g, g*g)
		}
	}
}

func TestAdamWCheck(t *testing.T) {
	if a := DefaultAdamW(); a.Check() != nil || a != (AdamW{0.9, 0.95, 1e-8, 0.1}) {
		t.Errorf("defaults %+v: %v", a, a.Check())
	}
	for want, change := range map[string]func(*AdamW){
		"beta1 1":           func(a *AdamW) { a.Beta1 = 1 },
		"beta2 -0.1":        func(a *AdamW) { a.Beta2 = -0.1 },
		"eps 0":             func(a *AdamW) { a.Eps = 0 },
		"weight decay NaN":  func(a *AdamW) { a.WeightDecay = math.NaN() },
		"weight decay +Inf": func(a *AdamW) { a.WeightDecay = math.Inf(1) },
	} {
		a := DefaultAdamW()
		change(&a)
		if err := a.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", a, err, want)
		}
	}
}

func TestDecays(t *testing.T) {
	for _, c := range []struct {
		name  string
		shape []int
		want  bool
	}{
		{"model.layers.0.self_attn.q_proj.weight", []int{64, 64}, true},
		{"model.layers.0.mlp.down_proj.weight", []int{64, 172}, true},
		{"model.embed_tokens.weight", []int{256, 64}, true},
		{"lm_head.weight", []int{256, 64}, true},
		{"score.weight", []int{1, 64}, true},
		{"model.layers.0.mlp.experts.gate_up_proj", []int{8, 64, 128}, true},
		{"base.q_proj.lora_A.weight", []int{8, 64}, true},
		{"model.layers.0.self_attn.q_proj.bias", []int{64}, false},
		{"model.layers.0.mlp.experts.gate_up_proj_bias", []int{8, 128}, false},
		{"model.layers.0.input_layernorm.weight", []int{64}, false},
		{"model.layers.0.self_attn.q_norm.weight", []int{8, 64}, false},
		{"model.norm.weight", []int{64}, false},
		{"transformer.h.0.ln_1.weight", []int{1, 64}, false},
		{"scale", nil, false},
	} {
		if got := Decays(c.name, c.shape); got != c.want {
			t.Errorf("Decays(%q, %v) = %v", c.name, c.shape, got)
		}
	}
}
