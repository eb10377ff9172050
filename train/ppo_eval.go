package train

import (
	"context"
	"errors"
	"math"

	"ringtail/data"
	"ringtail/engine"
	"ringtail/runs"
)

// evaluate samples answers to held-out prompts with the present weights and has
// them scored, each evaluation from the same seeds; and it measures the cross-entropy of held-out
// rows of the ptx corpus. Scores are the reward model's alone, without clips and penalties.
func (p *ppo) evaluate(ctx context.Context) (evaluation, error) {
	ev := evaluation{metrics: map[string]float64{}, merit: math.NaN()}
	if p.ptx != nil {
		l, err := measureLoss(ctx, p.ptx, p.rec.Train.MicroTokens, p.loss, func(b *data.Batch) (*lossPass, error) { return p.passes.corpus(p, b, false) })
		if err != nil {
			return ev, err
		}
		if l.tokens > 0 {
			ev.metrics["eval/ptx_loss"] = l.loss
		}
	}
	if len(p.heldOut) == 0 {
		return ev, nil
	}
	var prompts [][]int32
	for i := range p.rec.Eval.Answers {
		prompts = append(prompts, p.heldOut[i%len(p.heldOut)].ids)
	}
	answers, err := p.answer(ctx, prompts, evalSeeds, 0, p.rec.Eval.Temperature, p.rec.PPO.MaxTokens)
	if errors.Is(err, engine.ErrNotFinite) {
		return ev, nil // diverged weights: the loop counts skipped steps and says so
	}
	if err != nil {
		return ev, err
	}
	x := newExperience(answers)
	if err := p.judge(ctx, x, p.rec.Eval.Temperature, false); err != nil {
		return ev, err
	}
	var score, tokens, finished float64
	for i := range answers {
		score += float64(x.scores[i])
		tokens += float64(answers[i].length())
		if answers[i].finished {
			finished++
		}
	}
	n := float64(len(answers))
	kl := AnswerKL(x.logProbs, x.refLogProbs, x.starts, nil, K1)
	for name, v := range map[string]float64{"eval/reward": score / n, "eval/kl": kl, "eval/length": tokens / n, "eval/eos_rate": finished / n, "eval/answers": n} {
		ev.metrics[name] = v
	}
	if ev.ended = p.beyond(kl); ev.ended == "" && !math.IsInf(score, 0) {
		ev.merit = -score / n
	}
	return ev, nil
}

// sample answers the sample prompts and has the answers scored.
func (p *ppo) sample(ctx context.Context, step int) ([]runs.Sample, error) {
	s := p.rec.Samples
	if s.Off || len(p.samples) == 0 {
		return nil, nil
	}
	var out []runs.Sample
	for i, q := range p.samples {
		a := answer{ids: append([]int32(nil), q.ids...), prompt: len(q.ids)}
		sample := runs.Sample{Step: step, Prompt: q.text, Reference: q.reference}
		_, err := p.engine.Submit(q.ids, engine.Settings{MaxTokens: s.MaxTokens, Temperature: float32(s.Temperature), Stop: p.text.StopText(),
			Seed: p.rec.Seed + uint64(i)}, func(ev engine.Event) {
			if ev.ID >= 0 {
				a.ids = append(a.ids, ev.ID)
			}
			sample.Completion += ev.Text
			sample.Finish = string(ev.Finish)
		})
		if err != nil {
			return nil, err
		}
		if err := runEngine(ctx, p.engine); errors.Is(err, engine.ErrNotFinite) {
			p.say("no samples at step %d: %v", step, err)
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		if len(a.ids) <= p.longest {
			b := batchOf([][]int32{a.ids}, []int{a.prompt})
			scores, err := p.scoresOf(p.passes.rewards, &b)
			if err != nil {
				return nil, err
			}
			sample.Score = scoreOf(p.reward.Config.Reward.Apply(float64(scores[len(a.ids)-1])))
		}
		out = append(out, sample)
	}
	return out, nil
}
