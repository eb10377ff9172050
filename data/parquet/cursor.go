package parquet

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"ringtail/data/columnar"
)

// maxInRow bounds the values of a column in one row: a run of few bytes can stand for any number of nulls.
const maxInRow = 1 << 28

// Kinds of pages.
const (
	dataPage       = 0
	indexPage      = 1
	dictionaryPage = 2
	dataPageV2     = 3
)

const (
	firstHeader = 4 << 10  // read at first to find a page's header
	maxHeader   = 16 << 20 // of which statistics may be the greater part
)

// pageHeader is the PageHeader struct.
type pageHeader struct {
	kind           int
	packed, size   int64
	crc            uint32
	hasCRC         bool
	values         int64
	encoding       int
	defEnc, repEnc int
	defLen, repLen int64 // of the second version
	plain          bool  // of the second version: values aren't compressed
	found          bool  // the header of the page's own kind
}

func (t *thrift) pageHeader() pageHeader {
	var h pageHeader
	h.defEnc, h.repEnc = encRLE, encRLE
	t.structure(func(id int, kind byte) bool {
		switch {
		case id == 1 && kind == thriftI32:
			h.kind = int(t.int())
		case id == 2 && kind == thriftI32:
			h.size = t.int()
		case id == 3 && kind == thriftI32:
			h.packed = t.int()
		case id == 4 && kind == thriftI32:
			h.crc, h.hasCRC = uint32(t.int()), true
		case (id == 5 || id == 7) && kind == thriftStruct:
			h.found = true
			t.structure(func(field int, kind byte) bool {
				switch {
				case kind != thriftI32:
					return false
				case field == 1:
					h.values = t.int()
				case field == 2:
					h.encoding = int(t.int())
				case field == 3 && id == 5:
					h.defEnc = int(t.int())
				case field == 4 && id == 5:
					h.repEnc = int(t.int())
				default:
					return false
				}
				return true
			})
		case id == 8 && kind == thriftStruct:
			h.found = true
			t.structure(func(field int, kind byte) bool {
				switch {
				case field == 7 && kind == thriftFalse:
					h.plain = true
				case kind != thriftI32:
					return false
				case field == 1:
					h.values = t.int()
				case field == 4:
					h.encoding = int(t.int())
				case field == 5:
					h.defLen = t.int()
				case field == 6:
					h.repLen = t.int()
				default:
					return false
				}
				return true
			})
		default:
			return false
		}
		return true
	})
	return h
}

// cursor goes through the values of one column of a row group, holding one page and the column's dictionary.
type cursor struct {
	src  io.ReaderAt
	leaf *node
	chunk
	at int64 // the next page
	ok bool  // rep and def are those of the next value

	rep, def int   // levels of the next value
	seen     int64 // levels read, of all pages
	inRow    int   // levels of the present row

	left       int64 // levels left in the page
	reps, defs *hybrid
	values     values
	dictionary []value
	dictPage   []byte

	head, packed, page []byte // buffers
}

// peek makes rep and def those of the next value; at the end of the column more is false and both are 0.
func (c *cursor) peek() (more bool, err error) {
	if c.ok {
		return true, nil
	}
	for c.left == 0 {
		if c.seen >= c.chunk.values || c.at >= c.end {
			c.rep, c.def = 0, 0
			return false, nil
		}
		if err := c.nextPage(); err != nil {
			return false, err
		}
	}
	if c.inRow++; c.inRow > maxInRow {
		return false, fmt.Errorf("a row of more than %d values", maxInRow)
	}
	c.left--
	c.seen++
	c.rep, c.def = 0, 0
	if c.reps != nil {
		v, err := c.reps.next()
		if err != nil {
			return false, err
		}
		c.rep = int(v)
	}
	if c.defs != nil {
		v, err := c.defs.next()
		if err != nil {
			return false, err
		}
		c.def = int(v)
	}
	if c.rep > c.leaf.rep || c.def > c.leaf.def {
		return false, fmt.Errorf("levels %d and %d, expected at most %d and %d", c.rep, c.def, c.leaf.rep, c.leaf.def)
	}
	c.ok = true
	return true, nil
}

// nextPage reads a page. Dictionary pages are kept, index pages passed over.
func (c *cursor) nextPage() error {
	h, err := c.header()
	if err != nil {
		return err
	}
	switch {
	case h.packed < 0 || h.packed > c.end-c.at:
		return fmt.Errorf("a page of %d bytes, but only %d follow in the column", h.packed, c.end-c.at)
	case h.size < 0 || h.size > columnar.MaxBlock:
		return fmt.Errorf("a page of %d bytes, expected at most %d", h.size, columnar.MaxBlock)
	case h.values < 0:
		return fmt.Errorf("a page of %d values", h.values)
	case h.kind != indexPage && h.kind <= dataPageV2 && !h.found:
		return fmt.Errorf("a page header of kind %d without its details", h.kind)
	}
	if c.packed, err = readAt(c.src, c.packed, c.at, int(h.packed)); err != nil {
		return err
	}
	c.at += h.packed
	if h.hasCRC && h.crc != crc32.ChecksumIEEE(c.packed) {
		return fmt.Errorf("a page's checksum is wrong: the file is damaged (download or copy it again)")
	}
	switch h.kind {
	case dataPage:
		return c.pageV1(h)
	case dataPageV2:
		return c.pageV2(h)
	case dictionaryPage:
		return c.readDictionary(h)
	}
	return nil // index pages, and whatever comes after this version of the format
}

