package conformance

import (
	"cmp"
	"math"
	"slices"

	"ringtail/tensor"
)

// routings are [T, E, K]: tokens, experts, and those chosen of them.
var routings = [][3]int{{0, 4, 2}, {1, 1, 1}, {1, 8, 2}, {5, 3, 3}, {33, 8, 2}, {70, 7, 3}, {3, 128, 8}, {130, 33, 6}}

// columns is a vector as a matrix of k columns.
func columns(t tensor.Tensor, k int) tensor.Tensor { return t.Reshape(t.Len()/k, k) }

// blanks makes a result of n whole numbers, compared exactly.
func (tr *trial) blanks(name string, n int) *operand {
	return tr.typed(name, tensor.I32, nil, n).exactly()
}

// routerLogits are of order one, or, with ties, few different numbers.
func (tr *trial) routerLogits(ties bool, rows, experts int) []float64 {
	v := tr.normal(rows, experts)
	if ties {
		for i := range v {
			v[i] = math.Round(v[i])
		}
	}
	return v
}

func testRoute(s *suite) {
	for _, l := range layouts {
		for _, r := range routings {
			for variant := range 4 {
				ties, normalize := variant&1 != 0, variant&2 != 0
				tr := s.trial(l, "Route [T E K] = %v, Normalize %v, ties %v", r, normalize, ties)
				routeTrial(tr, r, tr.routerLogits(ties, r[0], r[1]), normalize)
			}
		}
	}
	for _, normalize := range []bool{false, true} {
		// Whole numbers that are far apart: exponentials neither overflow nor all vanish.
		for _, offset := range []float64{-2000, 2000} {
			tr := s.always(dense, "Route of logits about %g, Normalize %v", offset, normalize)
			v := tr.normal(40, 9)
			for i := range v {
				v[i] = offset + math.Round(100*v[i])
			}
			routeTrial(tr, [3]int{40, 9, 4}, v, normalize)
		}
		tr := s.always(dense, "Route of all tokens to one expert, Normalize %v", normalize)
		v := tr.normal(300, 5)
		for t := range 300 {
			v[5*t+3] = 9
		}
		routeTrial(tr, [3]int{300, 5, 1}, v, normalize)
	}
	tr := s.always(dense, "Route with logits of -Inf")
	v := tr.normal(20, 6)
	for i := range v {
		if i%6 != 1 && i%6 != 4 {
			v[i] = math.Inf(-1)
		}
	}
	routeTrial(tr, [3]int{20, 6, 3}, v, false)
}

func routeTrial(tr *trial, r [3]int, v []float64, normalize bool) {
	n, experts, k := r[0], r[1], r[2]
	logits, weights := tr.values("Logits", v, n, experts), tr.blank("Weights", n, k)
	chosen, slots := tr.blanks("Experts", n*k), tr.blanks("Slots", n*k)
	tokens, starts := tr.blanks("Tokens", n*k), tr.blanks("Starts", experts+1)
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Route(tensor.Route{Logits: at(logits), Weights: at(weights), Experts: columns(at(chosen), k),
			Slots: columns(at(slots), k), Tokens: at(tokens), Starts: at(starts), Normalize: normalize})
	})
}

func testRouteBackward(s *suite) {
	for _, l := range layouts {
		for _, r := range routings {
			for variant := range 4 {
				normalize, accumulate := variant&1 != 0, variant&2 != 0
				n, experts, k := r[0], r[1], r[2]
				tr := s.trial(l, "RouteBackward [T E K] = %v, Normalize %v, Accumulate %v", r, normalize, accumulate)
				v := tr.held(tr.normal(n, experts))
				ids, w := routed(v, experts, k, normalize)
				logits, weights, chosen := tr.values("Logits", v, n, experts), tr.values("Weights", w, n, k), tr.ints("Experts", ids...)
				dweights, dlogits := tr.random("DWeights", n, k), tr.blank("DLogits", n, experts)
				if accumulate {
					dlogits = tr.random("DLogits", n, experts).out()
				}
				dlogits.through(2) // a chosen expert's probability may be the logits' or the rounded weight
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
					ops.RouteBackward(tensor.RouteBackward{DLogits: at(dlogits), DWeights: at(dweights), Logits: at(logits), Weights: at(weights),
						Experts: columns(at(chosen), k), Normalize: normalize, Accumulate: accumulate})
				})
			}
		}
	}
}

