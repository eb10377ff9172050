package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// edit changes a file.
func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o666); err != nil {
		t.Fatal(err)
	}
}

// setField changes fields of a JSON object; nil takes one away.
func setField(t testing.TB, path string, fields map[string]any) {
	t.Helper()
	edit(t, path, func(b []byte) []byte {
		var o map[string]any
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		for k, v := range fields {
			if v == nil {
				delete(o, k)
			} else {
				o[k] = v
			}
		}
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
}

// header changes the JSON header of a safetensors file.
func header(change func(string) string) func([]byte) []byte {
	return func(b []byte) []byte {
		n := binary.LittleEndian.Uint64(b)
		text := change(string(b[8 : 8+n]))
		out := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
		return append(append(out, text...), b[8+n:]...)
	}
}

// TestBadModel: whatever is wrong with a model folder, generate, chat and train
// say so alike.
func TestBadModel(t *testing.T) {
	const weights, config, tok = "model.safetensors", "config.json", "tokenizer.json"
	for name, c := range map[string]struct {
		break_ func(t *testing.T, dir string)
		words  []string
	}{
		"no folder":     {func(t *testing.T, dir string) { os.RemoveAll(dir) }, []string{"no such"}},
		"no weights":    {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, weights)) }, []string{"safetensors"}},
		"no config":     {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, config)) }, []string{"config.json"}},
		"no tokenizer":  {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, tok)) }, []string{"tokenizer"}},
		"empty weights": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, weights), "") }, []string{weights}},
		"weights are text": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, weights), "version https://git-lfs.github.com/spec/v1\noid sha256:abc\n")
		}, []string{weights}},
		"truncated weights": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, weights), func(b []byte) []byte { return b[:len(b)*2/3] })
		}, []string{weights}},
		"truncated header": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, weights), func(b []byte) []byte { return b[:20] })
		}, []string{weights}},
		"absurd header": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, weights), func(b []byte) []byte { copy(b, "\xff\xff\xff\xff\xff\xff\xff\x7f"); return b })
		}, []string{weights}},
		"missing tensor": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, weights), header(func(s string) string { return strings.Replace(s, "layers.1.mlp.up_proj", "layers.1.mlp.op_proj", 1) }))
		}, []string{"model.layers.1.mlp.up_proj.weight"}},
		"wrong dtype": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, weights), header(func(s string) string { return strings.Replace(s, `"F32"`, `"I32"`, 1) }))
		}, []string{"I32", "model."}},
		"overlapping tensors": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, weights), header(func(s string) string { return strings.Replace(s, `"data_offsets":[0,`, `"data_offsets":[64,`, 1) }))
		}, []string{weights}},
		"wrong shape": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"intermediate_size": 32})
		}, []string{"mlp", "[24 16]", "[32 16]"}},
		"huge vocabulary": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"vocab_size": 16000000})
		}, []string{"embed_tokens", "16000000"}},
		"huge everything": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"vocab_size": 1 << 24, "hidden_size": 1 << 17, "intermediate_size": 1 << 20, "num_hidden_layers": 4096, "num_attention_heads": 1 << 10, "num_key_value_heads": 1 << 10, "head_dim": nil})
		}, []string{"embed_tokens"}},
		"too many layers": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"num_hidden_layers": 8000})
		}, []string{"model.layers.2."}},
		"absurd layers": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"num_hidden_layers": 1e15})
		}, []string{"num_hidden_layers"}},
		"absurd positions": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"max_position_embeddings": 1e15})
		}, []string{"max_position_embeddings"}},
		"negative width": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"hidden_size": -16})
		}, []string{"hidden_size", "-16"}},
		"fractional heads": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"num_attention_heads": 2.5})
		}, []string{"num_attention_heads", "2.5"}},
		"zero heads": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"num_key_value_heads": 0})
		}, []string{"num_key_value_heads"}},
		"text for a number": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"hidden_size": "wide"})
		}, []string{"hidden_size", "wide"}},
		"unknown architecture": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"architectures": []string{"MambaForCausalLM"}})
		}, []string{"MambaForCausalLM", "llama"}},
		"unknown activation": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"hidden_act": "mish"})
		}, []string{"hidden_act", "mish"}},
		"unknown rope": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, config), map[string]any{"rope_scaling": map[string]any{"type": "spiral"}})
		}, []string{"rope", "spiral"}},
		"config is no JSON": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, config), "{") }, []string{"config.json"}},
		"config is a list":  {func(t *testing.T, dir string) { write(t, filepath.Join(dir, config), "[]") }, []string{"config.json"}},
		"empty config":      {func(t *testing.T, dir string) { write(t, filepath.Join(dir, config), "{}") }, []string{"config.json", "architectures"}},
		"tokenizer is no JSON": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, tok), func(b []byte) []byte { return b[:len(b)/2] })
		}, []string{tok}},
		"tokenizer lacks model": {func(t *testing.T, dir string) { setField(t, filepath.Join(dir, tok), map[string]any{"model": nil}) }, []string{tok, "model"}},
		"unknown tokenizer": {func(t *testing.T, dir string) {
			setField(t, filepath.Join(dir, tok), map[string]any{"model": map[string]any{"type": "Magic"}})
		}, []string{tok, "Magic"}},
		"larger tokenizer": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, tok), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"added_tokens":[`), []byte(`"added_tokens":[{"id":300,"content":"<|more|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},`), 1)
			})
		}, []string{"301", "300"}},
		"broken template": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "chat_template.jinja"), "{% for m in messages %}")
		}, []string{"chat_template.jinja"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := modelCopy(t)
			if name == "larger tokenizer" {
				edit(t, filepath.Join(dir, tok), func(b []byte) []byte {
					return bytes.ReplaceAll(b, []byte(`"added_tokens": [`), []byte(`"added_tokens":[`))
				})
			}
			c.break_(t, dir)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			refused(t, exitFailed, []string{"generate", "--model", dir, "--prompt", "x"}, c.words...)
			refused(t, exitFailed, []string{"chat", "--model", dir}, c.words...)
			out := filepath.Join(t.TempDir(), "run")
			refused(t, exitFailed, []string{"train", "sft", filepath.Join(fixture(t), "recipe.yaml"), "--dir", out, "--set", "model=" + dir, "--set", "tokenizer=" + dir}, c.words...)
			absent(t, out)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 200<<20 {
				t.Errorf("%d MiB were allocated to say so", n>>20)
			}
		})
	}
}

