package tokenizer

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// spNormalizer changes text as sentencepiece does: by the model's rules, each
// at its longest match from left to right, with user-defined pieces left as they
// are; then spaces: a mark for each, one before the text, and if squeeze is set
// none at its ends or beside another. What is not UTF-8 becomes U+FFFD.
type spNormalizer struct {
	rules *charsMap
	user  *byteTrie

	dummy, squeeze, escape, suffix bool

	// first puts the mark only before what the text begins with, not after
	// control tokens, and not before a mark: transformers' legacy = false.
	first bool

	// plain says of an ASCII character that it stays as it is where another
	// ASCII character follows.
	plain [utf8.RuneSelf]bool
}

func newSPNormalizer(m *spModel) *spNormalizer {
	n := &spNormalizer{rules: m.rules, user: m.userDefined(), dummy: m.dummy, squeeze: m.squeeze, escape: m.escape, suffix: m.suffix}
	for b := range n.plain {
		n.plain[b] = b != ' ' && (n.rules == nil || n.rules.plain[b]) && (n.user == nil || n.user.step(trieRoot, byte(b)) < 0)
	}
	return n
}

// prefix returns what the beginning of s becomes, and its length.
func (n *spNormalizer) prefix(s string) (to string, length int) {
	if n.user != nil {
		if _, length := n.user.longest(s); length > 0 {
			return s[:length], length
		}
	}
	if n.rules != nil {
		if to, length, ok := n.rules.longest(s); ok {
			return to, length
		}
	}
	r, length := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && length == 1 {
		return string(utf8.RuneError), 1
	}
	return s[:length], length
}

// plainEnd returns the end of the characters from s[i] on that stay as they are.
func (n *spNormalizer) plainEnd(s string, i int) int {
	for i < len(s) {
		if s[i] < utf8.RuneSelf {
			if !n.plain[s[i]] || n.rules != nil && i+1 < len(s) && s[i+1] >= utf8.RuneSelf {
				return i
			}
			i++
			continue
		}
		if n.rules != nil || n.user != nil {
			return i
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return i
}

func (n *spNormalizer) normalize(p piece, track bool) piece {
	s, i := p.text, 0
	if n.squeeze {
		for i < len(s) {
			to, length := n.prefix(s[i:])
			if to != " " {
				break
			}
			i += length
		}
	}
	if i == len(s) {
		q := p.sub(len(s), len(s))
		q.first = p.first
		return q
	}
	mark := " "
	if n.escape {
		mark = spaceMark
	}
	w := newRewriter(p, track)
	if n.dummy && !n.suffix && (!n.first || p.first && !n.beginsWithMark(s[i:], mark)) {
		w.put(mark, i, i)
	}
	afterSpace := n.squeeze
	for i < len(s) {
		if end := n.plainEnd(s, i); end > i {
			w.keep(i, end)
			i, afterSpace = end, false
			continue
		}
		to, length := n.prefix(s[i:])
		for afterSpace && strings.HasPrefix(to, " ") {
			to = to[1:]
		}
		if to != "" {
			afterSpace = n.squeeze && strings.HasSuffix(to, " ")
			switch {
			case !n.escape:
			case to == " ":
				to = mark
			case strings.IndexByte(to, ' ') >= 0:
				to = strings.ReplaceAll(to, " ", mark)
			}
			if to == s[i:i+length] {
				w.keep(i, i+length)
			} else {
				w.put(to, i, i+length)
			}
		}
		i += length
	}
	if n.squeeze {
		for bytes.HasSuffix(w.text, []byte(mark)) {
			w.text = w.text[:len(w.text)-len(mark)]
			if track {
				w.spans = w.spans[:len(w.text)]
			}
		}
	}
	if n.dummy && n.suffix {
		w.put(mark, len(s), len(s))
	}
	return w.done()
}

func (n *spNormalizer) beginsWithMark(s, mark string) bool {
	to, _ := n.prefix(s)
	return strings.HasPrefix(to, " ") || strings.HasPrefix(to, mark)
}
