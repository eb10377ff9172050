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
// the probability.

// crossEntropyJob is what CrossEntropy keeps of a block's rows.
type crossEntropyJob struct {
	*projection
	scale   float32
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

func (j *crossEntropyJob) row(_ *workspace, i int) {
	z, target := j.logits(i), int(j.targets[j.block[i]])
	largest := vecMax(z)
	at := z[target]
	// Of equal largest logits the first is the prediction.
	j.correct[i] = at == largest && !contains(z[:target], largest)
	sum := 0.0
	for k := 0; k < len(z); k += sumRun {
		run := z[k:min(k+sumRun, len(z))]
		if j.wantGrad() {
			sum += float64(vecExpSum(run, run, largest))
		} else {
			sum += float64(vecSumExp(run, largest))
		}
	}
	j.loss[i] = float64(largest) - float64(at) + math.Log(sum)
	if j.wantGrad() {
		e := float64(z[target])
		j.grads[i] = rowGrad{factor: float32(float64(j.scale) / sum), target: float32(e - sum), own: -j.scale}
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
