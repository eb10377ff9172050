package arrow

import (
	"encoding/binary"
	"fmt"
	"io"

	"ringtail/data/columnar"
)

// buffer is one buffer of a batch: in memory, or a part of a file that is read through a window. Rows are read in
// order, and so are their buffers, so that a window is read about once.
type buffer struct {
	b []byte

	src    io.ReaderAt
	at     int64
	size   int64
	window []byte
	from   int64 // where the window begins in the buffer
}

const windowBytes = 64 << 10

func (b *buffer) length() int64 {
	if b.src == nil {
		return int64(len(b.b))
	}
	return b.size
}

// get returns n bytes at a place, good until the next call.
func (b *buffer) get(at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || n > b.length() || at > b.length()-n {
		return nil, fmt.Errorf("it refers to %d bytes at %d of a buffer of %d", n, at, b.length())
	}
	if b.src == nil {
		return b.b[at : at+n], nil
	}
	if at < b.from || at+n > b.from+int64(len(b.window)) {
		size := int(min(max(n, windowBytes), b.size-at))
		if cap(b.window) < size {
			b.window = make([]byte, size)
		}
		b.window, b.from = b.window[:size], at
		if got, err := b.src.ReadAt(b.window, b.at+at); got < size {
			b.window = b.window[:0]
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return b.window[at-b.from:][:n], nil
}

// array is a column of a batch.
type array struct {
	*field
	length   int64
	nulls    bool
	validity buffer
	offsets  buffer
	data     buffer
	views    []buffer // the data buffers of a view column
	children []*array
	dict     *dictionary
}

// dictionary is what a column of indices refers to; it may come in several parts.
type dictionary struct {
	parts []*array
}

// body finds the buffers of a message's body.
type body struct {
	// get makes a buffer of a range of the body, which the caller has checked to lie in it.
	get         func(at, n int64) (buffer, error)
	size        int64
	compression int // -1: none
}

// batchReader takes nodes and buffers of a RecordBatch in order.
type batchReader struct {
	t              table
	body           body
	nodes, buffers int64 // places of what is left
	nNodes, nBuf   int
	variadic       int64
	nVariadic      int
	dictionaries   map[int64]*dictionary
}

// readBatch makes the arrays of a RecordBatch table.
func readBatch(t table, fields []*field, b body, dictionaries map[int64]*dictionary) (arrays []*array, length int64, err error) {
	r := &batchReader{t: t, body: b, dictionaries: dictionaries}
	r.nodes, r.nNodes = t.vector(1, 16)
	r.buffers, r.nBuf = t.vector(2, 16)
	r.variadic, r.nVariadic = t.vector(4, 8)
	r.body.compression = -1
	if c, ok := t.table(3); ok {
		r.body.compression = int(c.byte(0))
		if r.body.compression > 1 || c.byte(1) != 0 {
			return nil, 0, fmt.Errorf("it is compressed by codec %d, expected LZ4 frames or zstd by buffer", c.byte(0))
		}
	}
	length = t.long(0)
	for _, f := range fields {
		a, err := r.array(f)
		if err != nil {
			return nil, 0, err
		}
		if a.length != length {
			return nil, 0, fmt.Errorf("column %q has %d values in a batch of %d rows", f.path, a.length, length)
		}
		arrays = append(arrays, a)
	}
	return arrays, length, t.f.err
}

// array makes the array of a field, with its children.
func (r *batchReader) array(f *field) (*array, error) {
	if r.nNodes == 0 {
		return nil, fmt.Errorf("column %q is missing from a batch", f.path)
	}
	r.nNodes--
	a := &array{field: f, length: r.t.f.i64(r.nodes)}
	nulls := r.t.f.i64(r.nodes + 8)
	r.nodes += 16
	if a.length < 0 || a.length > 1<<40 {
		return nil, fmt.Errorf("column %q has %d values", f.path, a.length)
	}
	layout := f
	if f.index != nil {
		layout = f.index
		a.dict = r.dictionaries[f.dictionary]
	}
	need := func(b *buffer, bits int64) error {
		var err error
		if *b, err = r.next(f); err != nil {
			return err
		}
		if (bits+7)/8 > b.length() {
			return fmt.Errorf("column %q has %d values, but a buffer of only %d bytes", f.path, a.length, b.length())
		}
		return nil
	}
	if layout.kind == kindNull {
		return a, nil
	}
	var err error
	if a.validity, err = r.next(f); err != nil {
		return nil, err
	}
	if a.nulls = nulls != 0 && a.validity.length() > 0; a.nulls && a.validity.length() < (a.length+7)/8 {
		return nil, fmt.Errorf("column %q has %d values, but only %d bytes that say which are null", f.path, a.length, a.validity.length())
	}
	switch layout.kind {
	case kindBinary, kindUtf8, kindList, kindMap:
		err = need(&a.offsets, offsetBits(a.length, 32))
	case kindLargeBinary, kindLargeUtf8, kindLargeList:
		err = need(&a.offsets, offsetBits(a.length, 64))
	case kindBinaryView, kindUtf8View:
		err = need(&a.offsets, 128*a.length)
	case kindStruct, kindFixedSizeList:
	default:
		err = need(&a.data, int64(layout.width)*min(a.length, 1<<62/int64(max(layout.width, 1))))
	}
	if err != nil {
		return nil, err
	}
	switch layout.kind {
	case kindBinary, kindUtf8, kindLargeBinary, kindLargeUtf8:
		a.data, err = r.next(f)
	case kindBinaryView, kindUtf8View:
		if r.nVariadic == 0 {
			return nil, fmt.Errorf("column %q lacks the number of its buffers", f.path)
		}
		n := r.t.f.i64(r.variadic)
		r.variadic += 8
		r.nVariadic--
		for ; n > 0 && err == nil; n-- {
			var b buffer
			if b, err = r.next(f); err == nil {
				a.views = append(a.views, b)
			}
		}
	}
	if err != nil || f.index != nil {
		return a, err
	}
	for _, c := range f.children {
		child, err := r.array(c)
		if err != nil {
			return nil, err
		}
		a.children = append(a.children, child)
	}
	return a, nil
}

// offsetBits is the size of a list's offsets; there may be none where there is no list.
func offsetBits(length, width int64) int64 {
	if length == 0 {
		return 0
	}
	return (length + 1) * width
}

// next takes the next buffer, unpacked.
func (r *batchReader) next(f *field) (buffer, error) {
	if r.nBuf == 0 {
		return buffer{}, fmt.Errorf("column %q lacks a buffer", f.path)
	}
	r.nBuf--
	at, n := r.t.f.i64(r.buffers), r.t.f.i64(r.buffers+8)
	r.buffers += 16
	if at < 0 || n < 0 || n > r.body.size || at > r.body.size-n {
		return buffer{}, fmt.Errorf("column %q has a buffer of %d bytes at %d in a batch of %d", f.path, n, at, r.body.size)
	}
	b, err := r.body.get(at, n)
	if err != nil || r.body.compression < 0 || n == 0 {
		return b, err
	}
	if n < 8 {
		return b, fmt.Errorf("column %q has a compressed buffer of %d bytes", f.path, n)
	}
	if n > columnar.MaxBlock {
		return b, fmt.Errorf("column %q has a compressed buffer of %d bytes, expected at most %d", f.path, n, columnar.MaxBlock)
	}
	packed, err := b.get(0, n)
	if err != nil {
		return b, err
	}
	size := int64(binary.LittleEndian.Uint64(packed))
	packed = packed[8:]
	switch {
	case size == -1:
		return buffer{b: packed}, nil
	case size < 0 || size > columnar.MaxBlock:
		return b, fmt.Errorf("column %q has a buffer of %d bytes, expected at most %d: write smaller batches", f.path, size, columnar.MaxBlock)
	}
	unpack, name := columnar.LZ4Frame, "lz4"
	if r.body.compression == 1 {
		unpack, name = columnar.Zstd, "zstd"
	}
	out, err := unpack(nil, packed, int(size))
	if err != nil {
		return b, fmt.Errorf("column %q has a damaged %s buffer: %w (download or copy the file again)", f.path, name, err)
	}
	return buffer{b: out}, nil
}
