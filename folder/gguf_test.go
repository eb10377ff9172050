package folder

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ringtail/gguf"
	"ringtail/golden"
	"ringtail/tokenizer"
)

// asGGUF writes metadata alone to a file.
func asGGUF(t *testing.T, pairs []gguf.Pair) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.gguf")
	w, err := gguf.Create(path, pairs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGoldenGGUFTokenizer: a tokenizer written as GGUF metadata and read again
// gives the reference's ids: whole, and from llama.cpp's lists alone.
func TestGoldenGGUFTokenizer(t *testing.T) {
	for _, file := range golden.Find(t, "tokenizers/*.vectors.json") {
		name := strings.TrimSuffix(file, ".vectors.json")
		t.Run(filepath.Base(name), func(t *testing.T) {
			from, plain := name+".json", false
			if _, err := os.Stat(from); err != nil {
				from, plain = name+".model", true // sentencepiece finds no special tokens in text
			}
			tok, err := OpenTokenizer(from)
			if errors.Is(err, tokenizer.ErrUnsupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			pairs, warning, err := GGUFMetadata(from, tok.Size()+3)
			if err != nil {
				t.Fatal(err)
			}
			if warning != "" {
				t.Error(warning)
			}
			path := asGGUF(t, pairs)
			whole, err := OpenTokenizer(path)
			if err != nil {
				t.Fatal(err)
			}
			lists := slices.DeleteFunc(slices.Clone(pairs), func(p gguf.Pair) bool { return p.Key == keyJSON })
			alone, err := OpenTokenizer(asGGUF(t, lists))
			if err != nil {
				t.Fatal(err)
			}
			var vectors []struct {
				Text         string  `json:"text"`
				IDs          []int32 `json:"ids"`
				IDsNoSpecial []int32 `json:"ids_no_special"`
				Decoded      string  `json:"decoded"`
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &vectors); err != nil || len(vectors) == 0 {
				t.Fatal(len(vectors), err)
			}
			for kind, got := range map[string]*tokenizer.Tokenizer{"whole": whole, "lists": alone} {
				for i, v := range vectors {
					if v.IDsNoSpecial == nil {
						v.IDsNoSpecial = v.IDs
					}
					if kind == "lists" && plain && strings.Contains(v.Text, "<s>") {
						continue // the tokenizers library's Unigram finds pieces like <s> in plain text
					}
					if ids := got.Encode(v.Text, tokenizer.EncodeOptions{PlainSpecial: plain}); !slices.Equal(ids, v.IDsNoSpecial) {
						t.Errorf("%s: vector %d: %q: ids %v, want %v", kind, i, v.Text, ids, v.IDsNoSpecial)
					}
					if ids := got.Encode(v.Text, tokenizer.EncodeOptions{AddSpecial: true, PlainSpecial: plain}); !slices.Equal(ids, v.IDs) {
						t.Errorf("%s: vector %d: %q: ids with special %v, want %v", kind, i, v.Text, ids, v.IDs)
					}
					if text := got.Decode(v.IDs, true); text != v.Decoded {
						t.Errorf("%s: vector %d: decoded %q, want %q", kind, i, text, v.Decoded)
					}
				}
			}
		})
	}
}

// change returns metadata with some values replaced, or taken out where nil.
func change(pairs []gguf.Pair, kv ...any) []gguf.Pair {
	out := slices.Clone(pairs)
	for i := 0; i < len(kv); i += 2 {
		key := kv[i].(string)
		out = slices.DeleteFunc(out, func(p gguf.Pair) bool { return p.Key == key })
		if kv[i+1] != nil {
			out = append(out, gguf.Pair{Key: key, Value: kv[i+1]})
		}
	}
	return out
}

// metadata describes a small byte-level tokenizer with ChatML's template.
func metadata(t *testing.T) []gguf.Pair {
	t.Helper()
	o := chatML
	o.ChatTemplate = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
	pairs, warning, err := GGUFMetadata(tokenizerFolder(t, o), 310)
	if err != nil || warning != "" {
		t.Fatal(err, warning)
	}
	return pairs
}

// TestGGUFMetadata: what is written of a tokenizer.
func TestGGUFMetadata(t *testing.T) {
	m := gguf.NewMetadata(metadata(t))
	for key, want := range map[string]any{keyModel: "gpt2", keyPre: "smaug-bpe", keyEOS: uint32(0), keyPAD: uint32(0), keyAddBOS: false, keyAddEOS: false, keyBOS: nil} {
		if got, _ := m.Get(key); got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	tokens, _, _ := m.Texts(keyTokens)
	types, _, _ := m.Ints(keyTypes)
	if len(tokens) != 310 || len(types) != 310 || tokens[1] != "<|im_start|>" || types[1] != tokenControl || types[3] != tokenNormal ||
		tokens[309] != "[PAD309]" || types[309] != tokenUnused {
		t.Errorf("%d tokens %q, %q, types %v", len(tokens), tokens[:4], tokens[305:], types[:4])
	}
	path := asGGUF(t, metadata(t))
	x := open(t, path, "", "")
	if !slices.Equal(x.StopIDs(), []int32{0, 2}) || !strings.Contains(x.Choice, "template") && !strings.Contains(x.Choice, keyTemplate) {
		t.Errorf("stops %v, template %q", x.StopIDs(), x.Choice)
	}
	again, _, err := GGUFMetadata(path, 310)
	if err != nil || !reflect.DeepEqual(again, metadata(t)) {
		t.Errorf("copied from a file they are others: %v", err)
	}
	if _, _, err := GGUFMetadata(tokenizerFolder(t, chatML), 100); err == nil || !strings.Contains(err.Error(), "don't belong together") {
		t.Error(err)
	}
	// A pre-tokenizer that llama.cpp doesn't have is told, and Ringtail still reads it.
	dir := tokenizerFolder(t, chatML)
	file := filepath.Join(dir, "tokenizer.json")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), `{1,3}`, `{1,2}`, 1)), 0o666); err != nil {
		t.Fatal(err)
	}
	pairs, warning, err := GGUFMetadata(dir, 310)
	if err != nil || !strings.Contains(warning, "no pre-tokenizer like this") {
		t.Errorf("%q, %v", warning, err)
	}
	a, z := open(t, dir, "", "chatml"), open(t, asGGUF(t, pairs), "", "chatml")
	const text = "1234567 hello"
	if p, q := a.Tokenizer.Encode(text, tokenizer.EncodeOptions{}), z.Tokenizer.Encode(text, tokenizer.EncodeOptions{}); !slices.Equal(p, q) {
		t.Errorf("ids %v, were %v", q, p)
	}
}

