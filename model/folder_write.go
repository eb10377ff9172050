package model

import (
	"fmt"

	"ringtail/safetensors"
	"ringtail/shard"
)

// WriteFolder writes the model at path (see Open) into dir, which must exist, as a
// folder that transformers loads: config.json, generation_config.json and weights of a
// dtype, or of the configuration's own where it is "". Tensors stream through: memory
// holds a piece of one, or one of those whose layout differs. Tokenizer files are the caller's.
func WriteFolder(path, dir, dtype string) error {
	c, src, err := Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	if dtype != "" {
		if err := c.SetDtype(dtype); err != nil {
			return err
		}
	}
	return writeFolder(path, c, src, dir)
}

// writeFolder is WriteFolder with the configuration and the weights at hand.
func writeFolder(path string, c *Config, src Source, dir string) error {
	kind, err := storedDtype(c.Dtype)
	if err != nil {
		return err
	}
	head := CausalLM
	if c.Scalar() {
		head = ScalarHead
	}
	load := &loader{path: path, c: c, src: src, head: head, stored: map[string]string{}}
	var specs []safetensors.Spec
	for _, s := range c.specs(Options{}, head) {
		if err := load.check(s, false); err != nil {
			return err
		}
		specs = append(specs, safetensors.Spec{Name: s.Name, Dtype: kind, Shape: c.storage(s.Name, s.Shape).shape})
	}
	w, err := safetensors.CreateFolder(dir, nil, specs, 0)
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, s := range specs {
		t, _ := src.Find(load.stored[s.Name])
		if err := copyStored(w, s, t); err != nil {
			return fmt.Errorf("%s: tensor %s: %w", path, s.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.writeConfig(dir, head)
}

// copyStored writes a tensor of a source, piece by piece.
func copyStored(w *safetensors.FolderWriter, s safetensors.Spec, t Stored) error {
	if t.Done != nil {
		defer t.Done()
	}
	n := shard.Spec{Shape: s.Shape}.Len()
	const piece = 1 << 20
	bits, _ := safetensors.DtypeBits(s.Dtype)
	values := make([]float32, min(n, piece))
	buf := make([]byte, len(values)*bits/8)
	for at := 0; at < n; at += piece {
		part := values[:min(n-at, piece)]
		if err := t.Read(part, at); err != nil {
			return err
		}
		b := buf[:len(part)*bits/8]
		if err := safetensors.FromFloat32(b, s.Dtype, part); err != nil {
			return err
		}
		if err := w.Write(s.Name, b); err != nil {
			return err
		}
	}
	return nil
}
