package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// entry is one tensor of a header; begin and end count from the data's start.
type entry struct {
	name       string
	typ        Type
	shape      []int // PyTorch's order
	begin, end uint64
}

// header is a parsed and checked header.
type header struct {
	metadata *Metadata
	entries  []entry // in the file's order
	start    uint64  // of the data
}

// parseHeader reads the header of a file that is wholly in memory. Every length
// is compared with the bytes that are left before anything is allocated for it,
// and every tensor's data lie within the file.
func parseHeader(file []byte) (*header, error) {
	c := &cursor{file: file}
	tensors, pairs, err := c.counts()
	if err != nil {
		return nil, err
	}
	h := &header{}
	if h.metadata, err = c.metadata(pairs); err != nil {
		return nil, err
	}
	alignment, err := alignmentOf(h.metadata)
	if err != nil {
		return nil, err
	}
	if h.entries, err = c.tensors(tensors); err != nil {
		return nil, err
	}
	size := uint64(len(file))
	h.start = align(c.at, alignment) // at most maxAlignment above a length in memory
	if h.start > size {
		if len(h.entries) > 0 {
			return nil, fmt.Errorf("the header ends at byte %d and data would begin at %d, but the file has %d bytes: it is cut off (download or copy it again)",
				c.at, h.start, size)
		}
		h.start = size
	}
	return h, h.place(size-h.start, alignment)
}

// counts reads what stands before the metadata.
func (c *cursor) counts() (tensors, pairs uint64, err error) {
	const least = 4 + 4 + 8 + 8
	if len(c.file) < least {
		return 0, 0, fmt.Errorf("file has %d bytes, too few for a header: cut off or not a GGUF file", len(c.file))
	}
	if string(c.file[:4]) != "GGUF" {
		return 0, 0, fmt.Errorf("does not begin with GGUF but with %q: not a GGUF file", c.file[:4])
	}
	c.at = 4
	switch version := c.u32(); {
	case version == 2 || version == 3:
	case version == 1:
		return 0, 0, errors.New("version 1 of GGUF is not read: convert the file with a llama.cpp of late 2023, or the model again")
	case bits.ReverseBytes32(version) < 1<<16:
		return 0, 0, errors.New("big-endian GGUF is not read: convert the file with gguf_convert_endian of llama.cpp's Python package gguf")
	default:
		return 0, 0, fmt.Errorf("version %d of GGUF is not known, expected 2 or 3", version)
	}
	tensors, pairs = c.u64(), c.u64()
	// A pair takes at least 13 bytes, a tensor 24.
	if pairs > maxPairs || pairs > c.left()/13 {
		return 0, 0, fmt.Errorf("%d metadata pairs, but only %d bytes follow (and at most %d pairs are read): the file is broken", pairs, c.left(), maxPairs)
	}
	if tensors > maxTensors || tensors > c.left()/24 {
		return 0, 0, fmt.Errorf("%d tensors, but only %d bytes follow (and at most %d tensors are read): the file is broken", tensors, c.left(), maxTensors)
	}
	return tensors, pairs, nil
}

func (c *cursor) metadata(n uint64) (*Metadata, error) {
	list := make([]Pair, 0, n)
	seen := make(map[string]bool, n)
	for i := range n {
		key, err := c.name(maxKey)
		if err != nil {
			return nil, fmt.Errorf("metadata %d of %d: key: %w", i+1, n, err)
		}
		if seen[key] {
			return nil, fmt.Errorf("metadata %s stands twice", quote(key))
		}
		seen[key] = true
		v, err := c.value()
		if err != nil {
			return nil, fmt.Errorf("metadata %s: %w", quote(key), err)
		}
		list = append(list, Pair{key, v})
	}
	return NewMetadata(list), nil
}

func alignmentOf(m *Metadata) (uint64, error) {
	n, ok, err := m.Int(alignmentKey)
	if err != nil || !ok {
		return defaultAlignment, err
	}
	if n < 1 || n > maxAlignment || n&(n-1) != 0 {
		return 0, fmt.Errorf("metadata %s is %d, expected a power of two up to %d", alignmentKey, n, maxAlignment)
	}
	return uint64(n), nil
}

func align(n, alignment uint64) uint64 { return (n + alignment - 1) &^ (alignment - 1) }

