package train

import (
	"context"
	"fmt"
	"math"
	"slices"

	"ringtail/autograd"
	"ringtail/data"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/runs"
	"ringtail/tensor"
)

// reward is the objective of `train reward`: a scalar head on the fine-tuned model,
// read at the last real token of prompt and answer, that puts better answers above
// worse ones (Stiennon et al. 2020; Ouyang et al. 2022, section 3.5).
//
// A row is a ranking of answers to one prompt, a pair being one of two. Answers end
// with the token that ends a turn, just as sampled ones do, so that the score is read at
// the same token in training and in PPO. All answers of a ranking lie in one
// micro-batch, since its loss compares them.
type reward struct {
	onRows
	rec    *RewardRecipe
	passes map[shape]*scorePass

	// Of a micro-batch: the score of each answer and the loss's derivative by it,
	// and the latter at each token.
	scores, grad, seed []float32
	levels             []float32
}

func (r *reward) load(ctx context.Context) error {
	rec := r.rec
	var err error
	if r.text, err = folder.Open(rec.Model.Path, "", rec.Template); err != nil {
		return err
	}
	rows := rec.Data.rows()
	if r.data, err = data.Load(ctx, sources(rows.Train), rows.options(data.UseRankings), r.text.Encoder()); err != nil {
		return err
	}
	start := Model{Path: rec.Model.Path, Dtype: rec.Model.Dtype, Freeze: rec.Model.Freeze}
	if r.model, err = start.open(r.dev, r.text, model.Options{Head: model.ScalarHead, FreshHead: true, Seed: rec.Seed}, rec.Train.Gradients, rec.Optimizer.State, false); err != nil {
		return err
	}
	return fitsContext("data.max_tokens", rows.MaxTokens, r.model.Config)
}

func (r *reward) prepare() (int, error) {
	r.arena = autograd.NewArena(r.dev)
	r.passes = map[shape]*scorePass{}
	tr := r.rec.Train
	opt := tr.loader(r.rec.Seed, r.rec.Data.rows())
	for _, hold := range []struct {
		key    string
		tokens int
	}{{"micro_tokens", tr.MicroTokens}, {"batch_tokens", tr.BatchTokens}} {
		if n := r.data.MaxGroup(); hold.tokens > 0 && hold.tokens < n {
			return 0, fmt.Errorf("train.%s %d doesn't hold the longest ranking, whose answers are computed together and have %d tokens: raise it, or leave long rows out with data.max_tokens", hold.key, hold.tokens, n)
		}
	}
	if opt.BatchTokens > 0 { // what is packed are rankings
		opt.Pack = max(opt.Pack, r.data.MaxGroup())
	}
	var err error
	if r.loader, err = data.NewLoader(r.data, data.TrainPart, opt); err != nil {
		return 0, err
	}
	steps := tr.Steps
	if steps == 0 {
		steps = r.loader.CountSteps()
	}
	if steps == 0 {
		return 0, fmt.Errorf("no step to make: the data has no row that compares answers")
	}
	r.longest = longestOf(r.data.MaxLength(), tr.MicroTokens)
	if r.balance, err = r.newBalance(r.model, tr.RouterLoss); err != nil {
		return 0, err
	}
	r.learner, err = newLearner(&r.basis, r.model, r.rec.Optimizer, tr.schedule(steps), tr.Clip)
	return steps, err
}

func (r *reward) close() {
	for _, p := range r.passes {
		p.free()
	}
	r.onRows.close()
}

// forward runs a micro-batch and reads the score of each of its answers, raw.
func (r *reward) forward(b *data.Batch, train bool) (*scorePass, error) {
	s := shapeOf(b, r.rec.Train.MicroTokens, r.longest, train)
	p := r.passes[s]
	if p == nil {
		var err error
		if p, err = newScorePass(r.model, r.arena, s, r.rec.Train.Recompute, r.balance); err != nil {
			return nil, err
		}
		r.passes[s] = p
	}
	p.load(b)
	p.prog.Forward()
	if err := r.dev.Sync(); err != nil {
		return nil, err
	}
	r.scores = r.scores[:0]
	tokens := p.read()
	for i := range b.Rows {
		r.scores = append(r.scores, tokens[b.Starts[i+1]-1])
	}
	return p, nil
}

// gradients adds the gradients of a step's rankings to the (zeroed) chunks.
func (r *reward) gradients(step *data.Step) (stats RankingStats, err error) {
	r.learner.zero()
	r.balance.begin(step.Tokens)
	for i := range step.Micro {
		b := &step.Micro[i]
		p, err := r.forward(b, true)
		if err != nil {
			return stats, err
		}
		stats.Add(r.loss(b, step.Groups))
		r.seed = zeroed(r.seed, p.tokens)
		for j, g := range r.grad {
			r.seed[b.Starts[j+1]-1] = g
		}
		p.backward(r.seed)
	}
	return stats, nil
}

