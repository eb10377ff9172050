package tokenizer

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/dlclark/regexp2/v2"
)

// cutAll cuts s with a pattern's splitter.
func cutAll(pattern, s string) []string {
	var words []string
	for i := 0; i < len(s); {
		end := splitters[pattern](runeClasses(), s, i)
		words = append(words, s[i:end])
		i = end
	}
	return words
}

// newerThanGo says whether r has come to Unicode after the tables of package
// unicode, which regexp2 has.
func newerThanGo(r rune) bool { return newerRunes().has(r) }

var newerRunes = sync.OnceValue(func() runeSet { return tableSet(unicode.Cn).minus(category("Cn")) })

// cutRegex cuts s with the regular expression itself.
func cutRegex(tb testing.TB, re *regexp2.Regexp, s string) []string {
	tb.Helper()
	var words []string
	at := 0
	for _, m := range oracleMatches(re, s) {
		if m[0] != at {
			tb.Fatalf("%q: %q does not match at all", s, s[at:m[0]])
		}
		words = append(words, s[m[0]:m[1]])
		at = m[1]
	}
	return words
}

func TestSplitters(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          []string
	}{
		{PatternGPT2, "Hello world", []string{"Hello", " world"}},
		{PatternGPT2, "it's  I'LL 12345", []string{"it", "'s", " ", " I", "'", "LL", " 12345"}},
		{PatternGPT2, "a\n\n  b \n", []string{"a", "\n\n ", " b", " \n"}},
		{PatternGPT2, " 's -- don't", []string{" '", "s", " --", " don", "'t"}},
		{PatternLlama3, "I'LL say 12345", []string{"I", "'LL", " say", " ", "123", "45"}},
		{PatternLlama3, "it'\u017fabc", []string{"it", "'\u017f", "abc"}},
		{PatternLlama3, "x = [1];\r\n\r\n  y", []string{"x", " =", " [", "1", "];\r\n\r\n", " ", " y"}},
		{PatternLlama3, "  \n \t\n  z", []string{"  \n \t\n", " ", " z"}},
		{PatternLlama3, "\u3000\u4f60\u597d\u3002", []string{"\u3000\u4f60\u597d", "\u3002"}},
		{PatternLlama3, "\xff\xfea\x80", []string{"\xff\xfe", "a", "\x80"}},
		{PatternQwen2, "2026!\n", []string{"2", "0", "2", "6", "!\n"}},
		{PatternQwen2, "   ", []string{"   "}},
		{PatternQwen2, "", nil},
	} {
		if got := cutAll(c.pattern, c.text); !slices.Equal(got, c.want) {
			t.Errorf("%q is cut to %q, want %q", c.text, got, c.want)
		}
	}
}

// TestSplittersOnManyCharacters compares with the regular expressions around
// characters of all of Unicode, denser at the beginning, save those that Go's
// tables don't know yet.
func TestSplittersOnManyCharacters(t *testing.T) {
	var b strings.Builder
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r > 0x3000 {
			r += 30
		}
		if r >= 0xD800 && r < 0xE000 || newerThanGo(r) {
			continue
		}
		b.WriteString("'")
		b.WriteRune(r)
		b.WriteString(" ")
		b.WriteRune(r)
	}
	text := b.String()
	for expr := range splitters {
		want := cutRegex(t, regexp2.MustCompile(expr, regexp2.Multiline), text)
		got := cutAll(expr, text)
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("%s: word %d is %q, want %q", expr, i, got[i], want[i])
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d words, want %d", expr, len(got), len(want))
		}
	}
}

func TestNewCharactersHaveTheirClass(t *testing.T) {
	for r, want := range map[rune]class{
		'\U0002EBF0': classLetter, '\U00016D70': classNumber, '\u2028': classSpace, '\u00a0': classSpace,
		'\u200b': classOther, '\r': classNewline, '\u0301': classOther, '\u00bd': classNumber,
	} {
		if got := runeClasses().of(r); got != want {
			t.Errorf("%U has class %d, want %d", r, got, want)
		}
	}
}

func TestSplitBehaviors(t *testing.T) {
	literal, err := newLiteral("-")
	if err != nil {
		t.Fatal(err)
	}
	for b, want := range map[behavior][]string{
		behaviorIsolated:           {"-", "a", "-", "-", "b", "-"},
		behaviorRemoved:            {"a", "b"},
		behaviorMergedWithPrevious: {"-", "a-", "-", "b-"},
		behaviorMergedWithNext:     {"-a", "-", "-b", "-"},
		behaviorContiguous:         {"-", "a", "--", "b", "-"},
	} {
		var got []string
		splitPreTokenizer{pattern: literal, behavior: b}.split(piece{text: "-a--b-"}, false, func(p piece) { got = append(got, p.text) })
		if !slices.Equal(got, want) {
			t.Errorf("behavior %d gives %q, want %q", b, got, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		"", "Hello, world's  end", "\r\n \n x", " 's'T'\u017f'Re", "\u4f60\u597d 12\u0664\u0665 \u2460", "a\xffb\xe4\xbd c\xed\xa0\x80",
		"\t\t\u3000\u00a0x", "e\u0301'll\n\n\n;;\n",
	} {
		f.Add(s)
	}
	var res []*regexp2.Regexp
	var exprs []string
	for expr := range splitters {
		exprs = append(exprs, expr)
		res = append(res, regexp2.MustCompile(expr, regexp2.Multiline))
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range s {
			if newerThanGo(r) {
				t.Skip("Go's tables differ")
			}
		}
		for i, expr := range exprs {
			if got, want := cutAll(expr, s), cutRegex(t, res[i], s); !slices.Equal(got, want) {
				t.Errorf("%s: %q is cut to %q, want %q", expr, s, got, want)
			}
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	text := strings.Repeat("The quick brown fox's 12345 jumps;\n  over \u4f60\u597d\u4e16\u754c. ", 1000)
	for name, expr := range map[string]string{"gpt2": PatternGPT2, "llama3": PatternLlama3} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			classes, cut := runeClasses(), splitters[expr]
			for b.Loop() {
				for i := 0; i < len(text); {
					i = cut(classes, text, i)
				}
			}
		})
	}
}
