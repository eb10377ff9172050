package tokenizer

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// A preTokenizer cuts a piece into smaller ones, of which the model sees one at
// a time. It appends them to dst; empty ones may be among them.
type preTokenizer interface {
	split(dst []piece, p piece, track bool) []piece
}

// behavior is what becomes of the parts that a Split's pattern matches.
type behavior int

const (
	behaviorIsolated           behavior = iota // pieces of their own
	behaviorRemoved                            // left out
	behaviorMergedWithPrevious                 // joined to what stands before
	behaviorMergedWithNext                     // joined to what follows
	behaviorContiguous                         // neighbouring matches are one piece
)

var behaviors = map[string]behavior{
	"Isolated":           behaviorIsolated,
	"Removed":            behaviorRemoved,
	"MergedWithPrevious": behaviorMergedWithPrevious,
	"MergedWithNext":     behaviorMergedWithNext,
	"Contiguous":         behaviorContiguous,
}

// splitPreTokenizer is Split: it cuts where a pattern matches. With invert the
// parts that don't match count as matches, and the reverse.
type splitPreTokenizer struct {
	pattern  pattern
	behavior behavior
	invert   bool
}

// splitter returns the hand-written splitter that does all of s, or nil.
func (s splitPreTokenizer) splitter() splitter {
	if s.behavior != behaviorIsolated || s.invert {
		return nil
	}
	return s.pattern.fast
}

func (s splitPreTokenizer) split(dst []piece, p piece, _ bool) []piece {
	return cut(dst, p, s.behavior, func(yield func(i, j int, match bool)) {
		s.pattern.segments(p.text, func(i, j int, match bool) { yield(i, j, match != s.invert) })
	})
}

// cut appends the pieces of p that a behavior makes of its segments.
func cut(dst []piece, p piece, b behavior, segments func(yield func(i, j int, match bool))) []piece {
	switch b {
	case behaviorIsolated, behaviorRemoved:
		segments(func(i, j int, match bool) {
			if i < j && !(match && b == behaviorRemoved) {
				dst = append(dst, p.sub(i, j))
			}
		})
		return dst
	}
	// The others join neighbours: from is where the piece being built begins.
	from, end, started, previous := 0, 0, false, false
	flush := func() {
		if from < end {
			dst = append(dst, p.sub(from, end))
		}
		from = end
	}
	segments(func(i, j int, match bool) {
		join := false
		switch b {
		case behaviorMergedWithPrevious:
			join = match && !previous
		case behaviorMergedWithNext:
			join = !match && previous
		case behaviorContiguous:
			join = match == previous
		}
		if started && !join {
			flush()
		}
		end, started, previous = j, true, match
	})
	flush()
	return dst
}

// cutRunes is cut with single characters for matches.
func cutRunes(dst []piece, p piece, b behavior, is func(rune) bool) []piece {
	return cut(dst, p, b, func(yield func(i, j int, match bool)) {
		prev := 0
		for i := 0; i < len(p.text); {
			r, n := utf8.DecodeRuneInString(p.text[i:])
			if is(r) {
				if prev < i {
					yield(prev, i, false)
				}
				yield(i, i+n, true)
				prev = i + n
			}
			i += n
		}
		if prev < len(p.text) {
			yield(prev, len(p.text), false)
		}
	})
}

// runePreTokenizer cuts at characters: Digits, Punctuation, WhitespaceSplit and
// CharDelimiterSplit.
type runePreTokenizer struct {
	is       func(rune) bool
	behavior behavior
}

func (s runePreTokenizer) split(dst []piece, p piece, _ bool) []piece {
	return cutRunes(dst, p, s.behavior, s.is)
}

// whitespacePreTokenizer is Whitespace: \w+|[^\w\s]+, what lies between left out.
type whitespacePreTokenizer struct{}

// The kinds of characters that Whitespace tells apart.
const (
	whitespaceOther = iota
	whitespaceWord
	whitespaceSpace
)

var whitespaceTable = sync.OnceValue(func() *runeTable {
	return newRuneTable(runeValue{rustWord(), whitespaceWord}, runeValue{spaceSet(), whitespaceSpace})
})

func (whitespacePreTokenizer) split(dst []piece, p piece, _ bool) []piece {
	t := whitespaceTable()
	from, kind := 0, uint8(whitespaceSpace)
	for i := 0; i <= len(p.text); {
		k, n := uint8(whitespaceSpace), 1
		if i < len(p.text) {
			k, n = t.at(p.text, i)
		}
		if k != kind {
			if kind != whitespaceSpace {
				dst = append(dst, p.sub(from, i))
			}
			from, kind = i, k
		}
		i += n
	}
	return dst
}

// prefixSpacePreTokenizer is the add_prefix_space of ByteLevel: a space before
// a piece that does not begin with one.
type prefixSpacePreTokenizer struct{}

func (prefixSpacePreTokenizer) split(dst []piece, p piece, track bool) []piece {
	if p.text != "" && !strings.HasPrefix(p.text, " ") {
		p = prepend(p, " ", track)
	}
	return append(dst, p)
}

// bytesPreTokenizer is the rest of ByteLevel: the text spelled in the byte
// alphabet. Where it comes last, the model works on bytes instead (bpe.go).
type bytesPreTokenizer struct{}

func (bytesPreTokenizer) split(dst []piece, p piece, track bool) []piece {
	return append(dst, byteLevelNormalizer{}.normalize(p, track))
}

// prependScheme says which pieces Metaspace puts its mark before.
type prependScheme int

const (
	prependAlways prependScheme = iota
	prependFirst                // only the piece that the text begins with
	prependNever
)

var prependSchemes = map[string]prependScheme{"always": prependAlways, "first": prependFirst, "never": prependNever}

// metaspacePreTokenizer is Metaspace, sentencepiece's treatment of spaces: a
// mark (U+2581) for each, one before the text, and words that begin with it.
type metaspacePreTokenizer struct {
	mark    string
	prepend prependScheme
	cut     bool // false: the piece stays whole
}

func (s metaspacePreTokenizer) split(dst []piece, p piece, track bool) []piece {
	p = replaceNormalizer{pattern: pattern{literal: " "}, content: s.mark}.normalize(p, track)
	if p.text != "" && !strings.HasPrefix(p.text, s.mark) && (s.prepend == prependAlways || s.prepend == prependFirst && p.first) {
		p = prepend(p, s.mark, track)
	}
	if !s.cut {
		return append(dst, p)
	}
	return splitPreTokenizer{pattern: pattern{literal: s.mark}, behavior: behaviorMergedWithNext}.split(dst, p, track)
}
