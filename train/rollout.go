package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"ringtail/data"
	"ringtail/engine"
	"ringtail/rng"
	"ringtail/tensor"
)

// gather makes experience: it samples answers to the next prompts and has them
// scored. over says, where it isn't empty, that the policy has left the reference too
// far behind. On an error everything is as if it hadn't been called.
func (p *ppo) gather(ctx context.Context) (times map[string]float64, over string, err error) {
	before := p.loader.State()
	defer func() {
		if err != nil {
			err = errors.Join(err, p.loader.Restore(before))
		}
	}()
	r := p.rec.PPO
	if !p.loader.Next(&p.batch) {
		return nil, "", errors.New("the prompts ended")
	}
	b := &p.batch.Micro[0]
	var prompts [][]int32
	for i := range b.Rows {
		for range r.Samples {
			prompts = append(prompts, b.IDs[b.Starts[i]:b.Starts[i+1]])
		}
	}
	clock := time.Now()
	first := uint64(p.state.Rollouts) * uint64(r.Prompts*r.Samples)
	answers, err := p.answer(ctx, prompts, rolloutSeeds, first, r.Temperature, r.MaxTokens)
	if errors.Is(err, engine.ErrNotFinite) {
		return nil, "", fmt.Errorf("rollout %d: the actor can't answer: %w; lower train.lr (now %g), or look at model.actor", p.state.Rollouts+1, engine.ErrNotFinite, p.rec.Train.LR)
	}
	if err != nil {
		return nil, "", err
	}
	generate := time.Since(clock).Seconds()
	clock = time.Now()
	x := newExperience(answers)
	if err := p.judge(ctx, x, r.Temperature, true); err != nil {
		return nil, "", err
	}
	kl := AnswerKL(x.logProbs, x.refLogProbs, x.starts, nil, K1)
	if math.IsNaN(kl) || math.IsInf(kl, 0) {
		return nil, "", fmt.Errorf("model.reference: %s gives probabilities that are not finite: its weights are broken", p.rec.Model.reference())
	}
	metrics, err := p.estimate(x)
	if err != nil {
		return nil, "", err
	}
	times = map[string]float64{"time/generate": generate, "time/score": time.Since(clock).Seconds()}
	p.rollout, p.state.Metrics = x, metrics
	p.state.Rollouts++
	p.kl.Update(kl, len(answers))
	return times, p.beyond(kl), nil
}

// beyond says, where it is so, that a divergence is over the limit.
func (p *ppo) beyond(kl float64) string {
	if limit := p.rec.PPO.KLStop; limit > 0 && kl > limit {
		return fmt.Sprintf("answers are %.1f nats from the reference model, over ppo.kl_stop %g: the policy games the reward or forgets the language (raise ppo.kl_coef, or lower train.lr)", kl, limit)
	}
	return ""
}

// Streams of seeds: each answer of a run has its own.
const (
	rolloutSeeds = rng.Sampling + "/ppo/rollout"
	evalSeeds    = rng.Sampling + "/ppo/eval"
	orderStream  = "ppo/order"
)

// answer samples an answer to each prompt with the actor's present weights; the i-th
// draws from the seed of number first+i. No token is cut off: a filter that the
// log-probabilities don't know of would make them another policy's.
func (p *ppo) answer(ctx context.Context, prompts [][]int32, stream string, first uint64, temperature float64, longest int) ([]answer, error) {
	seeds := rng.New(p.rec.Seed, stream, 0)
	p.engine.Forget()
	answers := make([]answer, len(prompts))
	var requests []*engine.Request
	var refused, failed error
	for i, ids := range prompts {
		a := &answers[i]
		a.ids, a.prompt = append(a.ids, ids...), len(ids)
		text := false
		request, err := p.engine.Submit(ids, engine.Settings{MaxTokens: longest, Temperature: float32(temperature), TemperedLogProbs: true,
			Stop: p.text.StopText(), Seed: seeds.At(first + uint64(i))}, func(ev engine.Event) {
			if ev.ID >= 0 {
				a.ids, a.logProbs = append(a.ids, ev.ID), append(a.logProbs, ev.LogProb)
			}
			text = text || ev.Text != ""
			a.finished, a.empty = ev.Finish == engine.Stop, !text
			if ev.Finish == engine.Failed {
				failed = engine.ErrNotFinite
			}
		})
		if refused = err; err != nil {
			break
		}
		requests = append(requests, request)
	}
	err := refused
	if err == nil {
		err = runEngine(ctx, p.engine)
	}
	if err == nil {
		err = failed
	}
	if err == nil {
		return answers, nil
	}
	for _, request := range requests { // leave the engine empty, for whatever comes next
		p.engine.Cancel(request)
	}
	return nil, errors.Join(err, p.engine.Run())
}