// TestBadRecipe: nothing is written before a recipe is found fit.
func TestBadRecipe(t *testing.T) {
	dir := fixture(t)
	for name, c := range map[string]struct {
		text  string
		words []string
	}{
		"unknown key":         {strings.Replace(recipeText, "lr:", "lrr:", 1), []string{"train.lrr", "train.lr"}},
		"unknown block":       {recipeText + "optimiser: {beta1: 0.9}\n", []string{"optimiser", "optimizer"}},
		"wrong type":          {strings.Replace(recipeText, "steps: 6", "steps: soon", 1), []string{"train.steps", "soon"}},
		"out of range":        {strings.Replace(recipeText, "steps: 6", "steps: -6", 1), []string{"train.steps", "-6"}},
		"wrong choice":        {strings.Replace(recipeText, "lr: 0.01", "lr: 0.01, schedule: cosin", 1), []string{"train.schedule", "cosine"}},
		"not YAML":            {"model: [", []string{"recipe.yaml"}},
		"empty":               {"", nil},
		"a list":              {"- 1\n", nil},
		"no data":             {strings.Replace(recipeText, "train: [data.jsonl], ", "", 1), []string{"data.train"}},
		"both sizes":          {strings.Replace(recipeText, "batch: 4", "batch: 4, batch_tokens: 100", 1), []string{"batch_tokens"}},
		"no size":             {strings.Replace(recipeText, "batch: 4", "batch: 0", 1), []string{"batch"}},
		"micro_tokens":        {strings.Replace(recipeText, "micro_tokens: 128", "micro_tokens: 32", 1), []string{"micro_tokens", "max_tokens"}},
		"model twice":         {strings.Replace(recipeText, "model: {", "model: {path: tok, ", 1), []string{"path", "new"}},
		"heads":               {strings.Replace(recipeText, "num_attention_heads: 4", "num_attention_heads: 3", 1), []string{"num_attention_heads"}},
		"kv heads":            {strings.Replace(recipeText, "num_key_value_heads: 2", "num_key_value_heads: 3", 1), []string{"num_key_value_heads"}},
		"context":             {strings.Replace(recipeText, "max_position_embeddings: 128", "max_position_embeddings: 32", 1), []string{"max_tokens", "32"}},
		"too large a model":   {strings.Replace(recipeText, "hidden_size: 16", "hidden_size: 262144", 1), []string{"GiB"}},
		"no tokenizer":        {strings.Replace(recipeText, "tokenizer: tok", "", 1), []string{"tokenizer"}},
		"tokenizer not there": {strings.Replace(recipeText, "tokenizer: tok", "tokenizer: tik", 1), []string{"tik"}},
		"file not there":      {strings.Replace(recipeText, "data.jsonl", "date.jsonl", 1), []string{"date.jsonl"}},
		"no file matches":     {strings.Replace(recipeText, "[data.jsonl]", "['*.parquet']", 1), []string{"*.parquet"}},
		"a folder as a file":  {strings.Replace(recipeText, "[data.jsonl]", "[tok]", 1), []string{"tok"}},
		"unknown format":      {strings.Replace(recipeText, "[data.jsonl]", "[{files: [data.jsonl], format: alpaka}]", 1), []string{"alpaka", "alpaca"}},
		"some weights":        {strings.Replace(recipeText, "[data.jsonl]", "[{files: [data.jsonl], weight: 2}, data.jsonl]", 1), []string{"weight"}},
		"template":            {recipeText + "template: chatmlx\n", []string{"chatmlx", "chatml"}},
		"template not there":  {recipeText + "template: ./chat.jinja\n", []string{"chat.jinja"}},
		"device":              {recipeText + "device: cuda:0\n", []string{"device", "cuda:0"}},
		"freeze pattern":      {strings.Replace(recipeText, "model: {", "model: {freeze: ['[a'], ", 1), []string{"model.freeze"}},
		"all frozen":          {strings.Replace(recipeText, "model: {", "model: {freeze: ['*'], ", 1), []string{"model.freeze"}},
		"frozen in part":      {strings.Replace(recipeText, "model: {", "model: {freeze: ['*q_proj*'], ", 1), []string{"q_proj", "k_proj", "freeze"}},
		"freezes nothing":     {strings.Replace(recipeText, "model: {", "model: {freeze: ['modle.*'], ", 1), []string{"modle.*"}},
		"all rows too long":   {strings.Replace(recipeText, "max_tokens: 64", "max_tokens: 4", 1), []string{"too_long", "data.jsonl"}},
		"sample too long":     {recipeText[:strings.Index(recipeText, "samples")] + "samples: {prompts: ['" + strings.Repeat("cat ", 200) + "']}\n", []string{"samples.prompts", "128"}},
		"warm-up too long":    {strings.Replace(recipeText, "lr: 0.01", "lr: 0.01, warmup: 100", 1), []string{"warm"}},
	} {
		t.Run(name, func(t *testing.T) {
			place := t.TempDir()
			for _, f := range []string{"tok", "data.jsonl"} {
				if err := os.Symlink(filepath.Join(dir, f), filepath.Join(place, f)); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(place, "recipe.yaml")
			write(t, path, c.text)
			out := filepath.Join(place, "run")
			refused(t, exitFailed, []string{"train", "sft", path, "--dir", out}, c.words...)
			absent(t, out)
		})
	}
	t.Run("not there", func(t *testing.T) {
		refused(t, exitFailed, []string{"train", "sft", "nowhere.yaml", "--dir", filepath.Join(t.TempDir(), "run")}, "nowhere.yaml", "no such")
	})
	t.Run("set", func(t *testing.T) {
		for set, word := range map[string]string{"train.lrr=3": "train.lr", "train.lr=fast": "fast", "train": "key=value", "=": ""} {
			refused(t, exitFailed, []string{"train", "sft", filepath.Join(dir, "recipe.yaml"), "--dir", filepath.Join(t.TempDir(), "run"), "--set", set}, "--set", word)
		}
	})
}

// TestBadData: rows that are broken end training, and are counted by data stats.
func TestBadData(t *testing.T) {
	dir := fixture(t)
	good := `{"instruction": "say cat", "output": "cat."}` + "\n"
	for name, c := range map[string]struct {
		text  string
		words []string
	}{
		"empty file":     {"", []string{"data.jsonl"}},
		"blank lines":    {"\n\n \n", []string{"data.jsonl"}},
		"missing field":  {good + `{"instruction": "say"}` + "\n", []string{"data.jsonl:2", "output"}},
		"wrong type":     {good + `{"instruction": "say", "output": 3}` + "\n", []string{"data.jsonl:2", "output"}},
		"broken JSON":    {good + `{"instruction": "say", "outp` + "\n", []string{"data.jsonl:2"}},
		"not UTF-8":      {good + "{\"instruction\": \"say\", \"output\": \"\xff\xfe\"}\n", []string{"data.jsonl:2"}},
		"no known field": {`{"a": 1}` + "\n", []string{"data.jsonl"}},
		"unknown role":   {`{"messages": [{"role": "king", "content": "hi"}, {"role": "assistant", "content": "yes"}]}` + "\n", []string{"data.jsonl:1", "king"}},
		"all empty":      {`{"instruction": "say", "output": ""}` + "\n", []string{"data.jsonl"}},
		"a huge number":  {strings.Repeat("[", 5000) + "\n", []string{"data.jsonl"}},
	} {
		t.Run(name, func(t *testing.T) {
			place := t.TempDir()
			file := filepath.Join(place, "data.jsonl")
			write(t, file, c.text)
			out := filepath.Join(place, "run")
			refused(t, exitFailed, []string{"train", "sft", filepath.Join(dir, "recipe.yaml"), "--dir", out, "--set", "data.train=[" + file + "]"}, c.words...)
			absent(t, out)
			if name != "all empty" { // the questions are text too
				refused(t, exitFailed, []string{"tokenizer", "train", file, "--out", out})
				absent(t, out)
			}
		})
	}
	t.Run("gzip cut short", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "data.jsonl.gz")
		write(t, file, "\x1f\x8b\x08\x00\x00\x00")
		refused(t, exitFailed, []string{"data", "stats", file, "--model", filepath.Join(dir, "tok")}, "data.jsonl.gz")
	})
}

