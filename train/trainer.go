// Package train is the training loop, its recipes, checkpoints and metrics, and
// one file an objective.
//
// A step: draw the rows of the global batch; for each packed micro-batch
// run forward and backward, gradients adding up in their chunks; clip by the
// global norm; update. The loss is a mean over the whole batch (its trained
// tokens, its rankings), whose size is known before its first backward pass, so
// that the cut into micro-batches never changes the gradient. What changes from
// step to step lies in the step block on the device.
package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"ringtail/device"
	"ringtail/runs"
	"ringtail/tensor"
)

// Trainer conducts a run: steps, evaluations, samples, metrics, checkpoints and
// the result, for any objective.
type Trainer struct {
	objective objective
	course    course
	opened    tensor.Device // by this trainer: closed with it
	note      string        // about the device
	dir       string
	run       *runs.Run
	progress  *runs.Progress

	steps   int
	ahead   bool    // steps are enqueued before those ahead of them are read
	unread  *unread // the last step, where its result hasn't been read yet
	settled float64 // seconds when a step was last read
	state   position
	pending map[string]float64 // metrics of the present step

	algorithms []byte // of matrix products, as they were last written

	exported int    // the step whose weights are the result, if not the last
	over     string // why the last evaluation ends the run, if it does
	ended    string // why the run was ended early, if it was
}

// position is where a run stands; checkpoints hold it.
type position struct {
	Step     int     `json:"step"`    // steps made
	Tokens   int64   `json:"tokens"`  // seen so far
	Seconds  float64 `json:"seconds"` // spent so far
	Skips    int     `json:"skips"`   // consecutive steps skipped last
	Skipped  int     `json:"skipped"` // in all
	Best     float64 `json:"best"`    // merit of the best evaluation
	BestStep int     `json:"best_step"`
	Worse    int     `json:"worse"`     // evaluations since the best
	EvalStep int     `json:"eval_step"` // of the last evaluation, -1 before the first
	Memory   int     `json:"memory"`    // most bytes held so far
	// Pending are metrics of the step, whose evaluation was cut short.
	Pending figures `json:"pending,omitempty"`
	// Objective is what the objective keeps.
	Objective json.RawMessage `json:"objective"`
}

// unread is a step that was enqueued.
type unread struct {
	result stepResult
	begin  float64 // seconds
	memory int     // held at most so far
}

// ErrInterrupted is what Run returns when its context ended; the run was saved.
var ErrInterrupted = errors.New("interrupted")

// prepare makes everything that training needs on the device.
func (t *Trainer) prepare() error {
	t.pending = map[string]float64{}
	t.state = position{Best: math.Inf(1), EvalStep: -1}
	dev := t.objective.common().dev
	_, t.ahead = dev.(tensor.Reader)
	var err error
	t.steps, err = t.objective.prepare()
	return err
}

// Close frees the device memory of the run.
func (t *Trainer) Close() {
	t.objective.close()
	device.Close(t.opened)
}

// evalEvery is the number of steps between evaluations.
func (t *Trainer) evalEvery() int {
	if t.course.eval.Every > 0 {
		return t.course.eval.Every
	}
	return max(1, (t.steps+9)/10)
}

// saveEvery is the number of steps between checkpoints.
func (t *Trainer) saveEvery() int {
	if t.course.checkpoint.Every > 0 {
		return t.course.checkpoint.Every
	}
	return t.evalEvery()
}

// wantsBest tells whether the best weights, rather than the last, are the result.
func (t *Trainer) wantsBest() bool {
	return t.course.checkpoint.Export == "best" || t.course.checkpoint.Export == "auto" && t.course.eval.Patience > 0
}

// Run trains to the end, from wherever the run stands. When ctx ends, it saves a
// checkpoint at the next step's end and returns ErrInterrupted.
//
// Where the device computes beside the host, a step is enqueued before the one ahead of it
// has been read, so that the device never waits, unless something is to be done between the two.
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
		if ctx.Err() != nil {
			if err := t.settle(clock); err != nil {
				return err
			}
		}
		if t.unread == nil {
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
			if t.over != "" {
				return t.endEarly(ctx, t.over)
			}
			stop := t.state.Step >= t.steps || t.outOfPatience()
			if t.state.Step > 0 && t.state.Step != saved && (stop || t.saveDue()) {
				if err := t.save(); err != nil {
					return err
				}
				saved = t.state.Step
			}
			if stop {
				return t.finish(ctx)
			}
			if ctx.Err() != nil {
				return t.interrupt(clock, saved)
			}
		}
		step, begin := t.state.Step, clock.seconds()
		if t.unread != nil {
			step++
		}
		r, err := t.objective.step(ctx, step)
		if err := errors.Join(t.settle(clock), t.flush()); err != nil {
			return err
		}
		if err != nil && ctx.Err() != nil {
			return t.interrupt(clock, saved)
		}
		if err != nil {
			return err
		}
		if r.ended != "" {
			return t.endEarly(ctx, r.ended)
		}
		t.unread = &unread{r, begin, t.memory()}
		if !t.ahead || r.finish == nil || t.followed(step+1) {
			if err := t.settle(clock); err != nil {
				return err
			}
		}
	}
}

