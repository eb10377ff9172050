package tokenizer

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// The splitters ask one thing of a character: which of \p{L}, \p{N} and \s it
// is, by the tables that regular expressions have.

// class is what the splitters know of a character.
type class = uint8

const (
	classOther   class = 0
	classLetter  class = 1
	classNumber  class = 2
	classSpace   class = 4
	classNewline class = classSpace | 8 // \r or \n
)

var runeClasses = sync.OnceValue(func() *runeTable {
	return newRuneTable(runeValue{category("L"), classLetter}, runeValue{category("N"), classNumber},
		runeValue{tableSet(unicode.White_Space), classSpace}, runeValue{runeSet{{'\n', '\n'}, {'\r', '\r'}}, classNewline})
})

// category returns a general category of Unicode 16, Lu or L for example.
func category(name string) runeSet {
	if s, ok := categories.Load(name); ok {
		return s.(runeSet)
	}
	s := newCategory(name)
	categories.Store(name, s)
	return s
}

var categories sync.Map // of runeSet, those asked for

func newCategory(name string) runeSet {
	s := tableSet(unicode.Categories[name])
	for n, added := range newInCategory {
		if n == name || n[:1] == name {
			s = s.union(parseRuneSet(added))
		}
	}
	switch name {
	case "LC":
		return category("Lu").union(category("Ll"), category("Lt"))
	case "Mn":
		return s.minus(runeSet{{0x1171E, 0x1171E}})
	case "Cn", "C":
		for _, added := range newInCategory {
			s = s.minus(parseRuneSet(added))
		}
	}
	return s
}

// script returns the characters of a script of Unicode 16.
func script(name string) runeSet {
	var s runeSet
	if t, ok := unicode.Scripts[name]; ok {
		s = tableSet(t)
	}
	return s.union(parseRuneSet(newInScript[name]))
}

// alphabetic is the property Alphabetic of Unicode 16.
var alphabetic = sync.OnceValue(func() runeSet {
	return tableSet(unicode.L, unicode.Nl, unicode.Other_Alphabetic).union(parseRuneSet(newAlphabetic))
})

// word is \w: letters, marks, decimal digits, connectors and what else is
// alphabetic (Unicode Technical Standard 18, annex C, less its joiners).
var word = sync.OnceValue(func() runeSet {
	return alphabetic().union(category("M"), category("Nd"), tableSet(unicode.Pc))
})

// bareWord is \w outside of brackets, where Oniguruma has Latin-1's superscripts
// and fractions in it.
func bareWord() runeSet { return word().union(runeSet{{0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}}) }

