package tokenizer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// A sentencepiece model file (.model) is a protobuf message ModelProto, whose
// definition is sentencepiece_model.proto of github.com/google/sentencepiece.
// This file reads it; spnormalize.go, spbpe.go, unigram.go and spdecode.go do
// with it what that library does, and spjson.go writes it as a tokenizer.json.

const (
	// maxModelFile is the largest .model that is read; Gemma's, for 262,144
	// pieces, has 4.5 MiB.
	maxModelFile = 1 << 26
	// maxPiece is the longest piece in bytes that merging may make.
	maxPiece = 1024
)

// Types of a piece.
const (
	pieceNormal      = 1
	pieceUnknown     = 2
	pieceControl     = 3 // never comes from text, is not shown
	pieceUserDefined = 4 // always one token
	pieceUnused      = 5
	pieceByte        = 6
)

// Types of a model.
const (
	spTypeUnigram = 1
	spTypeBPE     = 2
)

var spTypeNames = map[uint64]string{spTypeUnigram: "UNIGRAM", spTypeBPE: "BPE", 3: "WORD", 4: "CHAR"}

// spPiece is one entry of the vocabulary. Its id is its index.
type spPiece struct {
	text  string
	score float32
	kind  uint8
}

// reserved says whether a piece never comes from text as it is.
func (p spPiece) reserved() bool {
	return p.kind == pieceUnknown || p.kind == pieceControl || p.kind == pieceByte
}

// spModel is what a .model file says.
type spModel struct {
	pieces []spPiece

	// trainer_spec
	kind                               uint64
	byteFallback, suffix               bool // suffix: treat_whitespace_as_suffix
	bosID, eosID, padID                int32
	unkName, bosName, eosName, padName string
	unkSurface                         string

	// normalizer_spec
	rules                  *charsMap // nil: identity
	dummy, squeeze, escape bool      // add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces

	unk int32 // the piece of type UNKNOWN, -1 if there is none
}

