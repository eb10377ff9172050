package recipe

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// decoder fills Go values from nodes and collects what is wrong.
type decoder struct {
	name string  // of the recipe
	root *schema // to look for misplaced keys; nil for a default
	errs []string
}

// fail notes a problem. n gives the place; key is the dotted path.
func (d *decoder) fail(n *node, key, format string, args ...any) {
	d.failAt(n.line, n.set, key, fmt.Sprintf(format, args...))
}

func (d *decoder) failAt(line int, set, key, msg string) {
	place := d.name
	switch {
	case set != "":
		place = "--set " + set
	case line > 0:
		place = fmt.Sprintf("%s:%d", d.name, line)
	}
	if key != "" {
		msg = key + ": " + msg
	}
	d.errs = append(d.errs, place+": "+msg)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// block fills a struct. n nil stands for a block that is absent as a whole.
func (d *decoder) block(s *schema, n *node, v reflect.Value, path string) {
	switch {
	case n == nil:
		n = &node{kind: mapping}
	case n.kind == null: // every key of the block is commented out
		n = &node{kind: mapping, line: n.line, set: n.set}
	case n.kind != mapping && s.shorthand != nil:
		short := &node{kind: mapping, line: n.line, set: n.set}
		short.put(s.shorthand.key, n.line, n)
		n = short
	case n.kind != mapping:
		d.fail(n, path, "got %s, want %s", n.describe(), s.expected())
		return
	}
	for _, key := range n.keys {
		if s.field(key) == nil {
			d.unknown(s, n, key, path)
		}
	}
	for _, f := range s.fields {
		d.field(f, n, v.FieldByIndex(f.index), join(path, f.key))
	}
}

func (d *decoder) field(f *field, parent *node, v reflect.Value, path string) {
	n := parent.fields[f.key]
	if n == nil {
		d.absent(f, parent, v, path)
		return
	}
	if f.required && n.empty() {
		d.fail(n, path, "is required and must not be empty")
		return
	}
	def := f.defaultValue(v)
	before := len(d.errs)
	if !f.schema.isBlock() {
		v.SetZero() // of the caller's default only a block's other keys stay
	}
	if word, ok := f.limits.also[n.text]; ok && n.kind == scalar {
		meant := *n
		meant.text = word
		n = &meant
	}
	d.value(f.schema, n, v, path)
	if len(d.errs) > before {
		return
	}
	if !f.required && equal(v, def) {
		return
	}
	d.check(f.schema, n, v, path, f.limits)
}

// defaultValue is what v would be if the key were absent.
func (f *field) defaultValue(v reflect.Value) reflect.Value {
	def := reflect.New(f.schema.typ).Elem()
	switch {
	case f.schema.kind == block:
	case !v.IsZero():
		def.Set(v)
	case f.def != nil:
		(&decoder{}).value(f.schema, f.def, def, "")
	}
	return def
}

func equal(a, b reflect.Value) bool { return reflect.DeepEqual(a.Interface(), b.Interface()) }

// isBlock says whether s is a block, optional or not.
func (s *schema) isBlock() bool {
	return s.kind == block || s.kind == optional && s.elem.kind == block
}

func (n *node) empty() bool {
	switch n.kind {
	case null:
		return true
	case scalar:
		return n.text == ""
	case list:
		return len(n.items) == 0
	}
	return false
}

// absent gives a field that the recipe does not mention its default.
func (d *decoder) absent(f *field, parent *node, v reflect.Value, path string) {
	inner := v
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		inner = v.Elem()
	}
	switch {
	case inner.Kind() == reflect.Struct && f.def == nil && !(f.required && inner.IsZero()):
		s := f.schema
		if s.kind == optional {
			s = s.elem
		}
		d.block(s, &node{kind: mapping, line: parent.line, set: parent.set}, inner, path)
	case !v.IsZero(): // the caller's default
	case f.required:
		msg := "is required"
		if f.help != "" {
			msg += ": " + f.help
		}
		d.fail(parent, path, "%s", msg)
	case f.def != nil:
		d.value(f.schema, f.def, v, path)
	}
}

// unknown reports a key that the block does not have, with the nearest one.
func (d *decoder) unknown(s *schema, n *node, key, path string) {
	line, set := n.lines[key], n.set
	if value := n.fields[key]; value.set != "" {
		set = value.set
	}
	msg := "unknown key"
	best, distance := nearest(key, s.keys())
	switch elsewhere := d.places(key); {
	case distance >= 0 && distance <= max(1, len(key)/3):
		msg += ", did you mean " + join(path, best) + "?"
	case len(elsewhere) > 0:
		msg += ", did you mean " + strings.Join(elsewhere, " or ") + "?"
	case len(s.fields) <= 8:
		msg += ", known here: " + strings.Join(s.keys(), ", ")
	default:
		msg += ", the nearest known is " + join(path, best)
	}
	d.failAt(line, set, join(path, quoteKey(key)), msg)
}

