package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// pattern is what a Split pre-tokenizer, a Replace normalizer or decoder looks
// for: a literal string or a regular expression.
type pattern struct {
	literal string
	regex   *regex   // nil: literal
	fast    splitter // not nil: the same matches, found faster
}

// newRegex compiles an expression as the tokenizers library would, which takes
// Oniguruma's syntax (regexparse.go). What of it is not supported is an error
// that wraps ErrUnsupported.
func newRegex(expr string) (pattern, error) {
	re, err := compileRegex(expr)
	if err != nil {
		return pattern{}, fmt.Errorf("regular expression %q: %w (%w)", clip(expr), err, ErrUnsupported)
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
		p.regex.matches(s, found)
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
