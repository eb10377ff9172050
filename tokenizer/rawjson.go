package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Files are kept as raw JSON so that what is not understood survives a load and
// a save, in its order and form. The functions here walk over raw JSON that is
// known to be well-formed (checkJSON); for the large vocabularies they also are
// several times as fast as decoding into maps by reflection.

// checkJSON says where in data well-formedness ends, if it does.
func checkJSON(data []byte) error {
	if json.Valid(data) {
		return nil
	}
	var v json.RawMessage
	err := json.Unmarshal(data, &v)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at := min(int(syntax.Offset), len(data))
		line := 1 + bytes.Count(data[:at], []byte{'\n'})
		return fmt.Errorf("line %d: %w", line, err)
	}
	return err
}

// kindOf names the type of a raw value.
func kindOf(raw []byte) string {
	raw = trimSpace(raw)
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

func isNull(raw []byte) bool { return len(raw) == 0 || kindOf(raw) == "null" }

func trimSpace(raw []byte) []byte { return bytes.TrimLeft(raw, " \t\r\n") }

// valueEnd returns the length of the value that raw begins with.
func valueEnd(raw []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
				if depth == 0 {
					return i + 1
				}
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return i // the end of a number that closes its parent
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return i
		}
	}
	return len(raw)
}

// eachElement calls f for the elements of an array. Its own error is that raw is
// none, and begins with at.
func eachElement(raw []byte, at string, f func(i int, value []byte) error) error {
	raw = trimSpace(raw)
	if len(raw) == 0 || raw[0] != '[' {
		return fmt.Errorf("%s: is of type %s, expected array", at, kindOf(raw))
	}
	raw = trimSpace(raw[1:])
	for i := 0; len(raw) > 0 && raw[0] != ']'; i++ {
		n := valueEnd(raw)
		if err := f(i, raw[:n]); err != nil {
			return err
		}
		if raw = trimSpace(raw[n:]); len(raw) > 0 && raw[0] == ',' {
			raw = trimSpace(raw[1:])
		}
	}
	return nil
}

// eachMember calls f for the members of an object, in their order. Its own error
// is that raw is none, and begins with at.
func eachMember(raw []byte, at string, f func(key string, value []byte) error) error {
	raw = trimSpace(raw)
	if len(raw) == 0 || raw[0] != '{' {
		return fmt.Errorf("%s: is of type %s, expected object", at, kindOf(raw))
	}
	raw = trimSpace(raw[1:])
	for len(raw) > 0 && raw[0] != '}' {
		n := valueEnd(raw)
		key, err := stringValue(raw[:n])
		if err != nil {
			return err
		}
		raw = trimSpace(raw[n:])
		raw = trimSpace(raw[1:]) // the colon
		n = valueEnd(raw)
		if err := f(key, raw[:n]); err != nil {
			return err
		}
		if raw = trimSpace(raw[n:]); len(raw) > 0 && raw[0] == ',' {
			raw = trimSpace(raw[1:])
		}
	}
	return nil
}

// stringValue returns what a raw string holds.
func stringValue(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", fmt.Errorf("is of type %s, expected string", kindOf(raw))
	}
	if in := raw[1 : len(raw)-1]; bytes.IndexByte(in, '\\') < 0 && utf8.Valid(in) {
		return string(in), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// object is a JSON object that keeps its members' order and raw values.
type object struct {
	keys   []string
	values map[string]json.RawMessage
}

func newObject() *object { return &object{values: map[string]json.RawMessage{}} }

// parseObject reads a file that holds one object.
func parseObject(data []byte) (*object, error) {
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	o := newObject()
	err := eachMember(data, "the file", func(key string, value []byte) error {
		if _, ok := o.values[key]; ok {
			return fmt.Errorf("%q occurs twice", clip(key))
		}
		o.setRaw(key, value)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (o *object) setRaw(key string, raw []byte) {
	if _, ok := o.values[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.values[key] = raw
}

// set stores a value at the place of the old one, or at the end.
func (o *object) set(key string, v any) {
	o.setRaw(key, marshal(v, "  "))
}

// setText stores a value given as JSON text, indented.
func (o *object) setText(key, text string) {
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(text), "  ", "  "); err != nil {
		panic("tokenizer: " + err.Error()) // text is written in this package
	}
	o.setRaw(key, b.Bytes())
}

// remove takes a member out.
func (o *object) remove(key string) {
	if _, ok := o.values[key]; !ok {
		return
	}
	delete(o.values, key)
	for i, k := range o.keys {
		if k == key {
			o.keys = append(o.keys[:i], o.keys[i+1:]...)
			return
		}
	}
}

// bytes writes the object with a member a line.
func (o *object) bytes() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range o.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  ")
		b.Write(marshal(k, ""))
		b.WriteString(": ")
		b.Write(o.values[k])
	}
	if len(o.keys) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// marshal is json.Marshal for values that can't fail, with lines indented below
// prefix, and characters such as < written as they are.
func marshal(v any, prefix string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent(prefix, "  ")
	if err := e.Encode(v); err != nil {
		panic("tokenizer: " + err.Error()) // only strings, numbers and structs of them
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}
