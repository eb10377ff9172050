package train

import (
	"math"
	"testing"
)

// preferenceLosses are the four, with settings, as functions of the pairs.
var preferenceLosses = map[string]func(gc, gr []float64, p PreferencePairs[float64], n int) PairStats{
	"DPO": func(gc, gr []float64, p PreferencePairs[float64], n int) PairStats {
		return DPOLoss(gc, gr, p, 0.3, 0, n)
	},
	"cDPO": func(gc, gr []float64, p PreferencePairs[float64], n int) PairStats {
		return DPOLoss(gc, gr, p, 0.3, 0.2, n)
	},
	"IPO": func(gc, gr []float64, p PreferencePairs[float64], n int) PairStats {
		return IPOLoss(gc, gr, p, 0.3, n)
	},
	"hinge": func(gc, gr []float64, p PreferencePairs[float64], n int) PairStats {
		return HingeLoss(gc, gr, p, 0.3, n)
	},
	"SimPO": func(gc, gr []float64, p PreferencePairs[float64], n int) PairStats {
		return SimPOLoss(gc, gr, p, 2, 0.5, n)
	},
}

func TestPreferenceLossGradients(t *testing.T) {
	x := newRagged(22)
	const pairs = 20
	p := PreferencePairs[float64]{x.normal(pairs, 3), x.normal(pairs, 3), x.normal(pairs, 3), x.normal(pairs, 3)}
	for name, f := range preferenceLosses {
		gc, gr := make([]float64, pairs), make([]float64, pairs)
		s := f(gc, gr, p, pairs+3)
		loss := func() float64 { return f(nil, nil, p, pairs+3).Loss }
		checkGradient(t, name+" chosen", p.Chosen, gc, loss)
		checkGradient(t, name+" rejected", p.Rejected, gr, loss)
		// Micro-batches add up.
		var parts PairStats
		for i := range pairs {
			parts.Add(f(nil, nil, PreferencePairs[float64]{p.Chosen[i : i+1], p.Rejected[i : i+1], p.RefChosen[i : i+1], p.RefRejected[i : i+1]}, pairs+3))
		}
		wantNear(t, name+" by micro-batches", parts.Loss, s.Loss, 1e-12)
		wantNear(t, name+" accuracy by micro-batches", parts.Accuracy, s.Accuracy, 1e-12)
	}
}

func TestPreferenceLossStart(t *testing.T) {
	// A policy that is its reference.
	c, r := []float64{-12, -3}, []float64{-15, -2}
	same := PreferencePairs[float64]{c, r, c, r}
	for name, want := range map[string]float64{"DPO": math.Ln2, "cDPO": math.Ln2, "IPO": 1 / 0.36, "hinge": 1} {
		s := preferenceLosses[name](nil, nil, same, 2)
		wantNear(t, name+" of the reference", s.Loss, want, 1e-12)
		if s.Accuracy != 0 || s.Chosen != 0 || s.Rejected != 0 {
			t.Errorf("%s of the reference: %+v", name, s)
		}
	}
	// An example worked out from the equation by another program, and one by hand:
	// means of −2 and −3 a token, −log σ(0.1·1 − 1.4).
	p := PreferencePairs[float64]{[]float64{-12}, []float64{-15}, []float64{-13}, []float64{-14.5}}
	s := DPOLoss(nil, nil, p, 0.1, 0, 1)
	wantNear(t, "DPO", s.Loss, 0.620957, 1e-6)
	wantNear(t, "DPO's margin", s.Margin(), 0.15, 1e-12)
	p = PreferencePairs[float64]{Chosen: []float64{-12.0 / 6}, Rejected: []float64{-15.0 / 5}}
	wantNear(t, "SimPO", SimPOLoss(nil, nil, p, 0.1, 1.4, 1).Loss, math.Log1p(math.Exp(1.3)), 1e-12)
}

func TestPreferenceLossMinima(t *testing.T) {
	// IPO wants d = 1/(2β), no more; smoothed DPO stops at σ(βd) = 1 − ε; hinge is content at βd = 1.
	one := func(d float64) PreferencePairs[float64] {
		return PreferencePairs[float64]{[]float64{d}, []float64{0}, []float64{0}, []float64{0}}
	}
	for name, d := range map[string]float64{"IPO": 1 / 0.6, "cDPO": math.Log(0.8/0.2) / 0.3, "hinge": 1.0000001 / 0.3} {
		g := make([]float64, 1)
		preferenceLosses[name](g, nil, one(d), 1)
		wantNear(t, name+"'s gradient at its minimum", g[0], 0, 1e-12)
		preferenceLosses[name](g, nil, one(d-0.1), 1)
		if g[0] >= 0 {
			t.Errorf("%s: gradient %g below the minimum", name, g[0])
		}
	}
}

func TestPreferenceLossExtremes(t *testing.T) {
	for name, f := range preferenceLosses {
		for _, d := range []float64{-1e30, -5000, 5000, 1e30} {
			gc, gr := make([]float64, 1), make([]float64, 1)
			s := f(gc, gr, PreferencePairs[float64]{[]float64{d}, []float64{0}, []float64{0}, []float64{0}}, 1)
			wantFinite(t, name, s.Loss, gc[0], gr[0])
			if d < 0 && gc[0] >= 0 {
				t.Errorf("%s at d = %g: gradient %g", name, d, gc[0])
			}
		}
		s := f(nil, nil, PreferencePairs[float64]{[]float64{math.NaN()}, []float64{0}, []float64{0}, []float64{0}}, 1)
		if !math.IsNaN(s.Loss) {
			t.Errorf("%s hides a NaN: loss %g", name, s.Loss)
		}
		if s := f(nil, nil, PreferencePairs[float64]{}, 0); s != (PairStats{}) {
			t.Errorf("%s of no pairs: %+v", name, s)
		}
	}
}
