package tokenizer

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// bpe is the model BPE: a word is taken apart into symbols, characters or
// bytes, which merges then join.
//
// Where the pre-tokenizer ends with ByteLevel, the tokenizers library spells
// each word in the byte alphabet and merges characters. Here the vocabulary is
// turned into bytes instead, once, and words are left as they are. A model whose
// vocabulary needs characters (affixes, byte_fallback) gets them spelled.
type bpe struct {
	vocabulary
	merges mergeTable

	byteMode   bool
	byteSymbol [256]int32           // in byte mode: token of each byte, -1 if it has none
	asciiToken [utf8.RuneSelf]int32 // otherwise: tokens of one character, -1 if there is none
	runeToken  map[rune]int32       // those beyond ASCII
	prefix     string               // continuing_subword_prefix
	suffix     string               // end_of_word_suffix

	unk          int32 // unk_token, or -1
	fuseUnk      bool  // neighbouring unknown characters are one token
	byteFallback bool
	fallback     [256]int32       // <0x00> to <0xFF>, -1 if not in the vocabulary
	whole        map[string]int32 // with ignore_merges: words that are tokens, by text

	// marked says that no merge joins U+2581 to a character before it, so that
	// a text may be cut before that mark: sentencepiece's vocabularies are
	// like that, and short words can be cached where a whole text can't.
	marked bool

	cache *wordCache
}

// spaceMark is what sentencepiece writes for a space.
const spaceMark = "\u2581"

// bpeOptions are the fields of a BPE model beside its vocabulary and merges.
type bpeOptions struct {
	unk                       string
	prefix, suffix            string
	fuseUnk, byteFallback     bool
	ignoreMerges, endsInBytes bool // endsInBytes: the last pre-tokenizer is ByteLevel
}

// newBPE makes a model. Merges are in order of rank; an error names the merge.
func newBPE(v vocabulary, merges [][2]string, o bpeOptions) (*bpe, error) {
	m := &bpe{
		vocabulary: v, prefix: o.prefix, suffix: o.suffix, unk: -1,
		fuseUnk: o.fuseUnk, byteFallback: o.byteFallback, cache: newWordCache(),
	}
	m.byteMode = o.endsInBytes && o.prefix == "" && o.suffix == "" && !o.byteFallback
	if o.unk != "" {
		id, ok := v.ids[o.unk]
		if !ok {
			return nil, fmt.Errorf("model.unk_token: %q is not in the vocabulary", clip(o.unk))
		}
		m.unk = id
	}
	for b := range 256 {
		m.byteSymbol[b] = m.lookup(string(byteRune[b]))
		m.fallback[b] = m.lookup(fmt.Sprintf("<0x%02X>", b))
	}
	if !m.byteMode {
		m.setRuneTokens()
	}
	if o.ignoreMerges {
		m.setWholeWords()
	}
	if err := m.setMerges(merges); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *bpe) setRuneTokens() {
	for c := range m.asciiToken {
		m.asciiToken[c] = m.lookup(string(rune(c)))
	}
	m.runeToken = map[rune]int32{}
	for id, s := range m.tokens {
		if r, n := utf8.DecodeRuneInString(s); n > 1 && n == len(s) {
			m.runeToken[r] = int32(id)
		}
	}
}

func (m *bpe) setWholeWords() {
	if !m.byteMode {
		m.whole = m.ids
		return
	}
	m.whole = make(map[string]int32, len(m.ids))
	for s, id := range m.ids {
		if b, ok := fromByteAlphabet(s); ok {
			m.whole[b] = id
		}
	}
}

