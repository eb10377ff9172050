//go:build long

package train

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"ringtail/tensor/cpu"
)

// TestLongInterrupts interrupts a run at every micro-batch.
func TestLongInterrupts(t *testing.T) {
	testInterrupts(t, 1, "eval.every=2", "eval.patience=2", "train.lr=0.3", "train.schedule=constant", "train.steps=12",
		"checkpoint.every=3", "train.micro_tokens=64")
}

// TestLongPPOInterrupts interrupts PPO at every update, every pass of the reference, and
// many of the sampled tokens.
func TestLongPPOInterrupts(t *testing.T) {
	text := resolvedOf(t, "ppo", ppoBase(rlFixture(t)), "train.rollouts=4", "ppo.minibatches=3", "ppo.epochs=2", "ppo.kl_target=0.2", "ppo.kl_horizon=50", "ppo.ema=0.9", "ppo.ptx_coef=0.2",
		"ppo.critic_warmup=1", "eval.every=4", "checkpoint.every=2", "train.micro_tokens=64")
	testRLInterrupts(t, "ppo", text, map[string]int{"sample": 9, "score": 3, "policy": 2, "update": 11, "loss": 3})
}

// TestLongPPOKills kills PPO (-9) all over its course.
func TestLongPPOKills(t *testing.T) {
	text := resolvedOf(t, "ppo", ppoBase(rlFixture(t)), "train.rollouts=3", "ppo.minibatches=3", "ppo.epochs=2", "ppo.kl_target=0.2", "ppo.kl_horizon=50", "ppo.ema=0.9", "ppo.ptx_coef=0.2",
		"eval.every=4", "checkpoint.every=1")
	want, calls := whole(t, "ppo", text)
	for op, parts := range map[string]int{"sample": 11, "score": 7, "policy": 7, "update": 7, "read": 13} {
		for k := range parts {
			at := 1 + k*(calls[op]-1)/max(parts-1, 1)
			t.Run(fmt.Sprintf("%s %d of %d", op, at, calls[op]), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "run")
				if !start(t, job{Recipe: text, Objective: "ppo", Dir: dir, Trip: trip{op, at}}) {
					t.Fatal("the run wasn't killed")
				}
				if err := trainRun(context.Background(), mustRecipe(t, "ppo", text), "ppo", dir, true, cpu.New()); err != nil {
					t.Fatal(err)
				}
				same(t, outcome(t, dir), want)
			})
		}
	}
}

// TestLongPPONothingGrows over a thousand steps.
func TestLongPPONothingGrows(t *testing.T) {
	p := testPPO(t, cpu.New(), "train.rollouts=100000", "ppo.ptx_coef=0.1", "ppo.ema=0.99", "train.lr=1e-5")
	step := 0
	nothingGrows(t, 300, 1000, func() {
		mustStep(t, p, step)
		if step++; step%25 == 0 {
			if _, err := p.evaluate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := p.sample(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}, func() []int {
		return []int{len(p.passes.actor), len(p.passes.critic), len(p.passes.ptx), p.bytes(), len(p.buffers)}
	})
}
