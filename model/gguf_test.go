package model

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ringtail/gguf"
	"ringtail/safetensors"
	"ringtail/tensor/ref"
)

// synthetic writes a folder of random weights for a config.json.
func synthetic(t *testing.T, config string) string {
	t.Helper()
	c, err := ParseConfig([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	kind, err := storedDtype(c.Dtype)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, uint64(len(config))))
	var list []safetensors.Tensor
	for _, s := range c.specs(Options{}, CausalLM) {
		v := make([]float32, s.Len())
		for i := range v {
			v[i] = float32(rng.NormFloat64())
		}
		bits, _ := safetensors.DtypeBits(kind)
		b := make([]byte, len(v)*bits/8)
		if err := safetensors.FromFloat32(b, kind, v); err != nil {
			t.Fatal(err)
		}
		list = append(list, safetensors.Tensor{Name: s.Name, Dtype: kind, Shape: c.storage(s.Name, s.Shape).shape, Data: b})
	}
	dir := t.TempDir()
	if err := safetensors.WriteFolder(dir, list, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fields of a small decoder, to be followed by others.
const (
	smallGated = `"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
		"intermediate_size": 48, "rms_norm_eps": 1e-05, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": [2, 3, 4], "pad_token_id": 0`
	smallGemma = smallGated + `, "head_dim": 10, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": true`
)

// ggufConfigs are configurations that GGUF can say, one at least of each family.
var ggufConfigs = map[string]string{
	"llama": `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "rope_theta": 500000.0, ` + smallGated + `}`,
	"llama, biases": `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": true, "mlp_bias": true, "head_dim": 6,
		"tie_word_embeddings": true, "dtype": "float16", ` + smallGated + `}`,
	"llama, linear": `{"architectures": ["LlamaForCausalLM"], "rope_scaling": {"type": "linear", "factor": 2.5}, ` + smallGated + `}`,
	"llama 3": `{"architectures": ["LlamaForCausalLM"], "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
		"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}, ` + smallGated + `}`,
	"llama, yarn": `{"architectures": ["LlamaForCausalLM"], "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 24, "attention_factor": 1.25,
		"original_max_position_embeddings": 16}, ` + smallGated + `}`,
	"mistral":             `{"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 16, ` + smallGated + `}`,
	"mistral, windowless": `{"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": null, ` + smallGated + `}`,
	"mixtral": `{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "sliding_window": null, "num_local_experts": 3,
		"num_experts_per_tok": 2, ` + smallGated + `}`,
	"qwen2": `{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", ` + smallGated + `}`,
	"qwen3": `{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 12, "tie_word_embeddings": true, ` + smallGated + `}`,
	"qwen3moe": `{"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 12, "num_experts": 3, "num_experts_per_tok": 2,
		"moe_intermediate_size": 20, "norm_topk_prob": true, ` + smallGated + `}`,
	"gemma":  `{"architectures": ["GemmaForCausalLM"], "model_type": "gemma", ` + smallGemma + `}`,
	"gemma2": `{"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "sliding_window": 16, "query_pre_attn_scalar": 144, ` + smallGemma + `}`,
	"gemma3": `{"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "sliding_window": 16, "query_pre_attn_scalar": 10,
		"layer_types": ["sliding_attention", "full_attention"], "rope_theta": 1000000.0, "rope_local_base_freq": 9000.0,
		"rope_scaling": {"rope_type": "linear", "factor": 8.0}, ` + smallGemma + `}`,
	"phi3": `{"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "sliding_window": 16, "original_max_position_embeddings": 64,
		"partial_rotary_factor": 0.75, ` + smallGated + `}`,
	"phi3, long": `{"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "original_max_position_embeddings": 16,
		"rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.05, 1.1, 1.3], "long_factor": [1.0, 2.0, 3.5, 8.125]}, ` + smallGated + `}`,
	"gpt2": `{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16,
		"n_inner": 48, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05}`,
	"bloom": `{"architectures": ["BloomForCausalLM"], "model_type": "bloom", "vocab_size": 40, "hidden_size": 32, "n_layer": 2, "n_head": 4,
		"layer_norm_epsilon": 1e-05, "seq_length": 64}`,
	"gptneox": `{"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 2,
		"num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 64, "rotary_pct": 0.25, "use_parallel_residual": false}`,
}

// toGGUF writes the model at path as GGUF.
func toGGUF(t *testing.T, path, kind string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "model.gguf")
	if err := WriteGGUF(path, out, GGUFOptions{Type: kind}); err != nil {
		t.Fatal(err)
	}
	return out
}

func toFolder(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	if err := WriteFolder(path, dir, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestGGUFRoundTrip and TestGoldenGGUFRoundTrip: a folder, as GGUF and as a folder
// again, has the same configuration in the terms of this package, and the same
// bytes in every tensor; where a norm's weights had 1 added, the nearest float32.
func TestGGUFRoundTrip(t *testing.T) {
	families := map[string]bool{}
	for name, config := range ggufConfigs {
		t.Run(name, func(t *testing.T) { families[roundTrip(t, synthetic(t, config)).family()] = true })
	}
	for fam := range ggufArchitectures {
		if !families[fam] {
			t.Errorf("no configuration of %s", fam)
		}
	}
}

func TestGoldenGGUFRoundTrip(t *testing.T) {
	for _, dir := range goldenModels(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c, err := LoadConfig(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, why := c.ggufMetadata(gguf.F32); why != nil {
				err := WriteGGUF(dir, filepath.Join(t.TempDir(), "x.gguf"), GGUFOptions{})
				if err == nil || !strings.Contains(err.Error(), why.Error()) {
					t.Errorf("has no form in GGUF (%v), but: %v", why, err)
				}
				t.Log(why)
				return
			}
			roundTrip(t, dir)
		})
	}
}

func roundTrip(t *testing.T, dir string) *Config {
	t.Helper()
	c, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	file := toGGUF(t, dir, "")
	again := toFolder(t, file)
	sameConfig(t, c, again)
	sameModel(t, dir, file, c.NormOffset != 0)
	was, err := safetensors.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer was.Close()
	is, err := safetensors.OpenFolder(again)
	if err != nil {
		t.Fatal(err)
	}
	defer is.Close()
	a, b := was.Names(), is.Names()
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		t.Fatalf("tensors %v, were %v", b, a)
	}
	for _, name := range a {
		x, _ := was.Tensor(name)
		y, _ := is.Tensor(name)
		if !slices.Equal(x.Shape, y.Shape) || x.Dtype != y.Dtype {
			t.Errorf("%s: %s %v, was %s %v", name, y.Dtype, y.Shape, x.Dtype, x.Shape)
		} else if c.NormOffset != 0 && strings.HasSuffix(name, "norm.weight") {
			sameWithin(t, name, x, y, 0x1p-22)
		} else if !slices.Equal(x.Data, y.Data) {
			t.Errorf("%s: other bytes", name)
		}
	}
	return c
}

// sameModel loads a folder and a GGUF file and compares their weights in memory.
func sameModel(t *testing.T, dir, file string, offset bool) {
	t.Helper()
	var models [2]*Model
	for i, path := range []string{dir, file} {
		m, err := Load(path, ref.New(), Options{Head: CausalLM})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Free()
		models[i] = m
	}
	for _, e := range models[0].Store.Layout.Entries {
		var all [2][]float32
		for i, m := range models {
			if err := m.Store.Tensor(e.Name, func(v []float32) error { all[i] = append(all[i], v...); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if offset && strings.HasSuffix(e.Name, "norm.weight") {
			continue
		}
		if !slices.Equal(all[0], all[1]) || len(all[0]) != e.Len() {
			t.Errorf("%s: loaded from GGUF it differs", e.Name)
		}
	}
}

// sameConfig compares what this package makes of config.json, but for what is
// training's business alone and what has no effect.
func sameConfig(t *testing.T, c *Config, dir string) {
	t.Helper()
	d, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := *c, *d
	for _, x := range []*Config{&a, &b} {
		x.raw, x.generation, x.InitStd, x.Experts.LossCoef = nil, nil, 0, 0
		x.Architecture, x.ModelType = x.fam().architecture(CausalLM), x.fam().modelType
		if x.Window == 0 {
			x.Windowed = nil
		}
		if x.Experts.Dense != nil && allSparse(x) {
			x.Experts.Dense = nil
		}
		x.Rope.Truncate = false
		switch x.Rope.Type {
		case "default", "linear":
			x.Rope.Original = 0
		case "longrope":
			_, x.Rope.AttentionFactor = x.Rope.frequencies(1)
			x.Rope.Factor = 0
			for _, list := range []*[]float64{&x.Rope.Short, &x.Rope.Long} { // used, and stored, as float32
				*list = slices.Clone(*list)
				for i, v := range *list {
					(*list)[i] = decimal(float64(float32(v)))
				}
			}
		}
		x.Scale = float64(float32(x.Scale))
		if x.WindowedRope != nil {
			r := *x.WindowedRope
			r.Original, r.Truncate = 0, false
			x.WindowedRope = &r
		}
	}
	if !reflect.DeepEqual(a, b) {
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		t.Errorf("configuration\n%s, was\n%s", y, x)
	}
}

func sameWithin(t *testing.T, name string, x, y safetensors.Tensor, most float64) {
	t.Helper()
	a, b := make([]float32, x.Len()), make([]float32, y.Len())
	if err := x.ToFloat32(a); err != nil {
		t.Fatal(err)
	}
	if err := y.ToFloat32(b); err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > most {
			t.Errorf("%s[%d] is %g, was %g", name, i, b[i], a[i])
			return
		}
	}
}

// TestGGUFParts: any part of a tensor is that part of the whole, quantised or not,
// in every layout that is undone.
func TestGGUFParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for name, config := range ggufConfigs {
		path := toGGUF(t, synthetic(t, config), "q8_0")
		_, src, err := openGGUF(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, tensor := range src.Names() {
			x, _ := src.Find(tensor)
			n := 1
			for _, d := range x.Shape {
				n *= d
			}
			whole := make([]float32, n)
			if err := x.Read(whole, 0); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				from := rng.IntN(n)
				part := make([]float32, rng.IntN(n-from)+1)
				if err := x.Read(part, from); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(part, whole[from:from+len(part)]) {
					t.Errorf("%s: %s: part [%d, %d) differs from the whole", name, tensor, from, from+len(part))
				}
			}
		}
		src.Close()
	}
}

// TestGGUFTypes: which tensor is written as what.
func TestGGUFTypes(t *testing.T) {
	for _, c := range []struct {
		config, kind, tensor string
		want                 gguf.Type
	}{
		{"qwen2", "f32", "blk.0.attn_q.weight", gguf.F32}, {"qwen2", "F16", "blk.0.attn_q.weight", gguf.F16}, {"qwen2", "bf16", "output.weight", gguf.BF16},
		{"qwen2", "q8_0", "blk.0.attn_q.weight", gguf.Q8_0}, {"qwen2", "Q4_0", "blk.0.attn_q.weight", gguf.Q4_0}, {"qwen2", "bfloat16", "blk.0.ffn_up.weight", gguf.BF16},
		{"qwen2", "q4_0", "blk.0.attn_q.bias", gguf.F32}, {"qwen2", "q4_0", "blk.0.attn_norm.weight", gguf.F32}, {"qwen2", "q4_0", "output.weight", gguf.Q8_0},
		{"qwen2", "q4_0", "token_embd.weight", gguf.Q4_0}, {"qwen3", "q4_0", "token_embd.weight", gguf.Q8_0}, {"qwen2", "q4_0", "blk.0.ffn_down.weight", gguf.F16},
		{"gpt2", "q8_0", "position_embd.weight", gguf.F32}, {"mixtral", "q8_0", "blk.1.ffn_gate_inp.weight", gguf.F32}, {"mixtral", "q8_0", "blk.1.ffn_up_exps.weight", gguf.Q8_0},
		{"llama", "", "blk.0.attn_q.weight", gguf.BF16}, {"llama, biases", "", "blk.0.attn_q.weight", gguf.F16}, {"qwen2", "", "blk.0.attn_q.weight", gguf.F32},
	} {
		f, err := gguf.Open(toGGUF(t, synthetic(t, ggufConfigs[c.config]), c.kind))
		if err != nil {
			t.Fatal(err)
		}
		x, ok := f.Tensor(c.tensor)
		if !ok || x.Type != c.want {
			t.Errorf("%s as %q: %s is %v (%v), want %v", c.config, c.kind, c.tensor, x.Type, ok, c.want)
		}
		f.Close()
	}
}

// TestGGUFRefuses: what GGUF can't say is told in a line, and nothing is left.
func TestGGUFRefuses(t *testing.T) {
	change := func(config, old, new string) string {
		if !strings.Contains(ggufConfigs[config], old) {
			t.Fatalf("%s has no %s", config, old)
		}
		return strings.Replace(ggufConfigs[config], old, new, 1)
	}
	for want, config := range map[string]string{
		"no architecture in GGUF": `{"architectures": ["OPTForCausalLM"], "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}`,
		"dynamic has no form":     change("llama, linear", `"linear"`, `"dynamic"`),
		"mscale":                  change("llama, yarn", `"beta_fast": 24`, `"mscale": 0.7`),
		"use_sliding_window":      change("qwen2", `"model_type"`, `"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1, "model_type"`),
		"norm_topk_prob":          change("qwen3moe", `"norm_topk_prob": true`, `"norm_topk_prob": false`),
		"mlp_only_layers":         change("qwen3moe", `"norm_topk_prob": true`, `"norm_topk_prob": true, "mlp_only_layers": [1]`),
		"attention_bias":          change("qwen3", `"head_dim"`, `"attention_bias": true, "head_dim"`),
		"layer_types":             change("gemma2", `"sliding_window"`, `"layer_types": ["full_attention", "full_attention"], "sliding_window"`),
		"other than silu":         change("llama", `"dtype"`, `"hidden_act": "gelu", "dtype"`),
		"other than gelu_new":     change("gpt2", `"gelu_new"`, `"relu"`),
		"other than gelu,":        change("gptneox", `"rotary_pct"`, `"hidden_act": "gelu_new", "rotary_pct"`),
		"root of head_dim":        change("gpt2", `"n_inner"`, `"scale_attn_by_inverse_layer_idx": true, "n_inner"`),
		"post_layernorm":          change("bloom", `"seq_length"`, `"apply_residual_connection_post_layernorm": true, "seq_length"`),
	} {
		out := filepath.Join(t.TempDir(), "x.gguf")
		err := WriteGGUF(synthetic(t, config), out, GGUFOptions{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want an error with %q", err, want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a file was written", want)
		}
	}
	err := WriteGGUF(synthetic(t, ggufConfigs["llama"]), "x.gguf", GGUFOptions{Type: "q4_k"})
	if err == nil || !strings.Contains(err.Error(), `"q4_k"`) {
		t.Error(err)
	}
}

// foreign writes a GGUF file as llama.cpp's converter does, which has no key of ours.
func foreign(t *testing.T, config string, change func(m map[string]any)) string {
	t.Helper()
	f, err := gguf.Open(toGGUF(t, synthetic(t, ggufConfigs[config]), "f32"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := map[string]any{}
	for _, p := range f.Metadata().Pairs {
		m[p.Key] = p.Value
	}
	delete(m, ggufHFKey)
	change(m)
	var pairs []gguf.Pair
	for k, v := range m {
		pairs = append(pairs, gguf.Pair{Key: k, Value: v})
	}
	var specs []gguf.Spec
	for _, name := range f.Names() {
		if x, _ := f.Tensor(name); m["drop "+name] == nil {
			specs = append(specs, gguf.Spec{Name: name, Type: x.Type, Shape: x.Shape})
		}
	}
	pairs = slices.DeleteFunc(pairs, func(p gguf.Pair) bool { return strings.HasPrefix(p.Key, "drop ") })
	path := filepath.Join(t.TempDir(), "foreign.gguf")
	w, err := gguf.Create(path, pairs, specs)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		x, _ := f.Tensor(s.Name)
		v := make([]float32, x.Len())
		if err := x.Read(v, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Write(s.Name, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGGUFMetadata: what metadata mean.
func TestGGUFMetadata(t *testing.T) {
	none := func(m map[string]any) {}
	set := func(pairs ...any) func(m map[string]any) {
		return func(m map[string]any) {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i+1] == nil {
					delete(m, pairs[i].(string))
				} else {
					m[pairs[i].(string)] = pairs[i+1]
				}
			}
		}
	}
	for name, c := range map[string]struct {
		config string
		change func(m map[string]any)
		check  func(c *Config) any
		want   any
	}{
		"llama":                      {"llama", none, func(c *Config) any { return c.Architecture }, "LlamaForCausalLM"},
		"a window makes it mistral":  {"mistral", none, func(c *Config) any { return fmt.Sprint(c.Architecture, c.Window) }, "MistralForCausalLM16"},
		"experts make it mixtral":    {"mixtral", none, func(c *Config) any { return c.Architecture }, "MixtralForCausalLM"},
		"head_dim by the rotation":   {"llama, biases", set("llama.attention.key_length", nil), func(c *Config) any { return c.HeadDim }, 6},
		"no kv heads":                {"gemma", set("gemma.attention.head_count_kv", []int32{2, 2}), func(c *Config) any { return c.KVHeads }, 2},
		"theta's default":            {"llama", set("llama.rope.freq_base", nil), func(c *Config) any { return c.Rope.Theta }, 10000.0},
		"whole numbers of any kind":  {"llama", set("llama.block_count", uint64(2), "llama.embedding_length", int32(32)), func(c *Config) any { return c.Layers }, 2},
		"a decimal's float32":        {"llama", none, func(c *Config) any { return c.NormEps }, 1e-5},
		"ends":                       {"llama", none, func(c *Config) any { return c.EOS }, []int{2, 3, 4}},
		"ids beyond the vocabulary":  {"llama", set("tokenizer.ggml.bos_token_id", uint32(math.MaxUint32)), func(c *Config) any { return c.BOS }, -1},
		"old scaling":                {"llama", set("llama.rope.scale_linear", float32(4)), func(c *Config) any { return fmt.Sprint(c.Rope.Type, c.Rope.Factor) }, "linear4"},
		"scaling of none":            {"llama", set("llama.rope.scaling.type", "none"), func(c *Config) any { return c.Rope.Type }, "default"},
		"gemma3's period":            {"gemma3", set("gemma3.attention.sliding_window_pattern", nil), func(c *Config) any { return c.Windowed }, []bool{true, true}},
		"gemma3's list":              {"gemma3", set("gemma3.attention.sliding_window_pattern", []bool{false, true}), func(c *Config) any { return c.Windowed }, []bool{false, true}},
		"gemma3's scale":             {"gemma3", set("gemma3.attention.scale", float32(0.125)), func(c *Config) any { return c.Scale }, 0.125},
		"gemma3's local theta":       {"gemma3", set("gemma3.rope.freq_base_swa", nil, "gemma3.rope.freq_base", nil), func(c *Config) any { return c.WindowedRope.Theta + c.Rope.Theta }, 1010000.0},
		"gemma2 without caps":        {"gemma2", set("gemma2.attn_logit_softcapping", nil, "gemma2.final_logit_softcapping", nil), func(c *Config) any { return c.AttentionCap + c.LogitCap }, float32(0)},
		"gemma2's caps":              {"gemma2", none, func(c *Config) any { return c.AttentionCap + c.LogitCap }, float32(80)},
		"phi3's window of 0":         {"phi3, long", none, func(c *Config) any { return c.Window }, 0},
		"neox without a rotation":    {"gptneox", set("gptneox.rope.dimension_count", nil), func(c *Config) any { return c.Rope.Dim }, 4},
		"neox is parallel":           {"gptneox", set("gptneox.use_parallel_residual", nil), func(c *Config) any { return c.Place }, ParallelNorm},
		"gpt2's middle":              {"gpt2", none, func(c *Config) any { return c.MLP }, 48},
		"the output is an embedding": {"llama", set("drop output.weight", true), func(c *Config) any { return c.Tied }, true},
		"a head of bloom's own":      {"bloom", none, func(c *Config) any { return c.Tied }, true},
	} {
		got, src, err := openGGUF(foreign(t, c.config, c.change))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if x := c.check(got); !reflect.DeepEqual(x, c.want) {
			t.Errorf("%s: %v, want %v", name, x, c.want)
		}
		src.Close()
	}
	for want, c := range map[string]struct {
		config string
		change func(m map[string]any)
	}{
		"general.architecture is missing":                         {"llama", set("general.architecture", nil)},
		`general.architecture is "falcon"`:                        {"llama", set("general.architecture", "falcon")},
		"general.architecture is 3":                               {"llama", set("general.architecture", uint8(3))},
		"no class of architecture llama":                          {"llama", set(ggufHFKey, "Qwen2ForCausalLM")},
		"llama.block_count is missing":                            {"llama", set("llama.block_count", nil)},
		"llama.block_count is the string":                         {"llama", set("llama.block_count", "2")},
		"num_hidden_layers is -2":                                 {"llama", set("llama.block_count", int32(-2))},
		"num_hidden_layers is 4294967295":                         {"llama", set("llama.block_count", uint32(math.MaxUint32))},
		"num_attention_heads is 0":                                {"llama", set("llama.attention.head_count", uint32(0))},
		"llama.embedding_length is":                               {"llama", set("llama.embedding_length", uint64(math.MaxUint64))},
		"differs from layer to layer":                             {"llama", set("llama.attention.head_count_kv", []uint32{2, 1})},
		"rope.freq_base is NaN":                                   {"llama", set("llama.rope.freq_base", float32(math.NaN()))},
		"rope_theta is -1":                                        {"llama", set("llama.rope.freq_base", float32(-1))},
		"layer_norm_rms_epsilon is the string":                    {"llama", set("llama.attention.layer_norm_rms_epsilon", "small")},
		`scaling.type is "su"`:                                    {"llama", set("llama.rope.scaling.type", "su")},
		"expected half of the rotated columns":                    {"llama 3", set("llama.attention.key_length", uint32(6), "llama.rope.dimension_count", uint32(6))},
		"the metadata ask for [24 32]":                            {"llama", set("llama.attention.key_length", uint32(6), "llama.rope.dimension_count", uint32(6))},
		"no matrix token_embd.weight":                             {"llama", set("drop token_embd.weight", true)},
		"no matrix position_embd.weight":                          {"gpt2", set("drop position_embd.weight", true)},
		"has 1 elements, expected one a layer, 2":                 {"gemma3", set("gemma3.attention.sliding_window_pattern", []bool{true})},
		"sliding_window_pattern is 0":                             {"gemma3", set("gemma3.attention.sliding_window_pattern", uint32(0))},
		"use_parallel_residual is 1 (u8), expected true or false": {"gptneox", set("gptneox.use_parallel_residual", uint8(1))},
		"the metadata say 8000 layers":                            {"llama", set("llama.block_count", uint32(8000))},
		"the metadata ask for [4000 48 32]":                       {"mixtral", set("llama.expert_count", uint32(4000))},
		"no tensor blk.1.ffn_gate_exps.weight":                    {"mixtral", set("drop blk.1.ffn_gate_exps.weight", true)},
		"num_experts_per_tok 9":                                   {"mixtral", set("llama.expert_used_count", uint32(9))},
		"the metadata ask for [2 48 32]":                          {"mixtral", set("llama.expert_count", uint32(2))},
	} {
		path := foreign(t, c.config, c.change)
		_, _, err := openGGUF(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want a line with %q", err, want)
		}
	}
	// What is missing is named by whoever asks for it.
	path := foreign(t, "llama", set("drop blk.1.ffn_up.weight", true))
	if err := WriteFolder(path, t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "no tensor model.layers.1.mlp.up_proj.weight") {
		t.Error(err)
	}
}

// TestFitLlama3: the parameters behind factors are found, or, where none fit, the
// factors are kept as they are.
func TestFitLlama3(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range 300 {
		r := Rope{Type: "llama3", Theta: []float64{10000, 500000, 1e6}[i%3], Dim: []int{64, 80, 128}[rng.IntN(3)], LowFreq: 1,
			HighFreq: []float64{2, 4, 8}[rng.IntN(3)], Factor: []float64{2, 8, 16, 32, 2.5}[rng.IntN(5)], Original: 1024 << rng.IntN(5)}
		want := llama3Factors(r)
		factors := make([]float64, len(want))
		for j, f := range want {
			factors[j] = decimal(float64(float32(f)))
		}
		p := frequencyFactors(factors, r.Theta, int64(r.Dim), 0)
		if p["rope_type"] != "llama3" || p["factor"] != r.Factor {
			t.Errorf("%+v: %v", r, p)
			continue
		}
		got := Rope{Type: "llama3", Theta: r.Theta, Dim: r.Dim, LowFreq: p["low_freq_factor"].(float64), HighFreq: p["high_freq_factor"].(float64),
			Factor: r.Factor, Original: p["original_max_position_embeddings"].(int)}
		for j, f := range llama3Factors(got) {
			if math.Abs(f-want[j]) > 2e-5*f {
				t.Errorf("%+v became %+v: factor %d is %g, was %g", r, got, j, f, want[j])
				break
			}
		}
	}
	odd := []float64{1, 3, 2, 1.5, 7, 1, 1, 1}
	p := frequencyFactors(odd, 10000, 16, 0)
	if p["rope_type"] != "longrope" || !reflect.DeepEqual(p["long_factor"], odd) || p["attention_factor"] != 1.0 {
		t.Errorf("factors of nothing known: %v", p)
	}
	if p := frequencyFactors([]float64{1, 1}, 10000, 4, 0); p != nil {
		t.Errorf("factors of 1: %v", p)
	}
}

// TestPythonFloats: numbers that transformers takes for float have a point or an exponent.
func TestPythonFloats(t *testing.T) {
	got, err := json.Marshal(pythonFloats(map[string]any{"a": 30.0, "b": []float64{1, 1e-5, 2.5, 1e21}, "c": int64(3), "d": map[string]any{"e": 8.0}, "f": nil}))
	if want := `{"a":30.0,"b":[1.0,1e-05,2.5,1e+21],"c":3,"d":{"e":8.0},"f":null}`; err != nil || string(got) != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}

// TestWindowPeriod: the layers with the window, as llama.cpp takes them, and the period of a list.
func TestWindowPeriod(t *testing.T) {
	for fam, want := range map[string]string{"gemma2": "xoxoxoxo", "gemma3": "xxxxxoxx"} {
		got := ""
		for i := range want {
			got += map[bool]string{true: "x", false: "o"}[slidingByDefault(fam)(i)]
		}
		if got != want {
			t.Errorf("%s: %s, want %s", fam, got, want)
		}
	}
	for layers, want := range map[string]int{"xxxxxoxx": 6, "xoxoxo": 2, "ooo": 1, "xxx": 4, "xxo": 3, "oxo": 0, "xoxx": 0, "xxoxo": 0} {
		windowed := make([]bool, len(layers))
		for i := range windowed {
			windowed[i] = layers[i] == 'x'
		}
		if n, ok := windowPeriod(windowed); n != want || ok != (want > 0) {
			t.Errorf("%s: %d, %v, want %d", layers, n, ok, want)
		}
	}
}

func TestMatchName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		layer, expert int
		ok            bool
	}{
		{"a.%d.b", "a.12.b", 12, 0, true}, {"a.%d.b.%d.c", "a.3.b.45.c", 3, 45, true}, {"a", "a", 0, 0, true},
		{"a.%d.b", "a.12.c", 0, 0, false}, {"a.%d.b", "a..b", 0, 0, false}, {"a.%d.b", "a.-1.b", 0, 0, false}, {"a.%d.b", "a.1234567.b", 0, 0, false},
		{"a.%d.b", "a.1", 0, 0, false}, {"a", "b", 0, 0, false}, {"a.%d", "a.7", 7, 0, true},
	} {
		layer, expert, ok := matchName(c.pattern, c.name)
		if ok != c.ok || ok && (layer != c.layer || expert != c.expert) {
			t.Errorf("%s in %s: %d, %d, %v", c.name, c.pattern, layer, expert, ok)
		}
	}
	for dim := 2; dim <= 8; dim += 2 {
		for r := range 3 * dim {
			if ggufRow(rotatedRow(r, dim), dim) != r {
				t.Errorf("row %d of heads of %d", r, dim)
			}
		}
	}
}
