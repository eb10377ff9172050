package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ringtail/hub"
	"ringtail/hub/hubtest"
)

// tinyHub is a hub that has the shared model as acme/tiny, and an empty cache.
func tinyHub(t *testing.T) (server *hubtest.Server, cache string) {
	t.Helper()
	files := map[string][]byte{"README.md": []byte("---\nlicense: other\nlicense_name: tiny-licence\n---\n# Tiny\n"), "flax_model.msgpack": make([]byte, 5000)}
	dir := filepath.Join(fixture(t), "run", "model")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	server = hubtest.New()
	t.Cleanup(server.Close)
	server.Add("models/acme/tiny", files)
	server.Add("datasets/acme/rows", map[string][]byte{"data.jsonl": []byte("{}\n")})
	cache = t.TempDir()
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGINGFACE_HUB_CACHE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_ENDPOINT", server.Hub.URL)
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_HUB_CACHE", cache)
	t.Chdir(t.TempDir())
	return server, cache
}

// A model is pulled, listed, shown, used by name everywhere, and removed.
func TestPullListShowRm(t *testing.T) {
	server, cache := tinyHub(t)
	shared := fixture(t)
	if r := ok(t, "", "list"); !strings.Contains(r.errors, "ringtail pull") {
		t.Errorf("an empty list says %q", r.errors)
	}
	for _, args := range [][]string{
		{"generate", "--model", "acme/tiny", "--prompt", "x"}, {"tokenizer", "encode", "--model", "acme/tiny", "x"},
		{"data", "stats", filepath.Join(shared, "data.jsonl"), "--model", "acme/tiny"}, {"show", "acme/tiny"},
		{"train", "sft", filepath.Join(shared, "recipe.yaml"), "--dir", filepath.Join(t.TempDir(), "r"), "--set", "model=acme/tiny"},
	} {
		refused(t, exitFailed, args, "acme/tiny: no such file or folder", "ringtail pull acme/tiny")
	}

	r := ok(t, "", "pull", "acme/tiny")
	dir := strings.TrimSpace(r.out)
	if !strings.HasPrefix(dir, filepath.Join(cache, "models--acme--tiny", "snapshots")) || !strings.Contains(r.errors, "downloaded") || !strings.Contains(r.errors, "flax_model.msgpack") {
		t.Errorf("pull says %q and %q", r.out, r.errors)
	}
	if r = ok(t, "", "pull", "acme/tiny"); !strings.Contains(r.errors, "in the cache already") {
		t.Errorf("a second pull says %q", r.errors)
	}
	ok(t, "", "pull", "acme/rows", "--dataset", "--quiet")
	if r = ok(t, "", "list"); !strings.Contains(r.out, "acme/tiny") || !strings.Contains(r.out, "acme/rows") || !strings.Contains(r.out, "data set") || !strings.Contains(r.out, "main, ") {
		t.Errorf("list says %q", r.out)
	}
	var listed []struct {
		Name, Kind string
		Snapshots  []struct{ Path string }
	}
	if err := json.Unmarshal([]byte(ok(t, "", "list", "--json").out), &listed); err != nil || len(listed) != 2 || listed[0].Snapshots[0].Path != dir || listed[1].Kind != "dataset" {
		t.Errorf("%+v, %v", listed, err)
	}
	r = ok(t, "", "show", "acme/tiny")
	for _, part := range []string{"LlamaForCausalLM", "F32", "safetensors", "128", "tiny-licence", dir} {
		if !strings.Contains(r.out, part) {
			t.Errorf("show doesn't say %q:\n%s", part, r.out)
		}
	}
	if strings.Contains(r.out, "problem") {
		t.Errorf("show finds a problem:\n%s", r.out)
	}
	var k card
	if err := json.Unmarshal([]byte(ok(t, "", "show", filepath.Join(shared, "run", "model"), "--json").out), &k); err != nil || k.Parameters < 1000 || k.Context != 128 || k.Layers != 2 || k.Licence != "" {
		t.Errorf("%+v, %v", k, err)
	}

	// The same answer as from the folder.
	answer := func(model string) string {
		return ok(t, "", "generate", "--model", model, "--prompt", "say cat", "--max-tokens", "4", "--temperature", "0").out
	}
	if a, b := answer("acme/tiny"), answer(filepath.Join(shared, "run", "model")); a != b {
		t.Errorf("%q by name, %q by folder", a, b)
	}
	ok(t, "", "tokenizer", "encode", "--model", "acme/tiny@main", "x")
	ok(t, "", "data", "stats", filepath.Join(shared, "data.jsonl"), "--model", "acme/tiny")
	recipe := filepath.Join(shared, "named.yaml")
	write(t, recipe, strings.NewReplacer("model: {new: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 128, intermediate_size: 24}}",
		"model: acme/tiny", "tokenizer: tok\n", "").Replace(recipeText))
	run := filepath.Join(t.TempDir(), "run")
	ok(t, "", "train", "sft", recipe, "--dir", run, "--quiet", "--set", "train.steps=1")
	if text, err := os.ReadFile(filepath.Join(run, "recipe.yaml")); err != nil || !strings.Contains(string(text), dir) {
		t.Errorf("the run's recipe doesn't name the commit: %s, %v", text, err)
	}

	// Offline it is still there; nothing else is.
	t.Setenv("HF_HUB_OFFLINE", "1")
	server.Requests()
	if r = ok(t, "", "pull", "acme/tiny"); strings.TrimSpace(r.out) != dir || len(server.Requests()) > 0 {
		t.Errorf("offline: %q", r.out)
	}
	refused(t, exitFailed, []string{"pull", "acme/other"}, "HF_HUB_OFFLINE", "acme/other")
	t.Setenv("HF_HUB_OFFLINE", "")

	refused(t, exitUsage, []string{"rm", "acme/tiny"}, "--yes")
	if r = ok(t, "", "rm", "acme/tiny", "--yes"); !strings.Contains(r.errors, "freed") {
		t.Errorf("rm says %q", r.errors)
	}
	absent(t, filepath.Join(cache, "models--acme--tiny"))
	refused(t, exitFailed, []string{"rm", "acme/tiny", "--yes"}, "acme/tiny", "not in the cache")
}

