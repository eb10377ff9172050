package train

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"ringtail/autograd"
	"ringtail/data"
	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

func devices() map[string]func() tensor.Device {
	return map[string]func() tensor.Device{"cpu": func() tensor.Device { return cpu.New() }, "ref": func() tensor.Device { return ref.New() }}
}

// TestFirstMinibatch: in the first minibatch of every rollout the policy that learns is the
// one that acted: all ratios are 1. In the next it isn't.
func TestFirstMinibatch(t *testing.T) {
	for name, open := range devices() {
		for _, temperature := range []string{"1", "0.7"} {
			for _, micro := range []string{"64", "1024"} {
				if testing.Short() && name == "ref" && (micro == "1024" || temperature == "1") {
					continue
				}
				t.Run(name+"/"+temperature+"/"+micro, func(t *testing.T) {
					t.Parallel()
					p := testPPO(t, open(), "ppo.temperature="+temperature, "train.micro_tokens="+micro, "ppo.minibatches=2", "ppo.kl_loss_coef=0.01",
						"train.warmup=0", "train.lr=0.003")
					cuts := 0
					moved := 0.0
					for step := range 6 {
						r := mustStep(t, p, step)
						m := r.metrics
						if step%2 == 1 {
							moved = max(moved, m["ppo/ratio_max_dev"])
							continue
						}
						if err := p.eachMicro(p.rollout, p.minibatch(), func([]int, *data.Batch) error { cuts++; return nil }); err != nil {
							t.Fatal(err)
						}
						wantNear(t, "ratio", m["ppo/ratio"], 1, 1e-5)
						wantNear(t, "largest deviation of a ratio", m["ppo/ratio_max_dev"], 0, 1e-4)
						wantNear(t, "approximate KL", m["ppo/approx_kl"], 0, 1e-8)
						wantNear(t, "clip fraction", m["ppo/clip_fraction"], 0, 0)
					}
					if moved < 1e-2 {
						t.Errorf("ratios of later minibatches are off by %g only: nothing is learned", moved)
					}
					if micro == "64" && cuts < 6 {
						t.Errorf("%d micro-batches in three minibatches", cuts)
					}
				})
			}
		}
	}
}

// TestJudgement: what the models make of a rollout's answers, packed with others, is what
// they make of each alone: the reference's log-probabilities at the temperature of
// sampling, the score at the last real token, and the value before each token, normalised both.
func TestJudgement(t *testing.T) {
	const temperature = 0.7
	p := testPPO(t, cpu.New(), fmt.Sprintf("ppo.temperature=%g", temperature), "model.critic="+otherCritic(t))
	x := mustGather(t, p)
	lengths := map[int]bool{}
	var worstRef, worstOwn float64
	for i := range x.answers {
		a := &x.answers[i]
		lengths[a.length()] = true
		b := batchOf([][]int32{a.ids}, []int{a.prompt})
		raw := func(pass func(*ppo, *data.Batch, bool) (*scorePass, error)) []float32 {
			tokens, err := p.scoresOf(pass, &b)
			if err != nil {
				t.Fatal(err)
			}
			return slices.Clone(tokens)
		}
		scores, values := raw(p.passes.rewards), raw(p.passes.values)
		wantNear(t, "score", float64(x.scores[i]), (float64(scores[len(a.ids)-1])-2)/3, 1e-4)
		for k, v := range x.of(x.values, i) {
			wantNear(t, "value", float64(v), (float64(values[a.prompt+k-1])-0.5)/0.25, 1e-4)
		}
		// Log-probabilities from the logits, by the pure function.
		logits := logitsOf(t, p, a.ids)
		logProbs := make([]float64, len(a.ids))
		targets := append(slices.Clone(a.ids[1:]), -1)
		TokenLogProbs(logProbs, nil, logits, p.actor.Config.Vocab, targets, temperature)
		for k := range x.of(x.logProbs, i) {
			worstRef = max(worstRef, math.Abs(float64(x.of(x.refLogProbs, i)[k])-logProbs[a.prompt+k-1]))
			worstOwn = max(worstOwn, math.Abs(float64(x.of(x.logProbs, i)[k])-logProbs[a.prompt+k-1]))
		}
	}
	if worstRef > 1e-5 || worstOwn > 1e-5 {
		t.Errorf("log-probabilities are off by %.2g (reference) and %.2g (sampling)", worstRef, worstOwn)
	}
	if len(lengths) < 3 {
		t.Errorf("answers of lengths %v: not ragged", lengths)
	}
}

// otherCritic is a critic of other weights and another normalisation than the reward model.
func otherCritic(t testing.TB) string {
	dir := folderCopy(t, "reward")
	setConfig(t, dir, map[string]any{"ringtail": map[string]any{"reward_mean": 0.5, "reward_std": 0.25}})
	changeModel(t, dir, func(m *model.Model) {
		w := tensor.GetFloat32(m.Store.Param("score.weight").Value)
		setAll(m, "score.weight", func(i int) float32 { return 0.3*w[i] + 0.02*float32(i-8) })
	})
	return dir
}