// quoteKey leaves a plain key as it is, and makes a strange one visible.
func quoteKey(key string) string {
	if len(key) <= 40 && plainScalar(key) {
		return key
	}
	return quote(key)
}

// places lists where else in the recipe a key of this name may stand.
func (d *decoder) places(key string) []string {
	var found []string
	var walk func(s *schema, path string)
	walk = func(s *schema, path string) {
		for s.kind == optional {
			s = s.elem
		}
		for _, f := range s.fields {
			at := join(path, f.key)
			if f.key == key {
				found = append(found, at)
			}
			walk(f.schema, at)
		}
	}
	if d.root != nil {
		walk(d.root, "")
	}
	if len(found) > 3 {
		found = found[:3]
	}
	return found
}

// value fills v from n; v is zero, unless it is a block with defaults.
func (d *decoder) value(s *schema, n *node, v reflect.Value, path string) {
	switch s.kind {
	case block:
		d.block(s, n, v, path)
	case optional:
		if n.kind == null {
			v.SetZero()
			return
		}
		target := reflect.New(s.elem.typ)
		if !v.IsNil() {
			target.Elem().Set(v.Elem())
		}
		d.value(s.elem, n, target.Elem(), path)
		v.Set(target)
	case listOf:
		d.list(s, n, v, path)
	case mapOf:
		d.names(s, n, v, path)
	default:
		d.scalar(s, n, v, path)
	}
}

