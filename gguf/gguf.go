// Package gguf reads and writes GGUF, the container in which llama.cpp keeps
// models: metadata, then tensors, quantised or not, in one file or in shards.
//
//	"GGUF"  u32 version (2 or 3)  u64 tensors  u64 pairs
//	pairs   key (string), u32 kind, value
//	tensors name (string), u32 dimensions, u64 each, u32 type, u64 offset
//	zeros   to a multiple of general.alignment (32), from where offsets count
//	data    of each tensor, at a multiple of general.alignment
//
// All numbers are little-endian; a string is a u64 length and UTF-8; an array is
// u32 kind, u64 length, elements. The first dimension in the file is the one
// whose elements lie side by side; here shapes are turned round, so that they
// read as PyTorch's do.
//
// The package knows nothing of models: what metadata means and how tensors are
// named is package model's and package folder's.
//
// Source: the GGUF specification (ggml, docs/gguf.md), and for the layouts of
// quantised blocks the Python package gguf (gguf.quants), to which results are
// equal bit by bit.
package gguf

import (
	"fmt"
	"strings"
)

// Bounds on what a header may hold; beyond them a file is taken to be broken.
const (
	maxPairs   = 100_000
	maxTensors = 1_000_000
	maxKey     = 1<<16 - 1
	maxName    = 64 // of a tensor
	maxString  = 64 << 20
	maxDims    = 4
	maxDepth   = 1 // arrays in an array
	maxShards  = 99_999

	defaultAlignment = 32
	maxAlignment     = 1 << 20
)

const alignmentKey = "general.alignment"

// Type is how a tensor's elements are stored: ggml's numbering.
type Type uint32

// The types that can be read. Of these F32, F16, BF16, Q8_0 and Q4_0 can be written.
const (
	F32  Type = 0
	F16  Type = 1
	Q4_0 Type = 2
	Q4_1 Type = 3
	Q5_0 Type = 6
	Q5_1 Type = 7
	Q8_0 Type = 8
	Q2_K Type = 10
	Q3_K Type = 11
	Q4_K Type = 12
	Q5_K Type = 13
	Q6_K Type = 14
	Q8_K Type = 15
	I8   Type = 24
	I16  Type = 25
	I32  Type = 26
	I64  Type = 27
	F64  Type = 28
	BF16 Type = 30
)

// layout is how many elements one block holds in how many bytes.
type layout struct {
	name            string
	elements, bytes int
	read            func(dst []float32, src []byte) // whole blocks; nil: known by size only
	write           func(dst []byte, src []float32) // whole blocks of finite values
}

// layouts has every type whose size is known, so that a file is checked and
// opened even where one of its tensors can't be read.
var layouts = map[Type]layout{
	F32:  {"F32", 1, 4, readFloats("F32"), writeFloats("F32")},
	F16:  {"F16", 1, 2, readFloats("F16"), writeFloats("F16")},
	BF16: {"BF16", 1, 2, readFloats("BF16"), writeFloats("BF16")},
	F64:  {"F64", 1, 8, readFloats("F64"), nil},
	I8:   {"I8", 1, 1, readI8, nil},
	I16:  {"I16", 1, 2, readI16, nil},
	I32:  {"I32", 1, 4, readI32, nil},
	I64:  {"I64", 1, 8, readI64, nil},
	Q4_0: {"Q4_0", 32, 18, readQ4_0, writeQ4_0},
	Q4_1: {"Q4_1", 32, 20, readQ4_1, nil},
	Q5_0: {"Q5_0", 32, 22, readQ5_0, nil},
	Q5_1: {"Q5_1", 32, 24, readQ5_1, nil},
	Q8_0: {"Q8_0", 32, 34, readQ8_0, writeQ8_0},
	Q2_K: {"Q2_K", 256, 84, readQ2_K, nil},
	Q3_K: {"Q3_K", 256, 110, readQ3_K, nil},
	Q4_K: {"Q4_K", 256, 144, readQ4_K, nil},
	Q5_K: {"Q5_K", 256, 176, readQ5_K, nil},
	Q6_K: {"Q6_K", 256, 210, readQ6_K, nil},
	Q8_K: {"Q8_K", 256, 292, readQ8_K, nil},
	9:    {"Q8_1", 32, 40, nil, nil},
	16:   {"IQ2_XXS", 256, 66, nil, nil},
	17:   {"IQ2_XS", 256, 74, nil, nil},
	18:   {"IQ3_XXS", 256, 98, nil, nil},
	19:   {"IQ1_S", 256, 50, nil, nil},
	20:   {"IQ4_NL", 32, 18, nil, nil},
	21:   {"IQ3_S", 256, 110, nil, nil},
	22:   {"IQ2_S", 256, 82, nil, nil},
	23:   {"IQ4_XS", 256, 136, nil, nil},
	29:   {"IQ1_M", 256, 56, nil, nil},
	34:   {"TQ1_0", 256, 54, nil, nil},
	35:   {"TQ2_0", 256, 66, nil, nil},
	39:   {"MXFP4", 32, 17, nil, nil},
	40:   {"NVFP4", 64, 36, nil, nil},
	41:   {"Q1_0", 128, 18, nil, nil},
}

func (t Type) String() string {
	if l, ok := layouts[t]; ok {
		return l.name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Block is how many elements are stored together, and in how many bytes; 0, 0
// for a type that is not known.
func (t Type) Block() (elements, bytes int) {
	l := layouts[t]
	return l.elements, l.bytes
}

// Readable tells whether elements of this type can be turned into float32.
func (t Type) Readable() bool { return layouts[t].read != nil }

// ParseType finds a type by its name: F32, F16, BF16, Q8_0, Q4_0, ... in any case.
func ParseType(name string) (Type, bool) {
	for t, l := range layouts {
		if strings.EqualFold(l.name, name) {
			return t, true
		}
	}
	return 0, false
}

// Tensor is one tensor of a file.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int  // in PyTorch's order: the last one's elements lie side by side
	Data  []byte // a read-only view into the file's map, valid until Close
}

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// quote shortens a text from a file for an error message.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}
