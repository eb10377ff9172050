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
	// parts are the answers of all rankings, and ends where those of each end in
	// parts. Both are empty where sequences aren't rankings.
	parts []part
	ends  []int
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
	verdict              int8 // of a labelled answer: 1 good, -1 bad
	// hash identifies the content of the row; the pieces of a split row share it.
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
	if len(e.parts) > 0 {
		s.parts = append(s.parts, e.parts...)
		s.ends = append(s.ends, len(s.parts))
	}
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

// partsOf are a ranking's answers; none where sequences aren't rankings.
func (s *store) partsOf(i uint32) []part {
	if len(s.ends) == 0 {
		return nil
	}
	from := 0
	if i > 0 {
		from = s.ends[i-1]
	}
	return s.parts[from:s.ends[i]]
}

// partEnd is where an answer ends within the sequence of its ranking.
func (s *store) partEnd(i uint32, parts []part, k int) int {
	if k+1 < len(parts) {
		return int(parts[k+1].start)
	}
	return s.length(i)
}

// longestRow is the number of tokens of a sequence, or of a ranking's longest
// answer.
func (s *store) longestRow(i uint32) int {
	parts := s.partsOf(i)
	if len(parts) == 0 {
		return s.length(i)
	}
	longest := 0
	for k, p := range parts {
		longest = max(longest, s.partEnd(i, parts, k)-int(p.start))
	}
	return longest
}