// judge has answers scored: the reference's log-probabilities, the reward model's
// normalised scores and, where wanted, the critic's values, all in packed passes
// over the same micro-batches. The passes of one are enqueued before the figures of the
// one ahead of it are read.
func (p *ppo) judge(ctx context.Context, x *experience, temperature float64, values bool) (err error) {
	none := func() error { return nil }
	read := none
	defer func() { err = errors.Join(err, read()) }()
	return p.eachMicro(x, allOf(len(x.answers)), func(list []int, b *data.Batch) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ref, err := p.passes.logProbs(p, p.reference, b, false, temperature, false)
		if err != nil {
			return err
		}
		ref.load(b)
		ref.prog.Forward()
		logProbs := tensor.GetFloat32Later(ref.logProbs.Value())
		scores, err := p.scoresLater(p.passes.rewards, b)
		var critic func() ([]float32, error)
		if err == nil && values {
			critic, err = p.scoresLater(p.passes.values, b)
		}
		before := read
		read = func() error { return p.note(x, list, b, logProbs, scores, critic) }
		return errors.Join(before(), err)
	})
}

// note keeps what the passes over a micro-batch found; those that weren't enqueued are nil.
func (p *ppo) note(x *experience, list []int, b *data.Batch, logProbs, scores, critic func() ([]float32, error)) error {
	found, err := logProbs()
	if err == nil {
		for k, i := range list {
			copy(x.of(x.refLogProbs, i), found[x.firstTarget(b, k, i):])
		}
	}
	if scores != nil {
		found, more := scores()
		if err = errors.Join(err, more); err == nil {
			for k, i := range list {
				x.scores[i] = float32(p.reward.Config.Reward.Apply(float64(found[b.Starts[k+1]-1])))
			}
		}
	}
	if critic == nil {
		return err
	}
	found, more := critic()
	if err = errors.Join(err, more); err != nil {
		return err
	}
	for k, i := range list {
		at := x.firstTarget(b, k, i)
		for t := range x.of(x.values, i) {
			x.of(x.values, i)[t] = float32(p.critic.Config.Reward.Apply(float64(found[at+t])))
		}
	}
	return nil
}

// scoresOf runs a pass with a scalar head, without gradients: a raw score at each token.
func (p *ppo) scoresOf(pass func(*ppo, *data.Batch, bool) (*scorePass, error), b *data.Batch) ([]float32, error) {
	read, err := p.scoresLater(pass, b)
	if err != nil {
		return nil, err
	}
	return read()
}

// scoresLater enqueues such a pass; what it returns waits for it.
func (p *ppo) scoresLater(pass func(*ppo, *data.Batch, bool) (*scorePass, error), b *data.Batch) (func() ([]float32, error), error) {
	s, err := pass(p, b, false)
	if err != nil {
		return nil, err
	}
	s.load(b)
	s.prog.Forward()
	return tensor.GetFloat32Later(s.scores.Value()), nil
}

// firstTarget is where, in a packed row, the token stands that answer i's first token is
// predicted from; it is the k-th sequence of the row.
func (x *experience) firstTarget(b *data.Batch, k, i int) int {
	return int(b.Starts[k]) + x.answers[i].prompt - 1
}

