package tokenizer

import "math"

// Byte pair encoding of one word: while any two neighbouring symbols are a
// known merge, join the pair whose merge was learned first, the leftmost of
// these where it occurs more than once.

// noMerge stands for a pair of symbols that no merge joins. It is greater than
// any merge.
const noMerge = math.MaxUint64

// A mergeTable maps pairs of token ids to merges: rank<<32 | id of the joined
// token, so that the smaller value is the merge learned earlier. It is a hash
// table with open addressing, at most half full: a map of the runtime takes
// several times as long, and this look-up is what encoding spends its time on.
type mergeTable struct {
	slots []mergeSlot
	shift uint
}

type mergeSlot struct{ key, merge uint64 }

const emptySlot = math.MaxUint64 // no pair of ids has this key

func newMergeTable(n int) mergeTable {
	bits := uint(4)
	for 1<<bits < 2*n {
		bits++
	}
	t := mergeTable{slots: make([]mergeSlot, 1<<bits), shift: 64 - bits}
	for i := range t.slots {
		t.slots[i].key = emptySlot
	}
	return t
}

func pairKey(left, right int32) uint64 { return uint64(left)<<32 | uint64(right) }

// slot returns where key is, or where it would go.
func (t *mergeTable) slot(key uint64) *mergeSlot {
	mask := uint64(len(t.slots) - 1)
	for i := key * 0x9E3779B97F4A7C15 >> t.shift; ; i = (i + 1) & mask {
		if s := &t.slots[i&mask]; s.key == key || s.key == emptySlot {
			return s
		}
	}
}

// set must be called for at most as many pairs as the table was made for.
func (t *mergeTable) set(left, right int32, rank uint32, id int32) {
	*t.slot(pairKey(left, right)) = mergeSlot{pairKey(left, right), uint64(rank)<<32 | uint64(id)}
}

func (t *mergeTable) get(left, right int32) uint64 {
	if s := t.slot(pairKey(left, right)); s.key != emptySlot {
		return s.merge
	}
	return noMerge
}

// symbols is a word on its way from characters to tokens: symbol i has the id
// ids[i] and ends at byte ends[i] of the word. The rest is space to work in.
type symbols struct {
	ids   []int32
	ends  []int32
	pairs []uint64 // pairs[i] is the merge of symbols i and its right neighbour

	prev, next []int32
	heap       []uint64
	steps      int // entries that were taken from the heap
}

func (w *symbols) reset() { w.ids, w.ends = w.ids[:0], w.ends[:0] }

func (w *symbols) add(id int32, end int) {
	w.ids = append(w.ids, id)
	w.ends = append(w.ends, int32(end))
}

// shortWord is the number of symbols up to which looking at all pairs for each
// merge is faster than keeping them in a heap.
const shortWord = 96

// merge joins the symbols until no merge applies. It takes time O(n log n) in
// the number of symbols n, whatever the word is.
func (w *symbols) merge(t *mergeTable) {
	n := len(w.ids)
	if n < 2 {
		return
	}
	if cap(w.pairs) < n {
		w.pairs = make([]uint64, n+n/2)
	}
	w.pairs = w.pairs[:n]
	any := uint64(noMerge)
	for i := range n - 1 {
		w.pairs[i] = t.get(w.ids[i], w.ids[i+1])
		any = min(any, w.pairs[i])
	}
	w.pairs[n-1] = noMerge
	switch {
	case any == noMerge:
	case n <= shortWord:
		w.mergeShort(t)
	default:
		w.mergeLong(t)
	}
}

func (w *symbols) mergeShort(t *mergeTable) {
	ids, ends, pairs := w.ids, w.ends, w.pairs
	for n := len(ids); ; {
		best, at := uint64(noMerge), 0
		for i, p := range pairs[:n] {
			if p < best {
				best, at = p, i
			}
		}
		if best == noMerge {
			w.ids, w.ends = ids[:n], ends[:n]
			return
		}
		ids[at] = int32(uint32(best))
		ends[at] = ends[at+1]
		copy(ids[at+1:n], ids[at+2:n])
		copy(ends[at+1:n], ends[at+2:n])
		copy(pairs[at+1:n], pairs[at+2:n])
		n--
		pairs[at] = noMerge
		if at+1 < n {
			pairs[at] = t.get(ids[at], ids[at+1])
		}
		if at > 0 {
			pairs[at-1] = t.get(ids[at-1], ids[at])
		}
	}
}

// mergeLong links the symbols into a list and keeps the merges that apply in a
// heap by rank and place. An entry whose pair has changed meanwhile is stale,
// which shows when it comes up.
func (w *symbols) mergeLong(t *mergeTable) {
	n := len(w.ids)
	if cap(w.prev) < n {
		w.prev, w.next = make([]int32, n+n/2), make([]int32, n+n/2)
	}
	prev, next := w.prev[:n], w.next[:n]
	ids, ends, pairs := w.ids, w.ends, w.pairs
	h := w.heap[:0]
	entry := func(i int32) uint64 { return pairs[i]&^math.MaxUint32 | uint64(i) }
	for i := range int32(n) {
		prev[i], next[i] = i-1, i+1
		if pairs[i] != noMerge {
			h = append(h, entry(i))
		}
	}
	for i := (len(h)+heapArity-2)/heapArity - 1; i >= 0; i-- { // from the last parent up
		siftDown(h, i)
	}
	update := func(i int32) {
		pairs[i] = noMerge
		if j := next[i]; j < int32(n) {
			pairs[i] = t.get(ids[i], ids[j])
		}
		if pairs[i] != noMerge {
			h = append(h, entry(i))
			siftUp(h)
		}
	}
	for len(h) > 0 {
		top := h[0]
		i := int32(uint32(top))
		w.steps++
		if pairs[i] == noMerge || entry(i) != top {
			h = popHeap(h)
			continue
		}
		h = popHeap(h)
		j := next[i]
		ids[i] = int32(uint32(pairs[i]))
		ends[i] = ends[j]
		pairs[j] = noMerge // j is no more
		next[i] = next[j]
		if next[j] < int32(n) {
			prev[next[j]] = i
		}
		update(i)
		if prev[i] >= 0 {
			update(prev[i])
		}
	}
	w.heap = h
	k := 0
	for i := int32(0); i < int32(n); i = next[i] {
		ids[k], ends[k] = ids[i], ends[i]
		k++
	}
	w.ids, w.ends = ids[:k], ends[:k]
}

// A heap of this arity is shallower than a binary one, and the children that
// are compared lie in one cache line.
const heapArity = 4

func siftDown(h []uint64, i int) {
	v := h[i]
	for {
		c := i*heapArity + 1
		if c >= len(h) {
			break
		}
		least := c
		for k := c + 1; k < min(c+heapArity, len(h)); k++ {
			if h[k] < h[least] {
				least = k
			}
		}
		if h[least] >= v {
			break
		}
		h[i] = h[least]
		i = least
	}
	h[i] = v
}

// siftUp brings the last element to its place.
func siftUp(h []uint64) {
	i := len(h) - 1
	v := h[i]
	for i > 0 {
		parent := (i - 1) / heapArity
		if h[parent] <= v {
			break
		}
		h[i] = h[parent]
		i = parent
	}
	h[i] = v
}

// popHeap removes the least element.
func popHeap(h []uint64) []uint64 {
	n := len(h) - 1
	h[0] = h[n]
	h = h[:n]
	if n > 1 {
		siftDown(h, 0)
	}
	return h
}
