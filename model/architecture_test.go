package model

import (
	"encoding/json"
	"maps"
	"testing"

	"ringtail/tensor/ref"
)

// TestSavedArchitecture: whatever way config.json named the family, the folder
// that is written names the class of the model and its head, and loads again.
func TestSavedArchitecture(t *testing.T) {
	shape := map[string]any{"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6}
	for _, c := range []struct {
		name  string
		named map[string]any
		head  Head
		want  string
	}{
		{"usual", map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama"}, CausalLM, "LlamaForCausalLM"},
		{"bare decoder", map[string]any{"architectures": []string{"MistralModel"}, "model_type": "mistral"}, CausalLM, "MistralForCausalLM"},
		{"model_type only", map[string]any{"model_type": "llama"}, CausalLM, "LlamaForCausalLM"},
		{"architecture only", map[string]any{"architectures": []string{"MistralForCausalLM"}}, CausalLM, "MistralForCausalLM"},
		{"another head", map[string]any{"architectures": []string{"LlamaForCausalLM"}}, ScalarHead, "LlamaForSequenceClassification"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fields := maps.Clone(shape)
			maps.Copy(fields, c.named)
			text, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			config, err := ParseConfig(text)
			if err != nil {
				t.Fatal(err)
			}
			m, err := New(config, ref.New(), Options{Head: c.head})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Free()
			dir := t.TempDir()
			if err := m.Save(dir); err != nil {
				t.Fatal(err)
			}
			again, err := Load(dir, ref.New(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Free()
			if again.Config.Architecture != c.want || again.Head != c.head || again.Config.ModelType != config.family() {
				t.Errorf("written as %s (model_type %q), head %d; want %s, %q, %d", again.Config.Architecture, again.Config.ModelType,
					again.Head, c.want, config.family(), c.head)
			}
		})
	}
}
