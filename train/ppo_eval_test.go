package train

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/runs"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// TestPPOEvaluation: answers to held-out prompts alone, from the same seeds each time, scored
// without clips and penalties; training isn't disturbed.
func TestPPOEvaluation(t *testing.T) {
	p := testPPO(t, cpu.New(), "eval.answers=16", "ppo.ptx_coef=0.1", "ppo.reward_clip=0.01", "ppo.minibatches=2", "eval.temperature=0.9", "ppo.kl_stop=40")
	if n := len(p.heldOut); n < 3 || n > 15 {
		t.Fatalf("%d prompts are held out", n)
	}
	mustStep(t, p, 0) // in the middle of a rollout
	a, err := p.evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.evaluate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range a.metrics {
		if b.metrics[name] != v {
			t.Errorf("%s is %g, and then %g", name, v, b.metrics[name])
		}
	}
	// By hand.
	var prompts [][]int32
	held := map[string]bool{}
	for i := range 16 {
		prompts = append(prompts, p.heldOut[i%len(p.heldOut)].ids)
		held[fmt.Sprint(p.heldOut[i%len(p.heldOut)].ids)] = true
	}
	answers, err := p.answer(t.Context(), prompts, evalSeeds, 0, 0.9, p.rec.PPO.MaxTokens)
	if err != nil {
		t.Fatal(err)
	}
	var score, length, finished float64
	for i := range answers {
		one := batchOf([][]int32{answers[i].ids}, []int{1})
		raw, err := p.scoresOf(p.passes.rewards, &one)
		if err != nil {
			t.Fatal(err)
		}
		score += (float64(raw[len(answers[i].ids)-1]) - 2) / 3
		length += float64(answers[i].length())
		if last := answers[i].ids[len(answers[i].ids)-1]; last == 2 || last == 0 {
			finished++
		}
	}
	for name, want := range map[string]float64{"eval/reward": score / 16, "eval/length": length / 16, "eval/eos_rate": finished / 16, "eval/answers": 16} {
		wantNear(t, name, a.metrics[name], want, 1e-4)
	}
	wantNear(t, "merit", a.merit, -score/16, 1e-4)
	if v := a.metrics["eval/ptx_loss"]; !(v > 0.1 && v < 10) {
		t.Errorf("cross-entropy of held-out rows is %g", v)
	}
	if a.ended != "" || a.metrics["eval/kl"] == 0 {
		t.Errorf("%+v", a)
	}
	for range 2 { // no prompt that is held out is ever trained on
		p.rollout, p.state.Used = nil, 0
		x := mustGather(t, p)
		for i := range x.answers {
			if held[fmt.Sprint(x.answers[i].ids[:x.answers[i].prompt])] {
				t.Errorf("a held-out prompt is trained on: %v", x.answers[i].ids)
			}
		}
	}
}

