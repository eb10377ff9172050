package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"ringtail/safetensors"
)

// Save writes the model into dir, which must exist, as a folder that
// transformers loads: config.json, generation_config.json and weights in
// Config.Dtype. Tokenizer files are the caller's.
func (m *Model) Save(dir string) error {
	c := m.Config.Clone()
	if m.Head == ScalarHead {
		c.raw["num_labels"] = 1
		c.raw["id2label"] = map[string]string{"0": "LABEL_0"}
		c.raw["label2id"] = map[string]int{"LABEL_0": 0}
	}
	// The file may have named a bare decoder (LlamaModel), or only a model_type.
	if c.ModelType == "" {
		c.raw["model_type"] = c.fam().modelType
	}
	c.Architecture = c.fam().architecture(m.Head)
	dtype, err := storedDtype(c.Dtype)
	if err != nil {
		return err
	}
	var specs []safetensors.Spec
	for _, e := range m.Store.Layout.Entries {
		specs = append(specs, safetensors.Spec{Name: e.Name, Dtype: dtype, Shape: c.storage(e.Name, e.Shape).shape})
	}
	w, err := safetensors.CreateFolder(dir, nil, specs, 0)
	if err != nil {
		return err
	}
	for _, e := range m.Store.Layout.Entries {
		if err := m.write(w, e.Name, c.storage(e.Name, e.Shape), dtype); err != nil {
			w.Abort()
			return fmt.Errorf("%s: tensor %s: %w", dir, e.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.writeConfig(dir, m.Head)
}

// writeConfig writes config.json and, for a model that generates, generation_config.json.
func (c *Config) writeConfig(dir string, head Head) error {
	text, err := c.JSON()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o666); err != nil {
		return err
	}
	if head == ScalarHead {
		return nil
	}
	if text, err = c.generationConfig(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "generation_config.json"), text, 0o666)
}

// write writes one tensor as it is stored.
func (m *Model) write(w *safetensors.FolderWriter, name string, store storage, dtype string) error {
	bits, _ := safetensors.DtypeBits(dtype)
	var buf []byte
	put := func(src []float32) error {
		n := len(src) * bits / 8
		if len(buf) < n {
			buf = make([]byte, n)
		}
		if err := safetensors.FromFloat32(buf[:n], dtype, src); err != nil {
			return err
		}
		return w.Write(name, buf[:n])
	}
	if !store.differs() {
		return m.Store.Tensor(name, put)
	}
	all := make([]float32, 0, store.rows*store.width)
	if err := m.Store.Tensor(name, func(src []float32) error {
		all = append(all, src...)
		return nil
	}); err != nil {
		return err
	}
	stored := make([]float32, len(all))
	toStored(store, stored, all)
	return put(stored)
}

// generationConfig is the text of generation_config.json: that of the folder that
// the model came from, with the tokens that begin, end and pad as they now are.
func (c *Config) generationConfig() ([]byte, error) {
	out := maps.Clone(c.generation)
	if out == nil {
		out = map[string]any{"_from_model_config": true}
	}
	for key, id := range map[string]int{"bos_token_id": c.BOS, "pad_token_id": c.PAD} {
		delete(out, key)
		if id >= 0 {
			out[key] = id
		}
	}
	delete(out, "eos_token_id")
	if len(c.EOS) == 1 {
		out["eos_token_id"] = c.EOS[0]
	} else if len(c.EOS) > 1 {
		out["eos_token_id"] = c.EOS
	}
	b, err := json.MarshalIndent(out, "", "  ")
	return append(b, '\n'), err
}
