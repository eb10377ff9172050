package cpu

import (
	"fmt"
	"math"
	"slices"

	"ringtail/tensor"
)

// What surrounds the experts of a mixture: choosing them, adding up what they made,
// and the loss that keeps them equally busy. Tasks are blocks of tokens; only the
// sorting by expert, a counting sort, goes through all tokens in one.

// routeGrain is the number of tokens of a task.
const routeGrain = 32

// Slots of a worker's scratch memory.
const (
	slotProbabilities = iota
	slotFractions
)

// chooseExperts sets chosen to the ids of the largest logits, largest first, the
// lowest id among equals. NaN is chosen only where nothing else is left.
func chooseExperts(chosen []int32, logits []float32) {
	n := 0
	for e, v := range logits {
		if n == len(chosen) && !(v > logits[chosen[n-1]]) || v != v {
			continue
		}
		at := n
		if n < len(chosen) {
			n++
		} else {
			at--
		}
		for ; at > 0 && v > logits[chosen[at-1]]; at-- {
			chosen[at] = chosen[at-1]
		}
		chosen[at] = int32(e)
	}
	for e := 0; n < len(chosen); e++ {
		if logits[e] != logits[e] {
			chosen[n] = int32(e)
			n++
		}
	}
}

// routeJob is the job of Route: experts and weights of blocks of tokens.
type routeJob struct {
	n, experts, k   int
	logits, weights rows
	chosen          []int32
	normalize       bool
	next            []int32
}

var routeJobs freeList[routeJob]

func route(a tensor.Route) {
	n, experts, k := a.Logits.Rows(), a.Logits.Cols(), a.Weights.Cols()
	if k < 1 || k > experts {
		panic(fmt.Sprintf("cpu: Route of %d experts of %d", k, experts))
	}
	j := routeJobs.take()
	j.n, j.experts, j.k, j.normalize = n, experts, k, a.Normalize
	j.logits, j.weights = rowsOf("Route's Logits", a.Logits, n, experts), rowsOf("Route's Weights", a.Weights, n, k)
	j.chosen = choicesOf("Route's Experts", a.Experts, n, k)
	slots, tokens := choicesOf("Route's Slots", a.Slots, n, k), intsOf("Route's Tokens", a.Tokens, n*k)
	starts := intsOf("Route's Starts", a.Starts, experts+1)
	parallel(tasksOf(n, routeGrain), j)
	clear(starts)
	for _, e := range j.chosen {
		starts[e+1]++
	}
	for e := range experts {
		starts[e+1] += starts[e]
	}
	j.next = append(j.next[:0], starts[:experts]...)
	for t := range n {
		for i := t * k; i < (t+1)*k; i++ {
			r := &j.next[j.chosen[i]]
			slots[i], tokens[*r] = *r, int32(t)
			*r++
		}
	}
	*j = routeJob{next: j.next}
	routeJobs.give(j)
}

// choicesOf is the memory of a dense I32 matrix of k numbers a token.
func choicesOf(what string, t tensor.Tensor, n, k int) []int32 {
	if t.Dtype != tensor.I32 || t.Rank() != 2 || t.Rows() != n || t.Cols() != k || !t.Dense() {
		panic(fmt.Sprintf("cpu: %s is %v (dense: %v); it must be dense I32[%d %d]", what, t, t.Dense(), n, k))
	}
	return t.Int32()
}

func (j *routeJob) run(_ *workspace, task int) {
	for t := task * routeGrain; t < min((task+1)*routeGrain, j.n); t++ {
		logits, chosen, weights := j.logits.row(t, j.experts), j.chosen[t*j.k:][:j.k], j.weights.row(t, j.k)
		chooseExperts(chosen, logits)
		top, sum := logits[chosen[0]], 0.0
		if j.normalize {
			for _, e := range chosen {
				sum += math.Exp(float64(logits[e]) - float64(top))
			}
		} else {
			sum = float64(vecSumExp(logits, top))
		}
		for i, e := range chosen {
			weights[i] = float32(math.Exp(float64(logits[e])-float64(top)) / sum)
		}
	}
}

// routeGradJob is the job of RouteBackward.
type routeGradJob struct {
	n, experts, k                      int
	dlogits, dweights, logits, weights rows
	chosen                             []int32
	normalize, accumulate              bool
}

var routeGradJobs freeList[routeGradJob]

func routeBackward(a tensor.RouteBackward) {
	n, experts, k := a.DLogits.Rows(), a.DLogits.Cols(), a.Weights.Cols()
	j := routeGradJobs.take()
	j.n, j.experts, j.k, j.normalize, j.accumulate = n, experts, k, a.Normalize, a.Accumulate
	j.logits, j.weights = rowsOf("RouteBackward's Logits", a.Logits, n, experts), rowsOf("RouteBackward's Weights", a.Weights, n, k)
	j.dlogits, j.dweights = rowsOf("RouteBackward's DLogits", a.DLogits, n, experts), rowsOf("RouteBackward's DWeights", a.DWeights, n, k)
	j.chosen = choicesOf("RouteBackward's Experts", a.Experts, n, k)
	for _, e := range j.chosen {
		checkIndex("RouteBackward's expert", e, experts)
	}
	parallel(tasksOf(n, routeGrain), j)
	*j = routeGradJob{}
	routeGradJobs.give(j)
}

