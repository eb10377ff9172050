package tokenizer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// file builds a small tokenizer.json with some members replaced.
func file(members ...string) string {
	all := map[string]string{
		"model": bpeJSON(), "added_tokens": `[]`, "normalizer": "null", "pre_tokenizer": "null",
		"post_processor": "null", "decoder": "null",
	}
	for i := 0; i < len(members); i += 2 {
		all[members[i]] = members[i+1]
	}
	var list []string
	for k, v := range all {
		list = append(list, fmt.Sprintf("%q: %s", k, v))
	}
	return "{" + strings.Join(list, ",\n") + "}"
}

// bpeJSON builds a model with some members replaced.
func bpeJSON(members ...string) string {
	all := map[string]string{"type": `"BPE"`, "vocab": `{"a": 0, "b": 1, "ab": 2}`, "merges": `["a b"]`}
	for i := 0; i < len(members); i += 2 {
		all[members[i]] = members[i+1]
	}
	var list []string
	for k, v := range all {
		list = append(list, fmt.Sprintf("%q: %s", k, v))
	}
	return "{" + strings.Join(list, ", ") + "}"
}

func nest(depth int, field string) string {
	return strings.Repeat(`{"type": "Sequence", "`+field+`": [`, depth) + strings.Repeat("]}", depth)
}

