package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The parts of BERT's tokenizer (BasicTokenizer of google-research/bert): its
// normalizer, and its pre-tokenizer.

// bertNormalizer is BertNormalizer.
type bertNormalizer struct {
	clean   bool // control characters left out, white space made spaces
	chinese bool // spaces around Chinese characters
	accents bool // accents left out
	lower   bool
}

// What BertNormalizer's clean_text leaves out, what it makes a space of, what is
// a Chinese character to it, and what an accent.
const (
	bertRemoved = 1 + iota
	bertSpace
	bertChinese
	bertAccent
)

var bertTable = sync.OnceValue(func() *runeTable {
	removed := tableSet(unicode.Cc, unicode.Cf, unicode.Co).minus(parseRuneSet(bertControlLacking)).union(runeSet{{utf8.RuneError, utf8.RuneError}})
	accents := tableSet(unicode.Mn).union(parseRuneSet(bertAccentsAdded)).minus(parseRuneSet(bertAccentsLacking))
	// U+2B820 to U+2B91F are missing in the library as well.
	chinese := runeSet{{0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xF900, 0xFAFF}, {0x20000, 0x2A6DF}, {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}}
	space := tableSet(unicode.White_Space).minus(runeSet{{'\v', '\f'}, {0x85, 0x85}}) // those are control characters, which go first
	return newRuneTable(runeValue{removed, bertRemoved}, runeValue{space, bertSpace}, runeValue{chinese, bertChinese}, runeValue{accents, bertAccent})
})

func (n bertNormalizer) normalize(p piece, track bool) piece {
	t := bertTable()
	if n.clean {
		p = rewriteRunes(p, track, func(r rune) rune {
			switch t.of(r) {
			case bertRemoved:
				return -1
			case bertSpace:
				return ' '
			}
			return r
		})
	}
	if n.chinese {
		p = n.spaceOut(p, track)
	}
	if n.accents {
		p = formNormalizer{norm.NFD}.normalize(p, track)
		p = rewriteRunes(p, track, func(r rune) rune {
			if t.of(r) == bertAccent {
				return -1
			}
			return r
		})
	}
	if n.lower {
		p = lowercaseNormalizer{}.normalize(p, track)
	}
	return p
}

// spaceOut puts spaces around Chinese characters.
func (n bertNormalizer) spaceOut(p piece, track bool) piece {
	t := bertTable()
	w := newRewriter(p, track)
	kept := 0
	for i := 0; i < len(p.text); {
		v, k := t.at(p.text, i)
		if v == bertChinese {
			w.keep(kept, i)
			w.put(" ", i, i)
			w.keep(i, i+k)
			w.put(" ", i+k, i+k)
			kept = i + k
		}
		i += k
	}
	if kept == 0 {
		return p
	}
	w.keep(kept, len(p.text))
	return w.done()
}

// bertPreTokenizer is BertPreTokenizer: words and single punctuation marks.
type bertPreTokenizer struct{}

func (bertPreTokenizer) split(p piece, _ bool, yield func(piece)) {
	const other, space, mark = 0, 1, 2
	punctuation := punctuationTable()
	from := 0 // the word that is open
	flush := func(i int) {
		if from < i {
			yield(p.sub(from, i))
		}
	}
	for i := 0; i < len(p.text); {
		v, n := punctuation.at(p.text, i)
		kind := other
		if v != 0 {
			kind = mark
		} else if r, _ := utf8.DecodeRuneInString(p.text[i:]); unicode.IsSpace(r) {
			kind = space
		}
		if kind != other {
			flush(i)
			from = i + n
			if kind == mark {
				yield(p.sub(i, i+n))
			}
		}
		i += n
	}
	flush(len(p.text))
}