func (c *cursor) tensors(n uint64) ([]entry, error) {
	list := make([]entry, 0, n)
	seen := make(map[string]bool, n)
	for i := range n {
		name, err := c.name(maxName)
		if err != nil {
			return nil, fmt.Errorf("tensor %d of %d: name: %w", i+1, n, err)
		}
		if seen[name] {
			return nil, fmt.Errorf("tensor %s stands twice", quote(name))
		}
		seen[name] = true
		e, err := c.tensor(name)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		list = append(list, e)
	}
	return list, nil
}

func (c *cursor) tensor(name string) (entry, error) {
	e := entry{name: name}
	if c.left() < 4 {
		return e, c.short(4)
	}
	dims := c.u32()
	if dims > maxDims {
		return e, fmt.Errorf("has %d dimensions, at most %d are read", dims, maxDims)
	}
	if need := 8*uint64(dims) + 12; c.left() < need {
		return e, c.short(need)
	}
	e.shape = make([]int, dims)
	for i := range e.shape {
		d := c.u64()
		if d > math.MaxInt {
			return e, fmt.Errorf("dimension %d is too large", d)
		}
		e.shape[int(dims)-1-i] = int(d)
	}
	e.typ = Type(c.u32())
	e.begin = c.u64()
	size, err := byteSize(e.typ, e.shape)
	if err != nil {
		return e, err
	}
	end, carry := bits.Add64(e.begin, size, 0)
	if carry != 0 {
		return e, fmt.Errorf("offset %d and %d bytes are more than 64 bits count", e.begin, size)
	}
	e.end = end
	return e, nil
}

// byteSize is the length of a tensor's data, every step checked.
func byteSize(t Type, shape []int) (uint64, error) {
	l, ok := layouts[t]
	if !ok {
		return 0, fmt.Errorf("%v is not known to this version", t)
	}
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("negative dimension in shape %v", shape)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("shape %v has more elements than 63 bits count", shape)
		}
		n = lo
	}
	row := 1
	if len(shape) > 0 {
		row = shape[len(shape)-1]
	}
	if row%l.elements != 0 {
		return 0, fmt.Errorf("rows of %d elements are no whole blocks of %s, which holds %d", row, l.name, l.elements)
	}
	hi, size := bits.Mul64(n/uint64(l.elements), uint64(l.bytes))
	if hi != 0 || size > math.MaxInt64 {
		return 0, fmt.Errorf("shape %v of %s has more bytes than 63 bits count", shape, l.name)
	}
	return size, nil
}

// place checks that tensors lie within the data, aligned, and none within another.
func (h *header) place(data, alignment uint64) error {
	order := slices.Clone(h.entries)
	slices.SortStableFunc(order, func(a, b entry) int {
		if a.begin != b.begin {
			return cmpUint(a.begin, b.begin)
		}
		return cmpUint(a.end, b.end)
	})
	at, last := uint64(0), ""
	for _, e := range order {
		switch {
		case e.begin%alignment != 0:
			return fmt.Errorf("tensor %s: offset %d is no multiple of the alignment %d", quote(e.name), e.begin, alignment)
		case e.end > data:
			return fmt.Errorf("tensor %s: its data end at byte %d of %d: the file is cut off (download or copy it again)", quote(e.name), e.end, data)
		case e.begin < at:
			return fmt.Errorf("tensor %s: its data begin at byte %d, inside those of %s, which end at %d", quote(e.name), e.begin, quote(last), at)
		}
		at, last = e.end, e.name
	}
	return nil
}

