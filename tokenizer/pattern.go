package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// pattern is what a Split pre-tokenizer, a Replace normalizer or decoder looks
// for: a literal string or a regular expression.
type pattern struct {
	literal string
	regex   *regexp2.Regexp // nil: literal
	fast    splitter        // not nil: the same matches, found faster
}

// maxBacktracks bounds the memory of a match: 8 bytes each. A text on which an
// expression needs more is not split from there on.
const maxBacktracks = 1 << 24

// newRegex compiles an expression as the tokenizers library would, which takes
// Oniguruma's syntax: ^ and $ stand for the ends of a line.
func newRegex(expr string) (pattern, error) {
	re, err := regexp2.Compile(expr, regexp2.Multiline, regexp2.OptionMaxBacktrackingStackSize(maxBacktracks))
	if err != nil {
		return pattern{}, fmt.Errorf("regular expression %q: %w (%w by this package's engine)", clip(expr), err, ErrUnsupported)
	}
	return pattern{regex: re, fast: splitters[expr]}, nil
}

// newLiteral matches a string as it stands. As in the tokenizers library the
// empty string matches between all characters.
func newLiteral(s string) (pattern, error) {
	if s == "" {
		return newRegex("")
	}
	return pattern{literal: s}, nil
}

// segments calls yield for consecutive parts s[start:end] that make up s, match
// saying which of them match. Those that match may be empty, others not.
func (p pattern) segments(s string, yield func(start, end int, match bool)) {
	prev := 0
	found := func(start, end int) {
		if prev < start {
			yield(prev, start, false)
		}
		yield(start, end, true)
		prev = end
	}
	switch {
	case p.fast != nil:
		t := runeClasses()
		for i := 0; i < len(s); {
			end := p.fast(t, s, i)
			found(i, end)
			i = end
		}
	case p.regex != nil:
		p.regexMatches(s, found)
	default:
		for {
			i := strings.Index(s[prev:], p.literal)
			if i < 0 {
				break
			}
			found(prev+i, prev+i+len(p.literal))
		}
	}
	if prev < len(s) {
		yield(prev, len(s), false)
	}
}

// regexMatches calls found for each match. The engine counts characters, which
// are turned into bytes here; it takes a byte that is not UTF-8 for U+FFFD.
func (p pattern) regexMatches(s string, found func(start, end int)) {
	runes := []rune(s)
	at, atByte := 0, 0 // the same place, in characters and bytes
	toByte := func(r int) int {
		for ; at < r; at++ {
			_, n := utf8.DecodeRuneInString(s[atByte:])
			atByte += n
		}
		return atByte
	}
	last := -1
	// The error is about memory for backtracking: what is left stays whole.
	_ = p.regex.FindRunesMatches(runes, -1, func(m regexp2.MatchView) bool {
		i, n, ok := m.GroupRange(0)
		if !ok || n == 0 && i == last {
			return true // Oniguruma finds nothing empty where a match just ended
		}
		start := toByte(i)
		found(start, toByte(i+n))
		last = i + n
		return true
	})
}

// clip shortens a text from a file so that it fits into an error's line.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
