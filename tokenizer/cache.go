package tokenizer

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// Natural text repeats its words, so that most are found here already encoded.

const (
	cacheSlots    = 1 << 15
	maxCachedWord = 64 // bytes; longer words seldom come again
)

// wordCache keeps the encodings of words seen lately. A word has one slot, by
// its hash, and takes it over from the word before: memory is bounded, and
// neither readers nor writers ever wait. The hash is seeded, so that nobody can
// make up words that collide.
type wordCache struct {
	seed  maphash.Seed
	slots [cacheSlots]atomic.Pointer[cachedWord]
}

// cachedWord is never changed once it is in the cache.
type cachedWord struct {
	text string
	ids  []int32
	ends []uint8 // where each token ends in text, in bytes
}

func newWordCache() *wordCache { return &wordCache{seed: maphash.MakeSeed()} }

func (c *wordCache) slot(text string) *atomic.Pointer[cachedWord] {
	return &c.slots[maphash.String(c.seed, text)%cacheSlots]
}

// put remembers what a word, at most maxCachedWord bytes long, was encoded to.
func (c *wordCache) put(slot *atomic.Pointer[cachedWord], text string, w *symbols) {
	e := &cachedWord{
		text: strings.Clone(text), // or it would keep the whole document
		ids:  append(make([]int32, 0, len(w.ids)), w.ids...),
		ends: make([]uint8, len(w.ends)),
	}
	for i, end := range w.ends {
		e.ends[i] = uint8(end)
	}
	slot.Store(e)
}
