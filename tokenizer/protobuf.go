package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// A reader of the protobuf wire format (protobuf.dev, "Encoding"): as much as
// sentencepiece's model files need. A message is a run of fields, each a number,
// a wire type and a value; a length is checked against the bytes left before
// anything is made of it.

// protoField is one field of a message. Which of its values counts depends on
// the wire type.
type protoField struct {
	number int
	wire   uint8
	value  uint64 // of a varint, or of a fixed 32 or 64 bit value
	bytes  []byte // of a string, bytes or message: a part of what was read
}

// Wire types.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

var wireNames = map[uint8]string{wireVarint: "varint", wireFixed64: "64-bit", wireBytes: "bytes", wireFixed32: "32-bit"}

var errCutOff = errors.New("the file is cut off or is no protobuf (download or copy it again)")

// eachField calls f for the fields of a message in their order. Errors begin
// with at, the message's place.
func eachField(message []byte, at string, f func(protoField) error) error {
	rest := message
	for len(rest) > 0 {
		tag, n := binary.Uvarint(rest)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return fmt.Errorf("%s: byte %d begins no field: %w", at, len(message)-len(rest), errCutOff)
		}
		rest = rest[n:]
		field := protoField{number: int(tag >> 3), wire: uint8(tag & 7)}
		switch field.wire {
		case wireVarint:
			if field.value, n = binary.Uvarint(rest); n <= 0 {
				return fmt.Errorf("%s: field %d: number without end: %w", at, field.number, errCutOff)
			}
		case wireFixed64:
			if n = 8; len(rest) < n {
				return fmt.Errorf("%s: field %d: 8 bytes expected, %d left: %w", at, field.number, len(rest), errCutOff)
			}
			field.value = binary.LittleEndian.Uint64(rest)
		case wireFixed32:
			if n = 4; len(rest) < n {
				return fmt.Errorf("%s: field %d: 4 bytes expected, %d left: %w", at, field.number, len(rest), errCutOff)
			}
			field.value = uint64(binary.LittleEndian.Uint32(rest))
		case wireBytes:
			size, m := binary.Uvarint(rest)
			if m <= 0 || size > uint64(len(rest)-m) {
				return fmt.Errorf("%s: field %d: length %d, but only %d bytes follow: %w", at, field.number, size, len(rest)-max(m, 0), errCutOff)
			}
			n = m + int(size)
			field.bytes = rest[m:n:n]
		default:
			return fmt.Errorf("%s: field %d: wire type %d is unknown: %w", at, field.number, field.wire, errCutOff)
		}
		rest = rest[n:]
		if err := f(field); err != nil {
			return err
		}
	}
	return nil
}

// expect checks the wire type of a field that is known by name.
func (f protoField) expect(wire uint8, name string) error {
	if f.wire != wire {
		return fmt.Errorf("%s is of wire type %s, expected %s", name, wireNames[f.wire], wireNames[wire])
	}
	return nil
}

func (f protoField) float() float32 { return math.Float32frombits(uint32(f.value)) }
