package train

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/model"
	"ringtail/runs"
	"ringtail/shard"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// lastTokenReward is a reward model whose score hangs on the last token alone: high for the
// token that ends a turn where ends is true, low for all others; else the reverse.
func lastTokenReward(t testing.TB, ends bool) string {
	t.Helper()
	dir := folderCopy(t, "reward")
	sign := float32(-1)
	if ends {
		sign = 1
	}
	changeModel(t, dir, func(m *model.Model) {
		for _, e := range m.Store.Layout.Entries {
			switch {
			case strings.Contains(e.Name, "o_proj"), strings.Contains(e.Name, "down_proj"):
				setAll(m, e.Name, func(int) float32 { return 0 }) // what is embedded comes out
			case strings.Contains(e.Name, "norm"):
				setAll(m, e.Name, func(int) float32 { return 1 })
			case e.Name == "model.embed_tokens.weight":
				setAll(m, e.Name, func(i int) float32 {
					if i/16 == 2 || i/16 == 0 { // <|im_end|>, <|endoftext|>
						return 1
					}
					return -1
				})
			case e.Name == "score.weight":
				setAll(m, e.Name, func(int) float32 { return sign / 16 })
			}
		}
	})
	setConfig(t, dir, map[string]any{"ringtail": map[string]any{"reward_mean": 0, "reward_std": 1}})
	return dir
}

// TestPPOLearns: the score rises on rewards that can be learned, the divergence stays
// bounded, and what is held out gains as well.
func TestPPOLearns(t *testing.T) {
	fix := rlFixture(t)
	mean := func(v []float64) float64 { return MaskedMean(v, nil) }
	for name, c := range map[string]struct {
		reward string
		sets   []string
		rise   float64
	}{
		// To end answers, which it does in half of them at first.
		"ends": {lastTokenReward(t, true), []string{"ppo.max_tokens=7"}, 0.5},
		// To say "cat", which nobody ever asked for.
		"cat": {filepath.Join(fix, "reward"), nil, 0.5},
	} {
		if testing.Short() && name == "cat" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			rec := mustPPO(t, ppoBase(fix), append([]string{"model.reward=" + c.reward, "train.rollouts=40", "train.lr=0.003", "train.critic_lr=0.01", "ppo.prompts=16", "ppo.kl_coef=0.02",
				"ppo.missing_eos_penalty=0", "ppo.slots=32", "train.micro_tokens=1024", "samples.off=true", "eval.answers=24", "checkpoint.every=1000", "train.schedule=constant"}, c.sets...)...)
			if err := trainRun(t.Context(), rec, "ppo", dir, false, cpu.New()); err != nil {
				t.Fatal(err)
			}
			score, kl := series(t, dir, "ppo/score").Values, series(t, dir, "ppo/kl").Values
			first, last := mean(score[:10]), mean(score[len(score)-10:])
			eval := series(t, dir, "eval/reward")
			t.Logf("score %.3f to %.3f, held out %.3f to %.3f, KL %.2f, value explained %.2f", first, last, eval.Values[0], eval.Last(), mean(kl[len(kl)-10:]),
				series(t, dir, "ppo/explained_variance").Last())
			if !(last > first+c.rise) || !(eval.Last() > eval.Values[0]+c.rise/2) {
				t.Errorf("the score goes from %.3f to %.3f, on held-out prompts from %.3f to %.3f", first, last, eval.Values[0], eval.Last())
			}
			if d := mean(kl[len(kl)-10:]); d < 0.1 || d > 15 {
				t.Errorf("the divergence ends at %.2f nats an answer", d)
			}
		})
	}
}

