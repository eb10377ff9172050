package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestByteTrie compares with looking at every string.
func TestByteTrie(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		alphabet, most := 1+r.IntN(256), 1+r.IntN(6)
		random := func(n int) string {
			var b strings.Builder
			for range r.IntN(n + 1) {
				b.WriteByte(byte(r.IntN(alphabet)))
			}
			return b.String()
		}
		keys := make([]string, r.IntN(2000))
		ids := map[string]int32{}
		for i := range keys {
			keys[i] = random(most)
			if keys[i] != "" {
				ids[keys[i]] = int32(i)
			}
		}
		trie := newByteTrie(keys, func(i int) int32 { return int32(i) })
		check := func(s string) {
			want, length := int32(0), 0
			node := int32(trieRoot)
			for i := range len(s) {
				id, ok := ids[s[:i+1]]
				if node >= 0 {
					node = trie.step(node, s[i])
				}
				if found := node >= 0 && trie.units[node].value >= 0; found != ok || ok && trie.units[node].value != id {
					t.Fatalf("%q of %d keys: found %v, want %v", s[:i+1], len(keys), found, ok)
				}
				if ok {
					want, length = id, i+1
				}
			}
			if v, n := trie.longest(s); n != length || n > 0 && v != want {
				t.Fatalf("longest of %q: %d, %d bytes, want %d, %d", s, v, n, want, length)
			}
		}
		for _, k := range keys {
			check(k)
			check(k + random(3))
		}
		for range 200 {
			check(random(most + 2))
		}
	}
}
