package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"ringtail/atomicfile"
)

// Spec announces a tensor that will be written.
type Spec struct {
	Name  string
	Type  Type
	Shape []int // PyTorch's order
}

// Writer writes a file whose tensors are known beforehand, so that data can
// stream through. It is not safe for concurrent use.
type Writer struct {
	path    string
	file    *atomicfile.File
	start   uint64
	entries []entry
	byName  map[string]int
	written []uint64 // bytes of each entry so far
	err     error    // the first failure; Close repeats it
}

// Create begins a file of version 3 that appears at path when Close finds it
// complete. Tensors lie in the announced order, at multiples of
// general.alignment of the metadata, or of 32.
func Create(path string, metadata []Pair, specs []Spec) (*Writer, error) {
	w := &Writer{path: path, byName: map[string]int{}, written: make([]uint64, len(specs))}
	header, size, err := w.layout(metadata, specs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if w.file, err = atomicfile.Create(path, 0o666); err != nil {
		return nil, err
	}
	if _, err = w.file.WriteAt(header, 0); err == nil && size > uint64(len(header)) {
		_, err = w.file.WriteAt([]byte{0}, int64(size-1)) // readers want the last tensor's padding
	}
	if err != nil {
		w.file.Abort()
		return nil, err
	}
	return w, nil
}

// layout encodes the header and says how long the file will be.
func (w *Writer) layout(metadata []Pair, specs []Spec) ([]byte, uint64, error) {
	if len(metadata) > maxPairs || len(specs) > maxTensors {
		return nil, 0, fmt.Errorf("%d metadata and %d tensors are more than a file may hold (%d, %d)", len(metadata), len(specs), maxPairs, maxTensors)
	}
	b := []byte("GGUF")
	b = binary.LittleEndian.AppendUint32(b, 3)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(specs)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(metadata)))
	seen := map[string]bool{}
	for _, p := range metadata {
		if p.Key == "" || len(p.Key) > maxKey || !utf8.ValidString(p.Key) || seen[p.Key] {
			return nil, 0, fmt.Errorf("metadata key %s is empty, too long, not UTF-8 or stands twice", quote(p.Key))
		}
		seen[p.Key] = true
		var err error
		if b, err = appendValue(appendText(b, p.Key), p.Value, 0); err != nil {
			return nil, 0, fmt.Errorf("metadata %s: %w", quote(p.Key), err)
		}
	}
	alignment, err := alignmentOf(NewMetadata(metadata))
	if err != nil {
		return nil, 0, err
	}
	at := uint64(0)
	for _, s := range specs {
		if s.Name == "" || len(s.Name) >= maxName || !utf8.ValidString(s.Name) { // llama.cpp needs room for a zero
			return nil, 0, fmt.Errorf("tensor %s: the name is empty, longer than %d bytes or not UTF-8", quote(s.Name), maxName-1)
		}
		if _, twice := w.byName[s.Name]; twice {
			return nil, 0, fmt.Errorf("tensor %s: announced twice", quote(s.Name))
		}
		if len(s.Shape) > maxDims {
			return nil, 0, fmt.Errorf("tensor %s: shape %v has more than %d dimensions", quote(s.Name), s.Shape, maxDims)
		}
		if layouts[s.Type].write == nil {
			return nil, 0, fmt.Errorf("tensor %s: %v can't be written; types that can: F32, F16, BF16, Q8_0, Q4_0", quote(s.Name), s.Type)
		}
		size, err := byteSize(s.Type, s.Shape)
		if err != nil {
			return nil, 0, fmt.Errorf("tensor %s: %w", quote(s.Name), err)
		}
		if size > math.MaxInt64/2-at {
			return nil, 0, fmt.Errorf("tensor %s: the file would be longer than 2^62 bytes", quote(s.Name))
		}
		w.byName[s.Name] = len(w.entries)
		w.entries = append(w.entries, entry{name: s.Name, typ: s.Type, shape: s.Shape, begin: at, end: at + size})
		b = binary.LittleEndian.AppendUint32(appendText(b, s.Name), uint32(len(s.Shape)))
		for i := range s.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(s.Shape[len(s.Shape)-1-i]))
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(s.Type))
		b = binary.LittleEndian.AppendUint64(b, at)
		at = align(at+size, alignment)
	}
	w.start = align(uint64(len(b)), alignment)
	return append(b, make([]byte, w.start-uint64(len(b)))...), w.start + at, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// appendValue writes kind and value.
