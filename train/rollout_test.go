package train

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// TestEstimate: KL penalty, clipped score, penalties, whitened rewards, advantages and returns of a
// rollout are those of the equations, answer by answer.
func TestEstimate(t *testing.T) {
	for name, c := range map[string]struct {
		sets []string
		kl   func(d float64) float64
	}{
		"plain": {[]string{"ppo.whiten_advantages=false", "ppo.reward_clip=0", "ppo.missing_eos_penalty=0", "ppo.gamma=1", "ppo.lambda=0.95", "ppo.kl_coef=0.05"},
			func(d float64) float64 { return d }},
		"everything": {[]string{"ppo.whiten_rewards=true", "ppo.reward_clip=0.25", "ppo.missing_eos_penalty=0.7", "ppo.min_tokens=7", "ppo.short_penalty=0.4", "ppo.gamma=0.97",
			"ppo.lambda=0.9", "ppo.kl_coef=0.3", "ppo.kl_estimator=k3"}, func(d float64) float64 { return math.Exp(-d) - 1 + d }},
		"k2": {[]string{"ppo.kl_estimator=k2", "ppo.kl_coef=1", "ppo.kl_target=3"}, func(d float64) float64 { return d * d / 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPPO(t, cpu.New(), append([]string{"ppo.prompts=20", "model.reference=" + otherReference(t)}, c.sets...)...)
			r := p.rec.PPO
			x := mustGather(t, p)
			metrics := p.state.Metrics
			var rewards [][]float64
			var flat []float64
			var finished, short, clipped, tokens, score, kl float64
			for i := range x.answers {
				a := &x.answers[i]
				n := len(a.ids) - a.prompt
				own := make([]float64, n)
				for k := range own {
					d := float64(x.of(x.logProbs, i)[k]) - float64(x.of(x.refLogProbs, i)[k])
					own[k] = -r.KLCoef * c.kl(d)
					kl += d
				}
				s := float64(x.scores[i])
				score += s
				if r.RewardClip > 0 && math.Abs(s) > r.RewardClip {
					clipped++
					s = math.Copysign(r.RewardClip, s)
				}
				last := a.ids[len(a.ids)-1]
				if ended := last == 2 || last == 0; ended {
					finished++
					if !a.finished {
						t.Errorf("answer %d ended by itself", i)
					}
				} else {
					s -= r.MissingEOSPenalty
					if n != r.MaxTokens {
						t.Errorf("answer %d has %d tokens and no end", i, n)
					}
				}
				if n < r.MinTokens {
					short++
					s -= r.ShortPenalty
				}
				own[n-1] += s
				rewards, flat = append(rewards, own), append(flat, own...)
				tokens += float64(n)
			}
			n := float64(len(x.answers))
			if finished < 3 || finished > n-3 || name == "everything" && (short < 3 || short > n-3 || clipped < 3) {
				t.Fatalf("of %g answers %g ended, %g are short, %g clipped: nothing to compare", n, finished, short, clipped)
			}
			total := MaskedMean(flat, nil) * float64(len(flat))
			for name, want := range map[string]float64{"ppo/reward": total / n, "ppo/score": score / n, "ppo/length": tokens / n, "ppo/eos_rate": finished / n,
				"ppo/clipped_scores": clipped / n, "ppo/kl": kl / n, "ppo/kl_coef": r.KLCoef} {
				wantNear(t, name, metrics[name], want, 1e-5)
			}
			if r.WhitenRewards {
				deviation, mean := spread(flat)
				for _, own := range rewards {
					for k := range own {
						own[k] = (own[k]-mean)/deviation + mean
					}
				}
			}
			var advantages, returns []float64
			for i, own := range rewards {
				values := x.of(x.values, i)
				out := make([]float64, len(own))
				next, after := 0.0, 0.0
				for k := len(own) - 1; k >= 0; k-- {
					v := float64(values[k])
					next = own[k] + r.Gamma*after - v + r.Gamma*r.Lambda*next
					out[k], after = next, v
				}
				advantages = append(advantages, out...)
				for k := range out {
					returns = append(returns, out[k]+float64(values[k]))
				}
			}
			if r.WhitenAdvantages {
				deviation, mean := spread(advantages)
				for i := range advantages {
					advantages[i] = (advantages[i] - mean) / deviation
				}
			}
			for i := range advantages {
				wantNear(t, "advantage", float64(x.advantages[i]), advantages[i], 1e-4)
				wantNear(t, "return", float64(x.returns[i]), returns[i], 1e-4)
			}
			wantCoef := r.KLCoef
			if r.KLTarget > 0 {
				e := math.Max(-0.2, math.Min(0.2, (kl/n-r.KLTarget)/r.KLTarget))
				wantCoef *= 1 + e*n/r.KLHorizon
				if wantCoef == r.KLCoef {
					t.Error("the coefficient stays")
				}
			}
			wantNear(t, "next kl_coef", p.kl.Coef, wantCoef, 1e-6)
		})
	}
}

