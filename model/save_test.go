package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/safetensors"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// newModel is a model with random weights, its norms and biases too.
func newModel(t testing.TB, dev tensor.Device, opt Options, fields map[string]any) *Model {
	t.Helper()
	m, err := New(mustParse(t, configWith(t, fields)), dev, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	for i, e := range m.Store.Layout.Entries {
		if len(e.Shape) > 1 {
			continue
		}
		v := make([]float64, e.Len())
		for j := range v {
			v[j] = math.Sin(float64(7*i+j)) / 3
			if strings.Contains(e.Name, "norm") {
				v[j]++
			}
		}
		tensor.SetFloat64(m.Store.Param(e.Name).Value, v)
	}
	return m
}

func reload(t testing.TB, dir string, dev tensor.Device, opt Options) *Model {
	t.Helper()
	m, err := Load(dir, dev, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	return m
}

// shapesOfModels are the features that decide which tensors there are.
var shapesOfModels = map[string]map[string]any{
	"plain":      {},
	"tied":       {"tie_word_embeddings": true},
	"grouped":    {"num_attention_heads": 4, "num_key_value_heads": 2},
	"wide heads": {"head_dim": 24},
	"biases":     {"attention_bias": true, "mlp_bias": true},
	"mistral":    ofFamily("Mistral", map[string]any{"sliding_window": 6}),
	"mixtral":    ofFamily("Mixtral", map[string]any{"num_local_experts": 3, "num_experts_per_tok": 2}),
	"qwen2":      ofFamily("Qwen2", map[string]any{"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1}),
	"qwen3":      ofFamily("Qwen3", map[string]any{"head_dim": 12, "num_key_value_heads": 1}),
	"qwen3 moe": ofFamily("Qwen3Moe", map[string]any{"head_dim": 12, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 5,
		"norm_topk_prob": true, "mlp_only_layers": []int{0}}),
	"gemma": ofFamily("Gemma", map[string]any{"head_dim": 12}),
	"gemma 2": ofFamily("Gemma2", map[string]any{"head_dim": 12, "query_pre_attn_scalar": 10, "sliding_window": 6, "attn_logit_softcapping": 2.0,
		"final_logit_softcapping": 3.0}),
	"gemma 3":         ofFamily("Gemma3", map[string]any{"head_dim": 12, "num_key_value_heads": 2, "query_pre_attn_scalar": 10, "sliding_window": 6, "sliding_window_pattern": 2}),
	"phi 3":           ofFamily("Phi3", map[string]any{"num_key_value_heads": 1, "partial_rotary_factor": 0.5}),
	"gpt2":            ofFamily("GPT2", map[string]any{"architectures": []string{"GPT2LMHeadModel"}, "scale_attn_by_inverse_layer_idx": true}),
	"neox":            ofFamily("GPTNeoX", map[string]any{"rotary_pct": 0.5}),
	"neox, in series": ofFamily("GPTNeoX", map[string]any{"use_parallel_residual": false, "attention_bias": false}),
	"opt":             ofFamily("OPT", nil),
	"opt 350m":        ofFamily("OPT", map[string]any{"do_layer_norm_before": false, "word_embed_proj_dim": 6}),
	"opt, no bias":    ofFamily("OPT", map[string]any{"enable_bias": false, "tie_word_embeddings": false}),
	"bloom":           ofFamily("Bloom", nil),
	"bloom 176b":      ofFamily("Bloom", map[string]any{"apply_residual_connection_post_layernorm": true}),
}

// ofFamily are the fields of a model of that class.
func ofFamily(class string, fields map[string]any) map[string]any {
	out := map[string]any{"architectures": []string{class + "ForCausalLM"}, "model_type": nil}
	maps.Copy(out, fields)
	return out
}

// TestSaveLoad: bit for bit in float32; rounded to nearest, ties to even, in 16
// bits; in any division into chunks.
func TestSaveLoad(t *testing.T) {
	for name, fields := range shapesOfModels {
		for _, dtype := range []string{"float32", "bfloat16", "float16", "float64"} {
			for _, head := range []Head{CausalLM, ScalarHead} {
				t.Run(fmt.Sprintf("%s/%s/head %d", name, dtype, head), func(t *testing.T) {
					m := newModel(t, cpu.New(), Options{Head: head, Train: true}, fields)
					if err := m.Config.SetDtype(dtype); err != nil {
						t.Fatal(err)
					}
					dir := t.TempDir()
					if err := m.Save(dir); err != nil {
						t.Fatal(err)
					}
					n := reload(t, dir, cpu.New(), Options{ChunkLen: 100})
					if n.Head != head || n.Config.Dtype != dtype || len(n.Store.Layout.Entries) != len(m.Store.Layout.Entries) {
						t.Fatalf("head %d, dtype %s, %d tensors", n.Head, n.Config.Dtype, len(n.Store.Layout.Entries))
					}
					for _, e := range m.Store.Layout.Entries {
						want := tensor.GetFloat32(m.Store.Param(e.Name).Value)
						for i, v := range want {
							switch dtype {
							case "bfloat16":
								want[i] = roundBits(v, 16)
							case "float16":
								want[i] = half(v)
							}
						}
						if !slices.Equal(tensor.GetFloat32(n.Store.Param(e.Name).Value), want) {
							t.Errorf("%s differs", e.Name)
						}
					}
					again := t.TempDir()
					if err := n.Save(again); err != nil {
						t.Fatal(err)
					}
					for _, f := range []string{"model.safetensors", "config.json"} {
						a, err := os.ReadFile(filepath.Join(dir, f))
						if err != nil {
							t.Fatal(err)
						}
						b, err := os.ReadFile(filepath.Join(again, f))
						if err != nil {
							t.Fatal(err)
						}
						if !slices.Equal(a, b) {
							t.Errorf("%s differs when saved again", f)
						}
					}
				})
			}
		}
	}
}

// roundBits rounds a float32 to nearest even without its last bits.
func roundBits(v float32, bits int) float32 {
	u := math.Float32bits(v)
	u += 1<<(bits-1) - 1 + u>>bits&1
	return math.Float32frombits(u >> bits << bits)
}

// half rounds a float32 of ordinary size to float16.
func half(v float32) float32 {
	if a := math.Abs(float64(v)); a < 0x1p-14 { // subnormal: multiples of 2⁻²⁴
		return float32(math.RoundToEven(float64(v)*0x1p24) * 0x1p-24)
	}
	return roundBits(v, 13)
}

// TestSharded: a folder in several files with an index reads like one file.
func TestSharded(t *testing.T) {
	m := newModel(t, cpu.New(), Options{Head: CausalLM}, shapesOfModels["grouped"])
	dir := t.TempDir()
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	var specs []safetensors.Spec
	for _, e := range m.Store.Layout.Entries {
		specs = append(specs, safetensors.Spec{Name: e.Name, Dtype: "F32", Shape: e.Shape})
	}
	w, err := safetensors.CreateFolder(dir, nil, specs, 3000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range m.Store.Layout.Entries {
		v := tensor.GetFloat32(m.Store.Param(e.Name).Value)
		b := make([]byte, 4*len(v))
		if err := safetensors.FromFloat32(b, "F32", v); err != nil {
			t.Fatal(err)
		}
		if err := w.Write(e.Name, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	shards, _ := filepath.Glob(filepath.Join(dir, "model-*.safetensors"))
	if len(shards) < 3 {
		t.Fatalf("%d shards", len(shards))
	}
	n := reload(t, dir, cpu.New(), Options{})
	for _, e := range m.Store.Layout.Entries {
		if !slices.Equal(tensor.GetFloat32(m.Store.Param(e.Name).Value), tensor.GetFloat32(n.Store.Param(e.Name).Value)) {
			t.Errorf("%s differs", e.Name)
		}
	}
	if err := os.Remove(shards[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, cpu.New(), Options{}); err == nil || !strings.Contains(err.Error(), filepath.Base(shards[1])) {
		t.Errorf("a shard is absent: %v", err)
	}
}

// TestBareDecoder: folders of bare decoders name tensors without "model.".
func TestBareDecoder(t *testing.T) {
	m := newModel(t, cpu.New(), Options{Head: CausalLM}, shapesOfModels["tied"])
	dir := t.TempDir()
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.safetensors")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Same length, so that offsets stay: spaces end the header.
	n := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	head := strings.ReplaceAll(string(b[8:8+n]), `"model.`, `"`)
	copy(b[8:], head+strings.Repeat(" ", n-len(head)))
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	got := reload(t, dir, cpu.New(), Options{})
	for _, e := range m.Store.Layout.Entries {
		if !slices.Equal(tensor.GetFloat32(m.Store.Param(e.Name).Value), tensor.GetFloat32(got.Store.Param(e.Name).Value)) {
			t.Errorf("%s differs", e.Name)
		}
	}
}

// TestHeads: a scalar head on a causal model's folder is made fresh, by the seed;
// a causal head is never made up.
func TestHeads(t *testing.T) {
	m := newModel(t, cpu.New(), Options{Head: CausalLM}, map[string]any{})
	dir := t.TempDir()
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	score := func(seed uint64) []float32 {
		n := reload(t, dir, cpu.New(), Options{Head: ScalarHead, FreshHead: true, Seed: seed})
		if n.Store.Param("lm_head.weight") != nil {
			t.Error("a scalar model holds lm_head")
		}
		return tensor.GetFloat32(n.Store.Param("score.weight").Value)
	}
	if a, b, c := score(1), score(1), score(2); !slices.Equal(a, b) || slices.Equal(a, c) || slices.Max(a) == 0 {
		t.Errorf("heads %v, %v and %v", a[:3], b[:3], c[:3])
	}
	n := reload(t, dir, cpu.New(), Options{Head: ScalarHead, FreshHead: true})
	scalar := t.TempDir()
	if err := n.Save(scalar); err != nil {
		t.Fatal(err)
	}
	var c struct {
		Architectures []string `json:"architectures"`
		Labels        int      `json:"num_labels"`
	}
	text, err := os.ReadFile(filepath.Join(scalar, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &c); err != nil || !slices.Equal(c.Architectures, []string{"LlamaForSequenceClassification"}) || c.Labels != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := os.Stat(filepath.Join(scalar, "generation_config.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("generation_config.json of a scalar model: %v", err)
	}
	if _, err := Load(scalar, cpu.New(), Options{Head: CausalLM}); err == nil || !strings.Contains(err.Error(), "lm_head.weight") {
		t.Errorf("a causal head of a scalar folder: %v", err)
	}
}

// TestInit: weights depend on the seed and their names, not on layout or device;
// matrices have the configured deviation, norms are 1, biases 0.
func TestInit(t *testing.T) {
	text := configWith(t, map[string]any{"hidden_size": 64, "intermediate_size": 96, "vocab_size": 100, "attention_bias": true, "initializer_range": 0.05})
	make_ := func(dev tensor.Device, opt Options) *Model {
		m, err := New(mustParse(t, text), dev, opt)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Free)
		return m
	}
	a := make_(cpu.New(), Options{Head: CausalLM, Seed: 4})
	b := make_(ref.New(), Options{Head: CausalLM, Seed: 4, ChunkLen: 1000, Train: true, Frozen: func(n string) bool { return strings.Contains(n, "mlp") }})
	c := make_(cpu.New(), Options{Head: CausalLM, Seed: 5})
	for _, e := range a.Store.Layout.Entries {
		v := tensor.GetFloat32(a.Store.Param(e.Name).Value)
		if !slices.Equal(v, tensor.GetFloat32(b.Store.Param(e.Name).Value)) {
			t.Errorf("%s hangs on layout or device", e.Name)
		}
		var sum, squares float64
		for _, x := range v {
			sum += float64(x)
			squares += float64(x) * float64(x)
		}
		n := float64(len(v))
		switch {
		case strings.Contains(e.Name, "norm"):
			if sum != n || squares != n {
				t.Errorf("%s is not 1", e.Name)
			}
		case strings.HasSuffix(e.Name, "bias"):
			if squares != 0 {
				t.Errorf("%s is not 0", e.Name)
			}
		default:
			if sd := math.Sqrt(squares / n); math.Abs(sd-0.05) > 0.05*4/math.Sqrt(n) || math.Abs(sum/n) > 0.05*5/math.Sqrt(n) {
				t.Errorf("%s: mean %g, deviation %g", e.Name, sum/n, sd)
			}
			if slices.Equal(v, tensor.GetFloat32(c.Store.Param(e.Name).Value)) {
				t.Errorf("%s is the same for another seed", e.Name)
			}
		}
	}
}
