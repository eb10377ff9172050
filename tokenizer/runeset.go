package tokenizer

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// runeSet is a set of characters: ranges in order, that neither touch nor
// overlap. Surrogates may be in it; no text has them.
type runeSet []runeRange

// runeRange is the characters lo to hi, both included.
type runeRange struct{ lo, hi rune }

// newRuneSet puts ranges into order.
func newRuneSet(ranges []runeRange) runeSet {
	slices.SortFunc(ranges, func(a, b runeRange) int { return int(a.lo - b.lo) })
	var s runeSet
	for _, r := range ranges {
		if n := len(s); n > 0 && r.lo <= s[n-1].hi+1 {
			s[n-1].hi = max(s[n-1].hi, r.hi)
		} else {
			s = append(s, r)
		}
	}
	return s
}

// parseRuneSet reads ranges as hexadecimal numbers, "LO-HI" or "LO", with white
// space between: the form of unicodetables.go.
func parseRuneSet(text string) runeSet {
	var ranges []runeRange
	for f := range strings.FieldsSeq(text) {
		lo, hi, ok := strings.Cut(f, "-")
		if !ok {
			hi = lo
		}
		a, err := strconv.ParseInt(lo, 16, 32)
		b, err2 := strconv.ParseInt(hi, 16, 32)
		if err != nil || err2 != nil {
			panic("tokenizer: bad table of characters: " + f)
		}
		ranges = append(ranges, runeRange{rune(a), rune(b)})
	}
	return newRuneSet(ranges)
}

// tableSet is the union of tables.
func tableSet(tables ...*unicode.RangeTable) runeSet {
	var ranges []runeRange
	add := func(lo, hi, stride rune) {
		if stride == 1 {
			ranges = append(ranges, runeRange{lo, hi})
			return
		}
		for r := lo; r <= hi; r += stride {
			ranges = append(ranges, runeRange{r, r})
		}
	}
	for _, t := range tables {
		for _, r := range t.R16 {
			add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
		for _, r := range t.R32 {
			add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
	}
	return newRuneSet(ranges)
}

func (s runeSet) union(others ...runeSet) runeSet {
	all := slices.Clone(s)
	for _, o := range others {
		all = append(all, o...)
	}
	return newRuneSet(all)
}

// negate returns all characters that are not in s.
func (s runeSet) negate() runeSet {
	var n runeSet
	next := rune(0)
	for _, r := range s {
		if next < r.lo {
			n = append(n, runeRange{next, r.lo - 1})
		}
		next = r.hi + 1
	}
	if next <= unicode.MaxRune {
		n = append(n, runeRange{next, unicode.MaxRune})
	}
	return n
}

func (s runeSet) intersect(o runeSet) runeSet {
	return s.negate().union(o.negate()).negate()
}

func (s runeSet) minus(o runeSet) runeSet {
	return s.intersect(o.negate())
}

func (s runeSet) has(r rune) bool {
	i, ok := slices.BinarySearchFunc(s, r, func(e runeRange, r rune) int { return int(e.lo - r) })
	return ok || i > 0 && r <= s[i-1].hi
}

// fold adds the characters that differ from those of s only in case, as simple
// case folding has it.
func (s runeSet) fold() runeSet {
	all := slices.Clone(s)
	for _, r := range s {
		// Nothing above the last character with a case folds.
		for c := r.lo; c <= min(r.hi, 0x1E943); c++ {
			for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
				all = append(all, runeRange{f, f})
			}
		}
	}
	return newRuneSet(all)
}

// A runeTable answers questions about characters at once: a byte for each, in
// two steps. Most blocks of 256 characters are all alike, so that equal ones
// share storage.
type runeTable struct {
	ascii  [utf8.RuneSelf]uint8
	block  [(unicode.MaxRune + 1) / 256]uint16
	blocks [][256]uint8
}

// runeValue is the answer that a runeTable gives for the characters of a set.
type runeValue struct {
	set   runeSet
	value uint8
}

// newRuneTable makes a table that answers 0 for the characters of no set. Of
// sets that overlap the last counts.
func newRuneTable(values ...runeValue) *runeTable {
	t := &runeTable{blocks: make([][256]uint8, 1, 64)}
	uniform := map[uint8]uint16{0: 0}
	var own [len(t.block)]bool // blocks that are stored for one place alone
	for _, v := range values {
		for _, r := range v.set {
			for b := r.lo >> 8; b <= r.hi>>8; b++ {
				lo, hi := max(r.lo, b<<8), min(r.hi, b<<8|255)
				if hi-lo == 255 && !own[b] {
					id, ok := uniform[v.value]
					if !ok {
						id = uint16(len(t.blocks))
						uniform[v.value] = id
						var all [256]uint8
						for i := range all {
							all[i] = v.value
						}
						t.blocks = append(t.blocks, all)
					}
					t.block[b] = id
					continue
				}
				if !own[b] {
					t.blocks = append(t.blocks, t.blocks[t.block[b]])
					t.block[b], own[b] = uint16(len(t.blocks)-1), true
				}
				part := t.blocks[t.block[b]][lo&255 : hi&255+1]
				for i := range part {
					part[i] = v.value
				}
			}
		}
	}
	copy(t.ascii[:], t.blocks[t.block[0]][:])
	return t
}

// of returns the answer for r, which must not be above unicode.MaxRune.
func (t *runeTable) of(r rune) uint8 {
	return t.blocks[t.block[uint32(r)>>8]][uint8(r)]
}

// at returns the answer for the character that begins at s[i], and its length
// in bytes. A byte that is not UTF-8 is taken for U+FFFD.
func (t *runeTable) at(s string, i int) (uint8, int) {
	if c := s[i]; c < utf8.RuneSelf {
		return t.ascii[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return t.of(r), n
}
