package jinja

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind int

const (
	tokEOF      tokenKind = iota
	tokData               // text outside of tags
	tokVarBegin           // {{
	tokVarEnd             // }}
	tokTagBegin           // {%
	tokTagEnd             // %}
	tokName               // identifier or keyword
	tokString             // string literal, unescaped
	tokInteger            // digits as written
	tokFloat              // digits as written
	tokOperator           // one of operators
)

// maxSource bounds a template's source, in bytes.
const maxSource = 4 << 20

type token struct {
	kind tokenKind
	text string
	line int
}

func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "end of template"
	case tokData:
		return "text"
	case tokVarBegin, tokVarEnd, tokTagBegin, tokTagEnd, tokOperator:
		return "'" + t.text + "'"
	case tokString:
		return "string " + strconv.Quote(t.text)
	}
	return "'" + t.text + "'"
}

// operators, longer ones before their prefixes.
var operators = []string{
	"//", "**", "==", "!=", ">=", "<=",
	"+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";",
}

// lexer splits a template into tokens, applying whitespace control: trim_blocks drops a newline after a block tag
// or comment, lstrip_blocks drops the blanks before one that starts a line, and the signs - and + in a tag ask for
// more or less than that.
type lexer struct {
	src    string
	pos    int
	line   int
	tokens []token
}

func lex(src string) ([]token, error) {
	if len(src) > maxSource {
		return nil, errorf("a template of %d bytes exceeds the limit of %d", len(src), maxSource)
	}
	src = strings.ReplaceAll(strings.ReplaceAll(src, "\r\n", "\n"), "\r", "\n")
	l := &lexer{src: strings.TrimSuffix(src, "\n"), line: 1}
	for l.pos < len(l.src) {
		if err := l.text(); err != nil {
			return nil, at(err, l.line)
		}
	}
	l.emit(tokEOF, "")
	return l.tokens, nil
}

func (l *lexer) emit(kind tokenKind, text string) {
	l.tokens = append(l.tokens, token{kind, text, l.line})
}

