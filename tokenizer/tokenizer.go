// Package tokenizer turns text into token ids and back, as the tokenizer.json
// of a Hugging Face model folder says, and trains a byte-level BPE on a
// person's own text.
//
// A tokenizer is a pipeline, and each stage is a component of tokenizer.json:
//
//	added tokens   cut out of the raw text                      added.go
//	normalizer     Unicode forms, prepended marks               normalize.go, normalform.go, precompiled.go, bert.go
//	pre-tokenizer  cuts the text into words                     pretokenize.go, split.go, regex.go
//	model          words into token ids (BPE, Unigram, ...)     bpe.go, merge.go, unigram.go, wordpiece.go
//	post-processor puts <s> and the like around                 postprocess.go
//	decoder        ids into text again                          decode.go
//
// Other forms of a vocabulary are made into the same pipeline: sentencepiece
// models (sentencepiece.go), tiktoken files (tiktoken.go), and the folders of
// transformers' Python tokenizers (vocabfiles.go). Written, each of them is a
// tokenizer.json.
//
// The format is that of Hugging Face's tokenizers library (its documentation,
// "Components"), and ids equal those of that library. Byte pair encoding is
// Sennrich et al., "Neural Machine Translation of Rare Words with Subword
// Units" (2016); its byte-level form is that of GPT-2 (Radford et al., 2019),
// its sentencepiece form that of Kudo and Richardson (2018).
//
// Text is taken as bytes. Where it is not valid UTF-8, a byte-level tokenizer
// keeps the bytes as they are.
package tokenizer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// ErrUnsupported is wrapped by errors about a component that tokenizer.json
// may hold but this package does not implement. The error names it.
var ErrUnsupported = errors.New("unsupported")

// Tokenizer maps text to token ids and back. It is safe for concurrent use
// once loaded, except for AddTokens.
type Tokenizer struct {
	doc     *object        // tokenizer.json; nil if it is yet to be made
	compose func() *object // makes doc, for a tokenizer that was read from another form
	data    []byte         // the file as it was read; nil once doc has changed

	added      addedVocabulary
	special    idSet      // ids of special added tokens and control pieces
	control    idSet      // control pieces of a sentencepiece model, which are not read in text
	normalizer normalizer // nil: none
	pre        []preTokenizer
	model      model
	post       postProcessor
	decoders   []decoder

	config Config
	folder *folderFiles // nil: not from a folder
	fresh  []string     // control tokens added since

	sinks sync.Pool // of *sink
}

// EncodeOptions says how a text is encoded.
type EncodeOptions struct {
	// AddSpecial puts the tokens around the text that the post-processor asks
	// for, such as <s> before it. A chat template usually writes them itself.
	AddSpecial bool
	// PlainSpecial takes special tokens that stand in the text for plain text,
	// so that what a user writes can't inject control tokens: no id for which
	// IsSpecial is true comes from the text, save the unknown token's and those
	// that byte_fallback writes bytes with.
	PlainSpecial bool
}

// Encode returns the token ids of text.
func (t *Tokenizer) Encode(text string, o EncodeOptions) []int32 {
	return t.AppendEncode(nil, text, o)
}

// AppendEncode appends the token ids of text to ids.
func (t *Tokenizer) AppendEncode(ids []int32, text string, o EncodeOptions) []int32 {
	out := t.getSink(o)
	out.ids = ids
	t.encode(out, text, o)
	ids = out.ids
	t.putSink(out)
	return ids
}