// spread is the deviation, over n, and the mean of numbers.
func spread(x []float64) (deviation, mean float64) {
	mean = MaskedMean(x, nil)
	for _, v := range x {
		deviation += (v - mean) * (v - mean) / float64(len(x))
	}
	return math.Sqrt(deviation), mean
}

// TestMinibatches: each epoch goes through a rollout's answers once, in an order of its own.
func TestMinibatches(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.minibatches=3", "ppo.epochs=2", "ppo.prompts=10", "ppo.samples=1")
	orders := map[string]bool{}
	for range 2 {
		mustGather(t, p)
		for epoch := range 2 {
			var all []int
			for part := range 3 {
				p.state.Used = 3*epoch + part
				list := p.minibatch()
				if len(list) < 3 || len(list) > 4 {
					t.Errorf("a minibatch of %d of 10 answers", len(list))
				}
				all = append(all, list...)
			}
			orders[fmt.Sprint(all)] = true
			slices.Sort(all)
			if !slices.Equal(all, allOf(10)) {
				t.Errorf("an epoch takes %v", all)
			}
		}
		p.state.Used, p.rollout = 0, nil
	}
	if len(orders) != 4 {
		t.Errorf("%d different orders in four epochs", len(orders))
	}
}

// TestPrompts: each prompt of a rollout has its samples, and an answer goes to its first end, if
// it has one.
func TestPrompts(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.prompts=6", "ppo.samples=3")
	for range 3 {
		x := mustGather(t, p)
		asked := &p.batch.Micro[0]
		for i := range x.answers {
			a := &x.answers[i]
			if !slices.Equal(a.ids[:a.prompt], asked.IDs[asked.Starts[i/3]:asked.Starts[i/3+1]]) {
				t.Errorf("answer %d is not to prompt %d", i, i/3)
			}
			if said := a.ids[a.prompt : len(a.ids)-1]; slices.Contains(said, 0) || slices.Contains(said, 2) {
				t.Errorf("answer %d goes on after its end: %v", i, said)
			}
		}
		p.rollout = nil
	}
}

// TestAnswersDiffer: no two answers of a run draw from one stream, be they to one prompt in one
// rollout or in several, or those of an evaluation.
func TestAnswersDiffer(t *testing.T) {
	file := jsonl(t, `{"prompt": "say the big red cat"}`)
	p := testPPO(t, cpu.New(), "data.prompts=["+file+"]", "data.held_out=0", "ppo.prompts=2", "ppo.samples=8", "ppo.temperature=1.5", "samples.off=true")
	distinct := map[string]bool{}
	total := 0
	for range 4 {
		x := mustGather(t, p)
		for i := range x.answers {
			distinct[fmt.Sprint(x.answers[i].ids)] = true
			total++
		}
		p.rollout = nil
	}
	answers, err := p.answer(t.Context(), slices.Repeat([][]int32{p.batch.Micro[0].IDs[:p.batch.Micro[0].Starts[1]]}, 16), evalSeeds, 0, 1.5, p.rec.PPO.MaxTokens)
	if err != nil {
		t.Fatal(err)
	}
	for i := range answers {
		distinct[fmt.Sprint(answers[i].ids)] = true
		total++
	}
	if total != 80 || len(distinct) < 72 {
		t.Errorf("%d different answers of %d", len(distinct), total)
	}
}

// TestNothingIsCutOff: tokens are sampled from the whole distribution whose log-probabilities are
// recorded. Then their mean is the entropy's negative; a top_k, a top_p or another temperature
// would raise it.
func TestNothingIsCutOff(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.prompts=100", "ppo.samples=8", "ppo.minibatches=1", "train.micro_tokens=4096", "ppo.temperature=1.3")
	x := mustGather(t, p)
	l, err := p.gradients(p.minibatch(), true)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(x.logProbs); n < 4000 || l.entropy < 1 {
		t.Fatalf("%d tokens of entropy %.2f", n, l.entropy)
	}
	wantNear(t, "mean log-probability", -MaskedMean(x.logProbs, nil), l.entropy, 0.06)
}

