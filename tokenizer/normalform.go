package tokenizer

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// formNormalizer brings text into a Unicode normalization form (UAX 15), as the
// crate unicode-normalization-alignments does. Package norm differs from it in
// two things: it knows newer characters, and of long runs of combining
// characters it makes the Stream-Safe Text Format.
type formNormalizer struct{ form norm.Form }

// formTable says of which characters a form does not know that they combine.
var formTable = sync.OnceValue(func() *runeTable { return newRuneTable(runeValue{parseRuneSet(unknownToForms), 1}) })

// maxMarks is how many characters that combine may follow one another before
// package norm is not asked: it bounds them at 30 after they are decomposed.
const maxMarks = 6

func (n formNormalizer) normalize(p piece, track bool) piece {
	if isASCII(p.text) || n.form.IsNormalString(p.text) {
		return p
	}
	w := newRewriter(p, track)
	unknown := formTable()
	from, marks, long := 0, 0, false
	for i := 0; i < len(p.text); {
		c := p.text[i]
		if c < utf8.RuneSelf {
			marks = 0
			i++
			continue
		}
		u, k := unknown.at(p.text, i)
		if u != 0 {
			n.part(w, from, i, long)
			w.keep(i, i+k)
			from, marks, long = i+k, 0, false
		} else if norm.NFD.PropertiesString(p.text[i:]).CCC() == 0 {
			marks = 0
		} else if marks++; marks > maxMarks {
			long = true
		}
		i += k
	}
	n.part(w, from, len(p.text), long)
	return w.done()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// part writes the normalized part [i, j) of w's text.
func (n formNormalizer) part(w *rewriter, i, j int, long bool) {
	s := w.in.text[i:j]
	switch {
	case i == j:
	case long:
		if t := n.normalizeLong(s); t == s {
			w.keep(i, j)
		} else {
			w.put(t, i, j)
		}
	case !w.track:
		w.text = n.form.AppendString(w.text, s)
	default:
		// Characters up to a boundary change together: each byte of the result
		// came from all of them, unless nothing changed.
		var it norm.Iter
		it.InitString(n.form, s)
		for !it.Done() {
			from := it.Pos()
			out := it.Next()
			to := it.Pos()
			if string(out) == s[from:to] {
				w.keep(i+from, i+to)
			} else {
				w.put(string(out), i+from, i+to)
			}
		}
	}
}

// normalizeLong normalizes text with runs of combining characters of any length.
func (n formNormalizer) normalizeLong(s string) string {
	decompose := norm.NFD
	if n.form == norm.NFKC || n.form == norm.NFKD {
		decompose = norm.NFKD
	}
	type char struct {
		r     rune
		class uint8
	}
	var chars []char
	for i := 0; i < len(s); {
		_, k := utf8.DecodeRuneInString(s[i:])
		if one := s[i : i+k]; utf8.ValidString(one) {
			for _, r := range decompose.String(one) {
				chars = append(chars, char{r, norm.NFD.PropertiesString(string(r)).CCC()})
			}
		} else {
			chars = append(chars, char{-1 - rune(s[i]), 0}) // the byte as it is
		}
		i += k
	}
	for i := 0; i < len(chars); {
		j := i + 1
		if chars[i].class != 0 {
			for j < len(chars) && chars[j].class != 0 {
				j++
			}
			slices.SortStableFunc(chars[i:j], func(a, b char) int { return int(a.class) - int(b.class) })
		}
		i = j
	}
	if n.form == norm.NFC || n.form == norm.NFKC {
		out := chars[:0]
		starter := -1 // the last character of class 0 in out
		for _, c := range chars {
			if starter >= 0 {
				last := out[len(out)-1]
				// Nothing of the same or a higher class may stand between.
				if open := starter == len(out)-1 || last.class != 0 && last.class < c.class; open {
					if r, ok := compose(out[starter].r, c.r); ok {
						out[starter].r = r
						continue
					}
				}
			}
			if c.class == 0 {
				starter = len(out)
			}
			out = append(out, c)
		}
		chars = out
	}
	var b strings.Builder
	for _, c := range chars {
		if c.r < 0 {
			b.WriteByte(byte(-1 - c.r))
		} else {
			b.WriteRune(c.r)
		}
	}
	return b.String()
}

// compose returns the character that a and b make.
func compose(a, b rune) (rune, bool) {
	if a < 0 || b < 0 {
		return 0, false
	}
	s := norm.NFC.String(string(a) + string(b))
	r, n := utf8.DecodeRuneInString(s)
	return r, n == len(s)
}
