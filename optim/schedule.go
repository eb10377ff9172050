// Package optim holds what an optimizer needs beside its kernel (tensor.AdamW):
// the course of the learning rate, settings with their defaults, bias corrections,
// and the choice of the parameters that decay. All are pure functions of the step,
// so that a resumed run needs nothing but its step count.
package optim

import (
	"fmt"
	"math"
)

// Kind names the course of the learning rate after the warm-up.
type Kind string

// The kinds of schedule; Schedule gives their formulas.
const (
	Constant Kind = "constant"
	Linear   Kind = "linear"
	Cosine   Kind = "cosine"
	WSD      Kind = "wsd"
)

// Schedule is the course of the learning rate over a run. Steps count from 0: At(t)
// is the rate of the update that follows t others. With W = Warmup, N = Steps, the
// warm-up is linear and does not waste a step on a rate of 0:
//
//	t < W:     LR·(t + 1)/W
//
// After it the rate falls from LR at t = W towards LR·MinRatio at t = N (so that
// the last update, t = N − 1, still has a little more than that), by a factor
// MinRatio + (1 − MinRatio)·f, where p = (t − W)/(N − W) and
//
//	constant:  f = 1
//	linear:    f = 1 − p
//	cosine:    f = (1 + cos πp)/2    (Loshchilov & Hutter 2017, one cycle)
//	wsd:       f = 1 up to t = N − Decay, then 1 − √q, q = (t − (N − Decay))/Decay
//
// Past N the rate stays where it ended. Cosine is ColossalAI's CosineAnnealingWarmupLR
// to the letter; transformers' linear and cosine schedules have the same decay, but
// warm up by t/W. WSD (warm-up, stable, decay) is of Hu et al. 2024 (MiniCPM), its
// 1 − √q of Hägele et al. 2024 (Scaling laws and compute-optimal training beyond
// fixed training durations), who found it to end lower than a straight line.
type Schedule struct {
	Kind     Kind
	LR       float64 // the highest rate
	Steps    int     // updates in the whole run
	Warmup   int     // updates of the warm-up, among Steps
	MinRatio float64 // last rate as a part of LR, in [0, 1]
	Decay    int     // WSD: updates of the decay, among Steps
}

// At is the learning rate of update t, counted from 0.
func (s Schedule) At(t int) float64 {
	t = max(t, 0)
	if t < s.Warmup {
		return s.LR * float64(t+1) / float64(s.Warmup)
	}
	return s.LR * (s.MinRatio + (1-s.MinRatio)*s.fall(t))
}

// fall is f of Schedule's comment, 1 at the end of the warm-up and 0 at the end of
// the run.
func (s Schedule) fall(t int) float64 {
	switch s.Kind {
	case Constant:
		return 1
	case Linear:
		return 1 - part(t, s.Warmup, s.Steps)
	case Cosine:
		return (1 + math.Cos(math.Pi*part(t, s.Warmup, s.Steps))) / 2
	case WSD:
		if s.Decay <= 0 {
			return 1
		}
		return 1 - math.Sqrt(part(t, max(s.Warmup, s.Steps-s.Decay), s.Steps))
	}
	panic(fmt.Sprintf("optim: schedule of kind %q; Check refuses it", s.Kind))
}

// part tells how far t has come from one step to another, in [0, 1].
func part(t, from, to int) float64 {
	switch {
	case t >= to:
		return 1
	case t <= from:
		return 0
	}
	return float64(t-from) / float64(to-from)
}

// Check refuses a schedule that has no meaning.
func (s Schedule) Check() error {
	switch {
	case s.Kind != Constant && s.Kind != Linear && s.Kind != Cosine && s.Kind != WSD:
		return fmt.Errorf("schedule %q is not one of constant, linear, cosine, wsd", s.Kind)
	case !(s.LR >= 0) || math.IsInf(s.LR, 0):
		return fmt.Errorf("learning rate %g; it must be a number of 0 or more", s.LR)
	case !(s.MinRatio >= 0 && s.MinRatio <= 1):
		return fmt.Errorf("least learning rate %g, as a part of the highest; it must lie in [0, 1]", s.MinRatio)
	case s.Steps < 0 || s.Warmup < 0 || s.Decay < 0:
		return fmt.Errorf("schedule of %d steps, warm-up %d, decay %d; none may be negative", s.Steps, s.Warmup, s.Decay)
	case s.Warmup > s.Steps && s.Kind != Constant:
		return fmt.Errorf("warm-up of %d steps in a run of %d; give fewer", s.Warmup, s.Steps)
	case s.Warmup+s.Decay > s.Steps && s.Kind == WSD:
		return fmt.Errorf("warm-up of %d and decay of %d steps in a run of %d; give fewer", s.Warmup, s.Decay, s.Steps)
	}
	return nil
}

// StepsOf reads a length that may be given as a part of the run or as a number of
// steps: below 1 it is a part, rounded down.
func StepsOf(length float64, steps int) int {
	if length < 1 {
		return int(length*float64(steps) + 1e-6) // 0.29·100 is 28.999999999999996
	}
	return int(length)
}
