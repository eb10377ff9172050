package rng

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/bits"
)

// What streams are for. A purpose may be any string: "init/" and a tensor's name
// gives each tensor a stream of its own.
const (
	Data     = "data"     // order and mixture of the rows
	Dropout  = "dropout"  // masks
	Sampling = "sampling" // tokens drawn from logits
	Init     = "init"     // new parameters
)

// Stream is a sequence of 64-bit draws. Its whole state is the seed, the purpose,
// the rank and the number of draws taken; MarshalJSON saves it and UnmarshalJSON
// goes on where it was. A Stream is used by one goroutine at a time.
type Stream struct {
	seed    uint64
	purpose string
	rank    int

	key     [2]uint32
	high    [2]uint32 // upper half of the counter; the lower is the block's index
	counter uint64    // draws taken

	index uint64 // of the block held
	block [4]uint32
	held  bool
}

// New begins a stream. Streams that differ in seed, purpose or rank are
// independent of each other.
func New(seed uint64, purpose string, rank int) *Stream {
	s := &Stream{seed: seed, purpose: purpose, rank: rank}
	// Purpose and rank, encrypted under the seed, choose the key and the upper half
	// of the counter. As Philox is a bijection, two streams of one seed never share
	// both, unless their purposes' 64-bit hashes collide.
	hash := fnv.New64a()
	hash.Write([]byte(purpose))
	h, r := hash.Sum64(), uint64(rank)
	id := Philox([4]uint32{uint32(h), uint32(h >> 32), uint32(r), uint32(r >> 32)}, [2]uint32{uint32(seed), uint32(seed >> 32)})
	s.key, s.high = [2]uint32{id[0], id[1]}, [2]uint32{id[2], id[3]}
	return s
}

// Counter is the number of draws taken so far.
func (s *Stream) Counter() uint64 { return s.counter }

// Seek makes draw number counter (from 0) the next one.
func (s *Stream) Seek(counter uint64) { s.counter = counter }

// blockAt is the 128 bits that hold draws 2·index and 2·index+1.
func (s *Stream) blockAt(index uint64) [4]uint32 {
	return Philox([4]uint32{uint32(index), uint32(index >> 32), s.high[0], s.high[1]}, s.key)
}

// At is draw number i (from 0), wherever the stream stands.
func (s *Stream) At(i uint64) uint64 {
	if !s.held || s.index != i/2 {
		s.index, s.block, s.held = i/2, s.blockAt(i/2), true
	}
	w := 2 * (i % 2)
	return uint64(s.block[w+1])<<32 | uint64(s.block[w])
}

// Float64At is what Float64 gives as draw number i, wherever the stream stands.
func (s *Stream) Float64At(i uint64) float64 { return unit(s.At(i)) }

// unit takes the upper 53 bits as a fraction in [0, 1).
func unit(draw uint64) float64 { return float64(draw>>11) * 0x1p-53 }

// Uint64 takes one draw.
func (s *Stream) Uint64() uint64 {
	s.counter++
	return s.At(s.counter - 1)
}

// Uint32 takes the upper half of one draw.
func (s *Stream) Uint32() uint32 { return uint32(s.Uint64() >> 32) }

// Float64 takes one draw as a number in [0, 1), a multiple of 2⁻⁵³.
func (s *Stream) Float64() float64 { return unit(s.Uint64()) }

// Float32 takes one draw as a number in [0, 1), a multiple of 2⁻²⁴.
func (s *Stream) Float32() float32 { return float32(s.Uint64()>>40) * 0x1p-24 }

// Norm is a normally distributed number of mean 0 and variance 1, of two draws, by
// Box and Muller (1958): √(−2 ln u)·cos(2πv). The companion with sin is not kept:
// it would be state.
func (s *Stream) Norm() float64 {
	u, v := 1-s.Float64(), s.Float64() // u in (0, 1]
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}

// Intn is a whole number in [0, n), each with equal probability, of one draw and,
// rarely, more (D. Lemire, "Fast Random Integer Generation in an Interval", 2019).
// It panics if n < 1.
func (s *Stream) Intn(n int) int {
	if n < 1 {
		panic(fmt.Sprintf("rng: Intn(%d)", n))
	}
	bound := uint64(n)
	hi, lo := bits.Mul64(s.Uint64(), bound)
	if lo < bound {
		// Of the 2⁶⁴ draws, 2⁶⁴ mod n too many would fall on some numbers.
		for excess := -bound % bound; lo < excess; {
			hi, lo = bits.Mul64(s.Uint64(), bound)
		}
	}
	return int(hi)
}

// Perm is a permutation of 0 … n−1, each with equal probability.
func (s *Stream) Perm(n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	s.Shuffle(n, func(i, j int) { p[i], p[j] = p[j], p[i] })
	return p
}

// Shuffle puts n things in random order, swapping two at a time (Fisher and Yates;
// R. Durstenfeld, 1964).
func (s *Stream) Shuffle(n int, swap func(i, j int)) {
	for i := n - 1; i > 0; i-- {
		swap(i, s.Intn(i+1))
	}
}

// state is a Stream in JSON.
type state struct {
	Seed    *uint64 `json:"seed"`
	Purpose *string `json:"purpose"`
	Rank    *int    `json:"rank"`
	Counter *uint64 `json:"counter"`
}

// MarshalJSON writes the state, as {"seed": 1, "purpose": "data", "rank": 0,
// "counter": 128}.
func (s *Stream) MarshalJSON() ([]byte, error) {
	return json.Marshal(state{&s.seed, &s.purpose, &s.rank, &s.counter})
}

// UnmarshalJSON makes s the stream that was saved. All four fields must be there.
func (s *Stream) UnmarshalJSON(b []byte) error {
	var v state
	if err := json.Unmarshal(b, &v); err != nil {
		return fmt.Errorf("state of a random stream: %w", err)
	}
	if v.Seed == nil || v.Purpose == nil || v.Rank == nil || v.Counter == nil {
		return fmt.Errorf("state of a random stream: want seed, purpose, rank and counter, got %.200s", b)
	}
	*s = *New(*v.Seed, *v.Purpose, *v.Rank)
	s.Seek(*v.Counter)
	return nil
}
