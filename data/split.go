package data

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// hash64 is the part of a row's hash that decides on which side of the
// held-out split it lies.
func hash64(h [16]byte) uint64 { return binary.LittleEndian.Uint64(h[:8]) }

// heldOut says which rows are kept for evaluation, by their sides: those below
// a threshold, which is the fraction of the range of hashes, or the hash at
// which the count is reached. So rows of equal hash lie together, and a row keeps
// its side when others come and go (with a fraction) or nearly so (a count).
func heldOut(rows []uint64, split EvalSplit) (func(hash uint64) bool, error) {
	none := func(uint64) bool { return false }
	if split.Fraction == 0 && split.Count == 0 {
		return none, nil
	}
	sorted := slices.Clone(rows)
	slices.Sort(sorted)
	n := len(sorted)
	if n == 0 {
		return none, nil
	}
	limit := uint64(math.Ldexp(split.Fraction, 64)) // exact: Fraction < 1
	if split.Count > 0 {
		if split.Count >= n {
			return nil, fmt.Errorf("eval count is %d, but only %d rows can be used: nothing would be left to train on", split.Count, n)
		}
		limit = sorted[split.Count-1] + 1
	} else if limit <= sorted[0] {
		limit = sorted[0] + 1 // a small set: the fraction catches no row, so hold out one
	}
	if sorted[n-1] < limit {
		return nil, fmt.Errorf("the held-out part takes all %d rows: lower eval, or bring more rows (equal ones, and answers to one prompt, go together)", n)
	}
	return func(hash uint64) bool { return hash < limit }, nil
}