// EncodeOffsets returns the token ids of text, and where in text each came
// from: [start, end) in bytes. Without a normalizer the tokens of a byte-level
// tokenizer cover the text exactly, without gap or overlap, also within
// characters. Where a normalizer changed characters, a token has all that it
// was made of, so that neighbours may overlap. What stands in no text is empty:
// a mark put before it (a token may hold more than that), and the tokens of
// AddSpecial, which lie at 0 or at len(text).
func (t *Tokenizer) EncodeOffsets(text string, o EncodeOptions) (ids []int32, offsets [][2]int) {
	out := t.getSink(o)
	out.ids, out.track = nil, true
	t.encode(out, text, o)
	ids, offsets = out.ids, out.offsets
	out.offsets, out.track = nil, false
	t.putSink(out)
	// Where one character became several words, a mark before one of the later
	// stands at its beginning, before what has been given out.
	for i := 1; i < len(offsets); i++ {
		offsets[i][0] = max(offsets[i][0], offsets[i-1][0])
		offsets[i][1] = max(offsets[i][1], offsets[i-1][1])
	}
	return ids, offsets
}

func (t *Tokenizer) getSink(o EncodeOptions) *sink {
	out, _ := t.sinks.Get().(*sink)
	if out == nil {
		out = new(sink)
	}
	out.plainSpecial, out.special = o.PlainSpecial, t.special
	if len(out.steps) != len(t.pre) {
		out.steps = make([]func(piece), len(t.pre))
		for i := range out.steps {
			out.steps[i] = func(p piece) { t.preTokenize(out, p, i+1) }
		}
	}
	return out
}

// putSink keeps what out has allocated for the next text, unless a huge one
// made it huge.
func (t *Tokenizer) putSink(out *sink) {
	const most = 1 << 16
	out.ids = nil
	if cap(out.symbols.ids) > most {
		out.symbols = symbols{}
	}
	t.sinks.Put(out)
}

// encode runs the pipeline: added tokens that stand in the text as given, the
// normalizer, added tokens that stand in normalized text, the pre-tokenizer,
// the model.
func (t *Tokenizer) encode(out *sink, text string, o EncodeOptions) {
	if o.AddSpecial {
		t.post.begin(out)
	}
	token := func(id int32, at span) { out.add(id, at) }
	words := func(p piece) { t.preTokenize(out, p, 0) }
	t.added.extract(&t.added.raw, piece{text: text, first: true}, o.PlainSpecial, func(p piece) {
		if t.normalizer != nil {
			p = t.normalizer.normalize(p, out.track)
		}
		t.added.extract(&t.added.normalized, p, o.PlainSpecial, words, token)
	}, token)
	if o.AddSpecial {
		t.post.end(out, len(text))
	}
}

// preTokenize gives p to the pre-tokenizers from step i on, then to the model.
func (t *Tokenizer) preTokenize(out *sink, p piece, i int) {
	if i == len(t.pre) {
		t.model.encode(out, p)
		return
	}
	if s, ok := t.pre[i].(splitPreTokenizer); ok {
		if cut := s.splitter(); cut != nil {
			classes := runeClasses()
			for from := 0; from < len(p.text); {
				end := cut(classes, p.text, from)
				t.preTokenize(out, p.sub(from, end), i+1)
				from = end
			}
			return
		}
	}
	t.pre[i].split(p, out.track, out.steps[i])
}

// ID returns the id of a token by the vocabulary's spelling, which for a
// byte-level model is in GPT-2's byte alphabet.
func (t *Tokenizer) ID(token string) (int32, bool) {
	if id, ok := t.added.ids[token]; ok {
		return id, true
	}
	return t.model.id(token)
}

// Token returns the vocabulary's spelling of an id.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if a, ok := t.added.tokens[id]; ok {
		return a.Content, true
	}
	return t.model.token(id)
}

// TokenBytes returns the bytes that a token stands for within a text, nil if
// there is no such token. They may be part of a character.
func (t *Tokenizer) TokenBytes(id int32) []byte {
	token, ok := t.Token(id)
	if !ok {
		return nil
	}
	if _, added := t.added.tokens[id]; added {
		return []byte(token)
	}
	for _, d := range t.decoders {
		switch d := d.(type) {
		case byteLevelDecoder:
			if b, ok := fromByteAlphabet(token); ok {
				token = b
			}
		case byteFallbackDecoder:
			if b, ok := fallbackByte(token); ok {
				return []byte{b}
			}
		case replaceDecoder:
			token = replaceNormalizer(d).normalize(piece{text: token}, false).text
		case metaspaceDecoder:
			token = strings.ReplaceAll(token, d.mark, " ")
		case *spDecoder:
			return d.tokenBytes(token)
		case bpeDecoder:
			token = strings.ReplaceAll(token, d.suffix, " ")
		}
	}
	return []byte(token)
}

