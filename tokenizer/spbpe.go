package tokenizer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// spBPE is sentencepiece's model BPE. It keeps no list of merges: two neighbours
// may be joined if they spell a piece, and the one of the greatest score goes
// first, the leftmost of these where there are more. Here the pairs that spell a
// piece are found once, so that encoding is the same as with merges.
//
// A symbol is the id of a piece or, for single characters that are no piece but
// the part of one, a number after those.
type spBPE struct {
	vocabulary
	merges mergeTable
	ties   bool // pieces of one score: the place counts then, not the id

	user        *byteTrie // pieces that text is never cut within, nor joined to others
	asciiSymbol [utf8.RuneSelf]int32
	runeSymbol  map[rune]int32
	other       int32   // the symbol of any other character, the greatest
	tokens      []int32 // id by symbol, -1 if it is no piece

	unk          int32
	byteFallback bool
	fallback     [256]int32
	unused       idSet // pieces that are taken apart again, or are unknown
	marked       bool  // text may be cut before U+2581, see bpe
	cache        *wordCache
}

// maxMerges bounds the table of pairs; Gemma's 262,144 pieces have 580,604.
const maxMerges = 1 << 23

func newSPBPE(m *spModel) (*spBPE, error) {
	b := &spBPE{
		vocabulary: m.vocabulary(), user: m.userDefined(), runeSymbol: map[rune]int32{},
		unk: m.unk, byteFallback: m.byteFallback, cache: newWordCache(),
	}
	for c := range b.asciiSymbol {
		b.asciiSymbol[c] = -1
	}
	b.tokens = make([]int32, len(m.pieces))
	pieces := make(map[string]int32, len(m.pieces)) // those that merging makes or begins with
	for i, p := range m.pieces {
		b.tokens[i] = b.ids[p.text]
		if p.kind == pieceByte {
			c, _ := fallbackByte(p.text)
			b.fallback[c] = int32(i)
		}
		if p.kind == pieceUnused {
			b.unused.add(int32(i))
			b.tokens[i] = -1
		}
		if p.kind == pieceNormal || p.kind == pieceUnused {
			pieces[p.text] = int32(i)
			if r, n := utf8.DecodeRuneInString(p.text); n == len(p.text) {
				b.setRune(r, int32(i))
			}
		}
	}
	if err := b.findMerges(m, pieces); err != nil {
		return nil, err
	}
	b.other = int32(len(b.tokens))
	b.tokens = append(b.tokens, -1)
	return b, nil
}

func (b *spBPE) setRune(r rune, symbol int32) {
	if r < utf8.RuneSelf {
		b.asciiSymbol[r] = symbol
	} else {
		b.runeSymbol[r] = symbol
	}
}

// symbol returns the symbol of a character, or -1.
func (b *spBPE) symbol(r rune) int32 {
	if r < utf8.RuneSelf {
		return b.asciiSymbol[r]
	}
	if s, ok := b.runeSymbol[r]; ok {
		return s
	}
	return -1
}

// spPair is a way to make a piece of two symbols.
type spPair struct{ left, right, piece int32 }

// pairs calls f for the ways to make a piece of two that pieces or single
// characters spell.
func (b *spBPE) pairs(pieces map[string]int32, text string, f func(left, right int32)) {
	part := func(s string) int32 {
		r, n := utf8.DecodeRuneInString(s)
		if n < len(s) {
			if id, ok := pieces[s]; ok {
				return id
			}
			return -1
		}
		symbol := b.symbol(r)
		if symbol < 0 {
			symbol = int32(len(b.tokens))
			b.tokens = append(b.tokens, -1)
			b.setRune(r, symbol)
		}
		return symbol
	}
	for i := 1; i < len(text); i++ {
		if !utf8.RuneStart(text[i]) {
			continue
		}
		if left := part(text[:i]); left >= 0 {
			if right := part(text[i:]); right >= 0 {
				f(left, right)
			}
		}
	}
}

