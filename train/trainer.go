// Package train is the training loop, its recipes, checkpoints and metrics, and
// one file an objective.
//
// A step: draw the sequences of the global batch; for each packed micro-batch
// run forward and backward, gradients adding up in their chunks; clip by the
// global norm; update. The loss is the mean over the trained tokens of the whole
// batch, known before its first backward pass, so that the cut into micro-batches
// never changes the gradient. What changes from step to step lies in the step
// block on the device.
package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"ringtail/autograd"
	"ringtail/data"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/optim"
	"ringtail/runs"
	"ringtail/tensor"
)

// Trainer trains a causal language model on packed sequences: the objective of
// `train pretrain` and `train sft`.
type Trainer struct {
	rec      *Recipe
	dir      string
	model    *model.Model
	text     *folder.Text
	data     *data.Dataset
	run      *runs.Run
	progress *runs.Progress

	loader  *data.Loader
	sched   optim.Schedule
	adamw   optim.AdamW
	steps   int
	longest int

	dev      tensor.Device
	arena    *autograd.Arena
	passes   map[shape]*pass
	loss     tensor.Tensor // F64 [3], of a step
	evalLoss tensor.Tensor // F64 [3]
	scale    tensor.Tensor // 1 / trained tokens of the global batch
	block    tensor.Tensor // the step block
	host     []float64     // its copy on the host
	buffers  []*tensor.Buffer

	state   position
	batch   data.Step
	pending map[string]float64 // metrics of the present step

	pretrain bool
	prompts  []samplePrompt
}

// position is where a run stands; checkpoints hold it.
type position struct {
	Step     int        `json:"step"`    // steps made
	Updates  int        `json:"updates"` // of them not skipped
	Tokens   int64      `json:"tokens"`  // seen so far
	Seconds  float64    `json:"seconds"` // spent so far
	Skips    int        `json:"skips"`   // consecutive steps skipped last
	Skipped  int        `json:"skipped"` // in all
	Best     float64    `json:"best"`    // best evaluation loss
	BestStep int        `json:"best_step"`
	Worse    int        `json:"worse"`     // evaluations since the best
	EvalStep int        `json:"eval_step"` // of the last evaluation, -1 before the first
	Memory   int        `json:"memory"`    // most bytes held so far
	Loader   data.State `json:"loader"`
	// Pending are metrics of the step, whose evaluation was cut short.
	Pending map[string]float64 `json:"pending,omitempty"`
}

// ErrInterrupted is what Run returns when its context ended; the run was saved.
var ErrInterrupted = errors.New("interrupted")

// prepare makes everything that training needs on the device.
func (t *Trainer) prepare() error {
	t.dev = t.model.Device()
	t.arena = autograd.NewArena(t.dev)
	t.passes = map[shape]*pass{}
	t.pending = map[string]float64{}
	t.host = make([]float64, tensor.StepSize)
	for _, x := range []struct {
		dst *tensor.Tensor
		d   tensor.Dtype
		n   int
	}{{&t.loss, tensor.F64, 3}, {&t.evalLoss, tensor.F64, 3}, {&t.scale, t.dev.Float(), 1}, {&t.block, tensor.F64, tensor.StepSize}} {
		y, b, err := tensor.New(t.dev, x.d, x.n)
		if err != nil {
			return err
		}
		*x.dst = y
		t.buffers = append(t.buffers, b)
	}
	tr := t.rec.Train
	opt := data.LoaderOptions{Seed: t.rec.Seed, Sequential: !t.rec.Data.Shuffle, Batch: tr.Batch, BatchTokens: tr.BatchTokens,
		MicroTokens: tr.MicroTokens}
	if tr.Steps == 0 {
		opt.Epochs = tr.Epochs
	}
	if opt.BatchTokens > 0 {
		// Not by micro_tokens: the cut must not change what a step sees.
		opt.Pack = min(t.rec.Data.MaxTokens, opt.BatchTokens)
	}
	var err error
	if t.loader, err = data.NewLoader(t.data, data.TrainPart, opt); err != nil {
		return err
	}
	t.steps = tr.Steps
	if t.steps == 0 {
		t.steps = t.loader.CountSteps()
	}
	if t.steps == 0 {
		return fmt.Errorf("no step to make: the data has no row that can be trained on")
	}
	t.longest = min(roundUp(max(t.data.MaxLength(), 1), tokenBucket), tr.MicroTokens)
	t.sched = tr.schedule(t.steps)
	o := t.rec.Optimizer
	t.adamw = optim.AdamW{Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Eps, WeightDecay: o.WeightDecay}
	if err := errors.Join(t.sched.Check(), t.adamw.Check()); err != nil {
		return err
	}
	t.state = position{Best: math.Inf(1), EvalStep: -1}
	return t.findPrompts()
}

// Close frees the device memory of the trainer and its model.
func (t *Trainer) Close() {
	for _, p := range t.passes {
		p.free()
	}
	for _, b := range t.buffers {
		b.Free()
	}
	if t.arena != nil {
		t.arena.Free()
	}
	if t.model != nil {
		t.model.Free()
	}
}

