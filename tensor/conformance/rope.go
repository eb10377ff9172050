package conformance

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

func testRoPE(s *suite) {
	cases := []struct{ heads, headDim, half, extra int }{
		{1, 2, 1, 0}, {3, 6, 3, 0}, {2, 16, 8, 5}, {4, 64, 32, 0}, {2, 80, 40, 3},
		{3, 10, 3, 7}, // part of each head, and columns that are no heads
		{2, 33, 16, 0}, {5, 8, 4, 1},
	}
	for _, l := range layouts {
		for _, c := range cases {
			for _, t := range []int{0, 1, 3, 33} {
				for _, inverse := range []bool{false, true} {
					ropeTrial(s, l, fmt.Sprintf("RoPE %+v, T %d, Inverse %v", c, t, inverse), t, c.heads, c.headDim, c.half, c.extra, inverse)
				}
			}
		}
	}
}

func ropeTrial(s *suite, l layout, name string, t, heads, headDim, half, extra int, inverse bool) {
	const longest = 40
	tr := s.trial(l, "%s", name)
	cos, sin := make([]float64, longest*half), make([]float64, longest*half)
	for p := range longest {
		for i := range half {
			angle := float64(p) * math.Pow(10000, -float64(i)/float64(half))
			cos[p*half+i], sin[p*half+i] = math.Cos(angle), math.Sin(angle)
		}
	}
	positions := make([]int, t)
	for i := range positions {
		positions[i] = tr.rng.IntN(longest)
	}
	x := tr.random("X", t, heads*headDim+extra).out()
	c, sn := tr.wide("Cos", cos, longest, half), tr.wide("Sin", sin, longest, half)
	p := tr.ints("Positions", positions...)
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.RoPE(tensor.RoPE{X: at(x), Cos: at(c), Sin: at(sn), Positions: at(p), Heads: heads, HeadDim: headDim, Inverse: inverse})
	})
}