func (m *bpe) setMerges(merges [][2]string) error {
	m.merges = newMergeTable(len(merges))
	_, hasMark := m.ids[spaceMark]
	m.marked = hasMark && !m.byteMode && m.prefix == "" && m.suffix == "" && m.whole == nil
	for rank, p := range merges {
		left, right := m.lookup(p[0]), m.lookup(p[1])
		if left < 0 || right < 0 {
			return fmt.Errorf("model.merges[%d]: %q is not in the vocabulary", rank, clip(p[b2i(left >= 0)]))
		}
		// As in the tokenizers library, the right part's prefix is cut off
		// unseen.
		if len(p[1]) < len(m.prefix) {
			return fmt.Errorf("model.merges[%d]: %q is shorter than continuing_subword_prefix %q", rank, clip(p[1]), clip(m.prefix))
		}
		joined := p[0] + p[1][len(m.prefix):]
		id := m.lookup(joined)
		if id < 0 {
			return fmt.Errorf("model.merges[%d]: %q joins to %q, which is not in the vocabulary", rank, p, clip(joined))
		}
		m.merges.set(left, right, uint32(rank), id)
		if i := strings.LastIndex(joined, spaceMark); i > 0 && strings.Trim(joined[:i], spaceMark) != "" {
			m.marked = false
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// lookup returns the id of a vocabulary string, or -1.
func (m *bpe) lookup(s string) int32 {
	if id, ok := m.ids[s]; ok {
		return id
	}
	return -1
}

// maxWord is the most that is encoded at once, so that places fit into 32 bits.
const maxWord = 1 << 28

func (m *bpe) encode(out *sink, p piece) {
	for len(p.text) > 0 {
		end := len(p.text)
		if m.marked {
			end = nextMark(p.text)
		}
		if end > maxWord {
			for end = maxWord; !utf8.RuneStart(p.text[end]); end-- {
			}
		}
		if end == len(p.text) {
			m.encodeWord(out, p)
			return
		}
		m.encodeWord(out, p.sub(0, end))
		p = p.sub(end, len(p.text))
	}
}

// nextMark returns where the first mark after other text stands in s.
func nextMark(s string) int {
	i := 0
	for strings.HasPrefix(s[i:], spaceMark) {
		i += len(spaceMark)
	}
	if j := strings.Index(s[i:], spaceMark); j >= 0 {
		return i + j
	}
	return len(s)
}

func (m *bpe) encodeWord(out *sink, p piece) {
	if len(p.text) > maxCachedWord {
		w := &out.symbols
		m.symbolsOf(w, p.text)
		emit(out, m, p, w.ids, w.ends)
		return
	}
	slot := m.cache.slot(p.text)
	if e := m.cache.get(slot, p.text); e != nil {
		emit(out, m, p, e.ids, e.ends)
		return
	}
	w := &out.symbols
	m.symbolsOf(w, p.text)
	emit(out, m, p, w.ids, w.ends)
	m.cache.put(slot, p.text, w)
}

// symbolsOf encodes a word into w.
func (m *bpe) symbolsOf(w *symbols, s string) {
	w.reset()
	if m.whole != nil {
		if id, ok := m.whole[s]; ok {
			w.add(id, len(s))
			return
		}
	}
	m.split(w, s)
	w.merge(&m.merges)
}

// split takes a word apart into the symbols that merging begins with. What has
// no token becomes its bytes, or the unknown token, or nothing. An unknown
// character is put down only when one that is known or unknown follows: where
// the bytes of another come between, these stand first, as in the tokenizers
// library.
func (m *bpe) split(w *symbols, s string) {
	unknown := 0 // bytes of unknown characters that are not put down yet
	add := func(id int32, n int) {
		end := n
		if k := len(w.ends); k > 0 {
			end += int(w.ends[k-1])
		}
		w.add(id, min(end, len(s)))
	}
	for i := 0; i < len(s); {
		n, id := 1, int32(-1)
		var spelled string
		if m.byteMode {
			id = m.byteSymbol[s[i]]
		} else {
			var r rune
			if r, n = utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || n > 1 {
				id, spelled = m.symbol(s, i, n, r)
			} else {
				spelled = s[i : i+1]
			}
		}
		switch {
		case id >= 0:
			if unknown > 0 {
				add(m.unk, unknown)
				unknown = 0
			}
			w.add(id, i+n)
		case m.byteFallback && m.hasFallback(spelled):
			// Affixes count as bytes too, with nothing of the word behind them.
			for k := range len(spelled) {
				if unknown > 0 {
					add(m.fallback[spelled[k]], 1)
				} else {
					w.add(m.fallback[spelled[k]], min(i+k+1, i+n))
				}
			}
		case m.unk >= 0:
			if unknown > 0 && !m.fuseUnk {
				add(m.unk, unknown)
				unknown = 0
			}
			unknown += n
		}
		i += n
	}
	if unknown > 0 {
		add(m.unk, unknown)
	}
}

// symbol returns the token of the character r, n bytes at s[i], or -1 and how
// it is spelled.
func (m *bpe) symbol(s string, i, n int, r rune) (int32, string) {
	spelled := s[i : i+n]
	if m.prefix == "" && m.suffix == "" {
		if r < utf8.RuneSelf {
			return m.asciiToken[r], spelled
		}
		if id, ok := m.runeToken[r]; ok {
			return id, spelled
		}
		return -1, spelled
	}
	if i > 0 {
		spelled = m.prefix + spelled
	}
	if i+n == len(s) {
		spelled += m.suffix
	}
	return m.lookup(spelled), spelled
}

func (m *bpe) hasFallback(s string) bool {
	for i := range len(s) {
		if m.fallback[s[i]] < 0 {
			return false
		}
	}
	return true
}

// emit appends the tokens of a word to out. ends are in bytes of p.
func emit[E int32 | uint8](out *sink, m *bpe, p piece, ids []int32, ends []E) {
	if out.plainSpecial {
		for _, id := range ids {
			if id != m.unk && out.special.has(id) {
				m.emitPlain(out, p, ids, len(ends), func(i int) int { return int(ends[i]) })
				return
			}
		}
	}
	out.ids = append(out.ids, ids...)
	if out.track {
		from := 0
		for _, end := range ends {
			at := p.span(from, int(end))
			out.offsets = append(out.offsets, [2]int{at.start, at.end})
			from = int(end)
		}
	}
}

// emitPlain is emit where a control token came out of plain text: by merges, or
// because it is a single character. Its characters are written without merges
// instead, those that are control tokens themselves as unknown.
func (m *bpe) emitPlain(out *sink, p piece, ids []int32, n int, end func(int) int) {
	var w symbols
	for i, from := 0, 0; i < n; i++ {
		if id := ids[i]; id == m.unk || !out.special.has(id) {
			out.add(id, p.span(from, end(i)))
			from = end(i)
			continue
		}
		w.reset()
		m.split(&w, p.text[from:end(i)])
		for k, at := 0, 0; k < len(w.ids); k++ {
			to := int(w.ends[k])
			switch id := w.ids[k]; {
			case id == m.unk || !out.special.has(id):
				out.add(id, p.span(from+at, from+to))
			case m.byteFallback && m.hasFallback(p.text[from+at:from+to]):
				for j := from + at; j < from+to; j++ {
					out.add(m.fallback[p.text[j]], p.span(j, j+1))
				}
			case m.unk >= 0:
				out.add(m.unk, p.span(from+at, from+to))
			}
			at = to
		}
		from = end(i)
	}
}
