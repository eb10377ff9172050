package tokenizer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

// sample is the text that the tests' tokenizers are trained on.
const sample = `The model answers the question, and the person asks another question.
It's the model's answer that we'd like to rate: 1, 2 or 3 of 10, said the person.
模型回答问题，然后这个人再问另一个问题。模型的回答很好！
Das Modell fragt, ob es größer sein soll. Où est le modèle ? ¿Dónde está?
	for i := 0; i < 100; i++ { total += values[i] }

`

// trained returns a tokenizer of the sample.
func trained(tb testing.TB, o TrainOptions) *Tokenizer {
	tb.Helper()
	if o.VocabSize == 0 {
		o.VocabSize = 420
	}
	if o.SpecialTokens == nil {
		o.SpecialTokens = []string{"<s>", "</s>", "<|im_start|>", "<|im_end|>"}
		o.BOS, o.EOS = "<s>", "</s>"
	}
	t, err := Train(context.Background(), slices.Values(strings.SplitAfter(sample, "\n")), o)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// spm is a small tokenizer in sentencepiece's form, as Llama 2's. Its merges
// make "▁the", "▁a" and "in", bytes stand for what it does not know.
func spm(tb testing.TB, changes ...string) *Tokenizer {
	tb.Helper()
	tokens := []string{"<unk>", "<s>", "</s>"}
	for b := range 256 {
		tokens = append(tokens, fmt.Sprintf("<0x%02X>", b))
	}
	tokens = append(tokens, "▁", "t", "h", "e", "a", "i", "n", "g", "▁t", "he", "▁the", "▁a", "in", "ing", "▁▁")
	vocab := map[string]int{}
	for id, s := range tokens {
		vocab[s] = id
	}
	raw, err := json.Marshal(vocab)
	if err != nil {
		tb.Fatal(err)
	}
	text := `{"added_tokens": [
		{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true},
		{"id": 2, "content": "</s>", "special": true, "lstrip": false, "rstrip": false, "single_word": false, "normalized": false}],
	"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
		{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
	"pre_tokenizer": null,
	"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
		"pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
	"decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
		{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
	"model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": ` + string(raw) + `,
		"merges": ["▁ t", "h e", "▁t he", "▁ a", "i n", ["in", "g"], "▁ ▁"]}}`
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			tb.Fatalf("nothing to change: %s", changes[i])
		}
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	t, err := Parse([]byte(text), "test.json")
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func tokensOf(t *Tokenizer, ids []int32) []string {
	var s []string
	for _, id := range ids {
		token, ok := t.Token(id)
		if !ok {
			token = fmt.Sprintf("no token %d", id)
		}
		s = append(s, token)
	}
	return s
}

var texts = []string{
	"", " ", "the", "The model's 123456 answers.\n\n  New line", "你好，世界", "größer Où ¿", "😀👨‍👩‍👧‍👦🇩🇪", "e\u0301 \u00e9",
	"<|im_start|>user\nhi<|im_end|>", "a\tb\r\n\r\n c   d    ", strings.Repeat("word ", 50), "\u2581\u2581x \u2581",
	strings.Repeat("模型", 80), "\x00\x01\x7f",
}

func TestByteLevelRoundTrip(t *testing.T) {
	for _, pattern := range []string{"gpt2", "llama3", "qwen2"} {
		tok := trained(t, TrainOptions{Pattern: pattern})
		for _, s := range append(texts, sample) {
			ids := tok.Encode(s, EncodeOptions{})
			if got := tok.Decode(ids, false); got != s {
				t.Errorf("%s: %q comes back as %q", pattern, s, got)
			}
		}
	}
}

// The tokens of a byte-level tokenizer cover any text, valid or not.
func TestByteLevelOffsetsAreExact(t *testing.T) {
	tok := trained(t, TrainOptions{})
	for _, s := range append(texts, "\xff\xfe a\xe4\xbdb\xc0", sample) {
		ids, offsets := tok.EncodeOffsets(s, EncodeOptions{})
		at := 0
		for i, o := range offsets {
			if o[0] != at {
				t.Fatalf("%q: token %d begins at %d, the one before ends at %d", s, i, o[0], at)
			}
			at = o[1]
			if got := s[o[0]:o[1]]; got != string(tok.TokenBytes(ids[i])) {
				t.Errorf("%q: token %d is %q, its place holds %q", s, i, tok.TokenBytes(ids[i]), got)
			}
		}
		if at != len(s) {
			t.Errorf("%q: the tokens end at %d of %d", s, at, len(s))
		}
		if !slices.Equal(ids, tok.Encode(s, EncodeOptions{})) {
			t.Errorf("%q: EncodeOffsets and Encode differ", s)
		}
	}
}

func TestOffsetsOfSentencepiece(t *testing.T) {
	tok := spm(t)
	const text = "the thing</s> a\u00e9"
	ids, offsets := tok.EncodeOffsets(text, EncodeOptions{AddSpecial: true})
	tokens := []string{"<s>", "▁the", "▁t", "h", "ing", "</s>", "▁", "▁a", "<0xC3>", "<0xA9>"}
	want := [][2]int{{0, 0}, {0, 3}, {3, 5}, {5, 6}, {6, 9}, {9, 13}, {13, 13}, {13, 15}, {15, 16}, {16, 17}}
	if got := tokensOf(tok, ids); !slices.Equal(got, tokens) {
		t.Fatalf("tokens are %q, want %q", got, tokens)
	}
	if !slices.Equal(offsets, want) {
		t.Errorf("offsets are %v, want %v", offsets, want)
	}
}

func TestOffsetsThroughNormalizers(t *testing.T) {
	// NFC joins e and the accent, so that the tokens of the one character
	// that comes of them each stand for all three bytes.
	tok := trained(t, TrainOptions{NFC: true})
	text := "ae\u0301z"
	ids, offsets := tok.EncodeOffsets(text, EncodeOptions{})
	if got := tok.Decode(ids, false); got != "a\u00e9z" {
		t.Fatalf("decoded to %q", got)
	}
	covered := make([]bool, len(text))
	for i, o := range offsets {
		if b := tok.TokenBytes(ids[i]); strings.Contains("\u00e9", string(b)) && o != [2]int{1, 4} {
			t.Errorf("token %d, %q, comes from %v", i, b, o)
		}
		for k := o[0]; k < o[1]; k++ {
			covered[k] = true
		}
	}
	if slices.Contains(covered, false) {
		t.Errorf("offsets %v don't cover %q", offsets, text)
	}
	checkOffsets(t, text, ids, offsets)
}

func TestSpecialTokensInText(t *testing.T) {
	tok := trained(t, TrainOptions{})
	const text = "<|im_start|>user\nhi<|im_end|></s>"
	start, _ := tok.ID("<|im_start|>")
	end, _ := tok.ID("<|im_end|>")
	ids := tok.Encode(text, EncodeOptions{})
	if ids[0] != start || !slices.Contains(ids, end) {
		t.Errorf("ids %d lack the special tokens", ids)
	}
	if got := tok.Decode(ids, true); got != "user\nhi" {
		t.Errorf("without special tokens it is %q", got)
	}
	plain := tok.Encode(text, EncodeOptions{PlainSpecial: true})
	for _, id := range plain {
		if tok.IsSpecial(id) {
			t.Errorf("plain text has the special token %d", id)
		}
	}
	if got := tok.Decode(plain, true); got != text {
		t.Errorf("plain text comes back as %q", got)
	}
}

// Control tokens that a vocabulary could also reach by merges, by one character
// or by looking up whole words must not come out of plain text either.
func TestPlainSpecialIsAbsolute(t *testing.T) {
	special := func(id int, content string) string {
		return fmt.Sprintf(`{"id": %d, "content": %q, "special": true},`, id, content)
	}
	plain := EncodeOptions{PlainSpecial: true}
	for name, c := range map[string]struct {
		content string
		id      int
		changes []string
	}{
		"merges":      {"▁the", 269, nil},
		"character":   {"a", 263, nil},
		"whole word":  {"ing", 272, []string{`"fuse_unk"`, `"ignore_merges": true, "fuse_unk"`}},
		"no fallback": {"g", 266, []string{`"byte_fallback": true`, `"byte_fallback": false`}},
		"no unknown":  {"g", 266, []string{`"byte_fallback": true`, `"byte_fallback": false`, `"unk_token": "<unk>"`, `"unk_token": null`}},
	} {
		t.Run(name, func(t *testing.T) {
			tok := spm(t, append([]string{`{"id": 0,`, special(c.id, c.content) + `{"id": 0,`}, c.changes...)...)
			if _, ok := tok.added.tokens[int32(c.id)]; !ok {
				t.Fatal("the test's token is not special")
			}
			for _, text := range []string{"the thing", "ing", "a", "hating the \u00e9 </s><s>", c.content} {
				ids, offsets := tok.EncodeOffsets(text, plain)
				for _, id := range ids {
					if tok.IsSpecial(id) && id != 0 {
						t.Errorf("%q: tokens are %q", text, tokensOf(tok, ids))
					}
				}
				checkOffsets(t, text, ids, offsets)
			}
		})
	}
}

func TestAddedTokenFlags(t *testing.T) {
	for name, c := range map[string]struct {
		token AddedToken
		text  string
		want  []string
	}{
		"plain":       {AddedToken{Content: "tah"}, "atah", []string{"▁a", "tah"}},
		"longest":     {AddedToken{Content: "</s>g"}, "</s>g</s>", []string{"</s>g", "</s>"}},
		"single word": {AddedToken{Content: "hat", SingleWord: true}, "hate <hat>", []string{"▁", "h", "a", "t", "e", "▁", "<0x3C>", "hat", "▁", "<0x3E>"}},
		"strips":      {AddedToken{Content: "X", LStrip: true, RStrip: true}, "a \tX  a", []string{"▁a", "X", "▁a"}},
		"normalized":  {AddedToken{Content: "ae", Normalized: true}, "n ae", []string{"▁", "n", "ae"}},
		"not inside":  {AddedToken{Content: "ae", Normalized: true}, "nae", []string{"▁", "n", "a", "e"}},
	} {
		t.Run(name, func(t *testing.T) {
			tok := spm(t)
			if _, err := tok.AddTokens(c.token); err != nil {
				t.Fatal(err)
			}
			ids, offsets := tok.EncodeOffsets(c.text, EncodeOptions{})
			if got := tokensOf(tok, ids); !slices.Equal(got, c.want) {
				t.Errorf("%q has the tokens %q, want %q", c.text, got, c.want)
			}
			checkOffsets(t, c.text, ids, offsets)
		})
	}
}

func TestAddTokens(t *testing.T) {
	tok := trained(t, TrainOptions{})
	size := tok.Size()
	before := tok.JSON()
	ids, err := tok.AddTokens(AddedToken{Content: "<tool>", Special: true}, AddedToken{Content: "<s>", Special: true}, AddedToken{Content: "<x>"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int32{int32(size), 0, int32(size + 1)}; !slices.Equal(ids, want) || tok.Size() != size+2 {
		t.Fatalf("ids are %d, want %d; the size is %d", ids, want, tok.Size())
	}
	const text = "<tool>the<x>"
	if got := tok.Encode(text, EncodeOptions{}); got[0] != ids[0] || got[len(got)-1] != ids[2] {
		t.Errorf("ids are %d", got)
	}
	if got := tok.Decode(tok.Encode(text, EncodeOptions{}), true); got != "the<x>" {
		t.Errorf("decoded to %q", got)
	}
	again, err := Parse(tok.JSON(), "again.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := again.Encode(text, EncodeOptions{}), tok.Encode(text, EncodeOptions{}); !slices.Equal(got, want) {
		t.Errorf("after reading it again ids are %d, want %d", got, want)
	}
	// Nothing else of the file has changed.
	a, b := string(before), string(tok.JSON())
	if i := strings.Index(a, `"normalizer"`); !strings.HasSuffix(b, a[i:]) {
		t.Error("the rest of the file has changed")
	}
	if _, err := tok.AddTokens(AddedToken{}); err == nil {
		t.Error("an empty token was added")
	}
}

func TestPostProcessors(t *testing.T) {
	whole := `"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
		"pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}`
	template := strings.TrimPrefix(whole, `"post_processor": `)
	for name, c := range map[string]struct {
		post string
		want []string
	}{
		"template": {template, []string{"<s>", "▁a"}},
		"roberta":  {`{"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": true, "add_prefix_space": false}`, []string{"<s>", "▁a", "</s>"}},
		"sequence": {`{"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}, ` + template + `,
			{"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<unk>", 0]}]}`, []string{"<unk>", "<s>", "▁a", "</s>"}},
		"none": {"null", []string{"▁a"}},
	} {
		t.Run(name, func(t *testing.T) {
			tok := spm(t, whole, `"post_processor": `+c.post)
			if got := tokensOf(tok, tok.Encode("a", EncodeOptions{AddSpecial: true})); !slices.Equal(got, c.want) {
				t.Errorf("tokens are %q, want %q", got, c.want)
			}
		})
	}
}

func TestLongInputs(t *testing.T) {
	const n = 1 << 18 // where time was quadratic, this would not end
	for name, tok := range map[string]*Tokenizer{"bytes": trained(t, TrainOptions{}), "sentencepiece": spm(t)} {
		for _, unit := range []string{"a", " ", "\n", "模", "ab1 ", "'", "</s", "\xf0", "▁"} {
			text := strings.Repeat(unit, n/len(unit))
			ids := tok.Encode(text, EncodeOptions{})
			if got := tok.Decode(ids, false); utf8.ValidString(text) && got != text && name == "bytes" {
				t.Errorf("%s: %d bytes of %q do not come back", name, n, unit)
			}
			if len(ids) < n/64 {
				t.Errorf("%s: %d bytes of %q have only %d tokens", name, n, unit, len(ids))
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	tok := trained(t, TrainOptions{})
	var want [][]int32
	for _, s := range texts {
		want = append(want, tok.Encode(s, EncodeOptions{}))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for round := range 50 {
				i := (g + round) % len(texts)
				if got := tok.Encode(texts[i], EncodeOptions{}); !slices.Equal(got, want[i]) {
					t.Errorf("%q: ids are %d, want %d", texts[i], got, want[i])
				}
				// Words nobody has seen keep the cache changing.
				tok.EncodeOffsets(fmt.Sprintf("w%dx%d", g, round), EncodeOptions{})
				tok.Decode(want[i], true)
			}
		})
	}
	wg.Wait()
}

func TestStream(t *testing.T) {
	for name, tok := range map[string]*Tokenizer{"bytes": trained(t, TrainOptions{}), "sentencepiece": spm(t)} {
		for _, s := range texts {
			ids := tok.Encode(s, EncodeOptions{AddSpecial: true})
			for cut := 0; cut <= len(ids); cut += 1 + len(ids)/5 {
				for _, skip := range []bool{true, false} {
					got := ""
					stream := tok.NewStream(skip)
					for _, id := range ids[cut:] {
						part := stream.Push(id)
						if !utf8.ValidString(part) {
							t.Errorf("%s: %q: part %q ends within a character", name, s, part)
						}
						got += part
					}
					got += stream.Flush()
					if want := tok.Decode(ids[cut:], skip); got != want {
						t.Errorf("%s: %q from token %d on: streamed %q, decoded %q", name, s, cut, got, want)
					}
				}
			}
		}
	}
}

// Text must not wait for longer than the character that it belongs to.
func TestStreamIsPrompt(t *testing.T) {
	tok := trained(t, TrainOptions{})
	stream := tok.NewStream(true)
	given := ""
	var bytes []byte
	for _, id := range tok.Encode(sample+"😀é", EncodeOptions{}) {
		given += stream.Push(id)
		bytes = append(bytes, tok.TokenBytes(id)...)
		if held := len(bytes) - len(given); held > 3 || utf8.Valid(bytes) && held != 0 {
			t.Fatalf("%d bytes are held back of %q", held, bytes)
		}
	}
	if rest := stream.Flush(); rest != "" {
		t.Errorf("Flush gives %q", rest)
	}
}

func TestDecoders(t *testing.T) {
	join := func(d decoder, tokens ...string) string {
		var b strings.Builder
		out := func(s string, _ bool) { b.WriteString(s) }
		state := d.start()
		for _, s := range tokens {
			state.push(s, true, out)
		}
		state.flush(out)
		return b.String()
	}
	for name, c := range map[string]struct {
		d    decoder
		in   []string
		want string
	}{
		"byte level":            {byteLevelDecoder{}, []string{"ä½", "ł", "<\u2581>", "ä"}, "你<\u2581>\ufffd"},
		"byte fallback":         {byteFallbackDecoder{}, []string{"<0xE4>", "<0xBD>", "<0xA0>", "a", "<0xE4>", "<0xBD>"}, "你a\ufffd\ufffd"},
		"byte fallback, others": {byteFallbackDecoder{}, []string{"<0xZZ>", "<0x4>", "<0x041>"}, "<0xZZ><0x4><0x041>"},
		"strip":                 {stripDecoder{" ", 1, 1}, []string{"  a  ", " b", "  ", " "}, " a b"},
		"metaspace":             {metaspaceDecoder{"▁", prependAlways}, []string{"▁a▁", "▁b"}, "a b"},
		"metaspace, never":      {metaspaceDecoder{"▁", prependNever}, []string{"▁a", "▁b"}, " a b"},
		"BPE":                   {bpeDecoder{"</w>"}, []string{"a", "b</w>", "c</w>"}, "ab c"},
		"WordPiece":             {wordPieceDecoder{"##", false}, []string{"##a", "##b", "c", ".", "##"}, "##ab c ."},
		"WordPiece, cleaned":    {wordPieceDecoder{"##", true}, []string{"do", "n't", "say", "##s", ".", "x ' y"}, "don't says. x'y"},
		"CTC":                   {ctcDecoder{"<pad>", "|", true}, []string{"<pad>", "h", "h", "<pad>", "h", "|", "|", "e", " ."}, "hh e."},
		"CTC, not cleaned":      {ctcDecoder{"-", "|", false}, []string{"a", "-", "a", "a", "|"}, "aa|"},
		"none":                  {joinDecoder{}, []string{"a", "b"}, "a b"},
	} {
		if got := join(c.d, c.in...); got != c.want {
			t.Errorf("%s: %q is decoded to %q, want %q", name, c.in, got, c.want)
		}
	}
}

func TestUnknownIDsAreLeftOut(t *testing.T) {
	tok := spm(t)
	if got := tok.Decode([]int32{-1, 269, 1 << 30, 270}, false); got != "the a" {
		t.Errorf("decoded to %q", got)
	}
	if tok.IsSpecial(-1) || tok.TokenBytes(-1) != nil {
		t.Error("-1 is a token")
	}
}

func TestUnknownCharacters(t *testing.T) {
	for name, c := range map[string]struct {
		changes []string
		want    []string
	}{
		"bytes": {nil, []string{"▁a", "<0xC3>", "<0x9F>", "<0xC3>", "<0x9F>", "▁a"}},
		"fused": {[]string{`"byte_fallback": true`, `"byte_fallback": false`}, []string{"▁a", "<unk>", "▁a"}},
		"each":  {[]string{`"byte_fallback": true`, `"byte_fallback": false`, `"fuse_unk": true`, `"fuse_unk": false`}, []string{"▁a", "<unk>", "<unk>", "▁a"}},
		"none":  {[]string{`"byte_fallback": true`, `"byte_fallback": false`, `"unk_token": "<unk>"`, `"unk_token": null`}, []string{"▁a", "▁a"}},
	} {
		tok := spm(t, c.changes...)
		ids, offsets := tok.EncodeOffsets("aßß a", EncodeOptions{})
		if got := tokensOf(tok, ids); !slices.Equal(got, c.want) {
			t.Errorf("%s: tokens are %q, want %q", name, got, c.want)
		}
		checkOffsets(t, "aßß a", ids, offsets)
	}
}

// A text is cut before marks only where no merge reaches over them.
func TestMarksWithinTokens(t *testing.T) {
	if !spm(t).model.(*bpe).marked {
		t.Error("the vocabulary can be cut before marks")
	}
	tok := spm(t, `"▁▁":`, `"e▁":275,"▁▁":`, `"▁ ▁"]`, `"▁ ▁", "e ▁"]`)
	if tok.model.(*bpe).marked {
		t.Fatal("the vocabulary can't be cut before marks")
	}
	if got, want := tokensOf(tok, tok.Encode("e e", EncodeOptions{})), []string{"▁", "e▁", "e"}; !slices.Equal(got, want) {
		t.Errorf("tokens are %q, want %q", got, want)
	}
}
