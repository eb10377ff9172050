package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// wordPiece is the model WordPiece (Schuster and Nakajima, "Japanese and Korean
// Voice Search", 2012; wordpiece_tokenizer of google-research/bert): of a word
// the longest token that it begins with, then of what is left the longest that
// carries on, marked by a prefix. A word that doesn't come out even is unknown.
type wordPiece struct {
	vocabulary
	prefix  string
	begin   *byteTrie // of all tokens
	inside  *byteTrie // of those with the prefix, without it
	unk     int32
	longest int // characters; longer words are unknown
}

func newWordPiece(v vocabulary, unk, prefix string, longest int) (*wordPiece, error) {
	id, ok := v.ids[unk]
	if !ok {
		return nil, fmt.Errorf("model.unk_token: %q is not in the vocabulary", clip(unk))
	}
	m := &wordPiece{vocabulary: v, prefix: prefix, unk: id, longest: longest}
	number := func(i int) int32 { return int32(i) }
	m.begin = newByteTrie(v.tokens, number)
	inside := make([]string, len(v.tokens))
	for i, s := range v.tokens {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			inside[i] = rest
		}
	}
	m.inside = newByteTrie(inside, number)
	return m, nil
}

func (m *wordPiece) encode(out *sink, p piece) {
	if p.text == "" {
		return
	}
	ids, offsets := len(out.ids), len(out.offsets)
	if m.split(out, p) {
		return
	}
	out.ids, out.offsets = out.ids[:ids], out.offsets[:offsets]
	out.add(m.unk, p.span(0, len(p.text)))
}

// split appends the tokens of a word to out, or says that it is unknown.
func (m *wordPiece) split(out *sink, p piece) bool {
	s := p.text
	if len(s) > m.longest && utf8.RuneCountInString(s) > m.longest {
		return false
	}
	trie, prefix := m.begin, ""
	for i := 0; i < len(s); trie, prefix = m.inside, m.prefix {
		id, n := trie.longest(s[i:])
		// A control token may not come out of plain text: take a shorter one.
		for out.plainSpecial && n > 0 && out.special.has(id) {
			_, k := utf8.DecodeLastRuneInString(s[i : i+n])
			for n -= k; n > 0; n -= k {
				var ok bool
				if id, ok = m.ids[prefix+s[i:i+n]]; ok {
					break
				}
				_, k = utf8.DecodeLastRuneInString(s[i : i+n])
			}
		}
		if n <= 0 {
			return false
		}
		out.add(id, p.span(i, i+n))
		i += n
	}
	return true
}

// wordLevel is the model WordLevel: each word is a token, or unknown.
type wordLevel struct {
	vocabulary
	unk int32
}

func newWordLevel(v vocabulary, unk string) (*wordLevel, error) {
	id, ok := v.ids[unk]
	if !ok {
		return nil, fmt.Errorf("model.unk_token: %q is not in the vocabulary", clip(unk))
	}
	return &wordLevel{v, id}, nil
}

func (m *wordLevel) encode(out *sink, p piece) {
	if p.text == "" {
		return
	}
	id, ok := m.ids[p.text]
	if !ok || out.plainSpecial && out.special.has(id) {
		id = m.unk
	}
	out.add(id, p.span(0, len(p.text)))
}

// readWordPiece and readWordLevel read a model's fields.
func readWordPiece(fields map[string][]byte) (model, error) {
	unk, prefix, longest := "[UNK]", "##", 100
	for key, to := range map[string]any{"unk_token": &unk, "continuing_subword_prefix": &prefix, "max_input_chars_per_word": &longest} {
		if isNull(fields[key]) {
			continue
		}
		if err := decodeField(fields[key], "model."+key, to); err != nil {
			return nil, err
		}
	}
	if longest < 0 {
		return nil, fmt.Errorf("model.max_input_chars_per_word: is %d, expected at least 0", longest)
	}
	v, err := readVocab(fields["vocab"])
	if err != nil {
		return nil, err
	}
	return asModel(newWordPiece(v, unk, prefix, longest))
}

func readWordLevel(fields map[string][]byte) (model, error) {
	unk := "<unk>"
	if raw := fields["unk_token"]; !isNull(raw) {
		if err := decodeField(raw, "model.unk_token", &unk); err != nil {
			return nil, err
		}
	}
	v, err := readVocab(fields["vocab"])
	if err != nil {
		return nil, err
	}
	return asModel(newWordLevel(v, unk))
}

// asModel keeps a nil pointer from becoming a model that isn't nil.
func asModel[M model](m M, err error) (model, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// oldModelType says what a model is that an old file gives no type.
func oldModelType(fields map[string][]byte) string {
	has := func(keys string) bool {
		for key := range strings.FieldsSeq(keys) {
			if isNull(fields[key]) {
				return false
			}
		}
		return true
	}
	switch {
	case has("vocab merges"):
		return "BPE"
	case has("vocab unk_token continuing_subword_prefix max_input_chars_per_word"):
		return "WordPiece"
	case has("vocab unk_token"):
		return "WordLevel"
	case has("vocab unk_id"):
		return "Unigram"
	}
	return ""
}
