package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// value is one value of a column: a number's bits, or bytes. It is good until the next one is read.
type value struct {
	bits  uint64
	bytes []byte
}

// values yields the values of a page, one by one.
type values interface{ next() (value, error) }

// newValues makes the decoder of a page's values.
func newValues(n *node, encoding int, b []byte, dictionary []value) (values, error) {
	switch encoding {
	case encPlain:
		return &plainValues{b: b, kind: n.kind, length: n.length}, nil
	case encPlainDictionary, encDictionary:
		if dictionary == nil {
			return nil, errors.New("its values refer to a dictionary, but there is none")
		}
		if len(b) == 0 {
			return &dictValues{}, nil // a page of nulls
		}
		if b[0] > 32 {
			return nil, fmt.Errorf("dictionary indices have %d bits, expected at most 32", b[0])
		}
		return &dictValues{hybrid{b: b[1:], width: int(b[0])}, dictionary}, nil
	case encRLE:
		if n.kind == typeBoolean {
			if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
				return nil, errValues
			}
			return &rleBools{hybrid{b: b[4 : 4+binary.LittleEndian.Uint32(b)], width: 1}}, nil
		}
	case encDeltaBinary:
		if n.kind == typeInt32 || n.kind == typeInt64 {
			d, err := newDelta(b)
			if err != nil {
				return nil, err
			}
			return &deltaInts{d}, nil
		}
	case encDeltaLength:
		if n.kind == typeByteArray {
			return newDeltaLengths(b)
		}
	case encDeltaByteArray:
		if n.kind == typeByteArray || n.kind == typeFixed {
			return newDeltaBytes(b)
		}
	case encByteStreamSplit:
		if size := plainSize(n); size > 0 {
			return &splitValues{b: b, size: size, count: len(b) / size, kind: n.kind, one: make([]byte, size)}, nil
		}
	}
	return nil, fmt.Errorf("values of type %d are encoded as %d, which isn't known", n.kind, encoding)
}

// plainSize is the size of a plain value in bytes; 0 for booleans and byte arrays.
func plainSize(n *node) int {
	switch n.kind {
	case typeInt32, typeFloat:
		return 4
	case typeInt64, typeDouble:
		return 8
	case typeInt96:
		return 12
	case typeFixed:
		return n.length
	}
	return 0
}

type plainValues struct {
	b            []byte
	kind, length int
	bit          int
}

func (p *plainValues) next() (value, error) {
	take := func(n int) ([]byte, error) {
		if n > len(p.b) {
			return nil, errValues
		}
		b := p.b[:n:n]
		p.b = p.b[n:]
		return b, nil
	}
	switch p.kind {
	case typeBoolean:
		if p.bit>>3 >= len(p.b) {
			return value{}, errValues
		}
		v := p.b[p.bit>>3] >> (p.bit & 7) & 1
		p.bit++
		return value{bits: uint64(v)}, nil
	case typeInt32, typeFloat:
		b, err := take(4)
		if err != nil {
			return value{}, err
		}
		return value{bits: number(b)}, nil
	case typeInt64, typeDouble:
		b, err := take(8)
		if err != nil {
			return value{}, err
		}
		return value{bits: number(b)}, nil
	case typeInt96:
		b, err := take(12)
		return value{bytes: b}, err
	case typeFixed:
		b, err := take(p.length)
		return value{bytes: b}, err
	}
	n, err := take(4)
	if err != nil {
		return value{}, err
	}
	size := binary.LittleEndian.Uint32(n)
	if uint64(size) > uint64(len(p.b)) {
		return value{}, errValues
	}
	b, err := take(int(size))
	return value{bytes: b}, err
}

// number reads a little-endian number of 4 bytes, the sign of an int32 spread over the upper half, or of 8.
func number(b []byte) uint64 {
	if len(b) == 4 {
		return uint64(int64(int32(binary.LittleEndian.Uint32(b))))
	}
	return binary.LittleEndian.Uint64(b)
}

type dictValues struct {
	hybrid
	dictionary []value
}

func (d *dictValues) next() (value, error) {
	i, err := d.hybrid.next()
	if err != nil {
		return value{}, err
	}
	if uint64(i) >= uint64(len(d.dictionary)) {
		return value{}, fmt.Errorf("a value refers to entry %d of a dictionary of %d", i, len(d.dictionary))
	}
	return d.dictionary[i], nil
}

type rleBools struct{ hybrid }

func (r *rleBools) next() (value, error) {
	v, err := r.hybrid.next()
	return value{bits: uint64(v)}, err
}

// delta reads DELTA_BINARY_PACKED: blocks of miniblocks of bit-packed differences (Encodings.md).
type delta struct {
	b        []byte
	perMini  uint64
	minis    int
	left     uint64 // numbers that are left
	last     int64
	started  bool
	minDelta int64
	widths   []byte
	mini     []byte
	width    int
	inMini   uint64 // numbers left in the miniblock
	bit      uint64
}

// maxDeltaBlock bounds the numbers of a block, so that few bytes can't stand for many numbers.
const maxDeltaBlock = 1 << 16

