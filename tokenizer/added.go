package tokenizer

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// AddedToken is a token that is cut out of the text before the model sees it,
// as one entry of added_tokens in tokenizer.json says.
type AddedToken struct {
	Content string
	// Special marks a control token: Decode can leave it out, and PlainSpecial
	// keeps it from being read in a text.
	Special bool
	// LStrip and RStrip take the white space before or after into the token.
	LStrip, RStrip bool
	// SingleWord matches only where no word character stands next to it.
	SingleWord bool
	// Normalized matches in the normalized text, not in the text as given.
	Normalized bool
}

// addedVocabulary holds the added tokens and finds them in text.
type addedVocabulary struct {
	tokens map[int32]AddedToken
	ids    map[string]int32

	raw, normalized tokenMatcher // for tokens with Normalized false and true

	// spelled is how normalized tokens stand in text where that differs from
	// their content; they are decoded to this.
	spelled map[int32]string
}

// build makes the matchers, n being the tokenizer's normalizer or nil.
func (v *addedVocabulary) build(n normalizer) {
	v.spelled = map[int32]string{}
	var raw, normalized []spelledToken
	// Two tokens of one spelling happen when a normalizer makes them so; the
	// lower id wins.
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(v.tokens))) {
		t := v.tokens[id]
		if !t.Normalized {
			raw = append(raw, spelledToken{t.Content, id})
			continue
		}
		s := t.Content
		if n != nil {
			s = n.normalize(piece{text: s, first: true}, false).text
		}
		normalized = append(normalized, spelledToken{s, id})
		if s != t.Content {
			v.spelled[id] = s
		}
	}
	v.raw, v.normalized = newTokenMatcher(raw), newTokenMatcher(normalized)
}

// A tokenMatcher finds the leftmost of a set of strings in a text, and among
// those that begin at one place the longest. A search costs the longest token's
// length a byte at worst, and one look-up a byte where no token begins.
type tokenMatcher struct {
	first [256]bool
	trie  *byteTrie // nil: no tokens
}

type spelledToken struct {
	text string
	id   int32
}

// newTokenMatcher makes a matcher; of tokens with the same text the last counts.
func newTokenMatcher(tokens []spelledToken) tokenMatcher {
	var m tokenMatcher
	texts := make([]string, len(tokens))
	for i, t := range tokens {
		texts[i] = t.text
		if t.text != "" {
			m.first[t.text[0]] = true
		}
	}
	if len(tokens) > 0 {
		m.trie = newByteTrie(texts, func(i int) int32 { return tokens[i].id })
	}
	return m
}

// find returns the first token in s at or after from.
func (m *tokenMatcher) find(s string, from int) (start, end int, id int32, ok bool) {
	if m.trie == nil {
		return 0, 0, 0, false
	}
	for i := from; i < len(s); i++ {
		if !m.first[s[i]] {
			continue
		}
		if id, n := m.trie.longest(s[i:]); n > 0 {
			return i, i + n, id, true
		}
	}
	return 0, 0, 0, false
}

// extract cuts p at the tokens that m finds. It calls text for what lies
// between them and token for each token with the part of p that it takes.
func (v *addedVocabulary) extract(m *tokenMatcher, p piece, plainSpecial bool, text func(piece), token func(id int32, at span)) {
	s := p.text
	done := 0 // up to where the text has been given away
	for from := 0; ; {
		start, end, id, ok := m.find(s, from)
		if !ok {
			break
		}
		from = end
		t := v.tokens[id]
		if t.Special && plainSpecial {
			continue
		}
		if t.SingleWord && (endsWithWord(s[:start]) || startsWithWord(s[end:])) {
			continue
		}
		if t.LStrip {
			// What the token before has taken is not looked at again: a run of
			// white space that holds many tokens would be gone over for each.
			start = max(done, min(done, start)+len(strings.TrimRightFunc(s[min(done, start):start], unicode.IsSpace)))
		}
		if t.RStrip {
			// Within the white space that RStrip gave to the token before, the
			// run is known to end where that ended.
			end = max(end, done)
			end = len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))
		}
		if done < start {
			text(p.sub(done, start))
		}
		// A token of white space may lie in what RStrip has given to the token
		// before. As in the tokenizers library it counts all the same, unless
		// LStrip leaves nothing of it.
		if start < end {
			token(id, p.span(min(max(start, done), end), end))
		}
		done = end
	}
	if done < len(s) {
		text(p.sub(done, len(s)))
	}
}

func endsWithWord(s string) bool {
	r, _ := utf8.DecodeLastRuneInString(s)
	return s != "" && isWord(r)
}

func startsWithWord(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return s != "" && isWord(r)
}
