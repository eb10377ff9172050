package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"ringtail/atomicfile"
)

// Spec announces a tensor that will be written.
type Spec struct {
	Name  string
	Dtype string
	Shape []int
}

// Writer writes a file whose tensors' names, dtypes and shapes are known
// beforehand, so that data can stream through without a copy of it all. It is
// not safe for concurrent use.
type Writer struct {
	path    string
	file    *atomicfile.File
	start   uint64 // of the data, in the file
	entries []entry
	byName  map[string]int
	written []uint64 // bytes of each entry so far
	err     error    // the first failed write; Close repeats it
}

// Create begins a file that appears at path when Close finds it complete. With
// metadata nil, {"format": "pt"} is written, without which transformers
// refuses a file. Tensors are laid out by falling element size, else as
// announced, so that each begins at a multiple of its element size, as readers
// that view the file as typed arrays need.
func Create(path string, metadata map[string]string, specs []Spec) (*Writer, error) {
	w, header, err := layout(path, metadata, specs)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	w.file, err = atomicfile.Create(path, 0o666)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	if _, err := w.file.WriteAt(header, 0); err != nil {
		w.file.Abort()
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return w, nil
}

// layout places the tensors and encodes the header.
func layout(path string, metadata map[string]string, specs []Spec) (*Writer, []byte, error) {
	w := &Writer{path: path, byName: map[string]int{}, written: make([]uint64, len(specs))}
	for _, s := range specs {
		w.entries = append(w.entries, entry{name: s.Name, dtype: s.Dtype, shape: slices.Clone(s.Shape)})
	}
	slices.SortStableFunc(w.entries, func(a, b entry) int { return cmp.Compare(dtypeBits[b.dtype], dtypeBits[a.dtype]) })
	at := uint64(0)
	for i := range w.entries {
		e := &w.entries[i]
		if !utf8.ValidString(e.name) || e.name == metadataKey {
			return nil, nil, fmt.Errorf("%s cannot be a tensor's name", quote(e.name))
		}
		if _, twice := w.byName[e.name]; twice {
			return nil, nil, fmt.Errorf("tensor %s: announced twice", quote(e.name))
		}
		w.byName[e.name] = i
		size, err := byteSize(e.dtype, e.shape)
		if err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(e.name), err)
		}
		if size > math.MaxInt64-MaxHeader-8-at {
			return nil, nil, fmt.Errorf("tensor %s: the file would be longer than 2^63 bytes", quote(e.name))
		}
		e.begin, e.end = at, at+size
		at = e.end
	}
	if metadata == nil {
		metadata = map[string]string{"format": "pt"}
	}
	header, err := encodeHeader(w.entries, metadata)
	if err != nil {
		return nil, nil, err
	}
	w.start = uint64(len(header))
	return w, header, nil
}

// encodeHeader gives the length word and the JSON text, padded with spaces so
// that the data begin at a multiple of 8.
func encodeHeader(entries []entry, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	text := func(s string) {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.Encode(s) // a string never fails
		b.Truncate(b.Len() - 1)
	}
	comma := func(i int) {
		if i > 0 {
			b.WriteByte(',')
		}
	}
	text(metadataKey)
	b.WriteString(":{")
	for i, key := range slices.Sorted(maps.Keys(metadata)) {
		if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
			return nil, fmt.Errorf("metadata key %s: not UTF-8", quote(key))
		}
		comma(i)
		text(key)
		b.WriteByte(':')
		text(metadata[key])
	}
	b.WriteByte('}')
	for _, e := range entries {
		b.WriteByte(',')
		text(e.name)
		b.WriteString(`:{"dtype":`)
		text(e.dtype)
		b.WriteString(`,"shape":[`)
		for i, d := range e.shape {
			comma(i)
			fmt.Fprint(&b, d)
		}
		fmt.Fprintf(&b, `],"data_offsets":[%d,%d]}`, e.begin, e.end)
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	n := b.Len() - 8
	if n > MaxHeader {
		return nil, fmt.Errorf("header would take %d bytes, above %d: too many tensors for one file", n, MaxHeader)
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(n))
	return b.Bytes(), nil
}

// Write writes data of a tensor. Tensors may come in any order, and a tensor
// in several pieces, each continuing the one before.
func (w *Writer) Write(name string, data []byte) error {
	if w.err != nil {
		return w.err
	}
	i, ok := w.byName[name]
	if !ok {
		return w.fail("tensor %s was not announced", quote(name))
	}
	e := w.entries[i]
	want, got := e.end-e.begin, w.written[i]+uint64(len(data))
	if got > want {
		return w.fail("tensor %s: %d bytes written, but shape %v of %s takes %d", quote(name), got, e.shape, e.dtype, want)
	}
	if _, err := w.file.WriteAt(data, int64(w.start+e.begin+w.written[i])); err != nil {
		w.err = fmt.Errorf("safetensors: tensor %s: %w", quote(name), err)
		return w.err
	}
	w.written[i] = got
	return nil
}

func (w *Writer) fail(format string, args ...any) error {
	w.err = fmt.Errorf("safetensors: %s: %w", w.path, fmt.Errorf(format, args...))
	return w.err
}

// Close checks that every announced tensor has all its data, syncs the file
// and gives it its name. Otherwise it removes what was written and says what
// was wrong.
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
			return w.fail("tensor %s: %d bytes written, but shape %v of %s takes %d",
				quote(e.name), w.written[i], e.shape, e.dtype, want)
		}
	}
	if err := w.file.Commit(); err != nil {
		w.err = fmt.Errorf("safetensors: %w", err)
		return w.err
	}
	w.err = errClosed
	return nil
}

// Abort removes what was written. After Close it does nothing, so that it can
// be deferred.
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

var errClosed = errors.New("safetensors: write after Close or Abort")
