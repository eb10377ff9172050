package train

import (
	"errors"
	"maps"
	"math"
	"time"

	"ringtail/data"
	"ringtail/model"
	"ringtail/rng"
	"ringtail/tensor"
)

// updateScratch are the slices that each step uses anew.
type updateScratch struct {
	rows    [][]int32
	prompts []int
	order   []int

	// Of the tokens of a micro-batch's answers, end to end.
	now, old, ref, advantages, values, oldValues, returns []float32
	grad                                                  []float32
	// At each token of the packed row.
	seed, seedEntropy []float32
}

// zeroed makes a slice of n zeros, reusing s.
func zeroed(s []float32, n int) []float32 {
	if cap(s) < n {
		s = make([]float32, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// minibatch are the answers that the next step learns from: a part of the rollout
// in the order of the present epoch.
func (p *ppo) minibatch() []int {
	r := p.rec.PPO
	epoch, part := p.state.Used/r.Minibatches, p.state.Used%r.Minibatches
	n := len(p.rollout.answers)
	order := p.scratch.order[:0]
	for i := range n {
		order = append(order, i)
	}
	s := rng.New(p.rec.Seed, orderStream, 0)
	s.Seek(s.At(uint64(p.state.Rollouts*r.Epochs+epoch)) >> 16)
	s.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	p.scratch.order = order
	return order[part*n/r.Minibatches : (part+1)*n/r.Minibatches]
}

// update makes one optimizer step of critic and actor with a minibatch of the
// rollout. The actor rests during the critic's warm-up.
func (p *ppo) update(step int) (stepResult, error) {
	r := p.rec.PPO
	if p.state.PassedOver {
		return stepResult{lr: p.actorLearner.sched.At(step), metrics: map[string]float64{"ppo/passed_over": 1}}, nil
	}
	clock := time.Now()
	acts := p.state.Rollouts > r.CriticWarmup
	out := stepResult{metrics: map[string]float64{}}
	l, err := p.gradients(p.minibatch(), acts)
	if err != nil {
		return out, err
	}
	if err := p.learn(step, acts, &out); err != nil {
		return out, err
	}
	out.tokens = l.tokens
	out.loss = l.policy.Loss + l.value.Loss + l.kl - r.EntropyCoef*l.entropy + r.PTXCoef*l.ptx
	maps.Copy(out.metrics, map[string]float64{"ppo/value_loss": l.value.Loss, "ppo/value_clip_fraction": l.value.ClipFraction,
		"time/update": time.Since(clock).Seconds()})
	if acts {
		maps.Copy(out.metrics, map[string]float64{"ppo/policy_loss": l.policy.Loss, "ppo/entropy": l.entropy, "ppo/ratio": l.policy.Ratio,
			"ppo/ratio_max_dev": l.policy.MaxDeviation, "ppo/clip_fraction": l.policy.ClipFraction, "ppo/approx_kl": l.policy.ApproxKL})
		if p.ptxLoader != nil {
			out.metrics["ppo/ptx_loss"] = l.ptx
		}
		if p.state.Used == 0 && l.policy.MaxDeviation > ratioTolerance(p.dev.Float()) {
			p.say("warning: ratios of the first minibatch should be 1, but one is off by %.2g: sampling and training don't compute the same probabilities", l.policy.MaxDeviation)
		}
		p.state.PassedOver = r.TargetKL > 0 && l.policy.ApproxKL > r.TargetKL
	}
	return out, nil
}

// updateLosses are the losses of a minibatch, means over its tokens, before coefficients but for kl.
type updateLosses struct {
	policy           PolicyStats
	value            ValueStats
	entropy, kl, ptx float64
	tokens           int // seen, prompts and ptx rows included
}

// gradients makes the gradients of both models for a minibatch: of policy loss and, on a
// corpus, cross-entropy by the actor, where it acts, and of the value loss by the critic.
func (p *ppo) gradients(list []int, acts bool) (l updateLosses, err error) {
	n := 0
	for _, i := range list {
		n += p.rollout.answers[i].length()
		l.tokens += len(p.rollout.answers[i].ids)
	}
	p.actorLearner.zero()
	p.criticLearner.zero()
	err = p.eachMicro(p.rollout, list, func(list []int, b *data.Batch) error {
		if acts {
			s, h, k, err := p.policyGradient(list, b, n)
			if err != nil {
				return err
			}
			l.policy.Add(s)
			l.entropy += h
			l.kl += k
		}
		s, err := p.valueGradient(list, b, n)
		l.value.Add(s)
		return err
	})
	if err == nil && acts && p.ptxLoader != nil {
		l.ptx, err = p.ptxGradient()
		l.tokens += p.ptxBatch.Tokens
	}
	return l, err
}

// ratioTolerance is how far rounding may move a ratio of the first minibatch from 1: in a
// 16-bit type logits of tens are off by tenths.
func ratioTolerance(float tensor.Dtype) float64 {
	if float.Wide() != float {
		return 0.5
	}
	return 0.05
}

// policyGradient adds the gradient of the policy's loss on a micro-batch to the
// actor's, n being the tokens of the minibatch. It also returns the entropy and the KL loss, means over n.
func (p *ppo) policyGradient(list []int, b *data.Batch, n int) (stats PolicyStats, entropy, klLoss float64, err error) {
	r, x, s := p.rec.PPO, p.rollout, &p.scratch
	pass, err := p.passes.logProbs(p, p.actor, b, true, r.Temperature, true)
	if err != nil {
		return stats, 0, 0, err
	}
	pass.load(b)
	pass.prog.Forward()
	if err := p.dev.Sync(); err != nil {
		return stats, 0, 0, err
	}
	logProbs, entropies := pass.read()
	s.now, s.old, s.ref, s.advantages = s.now[:0], s.old[:0], s.ref[:0], s.advantages[:0]
	for k, i := range list {
		at, length := x.firstTarget(b, k, i), x.answers[i].length()
		s.now = append(s.now, logProbs[at:at+length]...)
		s.old = append(s.old, x.of(x.logProbs, i)...)
		s.ref = append(s.ref, x.of(x.refLogProbs, i)...)
		s.advantages = append(s.advantages, x.of(x.advantages, i)...)
		for _, h := range entropies[at : at+length] {
			entropy += float64(h) / float64(n)
		}
	}
	s.grad = zeroed(s.grad, len(s.now))
	stats = PolicyLoss(s.grad, s.now, s.old, s.advantages, nil, r.clips(), n)
	klLoss = AddKLLoss(s.grad, s.now, s.ref, nil, K3, r.KLLossCoef, n)
	s.seed, s.seedEntropy = zeroed(s.seed, pass.tokens), zeroed(s.seedEntropy, pass.tokens)
	done := 0
	for k, i := range list {
		at, length := x.firstTarget(b, k, i), x.answers[i].length()
		copy(s.seed[at:at+length], s.grad[done:])
		for t := range length {
			s.seedEntropy[at+t] = float32(-r.EntropyCoef / float64(n))
		}
		done += length
	}
	pass.backward(s.seed, s.seedEntropy)
	return stats, entropy, klLoss, nil
}

// valueGradient adds the gradient of the value loss on a micro-batch to the critic's. Values are normalised like
// the scores, V = (raw − mean)/std, so the raw output's gradient is 1/std of theirs.
func (p *ppo) valueGradient(list []int, b *data.Batch, n int) (ValueStats, error) {
	r, x, s := p.rec.PPO, p.rollout, &p.scratch
	norm := p.critic.Config.Reward
	pass, err := p.passes.values(p, b, true)
	if err != nil {
		return ValueStats{}, err
	}
	pass.load(b)
	pass.prog.Forward()
	if err := p.dev.Sync(); err != nil {
		return ValueStats{}, err
	}
	raw := pass.read()
	s.values, s.oldValues, s.returns = s.values[:0], s.oldValues[:0], s.returns[:0]
	for k, i := range list {
		at := x.firstTarget(b, k, i)
		for _, v := range raw[at : at+x.answers[i].length()] {
			s.values = append(s.values, float32(norm.Apply(float64(v))))
		}
		s.oldValues = append(s.oldValues, x.of(x.values, i)...)
		s.returns = append(s.returns, x.of(x.returns, i)...)
	}
	s.grad = zeroed(s.grad, len(s.values))
	stats := ValueLoss(s.grad, s.values, s.oldValues, s.returns, nil, orNone(r.ValueClip), n)
	s.seed = zeroed(s.seed, pass.tokens)
	done := 0
	for k, i := range list {
		at := x.firstTarget(b, k, i)
		for t := range x.answers[i].length() {
			s.seed[at+t] = float32(float64(s.grad[done]) / norm.Std)
			done++
		}
	}
	pass.backward(s.seed)
	return stats, nil
}

// ptxGradient adds the gradient of ptx_coef times the cross-entropy of the next rows of
// the corpus to the actor's, and returns the cross-entropy.
func (p *ppo) ptxGradient() (float64, error) {
	if !p.ptxLoader.Next(&p.ptxBatch) {
		return 0, errors.New("data.ptx has no row to train on")
	}
	p.dev.Ops().Zero(p.loss)
	tensor.SetFloat64(p.scale, []float64{p.rec.PPO.PTXCoef / float64(max(p.ptxBatch.Trained, 1))})
	for i := range p.ptxBatch.Micro {
		b := &p.ptxBatch.Micro[i]
		pass, err := p.passes.corpus(p, b, true)
		if err != nil {
			return 0, err
		}
		pass.load(b)
		pass.prog.ForwardBackward()
	}
	loss, err := tensor.GetFloat64Later(p.loss)()
	return loss[0] / math.Max(loss[1], 1), err
}

// learn makes the optimizer step of both models, and moves the running mean of the actor's
// weights. Where a gradient of either isn't finite nothing changes.
func (p *ppo) learn(step int, acts bool, out *stepResult) error {
	p.criticLearner.begin(step)
	if acts {
		p.actorLearner.begin(step)
		p.actorLearner.update(p.criticLearner.sumSquares())
		p.criticLearner.update(p.actorLearner.sumSquares())
	} else {
		p.criticLearner.update(tensor.Tensor{})
	}
	norm, skipped, err := p.criticLearner.outcome()()
	if err != nil {
		return err
	}
	out.lr, out.gradNorm, out.skipped = p.criticLearner.lr(), norm, skipped
	out.metrics["ppo/critic_grad_norm"] = norm
	if acts {
		out.lr = p.actorLearner.lr()
		if out.gradNorm, _, err = p.actorLearner.outcome()(); err != nil {
			return err
		}
	}
	if acts && !skipped && p.average != nil {
		return p.average.Average(p.actor.Store, p.rec.PPO.EMA)
	}
	return nil
}

// logProbs finds or compiles the pass to log-probabilities of the actor or the reference.
func (c *ppoPasses) logProbs(p *ppo, m *model.Model, b *data.Batch, train bool, temperature float64, entropy bool) (*logProbPass, error) {
	passes := c.actor
	if m == p.reference {
		passes = c.reference
	}
	key := logProbKey{p.shape(b, train), temperature}
	if pass := passes[key]; pass != nil {
		return pass, nil
	}
	pass, err := newLogProbPass(m, p.arena, key.shape, p.rec.Train.Recompute, temperature, entropy)
	if err == nil {
		passes[key] = pass
	}
	return pass, err
}

// rewards finds or compiles the reward model's pass.
func (c *ppoPasses) rewards(p *ppo, b *data.Batch, train bool) (*scorePass, error) {
	return scorePassOf(c.reward, p, p.reward, b, train)
}

// values finds or compiles the critic's pass.
func (c *ppoPasses) values(p *ppo, b *data.Batch, train bool) (*scorePass, error) {
	return scorePassOf(c.critic, p, p.critic, b, train)
}

func scorePassOf(passes map[shape]*scorePass, p *ppo, m *model.Model, b *data.Batch, train bool) (*scorePass, error) {
	s := p.shape(b, train)
	if pass := passes[s]; pass != nil {
		return pass, nil
	}
	pass, err := newScorePass(m, p.arena, s, p.rec.Train.Recompute, nil)
	if err == nil {
		passes[s] = pass
	}
	return pass, err
}

// corpus finds or compiles the pass to the cross-entropy of the ptx corpus.
func (c *ppoPasses) corpus(p *ppo, b *data.Batch, train bool) (*lossPass, error) {
	s := shapeOf(b, p.rec.Train.MicroTokens, longestOf(p.ptx.MaxLength(), p.rec.Train.MicroTokens), train)
	if pass := c.ptx[s]; pass != nil {
		return pass, nil
	}
	pass, err := newLossPass(p.actor, p.arena, s, p.rec.Train.Recompute, nil, p.loss, p.scale)
	if err == nil {
		c.ptx[s] = pass
	}
	return pass, err
}
