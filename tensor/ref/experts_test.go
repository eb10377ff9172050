package ref

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"ringtail/tensor"
)

// wholes is I32 [rows, k], of negative numbers.
func (m *maker) wholes(rows, k int) tensor.Tensor {
	x := m.ints(make([]int32, rows*k)...)
	for i := range x.Int32() {
		x.Int32()[i] = -7
	}
	return x.Reshape(rows, k)
}

func (m *maker) expectInts(name string, x tensor.Tensor, want ...int32) {
	m.t.Helper()
	if got := x.Int32(); !slices.Equal(got, want) {
		m.t.Errorf("%s is %v, want %v", name, got, want)
	}
}

// router is a Route with all its results.
func (m *maker) router(logits tensor.Tensor, k int, normalize bool) tensor.Route {
	n, experts := logits.Rows(), logits.Cols()
	return tensor.Route{Logits: logits, Weights: m.blank(n, k), Experts: m.wholes(n, k), Slots: m.wholes(n, k),
		Tokens: m.ints(make([]int32, n*k)...), Starts: m.ints(make([]int32, experts+1)...), Normalize: normalize}
}

// TestRoute is of probabilities that are small fractions: logits are logarithms.
func TestRoute(t *testing.T) {
	m := newMaker(t)
	ln := math.Log
	logits := m.set(m.blank(4, 4),
		ln(1), ln(4), ln(3), ln(2), // of 10
		ln(5), ln(5), ln(5), ln(5), // of 20: equal
		900+ln(2), 900+ln(1), 900+ln(1), 900+ln(4), // of 8
		ln(1), ln(1), ln(6), ln(2)) // of 10
	a := m.router(logits, 2, false)
	for _, c := range []struct {
		normalize bool
		want      []float64
	}{
		{false, []float64{0.4, 0.3, 0.25, 0.25, 0.5, 0.25, 0.6, 0.2}},
		{true, []float64{4.0 / 7, 3.0 / 7, 0.5, 0.5, 2.0 / 3, 1.0 / 3, 0.75, 0.25}},
	} {
		a.Normalize = c.normalize
		m.ops.Route(a)
		m.expect("Weights", a.Weights, 1e-13, c.want...)
		m.expectInts("Experts", a.Experts, 1, 2, 0, 1, 3, 0, 2, 3)
		// Expert 0 has tokens 1 and 2, expert 1 tokens 0 and 1, expert 2 tokens 0 and 3, expert 3 tokens 2 and 3.
		m.expectInts("Starts", a.Starts, 0, 2, 4, 6, 8)
		m.expectInts("Tokens", a.Tokens, 1, 2, 0, 1, 0, 3, 2, 3)
		m.expectInts("Slots", a.Slots, 2, 4, 0, 3, 6, 1, 5, 7)
	}
	empty := m.router(m.blank(0, 3), 2, true)
	m.ops.Route(empty)
	m.expectInts("Starts of no token", empty.Starts, 0, 0, 0, 0)
}

func TestRouteGradient(t *testing.T) {
	for _, s := range [][3]int{{0, 4, 2}, {1, 1, 1}, {1, 4, 2}, {3, 3, 3}, {5, 7, 2}, {4, 6, 1}} {
		for variant := range 4 {
			normalize, accumulate := variant&1 != 0, variant&2 != 0
			t.Run(fmt.Sprint(s, normalize, accumulate), func(t *testing.T) {
				m := newMaker(t)
				logits, c := m.random(s[0], s[1]), m.random(s[0], s[2])
				a := m.router(logits, s[2], normalize)
				// Differences must not change the choice.
				loss := func() float64 { m.ops.Route(a); return weigh(c, a.Weights) }
				loss()
				b := tensor.RouteBackward{DLogits: m.blank(s[0], s[1]), DWeights: c, Logits: logits, Weights: a.Weights, Experts: a.Experts,
					Normalize: normalize, Accumulate: accumulate}
				if accumulate {
					b.DLogits = m.random(s[0], s[1])
				}
				before := m.copy(b.DLogits)
				m.ops.RouteBackward(b)
				if accumulate {
					subtract(b.DLogits, before)
				}
				m.differ("Logits", logits, b.DLogits, loss)
			})
		}
	}
}