func (j *routeGradJob) run(ws *workspace, task int) {
	for t := task * routeGrain; t < min((task+1)*routeGrain, j.n); t++ {
		chosen, weights, dweights := j.chosen[t*j.k:][:j.k], j.weights.row(t, j.k), j.dweights.row(t, j.k)
		dlogits := j.dlogits.row(t, j.experts)
		mean := 0.0
		for i, w := range weights {
			mean += float64(w) * float64(dweights[i])
		}
		g := dlogits
		if j.accumulate {
			g = ws.scratch(slotProbabilities, j.experts)
		}
		if j.normalize {
			clear(g)
		} else {
			softmax(g, j.logits.row(t, j.experts))
			vecScale(g, float32(-mean))
		}
		for i, e := range chosen {
			g[e] = float32(float64(weights[i]) * (float64(dweights[i]) - mean))
		}
		if j.accumulate {
			vecAdd(dlogits, dlogits, g)
		}
	}
}

// softmax sets p to exp(z)/Σ exp(z).
func softmax(p, z []float32) {
	sum := vecExpSum(p, z, vecMax(z))
	vecScale(p, 1/sum)
}

// combineJob is the job of Combine and CombineBackward: y is Y or DY, x is X.
type combineJob struct {
	n, cols, k    int
	y, x, weights rows
	dx, dweights  rows // of the backward pass; either may be absent
	slots         []int32
	grain         int
	backward      bool
}

var combineJobs freeList[combineJob]

func combine(a tensor.Combine) {
	n, cols, k := a.Y.Rows(), a.Y.Cols(), a.Weights.Cols()
	j := combineJobs.take()
	j.y, j.x = rowsOf("Combine's Y", a.Y, n, cols), rowsOf("Combine's X", a.X, n*k, cols)
	j.weights = rowsOf("Combine's Weights", a.Weights, n, k)
	j.start(n, cols, k, choicesOf("Combine's Slots", a.Slots, n, k))
}

func combineBackward(a tensor.CombineBackward) {
	n, cols, k := a.DY.Rows(), a.DY.Cols(), a.Slots.Cols()
	j := combineJobs.take()
	j.backward = true
	j.y = rowsOf("CombineBackward's DY", a.DY, n, cols)
	if !a.DX.IsZero() {
		j.dx, j.weights = rowsOf("CombineBackward's DX", a.DX, n*k, cols), rowsOf("CombineBackward's Weights", a.Weights, n, k)
	}
	if !a.DWeights.IsZero() {
		j.dweights, j.x = rowsOf("CombineBackward's DWeights", a.DWeights, n, k), rowsOf("CombineBackward's X", a.X, n*k, cols)
	}
	j.start(n, cols, k, choicesOf("CombineBackward's Slots", a.Slots, n, k))
}

func (j *combineJob) start(n, cols, k int, slots []int32) {
	for _, s := range slots {
		checkIndex("Combine's slot", s, n*k)
	}
	j.n, j.cols, j.k, j.slots = n, cols, k, slots
	j.grain = max(1, lightGrain/max(cols*k, 1))
	parallel(tasksOf(n, j.grain), j)
	*j = combineJob{}
	combineJobs.give(j)
}

func (j *combineJob) run(_ *workspace, task int) {
	for t := task * j.grain; t < min((task+1)*j.grain, j.n); t++ {
		y := j.y.row(t, j.cols)
		if !j.backward {
			clear(y)
		}
		for i, s := range j.slots[t*j.k:][:j.k] {
			if !j.backward {
				vecAxpy(y, j.x.row(int(s), j.cols), j.weights.row(t, j.k)[i])
				continue
			}
			if j.dweights.data != nil {
				j.dweights.row(t, j.k)[i] = vecDot(y, j.x.row(int(s), j.cols))
			}
			if j.dx.data != nil {
				dx := j.dx.row(int(s), j.cols)
				copy(dx, y)
				vecScale(dx, j.weights.row(t, j.k)[i])
			}
		}
	}
}

// routerSums is the number of rows whose probabilities are added up in float32
// before they join the total.
const routerSums = 32

type routerStep uint8

const (
	routerSum routerStep = iota
	routerGrad
)

// routerLossJob is the job of RouterLoss, two regions in turn. A task is a block of
// rows of one layer's logits.
type routerLossJob struct {
	step                routerStep
	n, live, experts, k int
	blocks              int // tasks of a layer
	logits, dlogits     []rows
	accumulate          []bool
	chosen              []int32   // of a row, for each task
	parts               []float64 // of a task: choices, then probabilities, of each expert
	fractions           []float32 // F − K/E: a constant in all of F moves no gradient
	factor              float64   // of p·(F − Σ p·F)
}

var routerLosses freeList[routerLossJob]

