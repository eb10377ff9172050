package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/gguf"
)

// TestConvert: a GGUF file answers and chats as the folder that it was made of, and
// so does a folder made of it; a quantised file, too, runs.
func TestConvert(t *testing.T) {
	model, dir := filepath.Join(fixture(t), "run", "model"), t.TempDir()
	f32, f16, q8, q4 := filepath.Join(dir, "a.gguf"), filepath.Join(dir, "b.gguf"), filepath.Join(dir, "c.gguf"), filepath.Join(dir, "d.gguf")
	again, small := filepath.Join(dir, "again"), filepath.Join(dir, "small")
	for _, args := range [][]string{{model, f32}, {model, f16, "f16"}, {model, q8, "q8_0"}, {f32, q4, "Q4_0"}, {f32, again}, {q8, small, "bf16"}} {
		line := []string{"convert", "--model", args[0], "--out", args[1]}
		if len(args) > 2 {
			line = append(line, "--dtype", args[2])
		}
		if r := ok(t, "", line...); !strings.HasPrefix(r.out, args[1]+": ") || r.errors != "" {
			t.Errorf("%v: %q, %q", args, r.out, r.errors)
		}
	}
	generate := func(path string) string {
		return ok(t, "", "generate", "--model", path, "--json", "--prompt", "say cat 你好", "--max-tokens", "8", "--temperature", "0").out
	}
	chat := func(path string) string {
		return ok(t, "hello\n/bye\n", "chat", "--model", path, "--max-tokens", "8", "--temperature", "0").out
	}
	for _, path := range []string{f32, again} {
		if a, b := generate(model), generate(path); a != b {
			t.Errorf("%s generates %s, its source %s", path, b, a)
		}
		if a, b := chat(model), chat(path); a != b {
			t.Errorf("%s answers %q, its source %q", path, b, a)
		}
	}
	for _, path := range []string{f16, q8, q4, small} {
		generate(path)
	}
	for _, name := range []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} {
		if _, err := os.Stat(filepath.Join(again, name)); err != nil {
			t.Error(err)
		}
	}
	a, err := os.ReadFile(filepath.Join(model, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(again, "tokenizer.json")); err != nil || string(a) != string(b) {
		t.Errorf("tokenizer.json is another (%v)", err)
	}
	// Any name will do for a file that is one.
	plain := filepath.Join(dir, "model.bin")
	if err := os.Rename(f32, plain); err != nil {
		t.Fatal(err)
	}
	generate(plain)
}

func TestConvertRefuses(t *testing.T) {
	model, dir := filepath.Join(fixture(t), "run", "model"), t.TempDir()
	out := filepath.Join(dir, "x.gguf")
	refused(t, exitFailed, []string{"convert", "--model", model, "--out", dir}, "exists already")
	refused(t, exitFailed, []string{"convert", "--model", model, "--out", out, "--dtype", "q5_k"}, `"q5_k"`, "q8_0")
	refused(t, exitUsage, []string{"convert", "--model", model, "--out", filepath.Join(dir, "y"), "--dtype", "q8_0"}, "q8_0", ".gguf")
	refused(t, exitFailed, []string{"convert", "--model", filepath.Join(dir, "none"), "--out", out}, "none")
	refused(t, exitFailed, []string{"convert", "--model", filepath.Join(dir, "none.gguf"), "--out", filepath.Join(dir, "y")}, "none.gguf", "no such file")
	refused(t, exitFailed, []string{"convert", "--model", model, "--out", out, "--tokenizer", filepath.Join(dir, "none")}, "none")
	absent(t, out)
	absent(t, filepath.Join(dir, "y"))
}

// TestBadGGUF: whatever is wrong with a file, generate, chat and convert say so alike.
func TestBadGGUF(t *testing.T) {
	model, dir := filepath.Join(fixture(t), "run", "model"), t.TempDir()
	good := filepath.Join(dir, "good.gguf")
	ok(t, "", "convert", "--model", model, "--out", good)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(good)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// with writes a file of other metadata and no tensors.
	with := func(change ...gguf.Pair) []byte {
		path := filepath.Join(dir, "changed.gguf")
		w, err := gguf.Create(path, change, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	swap := func(old, new string) []byte { return []byte(strings.Replace(string(whole), old, new, 1)) }
	for _, c := range map[string]struct {
		file []byte
		word string
	}{
		"empty":                {nil, "too few"},
		"text":                 {[]byte("version https://git-lfs.github.com/spec/v1\noid sha256:abc\n"), "not a GGUF file"},
		"cut in the header":    {whole[:200], "bad.gguf"},
		"cut in the data":      {whole[:len(whole)-5000], "cut off"},
		"no metadata":          {with(), "general.architecture is missing"},
		"another architecture": {with(gguf.Pair{Key: "general.architecture", Value: "mamba"}), `"mamba"`},
		"no tensors":           {with(gguf.Pair{Key: "general.architecture", Value: "llama"}), "token_embd.weight"},
		"a tensor's name":      {swap("blk.1.ffn_up.weight", "blk.1.ffn_op.weight"), "model.layers.1.mlp.up_proj.weight"},
		"a key's name":         {swap("llama.block_count", "llama.block_cound"), "llama.block_count"},
	} {
		bad := filepath.Join(dir, "bad.gguf")
		if err := os.WriteFile(bad, c.file, 0o666); err != nil {
			t.Fatal(err)
		}
		for _, command := range [][]string{{"generate", "--prompt", "x"}, {"chat"}, {"convert", "--out", filepath.Join(dir, "out")}} {
			refused(t, exitFailed, append(command, "--model", bad), "bad.gguf")
		}
		refused(t, exitFailed, []string{"convert", "--out", filepath.Join(dir, "out"), "--model", bad}, c.word)
		absent(t, filepath.Join(dir, "out"))
	}
	// A tokenizer that can't be used, in a model that could be.
	for _, c := range map[string]struct{ key, with, word string }{
		"no tokenizer":         {"tokenizer.ggml.model", "tokenizer.ggml.modem", "no tokenizer"},
		"another tokenizer":    {"tokenizer.ggml.pre", "tokenizer.ggml.prf", ""},
		"no tokens":            {"tokenizer.ggml.tokens", "tokenizer.ggml.tokenz", "tokenizer.ggml.tokens"},
		"no merges, no matter": {"tokenizer.ggml.merges", "tokenizer.ggml.mergez", ""},
	} {
		bad := filepath.Join(dir, "bad.gguf")
		if err := os.WriteFile(bad, swap(c.key, c.with), 0o666); err != nil {
			t.Fatal(err)
		}
		args := []string{"generate", "--prompt", "x", "--max-tokens", "1", "--model", bad}
		if c.word == "" {
			ok(t, "", args...)
		} else {
			refused(t, exitFailed, args, "bad.gguf", c.word)
		}
	}
}
