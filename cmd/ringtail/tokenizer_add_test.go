package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/model"
	"ringtail/tokenizer"
)

// TestTokenizerAdd: the tokenizer's files and the model agree on new tokens, and the
// model runs.
func TestTokenizerAdd(t *testing.T) {
	from, out := filepath.Join(fixture(t), "run", "model"), filepath.Join(t.TempDir(), "out")
	old, err := tokenizer.LoadFolder(from)
	if err != nil {
		t.Fatal(err)
	}
	eos := old.Config().EOS
	r := ok(t, "", "tokenizer", "add", "--model", from, "--out", out, "--token", "<|tool|>", "--token", "a, b", "--special", "--pad", "<pad>", "--eos", eos)
	if n := strings.Count(r.out, "\tadded\n"); n != 3 || strings.Count(r.out, "\n") != 4 || !strings.Contains(r.out, "\twas there\n") {
		t.Errorf("it says %q", r.out)
	}
	tok, err := tokenizer.LoadFolder(out)
	if err != nil {
		t.Fatal(err)
	}
	if tok.Size() != old.Size()+3 {
		t.Errorf("%d tokens, were %d", tok.Size(), old.Size())
	}
	pad, _ := tok.PAD()
	for i, s := range []string{"<|tool|>", "a, b", "<pad>"} {
		id, ok := tok.ID(s)
		if !ok || int(id) != old.Size()+i || !tok.IsSpecial(id) {
			t.Errorf("%q has the id %d (%v)", s, id, ok)
		}
	}
	if ids := tok.Encode("x<|tool|>y", tokenizer.EncodeOptions{}); len(ids) < 3 || int(ids[len(ids)-2]) != old.Size() {
		t.Errorf("ids %d", ids)
	}
	for _, file := range []string{"tokenizer_config.json", "special_tokens_map.json"} {
		var c struct {
			Pad   string   `json:"pad_token"`
			Extra []string `json:"additional_special_tokens"`
		}
		data, err := os.ReadFile(filepath.Join(out, file))
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		if err != nil || c.Pad != "<pad>" || !strings.Contains(strings.Join(c.Extra, "|")+"|", "<|tool|>|a, b|") {
			t.Errorf("%s: %+v, %v", file, c, err)
		}
	}
	c, src, err := model.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	src.Close()
	if c.Vocab < tok.Size() || c.PAD != int(pad) {
		t.Errorf("the model has %d rows and pads with %d, the tokenizer has %d tokens and pads with %d", c.Vocab, c.PAD, tok.Size(), pad)
	}
	ok(t, "", "generate", "--model", out, "--prompt", "say <|tool|>", "--max-tokens", "3")

	refused(t, exitUsage, []string{"tokenizer", "add", "--model", from, "--out", filepath.Join(t.TempDir(), "x")}, "--token")
	refused(t, exitFailed, []string{"tokenizer", "add", "--model", from, "--out", out, "--token", "x"}, "exists already")
}
