package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"unicode/utf8"
)

// unigram is the model Unigram (Kudo, "Subword Regularization", 2018): each
// token has a score, its log probability, and a text is cut into the tokens
// whose scores have the greatest sum (Viterbi). A character that is no token may
// be taken as unknown, at a penalty.
//
// Where two cuts have the same sum, rounding decides; so sums are built in the
// order and precision of the reference: float64 as in the tokenizers library, or
// with single as in sentencepiece (0.2.3), which keeps sums in float32.
type unigram struct {
	vocabulary
	scores []float64 // by id
	trie   *byteTrie // of the tokens that may stand in text

	unk          int32 // -1: none, unknown characters are left out
	unkScore     float64
	byteFallback bool
	fallback     [256]int32 // <0x00> to <0xFF>, -1 if not in the vocabulary
	single       bool

	cache    *wordCache // nil with single: sums go over the whole text
	lattices sync.Pool  // of *[]latticeNode
}

// unkPenalty is what the score of an unknown character lies below the least
// score of all tokens.
const unkPenalty = 10

// latticeNode is the best way to cut a text up to a place: its sum, and its last
// token with where that begins.
type latticeNode struct {
	score float64
	start int32 // -1: no way known
	id    int32
}

// newUnigram makes a model as of tokenizer.json. unk is an id, or -1.
func newUnigram(v vocabulary, scores []float64, unk int32, byteFallback bool) *unigram {
	m := &unigram{vocabulary: v, scores: scores, unk: unk, byteFallback: byteFallback, cache: newWordCache()}
	least := math.Inf(1)
	for _, s := range scores {
		least = min(least, s)
	}
	m.unkScore = least - unkPenalty
	m.trie = newByteTrie(v.tokens, func(i int) int32 { return int32(i) })
	m.setFallback(v.ids)
	return m
}

func (m *unigram) setFallback(ids map[string]int32) {
	for b := range m.fallback {
		m.fallback[b] = -1
		if id, ok := ids[fmt.Sprintf("<0x%02X>", b)]; ok {
			m.fallback[b] = id
		}
	}
}

func (m *unigram) encode(out *sink, p piece) {
	for len(p.text) > maxWord {
		end := maxWord
		for !utf8.RuneStart(p.text[end]) {
			end--
		}
		m.encodeWord(out, p.sub(0, end))
		p = p.sub(end, len(p.text))
	}
	if len(p.text) > 0 {
		m.encodeWord(out, p)
	}
}

func (m *unigram) encodeWord(out *sink, p piece) {
	w := &out.symbols
	if len(p.text) > maxCachedWord || m.cache == nil {
		m.segment(w, p.text, nil)
		m.emit(out, p, w)
		return
	}
	slot := m.cache.slot(p.text)
	if e := m.cache.get(slot, p.text); e != nil {
		w.load(e)
	} else {
		m.segment(w, p.text, nil)
		m.cache.put(slot, p.text, w)
	}
	m.emit(out, p, w)
}

// emit appends the tokens of a text to out. Where control tokens came out of
// plain text, the text is cut again without them.
func (m *unigram) emit(out *sink, p piece, w *symbols) {
	if out.plainSpecial && m.hasSpecial(w, out.special) {
		m.segment(w, p.text, out.special)
	}
	out.addSymbols(p, w)
}

func (m *unigram) hasSpecial(w *symbols, special idSet) bool {
	for _, id := range w.ids {
		if id != m.unk && special.has(id) {
			return true
		}
	}
	return false
}

// addSymbols appends the tokens of p that w holds.
func (o *sink) addSymbols(p piece, w *symbols) {
	o.ids = append(o.ids, w.ids...)
	if o.track {
		from := 0
		for _, end := range w.ends {
			at := p.span(from, int(end))
			o.offsets = append(o.offsets, [2]int{at.start, at.end})
			from = int(end)
		}
	}
}

// segment cuts s into tokens, none of which is in without.
func (m *unigram) segment(w *symbols, s string, without idSet) {
	w.reset()
	nodes, _ := m.lattices.Get().(*[]latticeNode)
	if nodes == nil {
		nodes = new([]latticeNode)
	}
	if cap(*nodes) <= len(s) {
		*nodes = make([]latticeNode, len(s)+1+len(s)/4)
	}
	best := (*nodes)[:len(s)+1]
	m.fill(best, s, without)

	// Link the best path forwards: the start of a node becomes its end.
	for end, at := int32(len(s)), best[len(s)].start; at >= 0; {
		before := best[at].start
		best[at].start, best[at].score = end, float64(best[end].id)
		end, at = at, before
	}
	for at := int32(0); int(at) < len(s); {
		end, id := best[at].start, int32(best[at].score)
		if id != m.unk {
			w.add(id, int(end))
			at = end
			continue
		}
		for int(end) < len(s) && int32(best[end].score) == id && !(m.single && m.byteFallback) {
			end = best[end].start // neighbouring unknown characters are one token
		}
		m.addUnknown(w, s, int(at), int(end), without)
		at = end
	}
	const most = 1 << 20
	if cap(*nodes) <= most {
		m.lattices.Put(nodes)
	}
}