func (b *spBPE) findMerges(m *spModel, pieces map[string]int32) error {
	_, hasMark := pieces[spaceMark]
	b.marked = hasMark && b.unused == nil
	var list []spPair
	var scores []float32
	for i, p := range m.pieces {
		if j := strings.LastIndex(p.text, spaceMark); j > 0 && strings.Trim(p.text[:j], spaceMark) != "" && !p.reserved() {
			b.marked = false
		}
		if p.kind != pieceNormal && p.kind != pieceUnused {
			continue
		}
		before := len(list)
		b.pairs(pieces, p.text, func(left, right int32) { list = append(list, spPair{left, right, int32(i)}) })
		if len(list) > maxMerges {
			return fmt.Errorf("pieces: have more than %d ways to be joined, which is too many", maxMerges)
		}
		if len(list) > before {
			scores = append(scores, p.score)
		}
	}
	slices.SortFunc(scores, func(x, y float32) int { return cmp.Compare(y, x) })
	all := len(scores)
	scores = slices.Compact(scores)
	b.ties = len(scores) < all
	b.merges = newMergeTable(len(list))
	for _, p := range list {
		rank, _ := slices.BinarySearchFunc(scores, m.pieces[p.piece].score, func(x, y float32) int { return cmp.Compare(y, x) })
		b.merges.set(p.left, p.right, uint32(rank), p.piece)
	}
	return nil
}

func (b *spBPE) encode(out *sink, p piece) {
	for len(p.text) > 0 {
		end := len(p.text)
		if b.marked {
			end = nextMark(p.text)
		}
		if end > maxWord {
			for end = maxWord; !utf8.RuneStart(p.text[end]); end-- {
			}
		}
		b.encodeWord(out, p.sub(0, end))
		p = p.sub(end, len(p.text))
	}
}

func (b *spBPE) encodeWord(out *sink, p piece) {
	w := &out.symbols
	if len(p.text) > maxCachedWord || !b.marked {
		b.symbolsOf(w, p.text)
		b.emit(out, p, w)
		return
	}
	slot := b.cache.slot(p.text)
	if e := b.cache.get(slot, p.text); e != nil {
		w.load(e)
	} else {
		b.symbolsOf(w, p.text)
		b.cache.put(slot, p.text, w)
	}
	b.emit(out, p, w)
}

// load takes over what is known of a word.
func (w *symbols) load(e *cachedWord) {
	w.reset()
	w.ids = append(w.ids, e.ids...)
	for _, end := range e.ends {
		w.ends = append(w.ends, int32(end))
	}
}

// symbolsOf encodes a text into w.
func (b *spBPE) symbolsOf(w *symbols, s string) {
	b.split(w, s)
	switch {
	case b.unused != nil:
		b.mergeWithUnused(w)
	case b.ties && len(w.ids) > 1:
		w.mergeByPlace(&b.merges)
	default:
		w.merge(&b.merges)
	}
	b.toTokens(w, s)
}

// split takes a text apart into the symbols that merging begins with.
func (b *spBPE) split(w *symbols, s string) {
	w.reset()
	for i := 0; i < len(s); {
		if b.user != nil {
			if id, n := b.user.longest(s[i:]); n > 0 {
				i += n
				w.add(id, i)
				continue
			}
		}
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		symbol := b.symbol(r)
		if symbol < 0 || r == utf8.RuneError && n == 1 {
			symbol = b.other
		}
		i += n
		w.add(symbol, i)
	}
}

// mergeByPlace is merge for pieces that share scores.
func (w *symbols) mergeByPlace(t *mergeTable) {
	n := len(w.ids)
	if cap(w.pairs) < n {
		w.pairs = make([]uint64, n+n/2)
	}
	w.pairs = w.pairs[:n]
	for i := range n - 1 {
		w.pairs[i] = t.get(w.ids[i], w.ids[i+1])
	}
	w.pairs[n-1] = noMerge
	w.mergeLong(t)
}

// toTokens writes ids for symbols. What is no piece becomes its bytes, or
// together with such neighbours the unknown token.
func (b *spBPE) toTokens(w *symbols, s string) {
	known := true
	for _, symbol := range w.ids {
		known = known && b.tokens[symbol] == symbol
	}
	if known {
		return
	}
	symbols, ends := slices.Clone(w.ids), slices.Clone(w.ends)
	w.reset()
	from := 0
	for i, symbol := range symbols {
		end := int(ends[i])
		id := b.tokens[symbol]
		switch {
		case id >= 0 && id != b.unk:
			w.add(id, end)
		case b.byteFallback:
			for k := from; k < end; k++ {
				w.add(b.fallback[s[k]], k+1)
			}
		default:
			b.addUnknown(w, end)
		}
		from = end
	}
}

