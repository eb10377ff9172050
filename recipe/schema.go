package recipe

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// kind is what a key's value may be.
type kind int

const (
	boolean kind = iota
	integer
	unsigned
	number
	text
	duration
	size
	block    // a struct
	listOf   // a slice
	mapOf    // a map with string keys
	optional // a pointer
)

// schema describes a Go type.
type schema struct {
	kind      kind
	typ       reflect.Type
	elem      *schema  // of listOf, mapOf, optional
	fields    []*field // of block, in the struct's order
	shorthand *field   // of block, nil if it has none
}

// field is one key of a block.
type field struct {
	key      string
	index    []int // for reflect.Value.FieldByIndex
	schema   *schema
	help     string
	required bool
	limits   limits
	def      *node // the default tag; nil without
}

// limits is what a value has to keep to; on lists and maps, each item.
type limits struct {
	min, max *bound
	oneof    []string
	also     map[string]string // words that stand for one of oneof
}

type bound struct {
	value     float64
	text      string // as written in the tag
	exclusive bool
}

var schemas sync.Map // reflect.Type -> *schema

// schemaOf derives the schema of a struct type. A wrong tag is a mistake in
// the program, not in a recipe, so it panics.
func schemaOf(t reflect.Type) *schema {
	if s, ok := schemas.Load(t); ok {
		return s.(*schema)
	}
	s := derive(t, t.String(), 0)
	schemas.Store(t, s)
	return s
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
)

func derive(t reflect.Type, where string, depth int) *schema {
	if depth > maxDepth {
		panic("recipe: " + where + ": the type contains itself")
	}
	s := &schema{typ: t}
	switch {
	case t == durationType:
		s.kind = duration
		return s
	case t == sizeType:
		s.kind = size
		return s
	}
	switch t.Kind() {
	case reflect.Bool:
		s.kind = boolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s.kind = integer
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s.kind = unsigned
	case reflect.Float32, reflect.Float64:
		s.kind = number
	case reflect.String:
		s.kind = text
	case reflect.Slice:
		s.kind = listOf
		s.elem = derive(t.Elem(), where+" item", depth+1)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			panic(fmt.Sprintf("recipe: %s: a map needs string keys", where))
		}
		s.kind = mapOf
		s.elem = derive(t.Elem(), where+" value", depth+1)
	case reflect.Pointer:
		s.kind = optional
		s.elem = derive(t.Elem(), where, depth+1)
		if s.elem.kind == optional {
			panic(fmt.Sprintf("recipe: %s: a pointer to a pointer", where))
		}
	case reflect.Struct:
		s.kind = block
		s.addFields(t, nil, where, depth)
	default:
		panic(fmt.Sprintf("recipe: %s: type %s has no YAML form here", where, t))
	}
	return s
}

func (s *schema) addFields(t reflect.Type, prefix []int, where string, depth int) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("yaml")
		key, option, _ := strings.Cut(tag, ",")
		if key == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		index := append(append([]int(nil), prefix...), i)
		if option == "inline" {
			if f.Type.Kind() != reflect.Struct {
				panic(fmt.Sprintf("recipe: %s.%s: only a struct can be inline", where, f.Name))
			}
			s.addFields(f.Type, index, where, depth+1)
			continue
		}
		if !f.IsExported() {
			continue
		}
		if key == "" {
			key = snakeCase(f.Name)
		}
		s.addField(f, key, index, where+"."+key, depth)
	}
}

func (s *schema) addField(sf reflect.StructField, key string, index []int, where string, depth int) {
	if s.field(key) != nil {
		panic(fmt.Sprintf("recipe: %s: the key stands twice", where))
	}
	f := &field{key: key, index: index, help: sf.Tag.Get("help"), schema: derive(sf.Type, where, depth+1)}
	s.fields = append(s.fields, f)
	f.required = flagTag(sf, "required", where)
	if flagTag(sf, "shorthand", where) {
		s.shorthand = f
	}
	leaf := f.schema
	for leaf.elem != nil {
		leaf = leaf.elem
	}
	f.limits.min = boundTag(sf, "min", ">", leaf, where)
	f.limits.max = boundTag(sf, "max", "<", leaf, where)
	if oneof := sf.Tag.Get("oneof"); oneof != "" {
		if leaf.kind != text {
			panic(fmt.Sprintf("recipe: %s: oneof on a %s", where, leaf.kind.name()))
		}
		f.limits.oneof = strings.Split(oneof, "|")
	}
	f.limits.also = alsoTag(sf, f, where)
	def, hasDefault := sf.Tag.Lookup("default")
	switch {
	case hasDefault && f.required:
		panic(fmt.Sprintf("recipe: %s: required, yet with a default", where))
	case hasDefault:
		f.setDefault(def, where)
	}
}

// alsoTag is the also tag as a map.
func alsoTag(sf reflect.StructField, f *field, where string) map[string]string {
	tag := sf.Tag.Get("also")
	if tag == "" {
		return nil
	}
	if f.schema.kind != text {
		panic(fmt.Sprintf("recipe: %s: also on a %s", where, f.schema.kind.name()))
	}
	also := map[string]string{}
	for _, pair := range strings.Split(tag, "|") {
		word, meaning, _ := strings.Cut(pair, "=")
		if !slices.Contains(f.limits.oneof, meaning) {
			panic(fmt.Sprintf("recipe: %s: also %q is none of oneof", where, pair))
		}
		also[word] = meaning
	}
	return also
}