// followed tells whether something is to be done after a step before the next begins.
func (t *Trainer) followed(step int) bool {
	return step >= t.steps || step%t.evalEvery() == 0 || step%t.saveEvery() == 0
}

// settle waits for the step that hasn't been read, if there is one, and counts it.
func (t *Trainer) settle(clock *stopwatch) error {
	u := t.unread
	if u == nil {
		return nil
	}
	t.unread = nil
	r, err := u.result.done()
	if err != nil {
		return err
	}
	t.count(r)
	t.state.Seconds = clock.seconds()
	t.noteStep(r, t.state.Seconds-max(u.begin, t.settled), u.memory)
	t.settled = t.state.Seconds
	if t.algorithms == nil { // of the first step made
		if err := t.keepAlgorithms(); err != nil {
			return err
		}
	}
	if t.state.Skips >= t.course.maxSkips {
		return errors.Join(fmt.Errorf("%d steps in a row had a loss or gradients that are not finite, first in %s; lower train.lr (now %g) or look at the data",
			t.state.Skips, t.objective.badTensor(), t.course.lr), t.flush())
	}
	return nil
}

// count moves the position on by a step.
func (t *Trainer) count(r stepResult) {
	t.state.Step++
	t.state.Tokens += int64(r.tokens)
	if !r.skipped {
		t.state.Skips = 0
		return
	}
	t.state.Skips++
	t.state.Skipped++
}

// evalDue tells whether the present step is one after which the held-out part is
// evaluated, and hasn't been yet.
func (t *Trainer) evalDue() bool {
	return t.state.EvalStep != t.state.Step && (t.state.Step%t.evalEvery() == 0 || t.state.Step == t.steps)
}

// outOfPatience tells whether the run stops early.
func (t *Trainer) outOfPatience() bool {
	p := t.course.eval.Patience
	if p == 0 || t.state.Worse < p || t.state.Step == t.steps {
		return false
	}
	t.progress.Message("stopped early: the evaluation was best at step %d (%.4f)", t.state.BestStep, t.state.Best)
	return true
}

// saveDue tells whether the present step's checkpoint is wanted.
func (t *Trainer) saveDue() bool {
	return t.state.Step%t.saveEvery() == 0 || (t.wantsBest() || t.course.keepBest) && t.state.BestStep == t.state.Step
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
func (t *Trainer) finish(ctx context.Context) error {
	if t.wantsBest() && t.state.BestStep > 0 && t.state.BestStep != t.state.Step {
		if err := t.objective.readWeights(t.checkpointDir(t.state.BestStep)); err != nil {
			return err
		}
		t.progress.Message("model/ holds the weights of step %d, the best on the held-out rows", t.state.BestStep)
		t.exported = t.state.BestStep
	}
	return t.export(ctx)
}

// endEarly writes the best weights known as the result of a run that its objective
// ended. Without any, the run has failed.
func (t *Trainer) endEarly(ctx context.Context, why string) error {
	if t.state.BestStep == 0 {
		return fmt.Errorf("ended after step %d: %s; no earlier weights are known to be good", t.state.Step, why)
	}
	if err := t.objective.readWeights(t.checkpointDir(t.state.BestStep)); err != nil {
		return err
	}
	t.progress.Message("ended after step %d: %s. model/ holds the weights of step %d, the best within the limit", t.state.Step, why, t.state.BestStep)
	t.ended, t.exported = why, t.state.BestStep
	return t.export(ctx)
}

// export writes the result, whichever weights are in place. An interruption leaves
// the run at its last checkpoint, from which it comes here again.
func (t *Trainer) export(ctx context.Context) error {
	err := t.objective.export(ctx, t.dir)
	if err != nil && ctx.Err() != nil {
		return ErrInterrupted
	}
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	return nil
}

// evaluateAndReport evaluates the present weights and makes samples.
// On an error, that of ctx included, it is as if it hadn't been called.
func (t *Trainer) evaluateAndReport(ctx context.Context, clock *stopwatch) error {
	ev, err := t.objective.evaluate(ctx)
	if err != nil {
		return err
	}
	samples, err := t.objective.sample(ctx, t.state.Step)
	if err != nil {
		return err
	}
	t.state.EvalStep = t.state.Step
	t.state.Seconds = clock.seconds()
	t.over = ev.ended
	for name, v := range ev.metrics {
		t.add(name, v)
	}
	if !math.IsNaN(ev.merit) && t.state.Step > 0 { // what a run begins with is no result of it
		if ev.merit < t.state.Best {
			t.state.Best, t.state.BestStep, t.state.Worse = ev.merit, t.state.Step, 0
		} else {
			t.state.Worse++
		}
	}
	for _, s := range samples {
		if err := t.run.Sample(s); err != nil {
			return err
		}
	}
	return nil
}
