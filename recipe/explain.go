package recipe

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Explain prints every key with its default, type, range and help. The output
// is itself a recipe to start from: help stands in comments, and so do the
// blocks that are absent by default. prototype is a struct or a pointer to
// one; its non-zero fields are defaults, as for Decode.
func Explain(w io.Writer, prototype any) error {
	value := reflect.ValueOf(prototype)
	if value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	if value.Kind() != reflect.Struct {
		panic(fmt.Sprintf("recipe: Explain of %T, want a struct", prototype))
	}
	s := schemaOf(value.Type())
	e := &explainer{}
	e.block(s, withDefaults(s, value), "")
	_, err := io.WriteString(w, e.out.String())
	return err
}

// withDefaults is a value as an empty recipe gives it; keys that are required
// stay empty.
func withDefaults(s *schema, from reflect.Value) reflect.Value {
	v := reflect.New(s.typ).Elem()
	v.Set(from)
	(&decoder{}).block(s, nil, v, "")
	return v
}

type explainer struct{ out strings.Builder }

// width is where help text is broken.
const width = 88

// block prints a struct's keys. prefix begins each line: indentation, after
// "# " where the whole block is a comment.
func (e *explainer) block(s *schema, v reflect.Value, prefix string) {
	for i, f := range s.fields {
		big := f.isBig()
		if prefix == "" && i > 0 && (big || s.fields[i-1].isBig()) {
			e.out.WriteByte('\n')
		}
		e.field(f, v.FieldByIndex(f.index), prefix)
	}
}

// isBig says whether a key has keys below it.
func (f *field) isBig() bool {
	s := f.schema
	for s.elem != nil {
		s = s.elem
	}
	return s.kind == block
}

func (e *explainer) field(f *field, v reflect.Value, prefix string) {
	comment := prefix + "# "
	for _, line := range wrap(f.help, width-len(comment)) {
		e.out.WriteString(comment + line + "\n")
	}
	note := f.schema.typeName()
	if f.required {
		note += ", required"
	}
	if l := f.limits.String(); l != "" {
		note += ", " + l
	}
	s, v := deref(f.schema, v)
	switch {
	case s.kind == block:
		e.line(prefix, f.key+":", note)
		e.block(s, withDefaults(s, v), prefix+"  ") // a required block has none yet
	case !f.isBig():
		text := ""
		if !f.required || !v.IsZero() {
			text = " " + strings.TrimSpace(e.valueText(s, v))
		}
		e.line(prefix, f.key+":"+text, note)
	default:
		e.absentBlocks(f, s, v, prefix, note)
	}
}

// absentBlocks prints a list or map of blocks, or an optional block, with one
// example of the block as a comment.
func (e *explainer) absentBlocks(f *field, s *schema, v reflect.Value, prefix, note string) {
	inner, item := s, "  "
	for inner.kind != block {
		switch inner.kind {
		case listOf:
			item = "  - "
		case mapOf:
			item = "  NAME:"
		}
		inner = inner.elem
	}
	commented := prefix
	if !strings.HasPrefix(strings.TrimSpace(prefix), "#") {
		commented = prefix + "# "
	}
	e.line(commented, f.key+":", note)
	body := commented + "  "
	if item == "  NAME:" {
		e.out.WriteString(commented + item + "\n")
		body += "  "
	}
	start := e.out.Len()
	if item == "  - " {
		body += "  "
	}
	e.block(inner, withDefaults(inner, reflect.Zero(inner.typ)), body)
	if item == "  - " {
		e.dash(start, commented)
	}
}

// dash puts the "-" of a list's item before the first key printed since start.
func (e *explainer) dash(start int, commented string) {
	text := e.out.String()
	head, lines := text[:start], strings.SplitAfter(text[start:], "\n")
	for i, line := range lines {
		rest := strings.TrimPrefix(line, commented+"    ")
		if rest != line && !strings.HasPrefix(strings.TrimSpace(rest), "#") {
			lines[i] = commented + "  - " + rest
			break
		}
	}
	e.out.Reset()
	e.out.WriteString(head + strings.Join(lines, ""))
}

func (e *explainer) valueText(s *schema, v reflect.Value) string {
	enc := &encoder{}
	if inline(s, v) {
		return enc.flow(s, v, "")
	}
	// A map of scalars, the one leaf that takes lines: in braces it fits in one.
	var parts []string
	for _, key := range sortedKeys(v) {
		item := v.MapIndex(reflect.ValueOf(key).Convert(s.typ.Key()))
		parts = append(parts, enc.str(key, "")+": "+e.valueText(s.elem, item))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// line prints a key with its note, the notes in one column where they fit.
func (e *explainer) line(prefix, text, note string) {
	const column = 32
	line := prefix + text
	e.out.WriteString(line + strings.Repeat(" ", max(2, column-len([]rune(line)))) + "# " + note + "\n")
}

// wrap breaks a text at spaces into lines of at most n bytes.
func wrap(text string, n int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= n:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
