package tokenizer

import (
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
	v.raw, v.normalized = tokenMatcher{}, tokenMatcher{}
	v.spelled = map[int32]string{}
	for id, t := range v.tokens {
		switch {
		case !t.Normalized:
			v.raw.add(t.Content, id)
		case n == nil:
			v.normalized.add(t.Content, id)
		default:
			s := n.normalize(piece{text: t.Content, first: true}, false).text
			v.normalized.add(s, id)
			if s != t.Content {
				v.spelled[id] = s
			}
		}
	}
}

// A tokenMatcher finds the leftmost of a set of strings in a text, and among
// those that begin at one place the longest. It is a trie over bytes: a search
// costs the longest token's length a byte at worst, and one look-up a byte
// where no token begins.
type tokenMatcher struct {
	first [256]bool
	next  map[trieEdge]int32 // from node 0, the root
	ids   map[int32]int32    // node to token id
}

type trieEdge struct {
	node int32
	b    byte
}

func (m *tokenMatcher) add(s string, id int32) {
	if s == "" {
		return
	}
	if m.next == nil {
		m.next, m.ids = map[trieEdge]int32{}, map[int32]int32{}
	}
	m.first[s[0]] = true
	node := int32(0)
	for i := range len(s) {
		e := trieEdge{node, s[i]}
		to, ok := m.next[e]
		if !ok {
			to = int32(len(m.next) + 1)
			m.next[e] = to
		}
		node = to
	}
	// Two tokens of one spelling happen when a normalizer makes them so; the
	// lower id wins, so that the order of a map does not show.
	if old, ok := m.ids[node]; !ok || id < old {
		m.ids[node] = id
	}
}

// find returns the first token in s at or after from.
func (m *tokenMatcher) find(s string, from int) (start, end int, id int32, ok bool) {
	if m.next == nil {
		return 0, 0, 0, false
	}
	for i := from; i < len(s); i++ {
		if !m.first[s[i]] {
			continue
		}
		node := int32(0)
		for j := i; j < len(s); j++ {
			if node, ok = m.next[trieEdge{node, s[j]}]; !ok {
				break
			}
			if t, has := m.ids[node]; has {
				start, end, id = i, j+1, t
			}
		}
		if end > 0 {
			return start, end, id, true
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
			start = max(done, len(strings.TrimRightFunc(s[:start], unicode.IsSpace)))
		}
		if t.RStrip {
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
