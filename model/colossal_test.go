package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stub is a source of tensors of one element, whose value is their place.
type stub []string

func (s stub) Names() []string { return s }
func (s stub) Close() error    { return nil }
func (s stub) Find(name string) (Stored, bool) {
	i := slices.Index(s, name)
	return Stored{Dtype: "F32", Shape: []int{1}, Read: func(dst []float32, from int) error {
		for j := range dst {
			dst[j] = float32(i)
		}
		return nil
	}}, i >= 0
}

// Names of wrapped models, as their classes in DeepSpeed-Chat and ColossalChat make them.
func TestUnwrap(t *testing.T) {
	for name, c := range map[string]struct{ stored, want, note string }{
		"plain":                {"model.embed_tokens.weight lm_head.weight", "model.embed_tokens.weight lm_head.weight", ""},
		"reward model of ours": {"model.embed_tokens.weight score.weight", "model.embed_tokens.weight score.weight", ""},
		"DeepSpeed-Chat OPT":   {"v_head.weight rwtransformer.decoder.embed_tokens.weight", "score.weight decoder.embed_tokens.weight", ""},
		"DeepSpeed-Chat, old":  {"v_head.weight rwtranrsformer.decoder.layers.0.fc1.bias", "score.weight decoder.layers.0.fc1.bias", ""},
		"DeepSpeed-Chat LLaMA": {"rwtransformer.layers.0.self_attn.q_proj.weight v_head.weight", "layers.0.self_attn.q_proj.weight score.weight", ""},
		"ColossalChat LLaMA":   {"model.layers.0.mlp.up_proj.weight model.norm.weight value_head.weight", "layers.0.mlp.up_proj.weight norm.weight score.weight", ""},
		"ColossalChat BLOOM":   {"value_head.bias model.word_embeddings.weight value_head.weight", "word_embeddings.weight score.weight", ""}, // a bias of 0
		"ColossalChat bias":    {"model.wte.weight value_head.weight value_head.bias", "wte.weight score.weight", "value_head.bias is left out: all values are 2 less"},
		"v_head of another":    {"transformer.wte.weight v_head.weight", "transformer.wte.weight v_head.weight", ""},
	} {
		t.Run(name, func(t *testing.T) {
			stored := strings.Fields(c.stored)
			src, err := unwrap(stub(stored))
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Fields(c.want)
			if !slices.Equal(src.Names(), want) {
				t.Fatalf("names %q, want %q", src.Names(), want)
			}
			bias := 0
			for i, n := range want {
				if i+bias < len(stored) && strings.HasSuffix(stored[i+bias], "_head.bias") {
					bias++
				}
				s, ok := src.Find(n)
				if !ok {
					t.Fatalf("%s is not found", n)
				}
				var v [1]float32
				if s.Read(v[:], 0); v[0] != float32(i+bias) {
					t.Errorf("%s is %s", n, stored[int(v[0])])
				}
			}
			notes := ""
			if r, ok := src.(*renamed); ok {
				notes = strings.Join(r.Notes(), "\n")
				if _, ok := src.Find("v_head.weight"); ok {
					t.Error("found under its old name")
				}
			}
			if !strings.Contains(notes, c.note) || (notes == "") != (c.note == "") {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
		})
	}
	for _, name := range []string{"model.layers.0.self_attn.q_proj.lora_A", "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", "decoder.layers.0.fc1.lora_right_weight"} {
		if _, err := unwrap(stub{"model.norm.weight", name}); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "merge") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := unwrap(stub{"model.norm.weight", "norm.weight", "value_head.weight"}); err == nil || !strings.Contains(err.Error(), "both norm.weight") {
		t.Errorf("two of a name: %v", err)
	}
}

func TestFindRun(t *testing.T) {
	const m = "config.json pytorch_model.bin "
	for name, c := range map[string]struct{ files, dir, tokenizer, note, err string }{
		"a model":               {"config.json model.safetensors", ".", "", "", ""},
		"a model beside a run":  {"config.json modeling/config.json", ".", "", "", ""},
		"nothing":               {"readme.txt", ".", "", "", ""},
		"the end":               {"modeling/config.json modeling/tokenizer.json epoch-1_step-5/modeling/config.json", "modeling", "", "ColossalChat run", ""},
		"tokenizer above":       {"modeling/config.json tokenizer.model", "modeling", ".", "ColossalChat run", ""},
		"no tokenizer":          {"modeling/config.json", "modeling", "", "ColossalChat run", ""},
		"a checkpoint":          {"modeling/config.json running_states.json optimizer/x", "modeling", "", "ColossalChat run", ""},
		"PPO":                   {"actor/modeling/config.json critic/modeling/config.json tokenizer.json", "actor/modeling", ".", "actor", ""},
		"the last checkpoint":   {"epoch-0_step-900/modeling/config.json epoch-1_step-10/modeling/config.json epoch-1_step-9/modeling/config.json", "epoch-1_step-10/modeling", "", "not ended", ""},
		"a checkpoint in work":  {"epoch-0_step-1/modeling/config.json epoch-0_step-2/optimizer/x", "epoch-0_step-1/modeling", "", "not ended", ""},
		"no config":             {"modeling/pytorch_model.bin.index.json", "", "", "", "config.json"},
		"weights alone":         {"pytorch_model.bin", "", "", "", "config.json"},
		"empty modeling":        {"modeling/optimizer", "", "", "", "neither config.json nor weights"},
		"an adapter":            {"adapter_config.json adapter_model.safetensors", "", "", "", "LoRA adapter"},
		"an adapter, bare":      {"adapter_model.bin", "", "", "", "LoRA adapter"},
		"an adapter in a model": {m + "adapter_config.json", ".", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range strings.Fields(c.files) {
				path := filepath.Join(root, filepath.FromSlash(f))
				if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			run, err := FindRun(root)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), root) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tokenizer := ""
			if c.tokenizer != "" {
				tokenizer = filepath.Join(root, c.tokenizer)
			}
			if run.Dir != filepath.Join(root, filepath.FromSlash(c.dir)) || run.Tokenizer != tokenizer {
				t.Errorf("model in %s, tokenizer in %q", run.Dir, run.Tokenizer)
			}
			if !strings.Contains(run.Note, c.note) || (run.Note == "") != (c.note == "") {
				t.Errorf("note %q, want %q", run.Note, c.note)
			}
		})
	}
	if run, err := FindRun("no/such"); err != nil || run.Dir != "no/such" {
		t.Errorf("a path that isn't there: %+v, %v", run, err)
	}
}
