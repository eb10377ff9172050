package tokenizer

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// Natural text repeats its words, so that most are found here already encoded.

const (
	cacheSlots    = 1 << 16
	maxCachedWord = 64 // bytes; longer words seldom come again
)

// wordCache keeps the encodings of words seen lately. A word has two slots that
// lie side by side, by its hash; a new word takes over the first and moves what
// was there to the second. So memory is bounded, and neither readers nor writers
// ever wait. The hash is seeded, so that nobody can make up words that collide.
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

// slot returns the first slot of a word; the second is slot^1.
func (c *wordCache) slot(text string) uint64 {
	return maphash.String(c.seed, text) % cacheSlots
}

// get returns what is known of a word, or nil.
func (c *wordCache) get(slot uint64, text string) *cachedWord {
	if e := c.slots[slot].Load(); e != nil && e.text == text {
		return e
	}
	if e := c.slots[slot^1].Load(); e != nil && e.text == text {
		return e
	}
	return nil
}

// put remembers what a word, at most maxCachedWord bytes long, was encoded to.
func (c *wordCache) put(slot uint64, text string, w *symbols) {
	e := &cachedWord{
		text: strings.Clone(text), // or it would keep the whole document
		ids:  append(make([]int32, 0, len(w.ids)), w.ids...),
		ends: make([]uint8, len(w.ends)),
	}
	for i, end := range w.ends {
		e.ends[i] = uint8(end)
	}
	if old := c.slots[slot].Swap(e); old != nil {
		c.slots[slot^1].Store(old)
	}
}
