package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A sentencepiece model as a tokenizer.json, which the tokenizers library reads.
// Its ids are the same but for what that library can't do: it looks rules up by
// clusters of characters (precompiled.go), adds scores in float64, finds the
// spelling of control and byte pieces in text, knows no unused pieces and no
// merges of one rank, and merges no characters that are unknown.

// document writes the tokenizer that m is the model of. added are all tokens
// with flags of their own; first is that of spNormalizer.
func (m *spModel) document(t *Tokenizer, added []addedTokenJSON, first bool) *object {
	d := newDocument(m.withUserDefined(added))
	d.setComponent("normalizer", m.normalizerJSON(first))
	if m.dummy && first {
		d.setText("pre_tokenizer", `{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}`)
	} else {
		d.setRaw("pre_tokenizer", []byte("null"))
	}
	d.setPost(t)
	d.setComponent("decoder", m.decoderJSON())
	d.setRaw("model", m.modelJSON())
	return d
}

// newDocument begins a tokenizer.json.
func newDocument(added []addedTokenJSON) *object {
	d := newObject()
	d.set("version", "1.0")
	d.setRaw("truncation", []byte("null"))
	d.setRaw("padding", []byte("null"))
	d.set("added_tokens", added)
	return d
}

// component is one step of a Sequence.
type component map[string]any

// setComponent stores a sequence of steps, null where there are none.
func (o *object) setComponent(key string, steps []component) {
	if len(steps) == 0 {
		o.setRaw(key, []byte("null"))
		return
	}
	o.set(key, component{"type": "Sequence", key + "s": steps})
}

func replaceJSON(kind, pattern, content string) component {
	return component{"type": "Replace", "pattern": component{kind: pattern}, "content": content}
}

// userDefinedText lists the pieces that text is never cut within.
func (m *spModel) userDefinedText() []string {
	var list []string
	for _, p := range m.pieces {
		if p.kind == pieceUserDefined {
			list = append(list, p.text)
		}
	}
	return list
}

// withUserDefined adds user-defined pieces of a BPE model, which that library
// only finds as added tokens. (Among those of UNIGRAM their scores suffice.)
func (m *spModel) withUserDefined(added []addedTokenJSON) []addedTokenJSON {
	if m.kind == spTypeUnigram {
		return added
	}
	known := map[int64]bool{}
	for _, a := range added {
		known[*a.ID] = true
	}
	for i, p := range m.pieces {
		if id := int64(i); p.kind == pieceUserDefined && !known[id] {
			// In the normalized text, so that no mark is put behind them.
			added = append(added, addedTokenJSON{ID: &id, Content: p.text, Normalized: true})
		}
	}
	slices.SortStableFunc(added, func(a, b addedTokenJSON) int { return cmp.Compare(*a.ID, *b.ID) })
	return added
}

// normalizerJSON says what spNormalizer does.
func (m *spModel) normalizerJSON(first bool) []component {
	var steps []component
	if m.rules != nil {
		steps = append(steps, component{"type": "Precompiled", "precompiled_charsmap": base64.StdEncoding.EncodeToString(m.rules.blob)})
	}
	if m.squeeze {
		steps = append(steps, replaceJSON("Regex", " {2,}", " "), replaceJSON("Regex", `\A `, ""))
	}
	mark := " "
	if m.escape {
		mark = spaceMark
		steps = append(steps, replaceJSON("String", " ", mark))
	}
	if m.squeeze {
		steps = append(steps, replaceJSON("Regex", `(?:`+mark+`)+\z`, ""))
	}
	switch user := m.userDefinedText(); {
	case !m.dummy || first:
	case m.suffix:
		steps = append(steps, replaceJSON("Regex", `(?<=[\s\S])\z`, mark))
	case m.kind == spTypeBPE && len(user) > 0:
		// The mark must not get into the added tokens for user-defined pieces,
		// which are normalized as well.
		for i, s := range user {
			user[i] = regexp.QuoteMeta(s)
		}
		steps = append(steps, replaceJSON("Regex", `\A(?=[\s\S])(?!(?:`+strings.Join(user, "|")+`)\z)`, mark))
	default:
		steps = append(steps, component{"type": "Prepend", "prepend": mark})
	}
	return steps
}

