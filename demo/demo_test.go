package demo

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/runs"
)

// tiny makes the three stages so small that a test has time for them.
var tiny = map[string][]string{
	"sft": {"model.new.hidden_size=32", "model.new.num_hidden_layers=1", "model.new.num_attention_heads=2", "model.new.num_key_value_heads=1",
		"train.steps=6", "train.warmup=1", "eval.every=6", "samples.rows=1", "samples.max_tokens=4"},
	"reward": {"train.steps=4", "train.warmup=1", "eval.every=4"},
	"ppo": {"train.rollouts=2", "train.warmup=1", "ppo.prompts=12", "ppo.minibatches=2", "ppo.max_tokens=8", "ppo.ptx_batch=2", "eval.every=4", "eval.answers=8",
		"samples.rows=2", "samples.max_tokens=8"},
}

func run(t *testing.T, ctx context.Context, dir string, seed uint64) (*Report, error) {
	t.Helper()
	return Run(ctx, Options{Dir: dir, Seed: seed, Set: tiny, Progress: runs.ProgressQuiet, Messages: io.Discard})
}

// TestDemo: all stages, the report with the keys that others rely on, one seed one result, and a finished demo
// is left alone.
func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	first, err := run(t, t.Context(), dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tokenizer/tokenizer.json", "sft/model/config.json", "reward/model/config.json", "ppo/model/model.safetensors",
		"ppo/critic/config.json", "report.html", "recipes/ppo.yaml", "data/rankings.zh.jsonl"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, ReportFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(`seconds peak_rss_bytes sft.loss_first sft.loss_last sft.eval_loss_first sft.eval_loss sft.unigram_loss
		reward.accuracy reward.eval_pairs reward.accuracy_length_only ppo.steps ppo.reward_first ppo.reward_last ppo.kl_last ppo.eos_rate
		ppo.ratio_first_minibatch ppo.ratio_max_dev_first_minibatch ppo.kl_first_minibatch ppo.length_first ppo.length_last
		ptx.coef ptx.eval_loss_sft ptx.eval_loss_ppo samples`) {
		block, name, nested := strings.Cut(key, ".")
		v, ok := got[block]
		if nested {
			v, ok = got[block].(map[string]any)[name]
		}
		if !ok || v == nil {
			t.Errorf("report.json has no %s", key)
		}
	}
	if d := first.PPO.RatioMaxDevFirstMinibatch; d > 1e-4 || first.Reward.EvalPairs < 100 || first.Seconds <= 0 || len(first.Samples) != 2 {
		t.Errorf("%+v", first)
	}
	if _, err := run(t, t.Context(), dir, 3); err == nil || !strings.Contains(err.Error(), "finished demo") {
		t.Errorf("a second demo into the same folder: %v", err)
	}
	again, err := run(t, t.Context(), filepath.Join(t.TempDir(), "again"), 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Report{first, again} {
		r.Seconds, r.PeakRSSBytes, r.Stages = 0, 0, nil
	}
	a, _ := json.Marshal(first)
	b, _ := json.Marshal(again)
	if string(a) != string(b) {
		t.Errorf("two runs of one seed differ:\n%s\n%s", a, b)
	}
}

// TestDemoGoesOn: an interrupted demo is gone on with, to the same result.
func TestDemoGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as early as can be: the first stage saves and ends
	if _, err := run(t, ctx, dir, 4); err == nil {
		t.Fatal("a demo whose context had ended ran")
	}
	if _, err := run(t, t.Context(), dir, 4); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, ReportFile)); err != nil { // as if it had been killed just before
		t.Fatal(err)
	}
	if _, err := run(t, t.Context(), dir, 5); err == nil || !strings.Contains(err.Error(), "--seed") {
		t.Errorf("another seed in the middle: %v", err)
	}
}

// TestDemoRefusesOthersFolders.
func TestDemoRefusesOthersFolders(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, t.Context(), dir, 0); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("%v", err)
	}
}