// Size is one more than the highest id: the rows that an embedding needs.
func (t *Tokenizer) Size() int {
	n := t.model.size()
	for id := range t.added.tokens {
		n = max(n, int(id)+1)
	}
	return n
}

// IsSpecial says whether id is a control token.
func (t *Tokenizer) IsSpecial(id int32) bool { return t.special.has(id) }

// AddedTokens returns the added tokens and their ids, ascending.
func (t *Tokenizer) AddedTokens() ([]int32, []AddedToken) {
	ids := slices.Sorted(maps.Keys(t.added.tokens))
	tokens := make([]AddedToken, len(ids))
	for i, id := range ids {
		tokens[i] = t.added.tokens[id]
	}
	return ids, tokens
}

// rebuildAdded brings what is derived from the added tokens up to date.
func (t *Tokenizer) rebuildAdded() {
	t.added.build(t.normalizer)
	t.special = slices.Clone(t.control)
	for id, a := range t.added.tokens {
		if a.Special {
			t.special.add(id)
		}
	}
}

// AddTokens adds tokens to the vocabulary and returns their ids. A token that
// is in the vocabulary keeps its id and takes the flags given here; others get
// the ids from Size on, so that a model needs as many more rows. The tokenizer
// must not be in use meanwhile.
func (t *Tokenizer) AddTokens(tokens ...AddedToken) ([]int32, error) {
	for i, a := range tokens {
		if a.Content == "" || !utf8.ValidString(a.Content) {
			return nil, fmt.Errorf("added token %d: %q is empty or not UTF-8", i, clip(a.Content))
		}
	}
	if t.Size()+len(tokens) > maxID {
		return nil, fmt.Errorf("%d added tokens are too many: ids end at %d", len(tokens), maxID)
	}
	ids := make([]int32, len(tokens))
	next := int32(t.Size())
	for i, a := range tokens {
		id, ok := t.ID(a.Content)
		if !ok {
			id = next
			next++
		}
		t.added.tokens[id] = a
		t.added.ids[a.Content] = id
		ids[i] = id
		if a.Special {
			t.fresh = append(t.fresh, a.Content)
		}
	}
	t.rebuildAdded()
	t.writeAdded()
	return ids, nil
}

// writeAdded brings the document's added_tokens up to date.
func (t *Tokenizer) writeAdded() {
	if t.doc == nil {
		return // it will be made with them
	}
	t.doc.set("added_tokens", t.addedJSON())
	t.data = nil
}

// addedJSON lists the added tokens by id.
func (t *Tokenizer) addedJSON() []addedTokenJSON {
	ids, tokens := t.AddedTokens()
	list := make([]addedTokenJSON, len(ids))
	for i, a := range tokens {
		id := int64(ids[i])
		list[i] = addedTokenJSON{
			ID: &id, Content: a.Content, SingleWord: a.SingleWord, LStrip: a.LStrip, RStrip: a.RStrip,
			Normalized: a.Normalized, Special: a.Special,
		}
	}
	return list
}

// JSON returns the tokenizer as a tokenizer.json: the bytes it was read from,
// unless tokens were added since.
func (t *Tokenizer) JSON() []byte {
	if t.data != nil {
		return t.data
	}
	if t.doc == nil {
		return t.compose().bytes()
	}
	return t.doc.bytes()
}

// Config is what the folder says besides tokenizer.json. It may be changed
// before SaveFolder.
func (t *Tokenizer) Config() *Config { return &t.config }
