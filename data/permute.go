package data

import "hash/fnv"

// permutation fills perm with a random order of 0..len(perm)-1 (Fisher and
// Yates' shuffle), fixed by seed, the source's name and the epoch alone.
func permutation(perm []uint32, seed uint64, name string, epoch uint32) {
	for i := range perm {
		perm[i] = uint32(i)
	}
	h := fnv.New64a()
	h.Write([]byte("data/shuffle/" + name))
	s := newStream(seed, h.Sum64(), epoch)
	for i := len(perm) - 1; i > 0; i-- {
		j := s.below(uint32(i) + 1)
		perm[i], perm[j] = perm[j], perm[i]
	}
}
