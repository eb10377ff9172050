package data

import (
	"bytes"
	"io"
)

// listReader reads the values of a JSON list (or, with bare, values that simply
// follow one another) without parsing more than one of them: it finds where a
// value ends by counting brackets outside strings. What stands between the
// brackets is checked by whoever parses the value.
type listReader struct {
	*Reader
	bare    bool
	element int
	done    bool
	newline int // newlines passed so far
}

// next returns the next value. Values are bounded by the row limit; a larger
// one is passed over and reported.
func (l *listReader) next() (Record, error) {
	if l.done {
		return Record{}, io.EOF
	}
	c, err := l.skipSpace()
	switch {
	case err == io.EOF && (l.bare || l.element == 0):
		return l.end()
	case err == io.EOF:
		return l.fail("the list ends after element %d without its ]: the file was cut off", l.element)
	case err != nil:
		return l.failWith(err)
	}
	if !l.bare {
		switch {
		case l.element == 0:
			l.in.Discard(1) // the [ that the layout was told by
			if c, err = l.skipSpace(); err == nil && c == ']' {
				return l.close()
			}
		case c == ']':
			return l.close()
		case c == ',':
			l.in.Discard(1)
			c, err = l.skipSpace()
		default:
			return l.fail("expected , or ] after element %d, found %q", l.element, c)
		}
	}
	if err == io.EOF {
		return l.fail("the list ends after element %d without its ]: the file was cut off", l.element)
	}
	if err != nil {
		return l.failWith(err)
	}
	l.element++
	where := Location{File: l.name, Line: l.newline + 1, Element: l.element}
	value, size, err := l.value(c)
	l.line = l.newline
	switch {
	case err == io.EOF:
		return l.fail("the file ends inside element %d, which begins on line %d: it was cut off", l.element, where.Line)
	case err != nil:
		return l.failWith(err)
	case size == 0:
		return l.fail("expected a value as element %d, found %q", l.element, c)
	case size > l.limit:
		return Record{}, l.tooLarge(where)
	}
	if err := checkUTF8(value, where); err != nil {
		return Record{}, err
	}
	return Record{Where: where, JSON: bytes.Clone(value)}, nil
}

// end marks the end of the file.
func (l *listReader) end() (Record, error) {
	l.done = true
	return Record{}, io.EOF
}

// close passes the closing bracket and makes sure that nothing follows.
func (l *listReader) close() (Record, error) {
	l.in.Discard(1)
	c, err := l.skipSpace()
	if err == io.EOF {
		return l.end()
	}
	if err != nil {
		return l.failWith(err)
	}
	return l.fail("expected nothing after the list's ], found %q", c)
}

func (l *listReader) fail(format string, args ...any) (Record, error) {
	l.done = true
	return Record{}, l.fileErr("line %d: "+format, append([]any{l.newline + 1}, args...)...)
}

func (l *listReader) failWith(err error) (Record, error) {
	l.done = true
	l.line = l.newline
	return Record{}, l.readErr(err)
}

// skipSpace returns the next character that isn't white space, without taking
// it.
func (l *listReader) skipSpace() (byte, error) {
	for {
		c, err := l.in.ReadByte()
		if err != nil {
			return 0, err
		}
		switch c {
		case '\n':
			l.newline++
		case ' ', '\t', '\r':
		default:
			return c, l.in.UnreadByte()
		}
	}
}

// value takes one value that begins with c. size is its length; a value above
// the limit is read to its end but not kept. The slice is good until the next
// call. io.EOF means that the file ends inside the value.
func (l *listReader) value(c byte) (value []byte, size int, err error) {
	l.buf = l.buf[:0]
	scalar := c != '{' && c != '[' && c != '"'
	depth, quoted, escaped := 0, false, false
	for {
		c, err := l.in.ReadByte()
		if err == io.EOF && scalar {
			return l.buf, size, nil
		}
		if err != nil {
			return nil, size, err
		}
		if scalar && bytes.IndexByte([]byte(",]}[{ \t\r\n\""), c) >= 0 {
			return l.buf, size, l.in.UnreadByte()
		}
		size++
		if size <= l.limit {
			l.buf = append(l.buf, c)
		}
		switch {
		case c == '\n':
			l.newline++
			escaped = false
		case escaped:
			escaped = false
		case quoted:
			escaped = c == '\\'
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if !scalar && !quoted && depth <= 0 {
			return l.buf, size, nil
		}
	}
}