// routed is the choice of k experts for each row of logits, and their weights.
func routed(logits []float64, experts, k int, normalize bool) (ids []int, weights []float64) {
	for row := range slices.Chunk(logits, experts) {
		order := make([]int, experts)
		all, best := 0.0, 0.0
		for e, v := range row {
			order[e] = e
			all += math.Exp(v)
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(row[b], row[a]) })
		for _, e := range order[:k] {
			best += math.Exp(row[e])
		}
		for _, e := range order[:k] {
			ids = append(ids, e)
			weights = append(weights, math.Exp(row[e])/choose(normalize, best, all))
		}
	}
	return ids, weights
}

// groupings are numbers of rows of groups: none, empty ones, single rows, and sizes
// on both sides of what kernels take at once.
var groupings = [][]int{{}, {0}, {3}, {0, 5, 0, 1}, {1, 1, 1, 17}, {0, 0, 70, 3, 0}, {16, 2, 40}}

// eachGrouping calls f with groups and the n and k of a product.
func eachGrouping(f func(l layout, sizes []int, n, k int)) {
	for _, l := range layouts {
		for _, sizes := range groupings {
			for _, shape := range [][2]int{{1, 1}, {3, 16}, {7, 3}, {17, 33}, {65, 40}} {
				f(l, sizes, shape[0], shape[1])
			}
		}
		f(l, []int{2, 0, 1}, 5, 0)
	}
	// All rows in one group, and more than a cache or a thread takes.
	f(dense, []int{0, 0, 1100, 0}, 70, 40)
	f(dense, []int{300, 1, 0, 33}, 530, 129)
}

// grouped makes the starts of groups.
func grouped(sizes []int) (starts []int, total int) {
	starts = []int{0}
	for _, n := range sizes {
		total += n
		starts = append(starts, total)
	}
	return starts, total
}

func testGroupedMatmul(s *suite) {
	eachGrouping(func(l layout, sizes []int, n, k int) {
		for variant := range 4 {
			transB, accumulate := variant&1 != 0, variant&2 != 0
			tr := s.trial(l, "GroupedMatmul of groups %v, n %d, k %d, TransB %v, Accumulate %v", sizes, n, k, transB, accumulate)
			starts, total := grouped(sizes)
			a, b := tr.random("A", total, k), tr.random("B", len(sizes), choose(transB, n, k), choose(transB, k, n))
			c, at0 := tr.blank("C", total, n), tr.ints("Starts", starts...)
			if accumulate {
				c = tr.random("C", total, n).out()
			}
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
				ops.GroupedMatmul(tensor.GroupedMatmul{C: at(c), A: at(a), B: at(b), TransB: transB, Starts: at(at0), Accumulate: accumulate})
			})
		}
	})
	// A NaN stays in its row, and so in its group.
	tr := s.always(dense, "GroupedMatmul with NaN in one row")
	v := tr.normal(30, 20)
	v[11*20+3] = math.NaN()
	a, b, c, starts := tr.values("A", v, 30, 20), tr.random("B", 3, 20, 35), tr.blank("C", 30, 35), tr.ints("Starts", 0, 12, 12, 30)
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.GroupedMatmul(tensor.GroupedMatmul{C: at(c), A: at(a), B: at(b), Starts: at(starts)})
	})
}

func testGroupedOuter(s *suite) {
	eachGrouping(func(l layout, sizes []int, n, m int) {
		tr := s.trial(l, "GroupedOuter of groups %v, m %d, n %d", sizes, m, n)
		starts, total := grouped(sizes)
		a, b, c := tr.random("A", total, m), tr.random("B", total, n), tr.gradient("C", len(sizes), m, n)
		at0 := tr.ints("Starts", starts...)
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
			ops.GroupedOuter(tensor.GroupedOuter{C: at(c), A: at(a), B: at(b), Starts: at(at0)})
		})
	})
}