// advance moves over n bytes, counting lines.
func (l *lexer) advance(n int) {
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

func (l *lexer) has(prefix string) bool { return strings.HasPrefix(l.src[l.pos:], prefix) }

// text reads up to the next tag, and the tag.
func (l *lexer) text() error {
	rest := l.src[l.pos:]
	i := tagStart(rest)
	if i < 0 {
		l.emit(tokData, rest)
		l.advance(len(rest))
		return nil
	}
	opening := rest[i : i+2]
	n := i + 2
	sign := byte(0)
	if n < len(rest) && (rest[n] == '-' || rest[n] == '+') {
		sign = rest[n]
		n++
	}
	lineStarts := l.pos == 0 || l.src[l.pos-1] == '\n'
	if data := stripBefore(rest[:i], sign, opening != "{{", lineStarts); data != "" {
		l.emit(tokData, data)
	}
	l.advance(n)
	switch opening {
	case "{#":
		return l.comment()
	case "{{":
		l.emit(tokVarBegin, "{{")
		return l.expression("}}", tokVarEnd)
	}
	if n, ok := rawTag(l.src[l.pos:], "raw"); ok {
		return l.raw(n)
	}
	l.emit(tokTagBegin, "{%")
	return l.expression("%}", tokTagEnd)
}

// tagStart finds the first opening of a tag.
func tagStart(s string) int {
	for i := 0; ; i++ {
		j := strings.IndexByte(s[i:], '{')
		if j < 0 || i+j+1 >= len(s) {
			return -1
		}
		i += j
		if c := s[i+1]; c == '%' || c == '{' || c == '#' {
			return i
		}
	}
}

// stripBefore applies the whitespace control of a tag to the text before it.
func stripBefore(data string, sign byte, block, lineStarts bool) string {
	if sign == '-' {
		return strings.TrimRightFunc(data, isSpace)
	}
	if sign == '+' || !block {
		return data
	}
	start := strings.LastIndexByte(data, '\n') + 1
	if (start > 0 || lineStarts) && strings.TrimLeftFunc(data[start:], isSpace) == "" {
		return data[:start]
	}
	return data
}

// close consumes a tag's end at the current position, with the whitespace that its sign or trim_blocks takes.
func (l *lexer) close(end string) bool {
	switch {
	case l.has("-" + end):
		l.advance(1 + len(end))
		rest := l.src[l.pos:]
		l.advance(len(rest) - len(strings.TrimLeftFunc(rest, isSpace)))
	case end != "}}" && l.has("+"+end):
		l.advance(1 + len(end))
	case l.has(end):
		l.advance(len(end))
		if end != "}}" && l.has("\n") {
			l.advance(1)
		}
	default:
		return false
	}
	return true
}

func (l *lexer) comment() error {
	i := strings.Index(l.src[l.pos:], "#}")
	if i < 0 {
		return errorf("comment without an end: expected '#}'")
	}
	if i > 0 && (l.src[l.pos+i-1] == '-' || l.src[l.pos+i-1] == '+') {
		i--
	}
	l.advance(i)
	l.close("#}")
	return nil
}

// rawTag matches what follows the "{%" and sign of a raw tag (or an endraw tag), up to its "%}" and its sign, and
// returns the length without them.
func rawTag(s, name string) (int, bool) {
	t := strings.TrimLeftFunc(s, isSpace)
	if !strings.HasPrefix(t, name) {
		return 0, false
	}
	t = strings.TrimLeftFunc(t[len(name):], isSpace)
	if strings.HasPrefix(t, "%}") || strings.HasPrefix(t, "-%}") || name == "endraw" && strings.HasPrefix(t, "+%}") {
		return len(s) - len(t), true
	}
	return 0, false
}

// raw reads the text up to {% endraw %} as it stands. n is the length of the rest of the opening tag.
func (l *lexer) raw(n int) error {
	opened := l.line
	l.advance(n)
	if l.has("%}") { // the newline after it is kept, unlike that after other block tags
		l.advance(2)
	} else {
		l.close("%}")
	}
	from := l.pos
	for i := from; ; {
		j := strings.Index(l.src[i:], "{%")
		if j < 0 {
			return at(errorf("raw block without an end: expected '{%% endraw %%}'"), opened)
		}
		i += j + 2
		end := i - 2
		sign := byte(0)
		if i < len(l.src) && (l.src[i] == '-' || l.src[i] == '+') {
			sign = l.src[i]
			i++
		}
		n, ok := rawTag(l.src[i:], "endraw")
		if !ok {
			continue
		}
		lineStarts := from == 0 || l.src[from-1] == '\n'
		if data := stripBefore(l.src[from:end], sign, true, lineStarts); data != "" {
			l.emit(tokData, data)
		}
		l.advance(i + n - l.pos)
		l.close("%}")
		return nil
	}
}

// expression reads the tokens inside a tag, and its end.
func (l *lexer) expression(end string, endKind tokenKind) error {
	var open []byte // brackets waiting to be closed
	opened := l.line
	for {
		rest := l.src[l.pos:]
		l.advance(len(rest) - len(strings.TrimLeftFunc(rest, isSpace)))
		rest = l.src[l.pos:]
		if rest == "" {
			return at(errorf("tag without an end: expected '%s'", end), opened)
		}
		if len(open) == 0 {
			line := l.line
			if l.close(end) {
				l.tokens = append(l.tokens, token{endKind, end, line})
				return nil
			}
		}
		switch r, _ := utf8.DecodeRuneInString(rest); {
		case r >= '0' && r <= '9':
			l.number(rest)
		case r == '_' || unicode.IsLetter(r):
			n := identifier(rest)
			l.emit(tokName, rest[:n])
			l.advance(n)
		case r == '\'' || r == '"':
			if err := l.stringLiteral(rest); err != nil {
				return err
			}
		default:
			op := operator(rest)
			if op == "" {
				return errorf("unexpected character %q", r)
			}
			var err error
			if open, err = balance(open, op[0]); err != nil {
				return err
			}
			l.emit(tokOperator, op)
			l.advance(len(op))
		}
	}
}

func operator(s string) string {
	for _, op := range operators {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

func balance(open []byte, c byte) ([]byte, error) {
	closing := map[byte]byte{'(': ')', '[': ']', '{': '}'}
	switch c {
	case '(', '[', '{':
		return append(open, closing[c]), nil
	case ')', ']', '}':
		if len(open) == 0 {
			return nil, errorf("unexpected '%c'", c)
		}
		if want := open[len(open)-1]; want != c {
			return nil, errorf("unexpected '%c', expected '%c'", c, want)
		}
		return open[:len(open)-1], nil
	}
	return open, nil
}

func identifier(s string) int {
	for i, r := range s {
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r) {
			return i
		}
	}
	return len(s)
}

// number reads an integer or float literal. The caller saw a digit.
func (l *lexer) number(s string) {
	n := digits(s, "0123456789")
	kind := tokInteger
	if !(l.pos > 0 && l.src[l.pos-1] == '.') {
		m := n
		if m+1 < len(s) && s[m] == '.' && s[m+1] >= '0' && s[m+1] <= '9' {
			m += 1 + digits(s[m+1:], "0123456789")
			kind = tokFloat
		}
		if m < len(s) && (s[m] == 'e' || s[m] == 'E') {
			e := m + 1
			if e < len(s) && (s[e] == '+' || s[e] == '-') {
				e++
			}
			if d := digits(s[e:], "0123456789"); d > 0 {
				m = e + d
				kind = tokFloat
			}
		}
		if kind == tokFloat {
			n = m
		}
	}
	if kind == tokInteger && s[0] == '0' {
		n = zeroLed(s)
	}
	l.emit(kind, strings.ReplaceAll(s[:n], "_", ""))
	l.advance(n)
}

// zeroLed measures an integer literal that starts with 0: 0x1f, 0o17, 0b1 or a run of zeros.
func zeroLed(s string) int {
	if len(s) > 2 {
		set := map[byte]string{'x': "0123456789abcdefABCDEF", 'o': "01234567", 'b': "01"}[s[1]|0x20]
		skip := 2
		if s[2] == '_' {
			skip = 3
		}
		if set != "" && len(s) > skip {
			if d := digits(s[skip:], set); d > 0 {
				return skip + d
			}
		}
	}
	return digits(s, "0")
}

// digits measures a run of the digits in set, with single underscores between them.
func digits(s, set string) int {
	n := 0
	for n < len(s) {
		if strings.IndexByte(set, s[n]) >= 0 || n > 0 && s[n] == '_' && n+1 < len(s) && strings.IndexByte(set, s[n+1]) >= 0 {
			n++
			continue
		}
		break
	}
	return n
}

func (l *lexer) stringLiteral(s string) error {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case s[0]:
			text, err := unescape(s[1:i])
			if err != nil {
				return err
			}
			l.emit(tokString, text)
			l.advance(i + 1)
			return nil
		}
	}
	return errorf("string without an end: expected %c", s[0])
}