func TestBrokenFiles(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // parts of the error
	}{
		"empty":           {"", []string{"JSON"}},
		"truncated":       {file()[:40], []string{"line"}},
		"not an object":   {"[1, 2]", []string{"array", "object"}},
		"twice":           {`{"model": {}, "model": {}}`, []string{`"model"`, "twice"}},
		"other file":      {`{"architectures": ["LlamaForCausalLM"]}`, []string{"model", "missing"}},
		"model's type":    {file("model", `"BPE"`), []string{"model", "string", "object"}},
		"no vocab":        {file("model", `{"type": "BPE", "merges": []}`), []string{"model.vocab", "missing"}},
		"no merges":       {file("model", `{"type": "BPE", "vocab": {}}`), []string{"model.merges", "missing"}},
		"vocab's type":    {file("model", bpeJSON("vocab", `["a"]`)), []string{"model.vocab", "array", "object"}},
		"id's type":       {file("model", bpeJSON("vocab", `{"a": "x"}`)), []string{`model.vocab["a"]`, "id"}},
		"id's fraction":   {file("model", bpeJSON("vocab", `{"a": 1.5}`)), []string{`model.vocab["a"]`, "1.5"}},
		"negative id":     {file("model", bpeJSON("vocab", `{"a": -1}`)), []string{`model.vocab["a"]`, "-1"}},
		"huge id":         {file("model", bpeJSON("vocab", `{"a": 99999999}`)), []string{`model.vocab["a"]`, "99999999"}},
		"enormous id":     {file("model", bpeJSON("vocab", `{"a": 1e99}`)), []string{`model.vocab["a"]`, "1e99"}},
		"sparse ids":      {file("model", bpeJSON("vocab", `{"a": 16000000}`)), []string{"model.vocab", "16000000"}},
		"same id":         {file("model", bpeJSON("vocab", `{"a": 0, "b": 0}`)), []string{"model.vocab", "id 0"}},
		"merge unknown":   {file("model", bpeJSON("merges", `["a b", "a c"]`)), []string{"model.merges[1]", `"c"`}},
		"merge to none":   {file("model", bpeJSON("merges", `["b a"]`)), []string{"model.merges[0]", `"ba"`}},
		"merge of three":  {file("model", bpeJSON("merges", `["a b ab"]`)), []string{"model.merges[0]", "a b ab"}},
		"merge of one":    {file("model", bpeJSON("merges", `[["a"]]`)), []string{"model.merges[0]", "1 token"}},
		"merge's type":    {file("model", bpeJSON("merges", `[7]`)), []string{"model.merges[0]", "number"}},
		"merge's part":    {file("model", bpeJSON("merges", `[["a", 1]]`)), []string{"model.merges[0]", "number"}},
		"merges' type":    {file("model", bpeJSON("merges", `"a b"`)), []string{"model.merges", "string", "array"}},
		"unknown's":       {file("model", bpeJSON("unk_token", `"?"`)), []string{"model.unk_token", `"?"`}},
		"flag's type":     {file("model", bpeJSON("fuse_unk", `"yes"`)), []string{"model.fuse_unk", "string", "boolean"}},
		"prefix":          {file("model", bpeJSON("continuing_subword_prefix", `"####"`)), []string{"model.merges[0]", "####"}},
		"added's type":    {file("added_tokens", `{"a": 1}`), []string{"added_tokens", "object", "array"}},
		"added's id":      {file("added_tokens", `[{"content": "x"}]`), []string{"added_tokens[0]", "id"}},
		"added huge":      {file("added_tokens", `[{"id": 16777000, "content": "x"}]`), []string{"added_tokens[0]", "16777000"}},
		"added negative":  {file("added_tokens", `[{"id": -3, "content": "x"}]`), []string{"added_tokens[0]", "-3"}},
		"added taken":     {file("added_tokens", `[{"id": 1, "content": "x"}]`), []string{"added_tokens[0]", `"x"`, `"b"`}},
		"added twice":     {file("added_tokens", `[{"id": 3, "content": "x"}, {"id": 4, "content": "x"}]`), []string{"added_tokens[1]", `"x"`}},
		"added same id":   {file("added_tokens", `[{"id": 3, "content": "x"}, {"id": 3, "content": "y"}]`), []string{"added_tokens[1]", `"x"`}},
		"no type":         {file("normalizer", `{}`), []string{"normalizer.type", "missing"}},
		"type's type":     {file("normalizer", `{"type": 3}`), []string{"normalizer.type", "number", "string"}},
		"not a component": {file("decoder", `[1]`), []string{"decoder", "array", "object"}},
		"no list":         {file("decoder", `{"type": "Sequence"}`), []string{"decoder.decoders", "missing"}},
		"list's type":     {file("decoder", `{"type": "Sequence", "decoders": 3}`), []string{"decoder.decoders", "number", "array"}},
		"within a list":   {file("pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Split"}]}`), []string{"pre_tokenizer.pretokenizers[1].pattern", "missing"}},
		"deep":            {file("normalizer", nest(100, "normalizers")), []string{"normalizer", "deep"}},
		"deeper":          {file("post_processor", nest(4000, "processors")), []string{"post_processor", "deep"}},
		"too deep":        {file("decoder", strings.Repeat("[", 20000)), []string{"depth"}},
		"regex":           {file("pre_tokenizer", `{"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}`), []string{"pre_tokenizer.pattern", `"("`}},
		"both patterns":   {file("normalizer", `{"type": "Replace", "pattern": {"Regex": "a", "String": "b"}, "content": ""}`), []string{"normalizer.pattern"}},
		"no content":      {file("normalizer", `{"type": "Replace", "pattern": {"String": "b"}}`), []string{"normalizer.content", "missing"}},
		"no prepend":      {file("normalizer", `{"type": "Prepend"}`), []string{"normalizer.prepend", "missing"}},
		"behavior":        {file("pre_tokenizer", `{"type": "Split", "pattern": {"String": "-"}, "behavior": "Odd"}`), []string{"pre_tokenizer.behavior", "Odd"}},
		"scheme":          {file("pre_tokenizer", `{"type": "Metaspace", "replacement": "_", "prepend_scheme": "odd"}`), []string{"pre_tokenizer.prepend_scheme", "odd"}},
		"mark":            {file("decoder", `{"type": "Metaspace", "replacement": "__"}`), []string{"decoder.replacement", "__"}},
		"strip":           {file("decoder", `{"type": "Strip", "content": " ", "start": -1, "stop": 0}`), []string{"decoder", "-1"}},
		"strip nothing":   {file("decoder", `{"type": "Strip", "content": "", "start": 1, "stop": 0}`), []string{"decoder.content"}},
		"template token":  {file("post_processor", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}], "special_tokens": {}}`), []string{"post_processor.single[0]", `"x"`}},
		"template id":     {file("post_processor", `{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"x": {"ids": [77]}}}`), []string{"post_processor.single[0]", "77"}},
		"template empty":  {file("post_processor", `{"type": "TemplateProcessing", "single": [], "special_tokens": {}}`), []string{"post_processor.single", "Sequence A"}},
		"template B":      {file("post_processor", `{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}], "special_tokens": {}}`), []string{"post_processor.single[0]"}},
		"no such unknown": {file("model", `{"type": "WordPiece", "vocab": {"a": 0}}`), []string{"model.unk_token", "[UNK]"}},
		"unknown word":    {file("model", `{"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0}}`), []string{"model.unk_token", `"?"`}},
		"longest word":    {file("model", `{"type": "WordPiece", "unk_token": "a", "max_input_chars_per_word": -1, "vocab": {"a": 0}}`), []string{"model.max_input_chars_per_word", "-1"}},
		"longest's type":  {file("model", `{"type": "WordPiece", "unk_token": "a", "max_input_chars_per_word": 1.5, "vocab": {"a": 0}}`), []string{"model.max_input_chars_per_word", "integer"}},
		"length":          {file("pre_tokenizer", `{"type": "FixedLength", "length": 0}`), []string{"pre_tokenizer.length", "0", "at least 1"}},
		"reference":       {file("normalizer", `{"type": "Replace", "pattern": {"Regex": "(a)\\1"}, "content": ""}`), []string{"normalizer.pattern", `\1`}},
		"roberta":         {file("post_processor", `{"type": "RobertaProcessing", "sep": ["a"], "cls": ["b", 1]}`), []string{"post_processor.sep"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.text), "dir/tokenizer.json")
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(c.want, "dir/tokenizer.json: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			if len(err.Error()) > 400 {
				t.Errorf("the error is %d bytes long: %.400s", len(err.Error()), err)
			}
			if errors.Is(err, ErrUnsupported) != (name == "regex" || name == "reference") {
				t.Errorf("it is wrong about what is supported: %v", err)
			}
		})
	}
}

