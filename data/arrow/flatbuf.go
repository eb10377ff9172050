package arrow

import (
	"encoding/binary"
	"fmt"
)

// flat reads FlatBuffers (https://flatbuffers.dev/internals), in which Arrow writes its metadata. Nothing in the bytes
// is trusted: every place is checked before it is read. The first error stays, and what follows is zero or empty.
type flat struct {
	b   []byte
	err error
}

func (f *flat) fail(format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf(format, args...)
	}
}

// at returns n bytes at a place, or zeros if they aren't there.
func (f *flat) at(pos int64, n int) []byte {
	if pos < 0 || int64(n) > int64(len(f.b)) || pos > int64(len(f.b)-n) {
		f.fail("the metadata point outside of their %d bytes", len(f.b))
		return make([]byte, n)
	}
	return f.b[pos : pos+int64(n)]
}

func (f *flat) u16(pos int64) int64 { return int64(binary.LittleEndian.Uint16(f.at(pos, 2))) }
func (f *flat) u32(pos int64) int64 { return int64(binary.LittleEndian.Uint32(f.at(pos, 4))) }
func (f *flat) i64(pos int64) int64 { return int64(binary.LittleEndian.Uint64(f.at(pos, 8))) }

// table is a table of a flat buffer. The zero table has no fields.
type table struct {
	f      *flat
	pos    int64
	vtable int64
	size   int64 // of the vtable in bytes
}

// table is the table at a place.
func (f *flat) table(pos int64) table {
	vtable := pos - int64(int32(f.u32(pos)))
	size := f.u16(vtable)
	if f.err == nil && (size < 4 || vtable+size > int64(len(f.b))) {
		f.fail("the metadata hold a broken table")
	}
	if f.err != nil {
		return table{f: f}
	}
	return table{f, pos, vtable, size}
}

// field is the place of field i; 0 where it is absent.
func (t table) field(i int) int64 {
	slot := int64(4 + 2*i)
	if slot+2 > t.size {
		return 0
	}
	off := t.f.u16(t.vtable + slot)
	if off == 0 {
		return 0
	}
	return t.pos + off
}

func (t table) byte(i int) byte {
	if p := t.field(i); p != 0 {
		return t.f.at(p, 1)[0]
	}
	return 0
}

func (t table) short(i int, absent int) int {
	if p := t.field(i); p != 0 {
		return int(int16(t.f.u16(p)))
	}
	return absent
}

func (t table) int(i int, absent int) int {
	if p := t.field(i); p != 0 {
		return int(int32(t.f.u32(p)))
	}
	return absent
}

func (t table) long(i int) int64 {
	if p := t.field(i); p != 0 {
		return t.f.i64(p)
	}
	return 0
}

// table is the table that field i refers to.
func (t table) table(i int) (table, bool) {
	p := t.field(i)
	if p == 0 {
		return table{f: t.f}, false
	}
	return t.f.table(p + t.f.u32(p)), true
}

// vector is the place and number of a vector's elements, each of so many bytes.
func (t table) vector(i int, size int64) (pos int64, n int) {
	p := t.field(i)
	if p == 0 {
		return 0, 0
	}
	p += t.f.u32(p)
	count := t.f.u32(p)
	if p += 4; t.f.err == nil && count > (int64(len(t.f.b))-p)/size {
		t.f.fail("the metadata hold a list of %d elements in %d bytes", count, len(t.f.b))
	}
	if t.f.err != nil {
		return 0, 0
	}
	return p, int(count)
}

// tables calls each for the tables of a vector.
func (t table) tables(i int, each func(table)) {
	p, n := t.vector(i, 4)
	for k := range int64(n) {
		if t.f.err != nil {
			return
		}
		at := p + 4*k
		each(t.f.table(at + t.f.u32(at)))
	}
}

// string is a string of at most most bytes. Many tables can share one string, so that a limit is needed.
func (t table) string(i, most int) string {
	p, n := t.vector(i, 1)
	if n > most {
		t.f.fail("the metadata hold a name of %d bytes, expected at most %d", n, most)
		return ""
	}
	return string(t.f.at(p, n))
}

// is says whether a string field has a value.
func (t table) is(i int, value string) bool {
	p, n := t.vector(i, 1)
	return n == len(value) && string(t.f.at(p, n)) == value
}
