// Package parquet reads Apache Parquet files row by row, as JSON.
//
// It implements the format of https://github.com/apache/parquet-format: nested columns (lists, maps, structs), all
// encodings that writers use today, pages of both versions, and the codecs none, snappy, gzip, zstd and lz4_raw. What
// it is for is data sets: it reads forward only, and every column.
//
// Memory is bounded by one page and one dictionary for each column. Every length is checked against the bytes that are
// there before anything is allocated; a file can be wrong, but not expensive.
//
// Rows become JSON objects in the order of the columns. A field that is null is left out of its object, so that a row
// is the same as in the JSON from which such files are made, where the fields that other rows have are absent. Null
// elements of lists stay. Dates and times are ISO 8601 text, decimals numbers, maps objects, bytes that aren't text
// base64.
package parquet

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"ringtail/data/columnar"
)

// Reader reads the rows of one file. It isn't safe for concurrent use.
type Reader struct {
	src    io.ReaderAt
	root   *node
	footer *footer

	group   int // row groups opened so far
	left    int64
	cursors []cursor
	row     columnar.Row
	err     error
}

// BadRow is an error that concerns one row only; reading can go on.
type BadRow = columnar.BadValue

const (
	magic     = "PAR1"
	maxFooter = 64 << 20
)

// Open reads a file's metadata. A row of more than maxRow bytes of JSON is passed over.
func Open(src io.ReaderAt, size int64, maxRow int) (*Reader, error) {
	if size < 12 {
		return nil, fmt.Errorf("%d bytes are no Parquet file: it was cut off (download or copy it again)", size)
	}
	var head [4]byte
	var tail [8]byte
	if _, err := src.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	if _, err := src.ReadAt(tail[:], size-8); err != nil {
		return nil, err
	}
	switch {
	case string(head[:]) == "PARE" || string(tail[4:]) == "PARE":
		return nil, fmt.Errorf("the Parquet file is encrypted: decrypt it first")
	case string(head[:]) != magic:
		return nil, fmt.Errorf("expected %q at the beginning, found %q", magic, head)
	case string(tail[4:]) != magic:
		return nil, fmt.Errorf("expected %q at the end, found %q: it was cut off (download or copy it again)", magic, tail[4:])
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	if n > size-12 || n > maxFooter {
		return nil, fmt.Errorf("metadata of %d bytes in a file of %d: it is damaged (download or copy it again)", n, size)
	}
	b, err := readAt(src, nil, size-8-n, int(n))
	if err != nil {
		return nil, err
	}
	r := &Reader{src: src, row: columnar.Row{Limit: maxRow}}
	if r.footer, err = parseFooter(b, size-8-n); err != nil {
		return nil, fmt.Errorf("broken metadata: %w", err)
	}
	var leaves []*node
	if r.root, leaves, err = buildSchema(r.footer.schema); err != nil {
		return nil, fmt.Errorf("broken metadata: %w", err)
	}
	for i, g := range r.footer.groups {
		if len(g.chunks) != len(leaves) {
			return nil, fmt.Errorf("broken metadata: row group %d has %d columns, the schema %d", i+1, len(g.chunks), len(leaves))
		}
		if g.rows < 0 {
			return nil, fmt.Errorf("broken metadata: row group %d has %d rows", i+1, g.rows)
		}
		for k, c := range g.chunks {
			if c.kind != leaves[k].kind {
				return nil, fmt.Errorf("broken metadata: row group %d, column %q has values of type %d, the schema says %d",
					i+1, leaves[k].path, c.kind, leaves[k].kind)
			}
		}
	}
	r.cursors = make([]cursor, len(leaves))
	for i, leaf := range leaves {
		r.cursors[i].leaf = leaf
	}
	return r, nil
}

// Rows is the number of rows that the metadata claim.
func (r *Reader) Rows() int64 { return r.footer.rows }

// Group is the number of the row group that is being read, from 1, and Groups how many there are.
func (r *Reader) Group() int  { return r.group }
func (r *Reader) Groups() int { return len(r.footer.groups) }

// Offset is about how far into the file the reader is.
func (r *Reader) Offset() int64 {
	var at int64
	for i := range r.cursors {
		at = max(at, r.cursors[i].at)
	}
	return at
}

// Next returns the next row's JSON, good until the next call; io.EOF behind the last row. tooLarge says that the row
// is larger than the limit; row is then nil. A *BadRow concerns one row; any other error is final.
func (r *Reader) Next() (row []byte, tooLarge bool, err error) {
	if r.err != nil {
		return nil, false, r.err
	}
	for r.left == 0 {
		if r.group == len(r.footer.groups) {
			r.err = io.EOF
			return nil, false, r.err
		}
		g := r.footer.groups[r.group]
		r.group++
		r.left = g.rows
		for i := range r.cursors {
			c := &r.cursors[i]
			*c = cursor{src: r.src, leaf: c.leaf, chunk: g.chunks[i], at: g.chunks[i].start,
				head: c.head, packed: c.packed, page: c.page, dictPage: c.dictPage}
		}
	}
	r.left--
	r.row.Reset()
	for i := range r.cursors {
		c := &r.cursors[i]
		c.inRow = 0
		if more, err := c.peek(); err != nil || !more || c.rep != 0 {
			if err == nil {
				err = fmt.Errorf("it has fewer rows than the metadata say")
			}
			return nil, false, r.fail(c, err)
		}
	}
	if err := r.object(r.root); err != nil {
		r.err = err
		return nil, false, err
	}
	switch {
	case r.row.Over:
		return nil, true, nil
	case r.row.Bad != nil:
		return nil, false, r.row.Bad
	}
	return r.row.Buf, false, nil
}

// fail makes the final error about a column.
func (r *Reader) fail(c *cursor, err error) error {
	r.err = fmt.Errorf("row group %d, column %q: %w", r.group, c.leaf.path, err)
	return r.err
}

// object writes a group's columns as an object.
func (r *Reader) object(n *node) error {
	return columnar.Object(&r.row, n.children, func(child *node) string { return child.key }, r.value)
}

// value writes a column's value. there is false, and nothing written, where it is null.
func (r *Reader) value(n *node) (there bool, err error) {
	switch n.repetition {
	case optional:
		c := &r.cursors[n.first]
		if _, err := c.peek(); err != nil {
			return false, r.fail(c, err)
		}
		if c.def < n.def {
			return false, r.pass(n)
		}
	case repeated: // a list without the annotation of one
		return true, r.list(n, func() (bool, error) { return true, r.content(n) })
	}
	return true, r.content(n)
}

// pass goes over the place of a null, or of an empty list, in all columns below n.
func (r *Reader) pass(n *node) error {
	for i := n.first; i < n.last; i++ {
		c := &r.cursors[i]
		more, err := c.peek()
		if err == nil && (!more || c.def >= n.def) {
			err = fmt.Errorf("its levels contradict those of the columns beside it")
		}
		if err != nil {
			return r.fail(c, err)
		}
		c.ok = false
	}
	return nil
}

// content writes what n holds, now that it is known to be there.
func (r *Reader) content(n *node) error {
	switch {
	case n.leaf >= 0:
		return r.leaf(n)
	case n.item != nil:
		inner := n.children[0]
		return r.list(inner, func() (bool, error) {
			if n.item == inner {
				return true, r.content(inner)
			}
			return r.value(n.item)
		})
	case n.keys != nil:
		return r.mapping(n)
	}
	return r.object(n)
}

// list writes the elements of the repeated node n.
func (r *Reader) list(n *node, element func() (bool, error)) error {
	r.row.Raw("[")
	first := true
	err := r.repeat(n, func() error {
		if !first {
			r.row.Raw(",")
		}
		first = false
		there, err := element()
		if !there && err == nil {
			r.row.Raw("null")
		}
		return err
	})
	r.row.Raw("]")
	return err
}

// mapping writes a map as an object. Keys that aren't text are written as text.
func (r *Reader) mapping(n *node) error {
	r.row.Raw("{")
	first := true
	err := r.repeat(n.children[0], func() error {
		mark := len(r.row.Buf)
		if !first {
			r.row.Raw(",")
		}
		keyAt := len(r.row.Buf)
		if there, err := r.value(n.keys); err != nil {
			return err
		} else if !there {
			r.row.Raw(`""`)
		}
		if key := r.row.Buf[min(keyAt, len(r.row.Buf)):]; !r.row.Over && !bytes.HasPrefix(key, []byte(`"`)) {
			text := append([]byte(nil), key...)
			r.row.Buf = r.row.Buf[:keyAt]
			r.row.Text(text, n.path)
		}
		r.row.Raw(":")
		there, err := r.value(n.values)
		if err != nil {
			return err
		}
		switch {
		case there:
			first = false
		case !r.row.Over:
			r.row.Buf = r.row.Buf[:mark]
		}
		return nil
	})
	r.row.Raw("}")
	return err
}

// repeat calls each for every element of the repeated node n.
func (r *Reader) repeat(n *node, each func() error) error {
	c := &r.cursors[n.first]
	if _, err := c.peek(); err != nil {
		return r.fail(c, err)
	}
	if c.def < n.def {
		return r.pass(n)
	}
	for {
		if err := each(); err != nil {
			return err
		}
		again := false
		for i := n.first; i < n.last; i++ {
			c := &r.cursors[i]
			if _, err := c.peek(); err != nil {
				return r.fail(c, err)
			}
			more := c.ok && c.rep == n.rep
			if c.rep > n.rep || i > n.first && more != again {
				return r.fail(c, fmt.Errorf("its levels contradict those of the columns beside it"))
			}
			again = more
		}
		if !again {
			return nil
		}
	}
}

// leaf writes one value.
func (r *Reader) leaf(n *node) error {
	c := &r.cursors[n.leaf]
	more, err := c.peek()
	if err == nil && (!more || c.def != n.def) {
		err = fmt.Errorf("its levels contradict those of the columns beside it")
	}
	if err != nil {
		return r.fail(c, err)
	}
	c.ok = false
	v, err := c.values.next()
	if err != nil {
		return r.fail(c, err)
	}
	r.write(n, v)
	return nil
}

// write writes a value as what its column means by it.
func (r *Reader) write(n *node, v value) {
	w := &r.row
	switch n.kind {
	case typeBoolean:
		w.Bool(v.bits != 0)
	case typeFloat, typeDouble:
		w.Float(v.float(n.kind))
	case typeInt32, typeInt64:
		i := int64(v.bits)
		switch {
		case n.logical == unsignedValue && n.kind == typeInt32:
			w.Uint(uint64(uint32(v.bits)))
		case n.logical == unsignedValue:
			w.Uint(v.bits)
		case n.logical == decimalValue:
			w.Decimal(binary.BigEndian.AppendUint64(nil, v.bits), n.scale, n.path)
		case n.logical == dateValue:
			w.Date(i)
		case n.logical == timestampValue && n.unit > 0:
			w.Timestamp(i, n.unit)
		case n.logical == timeValue && n.unit > 0:
			w.Clock(i, n.unit)
		default:
			w.Int(i)
		}
	case typeInt96: // nanoseconds of the day, and the Julian day
		const julian1970, perDay = 2440588, int64(86400)
		nanos, day := int64(binary.LittleEndian.Uint64(v.bytes)), int64(binary.LittleEndian.Uint32(v.bytes[8:]))
		w.Moment((day-julian1970)*perDay, nanos)
	default:
		switch {
		case n.logical == textValue:
			w.Text(v.bytes, n.path)
		case n.logical == jsonValue && json.Valid(v.bytes):
			w.Raw(string(v.bytes))
		case n.logical == decimalValue:
			w.Decimal(v.bytes, n.scale, n.path)
		case n.logical == halfValue && len(v.bytes) == 2:
			w.Float(columnar.Half(binary.LittleEndian.Uint16(v.bytes)), 32)
		case n.logical == uuidValue && len(v.bytes) == 16:
			w.Raw(fmt.Sprintf(`"%x-%x-%x-%x-%x"`, v.bytes[:4], v.bytes[4:6], v.bytes[6:8], v.bytes[8:10], v.bytes[10:]))
		default:
			w.Bytes(v.bytes, n.path)
		}
	}
}
