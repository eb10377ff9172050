package data

import "math/bits"

// philox is Philox4x32-10 (Salmon et al., SC 2011, section 5.3): ten rounds of
// multiply and mix that turn a 128-bit counter under a 64-bit key into 128
// random bits. Any block can be had without those before it.
func philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	const m0, m1 = 0xD2511F53, 0xCD9E8D57
	const w0, w1 = 0x9E3779B9, 0xBB67AE85
	c, k := counter, key
	for range 10 {
		hi0, lo0 := bits.Mul32(m0, c[0])
		hi1, lo1 := bits.Mul32(m1, c[2])
		c = [4]uint32{hi1 ^ c[1] ^ k[0], lo1, hi0 ^ c[3] ^ k[1], lo0}
		k[0] += w0
		k[1] += w1
	}
	return c
}

// stream draws numbers from successive Philox blocks. purpose and epoch tell
// apart the streams of one seed.
type stream struct {
	key     [2]uint32
	counter [4]uint32
	block   [4]uint32
	left    int
}

func newStream(seed, purpose uint64, epoch uint32) *stream {
	return &stream{
		key:     [2]uint32{uint32(seed), uint32(seed >> 32)},
		counter: [4]uint32{0, epoch, uint32(purpose), uint32(purpose >> 32)},
	}
}

// uint32 returns the next 32 bits.
func (s *stream) uint32() uint32 {
	if s.left == 0 {
		s.block = philox(s.counter, s.key)
		s.counter[0]++
		if s.counter[0] == 0 {
			s.key[1]++ // 2^34 numbers on; a shuffle of 2^32 rows needs them
		}
		s.left = len(s.block)
	}
	s.left--
	return s.block[s.left]
}

// below returns an unbiased number in [0, n), n > 0 (Lemire, "Fast Random
// Integer Generation in an Interval", 2019).
func (s *stream) below(n uint32) uint32 {
	hi, lo := bits.Mul32(s.uint32(), n)
	if lo < n {
		for floor := -n % n; lo < floor; {
			hi, lo = bits.Mul32(s.uint32(), n)
		}
	}
	return hi
}