// setDefault parses the default tag and proves that it decodes.
func (f *field) setDefault(def, where string) {
	if f.schema.kind == text && def == "" {
		f.def = &node{kind: scalar, quoted: true}
	} else {
		n, err := parseValue([]byte(def))
		if err != nil {
			panic(fmt.Sprintf("recipe: %s: default %q: %v", where, def, err))
		}
		f.def = n
	}
	v := reflect.New(f.schema.typ).Elem()
	d := &decoder{name: "default"}
	d.value(f.schema, f.def, v, where) // a default may lie outside the bounds, such as 0 for off
	if len(d.errs) > 0 {
		panic(fmt.Sprintf("recipe: %s: default %q: %s", where, def, d.errs[0]))
	}
}

func flagTag(sf reflect.StructField, name, where string) bool {
	switch sf.Tag.Get(name) {
	case "":
		return false
	case "true":
		return true
	}
	panic(fmt.Sprintf("recipe: %s: tag %s:%q, want \"true\" or none", where, name, sf.Tag.Get(name)))
}

func boundTag(sf reflect.StructField, name, sign string, leaf *schema, where string) *bound {
	tag := sf.Tag.Get(name)
	if tag == "" {
		return nil
	}
	b := &bound{text: tag}
	b.text, b.exclusive = strings.CutPrefix(tag, sign)
	var err error
	switch leaf.kind {
	case integer, unsigned, number:
		b.value, err = strconv.ParseFloat(b.text, 64)
	case duration:
		var d time.Duration
		d, err = parseDuration(b.text)
		b.value = float64(d)
	case size:
		var v Size
		v, err = ParseSize(b.text)
		b.value = float64(v)
	default:
		err = fmt.Errorf("a %s has no bounds", leaf.kind.name())
	}
	if err != nil || math.IsNaN(b.value) {
		panic(fmt.Sprintf("recipe: %s: tag %s:%q: %v", where, name, tag, err))
	}
	return b
}

func (s *schema) field(key string) *field {
	for _, f := range s.fields {
		if f.key == key {
			return f
		}
	}
	return nil
}

func (s *schema) keys() []string {
	keys := make([]string, len(s.fields))
	for i, f := range s.fields {
		keys[i] = f.key
	}
	return keys
}

// name says what a value of a kind is, for messages.
func (k kind) name() string {
	switch k {
	case boolean:
		return "true or false"
	case integer, unsigned:
		return "integer"
	case number:
		return "number"
	case text:
		return "string"
	case duration:
		return "duration"
	case size:
		return "size"
	case block:
		return "block of keys"
	case listOf:
		return "list"
	case mapOf:
		return "block of names"
	}
	return "value"
}

// expected is name with what a person may need to know to write one.
func (s *schema) expected() string {
	switch s.kind {
	case boolean:
		return "true or false"
	case integer, unsigned:
		return "an integer"
	case duration:
		return "a duration such as 90s or 1h30m"
	case size:
		return "a size such as 8GiB"
	case listOf:
		return "a list, or one " + strings.TrimPrefix(strings.TrimPrefix(s.elem.expected(), "a "), "an ")
	case mapOf:
		return "a block of names, each with " + s.elem.expected()
	case block:
		if s.shorthand != nil {
			return "a block of keys, or " + s.shorthand.schema.expected() + " for its " + s.shorthand.key
		}
		return "a block of keys"
	case optional:
		return s.elem.expected()
	}
	return "a " + s.kind.name()
}

// typeName is the short form for Explain.
func (s *schema) typeName() string {
	switch s.kind {
	case listOf:
		return "list of " + plural(s.elem)
	case mapOf:
		return "names with " + plural(s.elem)
	case optional:
		return s.elem.typeName() + " or null"
	}
	return s.kind.name()
}

func plural(s *schema) string {
	switch s.kind {
	case boolean:
		return "true or false"
	case block:
		return "blocks"
	case listOf:
		return "lists"
	case optional, mapOf:
		return s.typeName()
	}
	return s.kind.name() + "s"
}

func (l limits) String() string {
	var parts []string
	switch {
	case l.min != nil && l.max != nil && !l.min.exclusive && !l.max.exclusive:
		parts = append(parts, l.min.text+" to "+l.max.text)
	default:
		if l.min != nil {
			parts = append(parts, l.min.words("above", "at least"))
		}
		if l.max != nil {
			parts = append(parts, l.max.words("below", "at most"))
		}
	}
	if l.oneof != nil {
		parts = append(parts, strings.Join(l.oneof, " | "))
	}
	return strings.Join(parts, ", ")
}

func (b *bound) words(exclusive, inclusive string) string {
	if b.exclusive {
		return exclusive + " " + b.text
	}
	return inclusive + " " + b.text
}

// snakeCase turns MaxSeqLen into max_seq_len and LR into lr.
func snakeCase(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if unicode.IsUpper(r) {
			startsWord := i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
			if startsWord {
				b.WriteByte('_')
			}
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}
