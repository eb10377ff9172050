package arrow

import (
	"fmt"
	"strings"

	"ringtail/data/columnar"
)

// kind is the Type of Schema.fbs.
type kind byte

const (
	kindNull            kind = 1
	kindInt             kind = 2
	kindFloat           kind = 3
	kindBinary          kind = 4
	kindUtf8            kind = 5
	kindBool            kind = 6
	kindDecimal         kind = 7
	kindDate            kind = 8
	kindTime            kind = 9
	kindTimestamp       kind = 10
	kindInterval        kind = 11
	kindList            kind = 12
	kindStruct          kind = 13
	kindUnion           kind = 14
	kindFixedSizeBinary kind = 15
	kindFixedSizeList   kind = 16
	kindMap             kind = 17
	kindDuration        kind = 18
	kindLargeBinary     kind = 19
	kindLargeUtf8       kind = 20
	kindLargeList       kind = 21
	kindRunEndEncoded   kind = 22
	kindBinaryView      kind = 23
	kindUtf8View        kind = 24
	kindListView        kind = 25
	kindLargeListView   kind = 26
)

const (
	maxDepth  = 64
	maxFields = 16384 // nested ones included
	// maxProperties is how many properties of a field are looked through; extensions have two.
	maxProperties = 64
)

// field is a column, or a part of one.
type field struct {
	name, path string
	key        string // as a JSON key, with the colon
	kind       kind
	width      int // bits of a fixed-size value
	signed     bool
	scale      int
	unit       int64 // of times, in nanoseconds; 0 for days
	size       int   // of fixed-size lists
	json       bool  // text that is JSON
	children   []*field

	// index is set for a column of indices into a dictionary; the field's own type is then that of the values.
	index      *field
	dictionary int64
}

// isText says whether the values are text, in any of the layouts.
func (f *field) isText() bool {
	return f.kind == kindUtf8 || f.kind == kindLargeUtf8 || f.kind == kindUtf8View
}

// bounded says whether every element of the column takes at least a bit of the file, so that the number of rows is
// bounded by the file's size.
func (f *field) bounded() bool {
	switch {
	case f.index != nil:
		return true
	case f.kind == kindNull:
		return false
	case f.kind == kindStruct, f.kind == kindFixedSizeList && f.size > 0:
		for _, c := range f.children {
			if c.bounded() {
				return true
			}
		}
		return false
	case f.kind == kindFixedSizeList, f.kind == kindFixedSizeBinary && f.width == 0:
		return false
	}
	return true
}

// units of time, in nanoseconds.
var units = []int64{1e9, 1e6, 1e3, 1}

func unitOf(i int, f *flat) int64 {
	if i < 0 || i >= len(units) {
		f.fail("a time has the unknown unit %d", i)
		return 1
	}
	return units[i]
}

// readSchema reads a Schema table.
func readSchema(t table) ([]*field, error) {
	if t.short(0, 0) != 0 {
		return nil, fmt.Errorf("its numbers are big-endian: expected little-endian, as all common machines write")
	}
	count := 0
	var fields []*field
	t.tables(1, func(t table) { fields = append(fields, readField(t, "", 1, &count)) })
	if t.f.err != nil {
		return nil, t.f.err
	}
	bounded := false
	for _, f := range fields {
		bounded = bounded || f.bounded()
	}
	if !bounded {
		return nil, fmt.Errorf("it has no column that holds data")
	}
	return fields, nil
}

