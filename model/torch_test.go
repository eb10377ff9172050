package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/shard"
	"ringtail/tensor/cpu"
)

// tensorsOf loads a model and gives its tensors by name.
func tensorsOf(t *testing.T, dir string, head Head) map[string][]float32 {
	t.Helper()
	m, err := Load(dir, cpu.New(), Options{Head: head})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	out := map[string][]float32{}
	for _, e := range m.Store.Layout.Entries {
		out[e.Name] = valuesOf(t, m, e)
	}
	return out
}

func valuesOf(t *testing.T, m *Model, e shard.Entry) []float32 {
	t.Helper()
	var out []float32
	if err := m.Store.Tensor(e.Name, func(src []float32) error {
		out = append(out, src...)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// A model is the same in PyTorch's files, whole or in shards, and as the decoder of a reward
// model of DeepSpeed-Chat or ColossalChat; torch and transformers wrote them all
// (oracle/torch_files.py).
func TestLoadTorch(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join("testdata", "torch", "*", "*"))
	if err != nil || len(folders) < 15 {
		t.Fatalf("%d folders, %v", len(folders), err)
	}
	for _, dir := range folders {
		family, form := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
		if form == "safetensors" {
			continue
		}
		t.Run(family+" "+form, func(t *testing.T) {
			want := tensorsOf(t, filepath.Join(filepath.Dir(dir), "safetensors"), CausalLM)
			head := CausalLM
			if strings.HasSuffix(form, "-rm") {
				head = ScalarHead
			}
			got := tensorsOf(t, dir, head)
			if head == ScalarHead {
				score := got["score.weight"]
				if !slices.Equal(score, []float32{0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75}) {
					t.Errorf("score.weight is %v", score)
				}
				delete(got, "score.weight")
				delete(want, "lm_head.weight")
			}
			if len(got) != len(want) || len(got) < 10 {
				t.Errorf("%d tensors, want %d", len(got), len(want))
			}
			for name, v := range want {
				if !slices.Equal(got[name], v) {
					t.Errorf("%s: %v, want %v", name, got[name], v)
				}
			}
		})
	}
}

// What is wrong with PyTorch's files is said of the folder.
func TestLoadTorchRefuses(t *testing.T) {
	copyOf := func(form string) string {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "torch", "llama", form))); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	missing := copyOf("shards")
	os.Remove(filepath.Join(missing, "pytorch_model-00002-of-00002.bin"))
	outside := copyOf("shards")
	index := filepath.Join(outside, "pytorch_model.bin.index.json")
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(index, []byte(strings.ReplaceAll(string(text), `"pytorch_model-00001`, `"../pytorch_model-00001`)), 0o666)
	cut := copyOf("bin")
	os.Truncate(filepath.Join(cut, "pytorch_model.bin"), 5000)
	evil := copyOf("bin")
	b, err := os.ReadFile(filepath.Join("..", "torchfile", "testdata", "evil.pt"))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(evil, "pytorch_model.bin"), b, 0o666)
	for dir, want := range map[string]string{missing: "pytorch_model-00002-of-00002.bin is missing", outside: "refused", cut: "cut off", evil: "run code"} {
		m, err := Load(dir, cpu.New(), Options{Head: CausalLM})
		if err == nil {
			m.Free()
			t.Errorf("%s: loaded", want)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v doesn't say %q in a line", err, want)
		}
	}
	m, err := Load(filepath.Join("testdata", "torch", "llama", "colossal-rm"), cpu.New(), Options{Head: ScalarHead})
	if err != nil {
		t.Fatal(err)
	}
	if m.Free(); len(m.Notes) != 1 || !strings.Contains(m.Notes[0], "value_head.bias is left out") {
		t.Errorf("notes %q", m.Notes)
	}
	if _, err := Load(filepath.Join("testdata", "torch", "llama", "bin"), cpu.New(), Options{Head: ScalarHead}); err == nil || !strings.Contains(err.Error(), "no reward or value model") {
		t.Errorf("a language model as a reward model: %v", err)
	}
}