// parseSentencepiece reads a .model file. Errors name the field.
func parseSentencepiece(data []byte) (*spModel, error) {
	m := &spModel{
		kind: spTypeUnigram, bosID: 1, eosID: 2, padID: -1, unkSurface: " \u2047 ",
		unkName: "<unk>", bosName: "<s>", eosName: "</s>", padName: "<pad>",
		dummy: true, squeeze: true, escape: true,
	}
	if len(data) == 0 {
		return nil, errCutOff
	}
	err := eachField(data, "the model", func(f protoField) error {
		names := map[int]string{1: "pieces", 2: "trainer_spec", 3: "normalizer_spec", 5: "denormalizer_spec"}
		name, ok := names[f.number]
		if !ok {
			return nil
		}
		if err := f.expect(wireBytes, name); err != nil {
			return err
		}
		switch f.number {
		case 1:
			if len(m.pieces) > maxID {
				return fmt.Errorf("pieces: more than %d", maxID)
			}
			return m.readPiece(f.bytes)
		case 2:
			return m.readTrainer(f.bytes)
		case 3:
			return m.readNormalizer(f.bytes)
		}
		return eachField(f.bytes, name, func(f protoField) error {
			if f.number == 2 && f.wire == wireBytes && len(f.bytes) > 0 {
				return fmt.Errorf("denormalizer_spec.precompiled_charsmap: rules for decoding: %w", ErrUnsupported)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return m, m.check()
}

func (m *spModel) readPiece(message []byte) error {
	at := fmt.Sprintf("pieces[%d]", len(m.pieces))
	p := spPiece{kind: pieceNormal}
	err := eachField(message, at, func(f protoField) error {
		switch f.number {
		case 1:
			p.text = string(f.bytes)
			return f.expect(wireBytes, at+".piece")
		case 2:
			p.score = f.float()
			return f.expect(wireFixed32, at+".score")
		case 3:
			if err := f.expect(wireVarint, at+".type"); err != nil {
				return err
			}
			if f.value < pieceNormal || f.value > pieceByte {
				return fmt.Errorf("%s.type: %d is unknown (expected 1 to 6)", at, f.value)
			}
			p.kind = uint8(f.value)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case p.text == "":
		return fmt.Errorf("%s.piece: is empty", at)
	case !utf8.ValidString(p.text):
		return fmt.Errorf("%s.piece: %q is not UTF-8", at, clip(p.text))
	case math.IsNaN(float64(p.score)) || math.IsInf(float64(p.score), 0):
		return fmt.Errorf("%s.score: is not a finite number", at)
	case len(p.text) > maxPiece && p.kind != pieceUserDefined:
		return fmt.Errorf("%s.piece: has %d bytes, expected at most %d", at, len(p.text), maxPiece)
	}
	m.pieces = append(m.pieces, p)
	return nil
}

func (m *spModel) readTrainer(message []byte) error {
	return eachField(message, "trainer_spec", func(f protoField) error {
		switch f.number {
		case 3:
			m.kind = f.value
			return f.expect(wireVarint, "trainer_spec.model_type")
		case 24:
			m.suffix = f.value != 0
			return f.expect(wireVarint, "trainer_spec.treat_whitespace_as_suffix")
		case 35:
			m.byteFallback = f.value != 0
			return f.expect(wireVarint, "trainer_spec.byte_fallback")
		case 41, 42, 43:
			*map[int]*int32{41: &m.bosID, 42: &m.eosID, 43: &m.padID}[f.number] = int32(uint32(f.value))
			return f.expect(wireVarint, map[int]string{41: "trainer_spec.bos_id", 42: "trainer_spec.eos_id", 43: "trainer_spec.pad_id"}[f.number])
		case 44:
			m.unkSurface = string(f.bytes)
			return f.expect(wireBytes, "trainer_spec.unk_surface")
		case 45, 46, 47, 48:
			if len(f.bytes) > 0 {
				*map[int]*string{45: &m.unkName, 46: &m.bosName, 47: &m.eosName, 48: &m.padName}[f.number] = string(f.bytes)
			}
			return f.expect(wireBytes, "trainer_spec's name of a piece")
		}
		return nil
	})
}

func (m *spModel) readNormalizer(message []byte) error {
	return eachField(message, "normalizer_spec", func(f protoField) error {
		switch f.number {
		case 2:
			const at = "normalizer_spec.precompiled_charsmap"
			if err := f.expect(wireBytes, at); err != nil {
				return err
			}
			if len(f.bytes) == 0 {
				return nil
			}
			var err error
			if m.rules, err = newCharsMap(f.bytes); err != nil {
				err = fmt.Errorf("%s: %w", at, err)
			}
			return err
		case 3:
			m.dummy = f.value != 0
			return f.expect(wireVarint, "normalizer_spec.add_dummy_prefix")
		case 4:
			m.squeeze = f.value != 0
			return f.expect(wireVarint, "normalizer_spec.remove_extra_whitespaces")
		case 5:
			m.escape = f.value != 0
			return f.expect(wireVarint, "normalizer_spec.escape_whitespaces")
		}
		return nil
	})
}

// check holds the model to what sentencepiece asks of one.
func (m *spModel) check() error {
	if m.kind != spTypeUnigram && m.kind != spTypeBPE {
		return fmt.Errorf("trainer_spec.model_type: %s (%d) is %w, expected UNIGRAM or BPE", spTypeNames[m.kind], m.kind, ErrUnsupported)
	}
	if len(m.pieces) == 0 {
		return fmt.Errorf("pieces: none; is this a sentencepiece model?")
	}
	m.unk = -1
	seen := make(map[string]bool, len(m.pieces))
	bytes := map[byte]bool{}
	for i, p := range m.pieces {
		if seen[p.text] {
			return fmt.Errorf("pieces[%d].piece: %q occurs twice", i, clip(p.text))
		}
		seen[p.text] = true
		switch p.kind {
		case pieceUnknown:
			if m.unk >= 0 {
				return fmt.Errorf("pieces[%d].type: UNKNOWN, as that of piece %d is; only one may be", i, m.unk)
			}
			m.unk = int32(i)
		case pieceByte:
			b, ok := fallbackByte(p.text)
			if !ok || p.text != fmt.Sprintf("<0x%02X>", b) {
				return fmt.Errorf("pieces[%d].piece: %q is of type BYTE, expected <0x00> to <0xFF>", i, clip(p.text))
			}
			if !m.byteFallback {
				return fmt.Errorf("pieces[%d].type: BYTE, but trainer_spec.byte_fallback is false", i)
			}
			bytes[b] = true
		}
	}
	if m.unk < 0 && !m.byteFallback {
		return fmt.Errorf("pieces: none is of type UNKNOWN, expected one")
	}
	if m.byteFallback && len(bytes) < 256 {
		return fmt.Errorf("trainer_spec.byte_fallback: is true, but only %d of 256 bytes have a piece", len(bytes))
	}
	return nil
}

// unkText returns the spelling of the unknown piece, "" if there is none.
func (m *spModel) unkText() string {
	if m.unk < 0 {
		return ""
	}
	return m.pieces[m.unk].text
}

// vocabulary returns the pieces by id.
func (m *spModel) vocabulary() vocabulary {
	v := vocabulary{tokens: make([]string, len(m.pieces)), ids: make(map[string]int32, len(m.pieces))}
	for i, p := range m.pieces {
		v.tokens[i] = p.text
		v.ids[p.text] = int32(i)
	}
	return v
}

// userDefined returns a trie of the user-defined pieces, nil if there are none.
func (m *spModel) userDefined() *byteTrie {
	var keys []string
	var ids []int32
	for i, p := range m.pieces {
		if p.kind == pieceUserDefined {
			keys, ids = append(keys, p.text), append(ids, int32(i))
		}
	}
	if keys == nil {
		return nil
	}
	return newByteTrie(keys, func(i int) int32 { return ids[i] })
}

// model returns the part that turns normalized text into ids.
func (m *spModel) model() (model, error) {
	if m.kind == spTypeUnigram {
		return m.unigram(), nil
	}
	return newSPBPE(m)
}

// unigram returns the model UNIGRAM.
func (m *spModel) unigram() *unigram {
	u := &unigram{
		vocabulary: m.vocabulary(), scores: make([]float64, len(m.pieces)), unk: m.unk,
		byteFallback: m.byteFallback, single: true,
	}
	least := float32(math.MaxFloat32)
	for _, p := range m.pieces {
		if p.kind == pieceNormal {
			least = min(least, p.score)
		}
	}
	u.unkScore = float64(least - unkPenalty)
	var keys []string
	var ids []int32
	for i, p := range m.pieces {
		u.scores[i] = float64(p.score)
		switch p.kind {
		case pieceUserDefined: // so that it is chosen whatever else there is, and a longer one before shorter ones
			u.scores[i] = float64(float32(0.1 * float64(len(p.text)-1)))
		case pieceNormal:
		default:
			continue
		}
		keys, ids = append(keys, p.text), append(ids, int32(i))
	}
	u.trie = newByteTrie(keys, func(i int) int32 { return ids[i] })
	u.setFallback(u.ids)
	return u
}

// ParseSentencepiece reads the content of a sentencepiece model file (.model) of
// the kinds BPE and UNIGRAM; name stands for the file in errors. Without a
// folder's configuration it encodes and decodes as that library does: control
// pieces are never read in a text, nor shown.
func ParseSentencepiece(data []byte, name string) (*Tokenizer, error) {
	m, err := readSentencepiece(data, name)
	if err != nil {
		return nil, err
	}
	t, err := m.tokenizer()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func readSentencepiece(data []byte, name string) (*spModel, error) {
	if len(data) > maxModelFile {
		return nil, fmt.Errorf("%s: %d bytes are too many, at most %d are read", name, len(data), maxModelFile)
	}
	m, err := parseSentencepiece(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// tokenizer makes the pipeline that sentencepiece has.
func (m *spModel) tokenizer() (*Tokenizer, error) {
	t := &Tokenizer{normalizer: newSPNormalizer(m), decoders: []decoder{newSPDecoder(m)}}
	var err error
	if t.model, err = m.model(); err != nil {
		return nil, err
	}
	t.added = addedVocabulary{tokens: map[int32]AddedToken{}, ids: map[string]int32{}}
	for i, p := range m.pieces {
		if p.kind == pieceControl {
			t.control.add(int32(i))
		}
	}
	t.rebuildAdded()
	t.compose = func() *object { return m.document(t, m.addedJSON(t), false) }
	return t, nil
}

// addedJSON lists the added tokens of t, and as special tokens the control
// pieces and the unknown token, as transformers does.
func (m *spModel) addedJSON(t *Tokenizer) []addedTokenJSON {
	list := t.addedJSON()
	for i, p := range m.pieces {
		if _, ok := t.added.tokens[int32(i)]; !ok && (p.kind == pieceControl || p.kind == pieceUnknown) {
			id := int64(i)
			list = append(list, addedTokenJSON{ID: &id, Content: p.text, Special: true})
		}
	}
	slices.SortStableFunc(list, func(a, b addedTokenJSON) int { return cmp.Compare(*a.ID, *b.ID) })
	return list
}
