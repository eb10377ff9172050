package data

import "slices"

// packer fills bins of a fixed number of tokens from a stream of sequences. A
// bin takes, from the next Window sequences, in order, each that still fits;
// what doesn't fit waits at the front for the next bin. So the order stays
// nearly that of the stream, no sequence waits for more than Window others, and
// bins are nearly full.
type packer struct {
	size    int // tokens a bin
	window  int // sequences looked at
	waiting []uint32
}

// next returns the sequences of the next bin, appended to into. draw returns
// the stream's next sequence. None means that the stream has ended.
func (p *packer) next(into []uint32, length func(uint32) int, draw func() (uint32, bool)) []uint32 {
	room := p.size
	keep := p.waiting[:0]
	for _, seq := range p.waiting {
		if n := length(seq); n <= room {
			into = append(into, seq)
			room -= n
			continue
		}
		keep = append(keep, seq)
	}
	p.waiting = keep
	// Look further until the window is full of what doesn't fit.
	for len(p.waiting) < p.window && room > 0 {
		seq, ok := draw()
		if !ok {
			break
		}
		if n := length(seq); n <= room {
			into = append(into, seq)
			room -= n
			continue
		}
		p.waiting = append(p.waiting, seq)
	}
	return into
}

// binsOf parts sequences into as few bins of size tokens as first-fit
// decreasing finds. Within a bin sequences keep their order; bins are in the
// order of their first sequences.
func binsOf(seqs []uint32, size int, length func(uint32) int) [][]uint32 {
	byLength := make([]int, len(seqs))
	for i := range byLength {
		byLength[i] = i
	}
	slices.SortStableFunc(byLength, func(a, b int) int { return length(seqs[b]) - length(seqs[a]) })
	var bins [][]int
	var room []int
	for _, i := range byLength {
		n := length(seqs[i])
		at := slices.IndexFunc(room, func(r int) bool { return r >= n })
		if at < 0 {
			bins, room = append(bins, nil), append(room, size)
			at = len(bins) - 1
		}
		bins[at] = append(bins[at], i)
		room[at] -= n
	}
	for _, bin := range bins {
		slices.Sort(bin)
	}
	slices.SortFunc(bins, func(a, b []int) int { return a[0] - b[0] })
	out := make([][]uint32, len(bins))
	for i, bin := range bins {
		for _, j := range bin {
			out[i] = append(out[i], seqs[j])
		}
	}
	return out
}