func TestGroupedMatmul(t *testing.T) {
	m := newMaker(t)
	a := m.set(m.blank(3, 2), 1, 2, 3, 4, 5, 6)
	b := m.set(m.blank(3, 2, 2), 1, 0, 0, 1, 9, 9, 9, 9, 1, 1, 2, -1)
	starts := m.ints(0, 1, 1, 3) // the second group is empty
	c := m.blank(3, 2)
	m.ops.GroupedMatmul(tensor.GroupedMatmul{C: c, A: a, B: b, Starts: starts})
	m.expect("C", c, 0, 1, 2, 3+8, 3-4, 5+12, 5-6)
	m.ops.GroupedMatmul(tensor.GroupedMatmul{C: c, A: a, B: b, TransB: true, Starts: starts, Accumulate: true})
	m.expect("C accumulated", c, 0, 2, 4, 11+7, -1+2, 17+11, -1+4)
	outer := m.set(m.blank(3, 2, 2), 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
	m.ops.GroupedOuter(tensor.GroupedOuter{C: outer, A: a, B: m.set(m.blank(3, 2), 1, 10, 1, 0, 0, 1), Starts: starts})
	m.expect("Aᵀ·B", outer, 0, 2, 11, 3, 21, 2, 2, 2, 2, 3+3, 3+5, 3+4, 3+6)
}

// TestGroupedGradient is of y = x·Wᵀ by groups: dx = dy·W, dW += dyᵀ·x.
func TestGroupedGradient(t *testing.T) {
	for _, starts := range [][]int32{{0}, {0, 0}, {0, 3}, {0, 2, 2, 3, 7}} {
		t.Run(fmt.Sprint(starts), func(t *testing.T) {
			m := newMaker(t)
			groups, n := len(starts)-1, int(starts[len(starts)-1])
			at := m.ints(starts...)
			x, w, c, y := m.random(n, 3), m.random(groups, 4, 3), m.random(n, 4), m.blank(n, 4)
			loss := func() float64 {
				m.ops.GroupedMatmul(tensor.GroupedMatmul{C: y, A: x, B: w, TransB: true, Starts: at})
				return weigh(c, y)
			}
			dx, dw := m.blank(n, 3), m.random(groups, 4, 3)
			before := m.copy(dw)
			m.ops.GroupedMatmul(tensor.GroupedMatmul{C: dx, A: c, B: w, Starts: at})
			m.ops.GroupedOuter(tensor.GroupedOuter{C: dw, A: c, B: x, Starts: at})
			subtract(dw, before)
			m.differ("x", x, dx, loss)
			m.differ("W", w, dw, loss)
		})
	}
}

func TestCombine(t *testing.T) {
	m := newMaker(t)
	x, weights := m.set(m.blank(4, 2), 1, 2, 3, 4, 5, 6, 7, 8), m.set(m.blank(2, 2), 0.5, 2, -1, 0.25)
	slots := m.ints(3, 0, 1, 2).Reshape(2, 2)
	y := m.blank(2, 2)
	m.ops.Combine(tensor.Combine{Y: y, X: x, Weights: weights, Slots: slots})
	m.expect("Y", y, 0, 3.5+2, 4+4, -3+1.25, -4+1.5)
}

func TestCombineGradient(t *testing.T) {
	for _, s := range [][3]int{{0, 3, 2}, {1, 1, 1}, {5, 3, 2}, {4, 7, 3}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			m := newMaker(t)
			n, h, k := s[0], s[1], s[2]
			var order []int32
			for _, i := range m.rng.Perm(n * k) {
				order = append(order, int32(i))
			}
			a := tensor.Combine{Y: m.blank(n, h), X: m.random(n*k, h), Weights: m.random(n, k), Slots: m.ints(order...).Reshape(n, k)}
			c := m.random(n, h)
			loss := func() float64 { m.ops.Combine(a); return weigh(c, a.Y) }
			dx, dw := m.blank(n*k, h), m.blank(n, k)
			b := tensor.CombineBackward{DX: dx, DWeights: dw, DY: c, X: a.X, Weights: a.Weights, Slots: a.Slots}
			m.ops.CombineBackward(b)
			m.differ("X", a.X, dx, loss)
			m.differ("Weights", a.Weights, dw, loss)
		})
	}
}

// TestRouterLoss works through two layers of two tokens, three experts and one
// choice each; a third token is filler. Probabilities are quarters.
func TestRouterLoss(t *testing.T) {
	m := newMaker(t)
	ln := math.Log
	nan := math.NaN()
	layer := func(v ...float64) tensor.Tensor { return m.set(m.blank(3, 3), append(v, nan, nan, nan)...) }
	first := layer(ln(2), ln(1), ln(1), ln(1), ln(2), ln(1))
	second := layer(ln(1), ln(1), ln(2), ln(2), ln(1), ln(1))
	loss := m.set(m.blank(1), 10)
	m.ops.RouterLoss(tensor.RouterLoss{Loss: loss, Logits: []tensor.Tensor{first, second}, Live: m.ints(2), K: 1})
	// F = (1/2, 1/4, 1/4), P = (6, 5, 5)/16: E·ΣF·P = 3·(12+5+5)/64, times 2 live tokens.
	m.expect("Loss", loss, 1e-14, 10+2*3*22.0/64)
	// Experts that are equally busy give K: the least there is.
	even := m.set(m.blank(2, 2), ln(3), ln(1), ln(1), ln(3))
	zero(loss)
	m.ops.RouterLoss(tensor.RouterLoss{Loss: loss, Logits: []tensor.Tensor{even}, Live: m.ints(2), K: 1})
	m.expect("Loss of equally busy experts", loss, 1e-14, 2)
}

func TestRouterLossGradient(t *testing.T) {
	for _, s := range []struct{ layers, rows, experts, k, live int }{{1, 1, 1, 1, 1}, {1, 4, 3, 1, 4}, {3, 5, 4, 2, 3}, {2, 3, 5, 5, 3}, {2, 3, 4, 2, 0}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			m := newMaker(t)
			a := tensor.RouterLoss{Live: m.ints(int32(s.live)), K: s.k, Scale: m.random(1), Coef: 0.3}
			b := a
			var before []tensor.Tensor
			for i := range s.layers {
				l := m.random(s.rows, s.experts)
				d := m.random(s.rows, s.experts)
				a.Logits, b.DLogits, before = append(a.Logits, l), append(b.DLogits, d), append(before, m.copy(d))
				b.Accumulate = append(b.Accumulate, i%2 == 0)
			}
			b.Logits, b.Loss = a.Logits, m.zeros(1)
			// F is taken as constant: so it must not change with differences, which
			// are too small to change a choice.
			loss := func() float64 {
				a.Loss = m.zeros(1)
				m.ops.RouterLoss(a)
				return a.Loss.Float64()[0] * a.Scale.Float64()[0] * float64(a.Coef)
			}
			loss()
			m.ops.RouterLoss(b)
			for i, d := range b.DLogits {
				if b.Accumulate[i] {
					subtract(d, before[i])
				}
				m.differ(fmt.Sprintf("Logits of layer %d", i), a.Logits[i], d, loss)
			}
		})
	}
}