func (r *reward) step(_ context.Context, step int) (stepResult, error) {
	if !r.loader.Next(&r.batch) {
		return stepResult{}, fmt.Errorf("the data ended after %d steps", step)
	}
	stats, err := r.gradients(&r.batch)
	if err != nil {
		return stepResult{}, err
	}
	r.learner.begin(step)
	r.learner.update(tensor.Tensor{})
	outcome, report := r.learner.outcome(), r.balance.report()
	return stepResult{loss: stats.Loss, lr: r.learner.lr(), tokens: r.batch.Tokens, epoch: r.loader.Epoch(), finish: func(out *stepResult) error {
		var err error
		if out.metrics, err = report(map[string]float64{"reward/accuracy": stats.Accuracy, "reward/margin": stats.Margin()}); err != nil {
			return err
		}
		out.gradNorm, out.skipped, err = outcome()
		return err
	}}, nil
}

// loss is that of the micro-batch whose scores were read, n being the rankings of
// the whole step; its derivative by each score goes to r.grad.
func (r *reward) loss(b *data.Batch, n int) RankingStats {
	r.grad = zeroed(r.grad, len(r.scores))
	var levels []float32
	if f := float32(r.rec.Reward.Margin); f > 0 {
		r.levels = r.levels[:0]
		for _, s := range b.Scores {
			r.levels = append(r.levels, f*s)
		}
		levels = r.levels
	}
	return RankingLoss(r.grad, r.scores, b.Ranks, levels, b.Groups, n)
}

// comparisons is what held-out rankings say of a reward model.
type comparisons struct {
	Pairs    int     // compared
	Right    float64 // share with the better answer ahead; a draw is a miss
	Longer   float64 // share with the longer answer better; as long counts half
	Loss     float64 // of the rankings, in their mean
	Margin   float64 // mean lead of the better answers, raw
	Error    float64 // calibration: mean distance of the predicted from the observed share of right pairs
	BySource map[string][2]int
}

// lengthOnly is how often the better of the two rules "take the longer answer" and
// "take the shorter" is right: what a model that looks at nothing else would reach.
func (c comparisons) lengthOnly() float64 { return max(c.Longer, 1-c.Longer) }

// calibrationBins part the predicted probabilities, from 1/2 to 1, by which calibration is measured.
const calibrationBins = 5

// compare measures the present weights on the held-out rankings.
func (r *reward) compare(ctx context.Context) (comparisons, error) {
	c := comparisons{BySource: map[string][2]int{}}
	if _, n := r.data.Sequences(); n == 0 {
		return c, nil
	}
	micro := r.rec.Train.MicroTokens
	loader, err := data.NewLoader(r.data, data.EvalPart, data.LoaderOptions{Sequential: true, Epochs: 1, BatchTokens: micro, Pack: micro, MicroTokens: micro})
	if err != nil {
		return c, err
	}
	names := r.data.Sources()
	var step data.Step
	var predicted, observed [calibrationBins]float64
	rankings := 0
	for loader.Next(&step) {
		for i := range step.Micro {
			if ctx.Err() != nil {
				return c, ctx.Err()
			}
			b := &step.Micro[i]
			if _, err := r.forward(b, false); err != nil {
				return c, err
			}
			c.Loss += RankingLoss(nil, r.scores, b.Ranks, nil, b.Groups, 1).Loss
			rankings += len(b.Groups) - 1
			for g := range len(b.Groups) - 1 {
				for x := b.Groups[g]; x < b.Groups[g+1]; x++ {
					for y := b.Groups[g]; y < b.Groups[g+1]; y++ {
						if b.Ranks[x] >= b.Ranks[y] {
							continue
						}
						lead := float64(r.scores[x]) - float64(r.scores[y])
						tally := c.BySource[names[b.Sources[x]]]
						tally[1]++
						c.Pairs++
						c.Margin += lead
						right := 0.0
						if lead > 0 {
							right = 1
							tally[0]++
						}
						c.BySource[names[b.Sources[x]]] = tally
						c.Right += right
						p := sigmoid(math.Abs(lead))
						bin := min(int((p-0.5)*2*calibrationBins), calibrationBins-1)
						predicted[max(bin, 0)] += p
						observed[max(bin, 0)] += right
						switch {
						case b.Lengths[x] > b.Lengths[y]:
							c.Longer++
						case b.Lengths[x] == b.Lengths[y]:
							c.Longer += 0.5
						}
					}
				}
			}
		}
	}
	n := float64(max(c.Pairs, 1))
	c.Right, c.Longer, c.Margin = c.Right/n, c.Longer/n, c.Margin/n
	c.Loss /= float64(max(rankings, 1))
	for i := range predicted {
		c.Error += math.Abs(predicted[i]-observed[i]) / n
	}
	return c, nil
}

