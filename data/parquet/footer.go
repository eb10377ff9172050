package parquet

import (
	"fmt"
	"math"
)

// Physical types, repetitions, codecs and encodings, by their numbers in parquet.thrift.
const (
	typeBoolean = iota
	typeInt32
	typeInt64
	typeInt96
	typeFloat
	typeDouble
	typeByteArray
	typeFixed
)

const (
	required = iota
	optional
	repeated
)

const (
	codecNone = iota
	codecSnappy
	codecGzip
	codecLZO
	codecBrotli
	codecLZ4
	codecZstd
	codecLZ4Raw
)

const (
	encPlain           = 0
	encPlainDictionary = 2
	encRLE             = 3
	encDeltaBinary     = 5
	encDeltaLength     = 6
	encDeltaByteArray  = 7
	encDictionary      = 8
	encByteStreamSplit = 9
)

// logical is what the bytes of a column mean.
type logical int

const (
	plainValue logical = iota
	textValue
	listValue
	mapValue
	decimalValue
	dateValue
	timeValue
	timestampValue
	unsignedValue
	uuidValue
	halfValue
	jsonValue
)

// element is one entry of the flattened schema.
type element struct {
	name       string
	kind       int // physical type, -1 for groups
	length     int // of fixed-length byte arrays
	repetition int
	children   int
	logical    logical
	scale      int
	unit       int64 // of times, in nanoseconds
}

// chunk is where a column's values of one row group lie.
type chunk struct {
	kind       int
	codec      int
	values     int64
	start, end int64
}

type rowGroup struct {
	rows   int64
	chunks []chunk
}

type footer struct {
	schema []element
	rows   int64
	groups []rowGroup
}

// Bounds of what few bytes of metadata could stand for.
const (
	maxElements = 4 * maxColumns
	maxGroups   = 1 << 20
)

// parseFooter reads the FileMetaData struct. Places are checked against the file's size.
func parseFooter(b []byte, size int64) (*footer, error) {
	t := &thrift{b: b}
	f := &footer{}
	t.structure(func(id int, kind byte) bool {
		switch {
		case id == 2:
			return t.structs(kind, func() {
				if f.schema = append(f.schema, t.schemaElement()); len(f.schema) > maxElements {
					t.fail(fmt.Errorf("more than %d columns and groups", maxElements))
				}
			})
		case id == 3 && kind == thriftI64:
			f.rows = t.int()
		case id == 4:
			return t.structs(kind, func() {
				if f.groups = append(f.groups, t.rowGroup(size)); len(f.groups) > maxGroups {
					t.fail(fmt.Errorf("more than %d row groups", maxGroups))
				}
			})
		case id == 8:
			t.fail(fmt.Errorf("it is encrypted: decrypt it first"))
		default:
			return false
		}
		return true
	})
	if t.err != nil {
		return nil, t.err
	}
	if len(f.schema) == 0 {
		return nil, fmt.Errorf("it has no schema")
	}
	return f, nil
}

func (t *thrift) schemaElement() element {
	e := element{kind: -1}
	hasLogical := false
	t.structure(func(id int, kind byte) bool {
		switch {
		case kind == thriftI32 && id == 1:
			e.kind = int(t.int())
		case kind == thriftI32 && id == 2:
			e.length = int(t.int())
		case kind == thriftI32 && id == 3:
			e.repetition = int(t.int())
		case kind == thriftBinary && id == 4:
			e.name = string(t.binary())
		case kind == thriftI32 && id == 5:
			e.children = int(t.int())
		case kind == thriftI32 && id == 6:
			if c := t.int(); !hasLogical {
				e.converted(int(c))
			}
		case kind == thriftI32 && id == 7:
			e.scale = int(t.int())
		case kind == thriftStruct && id == 10:
			hasLogical = true
			t.logicalType(&e)
		default:
			return false
		}
		return true
	})
	return e
}

