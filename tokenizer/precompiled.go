package tokenizer

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A charsMap is sentencepiece's compiled form of normalization rules, its field
// precompiled_charsmap: which strings are replaced, and by what. It holds the
// size of a trie in bytes (uint32), the trie, whose values are offsets into the
// replacements, and the replacements, each ended by a zero byte. The trie is a
// double array of 32 bit units as the library darts-clone lays it out:
//
//	bit 31       a leaf, whose other bits are the value
//	bits 10..30  offset of the children, shifted by 8 if bit 9 is set
//	bit 8        a string ends here: the child for byte 0 is a leaf
//	bits 0..7    the byte that leads here
type charsMap struct {
	blob         []byte // as in the file
	units        []uint32
	replacements string

	// plain says of an ASCII character that no rule is about it: neither alone,
	// nor where another ASCII character follows.
	plain [utf8.RuneSelf]bool
}

// newCharsMap reads a precompiled_charsmap. An error says what is wrong with it.
func newCharsMap(blob []byte) (*charsMap, error) {
	if len(blob) < 4 {
		return nil, fmt.Errorf("has %d bytes, expected at least 4", len(blob))
	}
	size := uint64(binary.LittleEndian.Uint32(blob))
	if size > uint64(len(blob)-4) || size%4 != 0 || size == 0 {
		return nil, fmt.Errorf("a trie of %d bytes is stated, but %d bytes follow (expected a multiple of 4 that fits)", size, len(blob)-4)
	}
	m := &charsMap{blob: blob, units: make([]uint32, size/4), replacements: string(blob[4+size:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(blob[4+4*i:])
	}
	if !utf8.ValidString(m.replacements) {
		return nil, fmt.Errorf("its replacements are not UTF-8")
	}
	for b := range m.plain {
		if b == 0 {
			continue
		}
		at, leaf, ok := m.step(m.root(), byte(b))
		m.plain[b] = !leaf
		for c := 1; ok && c < utf8.RuneSelf; c++ {
			if _, _, next := m.step(at, byte(c)); next {
				m.plain[b] = false
			}
		}
	}
	return m, nil
}

func unitOffset(u uint32) uint32 { return u >> 10 << (u & (1 << 9) >> 6) }

func (m *charsMap) root() uint32 { return unitOffset(m.units[0]) }

// step goes from where a node's children are to where those of its child for c
// are. leaf says that a rule ends there.
func (m *charsMap) step(at uint32, c byte) (to uint32, leaf, ok bool) {
	at ^= uint32(c)
	if c == 0 || at >= uint32(len(m.units)) {
		return 0, false, false
	}
	u := m.units[at]
	if u&(1<<31|0xFF) != uint32(c) {
		return 0, false, false
	}
	return at ^ unitOffset(u), u>>8&1 != 0, true
}

// replacement returns what stands at a leaf.
func (m *charsMap) replacement(at uint32) (string, bool) {
	if at >= uint32(len(m.units)) {
		return "", false
	}
	from := m.units[at] & (1<<31 - 1)
	if from > uint32(len(m.replacements)) {
		return "", false
	}
	s := m.replacements[from:]
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	return s, true
}

// longest returns the replacement for the longest string that s begins with and
// has a rule, and the length of that string.
func (m *charsMap) longest(s string) (to string, length int, ok bool) {
	at := m.root()
	for i := range len(s) {
		next, leaf, going := m.step(at, s[i])
		if !going {
			break
		}
		at = next
		if leaf {
			if r, found := m.replacement(at); found {
				to, length, ok = r, i+1, true
			}
		}
	}
	return to, length, ok
}

// shortest is longest for the shortest such string.
func (m *charsMap) shortest(s string) (to string, ok bool) {
	at := m.root()
	for i := range len(s) {
		next, leaf, going := m.step(at, s[i])
		if !going {
			break
		}
		at = next
		if leaf {
			return m.replacement(at)
		}
	}
	return "", false
}

// precompiledNormalizer is Precompiled: sentencepiece's rules, applied as the
// tokenizers library does, which differs from sentencepiece's longest match. A
// cluster of characters (UAX 29) of fewer than 6 bytes becomes as a whole what
// the shortest rule that it begins with says; else each character is looked up
// by itself.
type precompiledNormalizer struct{ rules *charsMap }

// longestShortCluster is the length in bytes up to which clusters are replaced
// as a whole.
const longestShortCluster = 5

func (n precompiledNormalizer) normalize(p piece, track bool) piece {
	s := p.text
	w := newRewriter(p, track)
	done := 0 // up to where text was written
	replace := func(to string, i, j int) {
		w.keep(done, i)
		w.put(to, i, j)
		done = j
	}
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf && n.rules.plain[s[i]] && (i+1 == len(s) || s[i+1] < utf8.RuneSelf) {
			i++
			continue
		}
		end := clusterEnd(s, i)
		if end-i <= longestShortCluster {
			if to, ok := n.rules.shortest(s[i:end]); ok {
				replace(to, i, end)
				i = end
				continue
			}
		}
		for i < end {
			_, size := utf8.DecodeRuneInString(s[i:])
			if to, ok := n.rules.shortest(s[i : i+size]); ok {
				replace(to, i, i+size)
			}
			i += size
		}
	}
	if done == 0 {
		return p
	}
	w.keep(done, len(s))
	return w.done()
}

// readPrecompiled reads the field precompiled_charsmap of tokenizer.json.
func readPrecompiled(raw []byte, at string) (normalizer, error) {
	at += ".precompiled_charsmap"
	if isNull(raw) {
		return nil, fmt.Errorf("%s: missing", at)
	}
	text, err := stringValue(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	m, err := newCharsMap(blob)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	return precompiledNormalizer{m}, nil
}