func TestPullRefuses(t *testing.T) {
	server, cache := tinyHub(t)
	refused(t, exitUsage, []string{"pull", "../x"}, "ORG/NAME")
	refused(t, exitUsage, []string{"pull", "a/b@../../x"}, "revision")
	refused(t, exitFailed, []string{"pull", "acme/none"}, "acme/none", "HF_TOKEN")
	refused(t, exitFailed, []string{"pull", "acme/tiny", "--include", "*.pdf"}, "none of its", "config.json")
	refused(t, exitFailed, []string{"pull", "acme/tiny@v9"}, `"v9"`)
	server.Add("models/acme/gated", map[string][]byte{"config.json": []byte("{}")}).Token = "t"
	refused(t, exitFailed, []string{"pull", "acme/gated"}, "acme/gated")
	t.Setenv("HF_ENDPOINT", "http://mirror.example")
	refused(t, exitFailed, []string{"pull", "acme/tiny"}, "HF_ENDPOINT", "https")
	if entries, _ := os.ReadDir(cache); len(entries) > 1 { // a tag at most
		t.Errorf("%d entries in the cache", len(entries))
	}
	refused(t, exitFailed, []string{"show", "no/such/thing"}, "no/such/thing")
	refused(t, exitFailed, []string{"show", t.TempDir()}, "config.json")
}

// A folder that ColossalChat left is found, with a word; its PyTorch files are read.
func TestRunFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	model := filepath.Join(fixture(t), "run", "model")
	for _, e := range []string{"config.json", "model.safetensors"} {
		b, err := os.ReadFile(filepath.Join(model, e))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join("out", "epoch-0_step-9", "modeling"), 0o777); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join("out", "epoch-0_step-9", "modeling", e), string(b))
	}
	for _, e := range []string{"tokenizer.json", "tokenizer_config.json"} {
		b, err := os.ReadFile(filepath.Join(model, e))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join("out", e), string(b))
	}
	r := ok(t, "", "generate", "--model", "out", "--prompt", "say cat", "--max-tokens", "4", "--temperature", "0")
	if !strings.Contains(r.errors, "ColossalChat run") {
		t.Errorf("says %q", r.errors)
	}
	if want := ok(t, "", "generate", "--model", model, "--prompt", "say cat", "--max-tokens", "4", "--temperature", "0").out; r.out != want {
		t.Errorf("%q, want %q", r.out, want)
	}
	write(t, filepath.Join("out", "adapter_config.json"), "{}")
	refused(t, exitFailed, []string{"generate", "--model", "out", "--prompt", "x"}, "LoRA adapter")
}

// Lines of progress: rate and time left from the last seconds.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	now := time.Unix(0, 0)
	p.now = func() time.Time { return now }
	for i := range int64(26) {
		p.report(hub.Status{Files: 3, FilesDone: 1, Bytes: 100_000_000, BytesDone: 10_000_000 + i*2_000_000, Fresh: i * 2_000_000})
		now = now.Add(time.Second)
	}
	want := "30 MB of 100 MB (30%), 1 of 3 files, 2 MB/s, 35s left\n50 MB of 100 MB (50%), 1 of 3 files, 2 MB/s, 25s left\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	p.terminal = true
	p.report(hub.Status{Files: 1})
	p.note("a word")
	p.end()
	if got := b.String(); !strings.HasPrefix(got, "\r\x1b[K0 B of 0 B (100%)") || !strings.HasSuffix(got, "\r\x1b[Ka word\n") {
		t.Errorf("%q", got)
	}
}

func TestLicence(t *testing.T) {
	for readme, want := range map[string]string{
		"": "", "# x\nlicense: mit\n": "", "---\nlicense: mit\n---\n": "mit", "---\r\nlicense: 'apache-2.0'\r\n---\r\n": "apache-2.0",
		"---\ntags:\n- a\nlicense: other\nlicense_name: llama3\n---\nx": "llama3", "---\nlicense:\n- mit\n---\n": "mit", "---\nlicense: mit\n": "",
		"---\nmodel:\n  license: no\n---\n": "",
	} {
		if got := licence([]byte(readme)); got != want {
			t.Errorf("%q: %q, want %q", readme, got, want)
		}
	}
}