// converted sets what a ConvertedType says, the older form of LogicalType.
func (e *element) converted(c int) {
	const micro, milli = 1000, 1000 * 1000
	switch c {
	case 0, 4:
		e.logical = textValue
	case 1, 2:
		e.logical = mapValue
	case 3:
		e.logical = listValue
	case 5:
		e.logical = decimalValue
	case 6:
		e.logical = dateValue
	case 7:
		e.logical, e.unit = timeValue, milli
	case 8:
		e.logical, e.unit = timeValue, micro
	case 9:
		e.logical, e.unit = timestampValue, milli
	case 10:
		e.logical, e.unit = timestampValue, micro
	case 11, 12, 13, 14:
		e.logical = unsignedValue
	case 19:
		e.logical = jsonValue
	}
}

// logicalType reads the LogicalType union.
func (t *thrift) logicalType(e *element) {
	t.structure(func(id int, kind byte) bool {
		if kind != thriftStruct {
			return false
		}
		known := map[int]logical{1: textValue, 2: mapValue, 3: listValue, 4: textValue, 5: decimalValue, 6: dateValue,
			7: timeValue, 8: timestampValue, 12: jsonValue, 14: uuidValue, 15: halfValue}
		if l, ok := known[id]; ok {
			e.logical = l
		}
		t.structure(func(field int, kind byte) bool {
			switch {
			case id == 5 && field == 1 && kind == thriftI32:
				e.scale = int(t.int())
			case (id == 7 || id == 8) && field == 2 && kind == thriftStruct:
				t.structure(func(unit int, kind byte) bool {
					e.unit = map[int]int64{1: 1000 * 1000, 2: 1000, 3: 1}[unit]
					return false
				})
			case id == 10 && field == 2 && kind == thriftFalse:
				e.logical = unsignedValue
			default:
				return false
			}
			return true
		})
		return true
	})
}

func (t *thrift) rowGroup(size int64) rowGroup {
	var g rowGroup
	t.structure(func(id int, kind byte) bool {
		switch {
		case id == 1:
			return t.structs(kind, func() { g.chunks = append(g.chunks, t.columnChunk(size)) })
		case id == 3 && kind == thriftI64:
			g.rows = t.int()
		default:
			return false
		}
		return true
	})
	return g
}

func (t *thrift) columnChunk(size int64) chunk {
	var c chunk
	found := false
	t.structure(func(id int, kind byte) bool {
		switch {
		case id == 1 && kind == thriftBinary:
			if file := t.binary(); len(file) > 0 {
				t.fail(fmt.Errorf("a column lies in another file, %q: only files that hold their own data are read", file))
			}
		case id == 3 && kind == thriftStruct:
			found = true
			t.columnMeta(&c, size)
		case id == 8:
			t.fail(fmt.Errorf("a column is encrypted: decrypt it first"))
		default:
			return false
		}
		return true
	})
	if !found {
		t.fail(fmt.Errorf("a column chunk has no metadata"))
	}
	return c
}

func (t *thrift) columnMeta(c *chunk, size int64) {
	var length, dictionary int64
	data := int64(-1)
	t.structure(func(id int, kind byte) bool {
		switch {
		case id == 1 && kind == thriftI32:
			c.kind = int(t.int())
		case id == 4 && kind == thriftI32:
			c.codec = int(t.int())
		case id == 5 && kind == thriftI64:
			c.values = t.int()
		case id == 7 && kind == thriftI64:
			length = t.int()
		case id == 9 && kind == thriftI64:
			data = t.int()
		case id == 11 && kind == thriftI64:
			dictionary = t.int()
		default:
			return false
		}
		return true
	})
	c.start = data
	if dictionary > 0 && dictionary < data {
		c.start = dictionary
	}
	if c.start < 0 || length < 0 || c.start > size || length > size-c.start || c.values < 0 || c.values > math.MaxInt64/2 {
		t.fail(fmt.Errorf("a column chunk of %d bytes at %d doesn't lie in the file's %d bytes", length, c.start, size))
		return
	}
	c.end = c.start + length
}