func cmpUint(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// cursor walks over a header. Its methods that read a number of fixed size need
// the caller to have looked at left.
type cursor struct {
	file []byte
	at   uint64 // at most len(file)
}

func (c *cursor) left() uint64 { return uint64(len(c.file)) - c.at }

func (c *cursor) short(need uint64) error {
	return fmt.Errorf("needs %d bytes, but only %d are left: the file is cut off (download or copy it again)", need, c.left())
}

func (c *cursor) take(n uint64) []byte {
	b := c.file[c.at : c.at+n]
	c.at += n
	return b
}

func (c *cursor) u32() uint32 { return binary.LittleEndian.Uint32(c.take(4)) }
func (c *cursor) u64() uint64 { return binary.LittleEndian.Uint64(c.take(8)) }

// text reads a string of at most most bytes.
func (c *cursor) text(most uint64) (string, error) {
	if c.left() < 8 {
		return "", c.short(8)
	}
	n := c.u64()
	if n > c.left() {
		return "", fmt.Errorf("a string of %d bytes, but only %d are left: the file is broken or cut off", n, c.left())
	}
	if n > most {
		return "", fmt.Errorf("a string of %d bytes, at most %d are read", n, most)
	}
	b := c.take(n)
	return string(b), nil
}

// name is text that is to be UTF-8, as keys and names are. Other strings are
// taken as they are: vocabularies may hold any bytes.
func (c *cursor) name(most uint64) (string, error) {
	s, err := c.text(most)
	if err == nil && !utf8.ValidString(s) {
		err = fmt.Errorf("%s is not UTF-8", quote(s))
	}
	return s, err
}

func (c *cursor) value() (any, error) {
	if c.left() < 4 {
		return nil, c.short(4)
	}
	kind := Kind(c.u32())
	if kind == KindArray {
		return c.array(0)
	}
	size := kind.size()
	if size == 0 {
		return nil, fmt.Errorf("%v of value is not known", kind)
	}
	if kind == KindString {
		return c.text(maxString)
	}
	if c.left() < size {
		return nil, c.short(size)
	}
	list, err := c.elements(kind, 1)
	if err != nil {
		return nil, err
	}
	switch l := list.(type) {
	case []uint8:
		return l[0], nil
	case []int8:
		return l[0], nil
	case []uint16:
		return l[0], nil
	case []int16:
		return l[0], nil
	case []uint32:
		return l[0], nil
	case []int32:
		return l[0], nil
	case []float32:
		return l[0], nil
	case []bool:
		return l[0], nil
	case []uint64:
		return l[0], nil
	case []int64:
		return l[0], nil
	default:
		return list.([]float64)[0], nil
	}
}

// array reads an array; depth is the number of arrays around it.
func (c *cursor) array(depth int) (any, error) {
	if c.left() < 12 {
		return nil, c.short(12)
	}
	kind, n := Kind(c.u32()), c.u64()
	size := kind.size()
	if size == 0 {
		return nil, fmt.Errorf("%v of an array's elements is not known", kind)
	}
	if n > c.left()/size {
		return nil, fmt.Errorf("an array of %d × %v, but only %d bytes are left: the file is broken or cut off", n, kind, c.left())
	}
	switch kind {
	case KindArray:
		if depth >= maxDepth {
			return nil, fmt.Errorf("arrays lie in each other more than %d deep", maxDepth+1)
		}
		list := make([]any, n)
		for i := range list {
			v, err := c.array(depth + 1)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			list[i] = v
		}
		return list, nil
	case KindString:
		list := make([]string, n)
		for i := range list {
			s, err := c.text(maxString)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			list[i] = s
		}
		return list, nil
	}
	return c.elements(kind, n)
}

// elements reads n numbers or bools; the caller has seen that they are there.
func (c *cursor) elements(kind Kind, n uint64) (any, error) {
	b := c.take(n * kind.size())
	le := binary.LittleEndian
	switch kind {
	case KindUint8:
		return slices.Clone(b), nil
	case KindInt8:
		return numbers(b, 1, func(b []byte) int8 { return int8(b[0]) }), nil
	case KindUint16:
		return numbers(b, 2, le.Uint16), nil
	case KindInt16:
		return numbers(b, 2, func(b []byte) int16 { return int16(le.Uint16(b)) }), nil
	case KindUint32:
		return numbers(b, 4, le.Uint32), nil
	case KindInt32:
		return numbers(b, 4, func(b []byte) int32 { return int32(le.Uint32(b)) }), nil
	case KindFloat32:
		return numbers(b, 4, func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) }), nil
	case KindUint64:
		return numbers(b, 8, le.Uint64), nil
	case KindInt64:
		return numbers(b, 8, func(b []byte) int64 { return int64(le.Uint64(b)) }), nil
	case KindFloat64:
		return numbers(b, 8, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) }), nil
	}
	list := make([]bool, n)
	for i, v := range b {
		if v > 1 {
			return nil, fmt.Errorf("a bool is %d, expected 0 or 1", v)
		}
		list[i] = v == 1
	}
	return list, nil
}

func numbers[T any](b []byte, size int, read func([]byte) T) []T {
	list := make([]T, len(b)/size)
	for i := range list {
		list[i] = read(b[i*size:])
	}
	return list
}
