package tokenizer

import (
	"encoding/json"
	"os"
	"strconv"
	"testing"
	"unicode"

	"ringtail/golden"

	"golang.org/x/text/unicode/norm"
)

// TestOracleUnicode compares what is done with every character with what the
// tokenizers library does (oracle/tokenizer_unicode.py).
func TestOracleUnicode(t *testing.T) {
	for _, path := range golden.Find(t, "unicode/tokenizers.json") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		decode := func(name string, v any) {
			if err := json.Unmarshal(want[name], v); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		set := func(ranges [][2]rune) runeSet {
			var list []runeRange
			for _, r := range ranges {
				list = append(list, runeRange{r[0], r[1]})
			}
			return newRuneSet(list)
		}

		var regexes map[string][][2]rune
		decode("regex", &regexes)
		for body, ranges := range regexes {
			n, err := parseRegex("[" + body + "]")
			if err != nil {
				t.Errorf("%s: %v", body, err)
				continue
			}
			compareSets(t, body, single(n).set.minus(runeSet{{0xD800, 0xDFFF}}), set(ranges))
		}
		for name, table := range map[string]*runeTable{
			"Digits": numericTable(), "Punctuation": punctuationTable(), "BertPreTokenizer": punctuationTable(), "Whitespace": wordTable(),
		} {
			var ranges [][2]rune
			decode(name, &ranges)
			compareSets(t, name, table.set(1), set(ranges))
		}
		for name, n := range map[string]normalizer{
			"Lowercase": lowercaseNormalizer{}, "StripAccents": stripAccentsNormalizer{}, "Nmt": nmtNormalizer{},
			"NFC": formNormalizer{norm.NFC}, "NFD": formNormalizer{norm.NFD}, "NFKC": formNormalizer{norm.NFKC}, "NFKD": formNormalizer{norm.NFKD},
			"BertNormalizer": bertNormalizer{true, true, true, true},
		} {
			var changes map[string]string
			decode(name, &changes)
			wrong := 0
			for r := rune(0); r <= unicode.MaxRune; r++ {
				if r >= 0xD800 && r < 0xE000 {
					continue
				}
				want, ok := changes[strconv.Itoa(int(r))]
				if !ok {
					want = string(r)
				}
				for _, track := range []bool{false, true} {
					if got := n.normalize(piece{text: string(r)}, track).text; got != want && wrong < 10 {
						t.Errorf("%s: %U becomes %+q, want %+q", name, r, got, want)
						wrong++
					}
				}
			}
		}
		var marks [][3]string
		decode("marks", &marks)
		for _, m := range marks {
			n := formNormalizer{normForms[m[0]]}
			for _, got := range []string{n.normalize(piece{text: m[1]}, false).text, n.normalize(piece{text: m[1]}, true).text, n.normalizeParts(m[1])} {
				if got != m[2] {
					t.Errorf("%s: %+q becomes %+q, want %+q", m[0], m[1], got, m[2])
				}
			}
		}
		var scripts []json.RawMessage
		decode("UnicodeScripts", &scripts)
		for _, raw := range scripts {
			var text string
			var want []string
			if err := json.Unmarshal(raw, &[]any{&text, &want}); err != nil {
				t.Fatal(err)
			}
			var got []piece
			scriptsPreTokenizer{}.split(piece{text: text}, false, func(p piece) { got = append(got, p) })
			if len(got) != len(want) {
				t.Errorf("UnicodeScripts: %d pieces, want %d", len(got), len(want))
			}
			for i := range min(len(got), len(want)) {
				if got[i].text != want[i] {
					t.Errorf("UnicodeScripts: piece %+q, want %+q", got[i].text, want[i])
					break
				}
			}
		}
	}
}

// normalizeParts normalizes by normalizeLong what normalize gives to package norm.
func (n formNormalizer) normalizeParts(s string) string {
	w := newRewriter(piece{text: s}, false)
	from := 0
	for i, r := range s {
		if formTable().of(r) != 0 {
			n.part(w, from, i, true)
			w.keep(i, i+len(string(r)))
			from = i + len(string(r))
		}
	}
	n.part(w, from, len(s), true)
	return w.done().text
}

// set returns the characters for which a table answers v.
func (t *runeTable) set(v uint8) runeSet {
	var list []runeRange
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if t.of(r) == v && (r < 0xD800 || r >= 0xE000) {
			list = append(list, runeRange{r, r})
		}
	}
	return newRuneSet(list)
}

func compareSets(t *testing.T, name string, got, want runeSet) {
	t.Helper()
	more, less := got.minus(want), want.minus(got)
	if len(more)+len(less) > 0 {
		t.Errorf("%s: has %X, lacks %X", name, more, less)
	}
}

func TestRuneSets(t *testing.T) {
	a, b := runeSet{{'a', 'f'}, {'x', 'z'}}, runeSet{{0, 'c'}, {'e', 'y'}}
	for name, c := range map[string]struct{ got, want runeSet }{
		"union":     {a.union(b), runeSet{{0, 'z'}}},
		"intersect": {a.intersect(b), runeSet{{'a', 'c'}, {'e', 'f'}, {'x', 'y'}}},
		"minus":     {a.minus(b), runeSet{{'d', 'd'}, {'z', 'z'}}},
		"negate":    {a.negate().negate(), a},
		"fold":      {runeSet{{'k', 'k'}}.fold(), runeSet{{'K', 'K'}, {'k', 'k'}, {0x212A, 0x212A}}},
	} {
		if compareSets(t, name, c.got, c.want); len(c.got) != len(c.want) {
			t.Errorf("%s: is %v", name, c.got)
		}
	}
	table := newRuneTable(runeValue{a, 1}, runeValue{runeSet{{'y', 0x10FFFF}}, 2})
	for r, want := range map[rune]uint8{'a': 1, 'g': 0, 'x': 1, 'y': 2, 0xFFFF: 2, unicode.MaxRune: 2, 0: 0} {
		if got := table.of(r); got != want || a.has(r) != (want == 1 || r == 'y') {
			t.Errorf("%q: %d, want %d", r, got, want)
		}
	}
}
