package model

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"ringtail/safetensors"
)

// Save writes the model into dir, which must exist, as a folder that
// transformers loads: config.json, generation_config.json and weights in
// Config.Dtype. Tokenizer files are the caller's.
func (m *Model) Save(dir string) error {
	c := m.Config.Clone()
	suffix := "ForCausalLM"
	if m.Head == ScalarHead {
		suffix = "ForSequenceClassification"
		c.raw["num_labels"] = 1
		c.raw["id2label"] = map[string]string{"0": "LABEL_0"}
		c.raw["label2id"] = map[string]int{"LABEL_0": 0}
	}
	// The file may have named a bare decoder (LlamaModel), or only a model_type.
	if c.ModelType == "" {
		c.raw["model_type"] = c.family()
	}
	c.Architecture = families[c.family()].class + suffix
	text, err := c.JSON()
	if err != nil {
		return err
	}
	dtype, err := storedDtype(c.Dtype)
	if err != nil {
		return err
	}
	var specs []safetensors.Spec
	for _, e := range m.Store.Layout.Entries {
		specs = append(specs, safetensors.Spec{Name: e.Name, Dtype: dtype, Shape: e.Shape})
	}
	w, err := safetensors.CreateFolder(dir, nil, specs, 0)
	if err != nil {
		return err
	}
	bits, _ := safetensors.DtypeBits(dtype)
	var buf []byte
	for _, s := range specs {
		err := m.Store.Tensor(s.Name, func(src []float32) error {
			n := len(src) * bits / 8
			if len(buf) < n {
				buf = make([]byte, n)
			}
			if err := safetensors.FromFloat32(buf[:n], dtype, src); err != nil {
				return err
			}
			return w.Write(s.Name, buf[:n])
		})
		if err != nil {
			w.Abort()
			return fmt.Errorf("%s: tensor %s: %w", dir, s.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o666); err != nil {
		return err
	}
	if m.Head == ScalarHead {
		return nil
	}
	gen, err := c.generationConfig()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "generation_config.json"), gen, 0o666)
}

// generationConfig is the text of generation_config.json: which tokens begin, end and pad.
func (c *Config) generationConfig() ([]byte, error) {
	out := map[string]any{"_from_model_config": true}
	if c.BOS >= 0 {
		out["bos_token_id"] = c.BOS
	}
	if c.PAD >= 0 {
		out["pad_token_id"] = c.PAD
	}
	if len(c.EOS) == 1 {
		out["eos_token_id"] = c.EOS[0]
	} else if len(c.EOS) > 1 {
		out["eos_token_id"] = c.EOS
	}
	b, err := json.MarshalIndent(out, "", "  ")
	return append(b, '\n'), err
}
