package conformance

import (
	"math"

	"ringtail/tensor"
)

var planes = [][2]int{{0, 5}, {1, 1}, {2, 3}, {3, 7}, {7, 33}, {33, 65}, {3, 1000}, {65, 1}}

func testZero(s *suite) {
	for _, l := range layouts {
		for _, d := range []tensor.Dtype{s.dev.Float(), tensor.F64, tensor.I32, tensor.BF16, tensor.U8} {
			for _, p := range planes {
				tr := s.trial(l, "Zero of %v%v", d, p)
				v := make([]float64, p[0]*p[1])
				for i := range v {
					v[i] = float64(i%100 + 1)
				}
				x := tr.typed("x", d, v, p[0], p[1]).exactly()
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Zero(at(x)) })
			}
		}
		tr := s.always(l, "Zero of NaN")
		x := tr.blank("x", 3, 5).exactly()
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Zero(at(x)) })
	}
}

func testCopy(s *suite) {
	floats := []tensor.Dtype{tensor.F32, tensor.F64, tensor.BF16, tensor.F16}
	for _, l := range layouts {
		for _, from := range floats {
			for _, to := range floats {
				for _, p := range planes {
					tr := s.trial(l, "Copy of %v to %v%v", from, to, p)
					src := tr.typed("src", from, tr.normal(p[0], p[1]), p[0], p[1])
					dst := tr.typed("dst", to, nil, p[0], p[1]).exactly()
					tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Copy(at(dst), at(src)) })
				}
				// Ties, overflow, subnormals of the 16-bit types, and what is no number.
				tr := s.always(l, "Copy of special values from %v to %v", from, to)
				v := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 1 + 1.0/256, 1 + 3.0/256,
					1 + 1.0/2048, 1 + 3.0/2048, 65504, 65520, 65519, 3.3e38, -3.4e38, 0x1p-24, 0x1p-25, 0x1.8p-25, 0x1p-133, -0x1.8p-20, 2047.5}
				src := tr.typed("src", from, v, len(v))
				dst := tr.typed("dst", to, nil, len(v)).exactly()
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Copy(at(dst), at(src)) })
			}
		}
		tr := s.always(l, "Copy of I32")
		src, dst := tr.ints("src", 1, -2, 1<<30+1, 7), tr.typed("dst", tensor.I32, nil, 4).exactly()
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Copy(at(dst), at(src)) })
	}
	// Between a dense tensor and a window, and of three dimensions.
	tr := s.always(window, "Copy of a window to the columns of a wider tensor")
	src, dst := tr.random("src", 2, 3, 7), tr.random("dst", 2, 3, 11).out()
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Copy(at(dst).Columns(2, 7), at(src)) })
}

func testAdd(s *suite) {
	for _, l := range layouts {
		for _, p := range planes {
			tr := s.trial(l, "Add of %v", p)
			y, a, b := tr.blank("y", p[0], p[1]), tr.random("a", p[0], p[1]), tr.random("b", p[0], p[1])
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Add(at(y), at(a), at(b)) })

			tr = s.trial(l, "Add of %v with y = a", p)
			a, b = tr.random("a", p[0], p[1]).out(), tr.random("b", p[0], p[1])
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Add(at(a), at(a), at(b)) })

			tr = s.trial(l, "Add of %v with y = b", p)
			a, b = tr.random("a", p[0], p[1]), tr.random("b", p[0], p[1]).out()
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Add(at(b), at(a), at(b)) })

			// Gradients of parameters may be wide, and what is added to them not.
			if wide := s.dev.Float().Wide(); narrow(s.dev) {
				tr = s.always(l, "Add of %v to %v", p, wide)
				y, b = tr.wide("y", tr.normal(p[0], p[1]), p[0], p[1]).out(), tr.either("b", tr.normal(p[0], p[1]), p[0], p[1])
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Add(at(y), at(y), at(b)) })
			}
		}
		tr := s.always(l, "Add of NaN and infinity")
		y := tr.blank("y", 4)
		a := tr.values("a", []float64{math.NaN(), math.Inf(1), math.Inf(1), 1}, 4)
		b := tr.values("b", []float64{1, 1, math.Inf(-1), 2}, 4)
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Add(at(y), at(a), at(b)) })
	}
}

func testScale(s *suite) {
	for _, l := range layouts {
		for _, p := range planes {
			for _, f := range []float32{-1.7, 0.1, 0} {
				tr := s.trial(l, "Scale of %v by %g", p, f)
				x := tr.gradient("x", p[0], p[1])
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Scale(at(x), f) })
			}
		}
	}
}
