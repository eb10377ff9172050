package conformance

import "ringtail/tensor"

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
		tr := s.trial(dense, "Activate %s of extremes", name)
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
		tr := s.trial(dense, "ActivateBackward %s of extremes", name)
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