// TestGGUFPreTokenizers: each name gives a tokenizer, and each tokenizer its name.
func TestGGUFPreTokenizers(t *testing.T) {
	pairs := change(metadata(t), keyJSON, nil)
	for _, p := range preTokenizers {
		for _, name := range p.names {
			tok, err := ggufTokenizer(gguf.NewMetadata(change(pairs, keyPre, name)), "x", true)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			const text = "I'm 1234 ok?! 你好  \n\n x"
			if got := tok.Decode(tok.Encode(text, tokenizer.EncodeOptions{}), false); got != text {
				t.Errorf("%s: %q became %q", name, text, got)
			}
			var doc tokenizerJSON
			if err := json.Unmarshal(tok.JSON(), &doc); err != nil {
				t.Fatal(err)
			}
			splits, prefix, ok := splitsOf(doc.PreTokenizer)
			back, known := preTokenizerOf(splits, hasStep(doc.Normalizer, "NFC"), doc.Model.IgnoreMerges)
			if !ok || !known || prefix || back != p.names[0] {
				t.Errorf("%s came back as %q (%v, %v, %v)", name, back, ok, known, prefix)
			}
		}
	}
}

// TestGGUFTokenizers: what llama.cpp's lists mean, of each kind.
func TestGGUFTokenizers(t *testing.T) {
	spm := []gguf.Pair{{Key: keyModel, Value: "llama"}, {Key: keyTokens, Value: []string{"<unk>", "<s>", "</s>", "<0x61>", "b", "▁", "▁b", "bb", "▁bb", "  ", "<|x|>"}},
		{Key: keyScores, Value: []float32{0, 0, 0, 0, -9, -9, -2, -1, -3, -1000, -1000}},
		{Key: keyTypes, Value: []int32{2, 3, 3, 6, 1, 1, 1, 1, 1, 4, 3}}}
	t5 := []gguf.Pair{{Key: keyModel, Value: "t5"}, {Key: keyTokens, Value: []string{"<pad>", "</s>", "<unk>", "▁", "b", "▁b", "bb"}},
		{Key: keyScores, Value: []float32{0, 0, 0, -4, -3, -2, -9}}, {Key: keyTypes, Value: []int32{3, 3, 2, 1, 1, 1, 1}}}
	for _, c := range []struct {
		name  string
		pairs []gguf.Pair
		text  string
		want  []int32
	}{
		{"bb before ▁b", spm, "bb", []int32{1, 8}},
		{"no BOS", change(spm, keyAddBOS, false), "bb", []int32{8}},
		{"BOS and EOS", change(spm, keyAddEOS, true), "b", []int32{1, 6, 2}},
		{"no space before", change(spm, keySpacePrefix, false), "bb b", []int32{1, 7, 6}},
		{"a byte, an unknown", spm, "a", []int32{1, 5, 3}},
		{"user-defined spaces", spm, "b  b", []int32{1, 6, 9, 6}},
		{"a control token", spm, "b<|x|>b", []int32{1, 6, 10, 6}},
		{"another BOS", change(spm, keyBOS, uint32(10)), "b", []int32{10, 6}},
		{"phi-3 takes spaces behind its tokens", change(spm, "general.architecture", "phi3"), "<|x|> b", []int32{1, 10, 6}},
		{"the likeliest", t5, "b bb", []int32{5, 5, 4, 1}},
		{"runs of spaces", t5, "b    b ", []int32{5, 5, 1}},
		{"no EOS", change(t5, keyAddEOS, false), "b", []int32{5}},
	} {
		tok, err := ggufTokenizer(gguf.NewMetadata(c.pairs), "x", true)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := tok.Encode(c.text, tokenizer.EncodeOptions{AddSpecial: true}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q is %v, want %v", c.name, c.text, got, c.want)
		}
	}
	named := change(metadata(t), keyTemplates, []string{"default", "tool_use", "absent"}, keyTemplate+".tool_use", "tools")
	tok, err := ggufTokenizer(gguf.NewMetadata(named), "x", true)
	if err != nil || !reflect.DeepEqual(tok.Config().ChatTemplates, map[string]string{"tool_use": "tools"}) {
		t.Errorf("templates %v, %v", tok.Config().ChatTemplates, err)
	}
}