func (r *reward) evaluate(ctx context.Context) (evaluation, error) {
	c, err := r.compare(ctx)
	if err != nil || c.Pairs == 0 {
		return evaluation{merit: math.NaN()}, err
	}
	m := map[string]float64{"eval/loss": c.Loss, "eval/accuracy": c.Right, "eval/margin": c.Margin, "eval/calibration_error": c.Error,
		"eval/pairs": float64(c.Pairs), "eval/accuracy_length_only": c.lengthOnly()}
	for name, tally := range c.BySource {
		m["eval/accuracy/"+name] = float64(tally[0]) / float64(tally[1])
	}
	merit := c.Loss
	if math.IsInf(merit, 0) {
		merit = math.NaN()
	}
	return evaluation{metrics: m, merit: merit}, nil
}

// sample shows a few held-out rankings with the scores of their answers, at the
// beginning and at the end.
func (r *reward) sample(ctx context.Context, step int) ([]runs.Sample, error) {
	s := r.rec.Samples
	if s.Off || step > 0 && step != r.steps() {
		return nil, nil
	}
	var out []runs.Sample
	for i, shown := 0, 0; shown < s.Rows; i++ {
		q, ok := r.data.Sequence(i)
		if !ok {
			break
		}
		if !q.HeldOut {
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		shown++
		prompt := question(r.data, i)
		for _, a := range q.Answers {
			ids, trained := q.IDs[a.From:a.To], q.Trained[a.From:a.To]
			b := batchOf([][]int32{ids}, []int{slices.Index(trained, true)})
			if _, err := r.forward(&b, false); err != nil {
				return nil, err
			}
			out = append(out, runs.Sample{Step: step, Prompt: prompt, Score: scoreOf(float64(r.scores[0])), Finish: fmt.Sprintf("rank %d", a.Rank),
				Completion: r.text.Tokenizer.Decode(ids[slices.Index(trained, true):], true)})
		}
	}
	return out, nil
}

// normalize measures the scores of the best answers of the training rows, and keeps
// their mean and deviation in the model's configuration.
func (r *reward) normalize(ctx context.Context) error {
	r.model.Config.Reward = model.Normalization{Std: 1}
	if !r.rec.Reward.Normalize {
		return nil
	}
	micro := r.rec.Train.MicroTokens
	loader, err := data.NewLoader(r.data, data.TrainPart, data.LoaderOptions{Seed: r.rec.Seed, Limit: r.rec.Reward.NormalizeRows, Epochs: 1,
		BatchTokens: micro, Pack: micro, MicroTokens: micro})
	if err != nil {
		return err
	}
	var best []float64
	var step data.Step
	for loader.Next(&step) {
		for i := range step.Micro {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b := &step.Micro[i]
			if _, err := r.forward(b, false); err != nil {
				return err
			}
			for g := range len(b.Groups) - 1 {
				for x := b.Groups[g]; x < b.Groups[g+1]; x++ {
					if b.Ranks[x] == 1 {
						best = append(best, float64(r.scores[x]))
					}
				}
			}
		}
	}
	white := make([]float64, len(best))
	mean, std := Whiten(white, best, nil, Whitening{Population: true})
	if math.IsNaN(mean) || math.IsInf(mean, 0) || math.IsNaN(std) {
		return fmt.Errorf("the scores of the training rows are not finite: the model has diverged; lower train.lr (now %g)", r.rec.Train.LR)
	}
	if std < 1e-6 {
		std = 1 // a model that says the same of everything
	}
	r.model.Config.Reward = model.Normalization{Mean: mean, Std: std}
	r.say("scores are normalised by %d best answers: mean %.3f, deviation %.3f", len(best), mean, std)
	return nil
}

func (r *reward) export(ctx context.Context, dir string) error {
	if err := r.normalize(ctx); err != nil {
		return err
	}
	return exportModel(r.model, r.text, dir, runs.ModelDir)
}

func (r *reward) describe(info *runs.Info) string {
	all, trained := r.model.Store.Params()
	info.Model, info.Parameters, info.Trainable = r.rec.Model.Path, int64(all), int64(trained)
	train, eval := r.data.Sequences()
	text := fmt.Sprintf("%s parameters, %d rankings to train on, %d held out; %s", count(trained), train, eval, r.text.Choice)
	if s := skipped(r.data.Stats.Total); s != "" {
		text += "\nnot used: " + s
	}
	return text
}

// steps is the length of the run.
func (r *reward) steps() int { return r.learner.sched.Steps }
