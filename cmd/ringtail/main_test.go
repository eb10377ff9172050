package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// cliVar, in the environment, makes the test binary the program itself.
const cliVar = "RINGTAIL_TEST_CLI"

func TestMain(m *testing.M) {
	if os.Getenv(cliVar) != "" {
		main()
	}
	code := m.Run()
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// result is what a command did.
type result struct {
	code        int
	out, errors string
}

// command runs a command in this process.
func command(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(&env{ctx: context.Background(), stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs}, args)
	return result{code, out.String(), errs.String()}
}

// ok runs a command that must succeed.
func ok(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	r := command(t, stdin, args...)
	if r.code != exitDone {
		t.Fatalf("ringtail %s: exit code %d\n%s", strings.Join(args, " "), r.code, r.errors)
	}
	return r
}

// refused runs a command that must fail with a code, in at most four lines that
// hold the words.
func refused(t testing.TB, code int, args []string, words ...string) result {
	t.Helper()
	r := command(t, "", args...)
	refusal(t, r, code, words...)
	return r
}

func refusal(t testing.TB, r result, code int, words ...string) {
	t.Helper()
	text := strings.TrimRight(r.errors, "\n")
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s", r.code, code, text)
	}
	if n := strings.Count(text, "\n") + 1; n > 4 {
		t.Errorf("%d lines, want at most 4:\n%s", n, text)
	}
	if !strings.HasPrefix(text, "ringtail: ") {
		t.Errorf("%q doesn't say who speaks", text)
	}
	for _, bad := range []string{"panic", "goroutine", "%!", "<nil>", "runtime error"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q holds %q", text, bad)
		}
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 700 {
			t.Errorf("a line of %d bytes: %.200s...", len(line), line)
		}
	}
}

// shared is made once: tok/, data.jsonl, recipe.yaml and run/, a trained model.
var shared struct {
	once sync.Once
	dir  string
}

const recipeText = `
model: {new: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 128, intermediate_size: 24}}
tokenizer: tok
data: {train: [data.jsonl], max_tokens: 64, held_out: 0.1}
train: {steps: 6, batch: 4, micro_tokens: 128, lr: 0.01}
samples: {max_tokens: 4}
`

func fixture(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "ringtail-cli")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
		words := strings.Fields("the a cat dog sat on mat ran home blue red sky is big small tree hello thanks 你好 世界")
		r := rand.New(rand.NewPCG(7, 7))
		var b strings.Builder
		for range 60 {
			var s []string
			for range 2 + r.IntN(6) {
				s = append(s, words[r.IntN(len(words))])
			}
			line, err := json.Marshal(map[string]string{"instruction": "say " + strings.Join(s, " "), "output": strings.Join(s, " ") + "."})
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
		write(t, filepath.Join(dir, "data.jsonl"), b.String())
		write(t, filepath.Join(dir, "recipe.yaml"), recipeText)
		ok(t, "", "tokenizer", "train", filepath.Join(dir, "data.jsonl"), "--out", filepath.Join(dir, "tok"), "--vocab-size", "300", "--quiet")
		ok(t, "", "train", "sft", filepath.Join(dir, "recipe.yaml"), "--dir", filepath.Join(dir, "run"), "--quiet")
	})
	if _, err := os.Stat(filepath.Join(shared.dir, "run", "model", "model.safetensors")); err != nil {
		t.Fatal("the shared model could not be made")
	}
	return shared.dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// absent checks that nothing was left at a path.
func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there (%v)", path, err)
	}
}

