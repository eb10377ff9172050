package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The types of Thrift's compact protocol (thrift-compact-protocol.md).
const (
	thriftStop   = 0
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftDouble = 7
	thriftBinary = 8
	thriftList   = 9
	thriftSet    = 10
	thriftMap    = 11
	thriftStruct = 12
	thriftUUID   = 13
)

// maxThriftDepth bounds structs within structs; Parquet's metadata needs 7.
const maxThriftDepth = 32

// errShort says that the bytes end inside of a value.
var errShort = errors.New("the bytes end too early")

// thrift reads the compact protocol. The first error stays and turns what follows into zeros, so that callers check it
// once.
type thrift struct {
	b     []byte
	at    int
	depth int
	err   error
}

func (t *thrift) fail(err error) {
	if t.err == nil {
		t.err = err
	}
	t.at = len(t.b)
}

func (t *thrift) byte() byte {
	if t.at >= len(t.b) {
		t.fail(errShort)
		return 0
	}
	t.at++
	return t.b[t.at-1]
}

func (t *thrift) uvarint() uint64 {
	v, n := binary.Uvarint(t.b[t.at:])
	switch {
	case n == 0:
		t.fail(errShort)
		return 0
	case n < 0:
		t.fail(errors.New("a number of more than 64 bits"))
		return 0
	}
	t.at += n
	return v
}

// int reads an i16, i32 or i64.
func (t *thrift) int() int64 {
	v := t.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

func (t *thrift) binary() []byte {
	n := t.uvarint()
	if n > uint64(len(t.b)-t.at) {
		t.fail(errShort)
		return nil
	}
	t.at += int(n)
	return t.b[t.at-int(n) : t.at]
}

// list reads a list's header. Every element takes at least a byte, so that n is at most what is left.
func (t *thrift) list() (kind byte, n int) {
	h := t.byte()
	size := uint64(h >> 4)
	if size == 15 {
		size = t.uvarint()
	}
	if size > uint64(len(t.b)-t.at) {
		t.fail(errShort)
		return 0, 0
	}
	return h & 15, int(size)
}

// structure calls field for each field of a struct. field reads the value and returns true, or returns false to have it
// skipped; booleans are passed in the kind.
func (t *thrift) structure(field func(id int, kind byte) bool) {
	if t.depth++; t.depth > maxThriftDepth {
		t.fail(fmt.Errorf("structs nested more than %d deep", maxThriftDepth))
	}
	id := 0
	for t.err == nil {
		h := t.byte()
		if h&15 == thriftStop {
			break
		}
		if delta := int(h >> 4); delta != 0 {
			id += delta
		} else {
			id = int(int16(t.int()))
		}
		if !field(id, h&15) {
			t.skip(h & 15)
		}
	}
	t.depth--
}

// structs reads a list of structs.
func (t *thrift) structs(kind byte, each func()) bool {
	if kind != thriftList {
		return false
	}
	of, n := t.list()
	if n > 0 && of != thriftStruct {
		t.fail(fmt.Errorf("expected a list of structs, found elements of type %d", of))
	}
	for i := 0; i < n && t.err == nil; i++ {
		each()
	}
	return true
}

func (t *thrift) skip(kind byte) {
	if t.depth++; t.depth > maxThriftDepth {
		t.fail(fmt.Errorf("values nested more than %d deep", maxThriftDepth))
	}
	defer func() { t.depth-- }()
	switch kind {
	case thriftTrue, thriftFalse:
	case thriftByte:
		t.byte()
	case thriftI16, thriftI32, thriftI64:
		t.uvarint()
	case thriftDouble:
		t.jump(8)
	case thriftUUID:
		t.jump(16)
	case thriftBinary:
		t.binary()
	case thriftList, thriftSet:
		of, n := t.list()
		for i := 0; i < n && t.err == nil; i++ {
			t.element(of)
		}
	case thriftMap:
		n := t.uvarint()
		if n == 0 {
			return
		}
		kinds := t.byte()
		for i := uint64(0); i < n && t.err == nil; i++ {
			t.element(kinds >> 4)
			t.element(kinds & 15)
		}
	case thriftStruct:
		t.structure(func(int, byte) bool { return false })
	default:
		t.fail(fmt.Errorf("a value of unknown type %d", kind))
	}
}

// element skips a value inside of a list or map, where booleans take a byte.
func (t *thrift) element(kind byte) {
	if kind == thriftTrue || kind == thriftFalse {
		t.byte()
		return
	}
	t.skip(kind)
}

func (t *thrift) jump(n int) {
	if n > len(t.b)-t.at {
		t.fail(errShort)
		return
	}
	t.at += n
}
