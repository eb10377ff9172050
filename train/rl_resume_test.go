package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"ringtail/runs"
	"ringtail/tensor/cpu"
)

// rlVariants are the runs that resuming must not disturb.
func rlVariants(t testing.TB) []struct {
	name, objective, text string
	ops                   []string
} {
	fix := rlFixture(t)
	every := []string{"checkpoint.every=1", "eval.every=5"}
	rollouts := append([]string{"ppo.minibatches=3", "ppo.epochs=2", "train.rollouts=3"}, every...)
	text := func(objective, base string, sets ...string) string { return resolvedOf(t, objective, base, sets...) }
	return []struct {
		name, objective, text string
		ops                   []string
	}{
		{"reward/rankings", "reward", text("reward", rewardBase(fix), "train.steps=12", "checkpoint.every=4", "eval.every=5"), []string{"attention", "update", "read"}},
		{"reward/best", "reward", text("reward", rewardBase(fix), "train.steps=14", "eval.every=2", "eval.patience=30", "train.micro_tokens=160", "train.lr=0.05", "reward.margin=0.3",
			"data.shuffle=false", "checkpoint.keep=2"), []string{"attention"}},
		{"reward/tokens", "reward", text("reward", rewardBase(fix), "train.steps=10", "train.batch=0", "train.batch_tokens=400", "checkpoint.every=3"), []string{"attention"}},
		// Generating, scoring, learning, the step of the optimizer, saving.
		{"ppo/everything", "ppo", text("ppo", ppoBase(fix), append([]string{"ppo.kl_target=0.2", "ppo.kl_horizon=50", "ppo.ema=0.9", "ppo.ptx_coef=0.2", "ppo.critic_warmup=1", "ppo.temperature=0.8",
			"model.freeze=[model.embed_tokens.weight]"}, rollouts...)...), []string{"sample", "score", "policy", "update", "read"}},
		{"ppo/passed over", "ppo", text("ppo", ppoBase(fix), append([]string{"ppo.target_kl=1e-5", "train.warmup=0", "train.lr=0.01", "data.shuffle=false", "samples.off=true"}, rollouts...)...), []string{"policy"}},
		{"ppo/best", "ppo", text("ppo", ppoBase(fix), "train.rollouts=6", "eval.every=2", "checkpoint.export=best", "checkpoint.every=3", "ppo.kl_stop=50"), []string{"sample"}},
	}
}

// whole runs a recipe to its end and returns what it left, and the calls of operations.
func whole(t testing.TB, objective, text string) (want map[string]string, calls map[string]int) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	dev := newTripwire(trip{}, nil)
	if err := trainRun(context.Background(), mustRecipe(t, objective, text), objective, dir, false, dev); err != nil {
		t.Fatal(err)
	}
	return outcome(t, dir), dev.calls
}

// TestRLResumeAfterKill: a reward model's or PPO's run that was killed (-9) anywhere goes on to
// the same bytes: weights, moments, experience, KL coefficient, running mean, metrics, samples.
func TestRLResumeAfterKill(t *testing.T) {
	for _, v := range rlVariants(t) {
		if testing.Short() && v.name != "ppo/everything" {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			want, calls := whole(t, v.objective, v.text)
			middle := false
			for _, op := range v.ops {
				dir := filepath.Join(t.TempDir(), "run")
				if !start(t, job{Recipe: v.text, Objective: v.objective, Dir: dir, Trip: trip{op, calls[op]*6/10 + 1}}) {
					t.Fatalf("%s: the run wasn't killed", op)
				}
				steps, err := savedSteps(dir)
				if err != nil || len(steps) == 0 {
					t.Fatalf("%s: checkpoints at %v (%v): the kill came too early to test anything", op, steps, err)
				}
				kept, err := filepath.Glob(filepath.Join(dir, runs.CheckpointsDir, "step-*", experienceFile))
				middle = middle || err == nil && len(kept) > 0
				if err := trainRun(context.Background(), mustRecipe(t, v.objective, v.text), v.objective, dir, true, cpu.New()); err != nil {
					t.Fatalf("%s: %v", op, err)
				}
				if same(t, outcome(t, dir), want); t.Failed() {
					t.Fatalf("killed at the %s of number %d", op, calls[op]*6/10+1)
				}
			}
			if v.name == "ppo/everything" && !middle {
				t.Error("no kill came in the middle of a rollout")
			}
		})
	}
}

