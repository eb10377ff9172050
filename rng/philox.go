// Package rng makes random numbers that are a pure function of a seed, of what
// they are for, and of their place in the stream, so that a run can be resumed
// and a number be had without those before it.
//
// The generator is Philox4x32-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw,
// "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), section 3.3.
package rng

import "math/bits"

// Philox multiplies and mixes a counter ten times under a key: 128 random bits.
// For a fixed key it is a bijection of the counter.
func Philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	const (
		m0, m1 = 0xD2511F53, 0xCD9E8D57 // the paper's multipliers
		w0, w1 = 0x9E3779B9, 0xBB67AE85 // golden ratio and √3 − 1: the key's Weyl sequence
	)
	for range 10 {
		hi0, lo0 := bits.Mul32(m0, counter[0])
		hi1, lo1 := bits.Mul32(m1, counter[2])
		counter = [4]uint32{hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0}
		key[0] += w0
		key[1] += w1
	}
	return counter
}
