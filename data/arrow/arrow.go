// Package arrow reads Apache Arrow IPC files and streams row by row, as JSON.
//
// It implements the format of https://arrow.apache.org/docs/format/Columnar.html as the Python package datasets caches
// and saves it, and as Feather version 2 has it: streams and files of record batches, dictionaries and deltas of them,
// buffers compressed with LZ4 or zstd, and all types but unions, intervals, run-end encoded columns and list views.
//
// Of a file, record batches are read through windows of 64 KiB a buffer, so that a batch may be as large as it likes; of
// a stream (a compressed file), and of compressed buffers, one batch is held. Dictionaries are held. Every length is
// checked against the bytes that are there before anything is allocated.
//
// Rows become JSON objects as those of package data/parquet do.
package arrow

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"ringtail/data/columnar"
)

// Reader reads the rows of one file or stream. It isn't safe for concurrent use.
type Reader struct {
	in   io.Reader   // of a stream
	src  io.ReaderAt // of a file
	at   int64       // how far the messages are read
	size int64       // of the file; of a stream unknown: math.MaxInt64

	fields       []*field
	values       map[int64]*field // of dictionaries
	dictionaries map[int64]*dictionary

	// blocks is where the messages of a file are, the dictionaries' before those of the batches; a stream's follow one
	// another.
	blocks   []int64
	isBlocks bool

	batch   int
	columns []*array
	next    int64 // row of the batch
	length  int64
	row     columnar.Row
	err     error
}

// BadRow is an error that concerns one row only; reading can go on.
type BadRow = columnar.BadValue

// Magic begins and ends a file; a stream begins with StreamMark.
const (
	Magic      = "ARROW1"
	StreamMark = "\xff\xff\xff\xff"
)

const (
	maxMetadata = 64 << 20
	isSchema    = 1
	isDict      = 2
	isBatch     = 3
)

// Open reads the schema of a file, or of a stream that is a file. A row of more than maxRow bytes of JSON is passed
// over.
func Open(src io.ReaderAt, size int64, maxRow int) (*Reader, error) {
	r := &Reader{src: src, size: size, row: columnar.Row{Limit: maxRow}}
	var head, tail [8]byte
	if size >= 8 {
		if _, err := src.ReadAt(head[:], 0); err != nil {
			return nil, err
		}
		if _, err := src.ReadAt(tail[:], size-8); err != nil {
			return nil, err
		}
	}
	if string(head[:6]) == Magic {
		if string(tail[2:]) != Magic || size < 24 {
			return nil, fmt.Errorf("expected %q at the end: it was cut off (download or copy it again)", Magic)
		}
		return r, r.readFooter()
	}
	return r, r.start()
}

// readFooter reads the Footer of File.fbs: the schema, and where the messages are. It stands before its length and the
// magic.
func (r *Reader) readFooter() error {
	end := r.size - int64(len(Magic)) - 4
	r.at = end
	b, err := r.take(4)
	if err != nil {
		return err
	}
	n := int64(binary.LittleEndian.Uint32(b))
	if n > maxMetadata || n > end-8 {
		return fmt.Errorf("a footer of %d bytes in a file of %d: it is damaged (download or copy it again)", n, r.size)
	}
	r.at = end - n
	if b, err = r.take(n); err != nil {
		return err
	}
	f := &flat{b: b}
	t := f.table(f.u32(0))
	schema, ok := t.table(1)
	if f.err == nil && !ok {
		f.fail("the footer has no schema")
	}
	if f.err != nil {
		return fmt.Errorf("broken footer: %w", f.err)
	}
	if err := r.useSchema(schema); err != nil {
		return err
	}
	const blockSize = 24
	for _, list := range []int{2, 3} {
		at, n := t.vector(list, blockSize)
		for i := range int64(n) {
			start := f.i64(at + blockSize*i)
			if start < 8 || start >= end {
				f.fail("a message at byte %d of %d", start, r.size)
			}
			if f.err != nil {
				return fmt.Errorf("broken footer: %w", f.err)
			}
			r.blocks = append(r.blocks, start)
		}
	}
	r.isBlocks = true
	return nil
}

// NewReader reads the schema of a stream.
func NewReader(in io.Reader, maxRow int) (*Reader, error) {
	r := &Reader{in: in, size: math.MaxInt64, row: columnar.Row{Limit: maxRow}}
	return r, r.start()
}

// start reads the schema.
func (r *Reader) start() error {
	kind, header, _, err := r.message()
	if err == io.EOF {
		err = errors.New("it holds no schema")
	}
	if err == nil && kind != isSchema {
		err = fmt.Errorf("expected a schema at first, found a message of type %d", kind)
	}
	if err != nil {
		return err
	}
	return r.useSchema(header)
}

