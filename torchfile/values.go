package torchfile

import (
	"fmt"
	"strings"
)

// What a pickle can make is nil, bool, int64, float64, string, raw, and the types
// below. Containers are pointers: a pickle may put one into itself.

type (
	raw    []byte // bytes; also a whole number of more than 64 bits
	list   struct{ items []any }
	tuple  []any
	set    struct{} // what a set holds is of no use here
	global struct{ module, name string }
	opaque struct{ what string } // a value that is allowed and of no use here
)

// dict keeps the order of insertion; of equal strings the last value stays.
type dict struct {
	keys, values []any
	index        map[string]int // of keys that are strings
}

func (d *dict) set(key, value any) {
	s, ok := key.(string)
	if ok {
		if i, ok := d.index[s]; ok {
			d.values[i] = value
			return
		}
		if d.index == nil {
			d.index = map[string]int{}
		}
		d.index[s] = len(d.keys)
	}
	d.keys, d.values = append(d.keys, key), append(d.values, value)
}

func (d *dict) get(key string) any {
	if i, ok := d.index[key]; ok {
		return d.values[i]
	}
	return nil
}

func (d *dict) hasTensor() bool {
	for _, v := range d.values {
		if _, ok := v.(*tensor); ok {
			return true
		}
	}
	return false
}

// wraps tells whether a dict holds another under a name that state dicts have.
func (d *dict) wraps() bool {
	for _, key := range wrappers {
		if _, ok := d.get(key).(*dict); ok {
			return true
		}
	}
	return false
}

// sample names a few keys for a message.
func (d *dict) sample() string {
	var some []string
	for _, k := range d.keys {
		if s, ok := k.(string); ok {
			some = append(some, quote(s))
		}
		if len(some) == 5 {
			break
		}
	}
	if len(some) == 0 {
		return "none that is text"
	}
	if more := len(d.keys) - len(some); more > 0 {
		some = append(some, fmt.Sprintf("and %d others", more))
	}
	return strings.Join(some, ", ")
}

// kindOf says what a value is, as a Python user calls it.
func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return "a float"
	case string:
		return "a string"
	case raw:
		return "bytes"
	case *list:
		return "a list"
	case tuple:
		return "a tuple"
	case *set:
		return "a set"
	case *dict:
		return "a dict"
	case global:
		return v.String()
	case opaque:
		return v.what
	case *storage:
		return "a storage"
	case *tensor:
		return "a single tensor"
	}
	return fmt.Sprintf("%T", v)
}

func (g global) String() string {
	s := g.module + "." + g.name
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}