func readField(t table, parent string, depth int, count *int) *field {
	f := &field{name: t.string(0, columnar.MaxPath), kind: kind(t.byte(2))}
	f.path = f.name
	if parent != "" {
		f.path = parent + "." + f.name
	}
	if len(f.path) > columnar.MaxPath {
		t.f.fail("a column's name has %d bytes, expected at most %d", len(f.path), columnar.MaxPath)
		return f
	}
	if *count++; depth > maxDepth || *count > maxFields {
		t.f.fail("columns are nested more than %d deep, or more than %d", maxDepth, maxFields)
		return f
	}
	key := columnar.Row{Limit: 16 << 20}
	key.Text([]byte(strings.ToValidUTF8(f.name, "\ufffd")), "")
	f.key = string(key.Buf) + ":"
	if _, n := t.vector(6, 4); n <= maxProperties {
		t.tables(6, func(t table) {
			f.json = f.json || t.is(0, "ARROW:extension:name") && t.is(1, "arrow.json")
		})
	}
	t.tables(5, func(t table) { f.children = append(f.children, readField(t, f.path, depth+1, count)) })
	typ, _ := t.table(3)
	f.readType(typ)
	if d, ok := t.table(4); ok {
		f.dictionary = d.long(0)
		f.index = &field{path: f.path, kind: kindInt, width: 32, signed: true}
		if i, ok := d.table(1); ok {
			f.index.readType(i)
		}
	}
	return f
}

// readType reads the table of the field's type and checks what depends on it.
func (f *field) readType(t table) {
	want := 0 // children
	switch f.kind {
	case kindNull, kindBinary, kindUtf8, kindLargeBinary, kindLargeUtf8, kindBinaryView, kindUtf8View:
	case kindInt:
		f.width, f.signed = t.int(0, 0), t.byte(1) != 0
		if f.width != 8 && f.width != 16 && f.width != 32 && f.width != 64 {
			t.f.fail("column %q has whole numbers of %d bits", f.path, f.width)
		}
	case kindFloat:
		precision := t.short(0, 0)
		if precision < 0 || precision > 2 {
			t.f.fail("column %q has the unknown precision %d", f.path, precision)
			return
		}
		f.width = 16 << precision
	case kindBool:
		f.width = 1
	case kindDecimal:
		f.scale, f.width = t.int(1, 0), t.int(2, 128)
		if f.width != 32 && f.width != 64 && f.width != 128 && f.width != 256 {
			t.f.fail("column %q has decimals of %d bits", f.path, f.width)
		}
	case kindDate:
		f.width, f.unit = 64, 1e6
		if t.short(0, 1) == 0 {
			f.width, f.unit = 32, 0
		}
	case kindTime:
		f.unit, f.width = unitOf(t.short(0, 1), t.f), t.int(1, 32)
		if f.width != 32 && f.width != 64 {
			t.f.fail("column %q has times of %d bits", f.path, f.width)
		}
	case kindTimestamp:
		f.unit, f.width = unitOf(t.short(0, 0), t.f), 64
	case kindDuration:
		f.unit, f.width = unitOf(t.short(0, 1), t.f), 64
	case kindFixedSizeBinary:
		size := t.int(0, 0)
		if size < 0 || size > columnar.MaxBlock {
			t.f.fail("column %q has values of %d bytes", f.path, size)
			return
		}
		f.width = 8 * size
	case kindFixedSizeList:
		want = 1
		if f.size = t.int(0, 0); f.size < 0 {
			t.f.fail("column %q has lists of %d elements", f.path, f.size)
		}
	case kindList, kindLargeList, kindMap:
		want = 1
	case kindStruct:
		want = len(f.children)
	default:
		names := map[kind]string{kindInterval: "interval", kindUnion: "union", kindRunEndEncoded: "run-end encoded",
			kindListView: "list view", kindLargeListView: "list view"}
		name := names[f.kind]
		if name == "" {
			name = fmt.Sprintf("unknown (%d)", f.kind)
		}
		t.f.fail("column %q is of the type %s, which isn't read: leave it out of the file", f.path, name)
		return
	}
	if len(f.children) != want {
		t.f.fail("column %q has %d parts, expected %d", f.path, len(f.children), want)
		return
	}
	if f.kind == kindMap && (f.children[0].kind != kindStruct || len(f.children[0].children) != 2) {
		t.f.fail("column %q is a map whose entries aren't pairs", f.path)
	}
}
