// Package safetensors reads and writes the safetensors container, the format
// in which Hugging Face models keep their weights.
//
//	u64 little-endian   N, the length of the header
//	N bytes             UTF-8 JSON: {"NAME": {"dtype", "shape", "data_offsets": [begin, end]}, ...,
//	                    "__metadata__": {string: string}}, padded with spaces
//	the rest            the tensors' bytes, little-endian, row-major; offsets count from here
//
// A file is refused unless its tensors cover the data exactly: no hole, no
// overlap, each range as long as its shape and dtype say. A model is one file,
// model.safetensors, or shards listed by model.safetensors.index.json.
//
// Source: https://github.com/huggingface/safetensors (format description and
// the reference implementation's checks) and transformers' sharded checkpoints.
package safetensors

import (
	"fmt"
	"math/bits"
	"strings"

	"ringtail/mapfile"
)

// MaxHeader is the longest header that is read or written, in bytes, as in the
// reference implementation.
const MaxHeader = 100_000_000

// Tensor is one named array. Its bytes are little-endian and row-major.
type Tensor struct {
	Name  string
	Dtype string // "F32", "F16", "BF16", "F64", "I64", "I32", "U8", "BOOL", ...
	Shape []int  // empty for a scalar
	Data  []byte // of a File: a read-only view into its map, valid until Close
}

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// dtypeBits is the size of an element. The 4- and 6-bit kinds are packed, so
// that only a whole tensor ends at a byte.
var dtypeBits = map[string]uint64{
	"BOOL": 8, "U8": 8, "I8": 8,
	"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
	"I16": 16, "U16": 16, "F16": 16, "BF16": 16,
	"I32": 32, "U32": 32, "F32": 32,
	"I64": 64, "U64": 64, "F64": 64, "C64": 64,
	"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}

// DtypeBits is the size of one element in bits, and whether the dtype is known.
func DtypeBits(dtype string) (bits int, ok bool) {
	b, ok := dtypeBits[dtype]
	return int(b), ok
}

// byteSize is the length of a tensor's data. Every step is checked: a header
// is input from strangers.
func byteSize(dtype string, shape []int) (uint64, error) {
	size, ok := dtypeBits[dtype]
	if !ok {
		return 0, fmt.Errorf("unknown dtype %q", dtype)
	}
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("negative dimension in shape %v", shape)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 {
			return 0, fmt.Errorf("shape %v has more elements than 64 bits count", shape)
		}
		n = lo
	}
	hi, total := bits.Mul64(n, size)
	if hi != 0 {
		return 0, fmt.Errorf("shape %v of %s has more bits than 64 bits count", shape, dtype)
	}
	if total%8 != 0 {
		return 0, fmt.Errorf("shape %v of %s does not end at a byte", shape, dtype)
	}
	return total / 8, nil
}

// quote shortens a name from a file for an error message.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "..."
	}
	return fmt.Sprintf("%q", name)
}

// Release tells that the tensor's data won't be read soon, so that it need not stay
// in memory. It stays readable.
func (t Tensor) Release() { mapfile.Release(t.Data) }
