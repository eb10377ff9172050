package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
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

// formNormalizer brings text into a Unicode normalization form (UAX 15).
type formNormalizer struct{ form norm.Form }

func (n formNormalizer) normalize(p piece, track bool) piece {
	if n.form.IsNormalString(p.text) {
		return p
	}
	if !track {
		p.text = n.form.String(p.text)
		return p
	}
	// Characters up to a boundary change together: each byte of the result
	// came from all of them, unless nothing changed.
	w := newRewriter(p, track)
	var it norm.Iter
	it.InitString(n.form, p.text)
	for !it.Done() {
		from := it.Pos()
		out := it.Next()
		to := it.Pos()
		if string(out) == p.text[from:to] {
			w.keep(from, to)
		} else {
			w.put(string(out), from, to)
		}
	}
	return w.done()
}

// lowercaseNormalizer maps each character by itself, without regard to its
// neighbours (no final sigma).
type lowercaseNormalizer struct{}

func (lowercaseNormalizer) normalize(p piece, track bool) piece {
	w := newRewriter(p, track)
	for i := 0; i < len(p.text); {
		r, n := utf8.DecodeRuneInString(p.text[i:])
		switch l := unicode.ToLower(r); {
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
	w := newRewriter(p, track)
	for i := 0; i < len(p.text); {
		r, n := utf8.DecodeRuneInString(p.text[i:])
		if !unicode.Is(unicode.M, r) {
			w.keep(i, i+n)
		}
		i += n
	}
	return w.done()
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
