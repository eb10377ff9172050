package conformance

import (
	"math"

	"ringtail/tensor"
)

var activations = map[string]tensor.Activation{"SiLU": tensor.SiLU, "GELU": tensor.GELU, "GELUTanh": tensor.GELUTanh, "ReLU": tensor.ReLU}

// extremes are gates where an exponential overflows, vanishes, or loses what
// stands beside it.
var extremes = []float64{-1e4, -104, -89, -88, -20, -9, -5, -1, -1e-3, -1e-30, 1e-30, 1e-3, 1, 5, 9, 20, 88, 89, 104, 1e4, math.NaN()}

func testGLU(s *suite) {
	for name, act := range activations {
		for _, l := range layouts {
			for _, p := range planes {
				tr := s.trial(l, "GLU %s %v", name, p)
				x, y := tr.random("x", p[0], 2*p[1]), tr.blank("y", p[0], p[1])
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.GLU(at(y), at(x), act) })
			}
		}
		tr := s.always(dense, "GLU %s of extremes", name)
		x, y := tr.extremes(), tr.blank("y", 3, len(extremes))
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.GLU(at(y), at(x), act) })
	}
}

func testGLUBackward(s *suite) {
	for name, act := range activations {
		for _, l := range layouts {
			for _, p := range planes {
				tr := s.trial(l, "GLUBackward %s %v", name, p)
				x, dy, dx := tr.random("x", p[0], 2*p[1]), tr.random("dy", p[0], p[1]), tr.blank("dx", p[0], 2*p[1])
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.GLUBackward(at(dx), at(dy), at(x), act) })

				tr = s.trial(l, "GLUBackward %s %v with dx = x", name, p)
				x, dy = tr.random("x", p[0], 2*p[1]).out(), tr.random("dy", p[0], p[1])
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.GLUBackward(at(x), at(dy), at(x), act) })
			}
		}
		tr := s.always(dense, "GLUBackward %s of extremes", name)
		x, dy, dx := tr.extremes(), tr.random("dy", 3, len(extremes)), tr.blank("dx", 3, 2*len(extremes))
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.GLUBackward(at(dx), at(dy), at(x), act) })
	}
}

// extremes makes a GLU's input of three rows with the extremes as gates, a place
// further in each row, so that every vector lane sees several.
func (tr *trial) extremes() *operand {
	n := len(extremes)
	v := tr.normal(3, 2*n)
	for t := range 3 {
		for j := range n {
			v[t*2*n+j] = extremes[(j+t)%n]
		}
	}
	return tr.values("x", v, 3, 2*n)
}
