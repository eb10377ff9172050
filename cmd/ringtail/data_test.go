package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Rows are shown for every use, with a model as tokens, without as JSON.
func TestDataUses(t *testing.T) {
	tok := filepath.Join(fixture(t), "tok")
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "rows.jsonl")
		write(t, path, text)
		return path
	}
	pair := file(`{"prompt":"say cat","chosen":"cat.","rejected":"dog.","score_chosen":3,"score_rejected":1}` + "\n")
	labelled := file(`{"prompt":[{"from":"user","content":"say cat"}],"completion":{"from":"assistant","content":"dog."},"label":false}` + "\n")
	prompt := file(`{"messages":{"role":"user","content":"say cat"},"gt_answer":"cat."}` + "\n")
	text := file(`{"text":"the cat sat."}` + "\n")
	for _, c := range []struct {
		file, use string
		tokens    []string // what data show says with a model
		json      string   // what it says without, behind where and format
	}{
		{pair, "rankings", []string{"rank 1, score 2", "rank 2, score 0", "⟦cat.", "⟦dog."}, `"ranked":[{"rank":1,"score":2,"messages":[{"role":"assistant","content":"cat."}]}`},
		{pair, "pairs", []string{"rank 1", "rank 2"}, `"chosen":[{"role":"assistant","content":"cat."}],"rejected":[{"role":"assistant","content":"dog."}],"margin":2`},
		{pair, "chat", []string{"⟦cat."}, `"content":"cat."}],"notes":["best_answer_used"]`},
		{pair, "prompts", []string{"say cat", " 0 trained"}, `"messages":[{"role":"user","content":"say cat"}]`},
		{labelled, "labelled", []string{"labelled bad", "⟦dog."}, `"label":false`},
		{prompt, "prompts", []string{"say cat"}, `"reference":"cat."`},
		{text, "text", []string{"⟦"}, `"text":"the cat sat."`},
	} {
		r := ok(t, "", "data", "show", c.file, "--model", tok, "--use", c.use)
		for _, want := range c.tokens {
			if !strings.Contains(r.out, want) {
				t.Errorf("--use %s: no %q in\n%s", c.use, want, r.out)
			}
		}
		r = ok(t, "", "data", "show", c.file, "--json", "--use", c.use)
		if !json.Valid([]byte(r.out)) || !strings.Contains(r.out, c.json) {
			t.Errorf("--use %s --json: no %s in\n%s", c.use, c.json, r.out)
		}
		for _, args := range [][]string{{"data", "stats", c.file, "--use", c.use}, {"data", "stats", c.file, "--use", c.use, "--model", tok}} {
			if r = ok(t, "", args...); !strings.Contains(r.out, "used             1 rows") {
				t.Errorf("%v:\n%s", args, r.out)
			}
		}
	}
	refused(t, exitUsage, []string{"data", "show", pair}, "--model", "--json")
	refused(t, exitFailed, []string{"data", "show", pair, "--json", "--from", "9"}, "no row 9", "has 1")
}

// Every container gives one row, the same one; what is damaged is refused with its name.
func TestDataContainers(t *testing.T) {
	dir := filepath.Join("..", "..", "data", "testdata", "containers")
	show := func(path string) string {
		out := ok(t, "", "data", "show", path, "--json", "--count", "1", "--from", "4").out
		_, out, _ = strings.Cut(out, `"format"`)
		return out
	}
	want := show(filepath.Join(dir, "chats.jsonl"))
	for _, name := range []string{"chats.jsonl.zst", "chats.snappy.parquet", "chats.stream.arrow", "chats.lz4.arrow", "chats-disk", "*.zstd-2.parquet"} {
		if got := show(filepath.Join(dir, name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, "chats.snappy.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.parquet")
	write(t, cut, string(whole[:len(whole)-100]))
	refused(t, exitFailed, []string{"data", "stats", cut}, "cut.parquet", "cut off")
	broken := []byte(string(whole))
	for i := 40; i < 400; i++ {
		broken[i] ^= 0x55
	}
	write(t, cut, string(broken))
	refused(t, exitFailed, []string{"data", "stats", cut}, "cut.parquet", "row group 1", "column")
	refused(t, exitFailed, []string{"data", "stats", t.TempDir()}, "holds no data file")
}
