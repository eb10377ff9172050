package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// The splitters ask one thing of a character: which of \p{L}, \p{N} and \s it
// is. The tokenizers library answers from Oniguruma's tables (Unicode 16); Go's
// own are Unicode 15.0, so what 15.1 and 16.0 added is listed below. \s is the
// property White_Space, which has not changed since Unicode 6.3.

// class is what the splitters know of a character.
type class uint8

const (
	classOther   class = 0
	classLetter  class = 1
	classNumber  class = 2
	classSpace   class = 4
	classNewline class = classSpace | 8 // \r or \n
)

// newLetters and newNumbers are the characters of \p{L} and \p{N} that came
// with Unicode 15.1 and 16.0.
var (
	newLetters = &unicode.RangeTable{
		R16: []unicode.Range16{
			{Lo: 0x1C89, Hi: 0x1C8A, Stride: 1},
			{Lo: 0xA7CB, Hi: 0xA7CD, Stride: 1},
			{Lo: 0xA7DA, Hi: 0xA7DC, Stride: 1},
		},
		R32: []unicode.Range32{
			{Lo: 0x105C0, Hi: 0x105F3, Stride: 1},
			{Lo: 0x10D4A, Hi: 0x10D65, Stride: 1},
			{Lo: 0x10D6F, Hi: 0x10D85, Stride: 1},
			{Lo: 0x10EC2, Hi: 0x10EC4, Stride: 1},
			{Lo: 0x11380, Hi: 0x11389, Stride: 1},
			{Lo: 0x1138B, Hi: 0x1138B, Stride: 1},
			{Lo: 0x1138E, Hi: 0x1138E, Stride: 1},
			{Lo: 0x11390, Hi: 0x113B5, Stride: 1},
			{Lo: 0x113B7, Hi: 0x113B7, Stride: 1},
			{Lo: 0x113D1, Hi: 0x113D1, Stride: 1},
			{Lo: 0x113D3, Hi: 0x113D3, Stride: 1},
			{Lo: 0x11BC0, Hi: 0x11BE0, Stride: 1},
			{Lo: 0x13460, Hi: 0x143FA, Stride: 1},
			{Lo: 0x16100, Hi: 0x1611D, Stride: 1},
			{Lo: 0x16D40, Hi: 0x16D6C, Stride: 1},
			{Lo: 0x18CFF, Hi: 0x18CFF, Stride: 1},
			{Lo: 0x1E5D0, Hi: 0x1E5ED, Stride: 1},
			{Lo: 0x1E5F0, Hi: 0x1E5F0, Stride: 1},
			{Lo: 0x2EBF0, Hi: 0x2EE5D, Stride: 1},
		},
	}
	newNumbers = &unicode.RangeTable{
		R32: []unicode.Range32{
			{Lo: 0x10D40, Hi: 0x10D49, Stride: 1},
			{Lo: 0x116D0, Hi: 0x116E3, Stride: 1},
			{Lo: 0x11BF0, Hi: 0x11BF9, Stride: 1},
			{Lo: 0x16130, Hi: 0x16139, Stride: 1},
			{Lo: 0x16D70, Hi: 0x16D79, Stride: 1},
			{Lo: 0x1CCF0, Hi: 0x1CCF9, Stride: 1},
			{Lo: 0x1E5F1, Hi: 0x1E5FA, Stride: 1},
		},
	}
)

// asciiClass is the class of every byte below utf8.RuneSelf.
var asciiClass = func() (t [utf8.RuneSelf]class) {
	for c := range t {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			t[c] = classLetter
		case c >= '0' && c <= '9':
			t[c] = classNumber
		case c == '\n' || c == '\r':
			t[c] = classNewline
		case c == ' ' || c >= '\t' && c <= '\r':
			t[c] = classSpace
		}
	}
	return t
}()

// classPages is the class of every character in two steps: the page of 256
// characters, then the character within it. Most pages are all of one class,
// so that equal ones share storage.
type classPages struct {
	page  [(unicode.MaxRune + 1) / 256]uint8
	pages [][256]class
}

var runeClasses = sync.OnceValue(func() *classPages {
	flat := make([]class, unicode.MaxRune+1)
	fill := func(c class, tables ...*unicode.RangeTable) {
		for _, t := range tables {
			for _, r := range t.R16 {
				for x := uint32(r.Lo); x <= uint32(r.Hi); x += uint32(r.Stride) {
					flat[x] = c
				}
			}
			for _, r := range t.R32 {
				for x := r.Lo; x <= r.Hi; x += r.Stride {
					flat[x] = c
				}
			}
		}
	}
	fill(classLetter, unicode.L, newLetters)
	fill(classNumber, unicode.N, newNumbers)
	fill(classSpace, unicode.White_Space)
	fill(classNewline, &unicode.RangeTable{R16: []unicode.Range16{{Lo: '\n', Hi: '\n', Stride: 1}, {Lo: '\r', Hi: '\r', Stride: 1}}})

	t := new(classPages)
	seen := map[[256]class]uint8{}
	for i := range t.page {
		block := [256]class(flat[i*256:])
		at, ok := seen[block]
		if !ok {
			at = uint8(len(t.pages))
			if int(at) != len(t.pages) {
				panic("tokenizer: more than 256 kinds of Unicode pages")
			}
			seen[block] = at
			t.pages = append(t.pages, block)
		}
		t.page[i] = at
	}
	return t
})

// of returns the class of r, which must not be above unicode.MaxRune.
func (t *classPages) of(r rune) class {
	return t.pages[t.page[uint32(r)>>8]][uint8(r)]
}

// at returns the class of the character that begins at s[i], and its length in
// bytes. A byte that is not UTF-8 is a character of no class.
func (t *classPages) at(s string, i int) (class, int) {
	if c := s[i]; c < utf8.RuneSelf {
		return asciiClass[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return t.of(r), n
}

// isWord says whether r is \w: letters, marks, decimal digits, connectors and
// what else is alphabetic or joins (Unicode Technical Standard 18, annex C).
func isWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.Is(newLetters, r) || unicode.In(r, unicode.M, unicode.Nd, unicode.Nl,
		unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}

// isPunctuation is \p{P} and the rest of ASCII's punctuation marks.
func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= '!' && r <= '/' || r >= ':' && r <= '@' || r >= '[' && r <= '`' || r >= '{' && r <= '~'
	}
	return unicode.IsPunct(r)
}

// isNumeric is \p{N}.
func isNumeric(r rune) bool { return unicode.IsNumber(r) || unicode.Is(newNumbers, r) }
