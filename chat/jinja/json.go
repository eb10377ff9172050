package jinja

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf16"
)

// maxJSONDepth bounds the nesting of JSON values.
const maxJSONDepth = 200

// ParseJSON reads a JSON value. Objects keep their order, integers stay integers, and every string, keys included,
// is marked with origin.
func ParseJSON(text []byte, origin int) (Value, error) {
	return decodeJSON(text, func(s string) Str { return DataString(s, origin) })
}

// ParseTrustedJSON is ParseJSON without marks, for values that the program itself wrote.
func ParseTrustedJSON(text []byte) (Value, error) {
	return decodeJSON(text, String)
}

func decodeJSON(text []byte, str func(string) Str) (Value, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	v, err := decodeValue(dec, str, 0)
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("JSON: more text after the value, at byte %d", dec.InputOffset())
	}
	return v, nil
}

func decodeValue(dec *json.Decoder, str func(string) Str, depth int) (Value, error) {
	if depth > maxJSONDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxJSONDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok := tok.(type) {
	case nil:
		return None{}, nil
	case bool:
		return Bool(tok), nil
	case string:
		return str(tok), nil
	case json.Number:
		return decodeNumber(string(tok))
	case json.Delim:
		if tok == '[' {
			return decodeArray(dec, str, depth)
		}
		return decodeObject(dec, str, depth)
	}
	return nil, fmt.Errorf("unexpected %v", tok)
}

func decodeArray(dec *json.Decoder, str func(string) Str, depth int) (Value, error) {
	list := &List{}
	for dec.More() {
		v, err := decodeValue(dec, str, depth+1)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, v)
	}
	_, err := dec.Token()
	return list, err
}

func decodeObject(dec *json.Decoder, str func(string) Str, depth int) (Value, error) {
	dict := NewDict()
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("object key %v is no string", tok)
		}
		v, err := decodeValue(dec, str, depth+1)
		if err != nil {
			return nil, err
		}
		dict.put("s"+key, str(key), v)
	}
	_, err := dec.Token()
	return dict, err
}

func decodeNumber(text string) (Value, error) {
	if !strings.ContainsAny(text, ".eE") {
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return Int(i), nil
		}
		if len(text) > maxBits/4 {
			return nil, fmt.Errorf("an integer of %d digits", len(text))
		}
		if i, ok := new(big.Int).SetString(text, 10); ok {
			return newInt(i)
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !math.IsInf(f, 0) {
		return nil, fmt.Errorf("number %.40q", text)
	}
	return Float(f), nil
}

// jsonWriter writes values as Python's json.dumps does.
type jsonWriter struct {
	in       *interp
	out      *builder
	ascii    bool // ensure_ascii
	sortKeys bool
	pretty   bool // indent is not None
	indent   Str
	itemSep  Str
	keySep   Str
	depth    int
}

func (w *jsonWriter) write(v Value) error {
	if err := w.in.enter(); err != nil {
		return err
	}
	defer w.in.leave()
	switch v := v.(type) {
	case None:
		return w.out.writeText("null")
	case Bool:
		return w.out.writeText(strconv.FormatBool(bool(v)))
	case Int, *Big:
		return w.in.repr(w.out, v)
	case Float:
		return w.out.writeText(jsonFloat(float64(v)))
	case Str:
		return w.str(v)
	case *List:
		return w.items(v.Items)
	case *Tuple:
		return w.items(v.Items)
	case *Dict:
		return w.dict(v)
	}
	return errorf("tojson: object of type %s is not JSON serializable", v.typeName())
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return formatFloat(f)
}

func (w *jsonWriter) str(s Str) error {
	if err := w.in.chargeBytes(len(s.Text)); err != nil {
		return err
	}
	return w.out.write(s.derived(jsonQuote(s.Text, w.ascii)))
}

func jsonQuote(s string, ascii bool) string {
	out := make([]byte, 0, len(s)+2)
	out = append(out, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r == '\n':
			out = append(out, `\n`...)
		case r == '\r':
			out = append(out, `\r`...)
		case r == '\t':
			out = append(out, `\t`...)
		case r == '\b':
			out = append(out, `\b`...)
		case r == '\f':
			out = append(out, `\f`...)
		case r < 0x20:
			out = fmt.Appendf(out, `\u%04x`, r)
		case !ascii || r < 0x7f:
			out = append(out, string(r)...)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		}
	}
	return string(append(out, '"'))
}

func (w *jsonWriter) newline() error {
	if !w.pretty {
		return nil
	}
	if err := w.out.writeText("\n"); err != nil {
		return err
	}
	for range w.depth {
		if err := w.out.write(w.indent); err != nil {
			return err
		}
	}
	return nil
}

func (w *jsonWriter) items(items []Value) error {
	if len(items) == 0 {
		return w.out.writeText("[]")
	}
	if err := w.out.writeText("["); err != nil {
		return err
	}
	w.depth++
	for i, item := range items {
		if err := w.between(i); err != nil {
			return err
		}
		if err := w.write(item); err != nil {
			return err
		}
	}
	w.depth--
	if err := w.newline(); err != nil {
		return err
	}
	return w.out.writeText("]")
}

func (w *jsonWriter) between(i int) error {
	if i > 0 {
		if err := w.out.write(w.itemSep); err != nil {
			return err
		}
	}
	return w.newline()
}

func (w *jsonWriter) dict(d *Dict) error {
	if len(d.entries) == 0 {
		return w.out.writeText("{}")
	}
	entries := d.entries
	if w.sortKeys {
		entries = append([]entry(nil), entries...)
		err := sortBy(entries, func(a, b entry) (bool, error) { return w.in.order("<", a.key, b.key) })
		if err != nil {
			return err
		}
	}
	if err := w.out.writeText("{"); err != nil {
		return err
	}
	w.depth++
	for i, e := range entries {
		if err := w.between(i); err != nil {
			return err
		}
		key, err := w.in.jsonKey(e.key)
		if err != nil {
			return err
		}
		if err := w.str(key); err != nil {
			return err
		}
		if err := w.out.write(w.keySep); err != nil {
			return err
		}
		if err := w.write(e.value); err != nil {
			return err
		}
	}
	w.depth--
	if err := w.newline(); err != nil {
		return err
	}
	return w.out.writeText("}")
}

// jsonKey turns a dict's key into the string that JSON needs.
func (in *interp) jsonKey(key Value) (Str, error) {
	switch k := key.(type) {
	case Str:
		return k, nil
	case None:
		return String("null"), nil
	case Bool:
		return String(strconv.FormatBool(bool(k))), nil
	case Float:
		return String(jsonFloat(float64(k))), nil
	case Int, *Big:
		return in.toStr(k)
	}
	return Str{}, errorf("tojson: keys must be str, int, float, bool or None, not %s", key.typeName())
}
