package tokenizer

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unigramJSON is a tokenizer.json with a Unigram model.
func unigramJSON(vocab string, more string) string {
	return `{"added_tokens": [{"id": 1, "content": "<s>", "special": true}], "decoder": {"type": "Fuse"},
		"model": {"type": "Unigram", "vocab": [` + vocab + `]` + more + `}}`
}

func TestUnigram(t *testing.T) {
	const vocab = `["<unk>", 0], ["<s>", 0], ["a", 0], ["b", 0], ["c", 0], ["d", 0], ["cd", 1], ["ab", 2], ["abc", 5], ["abcd", 10], ["<0x78>", 0]`
	plain := EncodeOptions{PlainSpecial: true}
	for _, c := range []struct {
		more, text string
		options    EncodeOptions
		want       []int32
	}{
		{`, "unk_id": 0`, "abcdacdxx", EncodeOptions{}, []int32{9, 2, 6, 0}}, // neighbouring unknown ones are one
		{`, "unk_id": 0`, "xax", EncodeOptions{}, []int32{0, 2, 0}},
		{`, "unk_id": 0, "byte_fallback": true`, "axx", EncodeOptions{}, []int32{2, 10, 10}},
		{`, "unk_id": 0, "byte_fallback": true`, "axy", EncodeOptions{}, []int32{2, 0}}, // all of its bytes or none
		{`, "unk_id": 0`, "a<s>", EncodeOptions{}, []int32{2, 1}},
		{`, "unk_id": 0`, "a<s>", plain, []int32{2, 0}}, // also not from the vocabulary
		{`, "unk_id": 0`, "<unk>", plain, []int32{0}},
		{`, "unk_id": null`, "axb", EncodeOptions{}, []int32{2, 3}},
		{`, "unk_id": 0`, "", EncodeOptions{}, nil},
		{`, "unk_id": 0`, "a\xffb", EncodeOptions{}, []int32{2, 0, 3}},
	} {
		tok, err := Parse([]byte(unigramJSON(vocab, c.more)), "x.json")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time from the cache
			if ids := tok.Encode(c.text, c.options); !slices.Equal(ids, c.want) {
				t.Errorf("%s: %q: ids are %d, want %d", c.more, c.text, ids, c.want)
			}
		}
	}
	for in, want := range map[string]string{
		unigramJSON(``, ``):                               "model.vocab: is empty",
		unigramJSON(`["a"]`, ``):                          "model.vocab[0]: expected [token, score]",
		unigramJSON(`["a", "b"]`, ``):                     "model.vocab[0]: score",
		unigramJSON(`["a", 1]`, `, "unk_id": 1`):          "model.unk_id: 1 is out of range",
		unigramJSON(`["a", 1]`, `, "unk_id": -1`):         "model.unk_id: -1 is out of range",
		unigramJSON(`["a", 1]`, `, "byte_fallback": "x"`): "model.byte_fallback: is of type string",
		`{"model": {"type": "Unigram"}}`:                  "model.vocab: missing",
	} {
		if _, err := Parse([]byte(in), "x.json"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
}

// TestUnigramBest compares with trying all ways to cut short texts.
func TestUnigramBest(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		scores := map[string]float64{}
		var vocab []string
		add := func(s string) {
			if _, ok := scores[s]; !ok {
				scores[s] = -float64(1 + r.IntN(1<<20)) // sums are exact, and hardly ever equal
				vocab = append(vocab, `["`+s+`", `+strconv.FormatFloat(scores[s], 'g', -1, 64)+`]`)
			}
		}
		add("?")
		for range 1 + r.IntN(8) {
			add(strings.Repeat("abé"[:1+r.IntN(2)], 1+r.IntN(3)))
			add([]string{"a", "b", "é", "ba", "éa", "aé"}[r.IntN(6)])
		}
		tok, err := Parse([]byte(`{"model": {"type": "Unigram", "unk_id": 0, "vocab": [`+strings.Join(vocab, ",")+`]}}`), "x.json")
		if err != nil {
			t.Fatal(err)
		}
		unknown := tok.model.(*unigram).unkScore
		var text []string
		for range 1 + r.IntN(9) {
			text = append(text, []string{"a", "b", "é", "a"}[r.IntN(4)])
		}
		best := math.Inf(-1)
		var walk func(i int, sum float64)
		walk = func(i int, sum float64) {
			if i == len(text) {
				best = max(best, sum)
				return
			}
			for j := i + 1; j <= len(text); j++ {
				if s, ok := scores[strings.Join(text[i:j], "")]; ok {
					walk(j, sum+s)
				}
			}
			if _, ok := scores[text[i]]; !ok {
				walk(i+1, sum+unknown)
			}
		}
		walk(0, 0)
		s := strings.Join(text, "")
		got := 0.0
		ids, offsets := tok.EncodeOffsets(s, EncodeOptions{})
		at := 0
		for i, o := range offsets {
			if o[0] != at {
				t.Fatalf("%q: a gap at %d", s, at)
			}
			at = o[1]
			if ids[i] == 0 {
				got += unknown * float64(len([]rune(s[o[0]:o[1]])))
			} else {
				got += scores[s[o[0]:o[1]]]
			}
		}
		if got != best || at != len(s) {
			t.Errorf("%q with %v: sum %g, best %g", s, vocab, got, best)
		}
	}
}

// TestRebase: in a text so long that sums pass 100,000, scores count as they do
// at its beginning.
func TestRebase(t *testing.T) {
	tok, err := ParseSentencepiece(smallModel(spTypeUnigram, func(m protoMessage) protoMessage {
		return m.piece("aab", -3.0009, pieceNormal).piece("aa", -1.5, pieceNormal).piece("bb", -3.4991, pieceNormal).bytes(3, protoMessage(nil).number(3, 0))
	}), "x.model")
	if err != nil {
		t.Fatal(err)
	}
	one := tok.Encode("aabb", EncodeOptions{})
	ids := tok.Encode(strings.Repeat("aabb", 100000), EncodeOptions{})
	if n := len(one); len(ids) != 100000*n || !slices.Equal(ids[:n], one) || !slices.Equal(ids[len(ids)-n:], one) {
		t.Errorf("%d at first, %d in the end", one, ids[len(ids)-4:])
	}
}