// TestGGUFTokenizerRefuses: what is wrong is named in a line, with its key.
func TestGGUFTokenizerRefuses(t *testing.T) {
	pairs := change(metadata(t), keyJSON, nil)
	for want, c := range map[string][]gguf.Pair{
		"no tokenizer":                   change(pairs, keyModel, nil),
		"no tokenizer (":                 change(pairs, keyModel, "none"),
		`model is "rwkv"`:                change(pairs, keyModel, "rwkv"),
		`pre is "unheard-of"`:            change(pairs, keyPre, "unheard-of"),
		"tokens is missing or empty":     change(pairs, keyTokens, []string{}),
		"tokens is an array":             change(pairs, keyTokens, []int32{1}),
		"token_type has 3 elements":      change(pairs, keyTypes, []int32{1, 1, 1}),
		"merges[0] is":                   change(pairs, keyMerges, []string{"ab"}),
		"merges":                         change(pairs, keyMerges, []string{"no such"}),
		"twice":                          change(pairs, keyTokens, append(slices.Repeat([]string{"a"}, 310), "b"), keyTypes, slices.Repeat([]int32{1}, 311)),
		"bos_token_id is the string":     change(pairs, keyBOS, "1"),
		"add_bos_token is 1":             change(pairs, keyAddBOS, uint8(1)),
		"scores is missing":              change(pairs, keyModel, "llama"),
		"chosen by it":                   change(pairs, keyModel, "t5"),
		"scores has 1 elements":          change(pairs, keyScores, []float32{0}),
		"unknown_token_id is missing":    change(pairs, keyModel, "t5", keyScores, make([]float32, 310), keyUNK, uint32(999)),
		"chat_template is 1":             change(pairs, keyTemplate, uint8(1)),
		"tokenizer.huggingface.json has": change(metadata(t), keyTokens, []string{"a"}, keyTypes, []int32{1}),
		"tokenizer:":                     change(pairs, keyJSON, "{"),
	} {
		path := asGGUF(t, c)
		_, err := OpenTokenizer(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want a line with %q", err, want)
		}
	}
}