// fill computes the best way to each place of s where a character ends.
func (m *unigram) fill(best []latticeNode, s string, without idSet) {
	for i := range best {
		best[i].start = -1
	}
	best[0].score = 0
	frontier := 0 // the last place to which a way is known
	units := m.trie.units
	for at := 0; at < len(s); {
		size := 1
		if s[at] >= utf8.RuneSelf {
			_, size = utf8.DecodeRuneInString(s[at:])
		}
		if m.single && math.Abs(best[at].score) > resetSum {
			rebase(best[at : frontier+1])
		}
		till := best[at].score
		alone := false // the character is a token
		node := int32(trieRoot)
		for i := at; i < len(s); i++ {
			next := units[node].base ^ int32(s[i])
			u := &units[next]
			if u.parent != node {
				break
			}
			node = next
			if u.value < 0 || without != nil && u.value != m.unk && without.has(u.value) {
				continue
			}
			if i+1-at == size {
				alone = true
			}
			frontier = max(frontier, i+1)
			sum := m.scores[u.value] + till
			if m.single {
				sum = float64(float32(sum))
			}
			if n := &best[i+1]; n.start < 0 || sum > n.score {
				*n = latticeNode{sum, int32(at), u.value}
			}
		}
		if !alone {
			frontier = max(frontier, at+size)
			sum := m.unkScore + till
			if m.single {
				sum = float64(float32(sum))
			}
			if n := &best[at+size]; n.start < 0 || sum > n.score {
				*n = latticeNode{sum, int32(at), m.unk}
			}
		}
		at += size
	}
}

// resetSum is the sum beyond which sentencepiece starts from zero again, so that
// float32 can tell scores apart in long texts.
const resetSum = 100000

// rebase takes the sum of the first of these nodes off all of them.
func rebase(nodes []latticeNode) {
	offset := float32(nodes[0].score)
	nodes[0].score = 0
	for i := 1; i < len(nodes); i++ {
		if n := &nodes[i]; n.start >= 0 {
			n.score = float64(float32(n.score) - offset)
		}
	}
}

// addUnknown writes s[i:j], which is no token: as its bytes if all of them are
// tokens, or as the unknown token.
func (m *unigram) addUnknown(w *symbols, s string, i, j int, without idSet) {
	if !m.single {
		if id, ok := m.ids[s[i:j]]; ok && (id == m.unk || !without.has(id)) { // such as the unknown token's own spelling
			w.add(id, j)
			return
		}
	}
	if m.byteFallback {
		all := true
		for k := i; k < j; k++ {
			all = all && m.fallback[s[k]] >= 0
		}
		if all {
			for k := i; k < j; k++ {
				w.add(m.fallback[s[k]], k+1)
			}
			return
		}
	}
	if m.unk >= 0 {
		w.add(m.unk, j)
	}
}

// readUnigram reads the fields of a Unigram model of tokenizer.json.
func readUnigram(fields map[string][]byte) (*unigram, error) {
	const at = "model.vocab"
	if isNull(fields["vocab"]) {
		return nil, fmt.Errorf("%s: missing", at)
	}
	v := vocabulary{ids: map[string]int32{}}
	var scores []float64
	err := eachElement(fields["vocab"], at, func(i int, value []byte) error {
		if i > maxID {
			return fmt.Errorf("%s: has more than %d tokens", at, maxID)
		}
		token, score, err := readScored(value)
		if err != nil {
			return fmt.Errorf("%s[%d]: %w", at, i, err)
		}
		v.tokens = append(v.tokens, token)
		v.ids[token] = int32(i)
		scores = append(scores, score)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(scores) == 0 {
		return nil, fmt.Errorf("%s: is empty", at)
	}
	unk := int32(-1)
	if raw := fields["unk_id"]; !isNull(raw) {
		var id int64
		if err := decodeField(raw, "model.unk_id", &id); err != nil {
			return nil, err
		}
		if id < 0 || id >= int64(len(scores)) {
			return nil, fmt.Errorf("model.unk_id: %d is out of range (0 to %d)", id, len(scores)-1)
		}
		unk = int32(id)
	}
	var byteFallback bool
	if raw := fields["byte_fallback"]; !isNull(raw) {
		if err := decodeField(raw, "model.byte_fallback", &byteFallback); err != nil {
			return nil, err
		}
	}
	return newUnigram(v, scores, unk, byteFallback), nil
}

// readScored reads ["token", score].
func readScored(raw []byte) (token string, score float64, err error) {
	n := 0
	err = eachElement(raw, "the entry", func(i int, value []byte) (err error) {
		n++
		switch i {
		case 0:
			token, err = stringValue(value)
		case 1:
			if score, err = strconv.ParseFloat(string(value), 64); err != nil {
				err = fmt.Errorf("score %s is no number", clip(string(value)))
			}
		}
		return err
	})
	if err == nil && n != 2 {
		err = errors.New("expected [token, score]")
	}
	return token, score, err
}
