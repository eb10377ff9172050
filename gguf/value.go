package gguf

import (
	"fmt"
	"math"
)

// Kind is the kind of a metadata value, as the file numbers them.
type Kind uint32

// The kinds, with the Go types that stand for them.
const (
	KindUint8   Kind = iota // uint8
	KindInt8                // int8
	KindUint16              // uint16
	KindInt16               // int16
	KindUint32              // uint32
	KindInt32               // int32
	KindFloat32             // float32
	KindBool                // bool
	KindString              // string
	KindArray               // []uint8, []int8, ..., []string; []any for an array of arrays
	KindUint64              // uint64
	KindInt64               // int64
	KindFloat64             // float64
)

var kindNames = []string{"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

// size is the least that a value of this kind takes in a file.
func (k Kind) size() uint64 {
	switch k {
	case KindUint8, KindInt8, KindBool:
		return 1
	case KindUint16, KindInt16:
		return 2
	case KindUint32, KindInt32, KindFloat32:
		return 4
	case KindString, KindUint64, KindInt64, KindFloat64:
		return 8
	case KindArray:
		return 12
	}
	return 0
}

// kindOf is the kind that a Go value is written as.
func kindOf(v any) (k Kind, ok bool) {
	switch v.(type) {
	case uint8:
		return KindUint8, true
	case int8:
		return KindInt8, true
	case uint16:
		return KindUint16, true
	case int16:
		return KindInt16, true
	case uint32:
		return KindUint32, true
	case int32:
		return KindInt32, true
	case float32:
		return KindFloat32, true
	case bool:
		return KindBool, true
	case string:
		return KindString, true
	case uint64:
		return KindUint64, true
	case int64:
		return KindInt64, true
	case float64:
		return KindFloat64, true
	case []uint8, []int8, []uint16, []int16, []uint32, []int32, []float32, []bool, []string, []uint64, []int64, []float64, []any:
		return KindArray, true
	}
	return 0, false
}

// describe names what a value is, for messages.
func describe(v any) string {
	k, ok := kindOf(v)
	switch {
	case !ok:
		return "nothing"
	case k == KindArray:
		return "an array"
	case k == KindString:
		return "the string " + quote(v.(string))
	}
	return fmt.Sprintf("%v (%v)", v, k)
}

// Pair is one key with its value. Value is of one of the Go types that the kinds
// stand for.
type Pair struct {
	Key   string
	Value any
}

// Metadata are a file's pairs in order. The getters take any kind that holds
// what is asked for without loss; their errors name the key.
type Metadata struct {
	Pairs []Pair
	index map[string]int
}

// NewMetadata makes pairs searchable; of equal keys the last counts.
func NewMetadata(pairs []Pair) *Metadata {
	m := &Metadata{Pairs: pairs, index: make(map[string]int, len(pairs))}
	for i, p := range pairs {
		m.index[p.Key] = i
	}
	return m
}

// Get finds a value.
func (m *Metadata) Get(key string) (any, bool) {
	i, ok := m.index[key]
	if !ok {
		return nil, false
	}
	return m.Pairs[i].Value, true
}

// Has tells whether a key is there.
func (m *Metadata) Has(key string) bool { _, ok := m.index[key]; return ok }

// Int reads a whole number of any kind; ok tells whether the key is there.
func (m *Metadata) Int(key string) (n int64, ok bool, err error) {
	v, ok := m.Get(key)
	if !ok {
		return 0, false, nil
	}
	n, is := toInt(v)
	if !is {
		return 0, true, fmt.Errorf("metadata %s is %s, expected a whole number", key, describe(v))
	}
	return n, true, nil
}

func toInt(v any) (int64, bool) {
	switch v := v.(type) {
	case uint8:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case int16:
		return int64(v), true
	case uint32:
		return int64(v), true
	case int32:
		return int64(v), true
	case int64:
		return v, true
	case uint64:
		return int64(v), v <= math.MaxInt64
	}
	return 0, false
}

// Ints reads an array of whole numbers of any kind.
func (m *Metadata) Ints(key string) ([]int64, bool, error) {
	v, ok := m.Get(key)
	if !ok {
		return nil, false, nil
	}
	var out []int64
	switch v := v.(type) {
	case []uint8:
		out = widen(v)
	case []int8:
		out = widen(v)
	case []uint16:
		out = widen(v)
	case []int16:
		out = widen(v)
	case []uint32:
		out = widen(v)
	case []int32:
		out = widen(v)
	case []int64:
		out = v
	case []uint64:
		for _, x := range v {
			if x > math.MaxInt64 {
				return nil, true, fmt.Errorf("metadata %s holds %d, expected numbers below 2^63", key, x)
			}
		}
		out = widen(v)
	default:
		return nil, true, fmt.Errorf("metadata %s is %s, expected an array of whole numbers", key, describe(v))
	}
	return out, true, nil
}

func widen[T uint8 | int8 | uint16 | int16 | uint32 | int32 | uint64](list []T) []int64 {
	out := make([]int64, len(list))
	for i, v := range list {
		out[i] = int64(v)
	}
	return out
}

// Float reads a number of any kind.
func (m *Metadata) Float(key string) (x float64, ok bool, err error) {
	v, ok := m.Get(key)
	if !ok {
		return 0, false, nil
	}
	switch v := v.(type) {
	case float32:
		return float64(v), true, nil
	case float64:
		return v, true, nil
	}
	if n, is := toInt(v); is {
		return float64(n), true, nil
	}
	return 0, true, fmt.Errorf("metadata %s is %s, expected a number", key, describe(v))
}

// Floats reads an array of f32 or f64.
func (m *Metadata) Floats(key string) ([]float64, bool, error) {
	v, ok := m.Get(key)
	if !ok {
		return nil, false, nil
	}
	switch v := v.(type) {
	case []float32:
		out := make([]float64, len(v))
		for i, x := range v {
			out[i] = float64(x)
		}
		return out, true, nil
	case []float64:
		return v, true, nil
	}
	return nil, true, fmt.Errorf("metadata %s is %s, expected an array of numbers", key, describe(v))
}

// Bool reads a bool.
func (m *Metadata) Bool(key string) (b, ok bool, err error) {
	v, ok := m.Get(key)
	if !ok {
		return false, false, nil
	}
	b, is := v.(bool)
	if !is {
		return false, true, fmt.Errorf("metadata %s is %s, expected true or false", key, describe(v))
	}
	return b, true, nil
}

// Text reads a string.
func (m *Metadata) Text(key string) (s string, ok bool, err error) {
	v, ok := m.Get(key)
	if !ok {
		return "", false, nil
	}
	s, is := v.(string)
	if !is {
		return "", true, fmt.Errorf("metadata %s is %s, expected a string", key, describe(v))
	}
	return s, true, nil
}

// Texts reads an array of strings.
func (m *Metadata) Texts(key string) ([]string, bool, error) {
	v, ok := m.Get(key)
	if !ok {
		return nil, false, nil
	}
	list, is := v.([]string)
	if !is {
		return nil, true, fmt.Errorf("metadata %s is %s, expected an array of strings", key, describe(v))
	}
	return list, true, nil
}
