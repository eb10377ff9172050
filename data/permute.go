package data

import (
	"fmt"

	"ringtail/rng"
)

// permutation fills perm with a random order of 0..len(perm)-1, fixed by seed,
// the source's name and the pass alone.
func permutation(perm []uint32, seed uint64, name string, pass uint64) {
	for i := range perm {
		perm[i] = uint32(i)
	}
	s := rng.New(seed, fmt.Sprintf("%s/shuffle/%d/%s", rng.Data, pass, name), 0)
	s.Shuffle(len(perm), func(i, j int) { perm[i], perm[j] = perm[j], perm[i] })
}