func TestUnsupportedComponents(t *testing.T) {
	for _, field := range []string{"model", "normalizer", "pre_tokenizer", "decoder", "post_processor"} {
		_, err := Parse([]byte(file(field, `{"type": "Odd"}`)), "x.json")
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "Odd") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestEveryTruncation(t *testing.T) {
	whole := spm(t).JSON()
	for i := 0; i < len(whole)-1; i += 1 + len(whole)/400 {
		if _, err := Parse(whole[:i], "x.json"); err == nil {
			t.Errorf("%d of %d bytes are read without an error", i, len(whole))
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of an absent file: %v", err)
	}
	if err := os.WriteFile(path, []byte(file()), 0o644); err != nil {
		t.Fatal(err)
	}
	tok, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("abba", EncodeOptions{}); !slices.Equal(got, []int32{2, 1, 0}) {
		t.Errorf("ids are %d", got)
	}
}

func TestOldSpellings(t *testing.T) {
	// Without a type what has merges is BPE, and Metaspace had add_prefix_space.
	tok, err := Parse([]byte(file(
		"model", `{"vocab": {"a": 0, "_": 1, "_a": 2}, "merges": ["_ a"]}`,
		"pre_tokenizer", `{"type": "Metaspace", "replacement": "_", "str_rep": "_", "add_prefix_space": false}`)), "x.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := tok.Encode("a a", EncodeOptions{}); !slices.Equal(got, []int32{0, 2}) {
		t.Errorf("ids are %d", got)
	}
}

func TestGapsInIDs(t *testing.T) {
	tok, err := Parse([]byte(file("model", bpeJSON("vocab", `{"a": 5, "b": 100, "ab": 7, "": 9}`),
		"added_tokens", `[{"id": 200, "content": "<x>", "special": true}]`)), "x.json")
	if err != nil {
		t.Fatal(err)
	}
	if tok.Size() != 201 {
		t.Errorf("the size is %d", tok.Size())
	}
	for id, want := range map[int32]string{5: "a", 6: "none", 9: "", 0: "none", 200: "<x>", 150: "none"} {
		got, ok := tok.Token(id)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("token %d is %q, want %q", id, got, want)
		}
	}
	if got := tok.Encode("ab<x>b", EncodeOptions{}); !slices.Equal(got, []int32{7, 200, 100}) {
		t.Errorf("ids are %d", got)
	}
}
