package cpu

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// The cross-entropy over a fused projection (projection.go): for each row
//
//	E = exp(Z − max),  s = Σ E,  loss = max + log s − z_target
//	G = E, but G_target = E_target − s;  c = Scale/s
//
// E_target − s is put in place before dX where the target has at least half of
// the probability. A soft cap makes Z of the products, and multiplies G by its slope
// 1 − (Z/SoftCap)² while a run of Z and E is in the first-level cache.

// crossEntropyJob is what CrossEntropy keeps of a block's rows.
type crossEntropyJob struct {
	*projection
	scale   float32
	softCap float32
	loss    []float64
	correct []bool
}

var (
	crossEntropies    freeList[crossEntropyJob]
	crossEntropyNames = projectionNamesOf("CrossEntropy")
)

func crossEntropy(a tensor.CrossEntropy) {
	j := crossEntropies.take()
	j.projection = openProjection(crossEntropyNames, j, a.X, a.W, a.Targets, a.DX, a.DW)
	if a.Loss.Dtype != tensor.F64 || a.Loss.Len() != 3 {
		panic(fmt.Sprintf("cpu: CrossEntropy's Loss is %v; it must be F64[3]", a.Loss))
	}
	loss := a.Loss.Float64()
	j.softCap = a.SoftCap
	if j.wantGrad() {
		if a.Scale.Dtype != tensor.F32 || a.Scale.Len() != 1 {
			panic(fmt.Sprintf("cpu: CrossEntropy's Scale is %v; it must be F32[1]", a.Scale))
		}
		j.scale = a.Scale.Float32()[0]
	}
	for t, target := range j.targets {
		j.count(t, target >= 0)
	}
	if n := min(len(j.index), projectionMaxRows); cap(j.loss) < n {
		j.loss, j.correct = make([]float64, n), make([]bool, n)
	}
	for j.next() {
		for i, l := range j.loss[:len(j.block)] {
			loss[0] += l
			loss[1]++
			if j.correct[i] {
				loss[2]++
			}
		}
	}
	j.close()
	j.projection = nil
	crossEntropies.give(j)
}

func (j *crossEntropyJob) row(ws *workspace, i int) {
	z, target := j.logits(i), int(j.targets[j.block[i]])
	largest := vecMax(z)
	at := z[target]
	// Of equal largest logits the first is the prediction. A cap keeps their order, if
	// it didn't make equals of large ones by rounding.
	j.correct[i] = at == largest && !contains(z[:target], largest)
	slope := 1.0
	if j.softCap > 0 {
		capLogits(z, j.softCap)
		largest, at = vecMax(z), z[target]
		slope = capSlope(at, j.softCap)
	}
	sum, e := 0.0, 0.0 // Σ E, E_target
	for k := 0; k < len(z); k += sumRun {
		run := z[k:min(k+sumRun, len(z))]
		if !j.wantGrad() {
			sum += float64(vecSumExp(run, largest))
			continue
		}
		er := run
		if j.softCap > 0 {
			er = ws.scratch(0, len(run))
		}
		sum += float64(vecExpSum(er, run, largest))
		if k <= target && target < k+len(run) {
			e = float64(er[target-k])
		}
		if j.softCap > 0 {
			vecSoftCapGrad(run, er, run, j.softCap, 1/(j.softCap*j.softCap))
		}
	}
	j.loss[i] = float64(largest) - float64(at) + math.Log(sum)
	if j.wantGrad() {
		j.grads[i] = rowGrad{factor: float32(float64(j.scale) / sum), target: float32((e - sum) * slope), own: float32(-float64(j.scale) * slope)}
		if e >= sum/2 {
			j.place(i)
		}
	}
}

func contains(s []float32, x float32) bool {
	for _, y := range s {
		if y == x {
			return true
		}
	}
	return false
}
