package tokenizer

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestMutatedFiles puts odd values in the place of each value of whole files.
// Reading them may fail, but must name the file, and never panic; what is read
// must work.
func TestMutatedFiles(t *testing.T) {
	odd := []any{
		nil, true, -1.0, 0.0, 1.0, 2.5, 1e9, 1e99, "", "x", "Sequence", "Isolated", strings.Repeat("é", 300),
		[]any{}, []any{nil}, []any{"a", "b"}, []any{[]any{}}, map[string]any{}, map[string]any{"type": "BPE"},
		map[string]any{"type": "Sequence"}, map[string]any{"a": 1.0},
	}
	split := `{"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "MergedWithNext", "invert": false}`
	bytes := `{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}`
	metaspace := `{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true}`
	bases := []string{
		file("model", bpeJSON("unk_token", `"a"`, "fuse_unk", "true", "byte_fallback", "true", "ignore_merges", "true",
			"continuing_subword_prefix", `"a"`, "end_of_word_suffix", `"b"`, "vocab", `{"a": 0, "b": 1, "abb": 2, "ab": 3}`,
			"merges", `[["a", "ab"], ["a", "abb"]]`)),
		file("added_tokens", `[{"id": 0, "content": "a", "single_word": false, "lstrip": false, "rstrip": true, "normalized": true, "special": true}]`,
			"normalizer", `{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
				{"type": "Strip", "strip_left": true, "strip_right": false}, {"type": "NFC"}]}`,
			"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [`+split+`, {"type": "Digits", "individual_digits": true},
				{"type": "Punctuation", "behavior": "Contiguous"}, {"type": "CharDelimiterSplit", "delimiter": "z"}, `+metaspace+`, `+bytes+`]}`,
			"post_processor", `{"type": "Sequence", "processors": [`+bytes+`, {"type": "RobertaProcessing", "sep": ["a", 0], "cls": ["b", 1], "trim_offsets": true, "add_prefix_space": true},
				{"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
				"special_tokens": {"a": {"id": "a", "ids": [0], "tokens": ["a"]}}}]}`,
			"decoder", `{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
				{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}, `+metaspace+`, {"type": "BPEDecoder", "suffix": "</w>"}, `+bytes+`]}`),
		file("model", `{"type": "WordPiece", "unk_token": "b", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {"b": 0, "a": 1, "##b": 2}}`,
			"normalizer", `{"type": "Sequence", "normalizers": [{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
				{"type": "Nmt"}, {"type": "NFKD"}, {"type": "StripAccents"}]}`,
			"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "BertPreTokenizer"}, {"type": "UnicodeScripts"}, {"type": "FixedLength", "length": 2}]}`,
			"decoder", `{"type": "Sequence", "decoders": [{"type": "WordPiece", "prefix": "##", "cleanup": true}, {"type": "CTC", "pad_token": "a", "word_delimiter_token": "|", "cleanup": true}]}`),
		file("model", `{"type": "WordLevel", "unk_token": "b", "vocab": {"b": 0, "a": 1}}`),
	}
	read := 0
	for _, base := range bases {
		if _, err := Parse([]byte(base), "base.json"); err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := json.Unmarshal([]byte(base), &doc); err != nil {
			t.Fatal(err)
		}
		eachValue(doc, func(set func(any), old any) {
			for _, v := range odd {
				set(v)
				data, err := json.Marshal(doc)
				if err != nil {
					t.Fatal(err)
				}
				if tok, err := Parse(data, "x.json"); err == nil {
					read++
					tok.Decode(tok.Encode("ab 1é\xff.a", EncodeOptions{AddSpecial: true}), false)
					tok.EncodeOffsets("ab 1é\xff.a", EncodeOptions{PlainSpecial: true})
				} else if !strings.HasPrefix(err.Error(), "x.json: ") {
					t.Errorf("the error does not name the file: %v", err)
				}
			}
			set(old)
		})
	}
	if read == 0 {
		t.Error("no file was read")
	}
}

// eachValue calls f for every value within v, with a function that replaces it.
func eachValue(v any, f func(set func(any), old any)) {
	switch v := v.(type) {
	case map[string]any:
		for k, old := range v {
			f(func(x any) { v[k] = x }, old)
			eachValue(old, f)
		}
	case []any:
		for i, old := range v {
			f(func(x any) { v[i] = x }, old)
			eachValue(old, f)
		}
	}
}