// properties are the names that \p{} knows besides those of scripts, written as
// propertyName makes them.
var properties = sync.OnceValue(func() map[string]func() runeSet {
	p := map[string]func() runeSet{
		"any":        func() runeSet { return runeSet{{0, unicode.MaxRune}} },
		"assigned":   func() runeSet { return category("Cn").negate() },
		"ascii":      func() runeSet { return runeSet{{0, unicode.MaxASCII}} },
		"alphabetic": alphabetic,
		"alpha":      alphabetic,
		"alnum":      func() runeSet { return alphabetic().union(category("Nd")) },
		"digit":      func() runeSet { return category("Nd") },
		"word":       word,
		"space":      func() runeSet { return tableSet(unicode.White_Space) },
		"whitespace": func() runeSet { return tableSet(unicode.White_Space) },
		"blank":      func() runeSet { return tableSet(unicode.Zs).union(runeSet{{'\t', '\t'}}) },
		"cntrl":      func() runeSet { return tableSet(unicode.Cc) },
		"punct":      func() runeSet { return category("P") },
		"lower":      func() runeSet { return category("Ll").union(tableSet(unicode.Other_Lowercase)) },
		"lowercase":  func() runeSet { return category("Ll").union(tableSet(unicode.Other_Lowercase)) },
		"upper":      func() runeSet { return category("Lu").union(tableSet(unicode.Other_Uppercase)) },
		"uppercase":  func() runeSet { return category("Lu").union(tableSet(unicode.Other_Uppercase)) },
		"xdigit":     func() runeSet { return runeSet{{'0', '9'}, {'A', 'F'}, {'a', 'f'}} },
		"graph": func() runeSet {
			return tableSet(unicode.White_Space).union(category("Cc"), category("Cn"), tableSet(unicode.Cs)).negate()
		},
		"print": func() runeSet {
			return tableSet(unicode.White_Space).union(category("Cc"), category("Cn"), tableSet(unicode.Cs)).
				minus(tableSet(unicode.Zs)).negate()
		},
	}
	for name := range unicode.Categories {
		p[strings.ToLower(name)] = func() runeSet { return category(name) }
	}
	for short, long := range map[string]string{
		"L": "letter", "LC": "casedletter", "Lu": "uppercaseletter", "Ll": "lowercaseletter", "Lt": "titlecaseletter", "Lm": "modifierletter",
		"Lo": "otherletter", "M": "mark", "Mn": "nonspacingmark", "Mc": "spacingmark", "Me": "enclosingmark", "N": "number",
		"Nd": "decimalnumber", "Nl": "letternumber", "No": "othernumber", "P": "punctuation", "Pc": "connectorpunctuation",
		"Pd": "dashpunctuation", "Ps": "openpunctuation", "Pe": "closepunctuation", "Pi": "initialpunctuation", "Pf": "finalpunctuation",
		"Po": "otherpunctuation", "S": "symbol", "Sm": "mathsymbol", "Sc": "currencysymbol", "Sk": "modifiersymbol", "So": "othersymbol",
		"Z": "separator", "Zs": "spaceseparator", "Zl": "lineseparator", "Zp": "paragraphseparator", "C": "other", "Cc": "control",
		"Cf": "format", "Cs": "surrogate", "Co": "privateuse", "Cn": "unassigned",
	} {
		p[long] = func() runeSet { return category(short) }
	}
	for name := range unicode.Scripts {
		p[propertyName(name)] = func() runeSet { return script(name) }
	}
	for name := range newInScript {
		p[propertyName(name)] = func() runeSet { return script(name) }
	}
	return p
})

// propertyName leaves out of a name what doesn't count in it.
func propertyName(s string) string {
	return strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(s))
}

// wordTable, punctuationTable and so on are characters as the parts of the
// tokenizers library that are no regular expressions take them.
var (
	wordTable        = sync.OnceValue(func() *runeTable { return newRuneTable(runeValue{rustWord(), 1}) })
	punctuationTable = sync.OnceValue(func() *runeTable {
		ascii := runeSet{{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}
		s := tableSet(unicode.P).union(ascii, parseRuneSet(punctuationAdded))
		return newRuneTable(runeValue{s.minus(parseRuneSet(punctuationLacking)), 1})
	})
	spaceTable   = sync.OnceValue(func() *runeTable { return newRuneTable(runeValue{spaceSet(), 1}) })
	numericTable = sync.OnceValue(func() *runeTable {
		return newRuneTable(runeValue{tableSet(unicode.N).union(parseRuneSet(newNumeric)), 1})
	})
	accentTable = sync.OnceValue(func() *runeTable {
		s := tableSet(unicode.M).union(parseRuneSet(accentsAdded))
		return newRuneTable(runeValue{s.minus(parseRuneSet(accentsLacking)), 1})
	})
)

// rustWord is \w of Rust's crate regex, which has joiners in it.
func rustWord() runeSet { return word().union(tableSet(unicode.Join_Control)) }

// isWord says whether r is \w.
func isWord(r rune) bool { return wordTable().of(r) != 0 }

// toLower returns the lower case of a character by itself, but for U+0130,
// which alone has two characters for it.
func toLower(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	for _, l := range lowerCases {
		if l.lo <= r && r <= l.hi {
			return r + l.by
		}
	}
	return unicode.ToLower(r)
}
