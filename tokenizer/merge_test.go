package tokenizer

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// randomMerges makes a table of merges over a few symbols and what they join to.
func randomMerges(r *rand.Rand) *mergeTable {
	const most = 60
	t := newMergeTable(most)
	next := int32(4)
	for rank := range uint32(most) {
		left, right := r.Int32N(next), r.Int32N(next)
		if t.get(left, right) != noMerge {
			continue
		}
		t.set(left, right, rank, next)
		next++
	}
	return &t
}

// slowMerge is the definition: join the leftmost pair of the lowest rank.
func slowMerge(t *mergeTable, ids []int32, ends []int32) ([]int32, []int32) {
	ids, ends = slices.Clone(ids), slices.Clone(ends)
	for {
		best, at := uint64(noMerge), -1
		for i := 1; i < len(ids); i++ {
			if m := t.get(ids[i-1], ids[i]); m < best {
				best, at = m, i-1
			}
		}
		if at < 0 {
			return ids, ends
		}
		ids[at] = int32(uint32(best))
		ids = slices.Delete(ids, at+1, at+2)
		ends = slices.Delete(ends, at, at+1)
	}
}

func TestMergesEqualTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		table := randomMerges(r)
		n := r.IntN(3 * shortWord)
		var short, long symbols
		for i := range n {
			id := r.Int32N(1 + r.Int32N(4))
			short.add(id, i+1)
			long.add(id, i+1)
		}
		wantIDs, wantEnds := slowMerge(table, short.ids, short.ends)

		if n > 1 {
			short.pairs, long.pairs = make([]uint64, n), make([]uint64, n)
			for i := range n {
				short.pairs[i] = noMerge
				if i+1 < n {
					short.pairs[i] = table.get(short.ids[i], short.ids[i+1])
				}
			}
			copy(long.pairs, short.pairs)
			short.mergeShort(table)
			long.mergeLong(table)
		}
		for name, w := range map[string]*symbols{"mergeShort": &short, "mergeLong": &long} {
			if !slices.Equal(w.ids, wantIDs) || !slices.Equal(w.ends, wantEnds) {
				t.Fatalf("%s of %d symbols: %v %v, want %v %v", name, n, w.ids, w.ends, wantIDs, wantEnds)
			}
		}
	}
}

func TestMergeTable(t *testing.T) {
	table := newMergeTable(1000)
	for i := range int32(1000) {
		table.set(i, i*7, uint32(i), i+5)
	}
	for i := range int32(1000) {
		if got, want := table.get(i, i*7), uint64(i)<<32|uint64(i+5); got != want {
			t.Fatalf("merge of %d is %x, want %x", i, got, want)
		}
		if table.get(i, i*7+1) != noMerge {
			t.Fatalf("%d has a merge that was not set", i)
		}
	}
	table.set(3, 21, 9999, 1) // the last one counts
	if got := table.get(3, 21); got != 9999<<32|1 {
		t.Errorf("merge is %x", got)
	}
}
