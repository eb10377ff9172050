package ref

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// Mixture of experts: a router chooses experts for each token (route), tokens are
// multiplied group by group (groupedMatmul), and what a token's experts made is
// added up (combine).

// probabilities is exp(z)/Σ exp(z).
func probabilities(z []float64) []float64 {
	lse := logSumExp(z)
	p := make([]float64, len(z))
	for i, v := range z {
		p[i] = math.Exp(v - lse)
	}
	return p
}

// largest is the k largest of p, largest first, the lowest index among equals.
func largest(p []float64, k int) []int {
	taken := make([]bool, len(p))
	var out []int
	for range k {
		best := -1
		for e, v := range p {
			if !taken[e] && (best < 0 || v > p[best]) {
				best = e
			}
		}
		taken[best] = true
		out = append(out, best)
	}
	return out
}

func route(a tensor.Route) {
	rows, experts, k := a.Logits.Rows(), a.Logits.Cols(), a.Weights.Cols()
	logits, weights := matrixOf("Route's Logits", a.Logits, rows, experts), matrixOf("Route's Weights", a.Weights, rows, k)
	chosen, slots := intMatrixOf("Route's Experts", a.Experts, rows, k), intMatrixOf("Route's Slots", a.Slots, rows, k)
	tokens, starts := intsOf("Route's Tokens", a.Tokens, rows*k), intsOf("Route's Starts", a.Starts, experts+1)
	if k < 1 || k > experts {
		panic(fmt.Sprintf("ref: Route of %d experts of %d", k, experts))
	}
	clear(starts)
	for t := range rows {
		p := probabilities(logits.row(t))
		sum := 0.0
		for i, e := range largest(logits.row(t), k) {
			chosen[t*k+i] = int32(e)
			weights.row(t)[i] = p[e]
			sum += p[e]
			starts[e+1]++
		}
		if a.Normalize {
			for i := range k {
				weights.row(t)[i] /= sum
			}
		}
	}
	for e := range experts {
		starts[e+1] += starts[e]
	}
	next := append([]int32(nil), starts...)
	for i, e := range chosen {
		slots[i] = next[e]
		tokens[next[e]] = int32(i / k)
		next[e]++
	}
}

func routeBackward(a tensor.RouteBackward) {
	rows, experts, k := a.Logits.Rows(), a.Logits.Cols(), a.Weights.Cols()
	logits, weights := matrixOf("RouteBackward's Logits", a.Logits, rows, experts), matrixOf("RouteBackward's Weights", a.Weights, rows, k)
	dlogits, dweights := matrixOf("RouteBackward's DLogits", a.DLogits, rows, experts), matrixOf("RouteBackward's DWeights", a.DWeights, rows, k)
	chosen := intMatrixOf("RouteBackward's Experts", a.Experts, rows, k)
	for t := range rows {
		if !a.Accumulate {
			clear(dlogits.row(t))
		}
		mean := dot(weights.row(t), dweights.row(t))
		p := probabilities(logits.row(t))
		if !a.Normalize {
			axpy(dlogits.row(t), -mean, p)
		}
		for i := range k {
			e := index("expert", chosen[t*k+i], experts)
			if a.Normalize {
				dlogits.row(t)[e] += weights.row(t)[i] * (dweights.row(t)[i] - mean)
			} else {
				dlogits.row(t)[e] += p[e] * dweights.row(t)[i]
			}
		}
	}
}

// groupsOf checks that starts rise from 0 to rows.
func groupsOf(what string, t tensor.Tensor, groups, rows int) []int32 {
	starts := intsOf(what+"'s Starts", t, groups+1)
	for e := range groups {
		if starts[e] > starts[e+1] {
			panic(fmt.Sprintf("ref: %s's Starts %v fall", what, starts))
		}
	}
	if starts[0] != 0 || int(starts[groups]) != rows {
		panic(fmt.Sprintf("ref: %s's Starts %v of %d rows", what, starts, rows))
	}
	return starts
}

// page is matrix e of a tensor of three dimensions.
func page(t tensor.Tensor, e int) tensor.Tensor {
	t = t.Slice(e, 1)
	t.Shape = t.Shape[1:] // rows may have gaps, which Reshape would not take
	return t
}