// routerGrain is the number of rows of a task of RouterLoss.
const routerGrain = 4 * routerSums

func routerLoss(a tensor.RouterLoss) {
	if len(a.Logits) == 0 {
		return
	}
	n, experts := a.Logits[0].Rows(), a.Logits[0].Cols()
	live := int(intsOf("RouterLoss's Live", a.Live, 1)[0])
	if live < 0 || live > n || a.K < 1 || a.K > experts {
		panic(fmt.Sprintf("cpu: RouterLoss of %d live rows of %d, %d experts of %d", live, n, a.K, experts))
	}
	loss := doublesOf("RouterLoss's Loss", a.Loss, 1)
	j := routerLosses.take()
	j.n, j.live, j.experts, j.k = n, live, experts, a.K
	for _, l := range a.Logits {
		j.logits = append(j.logits, rowsOf("RouterLoss's Logits", l, n, experts))
	}
	total := float64(live) * float64(len(a.Logits))
	if live > 0 {
		loss[0] += float64(live) * float64(experts) * j.sums(total)
	}
	if len(a.DLogits) > 0 {
		j.gradients(a, total)
	}
	clear(j.logits)
	clear(j.dlogits)
	*j = routerLossJob{logits: j.logits[:0], dlogits: j.dlogits[:0], chosen: j.chosen, parts: j.parts, fractions: j.fractions}
	routerLosses.give(j)
}

// sums finds the fractions and gives Σ F·P.
func (j *routerLossJob) sums(total float64) float64 {
	j.step, j.blocks = routerSum, tasksOf(j.live, routerGrain)
	tasks := j.blocks * len(j.logits)
	j.parts = slices.Grow(j.parts[:0], tasks*2*j.experts)[:tasks*2*j.experts]
	j.chosen = slices.Grow(j.chosen[:0], tasks*j.k)[:tasks*j.k]
	clear(j.parts)
	parallel(tasks, j)
	sum := j.parts[:2*j.experts]
	for t := 1; t < tasks; t++ {
		for i, v := range j.parts[t*2*j.experts:][:2*j.experts] {
			sum[i] += v
		}
	}
	dot := 0.0
	j.fractions = j.fractions[:0]
	for e := range j.experts {
		dot += sum[e] / total * sum[j.experts+e] / total
		j.fractions = append(j.fractions, float32(sum[e]/total-float64(j.k)/float64(j.experts)))
	}
	return dot
}

func (j *routerLossJob) gradients(a tensor.RouterLoss, total float64) {
	for i, d := range a.DLogits {
		r := rows{}
		if !d.IsZero() {
			r = rowsOf("RouterLoss's DLogits", d, j.n, j.experts)
		}
		j.dlogits = append(j.dlogits, r)
		_ = a.Accumulate[i]
	}
	j.step, j.blocks, j.accumulate = routerGrad, tasksOf(j.n, routerGrain), a.Accumulate
	if j.live > 0 {
		scale := vectorOf("RouterLoss's Scale", a.Scale, 1)[0]
		j.factor = float64(scale) * float64(a.Coef) * float64(j.live) * float64(j.experts) / total
	}
	parallel(j.blocks*len(j.dlogits), j)
}

func (j *routerLossJob) run(ws *workspace, task int) {
	layer, from := task/j.blocks, task%j.blocks*routerGrain
	logits, p := j.logits[layer], ws.scratch(slotProbabilities, j.experts)
	if j.step == routerGrad {
		d := j.dlogits[layer]
		if d.data == nil {
			return
		}
		for t := from; t < min(from+routerGrain, j.n); t++ {
			j.gradient(d.row(t, j.experts), logits.row(t, j.experts), p, t < j.live, j.accumulate[layer])
		}
		return
	}
	part := j.parts[task*2*j.experts:][:2*j.experts]
	choices, sums := part[:j.experts], part[j.experts:]
	chosen, few := j.chosen[task*j.k:][:j.k], ws.scratch(slotFractions, j.experts)
	for at := from; at < min(from+routerGrain, j.live); at += routerSums {
		clear(few)
		for t := at; t < min(at+routerSums, j.live); t++ {
			z := logits.row(t, j.experts)
			chooseExperts(chosen, z)
			for _, e := range chosen {
				choices[e]++
			}
			vecAxpy(few, p, 1/vecExpSum(p, z, vecMax(z)))
		}
		for e, v := range few {
			sums[e] += float64(v)
		}
	}
}

// gradient sets d, or adds to it, factor·p·(F − Σ p·F).
func (j *routerLossJob) gradient(d, logits, p []float32, live, accumulate bool) {
	if !live {
		if !accumulate {
			clear(d)
		}
		return
	}
	sum := float64(vecExpSum(p, logits, vecMax(logits)))
	r := j.factor / sum
	k := r * float64(vecDot(p, j.fractions)) / sum
	if accumulate {
		vecNormGradAdd(d, d, p, p, j.fractions, float32(r), float32(k))
	} else {
		vecNormGrad(d, p, p, j.fractions, float32(r), float32(k))
	}
}
