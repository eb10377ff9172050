package train

import (
	"bufio"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/folder"
	"ringtail/model"
	"ringtail/runs"
	"ringtail/tensor/cpu"
)

// kinds are tiny models of every family, by what config.json says beside the shape.
var kinds = map[string]map[string]any{
	"LlamaForCausalLM":    {"num_key_value_heads": 2},
	"MistralForCausalLM":  {"sliding_window": 7},
	"MixtralForCausalLM":  {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.02},
	"Qwen2ForCausalLM":    {},
	"Qwen3ForCausalLM":    {"head_dim": 8},
	"Qwen3MoeForCausalLM": {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": true},
	"GemmaForCausalLM":    {"head_dim": 8},
	"Gemma2ForCausalLM":   {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6},
	"Gemma3ForCausalLM":   {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6, "sliding_window_pattern": 2},
	"Phi3ForCausalLM":     {},
	"GPT2LMHeadModel":     {},
	"GPTNeoXForCausalLM":  {"rotary_pct": 0.5},
	"OPTForCausalLM":      {"do_layer_norm_before": false, "word_embed_proj_dim": 8},
	"BloomForCausalLM":    {},
}

// kindFolder writes a model folder of a kind, with random weights and the shared tokenizer.
func kindFolder(t *testing.T, class string) string {
	t.Helper()
	text, err := folder.Open(filepath.Join(fixture(t), "tok"), "", "")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{"architectures": []string{class}, "vocab_size": text.Tokenizer.Size(), "hidden_size": 16, "num_hidden_layers": 2,
		"num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 64, "initializer_range": 0.1}
	maps.Copy(fields, kinds[class])
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	c, err := model.ParseConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.New(c, cpu.New(), model.Options{Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	dir := filepath.Join(t.TempDir(), class)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := text.Tokenizer.SaveFolder(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// metricsOf reads a run's metrics.jsonl.
func metricsOf(t *testing.T, dir string) []map[string]float64 {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, runs.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []map[string]float64
	for s := bufio.NewScanner(f); s.Scan(); {
		line := map[string]float64{}
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		out = append(out, line)
	}
	return out
}

// TestEveryFamilyTrains: each is fine-tuned, becomes a reward model and an actor with
// its critic, with all its parameters, recomputed or not; losses fall, and the folders
// keep the family's name.
func TestEveryFamilyTrains(t *testing.T) {
	for class := range kinds {
		if testing.Short() && class != "OPTForCausalLM" && class != "Qwen3MoeForCausalLM" {
			continue // under the race detector the two with the most of their own
		}
		t.Run(class, func(t *testing.T) {
			start, out := kindFolder(t, class), t.TempDir()
			data := rlFixture(t)
			run := func(objective, text string, sets ...string) string {
				t.Helper()
				dir := filepath.Join(out, objective)
				paths := strings.NewReplacer("DIR", data, "START", start, "OUT", out)
				for i := range sets {
					sets[i] = paths.Replace(sets[i])
				}
				rec := mustRecipe(t, objective, paths.Replace(text), sets...)
				if err := trainRun(context.Background(), rec, objective, dir, false, cpu.New()); err != nil {
					t.Fatal(err)
				}
				return dir
			}
			sft := run("sft", `
model: START
data: {train: [DIR/chats.jsonl], max_tokens: 64, held_out: 0.1}
train: {steps: 24, batch: 4, micro_tokens: 128, lr: 0.01}
eval: {every: 12}
samples: {max_tokens: 4, rows: 1}
log: {tensorboard: false}
`)
			m := metricsOf(t, sft)
			if first, last := m[1]["loss"], m[len(m)-1]["loss"]; !(last < 0.8*first) { // m[0] is the evaluation before
				t.Errorf("the loss goes from %g to %g", first, last)
			}
			used, _ := kinds[class]["num_experts_per_tok"].(int)
			if r, ok := m[len(m)-1]["router_loss"]; ok != (used > 0) || ok && !(r > 0.5*float64(used) && r < 4) {
				t.Errorf("router loss %g (present: %v) of %d experts a token", r, ok, used)
			}
			reward := run("reward", rewardBase("DIR"), "model=OUT/sft/model", "train.steps=3", "train.recompute=true", "samples.off=true")
			ppo := run("ppo", ppoBase("DIR"), "model.actor=OUT/sft/model", "model.reward=OUT/reward/model", "train.rollouts=1", "train.recompute=true",
				"samples.off=true")
			for dir, suffix := range map[string]string{sft: "", reward: "ForSequenceClassification", ppo: ""} {
				c, err := model.LoadConfig(filepath.Join(dir, runs.ModelDir))
				if err != nil {
					t.Fatal(err)
				}
				if suffix == "" && c.Architecture != class || !strings.HasSuffix(c.Architecture, suffix) {
					t.Errorf("%s is a %s", dir, c.Architecture)
				}
			}
		})
	}
}