func TestBadPaths(t *testing.T) {
	dir := fixture(t)
	recipe, model := filepath.Join(dir, "recipe.yaml"), filepath.Join(dir, "run", "model")
	t.Run("run is there", func(t *testing.T) {
		refused(t, exitFailed, []string{"train", "sft", recipe, "--dir", filepath.Join(dir, "run")}, "--resume", "--dir")
	})
	t.Run("run folder is a file", func(t *testing.T) {
		refused(t, exitFailed, []string{"train", "sft", recipe, "--dir", recipe}, "recipe.yaml")
	})
	t.Run("resume nothing", func(t *testing.T) {
		refused(t, exitFailed, []string{"train", "sft", "--resume", "--dir", filepath.Join(dir, "none")}, "none")
		refused(t, exitFailed, []string{"train", "sft", recipe, "--resume", "--dir", t.TempDir()}, "not a run folder")
	})
	t.Run("resume another recipe", func(t *testing.T) {
		refused(t, exitFailed, []string{"train", "sft", recipe, "--resume", "--dir", filepath.Join(dir, "run"), "--set", "train.lr=1"}, "recipe.yaml", "lr")
	})
	t.Run("prompt too long", func(t *testing.T) {
		refused(t, exitFailed, []string{"generate", "--model", model, "--prompt", strings.Repeat("hello ", 300)}, "context", "128", "--context")
	})
	t.Run("context too large", func(t *testing.T) {
		refused(t, exitFailed, []string{"generate", "--model", model, "--prompt", "x", "--context", "9000000000000000000"}, "context")
		refused(t, exitFailed, []string{"generate", "--model", model, "--prompt", "x", "--context", "1000000000000"}, "context")
	})
	t.Run("no such row", func(t *testing.T) {
		refused(t, exitFailed, []string{"data", "show", filepath.Join(dir, "data.jsonl"), "--model", model, "--from", "900"}, "900", "60")
	})
	t.Run("no such token", func(t *testing.T) {
		refused(t, exitFailed, []string{"tokenizer", "decode", "--model", model, "300"}, "300")
		refused(t, exitFailed, []string{"tokenizer", "decode", "--model", model, "x"}, "x")
	})
	t.Run("tokenizer is there", func(t *testing.T) {
		refused(t, exitFailed, []string{"tokenizer", "train", filepath.Join(dir, "data.jsonl"), "--out", filepath.Join(dir, "tok")}, "--out")
	})
	t.Run("tokenizer too small", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "tok")
		refused(t, exitFailed, []string{"tokenizer", "train", filepath.Join(dir, "data.jsonl"), "--out", out, "--vocab-size", "10"}, "10")
		absent(t, out)
	})
	t.Run("no such shape", func(t *testing.T) {
		refused(t, exitFailed, []string{"bench", "sft", "9000b"}, "9000b", "15m")
	})
}
