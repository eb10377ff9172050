package jinja

import (
	"sort"
	"unicode"
	"unicode/utf8"
)

// Mark says that the bytes [Start, End) of a string have an origin. Origins from 0 up are given by the caller of
// DataString and ParseJSON; the package itself uses only Generation.
type Mark struct {
	Start, End int
	Origin     int
}

// Generation is the origin of text printed inside a {% generation %} block.
const Generation = -1 << 31

// Str is a string: UTF-8 text with marks, sorted by Start. Marks of one origin never overlap; a Generation mark may
// overlap those of data.
type Str struct {
	Text  string
	marks []Mark
	safe  bool // HTML that was escaped or declared safe: adding an ordinary string to it escapes that string
}

// Marks lists the marks in order of their start. The caller must not change them.
func (s Str) Marks() []Mark { return s.marks }

// slice is the substring of bytes [i, j).
func (s Str) slice(i, j int) Str {
	if i >= j {
		return Str{}
	}
	out := Str{Text: s.Text[i:j]}
	for _, m := range s.marks {
		if m.Start >= j {
			break
		}
		if m.End > i {
			out.marks = append(out.marks, Mark{max(m.Start, i) - i, min(m.End, j) - i, m.Origin})
		}
	}
	return out
}

// isASCII tells whether positions in bytes are positions in code points.
func (s Str) isASCII() bool {
	for i := 0; i < len(s.Text); i++ {
		if s.Text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// length counts code points.
func (s Str) length() int { return utf8.RuneCountInString(s.Text) }

// offset is the byte position of code point n, or len(s.Text) past the end.
func (s Str) offset(n int) int {
	if n <= 0 {
		return 0
	}
	for i := range s.Text {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s.Text)
}

// derived is text computed from s by a function too irregular to follow byte by byte: if any byte of s is data, all
// of the result counts as data of the same origin.
func (s Str) derived(text string) Str {
	out := Str{Text: text}
	if text == "" {
		return out
	}
	for _, m := range s.marks {
		if m.Origin != Generation {
			out.marks = []Mark{{0, len(text), m.Origin}}
			break
		}
	}
	return out
}

// mapRunes replaces every code point by a string, marks following.
func (s Str) mapRunes(f func(i int, r rune) string) Str {
	var text []byte
	bounds := s.bounds()
	moved := make([]int, len(bounds))
	next := 0
	for i, r := range s.Text {
		for next < len(bounds) && bounds[next] <= i {
			moved[next] = len(text)
			next++
		}
		text = append(text, f(i, r)...)
	}
	for ; next < len(bounds); next++ {
		moved[next] = len(text)
	}
	out := Str{Text: string(text)}
	for _, m := range s.marks {
		start := moved[sort.SearchInts(bounds, m.Start)]
		end := moved[sort.SearchInts(bounds, m.End)]
		if start < end {
			out.marks = append(out.marks, Mark{start, end, m.Origin})
		}
	}
	return out
}

// bounds lists the starts and ends of the marks, sorted.
func (s Str) bounds() []int {
	var bounds []int
	for _, m := range s.marks {
		bounds = append(bounds, m.Start, m.End)
	}
	sort.Ints(bounds)
	return bounds
}

// builder concatenates strings, keeping their marks.
type builder struct {
	text  []byte
	marks []Mark
	limit int
}

func (b *builder) write(s Str) error {
	base := len(b.text)
	if base+len(s.Text) > b.limit {
		return errorf("a string of more than %d bytes exceeds the limit", b.limit)
	}
	b.text = append(b.text, s.Text...)
	for _, m := range s.marks {
		b.mark(base+m.Start, base+m.End, m.Origin)
	}
	return nil
}

// mark joins a mark to the last one where they touch: strings built piece by piece would otherwise collect marks.
func (b *builder) mark(start, end, origin int) {
	if start >= end {
		return
	}
	if n := len(b.marks); n > 0 && b.marks[n-1].Origin == origin && b.marks[n-1].End == start {
		b.marks[n-1].End = end
		return
	}
	b.marks = append(b.marks, Mark{start, end, origin})
}

func (b *builder) writeText(s string) error { return b.write(Str{Text: s}) }

func (b *builder) str() Str { return Str{Text: string(b.text), marks: b.marks} }

// concat joins two strings.
func (in *interp) concat(a, b Str) (Str, error) {
	if a.Text == "" {
		return b, nil
	}
	if b.Text == "" {
		return a, nil
	}
	if err := in.chargeBytes(len(a.Text) + len(b.Text)); err != nil {
		return Str{}, err
	}
	out := builder{limit: in.limits.Output}
	if err := out.write(a); err != nil {
		return Str{}, err
	}
	if err := out.write(b); err != nil {
		return Str{}, err
	}
	return out.str(), nil
}

// isSpace is Python's str.isspace of one code point: White_Space and the four ASCII separators.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

// isLineBreak tells the code points at which str.splitlines breaks.
func isLineBreak(r rune) bool {
	switch r {
	case '\n', '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
		return true
	}
	return false
}
