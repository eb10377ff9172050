package tokenizer

import (
	"container/heap"
	"context"
	"slices"
)

// trainer learns merges. The counts of pairs are kept up to date from merge to
// merge, and with each pair the words that it occurs in, so that a merge costs
// what it changes. Candidates lie in a heap by their count when they were put
// there; one whose count has changed since goes back with the new one.
//
// Order and ties are those of BpeTrainer in the tokenizers library (trainer.rs):
// the pair that occurs most often, of the lowest ids where that is equal.
type trainer struct {
	special  int // how many of tokens are special
	tokens   []string
	ids      map[string]int32
	length   []int32 // of tokens, in bytes
	byteID   [256]int32
	merges   [][2]int32
	size     int // VocabSize
	least    int64
	longest  int32 // 0: no limit
	progress func(TrainProgress)

	words [][]int32 // the tokens of each word
	count []int64   // of each word
	pairs map[uint64]int64
	queue candidates
	newAt map[uint64]int // pairs that the current merge made, into fresh
	fresh []*candidate
}

// candidate is a pair that could be merged.
type candidate struct {
	count int64
	pair  uint64 // pairKey, so that its order is that of the ids
	words []int32
}

// candidates is a heap of the pairs that occur most often, of the lowest ids
// where that is equal.
type candidates []*candidate

func (c candidates) Len() int { return len(c) }
func (c candidates) Less(i, j int) bool {
	if c[i].count != c[j].count {
		return c[i].count > c[j].count
	}
	return c[i].pair < c[j].pair
}
func (c candidates) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *candidates) Push(x any)   { *c = append(*c, x.(*candidate)) }
func (c *candidates) Pop() any {
	old := *c
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*c = old[:len(old)-1]
	return x
}

// newTrainer begins a vocabulary with the special tokens and the byte alphabet
// in the order of its characters.
func newTrainer(special []string, o TrainOptions) *trainer {
	tr := &trainer{
		special: len(special), ids: map[string]int32{}, size: o.VocabSize,
		least: max(1, int64(o.MinFrequency)), longest: int32(o.MaxTokenLength), progress: o.Progress,
		pairs: map[uint64]int64{}, newAt: map[uint64]int{},
	}
	for _, s := range special {
		tr.add(s, int32(len(s)))
	}
	alphabet := byteRune[:]
	alphabet = slices.Sorted(slices.Values(alphabet))
	for _, r := range alphabet {
		tr.byteID[runeByte[r]] = tr.add(string(r), 1)
	}
	return tr
}

// add returns the id of a token, new or not.
func (tr *trainer) add(token string, length int32) int32 {
	if id, ok := tr.ids[token]; ok {
		return id
	}
	id := int32(len(tr.tokens))
	tr.ids[token] = id
	tr.tokens = append(tr.tokens, token)
	tr.length = append(tr.length, length)
	return id
}

// allowed says whether a and b may be joined.
func (tr *trainer) allowed(a, b int32) bool {
	return tr.longest == 0 || tr.length[a]+tr.length[b] <= max(2, tr.longest)
}

// train learns merges from the words until the vocabulary is full or no pair
// occurs often enough.
func (tr *trainer) train(ctx context.Context, words *wordCounts) error {
	tr.start(words)
	for len(tr.tokens) < tr.size && len(tr.queue) > 0 {
		top := heap.Pop(&tr.queue).(*candidate)
		if now := tr.pairs[top.pair]; top.count != now {
			top.count = now
			heap.Push(&tr.queue, top)
			continue
		}
		if top.count < tr.least {
			break
		}
		tr.mergeTop(top)
		if len(tr.merges)%64 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			tr.report()
		}
	}
	tr.report()
	return ctx.Err()
}

func (tr *trainer) report() {
	tr.progress(TrainProgress{Phase: "merge", Done: int64(len(tr.tokens)), Total: int64(tr.size)})
}

// start takes the words apart into bytes and counts the pairs.
func (tr *trainer) start(words *wordCounts) {
	tr.count = words.count
	tr.words = make([][]int32, len(words.text))
	for w, text := range words.text {
		ids := make([]int32, len(text))
		for i := range len(text) {
			ids[i] = tr.byteID[text[i]]
		}
		tr.words[w] = ids
		for i := 1; i < len(ids); i++ {
			tr.change(ids[i-1], ids[i], int32(w), 1)
		}
	}
	tr.enqueue()
}

// change counts a pair in word w once more or once less.
func (tr *trainer) change(a, b, w int32, by int64) {
	key := pairKey(a, b)
	tr.pairs[key] += by * tr.count[w]
	if by < 0 {
		return
	}
	at, ok := tr.newAt[key]
	if !ok {
		at = len(tr.fresh)
		tr.newAt[key] = at
		tr.fresh = append(tr.fresh, &candidate{pair: key})
	}
	c := tr.fresh[at]
	if n := len(c.words); n == 0 || c.words[n-1] != w {
		c.words = append(c.words, w)
	}
}

// enqueue makes candidates of the pairs that came about.
func (tr *trainer) enqueue() {
	for _, c := range tr.fresh {
		if c.count = tr.pairs[c.pair]; c.count > 0 {
			heap.Push(&tr.queue, c)
		}
	}
	clear(tr.fresh)
	tr.fresh = tr.fresh[:0]
	clear(tr.newAt)
}

// mergeTop joins a pair in all words of its candidate.
func (tr *trainer) mergeTop(top *candidate) {
	a, b := int32(top.pair>>32), int32(uint32(top.pair))
	id := tr.add(tr.tokens[a]+tr.tokens[b], tr.length[a]+tr.length[b])
	tr.merges = append(tr.merges, [2]int32{a, b})
	for _, w := range top.words {
		tr.mergeWord(w, a, b, id)
	}
	tr.enqueue()
}

// mergeWord joins a and b to id in word w, from left to right.
func (tr *trainer) mergeWord(w, a, b, id int32) {
	in := tr.words[w]
	out := in[:0] // never ahead of what is read
	for i := 0; i < len(in); i++ {
		if in[i] != a || i+1 >= len(in) || in[i+1] != b {
			out = append(out, in[i])
			continue
		}
		if n := len(out); n > 0 {
			tr.change(out[n-1], a, w, -1)
			if tr.allowed(out[n-1], id) {
				tr.change(out[n-1], id, w, 1)
			}
		}
		if i+2 < len(in) {
			tr.change(b, in[i+2], w, -1)
			if tr.allowed(id, in[i+2]) {
				tr.change(id, in[i+2], w, 1)
			}
		}
		out = append(out, id)
		i++
	}
	tr.words[w] = out
}
