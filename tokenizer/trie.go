package tokenizer

import (
	"cmp"
	"slices"
)

// A byteTrie finds which of a set of strings a text begins with, a byte at a
// time. It is a double array (Aoe 1989) with the children of a node placed by
// exclusive or, so that a step costs one look-up whatever the set holds.
type byteTrie struct{ units []trieUnit }

// trieUnit is a node. The child for byte b is at base^b, if its parent is this
// node.
type trieUnit struct {
	base   int32
	parent int32 // freeUnit: not in use
	value  int32 // -1: no string ends here
}

const (
	trieRoot   = 0
	freeUnit   = -1 // as a parent
	rootParent = -2
)

// step returns the child of a node for a byte, or -1.
func (t *byteTrie) step(node int32, b byte) int32 {
	next := t.units[node].base ^ int32(b)
	if t.units[next].parent != node {
		return -1
	}
	return next
}

// longest returns the longest string of the set that s begins with, and its
// length, 0 if there is none.
func (t *byteTrie) longest(s string) (value int32, length int) {
	node := int32(trieRoot)
	for i := range len(s) {
		if node = t.step(node, s[i]); node < 0 {
			break
		}
		if v := t.units[node].value; v >= 0 {
			value, length = v, i+1
		}
	}
	return value, length
}

// newByteTrie makes a trie of strings, to which value gives numbers that are not
// negative. Empty strings are left out; of equal ones the last counts.
func newByteTrie(keys []string, value func(i int) int32) *byteTrie {
	order := make([]int32, 0, len(keys))
	for i, k := range keys {
		if k != "" {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(keys[a], keys[b]), cmp.Compare(a, b))
	})
	b := trieBuilder{keys: keys, order: order, value: value}
	b.grow()
	b.take(trieRoot, rootParent)
	b.todo = append(b.todo, trieRange{trieRoot, 0, int32(len(order)), 0})
	for len(b.todo) > 0 {
		last := len(b.todo) - 1
		r := b.todo[last]
		b.todo = b.todo[:last]
		b.place(r)
	}
	return &byteTrie{b.units}
}

// trieBuilder places nodes into blocks of 256 units. The units not in use are
// linked in a ring, from which blocks that have been filled for long are taken
// out: they would be searched over and over for the little that fits.
type trieBuilder struct {
	keys       []string
	order      []int32 // of keys, sorted
	value      func(i int) int32
	units      []trieUnit
	next, prev []int32 // ring of free units
	free       int32   // one of them, -1 if there is none
	todo       []trieRange
}

// trieRange is a node whose children are to be placed: those of the keys
// order[lo:hi], which share their first depth bytes.
type trieRange struct{ node, lo, hi, depth int32 }

const (
	trieBlock  = 256
	openBlocks = 16 // that are searched for free units
)

// grow adds a block of free units, and takes the oldest open one out.
func (b *trieBuilder) grow() {
	from := int32(len(b.units))
	for i := from; i < from+trieBlock; i++ {
		b.units = append(b.units, trieUnit{parent: freeUnit, value: -1})
		b.next, b.prev = append(b.next, i+1), append(b.prev, i-1)
	}
	last := from + trieBlock - 1
	if b.free < 0 || from == 0 {
		b.next[last], b.prev[from] = from, last
		b.free = from
	} else {
		head, tail := b.free, b.prev[b.free]
		b.next[tail], b.prev[from] = from, tail
		b.next[last], b.prev[head] = head, last
	}
	if old := from - openBlocks*trieBlock; old >= 0 {
		for i := old; i < old+trieBlock; i++ {
			if b.units[i].parent == freeUnit {
				b.unlink(i)
			}
		}
	}
}

func (b *trieBuilder) unlink(i int32) {
	if b.next[i] == i {
		b.free = -1
		return
	}
	b.next[b.prev[i]], b.prev[b.next[i]] = b.next[i], b.prev[i]
	if b.free == i {
		b.free = b.next[i]
	}
}

// take puts a unit to use.
func (b *trieBuilder) take(i, parent int32) {
	b.units[i].parent = parent
	b.unlink(i)
}

// place gives a node its value and its children.
func (b *trieBuilder) place(r trieRange) {
	lo, hi := r.lo, r.hi
	for ; lo < hi && len(b.keys[b.order[lo]]) == int(r.depth); lo++ {
		b.units[r.node].value = b.value(int(b.order[lo]))
	}
	if lo == hi {
		return
	}
	from := len(b.todo)
	var labels [trieBlock]byte
	n := 0
	for i := lo; i < hi; n++ {
		labels[n] = b.keys[b.order[i]][r.depth]
		j := i + 1
		for j < hi && b.keys[b.order[j]][r.depth] == labels[n] {
			j++
		}
		b.todo = append(b.todo, trieRange{0, i, j, r.depth + 1})
		i = j
	}
	base := b.findBase(labels[:n])
	b.units[r.node].base = base
	for k, c := range labels[:n] {
		b.take(base^int32(c), r.node)
		b.todo[from+k].node = base ^ int32(c)
	}
}

// findBase returns a base for which the units of all children are free.
func (b *trieBuilder) findBase(labels []byte) int32 {
	fits := func(base int32) bool {
		for _, c := range labels {
			if b.units[base^int32(c)].parent != freeUnit {
				return false
			}
		}
		return true
	}
	if i := b.free; i >= 0 {
		for {
			if base := i ^ int32(labels[0]); fits(base) {
				return base
			}
			if i = b.next[i]; i == b.free {
				break
			}
		}
	}
	base := int32(len(b.units))
	b.grow()
	return base
}
