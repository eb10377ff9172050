package jinja

import (
	"math"
	"math/big"
	"strconv"
)

// Value is a value of the template language: None, Bool, Int, Float, Str, *List, *Tuple, *Dict, and the
// interpreter's own kinds. Values are immutable, namespaces, loops and iterators apart.
type Value interface {
	// typeName is Python's name of the type, for error messages.
	typeName() string
}

type (
	// None is Python's None, JSON's null.
	None struct{}
	// Bool is true or false.
	Bool bool
	// Int is an integer that fits 64 bits; larger ones are kept as *Big.
	Int int64
	// Big is an integer beyond 64 bits.
	Big struct{ v *big.Int }
	// Float is a floating-point number.
	Float float64
	// List is a list.
	List struct{ Items []Value }
	// Tuple is a tuple; those of groupby also have names for their elements.
	Tuple struct {
		Items []Value
		names []string
	}
	// Undefined is what a missing variable, attribute or element evaluates to. It prints as nothing, is false and
	// empty, and fails in any other use.
	Undefined struct{ reason string }
)

// The interpreter's own kinds of values.
type (
	// rangeValue is the result of range().
	rangeValue struct{ start, step, n int64 }
	// view is the result of a dict's keys, values and items.
	view struct {
		name  string
		items []Value
	}
	// iterator is a generator: lazy, consumed by iterating, true even when empty.
	iterator struct {
		name string
		next func(in *interp) (Value, bool, error)
	}
	// function is a built-in function or a bound method.
	function struct {
		name string
		call func(in *interp, a *callArgs) (Value, error)
	}
	// namespace is the result of namespace(), the only value with assignable attributes.
	namespace struct{ attrs *scope }
	cycler    struct {
		items []Value
		pos   int
	}
)

func (None) typeName() string        { return "NoneType" }
func (Bool) typeName() string        { return "bool" }
func (Int) typeName() string         { return "int" }
func (*Big) typeName() string        { return "int" }
func (Float) typeName() string       { return "float" }
func (Str) typeName() string         { return "str" }
func (*List) typeName() string       { return "list" }
func (*Tuple) typeName() string      { return "tuple" }
func (*Dict) typeName() string       { return "dict" }
func (*Undefined) typeName() string  { return "Undefined" }
func (*rangeValue) typeName() string { return "range" }
func (v *view) typeName() string     { return v.name }
func (i *iterator) typeName() string { return i.name }
func (*function) typeName() string   { return "function" }
func (*namespace) typeName() string  { return "Namespace" }
func (*cycler) typeName() string     { return "Cycler" }
func (*macro) typeName() string      { return "Macro" }
func (*loop) typeName() string       { return "LoopContext" }

// String makes a string that the program itself vouches for: no byte of it counts as data.
func String(s string) Str { return Str{Text: s} }

// DataString makes a string whose bytes are all marked with origin.
func DataString(s string, origin int) Str {
	if s == "" {
		return Str{}
	}
	return Str{Text: s, marks: []Mark{{0, len(s), origin}}}
}

// NewList makes a list of items, which it keeps.
func NewList(items ...Value) *List { return &List{items} }

func undefined(format string, args ...any) *Undefined {
	return &Undefined{reason: errorf(format, args...).(*Error).Msg}
}

func (u *Undefined) fail() error { return errorf("%s", u.reason) }

// truth is Python's bool(v).
func truth(v Value) bool {
	switch v := v.(type) {
	case None, *Undefined:
		return false
	case Bool:
		return bool(v)
	case Int:
		return v != 0
	case Float:
		return v != 0
	case Str:
		return v.Text != ""
	case *List:
		return len(v.Items) > 0
	case *Tuple:
		return len(v.Items) > 0
	case *Dict:
		return len(v.entries) > 0
	case *rangeValue:
		return v.n > 0
	case *view:
		return len(v.items) > 0
	}
	return true
}

// Dict is a dict: insertion-ordered, immutable once a template can see it.
type Dict struct {
	entries []entry
	index   map[string]int // from hashKey to the position in entries
}

type entry struct {
	key, value Value
}

// NewDict makes an empty dict.
func NewDict() *Dict { return &Dict{index: map[string]int{}} }

// Set adds or replaces the value under a string key that is no data.
func (d *Dict) Set(key string, v Value) { d.put("s"+key, String(key), v) }

// Len is the number of entries.
func (d *Dict) Len() int { return len(d.entries) }

func (d *Dict) put(hash string, key, v Value) {
	if i, ok := d.index[hash]; ok {
		d.entries[i].value = v
		return
	}
	d.index[hash] = len(d.entries)
	d.entries = append(d.entries, entry{key, v})
}

func (d *Dict) setValue(key, v Value) error {
	hash, err := hashKey(key, 0)
	if err != nil {
		return err
	}
	d.put(hash, key, v)
	return nil
}

func (d *Dict) getString(key string) (Value, bool) {
	if i, ok := d.index["s"+key]; ok {
		return d.entries[i].value, true
	}
	return nil, false
}

func (d *Dict) get(key Value) (Value, bool, error) {
	hash, err := hashKey(key, 0)
	if err != nil {
		return nil, false, err
	}
	i, ok := d.index[hash]
	if !ok {
		return nil, false, nil
	}
	return d.entries[i].value, true, nil
}

func (d *Dict) keys() []Value {
	items := make([]Value, len(d.entries))
	for i := range d.entries {
		items[i] = d.entries[i].key
	}
	return items
}

func (d *Dict) values() []Value {
	items := make([]Value, len(d.entries))
	for i := range d.entries {
		items[i] = d.entries[i].value
	}
	return items
}

func (d *Dict) items() []Value {
	items := make([]Value, len(d.entries))
	for i, e := range d.entries {
		items[i] = &Tuple{Items: []Value{e.key, e.value}}
	}
	return items
}

// hashKey maps values that are equal in Python (1, 1.0 and True) to one string, and fails for unhashable ones.
func hashKey(v Value, depth int) (string, error) {
	if depth > 50 {
		return "", errorf("tuple nested too deeply for a dict key")
	}
	switch v := v.(type) {
	case Str:
		return "s" + v.Text, nil
	case None:
		return "n", nil
	case Bool:
		if v {
			return "i1", nil
		}
		return "i0", nil
	case Int:
		return "i" + strconv.FormatInt(int64(v), 10), nil
	case *Big:
		return "i" + v.v.String(), nil
	case Float:
		f := float64(v)
		if f == math.Trunc(f) && math.Abs(f) < 1<<62 {
			return "i" + strconv.FormatInt(int64(f), 10), nil
		}
		return "f" + strconv.FormatFloat(f, 'g', -1, 64), nil
	case *Tuple:
		key := "t"
		for _, item := range v.Items {
			k, err := hashKey(item, depth+1)
			if err != nil {
				return "", err
			}
			key += strconv.Itoa(len(k)) + ":" + k
		}
		return key, nil
	case *Undefined:
		return "u", nil
	}
	return "", errorf("unhashable type: '%s'", v.typeName())
}
