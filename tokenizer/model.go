package tokenizer

// A model turns words into token ids: the `model` of tokenizer.json. A kind of
// model is one implementation of this interface and one case of
// Tokenizer.readModel (readmodel.go).
type model interface {
	// encode appends the tokens of a piece to out.
	encode(out *sink, p piece)
	// token returns the vocabulary's string of an id.
	token(id int32) (string, bool)
	// id returns the id of a vocabulary string.
	id(token string) (int32, bool)
	// size is one more than the highest id.
	size() int
}

// vocabulary is a model's strings by id. Ids may have gaps.
type vocabulary struct {
	tokens []string
	ids    map[string]int32
}

// has says whether id is in use.
func (v *vocabulary) has(id int32) bool {
	if id < 0 || int(id) >= len(v.tokens) {
		return false
	}
	if v.tokens[id] != "" {
		return true
	}
	empty, ok := v.ids[""]
	return ok && empty == id
}

func (v *vocabulary) token(id int32) (string, bool) {
	if !v.has(id) {
		return "", false
	}
	return v.tokens[id], true
}

func (v *vocabulary) id(token string) (int32, bool) {
	id, ok := v.ids[token]
	return id, ok
}

func (v *vocabulary) size() int { return len(v.tokens) }

// idSet is a set of token ids.
type idSet []uint64

func (s idSet) has(id int32) bool {
	i := uint32(id) / 64
	return int(i) < len(s) && s[i]>>(uint32(id)%64)&1 != 0
}

func (s *idSet) add(id int32) {
	for int(id/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[id/64] |= 1 << (id % 64)
}

// sink gathers the tokens of a text, and holds the space that encoding it
// works in.
type sink struct {
	ids     []int32
	offsets [][2]int // of each token in the original text, with track
	track   bool

	plainSpecial bool
	special      idSet

	symbols symbols
	steps   []func(piece) // what the pieces of each pre-tokenizer go to
}

func (o *sink) add(id int32, from span) {
	o.ids = append(o.ids, id)
	if o.track {
		o.offsets = append(o.offsets, [2]int{from.start, from.end})
	}
}