// TestKLStop: a reward that is gamed by answers without an end drives the policy away; the run
// ends there, without an error, with the best weights within the limit as its result, and says why.
func TestKLStop(t *testing.T) {
	const limit = 0.6
	dir := filepath.Join(t.TempDir(), "run")
	rec := mustPPO(t, ppoBase(rlFixture(t)), "model.reward="+lastTokenReward(t, false), "train.rollouts=60", "train.lr=0.0007", "train.schedule=constant", "ppo.kl_coef=0",
		"ppo.missing_eos_penalty=0", fmt.Sprintf("ppo.kl_stop=%g", limit), "eval.every=2", "checkpoint.every=5", "ppo.ema=0.5", "eval.answers=12", "samples.off=true")
	said, err := startRun(t.Context(), rec, "ppo", dir, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	info, err := runs.ReadInfo(dir)
	if err != nil || info.Status != "done" || info.Exported == 0 || !strings.Contains(info.Note, "ppo.kl_stop 0.6") || !strings.Contains(info.Note, "nats") {
		t.Fatalf("run.json says %+v (%v)", info, err)
	}
	ended := 0
	if _, err := fmt.Sscanf(info.Note, "ended after step %d:", &ended); err != nil || ended <= info.Exported || ended >= 120 {
		t.Errorf("ended after step %d with the weights of step %d (%v)", ended, info.Exported, err)
	}
	for _, w := range []string{"ppo.kl_stop", fmt.Sprintf("the weights of step %d", info.Exported), "ppo.kl_coef"} {
		if !strings.Contains(said, w) {
			t.Errorf("%q does not say %q", said, w)
		}
	}
	// It is the best evaluation within the limit, of all there were.
	reward, kl := series(t, dir, "eval/reward"), series(t, dir, "eval/kl")
	best, at := math.Inf(-1), 0
	for i, v := range reward.Values {
		if reward.Steps[i] > 0 && kl.Values[i] <= limit && v > best {
			best, at = v, int(reward.Steps[i])
		}
	}
	if at != info.Exported {
		t.Errorf("exported step %d, the best within the limit is step %d", info.Exported, at)
	}
	if last := series(t, dir, "ppo/length"); last.Last() < last.Values[0] {
		t.Errorf("answers of %.1f tokens after %.1f: they were to grow", last.Last(), last.Values[0])
	}
	p := standing(t, rec, "ppo", cpu.New()).objective.(*ppo)
	if err := p.readWeights(filepath.Join(dir, runs.CheckpointsDir, fmt.Sprintf("step-%d", at))); err != nil {
		t.Fatal(err)
	}
	p.actor.Store = swapped(p, func() { folderHolds(t, filepath.Join(dir, runs.ModelDir), p.actor) })
	folderHolds(t, filepath.Join(dir, runs.CriticDir), p.critic)
	// Resumed, it comes to the same end.
	want := outcome(t, dir)
	if _, err := startRun(t.Context(), rec, "ppo", dir, true, nil); err != nil {
		t.Fatal(err)
	}
	same(t, outcome(t, dir), want)
}

// swapped calls do with the running mean in the actor's place, and gives the actor's own
// weights back.
func swapped(p *ppo, do func()) *shard.Store {
	own := p.actor.Store
	p.actor.Store = p.average
	do()
	return own
}

// folderHolds compares a folder's weights with a model's.
func folderHolds(t testing.TB, dir string, want *model.Model) {
	t.Helper()
	m, err := model.Load(dir, cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	if len(m.Store.Layout.Entries) != len(want.Store.Layout.Entries) {
		t.Errorf("%s has %d tensors, want %d", dir, len(m.Store.Layout.Entries), len(want.Store.Layout.Entries))
	}
	for _, e := range m.Store.Layout.Entries {
		if !slices.Equal(tensor.GetFloat32(m.Store.Param(e.Name).Value), tensor.GetFloat32(want.Store.Param(e.Name).Value)) {
			t.Errorf("%s: %s is another one", dir, e.Name)
		}
	}
}

// TestKLStopWithoutGoodWeights: the run fails in a line, and writes no result.
func TestKLStopWithoutGoodWeights(t *testing.T) {
	for name, sets := range map[string][]string{
		"in a rollout":      {"eval.every=1000"},
		"in an evaluation":  {"eval.every=1"},
		"nothing held out":  {"data.held_out=0"},
		"before the first":  {"ppo.kl_stop=1e-12", "model.reference=" + otherReference(t)},
		"in the first rows": {"model.reference=" + otherReference(t), "data.held_out=0"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			rec := mustPPO(t, ppoBase(rlFixture(t)), append([]string{"train.lr=0.02", "train.warmup=0", "ppo.kl_stop=1e-3", "samples.off=true"}, sets...)...)
			_, err := startRun(context.Background(), rec, "ppo", dir, false, nil)
			inALine(t, err, "ended after step", "ppo.kl_stop", "no earlier weights")
			if info, err := runs.ReadInfo(dir); err != nil || info.Status != "failed" || info.Note == "" {
				t.Errorf("run.json says %+v (%v)", info, err)
			}
			for _, name := range []string{runs.ModelDir, runs.CriticDir} {
				if _, err := model.LoadConfig(filepath.Join(dir, name)); err == nil {
					t.Errorf("%s was written", name)
				}
			}
		})
	}
}

// otherReference is a reference of other weights than the actor's.
func otherReference(t testing.TB) string {
	dir := folderCopy(t, "actor")
	changeModel(t, dir, func(m *model.Model) {
		w := tensor.GetFloat32(m.Store.Param("model.norm.weight").Value)
		setAll(m, "model.norm.weight", func(i int) float32 { return 1.5 * w[i] })
	})
	return dir
}

// TestCriticWarmup: while the critic warms up the actor's weights and moments stay as they are.
func TestCriticWarmup(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.critic_warmup=2", "ppo.minibatches=2", "ppo.ptx_coef=0.1", "ppo.ema=0.9", "train.warmup=0")
	actor, critic, mean := storeBytes(t, p.actor), storeBytes(t, p.critic), tensorsOf(p.average)
	for step := range 6 {
		r := mustStep(t, p, step)
		now := storeBytes(t, p.critic)
		if now["chunk-00000.safetensors"] == critic["chunk-00000.safetensors"] {
			t.Errorf("step %d: the critic rests", step)
		}
		critic = now
		_, acted := r.metrics["ppo/policy_loss"]
		if acted != (step >= 4) {
			t.Errorf("step %d: metrics %v", step, r.metrics)
		}
		if step < 4 {
			same(t, storeBytes(t, p.actor), actor)
			if !equalTensors(tensorsOf(p.average), mean) {
				t.Errorf("step %d: the running mean moved", step)
			}
			if p.actorLearner.updates != 0 || p.criticLearner.updates != step+1 {
				t.Errorf("step %d: %d and %d updates", step, p.actorLearner.updates, p.criticLearner.updates)
			}
		}
	}
	if storeBytes(t, p.actor)["chunk-00000.safetensors"] == actor["chunk-00000.safetensors"] {
		t.Error("the actor rests after the warm-up")
	}
}

// tensorsOf are a store's weights.
func tensorsOf(s *shard.Store) map[string][]float64 {
	out := map[string][]float64{}
	for _, e := range s.Layout.Entries {
		out[e.Name] = tensor.GetFloat64(s.Param(e.Name).Value)
	}
	return out
}

func equalTensors(a, b map[string][]float64) bool {
	for name := range a {
		if !slices.Equal(a[name], b[name]) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestEMA: what is exported is the running mean of the actor's weights, one part in ten of each
// update, as computed here by hand.
func TestEMA(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.ema=0.9", "train.lr=0.01", "train.warmup=0")
	mean := tensorsOf(p.actor.Store)
	first := tensorsOf(p.actor.Store)
	for step := range 5 {
		mustStep(t, p, step)
		for name, now := range tensorsOf(p.actor.Store) {
			for i := range now {
				mean[name][i] = 0.9*mean[name][i] + 0.1*now[i]
			}
		}
	}
	dir := t.TempDir()
	if err := p.export(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(filepath.Join(dir, runs.ModelDir), cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	got, own := tensorsOf(m.Store), tensorsOf(p.actor.Store)
	for name, want := range mean {
		moved := 0.0
		for i := range want {
			wantNear(t, name, got[name][i], want[i], 1e-6)
			moved = max(moved, math.Abs(own[name][i]-first[name][i]))
		}
		if moved < 1e-4 || equalTensors(map[string][]float64{name: got[name]}, map[string][]float64{name: own[name]}) {
			t.Errorf("%s moved by %g, and the result is the actor's own", name, moved)
		}
	}
	folderHolds(t, filepath.Join(dir, runs.CriticDir), p.critic)
}

// TestTargetKL: once the policy has moved too far from the rollout's, the rest of the rollout is
// passed over, and the next one is learned from again.
func TestTargetKL(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.target_kl=1e-5", "ppo.minibatches=3", "ppo.epochs=2", "train.lr=0.01", "train.warmup=0", "ppo.ema=0.9")
	for step := range 12 {
		actor, critic := storeBytes(t, p.actor), storeBytes(t, p.critic)
		r := mustStep(t, p, step)
		passed := r.metrics["ppo/passed_over"] == 1
		// The second step of a rollout finds out, and is made still.
		if want := step%6 >= 2; passed != want {
			t.Fatalf("step %d: passed over %v, approximate KL %g", step, passed, r.metrics["ppo/approx_kl"])
		}
		if passed {
			same(t, storeBytes(t, p.actor), actor)
			same(t, storeBytes(t, p.critic), critic)
			if r.skipped || r.lr == 0 {
				t.Errorf("step %d: %+v", step, r)
			}
		} else if storeBytes(t, p.actor)["chunk-00000.safetensors"] == actor["chunk-00000.safetensors"] {
			t.Errorf("step %d changed nothing", step)
		}
	}
	if p.actorLearner.updates != 4 || p.state.Rollouts != 2 {
		t.Errorf("%d updates in %d rollouts", p.actorLearner.updates, p.state.Rollouts)
	}
}

// TestPPOFrozen: frozen weights of the actor don't change, all others do.
func TestPPOFrozen(t *testing.T) {
	fix := rlFixture(t)
	dir := filepath.Join(t.TempDir(), "run")
	rec := mustPPO(t, ppoBase(fix), "model.freeze=[model.embed_tokens.weight, model.layers.0.*]", "train.rollouts=2", "ppo.ema=0.5", "samples.off=true", "ppo.ptx_coef=0.1")
	if err := trainRun(t.Context(), rec, "ppo", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	read := func(dir string) map[string][]float64 {
		m, err := model.Load(dir, cpu.New(), model.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Free()
		return tensorsOf(m.Store)
	}
	was, now := read(filepath.Join(fix, "actor")), read(filepath.Join(dir, runs.ModelDir))
	for name := range was {
		frozen := name == "model.embed_tokens.weight" || strings.HasPrefix(name, "model.layers.0.")
		if equal := slices.Equal(was[name], now[name]); equal != frozen {
			t.Errorf("%s: frozen %v, unchanged %v", name, frozen, equal)
		}
	}
}

// TestPPOSkip: where a gradient of either model isn't finite neither changes, nor the running
// mean; and training goes on.
func TestPPOSkip(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.ema=0.9", "ppo.minibatches=4", "ppo.epochs=2", "train.warmup=0")
	mustStep(t, p, 0)
	actor, critic, mean := storeBytes(t, p.actor), storeBytes(t, p.critic), tensorsOf(p.average)
	name := "model.layers.1.mlp.down_proj.weight"
	step := 1
	for _, c := range []struct {
		what  string
		m     *model.Model
		blame string
	}{{"actor", p.actor, "the actor: the weights " + name}, {"critic", p.critic, "the critic: the weights " + name}} {
		for _, bad := range []float64{math.NaN(), math.Inf(1)} {
			value := c.m.Store.Param(name).Value
			old := tensor.GetFloat32(value)
			setAll(c.m, name, func(i int) float32 { return float32(bad) })
			r := mustStep(t, p, step)
			step++
			if !r.skipped || p.badTensor() != c.blame {
				t.Errorf("%s with %g: %+v; blamed %q", c.what, bad, r, p.badTensor())
			}
			setAll(c.m, name, func(i int) float32 { return old[i] })
			same(t, storeBytes(t, p.actor), actor)
			same(t, storeBytes(t, p.critic), critic)
			if !equalTensors(tensorsOf(p.average), mean) {
				t.Errorf("%s: the running mean moved", c.what)
			}
		}
	}
	advantage := p.rollout.advantages
	p.rollout.advantages = slices.Repeat([]float32{float32(math.NaN())}, len(advantage))
	if r := mustStep(t, p, step); !r.skipped || !strings.Contains(p.badTensor(), "the actor: the gradient") {
		t.Errorf("advantages that are NaN: %+v; blamed %q", r, p.badTensor())
	}
	p.rollout.advantages = advantage
	same(t, storeBytes(t, p.critic), critic)
	if p.actorLearner.updates != 1 || p.criticLearner.updates != 1 {
		t.Errorf("%d and %d updates", p.actorLearner.updates, p.criticLearner.updates)
	}
	if r := mustStep(t, p, step+1); r.skipped {
		t.Errorf("%+v after all was mended", r)
	}
}

// TestPPODiverges: an absurd learning rate ends the run in a line that says so, whatever
// numbers its checkpoints hold, and leaves them.
func TestPPODiverges(t *testing.T) {
	for name, sets := range map[string][]string{"actor": {"train.lr=1e30"}, "critic": {"train.critic_lr=1e30"}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			rec := mustPPO(t, ppoBase(rlFixture(t)), append([]string{"train.warmup=0", "train.schedule=constant", "train.rollouts=20", "checkpoint.every=1", "train.max_skips=3", "eval.every=3"}, sets...)...)
			_, err := startRun(t.Context(), rec, "ppo", dir, false, nil)
			inALine(t, err, "train.lr")
			if steps, err := savedSteps(dir); err != nil || len(steps) == 0 {
				t.Errorf("checkpoints %v, %v", steps, err)
			}
			if info, err := runs.ReadInfo(dir); err != nil || info.Status != "failed" {
				t.Errorf("run.json says %+v, %v", info, err)
			}
		})
	}
}

// TestFiguresThatAreNotFinite survive a checkpoint.
func TestFiguresThatAreNotFinite(t *testing.T) {
	in := figures{"a": 1.5, "nan": math.NaN(), "up": math.Inf(1), "down": math.Inf(-1), "small": 1e-300}
	text, err := in.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var out figures
	if err := out.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	if len(out) != len(in) || !math.IsNaN(out["nan"]) {
		t.Errorf("%v became %v", in, out)
	}
	for _, name := range []string{"a", "up", "down", "small"} {
		if out[name] != in[name] {
			t.Errorf("%s: %g became %g", name, in[name], out[name])
		}
	}
	if err := out.UnmarshalJSON([]byte(`{"a": "much"}`)); err == nil || !strings.Contains(err.Error(), "much") {
		t.Errorf("text for a number: %v", err)
	}
}