func (r *Reader) useSchema(t table) error {
	var err error
	if r.fields, err = readSchema(t); err != nil {
		return err
	}
	r.values, r.dictionaries = map[int64]*field{}, map[int64]*dictionary{}
	r.findDictionaries(r.fields)
	return nil
}

func (r *Reader) findDictionaries(fields []*field) {
	for _, f := range fields {
		if f.index != nil {
			v := *f
			v.index = nil
			r.values[f.dictionary] = &v
			if r.dictionaries[f.dictionary] == nil {
				r.dictionaries[f.dictionary] = &dictionary{}
			}
		}
		r.findDictionaries(f.children)
	}
}

// Batch is the number of the record batch that is being read, from 1.
func (r *Reader) Batch() int { return r.batch }

// Offset is how far into the file the reader is.
func (r *Reader) Offset() int64 { return r.at }

// take reads n bytes of the messages.
func (r *Reader) take(n int64) ([]byte, error) {
	if n > r.size-r.at {
		return nil, io.ErrUnexpectedEOF
	}
	if r.src != nil {
		b := make([]byte, n)
		got, err := r.src.ReadAt(b, r.at)
		if int64(got) < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		r.at += n
		return b, nil
	}
	// Memory grows with what really comes.
	var b bytes.Buffer
	got, err := io.CopyN(&b, r.in, n)
	r.at += got
	if err == io.EOF && got > 0 {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

// message reads the next message's metadata; its body follows. io.EOF at the end of the stream.
func (r *Reader) message() (kind int, header table, body int64, err error) {
	if r.src != nil && r.at == r.size {
		return 0, header, 0, io.EOF
	}
	word, err := r.take(4)
	if err != nil {
		return 0, header, 0, err
	}
	n := binary.LittleEndian.Uint32(word)
	if n == math.MaxUint32 {
		if word, err = r.take(4); err != nil {
			return 0, header, 0, cutOff(err)
		}
		n = binary.LittleEndian.Uint32(word)
	}
	if n == 0 {
		return 0, header, 0, io.EOF
	}
	if n > maxMetadata {
		return 0, header, 0, fmt.Errorf("a message of %d bytes of metadata, expected at most %d: it is damaged, or no Arrow file", n, maxMetadata)
	}
	b, err := r.take(int64(n))
	if err != nil {
		return 0, header, 0, cutOff(err)
	}
	f := &flat{b: b}
	t := f.table(f.u32(0))
	kind, body = int(t.byte(1)), t.long(3)
	header, ok := t.table(2)
	if f.err == nil && (!ok || body < 0 || body > r.size-r.at) {
		if ok && body > 0 {
			return 0, header, 0, cutOff(io.ErrUnexpectedEOF)
		}
		f.fail("a message without content, or of %d bytes", body)
	}
	return kind, header, body, f.err
}

func cutOff(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readBody makes the body that follows a message available, in memory or as windows into the file.
func (r *Reader) readBody(size int64, hold bool) (body, error) {
	if r.src != nil && !hold {
		start := r.at
		r.at += size
		return body{size: size, get: func(at, n int64) (buffer, error) {
			return buffer{src: r.src, at: start + at, size: n}, nil
		}}, nil
	}
	if size > columnar.MaxBlock {
		return body{}, fmt.Errorf("a batch of %d bytes, expected at most %d here: unpack the file, or write smaller batches", size, columnar.MaxBlock)
	}
	b, err := r.take(size)
	return body{size: size, get: func(at, n int64) (buffer, error) { return buffer{b: b[at : at+n]}, nil }}, cutOff(err)
}

// nextBatch reads messages up to the next record batch.
func (r *Reader) nextBatch() error {
	for {
		if r.isBlocks {
			if len(r.blocks) == 0 {
				return io.EOF
			}
			r.at, r.blocks = r.blocks[0], r.blocks[1:]
		}
		kind, header, size, err := r.message()
		if r.isBlocks && err == io.EOF {
			err = errors.New("the footer points to no message")
		}
		if err != nil {
			return err
		}
		b, err := r.readBody(size, kind == isDict)
		if err != nil {
			return err
		}
		switch kind {
		case isBatch:
			r.batch++
			if r.columns, r.length, err = readBatch(header, r.fields, b, r.dictionaries); err != nil {
				return fmt.Errorf("record batch %d: %w", r.batch, err)
			}
			r.next = 0
			return nil
		case isDict:
			id := header.long(0)
			f := r.values[id]
			data, ok := header.table(1)
			if f == nil || !ok {
				return fmt.Errorf("a dictionary %d that no column uses", id)
			}
			values, _, err := readBatch(data, []*field{f}, b, r.dictionaries)
			if err != nil {
				return fmt.Errorf("dictionary %d: %w", id, err)
			}
			d := r.dictionaries[id]
			if header.byte(2) == 0 { // a new one, rather than more of it
				d.parts = nil
			}
			d.parts = append(d.parts, values...)
		case isSchema:
			return errors.New("a second schema in one stream")
		}
	}
}

// Next returns the next row's JSON, good until the next call; io.EOF behind the last row. tooLarge says that the row is
// larger than the limit; row is then nil. A *BadRow concerns one row; any other error is final.
func (r *Reader) Next() (row []byte, tooLarge bool, err error) {
	for r.err == nil && r.next == r.length {
		r.err = r.nextBatch()
	}
	if r.err != nil {
		return nil, false, r.err
	}
	r.row.Reset()
	if err := r.object(r.columns, r.next); err != nil {
		r.err = fmt.Errorf("record batch %d, %w", r.batch, err)
		return nil, false, r.err
	}
	r.next++
	switch {
	case r.row.Over:
		return nil, true, nil
	case r.row.Bad != nil:
		return nil, false, r.row.Bad
	}
	return r.row.Buf, false, nil
}

// object writes element i of the columns of a struct.
func (r *Reader) object(columns []*array, i int64) error {
	return columnar.Object(&r.row, columns, func(c *array) string { return c.key }, func(c *array) (bool, error) { return r.value(c, i, 0) })
}

// value writes element i of a column. there is false, and nothing written, where it is null. depth counts dictionaries
// within dictionaries.
func (r *Reader) value(a *array, i int64, depth int) (there bool, err error) {
	if there, err = r.element(a, i, depth); err != nil && a.path != "" {
		var named *columnError
		if !errors.As(err, &named) {
			err = &columnError{a.path, err}
		}
	}
	return there, err
}

// columnError names the column of an error.
type columnError struct {
	column string
	err    error
}

func (e *columnError) Error() string { return fmt.Sprintf("column %q: %v", e.column, e.err) }
func (e *columnError) Unwrap() error { return e.err }

func (r *Reader) element(a *array, i int64, depth int) (there bool, err error) {
	if i < 0 || i >= a.length {
		return false, fmt.Errorf("it has %d values, value %d is asked for", a.length, i+1)
	}
	if a.kind == kindNull && a.index == nil {
		return false, nil
	}
	if a.nulls {
		b, err := a.validity.get(i>>3, 1)
		if err != nil {
			return false, err
		}
		if b[0]>>(i&7)&1 == 0 {
			return false, nil
		}
	}
	if a.index != nil {
		return r.indexed(a, i, depth)
	}
	w := &r.row
	switch a.kind {
	case kindStruct:
		return true, r.object(a.children, i)
	case kindList, kindLargeList, kindMap:
		from, to, err := a.bounds(i)
		if err != nil {
			return false, err
		}
		if a.kind == kindMap {
			return true, r.mapping(a.children[0], from, to, depth)
		}
		return true, r.list(a.children[0], from, to, depth)
	case kindFixedSizeList:
		size := int64(a.size)
		if i > math.MaxInt64/max(size, 1)-1 {
			return false, errors.New("its lists are too long")
		}
		return true, r.list(a.children[0], i*size, (i+1)*size, depth)
	case kindBinary, kindUtf8, kindLargeBinary, kindLargeUtf8:
		from, to, err := a.bounds(i)
		if err != nil {
			return false, err
		}
		if to-from > int64(w.Limit) && to <= a.data.length() {
			w.Over = true // not worth reading
			return true, nil
		}
		b, err := a.data.get(from, to-from)
		if err != nil {
			return false, err
		}
		r.bytes(a.field, b)
	case kindBinaryView, kindUtf8View:
		b, err := a.view(i)
		if err != nil {
			return false, err
		}
		r.bytes(a.field, b)
	case kindBool:
		b, err := a.data.get(i>>3, 1)
		if err != nil {
			return false, err
		}
		w.Bool(b[0]>>(i&7)&1 == 1)
	default:
		size := int64(a.width / 8)
		if size > int64(w.Limit) {
			w.Over = true
			return true, nil
		}
		b, err := a.data.get(i*size, size)
		if err != nil {
			return false, err
		}
		r.fixed(a.field, b)
	}
	return true, nil
}

// indexed writes the value of a dictionary.
func (r *Reader) indexed(a *array, i int64, depth int) (bool, error) {
	if depth > maxDepth {
		return false, errors.New("dictionaries refer to each other")
	}
	size := int64(a.index.width / 8)
	b, err := a.data.get(i*size, size)
	if err != nil {
		return false, err
	}
	k := int64(whole(b))
	if a.index.signed {
		k = signExtend(uint64(k), a.index.width)
	}
	total := int64(0)
	for _, part := range a.dict.parts {
		if k >= total && k < total+part.length {
			return r.value(part, k-total, depth+1)
		}
		total += part.length
	}
	return false, fmt.Errorf("a value refers to entry %d of a dictionary of %d", k, total)
}

// list writes elements as a list.
func (r *Reader) list(a *array, from, to int64, depth int) error {
	r.row.Raw("[")
	for i := from; i < to && !r.row.Over; i++ {
		if i > from {
			r.row.Raw(",")
		}
		there, err := r.value(a, i, depth)
		if err != nil {
			return err
		}
		if !there {
			r.row.Raw("null")
		}
	}
	r.row.Raw("]")
	return nil
}

// mapping writes entries as an object. Keys that aren't text are written as text.
func (r *Reader) mapping(entries *array, from, to int64, depth int) error {
	keys, values := entries.children[0], entries.children[1]
	r.row.Raw("{")
	first := true
	for i := from; i < to && !r.row.Over; i++ {
		mark := len(r.row.Buf)
		if !first {
			r.row.Raw(",")
		}
		keyAt := len(r.row.Buf)
		if there, err := r.value(keys, i, depth); err != nil {
			return err
		} else if !there {
			r.row.Raw(`""`)
		}
		if key := r.row.Buf[min(keyAt, len(r.row.Buf)):]; !r.row.Over && !bytes.HasPrefix(key, []byte(`"`)) {
			text := bytes.Clone(key)
			r.row.Buf = r.row.Buf[:keyAt]
			r.row.Text(text, keys.path)
		}
		r.row.Raw(":")
		there, err := r.value(values, i, depth)
		if err != nil {
			return err
		}
		switch {
		case there:
			first = false
		case !r.row.Over:
			r.row.Buf = r.row.Buf[:mark]
		}
	}
	r.row.Raw("}")
	return nil
}

// bounds are where value i lies in a list's elements or a text's bytes.
func (a *array) bounds(i int64) (from, to int64, err error) {
	size := int64(4)
	if a.kind == kindLargeBinary || a.kind == kindLargeUtf8 || a.kind == kindLargeList {
		size = 8
	}
	b, err := a.offsets.get(i*size, 2*size)
	if err != nil {
		return 0, 0, err
	}
	from, to = signExtend(whole(b[:size]), int(8*size)), signExtend(whole(b[size:]), int(8*size))
	if from < 0 || to < from {
		return 0, 0, fmt.Errorf("value %d lies from %d to %d", i+1, from, to)
	}
	return from, to, nil
}

// view is value i of a view column: in the view itself up to 12 bytes, else in one of the data buffers.
func (a *array) view(i int64) ([]byte, error) {
	v, err := a.offsets.get(16*i, 16)
	if err != nil {
		return nil, err
	}
	n := int64(int32(binary.LittleEndian.Uint32(v)))
	if n >= 0 && n <= 12 {
		return v[4 : 4+n], nil
	}
	k, at := binary.LittleEndian.Uint32(v[8:]), binary.LittleEndian.Uint32(v[12:])
	if uint64(k) >= uint64(len(a.views)) {
		return nil, fmt.Errorf("a value refers to buffer %d of %d", k, len(a.views))
	}
	return a.views[k].get(int64(at), n)
}

// bytes writes a value of bytes.
func (r *Reader) bytes(f *field, b []byte) {
	switch {
	case f.json && json.Valid(b):
		r.row.Raw(string(b))
	case f.isText():
		r.row.Text(b, f.path)
	default:
		r.row.Bytes(b, f.path)
	}
}

// fixed writes a value of a fixed size.
func (r *Reader) fixed(f *field, b []byte) {
	w := &r.row
	switch f.kind {
	case kindInt:
		if f.signed {
			w.Int(signExtend(whole(b), f.width))
		} else {
			w.Uint(whole(b))
		}
	case kindFloat:
		switch f.width {
		case 16:
			w.Float(columnar.Half(binary.LittleEndian.Uint16(b)), 32)
		case 32:
			w.Float(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
		default:
			w.Float(math.Float64frombits(binary.LittleEndian.Uint64(b)), 64)
		}
	case kindDecimal:
		big := make([]byte, len(b))
		for i := range b {
			big[len(b)-1-i] = b[i]
		}
		w.Decimal(big, f.scale, f.path)
	case kindDate:
		v := signExtend(whole(b), f.width)
		if f.unit > 0 {
			v = floorDiv(v, 86400*1000)
		}
		w.Date(v)
	case kindTime:
		w.Clock(signExtend(whole(b), f.width), f.unit)
	case kindTimestamp:
		w.Timestamp(signExtend(whole(b), f.width), f.unit)
	case kindDuration:
		w.Int(signExtend(whole(b), f.width))
	default:
		w.Bytes(b, f.path)
	}
}

// whole is a little-endian number of up to 8 bytes.
func whole(b []byte) uint64 {
	var v uint64
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// signExtend is a number of so many bits as a signed one.
func signExtend(v uint64, bits int) int64 { return int64(v<<(64-bits)) >> (64 - bits) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
