package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
)

// addExperts adds the operations of a mixture of experts to a set, routed by
// random logits.
func (s *rowOps) addExperts(t testing.TB, dev tensor.Device, tokens, hidden int, random, blank func(shape ...int) tensor.Tensor) {
	const experts, k, width = 9, 3, 70
	call := func(name string, f func(), results ...tensor.Tensor) {
		s.names = append(s.names, name)
		s.calls = append(s.calls, f)
		s.results = append(s.results, results)
	}
	ops := dev.Ops()
	wholes := func(n int) tensor.Tensor { return placeInts(t, dev, make([]int32, n)) }
	logits, weights, chosen, slots := random(tokens, experts), blank(tokens, k), wholes(tokens*k).Reshape(tokens, k), wholes(tokens*k).Reshape(tokens, k)
	tokenOf, starts := wholes(tokens*k), wholes(experts+1)
	route := tensor.Route{Logits: logits, Weights: weights, Experts: chosen, Slots: slots, Tokens: tokenOf, Starts: starts}
	call("Route", func() { ops.Route(route) }, weights, chosen, slots, tokenOf, starts)
	dweights, dlogits := random(tokens, k), blank(tokens, experts)
	call("RouteBackward", func() {
		ops.RouteBackward(tensor.RouteBackward{DLogits: dlogits, DWeights: dweights, Logits: logits, Weights: weights, Experts: chosen})
		ops.RouteBackward(tensor.RouteBackward{DLogits: dlogits, DWeights: dweights, Logits: logits, Weights: weights, Experts: chosen,
			Accumulate: true})
	}, dlogits)
	rows, w, y := random(tokens*k, hidden), random(experts, width, hidden), blank(tokens*k, width)
	call("GroupedMatmul", func() {
		ops.GroupedMatmul(tensor.GroupedMatmul{C: y, A: rows, B: w, TransB: true, Starts: starts})
	}, y)
	back := blank(tokens*k, hidden)
	call("GroupedMatmul back", func() { ops.GroupedMatmul(tensor.GroupedMatmul{C: back, A: y, B: w, Starts: starts}) }, back)
	dw := blank(experts, width, hidden)
	call("GroupedOuter", func() { ops.GroupedOuter(tensor.GroupedOuter{C: dw, A: y, B: rows, Starts: starts}) }, dw)
	sum, dx := blank(tokens, hidden), blank(tokens*k, hidden)
	call("Combine", func() { ops.Combine(tensor.Combine{Y: sum, X: rows, Weights: weights, Slots: slots}) }, sum)
	dcombine := blank(tokens, k)
	call("CombineBackward", func() {
		ops.CombineBackward(tensor.CombineBackward{DX: dx, DWeights: dcombine, DY: sum, X: rows, Weights: weights, Slots: slots})
	}, dx, dcombine)
	live, loss, scale := placeInts(t, dev, []int32{int32(tokens - 2)}), placeDoubles(t, dev, []float64{0}), random(1)
	all, dall := []tensor.Tensor{logits, random(tokens, experts)}, []tensor.Tensor{blank(tokens, experts), blank(tokens, experts)}
	accumulate := []bool{false, true}
	call("RouterLoss", func() {
		ops.RouterLoss(tensor.RouterLoss{Loss: loss, Logits: all, DLogits: dall, Accumulate: accumulate, Live: live, K: k, Scale: scale, Coef: 0.5})
	}, loss, dall[0], dall[1])
}

// Whatever logits a broken model makes, every token gets K different experts and
// the sorted pairs are whole.
func TestRouteOfNotANumber(t *testing.T) {
	dev := New()
	r := rand.New(rand.NewPCG(1, 9))
	odd := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0, 1}
	for range 50 {
		tokens, experts := 1+r.IntN(60), 1+r.IntN(20)
		k := 1 + r.IntN(experts)
		v := make([]float32, tokens*experts)
		for i := range v {
			v[i] = odd[r.IntN(1+r.IntN(len(odd)))]
		}
		wholes := func(n int) tensor.Tensor { return placeInts(t, dev, make([]int32, n)) }
		a := tensor.Route{Logits: place(t, dev, v, tokens, experts), Weights: place(t, dev, nil, tokens, k), Experts: wholes(tokens*k).Reshape(tokens, k),
			Slots: wholes(tokens*k).Reshape(tokens, k), Tokens: wholes(tokens * k), Starts: wholes(experts + 1), Normalize: r.IntN(2) == 0}
		dev.Ops().Route(a)
		row := map[int32]bool{}
		for i, e := range a.Experts.Int32() {
			slot := a.Slots.Int32()[i]
			if e < 0 || int(e) >= experts || slot < a.Starts.Int32()[e] || slot >= a.Starts.Int32()[e+1] || int(a.Tokens.Int32()[slot]) != i/k || row[slot] {
				t.Fatalf("choice %d is expert %d in row %d", i, e, slot)
			}
			row[slot] = true
			for _, f := range a.Experts.Int32()[i/k*k : i] {
				if f == e {
					t.Fatalf("token %d has expert %d twice", i/k, e)
				}
			}
		}
		loss := tensor.RouterLoss{Loss: placeDoubles(t, dev, []float64{0}), Logits: []tensor.Tensor{a.Logits}, Live: placeInts(t, dev, []int32{int32(tokens)}), K: k}
		dev.Ops().RouterLoss(loss)
	}
}

func BenchmarkRoute(b *testing.B) {
	dev := New()
	for _, s := range [][3]int{{1, 8, 2}, {2048, 8, 2}, {2048, 128, 8}} {
		b.Run(fmt.Sprint(s), func(b *testing.B) {
			tokens, experts, k := s[0], s[1], s[2]
			wholes := func(n int) tensor.Tensor { return placeInts(b, dev, make([]int32, n)) }
			logits := place(b, dev, randomFloats(rand.New(rand.NewPCG(3, 3)), tokens*experts, 1), tokens, experts)
			a := tensor.Route{Logits: logits, Weights: place(b, dev, nil, tokens, k), Experts: wholes(tokens*k).Reshape(tokens, k),
				Slots: wholes(tokens*k).Reshape(tokens, k), Tokens: wholes(tokens * k), Starts: wholes(experts + 1), Normalize: true}
			for b.Loop() {
				route(a)
			}
		})
	}
}
