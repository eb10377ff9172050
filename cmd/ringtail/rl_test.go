package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rlFolder holds reward.yaml and ppo.yaml with their data, beside the shared model.
func rlFolder(t testing.TB) string {
	t.Helper()
	dir, sft := t.TempDir(), filepath.Join(fixture(t), "run", "model")
	var pairs, prompts strings.Builder
	for i := range 40 {
		fmt.Fprintf(&pairs, `{"prompt": "say cat %d", "chosen": "the cat sat %d.", "rejected": "a dog %d."}`+"\n", i, i, i)
		fmt.Fprintf(&prompts, `{"prompt": "say dog %d"}`+"\n", i)
	}
	write(t, filepath.Join(dir, "pairs.jsonl"), pairs.String())
	write(t, filepath.Join(dir, "prompts.jsonl"), prompts.String())
	write(t, filepath.Join(dir, "reward.yaml"), "model: "+sft+"\ndata: {train: [pairs.jsonl], max_tokens: 64}\ntrain: {steps: 4, batch: 4, micro_tokens: 256, lr: 0.01}\n")
	write(t, filepath.Join(dir, "ppo.yaml"), "model: {actor: "+sft+", reward: rm/model}\ndata: {prompts: [prompts.jsonl], held_out: 0.2}\n"+
		"train: {rollouts: 2, micro_tokens: 256, lr: 0.001}\nppo: {prompts: 8, max_tokens: 8, minibatches: 2}\neval: {answers: 4}\nsamples: {max_tokens: 4}\n")
	return dir
}

// TestTrainRewardAndPPO: from pairs to a reward model, from it to a policy and a critic, all of
// which the other commands take; and a run that is over stays so.
func TestTrainRewardAndPPO(t *testing.T) {
	dir := rlFolder(t)
	rm, run := filepath.Join(dir, "rm"), filepath.Join(dir, "run")
	r := ok(t, "", "train", "reward", filepath.Join(dir, "reward.yaml"), "--dir", rm)
	if !strings.Contains(r.errors, "scores are normalised by") {
		t.Errorf("said %q", r.errors)
	}
	r = ok(t, "", "train", "ppo", filepath.Join(dir, "ppo.yaml"), "--dir", run, "--json")
	steps := 0
	for _, line := range strings.Split(strings.TrimSpace(r.out), "\n") {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, is := o["ppo/score"]; is {
			steps++
		}
	}
	if steps != 4 {
		t.Errorf("%d steps in\n%s", steps, r.out)
	}
	r = ok(t, "", "train", "ppo", "--resume", "--dir", run)
	if !strings.Contains(r.errors, "going on after step 4") {
		t.Errorf("said %q", r.errors)
	}
	ok(t, "", "generate", "--model", filepath.Join(run, "model"), "--prompt", "say cat", "--max-tokens", "4")
	ok(t, "", "train", "reward", filepath.Join(dir, "reward.yaml"), "--dir", rm+"2", "--set", "model="+filepath.Join(run, "critic"), "--quiet")
	if _, err := os.Stat(filepath.Join(run, "report.html")); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"reward", "ppo"} {
		if r := ok(t, "", "train", name, "--explain"); !strings.Contains(r.out, "model:") || !strings.Contains(r.out, name+":") {
			t.Errorf("--explain of %s gives %q", name, r.out)
		}
	}

	// What is refused, and leaves nothing behind.
	sft := filepath.Join(fixture(t), "run", "model")
	long := filepath.Join(dir, "long.jsonl")
	write(t, long, `{"prompt": "say `+strings.Repeat("cat ", 300)+`"}`+"\n")
	ties := filepath.Join(dir, "ties.jsonl")
	write(t, ties, `{"prompt": "say", "answers": ["a", "b"], "ranks": [1, 1]}`+"\n")
	other := filepath.Join(dir, "other")
	if err := os.CopyFS(other, os.DirFS(filepath.Join(rm, "model"))); err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(other, "tokenizer.json"), func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "<|im_start|>", "<|im_stort|>")) })
	flat := filepath.Join(dir, "flat")
	if err := os.CopyFS(flat, os.DirFS(filepath.Join(rm, "model"))); err != nil {
		t.Fatal(err)
	}
	setField(t, filepath.Join(flat, "config.json"), map[string]any{"ringtail": map[string]any{"reward_mean": 0, "reward_std": 0}})
	for name, c := range map[string]struct {
		objective string
		set       string
		words     []string
	}{
		"unknown key":          {"ppo", "ppo.kl_coeff=1", []string{"ppo.kl_coef"}},
		"reward without head":  {"ppo", "model.reward=" + sft, []string{"model.reward", "score.weight", "ringtail train reward"}},
		"another tokenizer":    {"ppo", "model.reward=" + other, []string{"model.reward", "<|im_stort|>"}},
		"deviation 0":          {"ppo", "model.reward=" + flat, []string{"config.json", "reward_std"}},
		"actor is a critic":    {"ppo", "model.actor=" + filepath.Join(run, "critic"), []string{"model.actor", "language model"}},
		"ptx without data":     {"ppo", "ppo.ptx_coef=1", []string{"ppo.ptx_coef", "data.ptx"}},
		"answers too long":     {"ppo", "ppo.max_tokens=127", []string{"ppo.max_tokens", "128"}},
		"all prompts too long": {"ppo", "data.prompts=[" + long + "]", []string{"long.jsonl", "too_long"}},
		"micro_tokens":         {"ppo", "train.micro_tokens=16", []string{"train.micro_tokens", "data.max_tokens"}},
		"no such file":         {"ppo", "data.prompts=[nowhere.jsonl]", []string{"data.prompts", "nowhere.jsonl"}},
		"ties only":            {"reward", "data.train=[" + ties + "]", []string{"ties.jsonl", "all_tied"}},
		"prompts, not pairs":   {"reward", "data.train=[" + filepath.Join(dir, "prompts.jsonl") + "]", []string{"prompts.jsonl", "chosen"}},
		"no model":             {"reward", "model=nowhere", []string{"nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			refused(t, exitFailed, []string{"train", c.objective, filepath.Join(dir, c.objective+".yaml"), "--dir", out, "--set", c.set}, c.words...)
			absent(t, out)
		})
	}
	t.Run("another objective", func(t *testing.T) {
		refused(t, exitFailed, []string{"train", "reward", filepath.Join(dir, "reward.yaml"), "--resume", "--dir", run}, "recipe.yaml")
	})
	t.Run("a limit at once", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "run")
		refused(t, exitFailed, []string{"train", "ppo", filepath.Join(dir, "ppo.yaml"), "--dir", out, "--quiet", "--set", "ppo.kl_stop=1e-4", "--set", "train.lr=0.05",
			"--set", "train.warmup=0"}, "ppo.kl_stop", "no earlier weights")
		absent(t, filepath.Join(out, "model"))
	})
}
