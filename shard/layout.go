// Package shard keeps parameters in chunks. A chunk is one flat buffer that holds
// many tensors; its gradients, master weights and optimizer moments are flat
// buffers of the same layout. Everything that works on a model as a whole (the
// optimizer, gradient norms, checkpoints, and later collectives, placement and
// offload) works on a few long runs instead of hundreds of small tensors
// (Fang et al. 2021, "PatrickStar"; Colossal-AI's Gemini).
//
// A single device is the case of one rank with everything on the device.
package shard

import (
	"fmt"

	"ringtail/tensor"
)

// Spec describes one stored tensor of weights.
type Spec struct {
	Name  string
	Shape []int
	// Frozen weights get no gradient and no optimizer state, and live in chunks
	// of their own.
	Frozen bool
	// Decay: weight decay applies.
	Decay bool
	// Eight weights are kept Wide, for products of 8-bit floats made from them (Store.Eight),
	// in chunks of their own.
	Eight bool
	// Pad is the number of rows of zeros that are kept after a matrix's last, so that
	// products may take a round number of rows.
	Pad int
	// Group, where not empty, joins this tensor with its neighbours of equal
	// Group: they stand back to back in one chunk, so that the matrices that
	// multiply one input (q, k, v; gate, up) can be seen as one.
	Group string
}

// padding is the number of elements kept after the tensor.
func (s Spec) padding() int {
	if s.Pad == 0 {
		return 0
	}
	return s.Pad * (s.Len() / s.Shape[0])
}

// Len is the number of elements of the tensor.
func (s Spec) Len() int {
	n := 1
	for _, d := range s.Shape {
		n *= d
	}
	return n
}

// Entry says where a tensor lies.
type Entry struct {
	Spec
	Chunk  int
	Offset int // elements from the chunk's start
}

// Layout is the division of a model's tensors into chunks. It depends on nothing
// but the specs and the chunk size, so that every rank and every resumed run
// computes the same.
type Layout struct {
	Entries []Entry
	Chunks  []ChunkLayout
}

// ChunkLayout is the size and kind of one chunk.
type ChunkLayout struct {
	Len    int // elements, padding included
	Frozen bool
	Eight  bool
}

// DefaultChunk is the number of elements at which a chunk is closed: 64 MiB of
// float32, large enough for PCIe and collectives to run at full speed and small
// enough to be moved piece by piece.
const DefaultChunk = 16 << 20

// align is the number of elements at whose multiples tensors start. Buffers of one
// layout have elements of different sizes (bfloat16 weights, float32 moments, and
// 8-bit ones), and in each of them a tensor must start at a multiple of
// tensor.Align bytes: hence that many elements, as if of one byte.
const align = tensor.Align

// Plan lays specs out in their order. Tensors (groups, where tensors are joined)
// start at multiples of align elements; a tensor or group larger than chunkLen has
// a chunk of its own.
func Plan(specs []Spec, chunkLen int) (*Layout, error) {
	l := &Layout{}
	type kind struct{ frozen, eight bool }
	open := map[kind]int{} // the chunk that is being filled, and 1
	seen := map[string]bool{}
	for i := 0; i < len(specs); {
		j := i + 1
		for j < len(specs) && specs[i].Group != "" && specs[j].Group == specs[i].Group {
			j++
		}
		n := 0
		for _, s := range specs[i:j] {
			if seen[s.Name] {
				return nil, fmt.Errorf("tensor %s is listed twice", s.Name)
			}
			seen[s.Name] = true
			if s.Eight != specs[i].Eight {
				return nil, fmt.Errorf("tensors %s and %s are multiplied by one input: make both of 8-bit floats or neither", specs[i].Name, s.Name)
			}
			if s.Frozen != specs[i].Frozen {
				return nil, fmt.Errorf("tensors %s and %s are multiplied by one input: freeze both or neither", specs[i].Name, s.Name)
			}
			n += s.Len() + s.padding()
		}
		k := kind{specs[i].Frozen, specs[i].Eight}
		c := open[k] - 1
		if c < 0 || l.Chunks[c].Len > 0 && l.Chunks[c].Len+n > chunkLen {
			c = len(l.Chunks)
			l.Chunks = append(l.Chunks, ChunkLayout{Frozen: k.frozen, Eight: k.eight})
			open[k] = c + 1
		}
		at := l.Chunks[c].Len
		for _, s := range specs[i:j] {
			l.Entries = append(l.Entries, Entry{Spec: s, Chunk: c, Offset: at})
			at += s.Len() + s.padding()
		}
		l.Chunks[c].Len = (at + align - 1) / align * align
		i = j
	}
	return l, nil
}

// run is a stretch of a chunk whose tensors share their weight decay.
type run struct {
	from, to int
	decay    bool
}

// runs divides chunk c for the optimizer. Padding belongs to the run before it.
func (l *Layout) runs(c int) []run {
	var out []run
	for _, e := range l.Entries {
		if e.Chunk != c {
			continue
		}
		if len(out) == 0 || out[len(out)-1].decay != e.Decay {
			if len(out) > 0 {
				out[len(out)-1].to = e.Offset
			}
			out = append(out, run{from: e.Offset, decay: e.Decay})
		}
	}
	if len(out) > 0 {
		out[len(out)-1].to = l.Chunks[c].Len
	}
	return out
}
