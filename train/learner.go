package train

import (
	"errors"
	"math"

	"ringtail/model"
	"ringtail/optim"
	"ringtail/tensor"
)

// learner is a model that is trained: gradients that add up in their chunks, and
// the optimizer step on them. What changes from step to step goes through its step
// block.
type learner struct {
	model *model.Model
	sched optim.Schedule
	adamw optim.AdamW
	clip  float64

	block tensor.Tensor // the step block
	host  []float64     // its copy on the host
	// updates counts the optimizer steps that weren't skipped: the bias corrections go by it.
	updates int
}

// newLearner makes the step block on the device; b frees it.
func newLearner(b *basis, m *model.Model, o Optimizer, sched optim.Schedule, clip float64) (*learner, error) {
	l := &learner{model: m, sched: sched, clip: clip, host: make([]float64, tensor.StepSize),
		adamw: optim.AdamW{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}}
	if err := errors.Join(l.sched.Check(), l.adamw.Check()); err != nil {
		return nil, err
	}
	var err error
	l.block, err = b.alloc(tensor.F64, tensor.StepSize)
	return l, err
}

// begin writes the step block for a step, counted from 0, and adds up the squares of
// the gradients.
func (l *learner) begin(step int) {
	clear(l.host)
	l.host[tensor.StepLR] = l.sched.At(step)
	l.host[tensor.StepOffset] = float64(step)
	l.host[tensor.StepBias1], l.host[tensor.StepBias2] = l.adamw.Bias(l.updates)
	tensor.SetFloat64(l.block, l.host)
	l.model.Store.GradSumSquares(l.sumSquares())
}

// sumSquares is where begin left the sum of the squares of the gradients: NaN or
// infinite where one of them is.
func (l *learner) sumSquares() tensor.Tensor { return l.block.Slice(tensor.StepSumSquares, 1) }

// update clips the gradients and makes the optimizer step. Neither weights nor
// moments change where a gradient or one of the numbers of check (F64) isn't finite.
func (l *learner) update(check tensor.Tensor) {
	l.model.Device().Ops().ClipFactor(tensor.ClipFactor{Step: l.block, Check: check, MaxNorm: l.clip})
	l.model.Store.Update(l.block, l.adamw)
}

// finish reads, after a Sync, what came of the step.
func (l *learner) finish() (gradNorm float64, skipped bool) {
	block := tensor.GetFloat64(l.block)
	if skipped = block[tensor.StepSkip] != 0; !skipped {
		l.updates++
	}
	return block[tensor.StepGradNorm], skipped
}

// lr is the learning rate of the step that begin was called for.
func (l *learner) lr() float64 { return l.host[tensor.StepLR] }

// badTensor names the first tensor that isn't finite: of the weights, else of
// their gradients; "" if all are.
func (l *learner) badTensor() string {
	if bad := l.badWeights(); bad != "" {
		return bad
	}
	return l.badGradient()
}

func (l *learner) badWeights() string {
	for _, e := range l.model.Store.Layout.Entries {
		if !finite(l.model.Store.Param(e.Name).Value) {
			return "the weights " + e.Name
		}
	}
	return ""
}

func (l *learner) badGradient() string {
	for _, e := range l.model.Store.Layout.Entries {
		if p := l.model.Store.Param(e.Name); p.Trainable() && !finite(p.Grad) {
			return "the gradient of " + e.Name
		}
	}
	return ""
}

// finite tells whether all numbers of a tensor are.
func finite(x tensor.Tensor) bool {
	flat := x.Reshape(x.Len())
	const piece = 1 << 20
	for at := 0; at < flat.Len(); at += piece {
		for _, v := range tensor.GetFloat32(flat.Slice(at, min(piece, flat.Len()-at))) {
			if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
				return false
			}
		}
	}
	return true
}
