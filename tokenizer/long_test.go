package tokenizer

import (
	"fmt"
	"math/bits"
	"runtime"
	"strings"
	"testing"
)

// longUnits are what long texts are made of by repeating it.
var longUnits = []string{"a", " ", "\n", "aB", "a ", " \n", "1", "'", "!", "😀", "\u0301", "e\u0301", "漢", "\r", "\xff", "\x00", "▁", "<s", "<s>", "  x"}

// longPipelines are one tokenizer for each component, of words of any length.
func longPipelines(t testing.TB) map[string]*Tokenizer {
	all := map[string]*Tokenizer{"bytes": trained(t, TrainOptions{}), "sentencepiece": spm(t)}
	added := `[{"id": 10, "content": "<s>", "special": true, "lstrip": true, "rstrip": true}, {"id": 11, "content": " ", "lstrip": true, "rstrip": true},
		{"id": 12, "content": "<s<s<s<s<s!", "normalized": true}, {"id": 13, "content": "aaaaaaaaaaaaaaaaaaaaaaaab"}, {"id": 14, "content": "  x", "single_word": true}]`
	add := func(name string, members ...string) {
		tok, err := Parse([]byte(file(members...)), name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = tok
	}
	regex := func(s string) string { return string(marshal(s, "")) }
	pre := map[string]string{
		"none": "null", "ByteLevel": `{"type": "ByteLevel", "add_prefix_space": true, "use_regex": true}`, "Metaspace": `{"type": "Metaspace", "replacement": "▁"}`,
		"Metaspace whole": `{"type": "Metaspace", "replacement": "▁", "split": false}`, "Digits": `{"type": "Digits", "individual_digits": true}`,
		"Digits together": `{"type": "Digits"}`, "Whitespace": `{"type": "Whitespace"}`, "WhitespaceSplit": `{"type": "WhitespaceSplit"}`,
		"CharDelimiterSplit": `{"type": "CharDelimiterSplit", "delimiter": "a"}`, "Bert": `{"type": "BertPreTokenizer"}`, "UnicodeScripts": `{"type": "UnicodeScripts"}`,
		"FixedLength": `{"type": "FixedLength", "length": 3}`,
		"Sequence":    `{"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Punctuation"}, {"type": "Metaspace", "replacement": "▁"}, {"type": "ByteLevel"}]}`,
	}
	for b := range behaviors {
		pre["Punctuation "+b] = `{"type": "Punctuation", "behavior": "` + b + `"}`
		pre["string "+b] = `{"type": "Split", "pattern": {"String": " "}, "behavior": "` + b + `", "invert": false}`
		pre["regex "+b] = `{"type": "Split", "pattern": {"Regex": "\\s+$|[a-z]*!|a"}, "behavior": "` + b + `", "invert": true}`
	}
	for name, p := range hubPatterns {
		pre["hub "+name] = `{"type": "Split", "pattern": {"Regex": ` + regex(p) + `}, "behavior": "Isolated", "invert": false}`
	}
	wordPiece := `{"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100000000,
		"vocab": {"a": 0, "##a": 1, "##aaaaaaaaaaaaaaaaaaaaaaaaaaab": 2, " ": 3, "## ": 4, "漢": 5, "##漢": 6, "##": 7}}`
	for name, p := range pre {
		add("pre "+name, "pre_tokenizer", p, "added_tokens", "[]")
	}
	for name, n := range map[string]string{
		"NFC": `{"type": "NFC"}`, "NFD": `{"type": "NFD"}`, "NFKC": `{"type": "NFKC"}`, "NFKD": `{"type": "NFKD"}`, "Nmt": `{"type": "Nmt"}`,
		"Lowercase": `{"type": "Lowercase"}`, "Strip": `{"type": "Strip"}`, "StripAccents": `{"type": "StripAccents"}`, "Bert": `{"type": "BertNormalizer"}`,
		"ByteLevel": `{"type": "ByteLevel"}`, "Prepend": `{"type": "Prepend", "prepend": "▁"}`,
		"Replace": `{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}`, "Replace nothing": `{"type": "Replace", "pattern": {"String": ""}, "content": "-"}`,
		"Replace regex": `{"type": "Replace", "pattern": {"Regex": " {2,}|a+$|a*b"}, "content": " "}`,
	} {
		add("normalizer "+name, "normalizer", n, "added_tokens", added)
	}
	add("added", "added_tokens", added)
	add("WordPiece", "model", wordPiece)
	add("WordLevel", "model", `{"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}`)
	return all
}

// TestLongTexts encodes and decodes texts of two lengths. What takes steps that
// are counted, or memory, takes in proportion; where time were quadratic in
// something else, this would not end.
func TestLongTexts(t *testing.T) {
	const short, long = 1 << 12, 1 << 15
	for name, tok := range longPipelines(t) {
		for _, unit := range longUnits {
			work := func(n int) (steps int, memory uint64) {
				text := strings.Repeat(unit, n/len(unit))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				out := tok.getSink(EncodeOptions{})
				out.symbols.steps = 0
				tok.encode(out, text, EncodeOptions{})
				steps = out.symbols.steps
				tok.Decode(out.ids, false)
				runtime.ReadMemStats(&after)
				return steps, after.TotalAlloc - before.TotalAlloc
			}
			work(short) // what is built once
			_, a := work(short)
			steps, b := work(long)
			if most := 4 * long; steps > most {
				t.Errorf("%s: %d steps for %d bytes of %q", name, steps, long, unit)
			}
			if b > 2*long/short*a+1<<23 {
				t.Errorf("%s: %d bytes of %q take %d bytes of memory, %d take %d", name, short, unit, a, long, b)
			}
		}
	}
}

// BenchmarkLong shows what each component takes for a byte of long texts.
func BenchmarkLong(b *testing.B) {
	for name, tok := range longPipelines(b) {
		for _, unit := range []string{"a", " ", "漢", "e\u0301", "a "} {
			for _, n := range []int{1 << 16, 1 << 20} {
				b.Run(fmt.Sprintf("%s/%q/%d", name, unit, bits.Len(uint(n))-1), func(b *testing.B) {
					text := strings.Repeat(unit, n/len(unit))
					b.SetBytes(int64(len(text)))
					for b.Loop() {
						tok.Encode(text, EncodeOptions{})
					}
				})
			}
		}
	}
}
