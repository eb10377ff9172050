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
	shape []int
	// from is the stored element that element i in memory is; nil: the same.
	from func(i int) int
}

// storage of the tensor called name, of that shape in memory.
func (c *Config) storage(name string, shape []int) storage {
	fam := c.fam()
	switch {
	case fam.conv1D && len(shape) == 2 && fam.names.isLinear(name):
		rows, cols := shape[0], shape[1]
		return storage{[]int{cols, rows}, func(i int) int { return i%cols*rows + i/cols }}
	case fam.perHead && (isLayer(fam.names.qkv, name) || isLayer(fam.names.qkv, strings.TrimSuffix(name, ".bias")+".weight")):
		width := 1 // of a row
		if len(shape) == 2 {
			width = shape[1]
		}
		heads, dim := c.Heads, c.HeadDim
		return storage{shape, func(i int) int {
			row, col := i/width, i%width
			part, head, d := row/(heads*dim), row/dim%heads, row%dim // memory: [3, heads, dim]
			return ((head*3+part)*dim+d)*width + col                 // stored: [heads, 3, dim]
		}}
	}
	return storage{shape: shape}
}

// isLinear tells whether name is a matrix of a layer.
func (n *names) isLinear(name string) bool {
	return slices.ContainsFunc([]string{n.qkv, n.o, n.up, n.down}, func(pattern string) bool { return isLayer(pattern, name) })
}

// toStored puts values in memory into the order of folders.
func (s storage) toStored(stored, src []float32) {
	if s.from == nil {
		copy(stored, src)
		return
	}
	for i, v := range src {
		stored[s.from(i)] = v
	}
}
