package data

// blockTokens is the size of a store's blocks. Blocks are allocated as rows
// arrive and never copied, so that a growing set needs no second copy of itself.
const blockTokens = 1 << 20

// store keeps sequences compactly: ids in flat blocks, one bit a token for the
// mask, and a few bytes a sequence. A sequence lies within one block.
type store struct {
	blocks []block
	seqs   []seqRef
	tokens int64
}

type block struct {
	ids  []int32
	mask []uint64 // bit i says whether ids[i] is trained on
}

// seqRef is where a sequence lies and where it came from.
type seqRef struct {
	block, start, length uint32
	line, element        uint32
	source, file         uint16
	// hash identifies the content of the row, for the held-out split; the pieces
	// of a split row share it.
	hash uint64
}

// add copies a sequence into the store and returns its index.
func (s *store) add(e encoded, ref seqRef) int {
	n := len(e.ids)
	last := len(s.blocks) - 1
	if last < 0 || len(s.blocks[last].ids)+n > cap(s.blocks[last].ids) {
		size := max(n, blockTokens)
		if last < 0 {
			size = max(n, 1<<14) // small sets stay small
		}
		s.blocks = append(s.blocks, block{make([]int32, 0, size), make([]uint64, (size+63)/64)})
		last++
	}
	b := &s.blocks[last]
	ref.block, ref.start, ref.length = uint32(last), uint32(len(b.ids)), uint32(n)
	for i, t := range e.trained {
		if t {
			at := len(b.ids) + i
			b.mask[at>>6] |= 1 << (at & 63)
		}
	}
	b.ids = append(b.ids, e.ids...)
	s.seqs = append(s.seqs, ref)
	s.tokens += int64(n)
	return len(s.seqs) - 1
}

// ids are a sequence's tokens, to be read only.
func (s *store) ids(i uint32) []int32 {
	r := &s.seqs[i]
	return s.blocks[r.block].ids[r.start : r.start+r.length]
}

// trained says whether token t of sequence i is trained on.
func (s *store) trained(i uint32, t int) bool {
	r := &s.seqs[i]
	at := int(r.start) + t
	return s.blocks[r.block].mask[at>>6]>>(at&63)&1 == 1
}

// length is a sequence's number of tokens.
func (s *store) length(i uint32) int { return int(s.seqs[i].length) }
