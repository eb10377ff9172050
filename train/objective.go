package train

import (
	"context"
	"encoding/json"

	"ringtail/autograd"
	"ringtail/runs"
	"ringtail/tensor"
)

// An objective is what sets one kind of training apart: which data and models it
// reads, what a step is, what is measured and what comes out. Trainer conducts
// it; the files language.go, reward.go and ppo.go hold one each.
type objective interface {
	// load reads tokenizer, data and models. Nothing is written before it has returned.
	load(ctx context.Context) error
	// prepare makes what training needs on the device and returns the number of steps.
	prepare() (steps int, err error)
	// common is the part that all objectives have.
	common() *basis
	// describe fills in what run.json says of the models and returns a line for the start of the run.
	describe(info *runs.Info) string

	// step makes one optimizer step, the number of steps before it being step. What a
	// device that computes beside the host hasn't measured yet is left to the result's finish.
	step(ctx context.Context, step int) (stepResult, error)
	// evaluate measures the present weights on held-out rows. Its error is ctx's
	// where ctx ended before that was done; then it is as if it hadn't been called.
	evaluate(ctx context.Context) (evaluation, error)
	// sample makes what samples.jsonl is to show of the present weights.
	sample(ctx context.Context, step int) ([]runs.Sample, error)

	// save writes weights into a checkpoint's folder and returns what else must be
	// kept to go on from there; restore takes both back.
	save(dir string) (state any, err error)
	restore(dir string, state json.RawMessage) error
	// readWeights takes a checkpoint's weights alone, to export them.
	readWeights(dir string) error
	// export writes the result into the run's folder.
	export(ctx context.Context, dir string) error

	// badTensor names the first tensor that isn't finite.
	badTensor() string
	// bytes is the device memory that is held now.
	bytes() int
	close()
}

// basis is what every objective works with.
type basis struct {
	dev   tensor.Device
	arena *autograd.Arena
	// say prints a line above the progress.
	say func(format string, args ...any)

	buffers []*tensor.Buffer
}

// alloc makes a small device tensor that lives as long as the objective.
func (b *basis) alloc(d tensor.Dtype, n int) (tensor.Tensor, error) {
	x, buf, err := tensor.New(b.dev, d, n)
	if err == nil {
		b.buffers = append(b.buffers, buf)
	}
	return x, err
}

func (b *basis) free() {
	for _, x := range b.buffers {
		x.Free()
	}
	b.buffers = nil
	if b.arena != nil {
		b.arena.Free()
	}
}

// stepResult is what one optimizer step measured.
type stepResult struct {
	loss, lr, gradNorm float64
	epoch              float64 // passes over the data so far
	tokens             int     // seen in this step
	skipped            bool    // the loss or a gradient wasn't finite: nothing changed
	// metrics are the objective's own.
	metrics map[string]float64
	// ended, if not empty, says why the run ends here, before this step: no update was made.
	ended string
	// finish, if not nil, waits for the step, and no longer, and fills in loss, gradNorm,
	// skipped and metrics.
	finish func(*stepResult) error
}

// done is the result of a step that has been waited for.
func (r stepResult) done() (stepResult, error) {
	if r.finish == nil {
		return r, nil
	}
	err := r.finish(&r)
	r.finish = nil
	return r, err
}

// evaluation is what was measured on held-out rows.
type evaluation struct {
	metrics map[string]float64
	// merit is the figure that decides which weights are the best: the lower the better. NaN: none.
	merit float64
	// ended, if not empty, says why the run ends here, with earlier weights as its result.
	ended string
}

// course is what the loop has to know of a recipe.
type course struct {
	eval       Eval
	checkpoint Checkpoint
	log        Log
	maxSkips   int
	lr         float64
	// keepBest keeps the best checkpoint although the last weights are the result,
	// since the run may have to go back to it.
	keepBest bool
}