// decoderJSON says what spDecoder does.
func (m *spModel) decoderJSON() []component {
	steps := []component{replaceJSON("String", spaceMark, " ")}
	if m.byteFallback {
		steps = append(steps, component{"type": "ByteFallback"})
	}
	steps = append(steps, component{"type": "Fuse"})
	if m.dummy || m.squeeze {
		steps = append(steps, component{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	return steps
}

// setPost stores what puts the tokens around a text that t does.
func (o *object) setPost(t *Tokenizer) {
	before, after := t.post.before, t.post.after
	if len(before)+len(after) == 0 {
		o.setRaw("post_processor", []byte("null"))
		return
	}
	special := map[string]component{}
	around := func(list []component, ids []int32, typeID int) []component {
		for _, id := range ids {
			s, _ := t.Token(id)
			special[s] = component{"id": s, "ids": []int32{id}, "tokens": []string{s}}
			list = append(list, component{"SpecialToken": component{"id": s, "type_id": typeID}})
		}
		return list
	}
	text := func(list []component, id string, typeID int) []component {
		return around(append(around(list, before, typeID), component{"Sequence": component{"id": id, "type_id": typeID}}), after, typeID)
	}
	o.set("post_processor", component{
		"type": "TemplateProcessing", "single": text(nil, "A", 0), "pair": text(text(nil, "A", 0), "B", 1), "special_tokens": special,
	})
}

// modelJSON writes the vocabulary, one token a line.
func (m *spModel) modelJSON() []byte {
	var b bytes.Buffer
	unk := "null"
	if m.kind == spTypeUnigram {
		if m.unk >= 0 {
			unk = strconv.Itoa(int(m.unk))
		}
		fmt.Fprintf(&b, "{\n    \"type\": \"Unigram\",\n    \"unk_id\": %s,\n    \"byte_fallback\": %v,\n    \"vocab\": [", unk, m.byteFallback)
		u := m.unigram()
		for i, p := range m.pieces {
			b.WriteString(commaLine[b2i(i == 0)] + "[")
			b.Write(quoteJSON(p.text))
			b.WriteString(", " + strconv.FormatFloat(u.scores[i], 'g', -1, 64) + "]")
		}
		b.WriteString("\n    ]\n  }")
		return b.Bytes()
	}
	if m.unk >= 0 {
		unk = string(quoteJSON(m.unkText()))
	}
	fmt.Fprintf(&b, "{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": %s,\n    \"continuing_subword_prefix\": null,\n"+
		"    \"end_of_word_suffix\": null,\n    \"fuse_unk\": true,\n    \"byte_fallback\": %v,\n    \"ignore_merges\": false,\n    \"vocab\": {",
		unk, m.byteFallback)
	for i, p := range m.pieces {
		b.WriteString(commaLine[b2i(i == 0)])
		b.Write(quoteJSON(p.text))
		b.WriteString(": " + strconv.Itoa(i))
	}
	b.WriteString("\n    },\n    \"merges\": [")
	for i, p := range m.merges() {
		b.WriteString(commaLine[b2i(i == 0)] + "[")
		b.Write(quoteJSON(p[0]))
		b.WriteString(", ")
		b.Write(quoteJSON(p[1]))
		b.WriteByte(']')
	}
	b.WriteString("\n    ]\n  }")
	return b.Bytes()
}

var commaLine = [2]string{",\n      ", "\n      "}

// quoteJSON is marshal for a string, for the many that need no escape.
func quoteJSON(s string) []byte {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == '"' || s[i] == '\\' {
			return marshal(s, "")
		}
	}
	return append(append(append(make([]byte, 0, len(s)+2), '"'), s...), '"')
}

// merges lists the pairs of pieces that spell a piece in the order in which they
// are to be joined: by score, then by length as transformers does.
func (m *spModel) merges() [][2]string {
	type merge struct {
		parts       [2]string
		score       float32
		left, right int
	}
	pieces := map[string]bool{}
	for _, p := range m.pieces {
		if p.kind == pieceNormal || p.kind == pieceUnused {
			pieces[p.text] = true
		}
	}
	var list []merge
	for _, p := range m.pieces {
		if !pieces[p.text] || p.reserved() {
			continue
		}
		for i := 1; i < len(p.text); i++ {
			if left, right := p.text[:i], p.text[i:]; utf8.RuneStart(p.text[i]) && pieces[left] && pieces[right] {
				list = append(list, merge{[2]string{left, right}, p.score, utf8.RuneCountInString(left), utf8.RuneCountInString(right)})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b merge) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.left, a.left), cmp.Compare(b.right, a.right))
	})
	merges := make([][2]string, len(list))
	for i, p := range list {
		merges[i] = p.parts
	}
	return merges
}