func (d *decoder) list(s *schema, n *node, v reflect.Value, path string) {
	items := []*node{n}
	switch n.kind {
	case list:
		items = n.items
	case null:
		d.fail(n, path, "got null, want %s (leave the key out for its default)", s.expected())
		return
	case mapping:
		if s.elem.kind != block && s.elem.kind != mapOf {
			d.fail(n, path, "got %s, want %s", n.describe(), s.expected())
			return
		}
	}
	if len(items) == 0 {
		v.SetZero()
		return
	}
	out := reflect.MakeSlice(s.typ, len(items), len(items))
	for i, item := range items {
		at := path
		if n.kind == list {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		d.value(s.elem, item, out.Index(i), at)
	}
	v.Set(out)
}

func (d *decoder) names(s *schema, n *node, v reflect.Value, path string) {
	if n.kind != mapping {
		d.fail(n, path, "got %s, want %s", n.describe(), s.expected())
		return
	}
	if len(n.keys) == 0 {
		v.SetZero()
		return
	}
	out := reflect.MakeMapWithSize(s.typ, len(n.keys))
	for _, key := range n.keys {
		item := reflect.New(s.elem.typ).Elem()
		d.value(s.elem, n.fields[key], item, join(path, quoteKey(key)))
		out.SetMapIndex(reflect.ValueOf(key).Convert(s.typ.Key()), item)
	}
	v.Set(out)
}

func (d *decoder) scalar(s *schema, n *node, v reflect.Value, path string) {
	if n.kind != scalar {
		hint := ""
		if n.kind == null {
			hint = " (leave the key out for its default)"
		}
		d.fail(n, path, "got %s, want %s%s", n.describe(), s.expected(), hint)
		return
	}
	wrong := func() {
		d.fail(n, path, "got %s, want %s", n.describe(), s.expected())
	}
	// A quoted scalar is a string, whatever it looks like; sizes and durations
	// are written as strings anyway.
	if n.quoted && s.kind != text && s.kind != size && s.kind != duration {
		d.fail(n, path, "got the string %s, want %s (without quotes)", n.describe(), s.expected())
		return
	}
	switch s.kind {
	case text:
		if b, isBool := parseBool(n.text); isBool && !n.quoted {
			d.fail(n, path, "got %v, want a string (put it in quotes)", b)
			return
		}
		v.SetString(n.text)
	case boolean:
		b, ok := parseBool(n.text)
		if !ok {
			wrong()
			return
		}
		v.SetBool(b)
	case integer:
		i, ok := parseInt(n.text)
		if !ok {
			wrong()
			return
		}
		if v.OverflowInt(i) {
			d.fail(n, path, "%s is out of range", n.text)
			return
		}
		v.SetInt(i)
	case unsigned:
		u, ok := parseUint(n.text)
		if !ok {
			if i, isInt := parseInt(n.text); isInt && i < 0 {
				d.fail(n, path, "%s is negative", n.text)
				return
			}
			wrong()
			return
		}
		if v.OverflowUint(u) {
			d.fail(n, path, "%s is out of range", n.text)
			return
		}
		v.SetUint(u)
	case number:
		f, ok := parseFloat(n.text)
		if !ok {
			wrong()
			return
		}
		if math.IsNaN(f) || (v.OverflowFloat(f) && !math.IsInf(f, 0)) {
			d.fail(n, path, "%s is out of range", n.text)
			return
		}
		v.SetFloat(f)
	case duration:
		dur, err := parseDuration(n.text)
		if err != nil {
			d.fail(n, path, "%v", err)
			return
		}
		v.SetInt(int64(dur))
	case size:
		b, err := ParseSize(n.text)
		if err != nil {
			d.fail(n, path, "%v", err)
			return
		}
		v.SetInt(int64(b))
	}
}

// check compares a decoded value with its limits, item by item.
func (d *decoder) check(s *schema, n *node, v reflect.Value, path string, l limits) {
	if l.min == nil && l.max == nil && l.oneof == nil {
		return
	}
	switch s.kind {
	case optional:
		if !v.IsNil() {
			d.check(s.elem, n, v.Elem(), path, l)
		}
		return
	case listOf:
		for i := range v.Len() {
			if n.kind == list {
				d.check(s.elem, n.items[i], v.Index(i), fmt.Sprintf("%s[%d]", path, i), l)
			} else {
				d.check(s.elem, n, v.Index(i), path, l)
			}
		}
		return
	case mapOf:
		for _, key := range n.keys {
			item := v.MapIndex(reflect.ValueOf(key).Convert(s.typ.Key()))
			d.check(s.elem, n.fields[key], item, join(path, quoteKey(key)), l)
		}
		return
	case text:
		if l.oneof != nil && !slices.Contains(l.oneof, v.String()) {
			msg := fmt.Sprintf("got %s, want %s", quote(v.String()), strings.Join(l.oneof, " | "))
			if best, distance := nearest(v.String(), l.oneof); distance <= 2 && len(l.oneof) > 4 {
				msg += " (did you mean " + best + "?)"
			}
			d.fail(n, path, "%s", msg)
		}
		return
	}
	var x float64
	switch s.kind {
	case integer, duration, size:
		x = float64(v.Int())
	case unsigned:
		x = float64(v.Uint())
	case number:
		x = v.Float()
	default:
		return
	}
	low := l.min != nil && (x < l.min.value || l.min.exclusive && x == l.min.value)
	high := l.max != nil && (x > l.max.value || l.max.exclusive && x == l.max.value)
	if low || high {
		d.fail(n, path, "got %s, want %s", n.text, l)
	}
}

func parseBool(s string) (value, ok bool) {
	switch s {
	case "true", "True", "TRUE":
		return true, true
	case "false", "False", "FALSE":
		return false, true
	}
	return false, false
}

// parseInt reads YAML integers, with underscores as people write them, and
// floats that are whole, such as 1e6.
func parseInt(s string) (int64, bool) {
	s, base := integerBase(s)
	if i, err := strconv.ParseInt(s, base, 64); err == nil {
		return i, true
	}
	if base != 10 {
		return 0, false
	}
	f, ok := parseFloat(s)
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func parseUint(s string) (uint64, bool) {
	plain, base := integerBase(s)
	if u, err := strconv.ParseUint(strings.TrimPrefix(plain, "+"), base, 64); err == nil {
		return u, true
	}
	i, ok := parseInt(s)
	return uint64(i), ok && i >= 0
}

func integerBase(s string) (string, int) {
	s = strings.ReplaceAll(s, "_", "")
	for prefix, base := range map[string]int{"0x": 16, "0o": 8, "0b": 2} {
		if rest, ok := strings.CutPrefix(s, prefix); ok && rest != "" && rest[0] != '-' && rest[0] != '+' {
			return rest, base
		}
	}
	return s, 10
}

func parseFloat(s string) (float64, bool) {
	switch strings.ToLower(s) {
	case ".inf", "+.inf":
		return math.Inf(1), true
	case "-.inf":
		return math.Inf(-1), true
	case ".nan":
		return math.NaN(), true
	}
	s = strings.ReplaceAll(s, "_", "")
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, false // Go's hexadecimal floats and "inf" are not YAML's
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, false
	}
	return f, true
}
