package data

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// rowHash identifies a row's content: roles, texts, labels and tools, not where
// it stands or what format it came in. Equal content gives equal hashes on
// every machine and in every version, for the held-out split hangs on it.
func rowHash(r Row) [16]byte {
	h := hasher{Hash: sha256.New()}
	h.text(r.Text)
	h.messages(r.Messages)
	h.messages(r.Chosen)
	h.messages(r.Rejected)
	h.number(len(r.Ranked))
	for i, answer := range r.Ranked {
		h.number(r.Ranks[i])
		h.messages(answer)
	}
	switch {
	case r.Label == nil:
		h.number(0)
	case *r.Label:
		h.number(1)
	default:
		h.number(2)
	}
	h.text(string(r.Tools))
	if len(r.Tokens) > 0 {
		h.number(len(r.Tokens))
		for _, t := range r.Tokens {
			h.tokens(t)
		}
	}
	var sum [16]byte
	copy(sum[:], h.Sum(nil))
	return sum
}

// promptHash identifies the question of a row that holds it apart from the
// answers.
func promptHash(r Row) [16]byte {
	h := hasher{Hash: sha256.New()}
	h.messages(r.Messages)
	if len(r.Tokens) > 0 {
		h.tokens(r.Tokens[0].prompt())
	}
	var sum [16]byte
	copy(sum[:], h.Sum(nil))
	return sum
}

// hasher writes values with their lengths, so that no two rows write the same.
type hasher struct{ hash.Hash }

func (h hasher) number(n int) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

func (h hasher) text(s string) {
	h.number(len(s))
	h.Write([]byte(s))
}

func (h hasher) tokens(t TokenSequence) {
	h.number(len(t.IDs))
	for i, id := range t.IDs {
		n := int(id) << 1
		if t.Trained != nil && t.Trained[i] {
			n |= 1
		}
		h.number(n)
	}
}

func (h hasher) messages(list []Message) {
	h.number(len(list))
	for _, m := range list {
		h.text(m.Role)
		h.text(m.Content)
		h.number(len(m.Extra))
		for _, f := range m.Extra {
			h.text(f.Name)
			h.text(string(f.Value))
		}
	}
}
