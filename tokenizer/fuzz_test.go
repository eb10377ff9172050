package tokenizer

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse reads broken files. What is read must encode and decode without a
// panic, and be read again as it was written.
func FuzzParse(f *testing.F) {
	f.Add([]byte(file()))
	f.Add(spm(f).JSON())
	f.Add([]byte(file(
		"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": " ?\\w+"}, "behavior": "MergedWithNext", "invert": true}, {"type": "ByteLevel"}]}`,
		"normalizer", `{"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": true}]}`,
		"decoder", `{"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Fuse"}, {"type": "BPEDecoder", "suffix": "</w>"}]}`,
		"added_tokens", `[{"id": 3, "content": " x", "lstrip": true, "rstrip": true, "single_word": true, "normalized": true}]`,
		"model", bpeJSON("byte_fallback", "true", "end_of_word_suffix", `"b"`, "unk_token", `"a"`))))
	f.Add([]byte(file("pre_tokenizer", `{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}`,
		"decoder", `{"type": "Strip", "content": "a", "start": 1, "stop": 2}`)))
	f.Add([]byte(file("model", `{"type": "WordPiece", "unk_token": "b", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9, "vocab": {"b": 0, "a": 1, "##b": 2}}`,
		"normalizer", `{"type": "BertNormalizer", "strip_accents": true}`, "pre_tokenizer", `{"type": "BertPreTokenizer"}`, "decoder", `{"type": "WordPiece"}`,
		"post_processor", `{"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 0]}`)))
	f.Add([]byte(file("model", `{"type": "WordLevel", "unk_token": "b", "vocab": {"b": 0, "ab": 1}}`, "decoder", `{"type": "CTC"}`,
		"pre_tokenizer", `{"type": "Sequence", "pretokenizers": [{"type": "UnicodeScripts"}, {"type": "Split", "pattern": {"Regex": "(?i:[^\\W_]++|(?<=a)(?!b))"}, "behavior": "Removed"},
			{"type": "FixedLength", "length": 2}, {"type": "Whitespace"}]}`, "normalizer", `{"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}]}`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Parse(data, "fuzz.json")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz.json: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %q", err)
			}
			return
		}
		const text = "ab x é\xff 1</s>▁b"
		for _, o := range []EncodeOptions{{AddSpecial: true}, {PlainSpecial: true}} {
			ids, offsets := tok.EncodeOffsets(text, o)
			if len(ids) != len(offsets) {
				t.Fatalf("%d tokens, %d offsets", len(ids), len(offsets))
			}
			for i, id := range ids {
				if _, ok := tok.Token(id); !ok || int(id) >= tok.Size() {
					t.Errorf("%d is no token", id)
				}
				if o := offsets[i]; o[0] < 0 || o[0] > o[1] || o[1] > len(text) {
					t.Errorf("offsets %v", o)
				}
			}
			decoded := tok.Decode(ids, true)
			stream := tok.NewStream(true)
			var streamed strings.Builder
			for _, id := range ids {
				streamed.WriteString(stream.Push(id))
			}
			if streamed.WriteString(stream.Flush()); streamed.String() != decoded {
				t.Errorf("streamed %q, decoded %q", streamed.String(), decoded)
			}
			if plain := tok.Encode(text, o); !slices.Equal(plain, ids) {
				t.Errorf("ids are %d, and %d with offsets", plain, ids)
			}
		}
		if _, err := tok.AddTokens(AddedToken{Content: "<new>", Special: true}); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(tok.JSON(), "again.json")
		if err != nil {
			t.Fatal(err)
		}
		if a, b := tok.Encode(text, EncodeOptions{}), again.Encode(text, EncodeOptions{}); !slices.Equal(a, b) {
			t.Errorf("ids are %d, and %d when read again", a, b)
		}
	})
}

// FuzzRoundTrip checks that a byte-level tokenizer gives any text back, in one
// piece and in a stream, with offsets that cover it.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range texts {
		f.Add(s)
	}
	f.Add("\xff\xe4\xbd<s>\xa0")
	tok := trained(f, TrainOptions{})
	f.Fuzz(func(t *testing.T, s string) {
		ids, offsets := tok.EncodeOffsets(s, EncodeOptions{PlainSpecial: true})
		at := 0
		var bytes []byte
		var streamed strings.Builder
		stream := tok.NewStream(true)
		for i, o := range offsets {
			if o[0] != at {
				t.Fatalf("token %d begins at %d, not %d", i, o[0], at)
			}
			at = o[1]
			bytes = append(bytes, tok.TokenBytes(ids[i])...)
			part := stream.Push(ids[i])
			if !utf8.ValidString(part) {
				t.Errorf("the part %q is not UTF-8", part)
			}
			streamed.WriteString(part)
		}
		streamed.WriteString(stream.Flush())
		if string(bytes) != s {
			t.Errorf("%q has the bytes %q", s, bytes)
		}
		decoded := tok.Decode(ids, true)
		if utf8.ValidString(s) && decoded != s {
			t.Errorf("%q is decoded to %q", s, decoded)
		}
		if streamed.String() != decoded {
			t.Errorf("%q is streamed as %q, decoded to %q", s, streamed.String(), decoded)
		}
	})
}