// TestPPOEvaluationDoesNotDisturb: a run with evaluations and samples learns what one without
// them does.
func TestPPOEvaluationDoesNotDisturb(t *testing.T) {
	a, b := testPPO(t, cpu.New(), "ppo.minibatches=2"), testPPO(t, cpu.New(), "ppo.minibatches=2")
	for step := range 4 {
		mustStep(t, a, step)
		if _, err := b.evaluate(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustStep(t, b, step)
		if _, err := b.sample(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	same(t, storeBytes(t, b.actor), storeBytes(t, a.actor))
	same(t, storeBytes(t, b.critic), storeBytes(t, a.critic))
}

// TestPPOSamples: what samples.jsonl shows, with scores as evaluation counts them.
func TestPPOSamples(t *testing.T) {
	p := testPPO(t, cpu.New(), "samples.rows=2")
	list, err := p.sample(t.Context(), 5)
	if err != nil || len(list) != 2 {
		t.Fatal(len(list), err)
	}
	for i, s := range list {
		if s.Step != 5 || !strings.HasPrefix(s.Prompt, "say ") || s.Reference != strings.TrimPrefix(s.Prompt, "say ")+"." || s.Completion == "" || s.Finish == "" || s.Score == nil {
			t.Errorf("%+v", s)
			continue
		}
		ids := slices.Concat(p.heldOut[i].ids, answerIDs(t, p, i))
		one := batchOf([][]int32{ids}, []int{1})
		raw, err := p.scoresOf(p.passes.rewards, &one)
		if err != nil {
			t.Fatal(err)
		}
		wantNear(t, "score", *s.Score, (float64(raw[len(ids)-1])-2)/3, 1e-4)
	}
	named := testPPO(t, cpu.New(), "samples.prompts=[say cat, say dog]")
	if list, err := named.sample(t.Context(), 0); err != nil || len(list) != 2 || list[1].Prompt != "say dog" {
		t.Errorf("%+v, %v", list, err)
	}
	setAll(p.reward, "score.weight", func(int) float32 { return float32(math.NaN()) })
	if list, err := p.sample(t.Context(), 0); err != nil || list[0].Score != nil {
		t.Errorf("scores that are NaN: %+v, %v", list, err)
	}
}

// answerIDs is the greedy answer to a held-out prompt, by logits alone.
func answerIDs(t testing.TB, p *ppo, i int) []int32 {
	t.Helper()
	ids := slices.Clone(p.heldOut[i].ids)
	var answer []int32
	for len(answer) < p.rec.Samples.MaxTokens {
		logits := logitsOf(t, p, ids)
		last := logits[len(logits)-p.actor.Config.Vocab:]
		next := int32(0)
		for id := range last {
			if last[id] > last[next] {
				next = int32(id)
			}
		}
		ids, answer = append(ids, next), append(answer, next)
		if next == 2 || next == 0 {
			break
		}
	}
	return answer
}

// TestPPORun: what a whole run leaves: metrics at each step, two folders, samples.
func TestPPORun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	rec := mustPPO(t, ppoBase(rlFixture(t)), "train.rollouts=2", "ppo.ptx_coef=0.1", "ppo.kl_stop=30", "model.dtype=bfloat16")
	said, err := startRun(t.Context(), rec, "ppo", dir, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "16 answers a rollout") || !strings.Contains(said, "ptx: 23 rows") || strings.Contains(said, "warning") {
		t.Errorf("said %q", said)
	}
	for _, name := range []string{"loss", "lr", "grad_norm", "tokens", "mem_gib", "ppo/reward", "ppo/score", "ppo/kl", "ppo/kl_coef", "ppo/entropy", "ppo/ratio", "ppo/ratio_max_dev",
		"ppo/clip_fraction", "ppo/approx_kl", "ppo/policy_loss", "ppo/value_loss", "ppo/value_clip_fraction", "ppo/explained_variance", "ppo/length", "ppo/eos_rate", "ppo/empty_rate", "ppo/ptx_loss",
		"ppo/clipped_scores", "ppo/critic_grad_norm", "time/update"} {
		if s := series(t, dir, name); len(s.Values) != 4 {
			t.Errorf("%s has %d values of 4 steps", name, len(s.Values))
		}
	}
	for _, name := range []string{"time/generate", "time/score"} { // of rollouts
		if s := series(t, dir, name); !slices.Equal(s.Steps, []int64{1, 3}) {
			t.Errorf("%s at %v", name, s.Steps)
		}
	}
	for _, name := range []string{"eval/reward", "eval/kl", "eval/length", "eval/eos_rate", "eval/ptx_loss"} {
		if s := series(t, dir, name); s.Steps[0] != 0 || s.Steps[len(s.Steps)-1] != 4 {
			t.Errorf("%s at %v", name, s.Steps)
		}
	}
	for folder, want := range map[string][2]string{runs.ModelDir: {"LlamaForCausalLM", "bfloat16"}, runs.CriticDir: {"LlamaForSequenceClassification", "float32"}} {
		o := readJSON(t, filepath.Join(dir, folder, "config.json"))
		if got := fmt.Sprint(o["architectures"]); got != "["+want[0]+"]" || o["dtype"] != want[1] {
			t.Errorf("%s: %v, %v", folder, got, o["dtype"])
		}
		if folder == runs.CriticDir {
			if n, _ := o["ringtail"].(map[string]any); n["reward_mean"] != 2.0 || n["reward_std"] != 3.0 {
				t.Errorf("%s: normalised by %v", folder, n)
			}
		}
	}
	// What a run made, another takes: its actor, and its critic beside the reward model.
	next := mustPPO(t, ppoBase(rlFixture(t)), "train.rollouts=1", "model.actor="+filepath.Join(dir, runs.ModelDir), "model.critic="+filepath.Join(dir, runs.CriticDir),
		"model.reference="+filepath.Join(rlFixture(t), "actor"))
	if _, err := startRun(t.Context(), next, "ppo", filepath.Join(t.TempDir(), "run"), false, nil); err != nil {
		t.Error(err)
	}
}

// TestCriticStart: without a critic the value model starts as the reward model; one that is named
// as it is, with its own normalisation; and a language model gets a new head.
func TestCriticStart(t *testing.T) {
	p := testPPO(t, cpu.New())
	if !equalTensors(tensorsOf(p.critic.Store), tensorsOf(p.reward.Store)) || p.critic.Config.Reward != p.reward.Config.Reward {
		t.Error("the critic doesn't start as the reward model")
	}
	mustStep(t, p, 0)
	if equalTensors(tensorsOf(p.critic.Store), tensorsOf(p.reward.Store)) {
		t.Error("the critic and the reward model are one")
	}
	fresh := testPPO(t, cpu.New(), "model.critic="+filepath.Join(rlFixture(t), "actor"))
	head := tensor.GetFloat64(fresh.critic.Store.Param("score.weight").Value)
	if n := norm(head); n < 0.4 || n > 1.8 || fresh.critic.Config.Reward.Std != 1 { // 16 numbers of deviation 1/√17
		t.Errorf("a new head of norm %g, normalised by %+v", n, fresh.critic.Config.Reward)
	}
	for _, m := range []string{"reference", "reward"} {
		model := map[string]interface{ Params() (int, int) }{"reference": p.reference.Store, "reward": p.reward.Store}[m]
		if _, trained := model.Params(); trained != 0 {
			t.Errorf("%d parameters of the %s are trained", trained, m)
		}
	}
}

// TestPPODefaults are those of the guide.
func TestPPODefaults(t *testing.T) {
	rec := mustPPO(t, "model: {actor: a, reward: r}\ndata: {prompts: [x.jsonl]}\n")
	p := rec.PPO
	if p.Gamma != 1 || p.Lambda != 0.95 || p.Clip != 0.2 || p.ValueClip != 0.2 || p.RewardClip != 5 || p.KLCoef != 0.05 || p.KLStop != 10 || p.KLEstimator != "k1" ||
		p.MissingEOSPenalty != 1 || !p.WhitenAdvantages || p.WhitenRewards || p.PTXCoef != 0 || p.Temperature != 1 || p.Minibatches != 4 || p.Epochs != 1 || rec.Train.Clip != 1 {
		t.Errorf("%+v", p)
	}
	if p.clips() != (PolicyClip{Low: 0.2, High: 0.2}) {
		t.Errorf("clips %+v", p.clips())
	}
	s := rec.Train.schedule(rec.Train.LR, 100)
	if first, top, last := s.At(0), s.At(3), s.At(99); !(first < top && last < 0.2*top) {
		t.Errorf("rates %g, %g, %g", first, top, last)
	}
}

// TestOtherTemplate: a reward model that was trained on chats of another form is told of.
func TestOtherTemplate(t *testing.T) {
	dir := folderCopy(t, "reward")
	p := testPPO(t, cpu.New(), "model.reward="+dir)
	if said := p.describe(&runs.Info{}); strings.Contains(said, "note:") {
		t.Errorf("said %q of equal templates", said)
	}
	editFile(t, filepath.Join(dir, "chat_template.jinja"), "<|im_start|>", "<|im_end|>")
	p = testPPO(t, cpu.New(), "model.reward="+dir)
	if said := p.describe(&runs.Info{}); !strings.Contains(said, "note: model.reward "+dir) || strings.Count(said, "note:") != 1 {
		t.Errorf("said %q of another template", said)
	}
}
