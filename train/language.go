package train

import (
	"context"
	"fmt"
	"math"

	"ringtail/autograd"
	"ringtail/data"
	"ringtail/model"
	"ringtail/runs"
	"ringtail/tensor"
)

// language is the objective of `train pretrain` and `train sft`: the
// cross-entropy of packed sequences, on all tokens or on what the assistant says.
type language struct {
	onRows
	rec      *LanguageRecipe
	pretrain bool

	passes   map[shape]*lossPass
	loss     tensor.Tensor // F64 [3], of a step
	evalLoss tensor.Tensor // F64 [3]
	scale    tensor.Tensor // 1 / trained tokens of the global batch

	prompts []samplePrompt
}

// load reads tokenizer, data and model.
func (l *language) load(ctx context.Context) error {
	r := l.rec
	var err error
	if l.text, err = r.Model.text(r.Tokenizer, r.Template); err != nil {
		return err
	}
	use := data.UseSFT
	if l.pretrain {
		use = data.UsePretrain
	}
	if l.data, err = data.Load(ctx, sources(r.Data.Train), r.Data.options(use), l.text.Encoder()); err != nil {
		return err
	}
	if n, _ := l.data.Sequences(); n == 0 {
		return fmt.Errorf("data.train: no row to train on%s", skippedIn(l.data.Stats.Total))
	}
	l.model, err = r.Model.open(l.dev, l.text, model.Options{Head: model.CausalLM, Seed: r.Seed}, r.Train.Gradients, r.Optimizer.State, r.Train.once(&r.Data))
	if err != nil {
		return err
	}
	return fitsContext("data.max_tokens", r.Data.MaxTokens, l.model.Config)
}

func (l *language) prepare() (int, error) {
	l.arena = autograd.NewArena(l.dev)
	l.passes = map[shape]*lossPass{}
	var err error
	for _, x := range []struct {
		dst *tensor.Tensor
		d   tensor.Dtype
		n   int
	}{{&l.loss, tensor.F64, 3}, {&l.evalLoss, tensor.F64, 3}, {&l.scale, l.dev.Float().Wide(), 1}} {
		if *x.dst, err = l.alloc(x.d, x.n); err != nil {
			return 0, err
		}
	}
	tr := l.rec.Train
	if l.loader, err = data.NewLoader(l.data, data.TrainPart, tr.loader(l.rec.Seed, l.rec.Data)); err != nil {
		return 0, err
	}
	steps := tr.Steps
	if steps == 0 {
		steps = l.loader.CountSteps()
	}
	if steps == 0 {
		return 0, fmt.Errorf("no step to make: the data has no row that can be trained on")
	}
	l.longest = longestOf(l.data.MaxLength(), tr.MicroTokens)
	if l.learner, err = newLearner(&l.basis, l.model, l.rec.Optimizer, tr.schedule(steps), tr.Clip); err != nil {
		return 0, err
	}
	if l.balance, err = l.newBalance(l.model, tr.RouterLoss); err != nil {
		return 0, err
	}
	l.prompts, err = l.findPrompts()
	return steps, err
}

func (l *language) close() {
	for _, p := range l.passes {
		p.free()
	}
	l.onRows.close()
}

// pass finds or compiles the program for a micro-batch.
func (l *language) pass(b *data.Batch, train bool) (*lossPass, error) {
	s := shapeOf(b, l.rec.Train.MicroTokens, l.longest, train)
	if !l.dev.Host() {
		if w, ok := windowsOf(b, l.data.MaxLength(), train); ok {
			s = w
		}
	}
	if p := l.passes[s]; p != nil {
		return p, nil
	}
	loss := l.loss
	if !train {
		loss = l.evalLoss
	}
	p, err := newLossPass(l.model, l.arena, s, l.rec.Train.Recompute, l.balance, loss, l.scale)
	if err == nil {
		l.passes[s] = p
	}
	return p, err
}

// gradients adds the gradients of a global batch to the (zeroed) chunks and its
// loss to l.loss.
func (l *language) gradients(step *data.Step) error {
	l.learner.zero()
	l.dev.Ops().Zero(l.loss)
	tensor.SetFloat64(l.scale, []float64{1 / float64(max(step.Trained, 1))})
	l.balance.begin(step.Tokens)
	if len(step.Micro) > 1 && l.model.Store.Gradients() != nil {
		panic(fmt.Sprintf("train: a step of %d micro-batches, and gradients that hold one", len(step.Micro)))
	}
	for i := range step.Micro {
		p, err := l.pass(&step.Micro[i], true)
		if err != nil {
			return err
		}
		p.load(&step.Micro[i])
		p.prog.ForwardBackward()
	}
	return nil
}

