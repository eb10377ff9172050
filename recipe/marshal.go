package recipe

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Marshal writes a recipe with every key, in the order of the struct's fields:
// the resolved recipe, which Decode turns back into an equal value (with empty
// lists and maps as nil). v is a struct or a pointer to one. Numbers and
// strings are written so that YAML 1.1 readers such as PyYAML agree. An error
// means that a string is not UTF-8 or a number is NaN.
func Marshal(v any) ([]byte, error) {
	value := reflect.ValueOf(v)
	if value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	if value.Kind() != reflect.Struct {
		panic(fmt.Sprintf("recipe: Marshal of %T, want a struct", v))
	}
	e := &encoder{}
	e.block(schemaOf(value.Type()), value, 0, "")
	if e.err != nil {
		return nil, e.err
	}
	return e.buf.Bytes(), nil
}

type encoder struct {
	buf bytes.Buffer
	err error // the first
}

func (e *encoder) fail(path, format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("recipe: %s: %s", path, fmt.Sprintf(format, args...))
	}
}

// block writes a struct's keys, each line indented.
func (e *encoder) block(s *schema, v reflect.Value, indent int, path string) {
	for _, f := range s.fields {
		e.pair(f.key, f.schema, v.FieldByIndex(f.index), indent, join(path, f.key))
	}
}

// pair writes "key: value" with its line end.
func (e *encoder) pair(key string, s *schema, v reflect.Value, indent int, path string) {
	e.pad(indent)
	e.buf.WriteString(key)
	e.buf.WriteByte(':')
	s, v = deref(s, v)
	if inline(s, v) {
		e.buf.WriteByte(' ')
		e.buf.WriteString(e.flow(s, v, path))
		e.buf.WriteByte('\n')
		return
	}
	e.buf.WriteByte('\n')
	e.nested(s, v, indent+2, path)
}

// nested writes a value that takes lines of its own.
func (e *encoder) nested(s *schema, v reflect.Value, indent int, path string) {
	switch s.kind {
	case block:
		e.block(s, v, indent, path)
	case mapOf:
		for _, key := range sortedKeys(v) {
			e.pair(e.str(key, path), s.elem, v.MapIndex(reflect.ValueOf(key).Convert(s.typ.Key())), indent, join(path, key))
		}
	case listOf:
		for i := range v.Len() {
			at := fmt.Sprintf("%s[%d]", path, i)
			es, ev := deref(s.elem, v.Index(i))
			if inline(es, ev) {
				e.pad(indent)
				e.buf.WriteString("- " + e.flow(es, ev, at) + "\n")
				continue
			}
			start := e.buf.Len()
			e.nested(es, ev, indent+2, at)
			e.buf.Bytes()[start+indent] = '-' // in the place of the first line's indentation
		}
	}
}

func (e *encoder) pad(indent int) { e.buf.WriteString(strings.Repeat(" ", indent)) }

// deref follows a pointer that is not nil.
func deref(s *schema, v reflect.Value) (*schema, reflect.Value) {
	if s.kind == optional && !v.IsNil() {
		return s.elem, v.Elem()
	}
	return s, v
}

// inline says whether a value is written behind its key: scalars, what is
// empty, and lists of scalars.
func inline(s *schema, v reflect.Value) bool {
	switch s.kind {
	case block:
		return len(s.fields) == 0
	case mapOf:
		return v.Len() == 0
	case listOf:
		for i := range v.Len() {
			if es, ev := deref(s.elem, v.Index(i)); es.kind == block || es.kind == mapOf || !inline(es, ev) {
				return false
			}
		}
	}
	return true
}

// flow writes a value that inline allows.
func (e *encoder) flow(s *schema, v reflect.Value, path string) string {
	s, v = deref(s, v)
	switch s.kind {
	case optional:
		return "null"
	case block, mapOf:
		return "{}"
	case listOf:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = e.flow(s.elem, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case boolean:
		return strconv.FormatBool(v.Bool())
	case integer:
		return strconv.FormatInt(v.Int(), 10)
	case unsigned:
		return strconv.FormatUint(v.Uint(), 10)
	case number:
		if math.IsNaN(v.Float()) {
			e.fail(path, "NaN cannot stand in a recipe")
		}
		return formatFloat(v.Float(), s.typ.Bits())
	case duration:
		return formatDuration(time.Duration(v.Int()))
	case size:
		return Size(v.Int()).String()
	}
	return e.str(v.String(), path)
}

// formatFloat writes the shortest text that reads back the same, with the dot
// and the exponent's sign that YAML 1.1 wants.
func formatFloat(f float64, bits int) string {
	switch {
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	}
	format := byte('e')
	if a := math.Abs(f); a == 0 || a >= 1e-3 && a < 1e15 {
		format = 'f'
	}
	mantissa, exponent, hasExponent := strings.Cut(strconv.FormatFloat(f, format, -1, bits), "e")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	if !hasExponent {
		return mantissa
	}
	return mantissa + "e" + exponent[:1] + strings.TrimLeft(exponent[1:], "0")
}

// formatDuration is Duration.String without zero minutes and seconds at the end.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func sortedKeys(m reflect.Value) []string {
	var keys []string
	for _, k := range m.MapKeys() {
		keys = append(keys, k.String())
	}
	slices.Sort(keys)
	return keys
}

// str writes a string plain where no reader can take it for something else,
// and in double quotes otherwise.
func (e *encoder) str(s, path string) string {
	if !utf8.ValidString(s) {
		e.fail(path, "%q is not UTF-8", s)
	}
	if plainScalar(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case !unicode.IsPrint(r) && r <= 0xffff: // line separators, byte order marks, ...
			fmt.Fprintf(&b, `\u%04x`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// plainScalar is careful: it allows words, names and paths that no version of
// YAML reads as anything but a string.
func plainScalar(s string) bool {
	letters := false
	for i, r := range s {
		switch {
		case unicode.IsLetter(r) || r == '_':
			letters = true
		case r == '/' || r == '.':
		case i > 0 && (r >= '0' && r <= '9' || r == '-' || r == '+'):
		default:
			return false
		}
	}
	if !letters {
		return false
	}
	switch strings.ToLower(s) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n":
		return false
	}
	_, isFloat := parseFloat(s)
	return !isFloat
}
