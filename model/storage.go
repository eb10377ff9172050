package model

import (
	"slices"
	"strings"
)

// storage is how a tensor lies in a folder, where that differs from memory.
// In memory every matrix is [out, in], and queries, keys and values follow each
// other whole; GPT-2 stores its matrices transposed, BLOOM and GPT-NeoX the rows of
// qkv head by head.
type storage struct {
	shape []int // in the folder
	// rows and width of the tensor in memory.
	rows, width int
	transposed  bool
	row         func(r int) int // the stored row that row r in memory is; nil: the same
}

// storage of the tensor called name, of that shape in memory.
func (c *Config) storage(name string, shape []int) storage {
	fam := c.fam()
	s := storage{shape: shape, rows: shape[0], width: 1}
	if len(shape) == 2 {
		s.width = shape[1]
	}
	switch {
	case fam.conv1D && len(shape) == 2 && fam.names.isLinear(name):
		s.shape, s.transposed = []int{s.width, s.rows}, true
	case fam.perHead && (isLayer(fam.names.qkv, name) || isLayer(fam.names.qkv, strings.TrimSuffix(name, ".bias")+".weight")):
		heads, dim := c.Heads, c.HeadDim
		s.row = func(r int) int {
			part, head, d := r/(heads*dim), r/dim%heads, r%dim // memory: [3, heads, dim]
			return (head*3+part)*dim + d                       // stored: [heads, 3, dim]
		}
	}
	return s
}

// differs tells whether the folder's order is another one.
func (s storage) differs() bool { return s.transposed || s.row != nil }

// fromStored puts stored values into the order of memory.
func fromStored[T float32 | float64](s storage, dst, stored []T) {
	if s.transposed {
		transpose(dst, stored, s.rows, s.width)
		return
	}
	for r := range s.rows {
		copy(dst[r*s.width:][:s.width], stored[s.row(r)*s.width:])
	}
}

// toStored puts values in memory into the order of folders.
func toStored[T float32 | float64](s storage, stored, src []T) {
	if s.transposed {
		transpose(stored, src, s.width, s.rows)
		return
	}
	for r := range s.rows {
		copy(stored[s.row(r)*s.width:][:s.width], src[r*s.width:])
	}
}

// transpose sets dst [rows, cols] to the transpose of src [cols, rows], tile by tile,
// since a column of a large matrix has its elements in as many cache lines.
func transpose[T float32 | float64](dst, src []T, rows, cols int) {
	const tile = 32
	for r0 := 0; r0 < rows; r0 += tile {
		for c0 := 0; c0 < cols; c0 += tile {
			for r := r0; r < min(r0+tile, rows); r++ {
				for c := c0; c < min(c0+tile, cols); c++ {
					dst[r*cols+c] = src[c*rows+r]
				}
			}
		}
	}
}

// isLinear tells whether name is a matrix of a layer.
func (n *names) isLinear(name string) bool {
	return slices.ContainsFunc([]string{n.qkv, n.o, n.up, n.down}, func(pattern string) bool { return isLayer(pattern, name) })
}
