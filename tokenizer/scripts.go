package tokenizer

import (
	"maps"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"
)

// scriptsPreTokenizer is UnicodeScripts: it cuts where the script changes, as
// sentencepiece does in training. A space and what has no script go with what
// stands before them; before the first character with a script they are lost.
type scriptsPreTokenizer struct{}

// scriptTable numbers the scripts from 1. Japanese is one of them, Han.
var scriptTable = sync.OnceValue(func() *runeTable {
	const none = 0
	var values []runeValue
	number := map[string]uint8{}
	for i, name := range slices.Sorted(maps.Keys(unicode.Scripts)) {
		number[name] = uint8(i + 1)
	}
	number["Hiragana"], number["Katakana"] = number["Han"], number["Han"]
	for name, t := range unicode.Scripts {
		values = append(values, runeValue{tableSet(t), number[name]})
	}
	return newRuneTable(append(values,
		runeValue{runeSet{{0x589, 0x589}, {0x61C, 0x61C}}, number["Common"]}, // as Unicode once had them
		runeValue{runeSet{{0x953, 0x954}}, number["Devanagari"]},
		runeValue{runeSet{{0x30FC, 0x30FC}}, number["Han"]}, // the mark of long vowels
		runeValue{parseRuneSet(unknownToScripts), none},
		runeValue{runeSet{{' ', ' '}}, none})...)
})

func (scriptsPreTokenizer) split(p piece, _ bool, yield func(piece)) {
	t := scriptTable()
	from, script := -1, uint8(0)
	for i := 0; i < len(p.text); {
		v, n := t.at(p.text, i)
		if v != 0 && v != script {
			if from >= 0 {
				yield(p.sub(from, i))
			}
			from, script = i, v
		}
		i += n
	}
	if from >= 0 {
		yield(p.sub(from, len(p.text)))
	}
}

// fixedLengthPreTokenizer is FixedLength: pieces of so many characters.
type fixedLengthPreTokenizer struct{ length int }

func (s fixedLengthPreTokenizer) split(p piece, _ bool, yield func(piece)) {
	for from := 0; from < len(p.text); {
		end := from
		for k := 0; k < s.length && end < len(p.text); k++ {
			_, n := utf8.DecodeRuneInString(p.text[end:])
			end += n
		}
		yield(p.sub(from, end))
		from = end
	}
}
