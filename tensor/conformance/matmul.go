package conformance

import (
	"math"

	"ringtail/tensor"
)

func testMatmul(s *suite) {
	shapes := [][3]int{ // m, n, k
		{1, 1, 1}, {1, 2, 3}, {2, 1, 7}, {3, 7, 1}, {7, 3, 33}, {33, 7, 2}, {5, 16, 8}, {6, 17, 9},
		{13, 31, 29}, {1, 130, 65}, {130, 1, 65}, {33, 65, 130}, {67, 49, 257},
		{0, 5, 3}, {4, 0, 3}, {4, 5, 0},
	}
	for _, l := range layouts {
		for _, shape := range shapes {
			for variant := range 16 {
				matmulTrial(s, l, shape, variant&1 != 0, variant&2 != 0, variant&4 != 0, variant&8 != 0)
			}
		}
		// Larger than the blocks that a cache or a thread takes.
		matmulTrial(s, l, [3]int{67, 530, 540}, false, true, false, true)
		matmulTrial(s, l, [3]int{140, 300, 259}, true, false, true, false)
		matmulTrial(s, l, [3]int{259, 270, 70}, false, false, false, false)
	}
	for _, l := range layouts {
		for _, shape := range [][3]int{{1, 1, 1}, {3, 7, 1}, {7, 3, 33}, {33, 65, 130}, {16, 24, 8}, {64, 40, 96}, {0, 5, 3}, {5, 0, 3}, {4, 8, 0}} {
			for variant := range 4 {
				biasGradientTrial(s, l, shape, variant&1 != 0, variant&2 != 0)
				geluTrial(s, l, shape, variant&1 != 0, variant&2 != 0)
				if variant < 2 {
					geluBackwardTrial(s, l, shape, variant != 0)
				}
			}
		}
	}
	notNumbers(s)
}

// biasGradientTrial is a product with the sums of A's columns beside it.
func biasGradientTrial(s *suite, l layout, shape [3]int, transB, accumulate bool) {
	m, n, k := shape[0], shape[1], shape[2]
	tr := s.trial(l, "Matmul with DBias [m n k] = %v, TransB %v, Beta 1 %v", shape, transB, accumulate)
	a, b := tr.random("A", k, m), tr.random("B", choose(transB, n, k), choose(transB, k, n))
	c := tr.gradient("C", m, n)
	if !accumulate {
		c = tr.either("C", nil, m, n).out()
	}
	bias := tr.gradient("DBias", m).through(1)
	c.through(2) // as above
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Matmul(tensor.Matmul{C: at(c), A: at(a), B: at(b), TransA: true, TransB: transB, Beta: choose[float32](accumulate, 1, 0), DBias: at(bias)})
	})
}

// geluTrial is a product that goes through GELU, and is kept before it.
func geluTrial(s *suite, l layout, shape [3]int, transB, biased bool) {
	m, n, k := shape[0], shape[1], shape[2]
	tr := s.trial(l, "Matmul with GELUForward [m n k] = %v, TransB %v, Bias %v", shape, transB, biased)
	a, b := tr.random("A", m, k), tr.random("B", choose(transB, n, k), choose(transB, k, n))
	c, pre := tr.either("C", nil, m, n).out().through(2), tr.either("Pre", nil, m, n).out().through(1)
	var bias *operand
	if biased {
		bias = tr.random("Bias", n)
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Matmul(tensor.Matmul{C: at(c), A: at(a), B: at(b), TransB: transB, Bias: at(bias), Fused: tensor.GELUForward, Pre: at(pre)})
	})
}

// geluBackwardTrial is a product times GELU's derivative.
func geluBackwardTrial(s *suite, l layout, shape [3]int, transB bool) {
	m, n, k := shape[0], shape[1], shape[2]
	tr := s.trial(l, "Matmul with GELUBackward [m n k] = %v, TransB %v", shape, transB)
	a, b := tr.random("A", m, k), tr.random("B", choose(transB, n, k), choose(transB, k, n))
	c, pre := tr.either("C", nil, m, n).out().through(1), tr.either("Pre", tr.normal(m, n), m, n)
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Matmul(tensor.Matmul{C: at(c), A: at(a), B: at(b), TransB: transB, Fused: tensor.GELUBackward, Pre: at(pre)})
	})
}

func matmulTrial(s *suite, l layout, shape [3]int, transA, transB, accumulate, biased bool) {
	m, n, k := shape[0], shape[1], shape[2]
	tr := s.trial(l, "Matmul [m n k] = %v, TransA %v, TransB %v, Beta 1 %v, Bias %v", shape, transA, transB, accumulate, biased)
	a, b := tr.random("A", choose(transA, k, m), choose(transA, m, k)), tr.random("B", choose(transB, n, k), choose(transB, k, n))
	var c, bias *operand
	if accumulate {
		c = tr.gradient("C", m, n)
	} else {
		c = tr.either("C", nil, m, n).out() // NaN: Beta 0 must not read it
	}
	if biased {
		bias = tr.random("Bias", n)
	}
	if accumulate || biased {
		// The product may have been rounded before the rest was added, and be twice as large as the sum.
		c.through(2)
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Matmul(tensor.Matmul{C: at(c), A: at(a), B: at(b), TransA: transA, TransB: transB,
			Beta: choose[float32](accumulate, 1, 0), Bias: at(bias)})
	})
}

func choose[T any](yes bool, a, b T) T {
	if yes {
		return a
	}
	return b
}

// notNumbers checks that a NaN or an infinity reaches the elements that it should
// and no other, whatever the place in a block.
func notNumbers(s *suite) {
	for _, x := range []float64{math.NaN(), math.Inf(1)} {
		for _, row := range []int{0, 9, 18} {
			for _, transA := range []bool{false, true} {
				m, n, k := 19, 35, 21
				tr := s.always(dense, "Matmul with %g in row %d, TransA %v", x, row, transA)
				v := tr.normal(m, k)
				if transA {
					v[3*m+row] = x
				} else {
					v[row*k+3] = x
				}
				a, b, c := tr.values("A", v, choose(transA, k, m), choose(transA, m, k)), tr.random("B", k, n), tr.blank("C", m, n)
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
					ops.Matmul(tensor.Matmul{C: at(c), A: at(a), B: at(b), TransA: transA})
				})
			}
		}
	}
}

func testSumRows(s *suite) {
	for _, l := range layouts {
		for _, p := range planes {
			tr := s.trial(l, "SumRows of %v", p)
			x, y := tr.random("x", p[0], p[1]), tr.gradient("y", p[1])
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.SumRows(at(y), at(x)) })
		}
	}
}