// header reads the header of the page at c.at and moves behind it.
func (c *cursor) header() (pageHeader, error) {
	for window := int64(firstHeader); ; window *= 4 {
		n := min(window, c.end-c.at)
		var err error
		if c.head, err = readAt(c.src, c.head, c.at, int(n)); err != nil {
			return pageHeader{}, err
		}
		t := &thrift{b: c.head}
		h := t.pageHeader()
		if t.err == nil {
			c.at += int64(t.at)
			return h, nil
		}
		if t.err != errShort || n < window || window >= maxHeader {
			return h, fmt.Errorf("broken page header: %w", t.err)
		}
	}
}

// pageV1 opens a page whose levels are packed together with its values.
func (c *cursor) pageV1(h pageHeader) error {
	b, err := c.unpack(c.page, c.packed, h.size)
	if err != nil {
		return err
	}
	if c.codec != codecNone { // else b is c.packed, and another row group may be compressed
		c.page = b
	}
	c.reps, c.defs = nil, nil
	if c.leaf.rep > 0 {
		if c.reps, b, err = levels(b, h.repEnc, c.leaf.rep); err != nil {
			return err
		}
	}
	if c.leaf.def > 0 {
		if c.defs, b, err = levels(b, h.defEnc, c.leaf.def); err != nil {
			return err
		}
	}
	return c.open(h, b)
}

// levels takes the levels of a page of the first version off its beginning.
func levels(b []byte, encoding, most int) (*hybrid, []byte, error) {
	if encoding != encRLE {
		return nil, nil, fmt.Errorf("levels are encoded as %d, which only very old writers did: write the file anew", encoding)
	}
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, errValues
	}
	n := binary.LittleEndian.Uint32(b)
	return &hybrid{b: b[4 : 4+n], width: levelWidth(most)}, b[4+n:], nil
}

// pageV2 opens a page whose levels lie uncompressed before its values.
func (c *cursor) pageV2(h pageHeader) error {
	total := int64(len(c.packed))
	if h.repLen < 0 || h.defLen < 0 || h.repLen > total || h.defLen > total-h.repLen || h.repLen+h.defLen > h.size {
		return errValues
	}
	// The levels stay in the packed page, which is kept until the next one.
	reps, defs, rest := c.packed[:h.repLen], c.packed[h.repLen:h.repLen+h.defLen], c.packed[h.repLen+h.defLen:]
	c.reps, c.defs = nil, nil
	if c.leaf.rep > 0 {
		c.reps = &hybrid{b: reps, width: levelWidth(c.leaf.rep)}
	}
	if c.leaf.def > 0 {
		c.defs = &hybrid{b: defs, width: levelWidth(c.leaf.def)}
	}
	if !h.plain && len(rest) > 0 {
		out, err := c.unpack(c.page, rest, h.size-h.repLen-h.defLen)
		if err != nil {
			return err
		}
		if c.codec != codecNone {
			c.page = out
		}
		rest = out
	}
	return c.open(h, rest)
}

func (c *cursor) open(h pageHeader, b []byte) (err error) {
	c.left = h.values
	c.values, err = newValues(c.leaf, h.encoding, b, c.dictionary)
	return err
}

func (c *cursor) readDictionary(h pageHeader) error {
	if h.encoding != encPlain && h.encoding != encPlainDictionary {
		return fmt.Errorf("the dictionary is encoded as %d, expected plain values", h.encoding)
	}
	b, err := c.unpack(c.dictPage, c.packed, h.size)
	if err != nil {
		return err
	}
	if c.codec == codecNone {
		b = append(c.dictPage[:0], b...) // c.packed is read into again
	}
	c.dictPage = b
	size := int64(plainSize(c.leaf))
	if c.leaf.kind == typeByteArray {
		size = 4
	}
	if size == 0 || h.values > int64(len(b))/size {
		return fmt.Errorf("a dictionary of %d values in %d bytes", h.values, len(b))
	}
	c.dictionary = make([]value, h.values)
	plain := plainValues{b: b, kind: c.leaf.kind, length: c.leaf.length}
	for i := range c.dictionary {
		if c.dictionary[i], err = plain.next(); err != nil {
			return err
		}
	}
	return nil
}

// unpack decompresses a page; without compression it is packed itself.
func (c *cursor) unpack(dst, packed []byte, size int64) (out []byte, err error) {
	name := ""
	switch c.codec {
	case codecNone:
		if int64(len(packed)) != size {
			return nil, fmt.Errorf("a page of %d bytes, expected %d", len(packed), size)
		}
		return packed, nil
	case codecSnappy:
		name = "snappy"
		out, err = columnar.Snappy(dst, packed, int(size))
	case codecGzip:
		name = "gzip"
		out, err = columnar.Gzip(dst, packed, int(size))
	case codecZstd:
		name = "zstd"
		out, err = columnar.Zstd(dst, packed, int(size))
	case codecLZ4Raw:
		name = "lz4"
		out, err = columnar.LZ4(dst, packed, 0, int(size))
		if err == nil && int64(len(out)) != size {
			err = errValues
		}
	default:
		names := map[int]string{codecLZO: "LZO", codecBrotli: "Brotli", codecLZ4: "Hadoop's LZ4"}
		if name = names[c.codec]; name == "" {
			name = fmt.Sprintf("codec %d", c.codec)
		}
		return nil, fmt.Errorf("it is compressed with %s: expected snappy, zstd, gzip, lz4_raw or none; write the file anew", name)
	}
	if err != nil {
		return nil, fmt.Errorf("damaged %s page: %w (download or copy the file again)", name, err)
	}
	return out, nil
}

// readAt reads n bytes, which the caller knows to lie in the file, into buf or a greater one.
func readAt(src io.ReaderAt, buf []byte, at int64, n int) ([]byte, error) {
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if got, err := src.ReadAt(buf, at); got < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return buf, nil
}