// TestEmptyAnswers are counted.
func TestEmptyAnswers(t *testing.T) {
	dir := folderCopy(t, "actor")
	changeModel(t, dir, func(m *model.Model) {
		w := tensor.GetFloat32(m.Store.Param("model.embed_tokens.weight").Value)
		h := hiddenAfterPrompt(t, m)
		setAll(m, "model.embed_tokens.weight", func(i int) float32 { // the likeliest first token ends the turn
			if i/16 == 2 {
				return 2 * h[i%16]
			}
			return w[i]
		})
	})
	p := testPPO(t, cpu.New(), "model.actor="+dir, "ppo.min_tokens=3", "ppo.short_penalty=2")
	x := mustGather(t, p)
	empty := 0.0
	for i := range x.answers {
		if a := &x.answers[i]; a.length() == 1 && a.ids[a.prompt] == 2 {
			empty++
			if !a.empty || !a.finished {
				t.Errorf("answer %d: %+v", i, a)
			}
		} else if a.empty {
			t.Errorf("answer %d says something: %v", i, a.ids[a.prompt:])
		}
	}
	if empty == 0 {
		t.Fatal("no answer is empty")
	}
	wantNear(t, "ppo/empty_rate", p.state.Metrics["ppo/empty_rate"], empty/float64(len(x.answers)), 1e-9)
	if mustStep(t, p, 0).skipped {
		t.Error("empty answers can't be learned from")
	}
}

// hiddenAfterPrompt is a model's last hidden state after a prompt of the shared data.
func hiddenAfterPrompt(t testing.TB, m *model.Model) []float32 {
	t.Helper()
	p := testPPO(t, cpu.New())
	ids := p.heldOut[0].ids
	in, err := newPacked(m.Device(), shape{tokens: len(ids), sequences: 1, longest: len(ids)})
	if err != nil {
		t.Fatal(err)
	}
	defer in.free()
	b := batchOf([][]int32{ids}, []int{1})
	tape := autograd.NewTape(m.Device())
	h, err := in.hidden(m, tape, "none", nil)
	if err != nil {
		t.Fatal(err)
	}
	h = tape.Output(h)
	arena := autograd.NewArena(m.Device())
	defer arena.Free()
	prog, err := tape.Compile(arena, autograd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in.load(&b)
	prog.Forward()
	return tensor.GetFloat32(h.Value())[16*(len(ids)-1):]
}

// TestEndIsLearned: the token that ends a turn is a target of fine-tuning, a ranking's score is
// read there, and sampling stops there, even where a tokenizer pads with that token.
func TestEndIsLearned(t *testing.T) {
	actor, rm := folderCopy(t, "actor"), folderCopy(t, "reward")
	for _, dir := range []string{actor, rm} {
		setJSON(t, filepath.Join(dir, "tokenizer_config.json"), map[string]any{"pad_token": "<|im_end|>"})
	}
	sft := testTrainer(t, fromFolder(t, actor), "sft", cpu.New())
	if pad, ok := sft.text.Tokenizer.PAD(); !ok || pad != 2 {
		t.Fatalf("the padding token is %d", pad)
	}
	for i := 0; ; i++ {
		q, ok := sft.data.Sequence(i)
		if !ok {
			break
		}
		last := len(q.Trained) - 1
		for !q.Trained[last] {
			last--
		}
		if q.IDs[last] != 2 {
			t.Errorf("row %d: the last token trained on is %d", i, q.IDs[last])
		}
	}
	r := testReward(t, cpu.New(), "model="+actor)
	q, _ := r.data.Sequence(0)
	for _, a := range q.Answers {
		if q.IDs[a.To-1] != 2 {
			t.Errorf("an answer ends with token %d", q.IDs[a.To-1])
		}
	}
	p := testPPO(t, cpu.New(), "model.actor="+actor, "model.reward="+rm)
	x, ended := mustGather(t, p), 0
	for i := range x.answers {
		if a := &x.answers[i]; a.ids[len(a.ids)-1] == 2 && a.finished {
			ended++
		}
	}
	if ended == 0 {
		t.Error("no answer ends")
	}
}
