package tokenizer

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ranksFile is a tiktoken file of all bytes and of more tokens.
func ranksFile(more ...string) string {
	var b strings.Builder
	for i := range 256 {
		fmt.Fprintf(&b, "%s %d\n", base64.StdEncoding.EncodeToString([]byte{byte(i)}), i)
	}
	for i, s := range more {
		fmt.Fprintf(&b, "%s %d\n", base64.StdEncoding.EncodeToString([]byte(s)), 256+i)
	}
	return b.String()
}

func TestTiktoken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "my_cl100k_base.tiktoken")
	if err := os.WriteFile(path, []byte(ranksFile("ab", "aba", " aba", "12", "abababab")), 0o666); err != nil {
		t.Fatal(err)
	}
	tok, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(tok.JSON(), "again.json")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]int32{
		"abab aba":  {256, 256, 258},
		"abababab":  {260}, // a word that is a token, though no merges make it
		"aba1234":   {257, 259, '3', '4'},
		"a\xff\x00": {'a', 255, 0},
	} {
		for _, x := range []*Tokenizer{tok, again} {
			if ids := x.Encode(text, EncodeOptions{}); !slices.Equal(ids, want) {
				t.Errorf("%q: ids are %d, want %d", text, ids, want)
			}
		}
	}

	// In a folder the configuration says how text is cut, and which tokens there are.
	other := filepath.Join(dir, "ranks.tiktoken")
	if err := os.Rename(path, other); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(other); err == nil || !strings.Contains(err.Error(), "pat_str") {
		t.Errorf("without a pattern: %v", err)
	}
	config := `{"pat_str": ".", "added_tokens_decoder": {"300": {"content": "<end>", "special": true}}, "eos_token": "<end>", "add_eos_token": true}`
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	if tok, err = LoadFolder(dir); err != nil {
		t.Fatal(err)
	}
	if ids := tok.Encode("ab<end>b", EncodeOptions{AddSpecial: true}); !slices.Equal(ids, []int32{'a', 'b', 300, 'b', 300}) {
		t.Errorf("ids %d", ids)
	}
}

func TestTiktokenEncodings(t *testing.T) {
	for name, want := range map[string][2]any{
		"qwen": {"<|extra_204|>", 151850}, "llama3": {"<|reserved_special_token_246|>", 128255}, "o200k_harmony": {"<|reserved_201087|>", 201087},
	} {
		for _, e := range tiktokenEncodings {
			if e.name == name && int(e.special[want[0].(string)]) != want[1] {
				t.Errorf("%s: %v has the id %d, want %d", name, want[0], e.special[want[0].(string)], want[1])
			}
		}
	}
}

func TestBrokenTiktoken(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "no token for the byte 0x00",
		"YQ==":                      "line 1: \"YQ==\" is not a token",
		"* 1":                       "line 1: token \"*\": illegal base64",
		"YQ== x":                    "line 1: rank \"x\"",
		"YQ== -1":                   "line 1: rank \"-1\"",
		"YQ== 99999999999":          "line 1: rank",
		" 1":                        "line 1: a token of 0 bytes",
		"YQ== 1\nYQ== 2":            "line 2: token \"a\" has the rank 1 already",
		"YQ== 1\nYg== 1":            "line 2: rank 1 occurs twice",
		ranksFile() + "YWE= 999999": "id 999999 is out of range",
	} {
		_, err := parseTiktokenFile([]byte(in), "qwen.tiktoken", "")
		if err == nil || !strings.HasPrefix(err.Error(), "qwen.tiktoken: "+want) {
			t.Errorf("%q: the error is %v, want %q", clip(in), err, want)
		}
	}
}

// FuzzTiktoken reads broken files, the bytes of which are put before them so
// that they get far.
func FuzzTiktoken(f *testing.F) {
	f.Add(ranksFile("ab", "abab")[len(ranksFile()):])
	f.Add("YQ== 256\r\n\nYWI= 300\n")
	bytes := ranksFile()
	f.Fuzz(func(t *testing.T, more string) {
		for _, in := range []string{more, bytes + more} {
			tok, err := parseTiktokenFile([]byte(in), "cl100k_base.tiktoken", "")
			if err != nil {
				if !strings.HasPrefix(err.Error(), "cl100k_base.tiktoken: ") || strings.Contains(err.Error(), "\n") {
					t.Errorf("the error is %q", err)
				}
				continue
			}
			exercise(t, tok)
			if _, err := Parse(tok.JSON(), "again.json"); err != nil {
				t.Errorf("as tokenizer.json: %v", err)
			}
		}
	})
}
