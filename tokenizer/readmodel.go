package tokenizer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// What tokenizer.json says of the vocabulary: the model, and the tokens that
// were added to it.

// readModel reads the model. Most of a file is here, so that each field is
// decoded by itself: decoding into a struct would go over all of it several
// times.
func (t *Tokenizer) readModel(raw []byte) error {
	fields := map[string][]byte{}
	err := eachMember(raw, "model", func(key string, value []byte) error {
		fields[key] = value
		return nil
	})
	if err != nil {
		return err
	}
	var kind string
	if isNull(fields["type"]) {
		kind = oldModelType(fields)
	} else if err := decodeField(fields["type"], "model.type", &kind); err != nil {
		return err
	}
	switch kind {
	case "BPE":
		t.model, err = t.readBPE(fields)
	case "Unigram":
		t.model, err = readUnigram(fields)
	case "WordPiece":
		t.model, err = readWordPiece(fields)
	case "WordLevel":
		t.model, err = readWordLevel(fields)
	default:
		err = unsupported("model", kind)
	}
	return err
}

// readBPE reads a BPE model's fields. Where it can do the work of a ByteLevel
// pre-tokenizer, which comes last then, it takes that away.
func (t *Tokenizer) readBPE(fields map[string][]byte) (model, error) {
	var o bpeOptions
	for _, f := range []struct {
		key string
		to  any
	}{
		{"unk_token", &o.unk}, {"continuing_subword_prefix", &o.prefix}, {"end_of_word_suffix", &o.suffix},
		{"fuse_unk", &o.fuseUnk}, {"byte_fallback", &o.byteFallback}, {"ignore_merges", &o.ignoreMerges},
	} {
		if isNull(fields[f.key]) {
			continue
		}
		if err := decodeField(fields[f.key], "model."+f.key, f.to); err != nil {
			return nil, err
		}
	}
	vocab, err := readVocab(fields["vocab"])
	if err != nil {
		return nil, err
	}
	merges, err := readMerges(fields["merges"])
	if err != nil {
		return nil, err
	}
	if n := len(t.pre); n > 0 {
		_, o.endsInBytes = t.pre[n-1].(bytesPreTokenizer)
	}
	m, err := newBPE(vocab, merges, o)
	if err != nil {
		return nil, err
	}
	if m.byteMode {
		t.pre = t.pre[:len(t.pre)-1]
	}
	return m, nil
}

// checkID refuses ids that no vocabulary of n entries has. Files with gaps
// exist, but the tables would be as long as the highest id.
func checkID(id int64, n int) error {
	if most := min(maxID, 16*int64(n)+1<<16); id < 0 || id > most {
		return fmt.Errorf("id %d is out of range (0 to %d for %d entries)", id, most, n)
	}
	return nil
}

// readVocab reads {"token": id, ...}.
func readVocab(raw []byte) (vocabulary, error) {
	const at = "model.vocab"
	v := vocabulary{ids: map[string]int32{}}
	if isNull(raw) {
		return v, fmt.Errorf("%s: missing", at)
	}
	n := strings.Count(string(raw[:min(len(raw), 1<<16)]), ":") // a first guess at the size
	v.ids = make(map[string]int32, n*len(raw)/(min(len(raw), 1<<16)+1))
	highest := int32(-1)
	err := eachMember(raw, at, func(key string, value []byte) error {
		id, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return fmt.Errorf("%s[%q]: %s is not an id", at, clip(key), clip(string(value)))
		}
		if id < 0 || id > maxID {
			return fmt.Errorf("%s[%q]: %w", at, clip(key), checkID(id, 1<<24))
		}
		v.ids[key] = int32(id)
		highest = max(highest, int32(id))
		return nil
	})
	if err != nil {
		return v, err
	}
	if highest >= 0 {
		if err := checkID(int64(highest), len(v.ids)); err != nil {
			return v, fmt.Errorf("%s: %w", at, err)
		}
	}
	v.tokens = make([]string, highest+1)
	seen := idSet{}
	for s, id := range v.ids {
		if seen.has(id) {
			return v, fmt.Errorf("%s: %q and another token both have the id %d", at, clip(s), id)
		}
		seen.add(id)
		v.tokens[id] = s
	}
	return v, nil
}

// readMerges reads pairs, spelled "a b" or ["a", "b"].
func readMerges(raw []byte) ([][2]string, error) {
	const at = "model.merges"
	if isNull(raw) {
		return nil, fmt.Errorf("%s: missing", at)
	}
	var list [][2]string
	err := eachElement(raw, at, func(i int, value []byte) error {
		pair, err := readMerge(value)
		if err != nil {
			return fmt.Errorf("%s[%d]: %w", at, i, err)
		}
		list = append(list, pair)
		return nil
	})
	return list, err
}

func readMerge(raw []byte) (pair [2]string, err error) {
	switch kind := kindOf(raw); kind {
	case "string":
		s, err := stringValue(raw)
		left, right, ok := strings.Cut(s, " ")
		if err == nil && (!ok || strings.Contains(right, " ")) {
			err = fmt.Errorf("%q is not two tokens with a space between", clip(s))
		}
		return [2]string{left, right}, err
	case "array":
		n := 0
		err = eachElement(raw, "", func(i int, value []byte) error {
			n++
			s, err := stringValue(value)
			if i < 2 {
				pair[i] = s
			}
			return err
		})
		if err == nil && n != 2 {
			err = fmt.Errorf("has %d tokens, expected 2", n)
		}
		return pair, err
	default:
		return pair, fmt.Errorf("is of type %s, expected string or array", kind)
	}
}

// addedTokenJSON is one entry of added_tokens, in the order of its fields.
type addedTokenJSON struct {
	ID         *int64 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

func (t *Tokenizer) readAdded(raw []byte) error {
	const at = "added_tokens"
	t.added = addedVocabulary{tokens: map[int32]AddedToken{}, ids: map[string]int32{}}
	if !isNull(raw) {
		var list []addedTokenJSON
		if err := decodeField(raw, at, &list); err != nil {
			return err
		}
		for i, c := range list {
			if err := t.readAddedToken(c, len(list)); err != nil {
				return fmt.Errorf("%s[%d]: %w", at, i, err)
			}
		}
	}
	t.rebuildAdded()
	return nil
}

func (t *Tokenizer) readAddedToken(c addedTokenJSON, n int) error {
	if c.ID == nil {
		return errors.New("id: missing")
	}
	if err := checkID(*c.ID, t.model.size()+n); err != nil {
		return err
	}
	if c.Content == "" {
		return nil // the tokenizers library leaves these out
	}
	id := int32(*c.ID)
	if old, ok := t.Token(id); ok && old != c.Content {
		return fmt.Errorf("id %d of %q is that of %q", id, clip(c.Content), clip(old))
	}
	if old, ok := t.ID(c.Content); ok && old != id {
		return fmt.Errorf("%q has the id %d, but also the id %d", clip(c.Content), id, old)
	}
	t.added.tokens[id] = AddedToken{
		Content: c.Content, Special: c.Special, LStrip: c.LStrip, RStrip: c.RStrip,
		SingleWord: c.SingleWord, Normalized: c.Normalized,
	}
	t.added.ids[c.Content] = id
	return nil
}
