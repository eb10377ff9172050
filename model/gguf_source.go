package model

import (
	"fmt"
	"slices"
	"sync"

	"ringtail/gguf"
)

// openGGUF opens a GGUF file as a model: its metadata as the config.json that
// transformers would have, its tensors by transformers' names and in its layout.
// What llama.cpp changed is undone: rows of q and k that were permuted for its
// rotation, norms that had 1 added, matrices of GPT-2 that were transposed, q, k
// and v that were gathered from heads, experts that were stacked. Tensors are
// dequantised as they are read.
func openGGUF(path string) (*Config, Source, error) {
	file, err := gguf.Open(path)
	if err != nil {
		return nil, nil, err
	}
	c, err := ggufConfig(file)
	if err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := c.ggufLayers(file); err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	s := &ggufSource{file: file, c: c, stored: map[string]Stored{}}
	places := c.ggufPlaces()
	for _, spec := range c.specs(Options{}, CausalLM) {
		place, ok := places.find(spec.Name)
		if !ok {
			continue // Load names it as missing
		}
		t, ok := file.Tensor(place.name)
		if !ok {
			continue
		}
		stored, err := s.place(place, t, spec.Shape, c.storage(spec.Name, spec.Shape))
		if err != nil {
			file.Close()
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		s.names = append(s.names, spec.Name)
		s.stored[spec.Name] = stored
	}
	return c, s, nil
}

// ggufLayers holds the numbers of layers and experts to the tensors that are there,
// before lists as long as they say are made.
func (c *Config) ggufLayers(file *gguf.File) error {
	if n := len(file.Names()); c.Layers > n {
		return fmt.Errorf("the metadata say %d layers, but there are only %d tensors", c.Layers, n)
	}
	for i := range c.Layers {
		if !c.sparse(i) {
			continue
		}
		name, want := fmt.Sprintf("blk.%d.ffn_gate_exps.weight", i), []int{c.Experts.Count, c.Experts.MLP, c.Hidden}
		t, ok := file.Tensor(name)
		if !ok {
			return fmt.Errorf("no tensor %s, which holds the gates of %d experts", name, c.Experts.Count)
		}
		if !slices.Equal(t.Shape, want) {
			return fmt.Errorf("tensor %s has shape %v, the metadata ask for %v", name, t.Shape, want)
		}
	}
	return nil
}

// ggufSource is a GGUF file as a Source.
type ggufSource struct {
	file   *gguf.File
	c      *Config
	names  []string
	stored map[string]Stored
}

// Names lists the tensors by transformers' names.
func (s *ggufSource) Names() []string { return slices.Clone(s.names) }

// Find finds a tensor by transformers' name.
func (s *ggufSource) Find(name string) (Stored, bool) {
	t, ok := s.stored[name]
	return t, ok
}

// Close unmaps the file.
func (s *ggufSource) Close() error { return s.file.Close() }

// place makes one tensor readable in a folder's layout. shape is that of the
// matrix in memory, which is GGUF's too; store is how folders keep it.
func (s *ggufSource) place(p ggufPlace, t gguf.Tensor, shape []int, store storage) (Stored, error) {
	whole := shape
	if p.role.stacked {
		whole = append([]int{s.c.Experts.Count}, shape...)
	}
	if !slices.Equal(t.Shape, whole) {
		return Stored{}, fmt.Errorf("tensor %s has shape %v, the metadata ask for %v", t.Name, t.Shape, whole)
	}
	base, n := 0, t.Len()
	if p.role.stacked {
		n = shape[0] * shape[1]
		base = p.expert * n
	}
	out := Stored{Dtype: t.Type.String(), Shape: store.shape, Done: func() { t.Release(base, n) },
		Read: func(dst []float32, from int) error { return t.Read(dst, base+from) }}
	switch {
	case p.role.rotated != nil:
		dim := shape[0] / p.role.rotated(s.c)
		out.Read = readRows(t, shape, func(r int) int { return rotatedRow(r, dim) })
	case store.row != nil:
		heads, dim := s.c.Heads, s.c.HeadDim
		out.Read = readRows(t, shape, func(r int) int { // folder: [heads, 3, dim]; GGUF: [3, heads, dim]
			head, part, d := r/(3*dim), r/dim%3, r%dim
			return (part*heads+head)*dim + d
		})
	case store.transposed:
		out.Read = readColumns(t, shape[0], shape[1])
	case p.role.norm && s.c.NormOffset != 0 && !p.bias:
		offset := float32(s.c.NormOffset)
		out.Read = func(dst []float32, from int) error {
			err := t.Read(dst, from)
			for i := range dst {
				dst[i] -= offset
			}
			return err
		}
	}
	return out, nil
}

// readRows reads a matrix, or a vector as rows of one element, whose row r is
// row(r) of t.
func readRows(t gguf.Tensor, shape []int, row func(r int) int) func([]float32, int) error {
	width := 1
	if len(shape) > 1 {
		width = shape[1]
	}
	return func(dst []float32, from int) error {
		if len(dst) == 0 {
			return t.Read(dst, 0)
		}
		for len(dst) > 0 {
			r, skip := from/width, from%width
			n := min(width-skip, len(dst))
			if err := t.Read(dst[:n], row(r)*width+skip); err != nil {
				return err
			}
			dst, from = dst[n:], from+n
		}
		return nil
	}
}

// readColumns reads the transpose [cols, rows] of a matrix t of [rows, cols], some
// columns at a time: whole blocks of every row, kept for the next call.
func readColumns(t gguf.Tensor, rows, cols int) func([]float32, int) error {
	const wide = 256 // a multiple of every block
	var tile []float32
	first := -1 // column with which the tile begins
	line := make([]float32, wide)
	var one sync.Mutex // reads at a time: they share the tile
	return func(dst []float32, from int) error {
		if len(dst) == 0 {
			return t.Read(dst, 0)
		}
		one.Lock()
		defer one.Unlock()
		for len(dst) > 0 {
			col, skip := from/rows, from%rows
			if at := col / wide * wide; at != first {
				n := min(wide, cols-at)
				tile, first = slices.Grow(tile[:0], n*rows)[:n*rows], -1
				for r := range rows {
					if err := t.Read(line[:n], r*cols+at); err != nil {
						return err
					}
					for i, v := range line[:n] {
						tile[i*rows+r] = v
					}
				}
				first = at
			}
			n := copy(dst, tile[(col-first)*rows+skip:])
			dst, from = dst[n:], from+n
		}
		if from == rows*cols {
			tile, first = nil, -1
		}
		return nil
	}
}