// pass finds or compiles the program for a micro-batch.
func (t *Trainer) pass(b *data.Batch, train bool) (*pass, error) {
	s := shapeOf(b, t.rec.Train.MicroTokens, t.longest, train)
	if p := t.passes[s]; p != nil {
		return p, nil
	}
	loss := t.loss
	if !train {
		loss = t.evalLoss
	}
	p, err := newPass(t.model, t.arena, s, t.rec.Train.Recompute, loss, t.scale)
	if err == nil {
		t.passes[s] = p
	}
	return p, err
}

// gradients adds the gradients of a global batch to the (zeroed) chunks and its
// loss to t.loss.
func (t *Trainer) gradients(step *data.Step) error {
	ops := t.dev.Ops()
	t.model.Store.ZeroGrads()
	ops.Zero(t.loss)
	tensor.SetFloat64(t.scale, []float64{1 / float64(max(step.Trained, 1))})
	for i := range step.Micro {
		p, err := t.pass(&step.Micro[i], true)
		if err != nil {
			return err
		}
		p.load(&step.Micro[i])
		p.prog.Forward()
		p.prog.Backward()
	}
	return nil
}

// stepResult is what one optimizer step measured.
type stepResult struct {
	loss, lr, gradNorm float64
	trained            int
	skipped            bool
}

// step makes one optimizer step.
func (t *Trainer) step(batch *data.Step) (stepResult, error) {
	if err := t.gradients(batch); err != nil {
		return stepResult{}, err
	}
	clear(t.host)
	t.host[tensor.StepLR] = t.sched.At(t.state.Step)
	t.host[tensor.StepBias1], t.host[tensor.StepBias2] = t.adamw.Bias(t.state.Updates)
	tensor.SetFloat64(t.block, t.host)
	t.model.Store.GradSumSquares(t.block.Slice(tensor.StepSumSquares, 1))
	t.dev.Ops().ClipFactor(tensor.ClipFactor{Step: t.block, Check: t.loss, MaxNorm: t.rec.Train.Clip})
	t.model.Store.Update(t.block, t.adamw)
	if err := t.dev.Sync(); err != nil {
		return stepResult{}, err
	}
	loss, block := tensor.GetFloat64(t.loss), tensor.GetFloat64(t.block)
	r := stepResult{loss: loss[0] / math.Max(loss[1], 1), lr: t.host[tensor.StepLR], gradNorm: block[tensor.StepGradNorm],
		trained: int(loss[1]), skipped: block[tensor.StepSkip] != 0}
	t.state.Step++
	t.state.Tokens += int64(batch.Tokens)
	if !r.skipped {
		t.state.Updates++
		t.state.Skips = 0
		return r, nil
	}
	t.state.Skips++
	t.state.Skipped++
	return r, nil
}

