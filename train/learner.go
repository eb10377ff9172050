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
// block: the host writes the learning rate, the device counts the steps that weren't
// skipped, and makes the bias corrections by them.
type learner struct {
	model *model.Model
	sched optim.Schedule
	adamw optim.AdamW
	clip  float64

	block   tensor.Tensor // the step block
	host    []float64     // its copy on the host
	updates int           // optimizer steps that weren't skipped, of those that were read
	placed  bool          // the block has them

	zeros, squares captured
	updating       map[uintptr]*captured // by what is checked
}

// newLearner makes the step block on the device; b frees it.
func newLearner(b *basis, m *model.Model, o Optimizer, sched optim.Schedule, clip float64) (*learner, error) {
	l := &learner{model: m, sched: sched, clip: clip, host: make([]float64, tensor.StepSize), updating: map[uintptr]*captured{},
		adamw: optim.AdamW{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}}
	if err := errors.Join(l.sched.Check(), l.adamw.Check()); err != nil {
		return nil, err
	}
	l.zeros.work = m.Store.ZeroGrads
	l.squares.work = func() { m.Store.GradSumSquares(l.sumSquares()) }
	// Each program has its own place for gradients in the arena: no recording knows it.
	l.zeros.plain = m.Store.Gradients() != nil
	l.squares.plain = l.zeros.plain
	var err error
	l.block, err = b.alloc(tensor.F64, tensor.StepSize)
	return l, err
}

// resume says how many optimizer steps were made.
func (l *learner) resume(updates int) { l.updates, l.placed = updates, false }

// zero sets the gradients to 0.
func (l *learner) zero() { l.zeros.run(l.model.Device()) }

// begin writes the step block for a step, counted from 0, and adds up the squares of
// the gradients.
func (l *learner) begin(step int) {
	clear(l.host)
	l.host[tensor.StepLR] = l.sched.At(step)
	l.host[tensor.StepOffset] = float64(step)
	l.host[tensor.StepBias1], l.host[tensor.StepBias2] = 1, 1 // as with betas of 0
	l.host[tensor.StepUpdates] = float64(l.updates)
	n := tensor.StepUpdates // from there on it is the device's
	if !l.placed {
		n, l.placed = tensor.StepSize, true
	}
	tensor.SetFloat64(l.block.Slice(0, n), l.host[:n])
	l.squares.run(l.model.Device())
}

// sumSquares is where begin left the sum of the squares of the gradients: NaN or
// infinite where one of them is.
func (l *learner) sumSquares() tensor.Tensor { return l.block.Slice(tensor.StepSumSquares, 1) }

// update clips the gradients and makes the optimizer step. Neither weights nor
// moments change where a gradient or one of the numbers of check (F64) isn't finite.
func (l *learner) update(check tensor.Tensor) {
	c := l.updating[check.Addr]
	if c == nil {
		c = &captured{plain: l.squares.plain, work: func() {
			l.model.Device().Ops().ClipFactor(tensor.ClipFactor{Step: l.block, Check: check, MaxNorm: l.clip, Beta1: l.adamw.Beta1, Beta2: l.adamw.Beta2})
			l.model.Store.Update(l.block, l.adamw)
		}}
		l.updating[check.Addr] = c
	}
	c.run(l.model.Device())
}

// outcome starts reading what comes of the step that was enqueued last; what it returns waits for it.
func (l *learner) outcome() func() (gradNorm float64, skipped bool, err error) {
	read := tensor.GetFloat64Later(l.block)
	return func() (float64, bool, error) {
		block, err := read()
		if err != nil {
			return 0, false, err
		}
		skipped := block[tensor.StepSkip] != 0
		if !skipped {
			l.updates++
		}
		return block[tensor.StepGradNorm], skipped, nil
	}
}

// lr is the learning rate of the step that begin was called for last.
func (l *learner) lr() float64 { return l.host[tensor.StepLR] }

func (l *learner) free() {
	if l == nil {
		return
	}
	l.zeros.free()
	l.squares.free()
	for _, c := range l.updating {
		c.free()
	}
}

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
		p := l.model.Store.Param(e.Name)
		if p.InArena != nil && !p.InArena.Held() {
			return "" // another program has run in the arena
		}
		if p.Trainable() && !finite(p.Grad) {
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
