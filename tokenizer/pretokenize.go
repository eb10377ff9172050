package tokenizer

import (
	"strings"
	"sync"
)

// A preTokenizer cuts a piece into smaller ones, of which the model sees one at
// a time. It calls yield for each; empty ones may be among them.
type preTokenizer interface {
	split(p piece, track bool, yield func(piece))
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

func (s splitPreTokenizer) split(p piece, _ bool, yield func(piece)) {
	if s.pattern.literal != "" && !s.invert && !strings.Contains(p.text, s.pattern.literal) {
		yield(p)
		return
	}
	c := &cutter{p: p, behavior: s.behavior, yield: yield}
	if s.invert {
		s.pattern.segments(p.text, func(i, j int, match bool) { c.add(i, j, !match) })
	} else {
		s.pattern.segments(p.text, c.add)
	}
	c.flush()
}

// A cutter makes pieces of the segments of p, which add takes in their order.
type cutter struct {
	p        piece
	behavior behavior
	yield    func(piece)

	from, end         int // the piece that is being built
	started, previous bool
}

func (c *cutter) add(i, j int, match bool) {
	join := false
	switch c.behavior {
	case behaviorRemoved:
		if match {
			c.flush()
			c.from, c.end = j, j
			return
		}
	case behaviorMergedWithPrevious:
		join = match && !c.previous
	case behaviorMergedWithNext:
		join = !match && c.previous
	case behaviorContiguous:
		join = match == c.previous
	}
	if c.started && !join {
		c.flush()
	}
	c.end, c.started, c.previous = j, true, match
}

// flush gives out the piece that is being built.
func (c *cutter) flush() {
	if c.from < c.end {
		c.yield(c.p.sub(c.from, c.end))
	}
	c.from = c.end
}

// runePreTokenizer cuts at single characters, those for which is has no 0:
// Digits, Punctuation and WhitespaceSplit.
type runePreTokenizer struct {
	is       *runeTable
	behavior behavior
}

func (s runePreTokenizer) split(p piece, _ bool, yield func(piece)) {
	c := cutter{p: p, behavior: s.behavior, yield: yield}
	prev := 0
	for i := 0; i < len(p.text); {
		v, n := s.is.at(p.text, i)
		if v != 0 {
			if prev < i {
				c.add(prev, i, false)
			}
			c.add(i, i+n, true)
			prev = i + n
		}
		i += n
	}
	if prev < len(p.text) {
		c.add(prev, len(p.text), false)
	}
	c.flush()
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

func (whitespacePreTokenizer) split(p piece, _ bool, yield func(piece)) {
	t := whitespaceTable()
	from, kind := 0, uint8(whitespaceSpace)
	for i := 0; i <= len(p.text); {
		k, n := uint8(whitespaceSpace), 1
		if i < len(p.text) {
			k, n = t.at(p.text, i)
		}
		if k != kind {
			if kind != whitespaceSpace {
				yield(p.sub(from, i))
			}
			from, kind = i, k
		}
		i += n
	}
}

// prefixSpacePreTokenizer is the add_prefix_space of ByteLevel: a space before
// a piece that does not begin with one.
type prefixSpacePreTokenizer struct{}

func (prefixSpacePreTokenizer) split(p piece, track bool, yield func(piece)) {
	if p.text != "" && !strings.HasPrefix(p.text, " ") {
		p = prepend(p, " ", track)
	}
	yield(p)
}

// bytesPreTokenizer is the rest of ByteLevel: the text spelled in the byte
// alphabet. Where it comes last, the model works on bytes instead (bpe.go).
type bytesPreTokenizer struct{}

func (bytesPreTokenizer) split(p piece, track bool, yield func(piece)) {
	yield(byteLevelNormalizer{}.normalize(p, track))
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

func (s metaspacePreTokenizer) split(p piece, track bool, yield func(piece)) {
	p = replaceNormalizer{pattern: pattern{literal: " "}, content: s.mark}.normalize(p, track)
	if p.text != "" && !strings.HasPrefix(p.text, s.mark) && (s.prepend == prependAlways || s.prepend == prependFirst && p.first) {
		p = prepend(p, s.mark, track)
	}
	if !s.cut {
		yield(p)
		return
	}
	splitPreTokenizer{pattern: pattern{literal: s.mark}, behavior: behaviorMergedWithNext}.split(p, track, yield)
}