func groupedMatmul(a tensor.GroupedMatmul) {
	starts := groupsOf("GroupedMatmul", a.Starts, a.B.Shape[0], a.A.Rows())
	for e := range a.B.Shape[0] {
		from, n := int(starts[e]), int(starts[e+1]-starts[e])
		if n == 0 {
			continue
		}
		m := tensor.Matmul{C: a.C.Slice(from, n), A: a.A.Slice(from, n), B: page(a.B, e), TransB: a.TransB}
		if a.Accumulate {
			m.Beta = 1
		}
		matmul(m)
	}
}

func groupedOuter(a tensor.GroupedOuter) {
	starts := groupsOf("GroupedOuter", a.Starts, a.C.Shape[0], a.A.Rows())
	for e := range a.C.Shape[0] {
		from, n := int(starts[e]), int(starts[e+1]-starts[e])
		if n > 0 {
			matmul(tensor.Matmul{C: page(a.C, e), A: a.A.Slice(from, n), B: a.B.Slice(from, n), TransA: true, Beta: 1})
		}
	}
}

func combine(a tensor.Combine) {
	rows, h, k := a.Y.Rows(), a.Y.Cols(), a.Weights.Cols()
	y, x := matrixOf("Combine's Y", a.Y, rows, h), matrixOf("Combine's X", a.X, rows*k, h)
	weights, slots := matrixOf("Combine's Weights", a.Weights, rows, k), intMatrixOf("Combine's Slots", a.Slots, rows, k)
	for t := range rows {
		clear(y.row(t))
		for i := range k {
			axpy(y.row(t), weights.row(t)[i], x.row(index("slot", slots[t*k+i], rows*k)))
		}
	}
}

func combineBackward(a tensor.CombineBackward) {
	rows, h, k := a.DY.Rows(), a.DY.Cols(), a.Weights.Cols()
	dy, x := matrixOf("CombineBackward's DY", a.DY, rows, h), matrixOf("CombineBackward's X", a.X, rows*k, h)
	weights, slots := matrixOf("CombineBackward's Weights", a.Weights, rows, k), intMatrixOf("CombineBackward's Slots", a.Slots, rows, k)
	for t := range rows {
		for i := range k {
			s := index("slot", slots[t*k+i], rows*k)
			if !a.DWeights.IsZero() {
				matrixOf("CombineBackward's DWeights", a.DWeights, rows, k).row(t)[i] = dot(dy.row(t), x.row(s))
			}
			if !a.DX.IsZero() {
				dx := matrixOf("CombineBackward's DX", a.DX, rows*k, h).row(s)
				clear(dx)
				axpy(dx, weights.row(t)[i], dy.row(t))
			}
		}
	}
}

// routerLoss: with F constant, d(E·Σ_e F_e·P_e)/dl_j = E/N·p_j·(F_j − Σ_e p_e·F_e).
func routerLoss(a tensor.RouterLoss) {
	if len(a.Logits) == 0 {
		return
	}
	rows, experts := a.Logits[0].Rows(), a.Logits[0].Cols()
	live := int(intsOf("RouterLoss's Live", a.Live, 1)[0])
	if live < 0 || live > rows {
		panic(fmt.Sprintf("ref: RouterLoss of %d live rows of %d", live, rows))
	}
	if live == 0 {
		for i, d := range a.DLogits {
			if !d.IsZero() && !a.Accumulate[i] {
				zero(d)
			}
		}
		return
	}
	n := float64(live * len(a.Logits))
	f, mean := make([]float64, experts), make([]float64, experts)
	for _, l := range a.Logits {
		m := matrixOf("RouterLoss's Logits", l, rows, experts)
		for t := range live {
			p := probabilities(m.row(t))
			axpy(mean, 1/n, p)
			for _, e := range largest(m.row(t), a.K) {
				f[e] += 1 / n
			}
		}
	}
	vectorOf("RouterLoss's Loss", a.Loss, 1)[0] += float64(live) * float64(experts) * dot(f, mean)
	for i, d := range a.DLogits {
		if d.IsZero() {
			continue
		}
		if !a.Accumulate[i] {
			zero(d)
		}
		grad, m := matrixOf("RouterLoss's DLogits", d, rows, experts), matrixOf("RouterLoss's Logits", a.Logits[i], rows, experts)
		c := vectorOf("RouterLoss's Scale", a.Scale, 1)[0] * float64(a.Coef) * float64(live) * float64(experts) / n
		for t := range live {
			p := probabilities(m.row(t))
			pf := dot(p, f)
			for e := range experts {
				grad.row(t)[e] += c * p[e] * (f[e] - pf)
			}
		}
	}
}
