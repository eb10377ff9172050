package conformance

import (
	"math"

	"ringtail/tensor"
)

func testActivate(s *suite) {
	for name, act := range activations {
		for _, l := range layouts {
			for _, p := range planes {
				tr := s.trial(l, "Activate %s %v", name, p)
				x, y := tr.random("x", p[0], p[1]), tr.blank("y", p[0], p[1])
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Activate(at(y), at(x), act) })

				tr = s.trial(l, "Activate %s %v with y = x", name, p)
				x = tr.random("x", p[0], p[1]).out()
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Activate(at(x), at(x), act) })
			}
		}
		tr := s.always(dense, "Activate %s of extremes", name)
		x, y := tr.extremes(), tr.blank("y", 3, 2*len(extremes))
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Activate(at(y), at(x), act) })
	}
}

func testActivateBackward(s *suite) {
	for name, act := range activations {
		for _, l := range layouts {
			for _, p := range planes {
				activateBackwardTrial(s.trial(l, "ActivateBackward %s %v", name, p), p, act, "")
				activateBackwardTrial(s.trial(l, "ActivateBackward %s %v with dx = dy", name, p), p, act, "dy")
				activateBackwardTrial(s.trial(l, "ActivateBackward %s %v with dx = x", name, p), p, act, "x")
			}
		}
		tr := s.always(dense, "ActivateBackward %s of extremes", name)
		x, dy, dx := tr.extremes(), tr.random("dy", 3, 2*len(extremes)), tr.blank("dx", 3, 2*len(extremes))
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
			ops.ActivateBackward(at(dx), at(dy), at(x), act)
		})
	}
}

// activateBackwardTrial writes the result over the operand in, if any.
func activateBackwardTrial(tr *trial, p [2]int, act tensor.Activation, in string) {
	x, dy := tr.random("x", p[0], p[1]), tr.random("dy", p[0], p[1])
	dx := map[string]*operand{"x": x, "dy": dy}[in]
	if dx == nil {
		dx = tr.blank("dx", p[0], p[1])
	}
	dx.out()
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.ActivateBackward(at(dx), at(dy), at(x), act)
	})
}

// capLimits are far below, near and above the numbers they cap.
var capLimits = []float32{0.1, 1, 30}

// capExtremes are capped to the limit, nearly to it, hardly, and not at all.
var capExtremes = append([]float64{math.Inf(1), math.Inf(-1), -250, -30, 30, 250, 0}, extremes...)

func testSoftCap(s *suite) {
	for _, limit := range capLimits {
		for _, l := range layouts {
			for _, p := range planes {
				tr := s.trial(l, "SoftCap %g of %v", limit, p)
				x, y := tr.random("x", p[0], p[1]), tr.blank("y", p[0], p[1])
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.SoftCap(at(y), at(x), limit) })

				tr = s.trial(l, "SoftCap %g of %v with y = x", limit, p)
				x = tr.random("x", p[0], p[1]).out()
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.SoftCap(at(x), at(x), limit) })
			}
		}
		tr := s.always(dense, "SoftCap %g of extremes", limit)
		x, y := tr.values("x", capExtremes, len(capExtremes)), tr.blank("y", len(capExtremes))
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.SoftCap(at(y), at(x), limit) })
	}
}

func testSoftCapBackward(s *suite) {
	for _, limit := range capLimits {
		for _, l := range layouts {
			for _, p := range planes {
				softCapBackwardTrial(s.trial(l, "SoftCapBackward %g of %v", limit, p), limit, "", p)
				softCapBackwardTrial(s.trial(l, "SoftCapBackward %g of %v with dx = dy", limit, p), limit, "dy", p)
				softCapBackwardTrial(s.trial(l, "SoftCapBackward %g of %v with dx = y", limit, p), limit, "y", p)
			}
		}
		tr := s.always(dense, "SoftCapBackward %g of extremes", limit)
		n := len(capExtremes)
		y, dy, dx := tr.values("y", capped(capExtremes, limit), n), tr.random("dy", n), tr.blank("dx", n)
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
			ops.SoftCapBackward(at(dx), at(dy), at(y), limit)
		})
	}
}

// softCapBackwardTrial writes the result over the operand in, if any.
func softCapBackwardTrial(tr *trial, limit float32, in string, p [2]int) {
	y, dy := tr.values("y", capped(tr.normal(p[0], p[1]), limit), p[0], p[1]), tr.random("dy", p[0], p[1])
	dx := map[string]*operand{"y": y, "dy": dy}[in]
	if dx == nil {
		dx = tr.blank("dx", p[0], p[1])
	}
	dx.out()
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.SoftCapBackward(at(dx), at(dy), at(y), limit)
	})
}

// capped is what SoftCap makes of v; v itself with a limit of 0.
func capped(v []float64, limit float32) []float64 {
	y := append([]float64{}, v...)
	if limit > 0 {
		for i := range y {
			y[i] = float64(limit) * math.Tanh(y[i]/float64(limit))
		}
	}
	return y
}
