package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A normalizer changes text before it is cut into words. With track it keeps
// the spans of what it changes.
type normalizer interface {
	normalize(p piece, track bool) piece
}

type normalizerSequence []normalizer

func (s normalizerSequence) normalize(p piece, track bool) piece {
	for _, n := range s {
		p = n.normalize(p, track)
	}
	return p
}

// prependNormalizer puts a mark before any text that isn't empty.
type prependNormalizer struct{ mark string }

func (n prependNormalizer) normalize(p piece, track bool) piece {
	if p.text == "" {
		return p
	}
	return prepend(p, n.mark, track)
}

func prepend(p piece, mark string, track bool) piece {
	if !track {
		p.text = mark + p.text
		return p
	}
	w := newRewriter(p, track)
	w.put(mark, 0, 0)
	w.keep(0, len(p.text))
	return w.done()
}

// replaceNormalizer writes content for each match of a pattern.
type replaceNormalizer struct {
	pattern pattern
	content string
}

func (n replaceNormalizer) normalize(p piece, track bool) piece {
	if !track && n.pattern.literal != "" {
		// The common case, a space for a mark, has a faster form.
		p.text = strings.ReplaceAll(p.text, n.pattern.literal, n.content)
		return p
	}
	w := newRewriter(p, track)
	n.pattern.segments(p.text, func(i, j int, match bool) {
		if match {
			w.put(n.content, i, j)
		} else {
			w.keep(i, j)
		}
	})
	return w.done()
}

// rewriteRunes writes for each character what change does of it: the character
// itself, another in its place, or with a negative one nothing.
func rewriteRunes(p piece, track bool, change func(r rune) rune) piece {
	w := newRewriter(p, track)
	kept := 0 // up to where the text has been written
	for i := 0; i < len(p.text); {
		r, n := utf8.DecodeRuneInString(p.text[i:])
		if to := change(r); to != r {
			w.keep(kept, i)
			if to >= 0 {
				w.put(string(to), i, i+n)
			}
			kept = i + n
		}
		i += n
	}
	if kept == 0 {
		return p
	}
	w.keep(kept, len(p.text))
	return w.done()
}

// lowercaseNormalizer maps each character by itself, without regard to its
// neighbours (no final sigma).
type lowercaseNormalizer struct{}

func (lowercaseNormalizer) normalize(p piece, track bool) piece {
	if !strings.Contains(p.text, "\u0130") {
		return rewriteRunes(p, track, toLower)
	}
	w := newRewriter(p, track)
	for i := 0; i < len(p.text); {
		r, n := utf8.DecodeRuneInString(p.text[i:])
		switch l := toLower(r); {
		case r == '\u0130': // the one character with a longer lower case
			w.put("i\u0307", i, i+n)
		case l != r:
			w.put(string(l), i, i+n)
		default:
			w.keep(i, i+n)
		}
		i += n
	}
	return w.done()
}

// nmtNormalizer is Nmt: control characters left out, and a space for what else
// is white space to sentencepiece's rule nmt_nfkc.
type nmtNormalizer struct{}

func (nmtNormalizer) normalize(p piece, track bool) piece {
	return rewriteRunes(p, track, func(r rune) rune {
		switch {
		case r >= 0x1 && r <= 0x8, r == 0xB, r >= 0xE && r <= 0x1F, r == 0x7F, r == 0x8F, r == 0x9F:
			return -1
		case r == '\t', r == '\n', r == '\f', r == '\r', r == 0x1680, r >= 0x200B && r <= 0x200F, r == 0x2028, r == 0x2029,
			r == 0x2581, r == 0xFEFF, r == 0xFFFD:
			return ' '
		}
		return r
	})
}

// stripNormalizer cuts white space off the ends.
type stripNormalizer struct{ left, right bool }

func (n stripNormalizer) normalize(p piece, track bool) piece {
	i, j := 0, len(p.text)
	if n.left {
		i = j - len(strings.TrimLeftFunc(p.text, unicode.IsSpace))
	}
	if n.right {
		j = i + len(strings.TrimRightFunc(p.text[i:], unicode.IsSpace))
	}
	q := p.sub(i, j)
	q.first = p.first
	return q
}

// stripAccentsNormalizer removes marks (\p{M}). It works on decomposed text.
type stripAccentsNormalizer struct{}

func (stripAccentsNormalizer) normalize(p piece, track bool) piece {
	accents := accentTable()
	return rewriteRunes(p, track, func(r rune) rune {
		if r >= utf8.RuneSelf && accents.of(r) != 0 {
			return -1
		}
		return r
	})
}

// byteLevelNormalizer spells the text in the byte alphabet.
type byteLevelNormalizer struct{}

func (byteLevelNormalizer) normalize(p piece, track bool) piece {
	if !track {
		p.text = toByteAlphabet(p.text)
		return p
	}
	w := newRewriter(p, track)
	for i := range len(p.text) {
		w.put(string(byteRune[p.text[i]]), i, i+1)
	}
	return w.done()
}
