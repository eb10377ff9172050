package autograd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Peak is what lies in the arena while the instruction runs at which most of it does.
// The arena is larger only by the gaps that its plan leaves.
type Peak struct {
	Instruction string
	Index, Of   int // which of how many instructions
	Bytes       int
	Buffers     []Held
}

// Held is memory that is occupied at the peak: the names of what lies there one after the
// other, its bytes, and the instructions from and to which it is occupied.
type Held struct {
	Name               string
	Bytes, First, Last int
}

// Peak finds the program's peak.
func (p *Program) Peak() Peak {
	change := make([]int, len(p.code)+2)
	for _, b := range p.buffers {
		if b.group == nil && b.first >= 0 {
			change[b.first] += b.bytes
			change[b.last+1] -= b.bytes
		}
	}
	peak := Peak{Of: len(p.code)}
	for i, sum := 0, 0; i < len(p.code); i++ {
		if sum += change[i]; sum > peak.Bytes {
			peak.Bytes, peak.Index = sum, i
		}
	}
	if len(p.code) == 0 {
		return peak
	}
	peak.Instruction = p.describe(&p.code[peak.Index])
	names := map[*buffer][]string{}
	for _, b := range p.buffers {
		if r := b.root(); !slices.Contains(names[r], b.name) {
			names[r] = append(names[r], b.name)
		}
	}
	for _, b := range p.buffers {
		if b.group == nil && b.first >= 0 && b.first <= peak.Index && peak.Index <= b.last {
			peak.Buffers = append(peak.Buffers, Held{strings.Join(names[b], ", "), b.bytes, b.first, b.last})
		}
	}
	slices.SortStableFunc(peak.Buffers, func(x, y Held) int { return cmp.Compare(y.Bytes, x.Bytes) })
	return peak
}

// String lists the buffers, those of one name (numbers at its end aside) and size
// together, largest sum first.
func (p Peak) String() string {
	type kind struct {
		name  string
		bytes int
	}
	number := map[kind]int{}
	var kinds []kind
	for _, b := range p.Buffers {
		k := kind{strings.TrimRight(b.Name, "0123456789"), b.Bytes}
		if number[k] == 0 {
			kinds = append(kinds, k)
		}
		number[k]++
	}
	slices.SortStableFunc(kinds, func(x, y kind) int { return cmp.Compare(y.bytes*number[y], x.bytes*number[x]) })
	const mib = 1 << 20
	var out strings.Builder
	fmt.Fprintf(&out, "%.1f MiB at instruction %d of %d, %s\n", float64(p.Bytes)/mib, p.Index, p.Of, p.Instruction)
	for _, k := range kinds {
		fmt.Fprintf(&out, "%10.1f MiB  %3d x %.1f  %s\n", float64(k.bytes*number[k])/mib, number[k], float64(k.bytes)/mib, k.name)
	}
	return out.String()
}