func appendValue(b []byte, v any, depth int) ([]byte, error) {
	kind, ok := kindOf(v)
	if !ok {
		return nil, fmt.Errorf("a value of type %T can't be written", v)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(kind))
	switch v := v.(type) {
	case string:
		if len(v) > maxString {
			return nil, fmt.Errorf("a string of %d bytes, at most %d can be read again", len(v), maxString)
		}
		return appendText(b, v), nil
	case []string:
		b = appendArray(b, KindString, len(v))
		for _, s := range v {
			if len(s) > maxString {
				return nil, fmt.Errorf("a string of %d bytes, at most %d can be read again", len(s), maxString)
			}
			b = appendText(b, s)
		}
		return b, nil
	case []any:
		if depth >= maxDepth {
			return nil, fmt.Errorf("arrays lie in each other more than %d deep", maxDepth+1)
		}
		b = appendArray(b, KindArray, len(v))
		for _, e := range v {
			if k, _ := kindOf(e); k != KindArray {
				return nil, fmt.Errorf("a %T among arrays can't be written", e)
			}
			inner, err := appendValue(nil, e, depth+1)
			if err != nil {
				return nil, err
			}
			b = append(b, inner[4:]...) // an array's elements have no kind of their own
		}
		return b, nil
	}
	if kind == KindArray {
		element, n := arrayOf(v)
		b = appendArray(b, element, n)
	}
	return binary.Append(b, binary.LittleEndian, v) // numbers and bools, alone or many
}

func appendArray(b []byte, k Kind, n int) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(b, uint32(k)), uint64(n))
}

// arrayOf is the kind and number of an array's numbers or bools.
func arrayOf(v any) (Kind, int) {
	switch v := v.(type) {
	case []uint8:
		return KindUint8, len(v)
	case []int8:
		return KindInt8, len(v)
	case []uint16:
		return KindUint16, len(v)
	case []int16:
		return KindInt16, len(v)
	case []uint32:
		return KindUint32, len(v)
	case []int32:
		return KindInt32, len(v)
	case []float32:
		return KindFloat32, len(v)
	case []bool:
		return KindBool, len(v)
	case []uint64:
		return KindUint64, len(v)
	case []int64:
		return KindInt64, len(v)
	}
	return KindFloat64, len(v.([]float64))
}

// Write writes values of a tensor in its announced type. Tensors may come in any
// order, and a tensor in several pieces of whole blocks, each continuing the one
// before.
func (w *Writer) Write(name string, values []float32) error {
	if w.err != nil {
		return w.err
	}
	i, ok := w.byName[name]
	if !ok {
		return w.fail("tensor %s was not announced", quote(name))
	}
	e := w.entries[i]
	l := layouts[e.typ]
	if len(values)%l.elements != 0 {
		return w.fail("tensor %s: %d values are no whole blocks of %s", quote(name), len(values), l.name)
	}
	const piece = 1 << 18 // elements, a multiple of every block
	var buf []byte
	for len(values) > 0 {
		n := min(piece, len(values))
		size := n / l.elements * l.bytes
		if uint64(size) > e.end-e.begin-w.written[i] {
			return w.fail("tensor %s: more values than shape %v has", quote(name), e.shape)
		}
		if cap(buf) < size {
			buf = make([]byte, size)
		}
		if err := Quantize(buf[:size], e.typ, values[:n]); err != nil {
			return w.fail("tensor %s: %w", quote(name), err)
		}
		if _, err := w.file.WriteAt(buf[:size], int64(w.start+e.begin+w.written[i])); err != nil {
			w.err = err
			return err
		}
		w.written[i] += uint64(size)
		values = values[n:]
	}
	return nil
}

func (w *Writer) fail(format string, args ...any) error {
	w.err = fmt.Errorf("%s: %w", w.path, fmt.Errorf(format, args...))
	return w.err
}

// Close checks that every announced tensor is complete, syncs the file and gives
// it its name. Otherwise it removes what was written and says what was wrong.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	defer w.Abort()
	if w.err != nil {
		return w.err
	}
	for i, e := range w.entries {
		if want := e.end - e.begin; w.written[i] != want {
			return w.fail("tensor %s: %d bytes written, but shape %v of %v takes %d", quote(e.name), w.written[i], e.shape, e.typ, want)
		}
	}
	if w.err = w.file.Commit(); w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

// Abort removes what was written. After Close it does nothing, so that it can be deferred.
func (w *Writer) Abort() {
	if w.file == nil {
		return
	}
	w.file.Abort()
	w.file = nil
	if w.err == nil {
		w.err = errClosed
	}
}

var errClosed = errors.New("gguf: write after Close or Abort")