func (l *language) step(_ context.Context, step int) (stepResult, error) {
	if !l.loader.Next(&l.batch) {
		return stepResult{}, fmt.Errorf("the data ended after %d steps", step)
	}
	return l.update(step, &l.batch)
}

// update makes one optimizer step on a batch; its result is read later.
func (l *language) update(step int, batch *data.Step) (stepResult, error) {
	if err := l.gradients(batch); err != nil {
		return stepResult{}, err
	}
	l.learner.begin(step)
	l.learner.update(l.loss)
	loss, outcome, report := tensor.GetFloat64Later(l.loss), l.learner.outcome(), l.balance.report()
	return stepResult{lr: l.learner.lr(), tokens: batch.Tokens, epoch: l.loader.Epoch(), finish: func(r *stepResult) error {
		sums, err := loss()
		if err != nil {
			return err
		}
		r.loss = sums[0] / math.Max(sums[1], 1)
		if r.metrics, err = report(nil); err != nil {
			return err
		}
		r.gradNorm, r.skipped, err = outcome()
		return err
	}}, nil
}

// heldOutLoss is the cross-entropy on held-out tokens.
type heldOutLoss struct {
	loss, accuracy float64
	tokens         int
}

// measure is the loss on all held-out rows; tokens is 0 if there are none.
// The error is ctx's where ctx ended before the last of them.
func (l *language) measure(ctx context.Context) (heldOutLoss, error) {
	return measureLoss(ctx, l.data, l.rec.Train.MicroTokens, l.evalLoss, func(b *data.Batch) (*lossPass, error) { return l.pass(b, false) })
}

// measureLoss runs the held-out part of a set through passes that add to loss.
func measureLoss(ctx context.Context, set *data.Dataset, micro int, loss tensor.Tensor, pass func(*data.Batch) (*lossPass, error)) (heldOutLoss, error) {
	if _, n := set.Sequences(); n == 0 {
		return heldOutLoss{}, nil
	}
	loader, err := data.NewLoader(set, data.EvalPart, data.LoaderOptions{Sequential: true, Epochs: 1,
		BatchTokens: micro, Pack: micro, MicroTokens: micro})
	if err != nil {
		return heldOutLoss{}, err
	}
	loss.Device.Ops().Zero(loss)
	var step data.Step
	for loader.Next(&step) {
		if ctx.Err() != nil {
			return heldOutLoss{}, ctx.Err()
		}
		for i := range step.Micro {
			p, err := pass(&step.Micro[i])
			if err != nil {
				return heldOutLoss{}, err
			}
			p.load(&step.Micro[i])
			p.prog.Forward()
		}
	}
	if err := loss.Device.Sync(); err != nil {
		return heldOutLoss{}, err
	}
	v := tensor.GetFloat64(loss)
	return heldOutLoss{loss: v[0] / max(v[1], 1), accuracy: v[2] / max(v[1], 1), tokens: int(v[1])}, nil
}

func (l *language) evaluate(ctx context.Context) (evaluation, error) {
	ev, err := l.measure(ctx)
	if err != nil || ev.tokens == 0 {
		return evaluation{merit: math.NaN()}, err
	}
	return evaluation{merit: ev.loss, metrics: map[string]float64{"eval/loss": ev.loss, "eval/accuracy": ev.accuracy}}, nil
}

func (l *language) export(_ context.Context, dir string) error {
	return exportModel(l.model, l.text, dir, runs.ModelDir)
}

func (l *language) describe(info *runs.Info) string {
	all, trained := l.model.Store.Params()
	info.Model, info.Parameters, info.Trainable = l.rec.Model.label(), int64(all), int64(trained)
	train, eval := l.data.Sequences()
	text := fmt.Sprintf("%s parameters, %d sequences to train on, %d held out; %s", count(trained), train, eval, l.text.Choice)
	if s := skipped(l.data.Stats.Total); s != "" {
		text += "\nnot used: " + s
	}
	return text
}