// logitsOf are the actor's logits at each token of a row, [tokens, vocabulary].
func logitsOf(t testing.TB, p *ppo, ids []int32) []float64 {
	t.Helper()
	s := shape{tokens: len(ids), sequences: 1, longest: len(ids)}
	in, err := newPacked(p.dev, s)
	if err != nil {
		t.Fatal(err)
	}
	defer in.free()
	b := batchOf([][]int32{ids}, []int{1})
	tape := autograd.NewTape(p.dev)
	h, err := in.hidden(p.actor, tape, "none", nil)
	if err != nil {
		t.Fatal(err)
	}
	logits := tape.Output(p.actor.Logits(tape, h))
	prog, err := tape.Compile(p.arena, autograd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in.load(&b)
	prog.Forward()
	return tensor.GetFloat64(logits.Value())
}

// TestPPOGradients: the gradients of both models through all of their layers are those of finite
// differences of PPO's objective over a frozen rollout, whose ratios have moved and are
// clipped in part: policy loss with two clips, KL loss, entropy bonus, cross-entropy of the corpus; and value
// loss, clipped and normalised.
func TestPPOGradients(t *testing.T) {
	const temperature = 0.7
	p := testPPO(t, ref.New(), fmt.Sprintf("ppo.temperature=%g", temperature), "ppo.prompts=3", "ppo.samples=2", "ppo.max_tokens=6", "ppo.minibatches=1", "ppo.epochs=9",
		"ppo.clip=0.1", "ppo.clip_high=0.15", "ppo.dual_clip=1.05", "ppo.kl_loss_coef=0.3", "ppo.entropy_coef=0.05", "ppo.ptx_coef=0.2", "ppo.ptx_batch=2",
		"ppo.value_clip=0.05", "train.lr=0.02", "train.warmup=0", "train.micro_tokens=64", "model.critic="+otherCritic(t), "train.recompute=true", "ppo.whiten_advantages=true")
	for step := range 3 { // away from the policy that acted
		mustStep(t, p, step)
	}
	x, list := p.rollout, p.minibatch()
	before := p.ptxLoader.State()
	l, err := p.gradients(list, true)
	if err != nil {
		t.Fatal(err)
	}
	if l.policy.ClipFraction < 0.05 || l.policy.ClipFraction > 0.9 || l.value.ClipFraction < 0.05 || l.value.ClipFraction > 0.9 || l.kl < 1e-4 {
		t.Errorf("nothing to test: %+v", l)
	}
	n := 0
	for _, i := range list {
		n += x.answers[i].length()
	}
	flat := func(v []float32) (out []float64) {
		for _, i := range list {
			for _, f := range x.of(v, i) {
				out = append(out, float64(f))
			}
		}
		return out
	}
	old, reference, advantages, oldValues, returns := flat(x.logProbs), flat(x.refLogProbs), flat(x.advantages), flat(x.values), flat(x.returns)

	var ptx float64
	policy := func() float64 {
		var now []float64
		entropy := 0.0
		err := p.eachMicro(x, list, func(part []int, b *data.Batch) error {
			pass, err := p.passes.logProbs(p, p.actor, b, true, temperature, true)
			if err != nil {
				return err
			}
			pass.load(b)
			pass.prog.Forward()
			logProbs, entropies := tensor.GetFloat64(pass.logProbs.Value()), tensor.GetFloat64(pass.entropies.Value())
			for k, i := range part {
				at := int(b.Starts[k]) + x.answers[i].prompt - 1
				now = append(now, logProbs[at:at+x.answers[i].length()]...)
				for _, h := range entropies[at : at+x.answers[i].length()] {
					entropy += h / float64(n)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		loss := PolicyLoss(nil, now, old, advantages, nil, PolicyClip{Low: 0.1, High: 0.15, Dual: 1.05}, n).Loss
		loss += AddKLLoss(nil, now, reference, nil, K3, 0.3, n) - 0.05*entropy
		if err := p.ptxLoader.Restore(before); err != nil {
			t.Fatal(err)
		}
		if ptx, err = p.ptxGradient(); err != nil { // its gradients are compared no more
			t.Fatal(err)
		}
		return loss + 0.2*ptx
	}
	grads := gradients(p.actor)
	total := policy()
	wantNear(t, "policy's loss", l.policy.Loss+l.kl-0.05*l.entropy+0.2*l.ptx, total, 1e-6*total)
	checkModelGradient(t, p.actor, grads, 1e-4, policy)

	value := func() float64 {
		var now []float64
		err := p.eachMicro(x, list, func(part []int, b *data.Batch) error {
			pass, err := p.passes.values(p, b, true)
			if err != nil {
				return err
			}
			pass.load(b)
			pass.prog.Forward()
			raw := tensor.GetFloat64(pass.scores.Value())
			for k, i := range part {
				at := int(b.Starts[k]) + x.answers[i].prompt - 1
				for _, v := range raw[at : at+x.answers[i].length()] {
					now = append(now, (v-0.5)/0.25)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return ValueLoss(nil, now, oldValues, returns, nil, 0.05, n).Loss
	}
	wantNear(t, "value loss", l.value.Loss, value(), 1e-4*l.value.Loss)
	checkModelGradient(t, p.critic, gradients(p.critic), 1e-4, value)
}

// TestPPOMicroTokens: the same answers, judgement and gradients, however many tokens are
// computed at once.
func TestPPOMicroTokens(t *testing.T) {
	for name, c := range map[string]struct {
		open func() tensor.Device
		most float64
	}{"cpu": {func() tensor.Device { return cpu.New() }, 2e-4}, "ref": {func() tensor.Device { return ref.New() }, 2e-6}} {
		if testing.Short() && name == "ref" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var want *ppo
			var losses updateLosses
			for _, micro := range []string{"4096", "64", "130"} {
				p := testPPO(t, c.open(), "train.micro_tokens="+micro, "ppo.ptx_coef=0.3", "ppo.entropy_coef=0.01", "ppo.kl_loss_coef=0.01", "ppo.whiten_advantages=true", "ppo.minibatches=1")
				for step := range 2 { // with an update between two rollouts
					if mustStep(t, p, step); p.rollout != nil {
						t.Fatal("a rollout is left")
					}
				}
				x := mustGather(t, p)
				l, err := p.gradients(p.minibatch(), true)
				if err != nil {
					t.Fatal(err)
				}
				if want == nil {
					want, losses = p, l
					continue
				}
				for i := range x.answers {
					if !slices.Equal(x.answers[i].ids, want.rollout.answers[i].ids) {
						t.Fatalf("answer %d is another one with micro_tokens %s", i, micro)
					}
				}
				wantNear(t, "value loss", l.value.Loss, losses.value.Loss, 1e-3*losses.value.Loss)
				wantNear(t, "cross-entropy", l.ptx, losses.ptx, 1e-5*losses.ptx)
				if l.tokens != losses.tokens {
					t.Errorf("%d tokens, want %d", l.tokens, losses.tokens)
				}
				sameGradients(t, "actor, micro_tokens "+micro, gradients(p.actor), gradients(want.actor), c.most)
				sameGradients(t, "critic, micro_tokens "+micro, gradients(p.critic), gradients(want.critic), c.most)
			}
		})
	}
}

// TestPTX: the gradient of the corpus is ptx_coef times that of fine-tuning on the same rows,
// and comes on top of the policy's.
func TestPTX(t *testing.T) {
	fix := rlFixture(t)
	for name, open := range devices() {
		t.Run(name, func(t *testing.T) {
			p := testPPO(t, open(), "ppo.ptx_coef=0.7", "ppo.ptx_batch=6", "train.micro_tokens=128")
			mustGather(t, p)
			p.actor.Store.ZeroGrads()
			loss, err := p.ptxGradient()
			if err != nil {
				t.Fatal(err)
			}
			if p.ptxBatch.Sequences != 6 || len(p.ptxBatch.Micro) < 2 {
				t.Fatalf("%d rows in %d micro-batches", p.ptxBatch.Sequences, len(p.ptxBatch.Micro))
			}
			own := gradients(p.actor)
			sft := testTrainer(t, fromFolder(t, filepath.Join(fix, "actor")), "sft", open())
			if err := sft.gradients(&p.ptxBatch); err != nil {
				t.Fatal(err)
			}
			want := gradients(sft.model)
			for _, g := range want {
				for i := range g {
					g[i] *= 0.7
				}
			}
			sameGradients(t, "ptx", own, want, 1e-5)
			v := tensor.GetFloat64(sft.loss)
			wantNear(t, "cross-entropy", loss, v[0]/v[1], 1e-6)

			// Both together are the sum of each alone.
			rows, list := p.ptxLoader.State(), p.minibatch()
			both := func(coef float64) map[string][]float64 {
				if err := p.ptxLoader.Restore(rows); err != nil {
					t.Fatal(err)
				}
				p.rec.PPO.PTXCoef = coef
				if _, err := p.gradients(list, true); err != nil {
					t.Fatal(err)
				}
				return gradients(p.actor)
			}
			none, some := both(0), both(0.7)
			if err := p.ptxLoader.Restore(rows); err != nil {
				t.Fatal(err)
			}
			p.actor.Store.ZeroGrads()
			if _, err := p.ptxGradient(); err != nil {
				t.Fatal(err)
			}
			for name, g := range gradients(p.actor) {
				for i := range g {
					none[name][i] += g[i]
				}
			}
			sameGradients(t, "policy and ptx", some, none, 1e-5)
		})
	}
}
