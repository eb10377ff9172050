package model

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/gguf"
)

// FuzzOpenGGUF: a file of any bytes gives a configuration and readable tensors, or
// an error in a line, never a panic.
func FuzzOpenGGUF(f *testing.F) {
	// Metadata and shapes of small models; the tensors' data, all zeros, come from the test.
	small := func(arch string, pairs []gguf.Pair, specs []gguf.Spec) {
		path := filepath.Join(f.TempDir(), "x.gguf")
		w, err := gguf.Create(path, append([]gguf.Pair{{Key: "general.architecture", Value: arch}}, pairs...), specs)
		if err != nil {
			f.Fatal(err)
		}
		for _, s := range specs {
			n := 1
			for _, d := range s.Shape {
				n *= d
			}
			if err := w.Write(s.Name, make([]float32, n)); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	size := func(arch, name string, n uint32) gguf.Pair { return gguf.Pair{Key: arch + "." + name, Value: n} }
	for _, arch := range []string{"llama", "gemma3", "gpt2", "gptneox", "phi3"} {
		pairs := []gguf.Pair{size(arch, "block_count", 1), size(arch, "embedding_length", 4), size(arch, "attention.head_count", 1),
			size(arch, "feed_forward_length", 4), size(arch, "attention.sliding_window", 2), size(arch, "expert_count", 0)}
		specs := []gguf.Spec{{Name: "token_embd.weight", Type: gguf.F32, Shape: []int{2, 4}}, {Name: "position_embd.weight", Type: gguf.F16, Shape: []int{2, 4}},
			{Name: "blk.0.attn_q.weight", Type: gguf.F32, Shape: []int{4, 4}}, {Name: "rope_freqs.weight", Type: gguf.F32, Shape: []int{2}},
			{Name: "blk.0.ffn_up.weight", Type: gguf.F32, Shape: []int{4, 4}}}
		small(arch, pairs, specs)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, file []byte) {
		path := filepath.Join(dir, "x.gguf")
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
		c, src, err := Open(path)
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 1000 {
				t.Errorf("not a line: %q", err)
			}
			return
		}
		defer src.Close()
		if _, err := c.JSON(); err != nil {
			t.Error(err)
		}
		for _, name := range src.Names() {
			x, ok := src.Find(name)
			if !ok {
				t.Fatalf("no %s", name)
			}
			n := 1
			for _, d := range x.Shape {
				n *= d
			}
			if n == 0 || n > 1<<16 || x.Read(nil, 0) != nil {
				continue
			}
			if err := x.Read(make([]float32, n), 0); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