// addUnknown adds the unknown token, or makes one that is there longer.
func (b *spBPE) addUnknown(w *symbols, end int) {
	if n := len(w.ids); n > 0 && w.ids[n-1] == b.unk {
		w.ends[n-1] = int32(end)
	} else {
		w.add(b.unk, end)
	}
}

// emit appends the tokens of a text to out. A control token that came out of
// plain text, because it was added to the model with the spelling of a piece, is
// written as its characters instead, and these as unknown where they are one.
func (b *spBPE) emit(out *sink, p piece, w *symbols) {
	if out.plainSpecial {
		special := func(id int32) bool { return id != b.unk && out.special.has(id) }
		if slices.ContainsFunc(w.ids, special) {
			var plain symbols
			from := 0
			for i, id := range w.ids {
				end := int(w.ends[i])
				if !special(id) {
					plain.add(id, end)
				} else {
					b.addPlain(&plain, p.text, from, end, special)
				}
				from = end
			}
			out.addSymbols(p, &plain)
			return
		}
	}
	out.addSymbols(p, w)
}

func (b *spBPE) addPlain(w *symbols, s string, from, end int, special func(int32) bool) {
	for i := from; i < end; {
		r, n := utf8.DecodeRuneInString(s[i:])
		if symbol := b.symbol(r); symbol >= 0 && b.tokens[symbol] >= 0 && !special(b.tokens[symbol]) {
			w.add(b.tokens[symbol], i+n)
		} else if b.byteFallback {
			for k := i; k < i+n; k++ {
				w.add(b.fallback[s[k]], k+1)
			}
		} else {
			b.addUnknown(w, i+n)
		}
		i += n
	}
}

// mergeWithUnused is merge for models with unused pieces. These are merged as
// others are, and in the end taken apart again into the two that such a piece was
// last seen to be made of, anywhere in the text.
func (b *spBPE) mergeWithUnused(w *symbols) {
	n := len(w.ids)
	if n < 2 {
		return
	}
	type parts struct{ left, right, split int32 } // split: bytes of the left one
	made := map[int32]parts{}
	next, prev := make([]int32, n), make([]int32, n)
	start := make([]int32, n)
	pairs := make([]uint64, n)
	var heap []uint64
	consider := func(i int32) {
		if i < 0 {
			return
		}
		pairs[i] = noMerge
		j := next[i]
		if j >= int32(n) {
			return
		}
		merge := b.merges.get(w.ids[i], w.ids[j])
		if merge == noMerge {
			return
		}
		pairs[i] = merge
		heap = append(heap, merge&^(1<<32-1)|uint64(i))
		siftUp(heap)
		if id := int32(uint32(merge)); b.unused.has(id) {
			made[id] = parts{w.ids[i], w.ids[j], w.ends[i] - start[i]}
		}
	}
	for i := range int32(n) {
		prev[i], next[i] = i-1, i+1
		if i > 0 {
			start[i] = w.ends[i-1]
			consider(i - 1)
		}
	}
	pairs[n-1] = noMerge
	for len(heap) > 0 {
		top := heap[0]
		heap = popHeap(heap)
		i := int32(uint32(top))
		if pairs[i] == noMerge || pairs[i]>>32 != top>>32 {
			continue
		}
		j := next[i]
		w.ids[i], w.ends[i] = int32(uint32(pairs[i])), w.ends[j]
		pairs[i], pairs[j] = noMerge, noMerge
		if next[i] = next[j]; next[i] < int32(n) {
			prev[next[i]] = i
		}
		consider(prev[i])
		consider(i)
	}
	ids, ends := slices.Clone(w.ids), slices.Clone(w.ends)
	w.reset()
	type part struct{ id, end, size int32 }
	for i := int32(0); i < int32(n); i = next[i] {
		todo := []part{{ids[i], ends[i], ends[i] - start[i]}}
		for len(todo) > 0 {
			p := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if m, ok := made[p.id]; ok {
				todo = append(todo, part{m.right, p.end, p.size - m.split}, part{m.left, p.end - p.size + m.split, m.split})
				continue
			}
			w.add(p.id, int(p.end))
		}
	}
}