// testRLInterrupts interrupts a run (Ctrl-C) at each n-th call of some operations, and goes on.
func testRLInterrupts(t *testing.T, objective, text string, every map[string]int) {
	want, calls := whole(t, objective, text)
	for op, n := range every {
		if testing.Short() {
			n *= 3
		}
		for at := 1 + n/3; at <= calls[op]; at += n {
			t.Run(fmt.Sprintf("%s %d of %d", op, at, calls[op]), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "run")
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				err := trainRun(ctx, mustRecipe(t, objective, text), objective, dir, false, newTripwire(trip{op, at}, cancel))
				if err != nil && !errors.Is(err, ErrInterrupted) {
					t.Fatal(err)
				}
				info, ierr := runs.ReadInfo(dir)
				if ierr != nil {
					t.Fatal(ierr)
				}
				if want := map[bool]string{true: "done", false: "stopped"}[err == nil]; info.Status != want {
					t.Errorf("run.json says %q after %v", info.Status, err)
				}
				if err := trainRun(context.Background(), mustRecipe(t, objective, text), objective, dir, true, cpu.New()); err != nil {
					t.Fatal(err)
				}
				same(t, outcome(t, dir), want)
			})
		}
	}
}

// TestPPOInterrupts: Ctrl-C while answers are sampled, scored or learned from.
func TestPPOInterrupts(t *testing.T) {
	text := resolvedOf(t, "ppo", ppoBase(rlFixture(t)), "train.rollouts=3", "ppo.minibatches=3", "ppo.kl_target=0.2", "ppo.kl_horizon=50", "ppo.ema=0.9", "ppo.ptx_coef=0.2", "eval.every=4",
		"checkpoint.every=2")
	testRLInterrupts(t, "ppo", text, map[string]int{"sample": 37, "score": 7, "policy": 9})
}

// TestRewardInterrupts: Ctrl-C while it trains, evaluates, or measures the scores of the result.
func TestRewardInterrupts(t *testing.T) {
	text := resolvedOf(t, "reward", rewardBase(rlFixture(t)), "train.steps=6", "eval.every=3")
	testRLInterrupts(t, "reward", text, map[string]int{"attention": 43})
}

// TestPPOResumeTwiceDone: a run that is done stays what it is.
func TestPPOResumeTwiceDone(t *testing.T) {
	rec, dir := mustPPO(t, ppoBase(rlFixture(t)), "train.rollouts=1"), filepath.Join(t.TempDir(), "run")
	if err := trainRun(t.Context(), rec, "ppo", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	want := outcome(t, dir)
	for _, gone := range []string{runs.ModelDir, runs.CriticDir, ""} { // killed before it was written
		if gone != "" {
			if err := os.RemoveAll(filepath.Join(dir, gone)); err != nil {
				t.Fatal(err)
			}
		}
		if err := trainRun(t.Context(), rec, "ppo", dir, true, cpu.New()); err != nil {
			t.Fatal(err)
		}
		same(t, outcome(t, dir), want)
	}
	if err := trainRun(t.Context(), mustReward(t, rewardBase(rlFixture(t))), "reward", dir, true, cpu.New()); err == nil {
		t.Error("resumed as another objective")
	}
}

// TestPPOSeed: one seed, one result, on any number of threads; another seed, another.
func TestPPOSeed(t *testing.T) {
	n := cpu.Threads()
	defer cpu.SetThreads(n)
	run := func(threads int, sets ...string) map[string]string {
		cpu.SetThreads(threads)
		dir := filepath.Join(t.TempDir(), "run")
		rec := mustPPO(t, ppoBase(rlFixture(t)), append([]string{"train.rollouts=2", "train.micro_tokens=512", "ppo.prompts=16", "ppo.ptx_coef=0.1", "ppo.ema=0.9", "samples.temperature=1"}, sets...)...)
		if err := trainRun(context.Background(), rec, "ppo", dir, false, cpu.New()); err != nil {
			t.Fatal(err)
		}
		return outcome(t, dir)
	}
	want := run(2)
	t.Run("again", func(t *testing.T) { same(t, run(2), want) })
	t.Run("one thread", func(t *testing.T) { same(t, run(1), want) })
	t.Run("three threads", func(t *testing.T) { same(t, run(3), want) })
	t.Run("another seed", func(t *testing.T) {
		got := run(2, "seed=1")
		for _, name := range []string{"model/model.safetensors", "critic/model.safetensors", "metrics.jsonl"} {
			if got[name] == want[name] {
				t.Errorf("%s is the same", name)
			}
		}
	})
}

// TestPPONothingGrows: over steps, rollouts, evaluations and samples neither keep memory nor
// programs.
func TestPPONothingGrows(t *testing.T) {
	p := testPPO(t, cpu.New(), "train.rollouts=100000", "ppo.ptx_coef=0.1", "ppo.ema=0.99", "train.lr=1e-5", "samples.temperature=1", "ppo.prompts=3", "ppo.max_tokens=6", "ppo.ptx_batch=1", "eval.answers=3")
	step := 0
	nothingGrows(t, 100, 200, func() {
		mustStep(t, p, step)
		if step++; step%20 == 0 {
			if _, err := p.evaluate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := p.sample(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}, func() []int {
		c := p.passes
		return []int{len(c.actor), len(c.reference), len(c.reward), len(c.critic), len(c.ptx), p.arena.Size(), p.bytes(), len(p.buffers)}
	})
	if s := p.engine.Stats(); s.Running != 0 || s.Waiting != 0 {
		t.Errorf("the engine holds %+v", s)
	}
}