// badTensor names the first tensor that isn't finite: of the weights, else of
// their gradients.
func (t *Trainer) badTensor() string {
	entries := t.model.Store.Layout.Entries
	for _, e := range entries {
		if !finite(t.model.Store.Param(e.Name).Value) {
			return "the weights " + e.Name
		}
	}
	for _, e := range entries {
		if p := t.model.Store.Param(e.Name); p.Trainable() && !finite(p.Grad) {
			return "the gradient of " + e.Name
		}
	}
	return "the loss"
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

// evaluation is the loss on the held-out part.
type evaluation struct {
	loss, accuracy float64
	tokens         int
}

// evaluate measures the loss on all held-out rows; tokens is 0 if there are none.
// The error is ctx's where ctx ended before the last of them.
func (t *Trainer) evaluate(ctx context.Context) (evaluation, error) {
	if _, n := t.data.Sequences(); n == 0 {
		return evaluation{}, nil
	}
	loader, err := data.NewLoader(t.data, data.EvalPart, data.LoaderOptions{Sequential: true, Epochs: 1,
		BatchTokens: t.rec.Train.MicroTokens, Pack: t.rec.Train.MicroTokens, MicroTokens: t.rec.Train.MicroTokens})
	if err != nil {
		return evaluation{}, err
	}
	t.dev.Ops().Zero(t.evalLoss)
	var step data.Step
	for loader.Next(&step) {
		if ctx.Err() != nil {
			return evaluation{}, ctx.Err()
		}
		for i := range step.Micro {
			p, err := t.pass(&step.Micro[i], false)
			if err != nil {
				return evaluation{}, err
			}
			p.load(&step.Micro[i])
			p.prog.Forward()
		}
	}
	if err := t.dev.Sync(); err != nil {
		return evaluation{}, err
	}
	l := tensor.GetFloat64(t.evalLoss)
	return evaluation{loss: l[0] / max(l[1], 1), accuracy: l[2] / max(l[1], 1), tokens: int(l[1])}, nil
}

// evalEvery is the number of steps between evaluations.
func (t *Trainer) evalEvery() int {
	if t.rec.Eval.Every > 0 {
		return t.rec.Eval.Every
	}
	return max(1, (t.steps+9)/10)
}

// wantsBest tells whether the best weights, rather than the last, are the result.
func (t *Trainer) wantsBest() bool {
	return t.rec.Checkpoint.Export == "best" || t.rec.Checkpoint.Export == "auto" && t.rec.Eval.Patience > 0
}

// Run trains to the end, from wherever the run stands. When ctx ends, it saves a
// checkpoint at the next step's end and returns ErrInterrupted.
func (t *Trainer) Run(ctx context.Context) error {
	clock := newStopwatch(t.state.Seconds)
	saved := t.state.Step // a resumed run stands at its checkpoint
	if t.state.Step == 0 || t.state.Pending != nil {
		saved = -1
	}
	for name, v := range t.state.Pending {
		t.pending[name] = v
	}
	t.state.Pending = nil
	// Each turn first does what follows the last step, so that a run that was
	// interrupted in between goes on with just that.
	for {
		if t.evalDue() {
			err := t.evaluateAndReport(ctx, clock)
			if err != nil && ctx.Err() != nil {
				return t.interrupt(clock, saved)
			}
			if err != nil {
				return err
			}
		}
		if err := t.flush(); err != nil {
			return err
		}
		stop := t.state.Step >= t.steps || t.outOfPatience()
		if t.state.Step > 0 && t.state.Step != saved && (stop || t.saveDue()) {
			if err := t.save(); err != nil {
				return err
			}
			saved = t.state.Step
		}
		if stop {
			return t.finish()
		}
		if ctx.Err() != nil {
			return t.interrupt(clock, saved)
		}
		if !t.loader.Next(&t.batch) {
			return fmt.Errorf("the data ended after %d of %d steps", t.state.Step, t.steps)
		}
		begin := clock.seconds()
		r, err := t.step(&t.batch)
		if err != nil {
			return err
		}
		t.state.Loader = t.loader.State()
		t.state.Seconds = clock.seconds()
		t.noteStep(r, t.state.Seconds-begin, t.batch.Tokens)
		if t.state.Skips >= t.rec.Train.MaxSkips {
			return errors.Join(fmt.Errorf("%d steps in a row had a loss or gradients that are not finite, first in %s; lower train.lr (now %g) or look at the data",
				t.state.Skips, t.badTensor(), t.rec.Train.LR), t.flush())
		}
	}
}

// evalDue tells whether the present step is one after which the held-out part is
// evaluated, and hasn't been yet.
func (t *Trainer) evalDue() bool {
	return t.state.EvalStep != t.state.Step && (t.state.Step%t.evalEvery() == 0 || t.state.Step == t.steps)
}

// outOfPatience tells whether the run stops early.
func (t *Trainer) outOfPatience() bool {
	p := t.rec.Eval.Patience
	if p == 0 || t.state.Worse < p || t.state.Step == t.steps {
		return false
	}
	t.progress.Message("stopped early: the evaluation loss was best at step %d (%.4f)", t.state.BestStep, t.state.Best)
	return true
}

// saveDue tells whether the present step's checkpoint is wanted.
func (t *Trainer) saveDue() bool {
	every := t.rec.Checkpoint.Every
	if every == 0 {
		every = t.evalEvery()
	}
	return t.state.Step%every == 0 || t.wantsBest() && t.state.BestStep == t.state.Step
}

// interrupt saves what has been done. Metrics of a step whose evaluation was cut
// short are kept with it, to be written once that is made up for.
func (t *Trainer) interrupt(clock *stopwatch, saved int) error {
	t.state.Seconds = clock.seconds()
	if len(t.pending) > 0 {
		t.state.Pending = t.pending
	}
	if t.state.Step > 0 && saved != t.state.Step {
		if err := t.save(); err != nil {
			return err
		}
	}
	return ErrInterrupted
}

// finish writes the result.
func (t *Trainer) finish() error {
	if t.wantsBest() && t.state.BestStep > 0 && t.state.BestStep != t.state.Step {
		if err := t.model.Store.ReadChunks(t.checkpointDir(t.state.BestStep)); err != nil {
			return err
		}
		t.progress.Message("model/ holds the weights of step %d, the best on the held-out rows", t.state.BestStep)
	}
	return t.export()
}

// evaluateAndReport evaluates the present weights and answers the sample prompts.
// On an error, that of ctx included, it is as if it hadn't been called.
func (t *Trainer) evaluateAndReport(ctx context.Context, clock *stopwatch) error {
	ev, err := t.evaluate(ctx)
	if err != nil {
		return err
	}
	answers, err := t.sample(ctx)
	if err != nil {
		return err
	}
	t.state.EvalStep = t.state.Step
	t.state.Seconds = clock.seconds()
	if ev.tokens > 0 {
		t.noteEval(ev)
	}
	if ev.tokens > 0 && t.state.Step > 0 { // what a run begins with is no result of it
		if ev.loss < t.state.Best {
			t.state.Best, t.state.BestStep, t.state.Worse = ev.loss, t.state.Step, 0
		} else {
			t.state.Worse++
		}
	}
	for _, a := range answers {
		if err := t.run.Sample(a); err != nil {
			return err
		}
	}
	return nil
}