// allOf are the numbers below n.
func allOf(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// eachMicro cuts answers, in their order, into micro-batches of at most micro_tokens
// tokens and calls f with each.
func (p *ppo) eachMicro(x *experience, list []int, f func(list []int, b *data.Batch) error) error {
	for from := 0; from < len(list); {
		to, tokens := from, 0
		for to < len(list) && (to == from || tokens+len(x.answers[list[to]].ids) <= p.rec.Train.MicroTokens) {
			tokens += len(x.answers[list[to]].ids)
			to++
		}
		rows, prompts := p.scratch.rows[:0], p.scratch.prompts[:0]
		for _, i := range list[from:to] {
			rows, prompts = append(rows, x.answers[i].ids), append(prompts, x.answers[i].prompt)
		}
		p.scratch.rows, p.scratch.prompts = rows, prompts
		b := batchOf(rows, prompts)
		if err := f(list[from:to], &b); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// estimate makes rewards, advantages and returns of a scored rollout, and its metrics.
func (p *ppo) estimate(x *experience) (map[string]float64, error) {
	r := p.rec.PPO
	rewards := make([]float32, len(x.logProbs))
	limit := orNone(r.RewardClip)
	stats := TokenRewards(rewards, x.logProbs, x.refLogProbs, x.scores, x.starts, nil, KLEstimator(r.KLEstimator), p.kl.Coef, limit)
	if stats.NonFinite > 0 {
		return nil, fmt.Errorf("model.reward: %s gives %d of %d answers a score that is not finite: its weights are broken, or reward_mean and reward_std in its config.json",
			p.rec.Model.Reward, stats.NonFinite, len(x.answers))
	}
	n := float64(len(x.answers))
	var total, score, tokens, finished, empty float64
	for i := range x.answers {
		a := &x.answers[i]
		last := &rewards[x.starts[i+1]-1]
		if a.finished {
			finished++
		} else {
			*last -= float32(r.MissingEOSPenalty)
		}
		if a.length() < r.MinTokens {
			*last -= float32(r.ShortPenalty)
		}
		if a.empty {
			empty++
		}
		score += float64(x.scores[i])
		tokens += float64(a.length())
	}
	for _, v := range rewards {
		total += float64(v)
	}
	if r.WhitenRewards {
		Whiten(rewards, rewards, nil, Whitening{Population: true, KeepMean: true})
	}
	GAE(x.advantages, x.returns, rewards, x.values, x.starts, nil, r.Gamma, r.Lambda)
	explained := ExplainedVariance(x.values, x.returns, nil)
	if r.WhitenAdvantages {
		Whiten(x.advantages, x.advantages, nil, Whitening{Population: true})
	}
	return map[string]float64{
		"ppo/reward": total / n, "ppo/score": score / n, "ppo/length": tokens / n, "ppo/eos_rate": finished / n, "ppo/empty_rate": empty / n,
		"ppo/kl": AnswerKL(x.logProbs, x.refLogProbs, x.starts, nil, K1), "ppo/kl_coef": p.kl.Coef,
		"ppo/explained_variance": explained, "ppo/clipped_scores": float64(stats.Clipped) / n,
	}, nil
}

// ppoPasses are the compiled programs of the four models, by shape.
type ppoPasses struct {
	actor, reference map[logProbKey]*logProbPass
	reward, critic   map[shape]*scorePass
	ptx              map[shape]*lossPass
}

type logProbKey struct {
	shape
	temperature float64
}

func (c *ppoPasses) init() {
	c.actor, c.reference = map[logProbKey]*logProbPass{}, map[logProbKey]*logProbPass{}
	c.reward, c.critic = map[shape]*scorePass{}, map[shape]*scorePass{}
	c.ptx = map[shape]*lossPass{}
}

func (c *ppoPasses) free() {
	for _, m := range []map[logProbKey]*logProbPass{c.actor, c.reference} {
		for _, p := range m {
			p.free()
		}
	}
	for _, m := range []map[shape]*scorePass{c.reward, c.critic} {
		for _, p := range m {
			p.free()
		}
	}
	for _, p := range c.ptx {
		p.free()
	}
}

// shape is what a micro-batch of answers is compiled for.
func (p *ppo) shape(b *data.Batch, train bool) shape {
	return shapeOf(b, p.rec.Train.MicroTokens, p.longest, train)
}