// modelCopy is a copy of the trained model that a test may break.
func modelCopy(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(fixture(t), "run", "model"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// constantModel is a model whose next token is always of the same distribution:
// embeddings are ones, layers zero, so that the output projection alone decides.
// likely has the logit 20, all others 0.
func constantModel(t testing.TB, likely int) string {
	t.Helper()
	dir := modelCopy(t)
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"tie_word_embeddings": true`), []byte(`"tie_word_embeddings": false`), 1)
	text = bytes.Replace(text, []byte(`"max_position_embeddings": 128`), []byte(`"max_position_embeddings": 65536`), 1)
	c, err := model.ParseConfig(text)
	if err != nil || c.Tied {
		t.Fatal(err, c.Tied)
	}
	m, err := model.New(c, cpu.New(), model.Options{Head: model.CausalLM})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	for _, e := range m.Store.Layout.Entries {
		v := make([]float32, e.Len())
		for i := range v {
			switch {
			case strings.Contains(e.Name, "norm"), e.Name == "model.embed_tokens.weight":
				v[i] = 1
			case e.Name == "lm_head.weight" && i/c.Hidden == likely:
				v[i] = 20 / float32(c.Hidden)
			}
		}
		p := m.Store.Param(e.Name).Value
		tensor.SetFloat32(p.Reshape(p.Len()), v)
	}
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tokenID is the id of a text that is one token.
func tokenID(t testing.TB, text string) int {
	t.Helper()
	r := ok(t, "", "tokenizer", "encode", "--model", filepath.Join(fixture(t), "tok"), "--json", text)
	var ids []int
	if err := json.Unmarshal([]byte(r.out), &ids); err != nil || len(ids) != 1 {
		t.Fatalf("%q is %s", text, r.out)
	}
	return ids[0]
}

func TestHelpAndUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"train", "sft", "--help"}, {"chat", "--help"}} {
		if r := command(t, "", args...); r.code != exitDone || !strings.Contains(r.out, "Usage: ringtail") {
			t.Errorf("%v: code %d, %q", args, r.code, r.out)
		}
	}
	model := filepath.Join(fixture(t), "run", "model")
	recipe := filepath.Join(fixture(t), "recipe.yaml")
	for name, c := range map[string]struct {
		args  []string
		words []string
	}{
		"unknown command":      {[]string{"frobnicate"}, []string{"frobnicate", "--help"}},
		"unknown flag":         {[]string{"doctor", "--frob"}, []string{"--frob"}},
		"no model":             {[]string{"generate", "--prompt", "x"}, []string{"--model"}},
		"no recipe":            {[]string{"train", "sft"}, []string{"RECIPE.yaml", "--resume"}},
		"resume without dir":   {[]string{"train", "sft", "--resume"}, []string{"--dir"}},
		"quiet and json":       {[]string{"train", "sft", recipe, "--quiet", "--json"}, []string{"--quiet", "--json"}},
		"not a number":         {[]string{"generate", "--model", model, "--max-tokens", "many"}, []string{"--max-tokens", "many"}},
		"temperature":          {[]string{"generate", "--model", model, "--prompt", "x", "--temperature", "-1"}, []string{"temperature", "-1"}},
		"temperature NaN":      {[]string{"chat", "--model", model, "--temperature", "NaN"}, []string{"temperature"}},
		"top_p":                {[]string{"generate", "--model", model, "--prompt", "x", "--top-p", "1.5"}, []string{"top_p", "1.5"}},
		"context":              {[]string{"generate", "--model", model, "--prompt", "x", "--context=-4"}, []string{"--context", "-4"}},
		"threads":              {[]string{"generate", "--model", model, "--prompt", "x", "--threads=-4"}, []string{"--threads", "-4"}},
		"threads of training":  {[]string{"train", "sft", recipe, "--threads=1000000000"}, []string{"--threads"}},
		"empty stop":           {[]string{"generate", "--model", model, "--prompt", "x", "--stop", ""}, []string{"stop"}},
		"empty prompt":         {[]string{"generate", "--model", model}, []string{"--prompt"}},
		"format":               {[]string{"data", "stats", "x", "--model", model, "--format", "alpaka"}, []string{"alpaka", "alpaca"}},
		"enum":                 {[]string{"data", "stats", "x", "--model", model, "--too-long", "cut"}, []string{"too-long", "truncate"}},
		"max tokens of data":   {[]string{"data", "stats", "x", "--model", model, "--max-tokens=-3"}, []string{"--max-tokens", "-3"}},
		"from":                 {[]string{"data", "show", filepath.Join(fixture(t), "data.jsonl"), "--model", model, "--from", "0"}, []string{"--from"}},
		"size of a product":    {[]string{"bench", "gemm", "3x4"}, []string{"3x4"}},
		"threads of bench":     {[]string{"bench", "gemm", "8", "--threads=-1"}, []string{"--threads"}},
		"tokenizer's pattern":  {[]string{"tokenizer", "train", "x", "--out", "y", "--pattern", "z"}, []string{"pattern", "llama3"}},
		"recipe key as a flag": {[]string{"train", "sft", recipe, "--lr", "3"}, []string{"--lr"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, exitUsage, c.args, c.words...) })
	}
}

func TestDoctorAndVersion(t *testing.T) {
	for _, args := range [][]string{{"doctor", "--json"}, {"version", "--json"}} {
		var v map[string]any
		if err := json.Unmarshal([]byte(ok(t, "", args...).out), &v); err != nil || v["os"] == "" {
			t.Errorf("%v: %v, %v", args, v, err)
		}
	}
	if r := ok(t, "", "doctor"); !strings.Contains(r.out, "kernels") || !strings.Contains(r.out, "threads") {
		t.Errorf("%q", r.out)
	}
	if r := ok(t, "", "version"); !strings.HasPrefix(r.out, "ringtail ") {
		t.Errorf("%q", r.out)
	}
}

func TestExplain(t *testing.T) {
	r := ok(t, "", "train", "sft", "--explain")
	for _, key := range []string{"held_out", "patience", "batch_tokens", "rope_theta", "freeze"} {
		if !strings.Contains(r.out, key) {
			t.Errorf("--explain says nothing of %s", key)
		}
	}
}

func TestGenerate(t *testing.T) {
	model := filepath.Join(fixture(t), "run", "model")
	type answer struct {
		Text         string    `json:"text"`
		Tokens       []int32   `json:"tokens"`
		LogProbs     []float64 `json:"logprobs"`
		Finish       string    `json:"finish_reason"`
		PromptTokens int       `json:"prompt_tokens"`
	}
	gen := func(args ...string) (a answer) {
		t.Helper()
		r := ok(t, "", append([]string{"generate", "--model", model, "--json"}, args...)...)
		if err := json.Unmarshal([]byte(r.out), &a); err != nil {
			t.Fatalf("%v: %s", err, r.out)
		}
		return a
	}
	a := gen("--prompt", "say cat", "--max-tokens", "5", "--temperature", "0")
	if len(a.Tokens) == 0 || len(a.Tokens) > 5 || len(a.LogProbs) != len(a.Tokens) || a.PromptTokens == 0 {
		t.Errorf("%+v", a)
	}
	for _, lp := range a.LogProbs {
		if !(lp <= 0) {
			t.Errorf("log-probability %g", lp)
		}
	}
	plain := ok(t, "say cat", "generate", "--model", model, "--max-tokens", "5", "--temperature", "0")
	if plain.out != a.Text+"\n" {
		t.Errorf("from standard input %q, with --json %q", plain.out, a.Text)
	}
	b, c, d := gen("--prompt", "x", "--seed", "3", "--temperature", "2"), gen("--prompt", "x", "--seed", "3", "--temperature", "2"), gen("--prompt", "x", "--seed", "4", "--temperature", "2")
	if fmt.Sprint(b) != fmt.Sprint(c) || fmt.Sprint(b) == fmt.Sprint(d) {
		t.Errorf("seed 3 gives %v and %v, seed 4 %v", b, c, d)
	}
	full := gen("--prompt", "x", "--max-tokens", "0", "--temperature", "0", "--context", "20")
	if full.Finish == "length" && full.PromptTokens+len(full.Tokens) != 20 {
		t.Errorf("%d and %d tokens in a context of 20", full.PromptTokens, len(full.Tokens))
	}
}

// TestGenerateStops: --stop ends the answer before the text, which may begin and
// end within tokens.
func TestGenerateStops(t *testing.T) {
	id := tokenID(t, "a")
	model := constantModel(t, id)
	for stop, want := range map[string]string{"aaa": "", "ab": strings.Repeat("a", 8), "": strings.Repeat("a", 8)} {
		args := []string{"generate", "--model", model, "--prompt", "x", "--temperature", "0", "--max-tokens", "8"}
		if stop != "" {
			args = append(args, "--stop", stop)
		}
		if r := ok(t, "", args...); r.out != want+"\n" {
			t.Errorf("stop %q: %q, want %q", stop, r.out, want)
		}
	}
}

func TestChat(t *testing.T) {
	dir := constantModel(t, tokenID(t, "a"))
	r := ok(t, "hello\n/history\n/set max_tokens 2\n/retry\n/system be brief\n/history\n\"\"\"two\nlines\"\"\"\n/history\n/new\n/history\n/bye\nnever\n",
		"chat", "--model", dir, "--max-tokens", "4", "--temperature", "0")
	want := "aaaa\nuser: hello\nassistant: aaaa\naa\nsystem: be brief\naa\nsystem: be brief\nuser: two\nlines\nassistant: aa\nsystem: be brief\n"
	if r.out != want {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	for in, word := range map[string]string{"/frob\n": "/help", "/set temperature hot\n": "hot", "/set temperature -3\n": "-3", "/set frob 1\n": "frob",
		"/retry\n": "nothing", "/set top_p 7\n": "top_p", strings.Repeat("long ", 400) + "\n": "context"} {
		r := ok(t, in, "chat", "--model", dir, "--max-tokens", "4", "--context", "100")
		if lines := strings.SplitN(r.errors, "\n", 2); len(lines) != 2 || !strings.Contains(lines[1], word) || strings.Count(lines[1], "\n") > 2 {
			t.Errorf("%.20q: %q", in, r.errors)
		}
	}
	if r := ok(t, "/help", "chat", "--model", dir); !strings.Contains(r.out, "/retry") { // no newline at the end
		t.Errorf("%q", r.out)
	}
}

// TestChatForgetsOldTurns: a chat longer than the context goes on without its
// oldest messages.
func TestChatForgetsOldTurns(t *testing.T) {
	dir := constantModel(t, tokenID(t, "a"))
	r := ok(t, strings.Repeat("hello cat dog\n", 12), "chat", "--model", dir, "--max-tokens", "6", "--temperature", "0", "--context", "128")
	if n := strings.Count(r.out, "aaaaaa\n"); n != 12 {
		t.Errorf("%d answers of 12:\n%s%s", n, r.out, r.errors)
	}
	if !strings.Contains(r.errors, "oldest") {
		t.Errorf("nobody was told: %s", r.errors)
	}
}

func TestDataCommands(t *testing.T) {
	dir := fixture(t)
	file, tok := filepath.Join(dir, "data.jsonl"), filepath.Join(dir, "tok")
	r := ok(t, "", "data", "show", file, "--model", tok, "--count", "2")
	if strings.Count(r.out, "⟦") < 2 || !strings.Contains(r.out, "say ") {
		t.Errorf("%s", r.out)
	}
	var stats map[string]any
	if err := json.Unmarshal([]byte(ok(t, "", "data", "stats", file, "--model", tok, "--json").out), &stats); err != nil || len(stats) == 0 {
		t.Errorf("%v, %v", stats, err)
	}
	if r := ok(t, "", "data", "stats", file, "--model", tok); !strings.Contains(r.out, "60") {
		t.Errorf("%s", r.out)
	}
}

func TestTokenizerCommands(t *testing.T) {
	tok := filepath.Join(fixture(t), "tok")
	for _, text := range []string{"hello cat", "你好 <|im_end|>", " \n\t x"} {
		ids := strings.TrimSpace(ok(t, text, "tokenizer", "encode", "--model", tok).out)
		if got := ok(t, "", append([]string{"tokenizer", "decode", "--model", tok}, strings.Fields(ids)...)...).out; got != text+"\n" {
			t.Errorf("%q becomes %s and %q", text, ids, got)
		}
	}
	if r := ok(t, "", "tokenizer", "encode", "--model", tok, "--special", "<|im_end|>"); r.out != "2\n" {
		t.Errorf("a control token is %q", r.out)
	}
	if r := ok(t, "", "tokenizer", "encode", "--model", tok, "<|im_end|>"); r.out == "2\n" {
		t.Error("plain text became a control token")
	}
}

func TestBenchJSON(t *testing.T) {
	r := ok(t, "", "bench", "gemm", "16", "--rounds", "2", "--json")
	for _, line := range strings.Split(strings.TrimSpace(r.out), "\n") {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil || v["gflops"] == nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