func newDelta(b []byte) (*delta, error) {
	d := &delta{b: b}
	block, err := d.uvarint()
	if err != nil {
		return nil, err
	}
	minis, err := d.uvarint()
	if err != nil {
		return nil, err
	}
	if d.left, err = d.uvarint(); err != nil {
		return nil, err
	}
	if d.last, err = d.varint(); err != nil {
		return nil, err
	}
	if block == 0 || block > maxDeltaBlock || minis == 0 || minis > block || block%minis != 0 || block/minis%8 != 0 {
		return nil, fmt.Errorf("blocks of %d differences in %d parts: expected parts of a multiple of 8, at most %d in all", block, minis, maxDeltaBlock)
	}
	d.perMini, d.minis = block/minis, int(minis)
	return d, nil
}

func (d *delta) uvarint() (uint64, error) {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		return 0, errValues
	}
	d.b = d.b[n:]
	return v, nil
}

func (d *delta) varint() (int64, error) {
	v, err := d.uvarint()
	return int64(v>>1) ^ -int64(v&1), err
}

// advance reads the next miniblock's place.
func (d *delta) advance() error {
	if len(d.widths) == 0 {
		var err error
		if d.minDelta, err = d.varint(); err != nil {
			return err
		}
		if d.minis > len(d.b) {
			return errValues
		}
		d.widths, d.b = d.b[:d.minis], d.b[d.minis:]
	}
	d.width = int(d.widths[0])
	d.widths = d.widths[1:]
	if d.width > 64 {
		return fmt.Errorf("differences of %d bits, expected at most 64", d.width)
	}
	size := d.perMini * uint64(d.width) / 8
	if size > uint64(len(d.b)) {
		return errValues
	}
	d.mini, d.b = d.b[:size], d.b[size:]
	d.inMini, d.bit = d.perMini, 0
	return nil
}

func (d *delta) next() (int64, error) {
	if d.left == 0 {
		return 0, errValues
	}
	d.left--
	if !d.started {
		d.started = true
		return d.last, nil
	}
	if d.inMini == 0 {
		if err := d.advance(); err != nil {
			return 0, err
		}
	}
	d.inMini--
	d.last += d.minDelta + int64(unpack64(d.mini, d.bit, d.width))
	d.bit += uint64(d.width)
	return d.last, nil
}

// rest passes over all numbers without decoding them and returns the bytes behind.
func (d delta) rest() ([]byte, error) {
	if d.left > 0 {
		d.left--
	}
	for d.left > 0 {
		if err := d.advance(); err != nil {
			return nil, err
		}
		d.left -= min(d.left, d.perMini)
	}
	// The block's other miniblocks are empty, whatever their widths say.
	return d.b, nil
}

type deltaInts struct{ *delta }

func (d *deltaInts) next() (value, error) {
	v, err := d.delta.next()
	return value{bits: uint64(v)}, err
}

// deltaLengths reads DELTA_LENGTH_BYTE_ARRAY: all lengths, then all bytes.
type deltaLengths struct {
	lengths *delta
	b       []byte
}

func newDeltaLengths(b []byte) (*deltaLengths, error) {
	lengths, err := newDelta(b)
	if err != nil {
		return nil, err
	}
	rest, err := lengths.rest()
	return &deltaLengths{lengths, rest}, err
}

func (d *deltaLengths) next() (value, error) {
	n, err := d.lengths.next()
	if err != nil {
		return value{}, err
	}
	if n < 0 || n > int64(len(d.b)) {
		return value{}, errValues
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return value{bytes: b}, nil
}

// deltaBytes reads DELTA_BYTE_ARRAY: how much each value shares with the one before it, then the rests.
type deltaBytes struct {
	prefixes *delta
	suffixes *deltaLengths
	last     []byte
}

func newDeltaBytes(b []byte) (*deltaBytes, error) {
	prefixes, err := newDelta(b)
	if err != nil {
		return nil, err
	}
	rest, err := prefixes.rest()
	if err != nil {
		return nil, err
	}
	suffixes, err := newDeltaLengths(rest)
	return &deltaBytes{prefixes: prefixes, suffixes: suffixes}, err
}

func (d *deltaBytes) next() (value, error) {
	n, err := d.prefixes.next()
	if err != nil {
		return value{}, err
	}
	suffix, err := d.suffixes.next()
	if err != nil {
		return value{}, err
	}
	if n < 0 || n > int64(len(d.last)) {
		return value{}, errValues
	}
	d.last = append(d.last[:n], suffix.bytes...)
	return value{bytes: d.last}, nil
}

// splitValues reads BYTE_STREAM_SPLIT: all first bytes, all second bytes, ...
type splitValues struct {
	b               []byte
	size, count, at int
	kind            int
	one             []byte
}

func (s *splitValues) next() (value, error) {
	if s.at >= s.count {
		return value{}, errValues
	}
	for i := range s.one {
		s.one[i] = s.b[i*s.count+s.at]
	}
	s.at++
	if s.kind == typeFixed || s.kind == typeInt96 {
		return value{bytes: s.one}, nil
	}
	return value{bits: number(s.one)}, nil
}

// float is a value's number.
func (v value) float(kind int) (float64, int) {
	if kind == typeFloat {
		return float64(math.Float32frombits(uint32(v.bits))), 32
	}
	return math.Float64frombits(v.bits), 64
}