// unescape resolves a string literal's escapes as Python does. Unknown ones stay as they are.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	simple := map[byte]string{
		'\n': "", '\\': `\`, '\'': `'`, '"': `"`, 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
	}
	hex := map[byte]int{'x': 2, 'u': 4, 'U': 8}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			out.WriteByte(s[i])
			continue
		}
		i++
		c := s[i]
		if text, ok := simple[c]; ok {
			out.WriteString(text)
			continue
		}
		if n := hex[c]; n > 0 {
			if i+n >= len(s) {
				return "", errorf(`truncated \%c escape in a string`, c)
			}
			code, err := strconv.ParseUint(s[i+1:i+1+n], 16, 32)
			if err != nil || code > unicode.MaxRune {
				return "", errorf(`invalid escape \%s in a string`, s[i:i+1+n])
			}
			out.WriteRune(rune(code))
			i += n
			continue
		}
		if c >= '0' && c <= '7' {
			n := 1
			for n < 3 && i+n < len(s) && s[i+n] >= '0' && s[i+n] <= '7' {
				n++
			}
			code, _ := strconv.ParseUint(s[i:i+n], 8, 32)
			out.WriteRune(rune(code))
			i += n - 1
			continue
		}
		if c == 'N' {
			return "", errorf(`\N{...} escapes are not supported; write the character itself`)
		}
		out.WriteByte('\\')
		out.WriteByte(c)
	}
	return out.String(), nil
}