// combinations are [T, H, K].
var combinations = [][3]int{{0, 5, 2}, {1, 1, 1}, {1, 33, 2}, {7, 16, 3}, {40, 130, 2}, {150, 260, 1}}

func testCombine(s *suite) {
	for _, l := range layouts {
		for _, c := range combinations {
			n, h, k := c[0], c[1], c[2]
			tr := s.trial(l, "Combine [T H K] = %v", c)
			x, weights, slots := tr.random("X", n*k, h), tr.random("Weights", n, k), tr.ints("Slots", tr.rng.Perm(n*k)...)
			y := tr.blank("Y", n, h)
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
				ops.Combine(tensor.Combine{Y: at(y), X: at(x), Weights: at(weights), Slots: columns(at(slots), k)})
			})
		}
	}
}

func testCombineBackward(s *suite) {
	for _, l := range layouts {
		for _, c := range combinations {
			for _, wanted := range []string{"DX and DWeights", "DX", "DWeights"} {
				n, h, k := c[0], c[1], c[2]
				tr := s.trial(l, "CombineBackward [T H K] = %v, %s", c, wanted)
				x, weights, slots := tr.random("X", n*k, h), tr.random("Weights", n, k), tr.ints("Slots", tr.rng.Perm(n*k)...)
				dy := tr.random("DY", n, h)
				var dx, dweights *operand
				if wanted != "DWeights" {
					dx = tr.blank("DX", n*k, h)
				}
				if wanted != "DX" {
					dweights = tr.blank("DWeights", n, k)
				}
				tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
					ops.CombineBackward(tensor.CombineBackward{DX: at(dx), DWeights: at(dweights), DY: at(dy), X: at(x), Weights: at(weights),
						Slots: columns(at(slots), k)})
				})
			}
		}
	}
}

func testRouterLoss(s *suite) {
	for _, l := range layouts {
		for _, r := range routings {
			for _, live := range slices.Compact([]int{0, r[0] / 2, r[0]}) {
				for _, wanted := range []string{"no gradients", "gradients", "the last one's gradient, accumulated"} {
					routerTrial(s, l, r, live, wanted)
				}
			}
		}
	}
	routerTrial(s, dense, [3]int{700, 8, 2}, 650, "gradients")
	routerTrial(s, dense, [3]int{0, 8, 2}, 0, "no layers")
}

func routerTrial(s *suite, l layout, r [3]int, live int, wanted string) {
	n, experts, k := r[0], r[1], r[2]
	tr := s.trial(l, "RouterLoss [T E K] = %v, Live %d, %s", r, live, wanted)
	loss, first, scale := tr.typed("Loss", tensor.F64, []float64{2.5}, 1).out(), tr.ints("Live", live), tr.wide("Scale", []float64{0.375}, 1)
	var logits, dlogits []*operand
	layers := choose(wanted == "no layers", 0, 3)
	accumulate := make([]bool, layers)
	for i := range layers {
		// What lies in filler rows must not count.
		v := append(tr.normal(live, experts), notANumber((n-live)*experts)...)
		logits = append(logits, tr.values("Logits", v, n, experts))
		switch {
		case wanted == "gradients":
			dlogits = append(dlogits, tr.blank("DLogits", n, experts))
		case wanted != "no gradients" && i == layers-1:
			dlogits, accumulate[i] = append(dlogits, tr.random("DLogits", n, experts).out()), true
		case wanted != "no gradients":
			dlogits = append(dlogits, nil)
		}
	}
	all := func(at func(*operand) tensor.Tensor, of []*operand) (t []tensor.Tensor) {
		for _, o := range of {
			t = append(t, at(o))
		}
		return t
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.RouterLoss(tensor.RouterLoss{Loss: at(loss), Logits: all(at, logits), DLogits: all(at, dlogits), Accumulate: accumulate,
			Live: at(first), K: k, Scale: at(scale), Coef: 1.5})
	})
}
