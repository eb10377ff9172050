package chat

import (
	"fmt"
	"sort"
	"strings"
)

// Encode renders a conversation and encodes it: ids are its tokens, trained tells which of them the loss covers. A
// token is trained when all of its bytes are; under a template with generation blocks when any is, as in transformers'
// return_assistant_tokens_mask. The special tokens that opts leaves empty are taken from tok.
//
// Special tokens come from the template alone; their text in a message is ordinary text. The BOS that the tokenizer
// puts before every text is put here too, unless the template has written it.
func Encode(tok Tokenizer, t *Template, messages []Message, opts RenderOptions) (ids []int32, trained []bool, err error) {
	r, err := t.RenderSpans(messages, withTokens(opts, tok))
	if err != nil {
		return nil, nil, err
	}
	ids, offsets, err := encodeRendering(tok, r)
	if err != nil {
		return nil, nil, fmt.Errorf("chat template %s: %w", t.name, err)
	}
	trained = make([]bool, len(ids))
	for i, o := range offsets {
		k := sort.Search(len(r.Trained), func(k int) bool { return r.Trained[k].End > o[0] })
		if k == len(r.Trained) {
			break
		}
		if s := r.Trained[k]; t.marksAnswers() {
			trained[i] = o[0] < o[1] && o[1] > s.Start
		} else {
			trained[i] = o[0] >= s.Start && o[1] <= s.End
		}
	}
	ids, trained = addBOS(tok, ids, trained)
	if len(r.Trained) > 0 && !contains(trained, true) {
		return nil, nil, fmt.Errorf("chat template %s: %w: no token lies wholly inside of the assistant's text", t.name, ErrNothingTrained)
	}
	return ids, trained, nil
}

// EncodePrompt renders a conversation with the header of the assistant's turn and encodes it, for the model to answer.
func EncodePrompt(tok Tokenizer, t *Template, messages []Message, opts RenderOptions) ([]int32, error) {
	opts.AddGenerationPrompt = true
	c, err := t.prepare(messages, withTokens(opts, tok))
	if err != nil {
		return nil, err
	}
	s, err := c.render(len(messages), true)
	if err != nil {
		return nil, err
	}
	ids, _, err := encodeRendering(tok, Rendering{Text: s.Text, Content: contentSpans(s)})
	if err != nil {
		return nil, fmt.Errorf("chat template %s: %w", t.name, err)
	}
	ids, _ = addBOS(tok, ids, nil)
	return ids, nil
}

// withTokens fills in the special tokens that opts doesn't name.
func withTokens(opts RenderOptions, tok Tokenizer) RenderOptions {
	for _, f := range []struct {
		field *string
		text  string
	}{{&opts.BOS, tok.BOS()}, {&opts.EOS, tok.EOS()}, {&opts.PAD, tok.PAD()}, {&opts.UNK, tok.UNK()}} {
		if *f.field == "" {
			*f.field = f.text
		}
	}
	if opts.Specials == nil {
		opts.Specials = tok.SpecialTokens()
	}
	return opts
}

func encodeRendering(tok Tokenizer, r Rendering) ([]int32, [][2]int, error) {
	var plain [][2]int
	for _, s := range r.Content {
		if n := len(plain); n > 0 && plain[n-1][1] == s.Start {
			plain[n-1][1] = s.End
		} else {
			plain = append(plain, [2]int{s.Start, s.End})
		}
	}
	ids, offsets, err := tok.EncodeProtected(r.Text, plain)
	if err == nil && len(ids) != len(offsets) {
		err = fmt.Errorf("the tokenizer gave %d tokens and %d offsets", len(ids), len(offsets))
	}
	return ids, offsets, err
}

// addBOS puts the tokenizer's BOS in front, once. trained may be nil.
func addBOS(tok Tokenizer, ids []int32, trained []bool) ([]int32, []bool) {
	bos, ok := tok.LeadingBOS()
	if !ok || len(ids) > 0 && ids[0] == bos {
		return ids, trained
	}
	if trained != nil {
		trained = append([]bool{false}, trained...)
	}
	return append([]int32{bos}, ids...), trained
}

func contains(list []bool, v bool) bool {
	for _, b := range list {
		if b == v {
			return true
		}
	}
	return false
}

// ProtectedEncoder makes Tokenizer.EncodeProtected for a tokenizer that knows only all or nothing: encode(text, true)
// takes every special token's text for plain text, encode(text, false) none. specials are the texts of the special
// tokens. A text in which no special token comes from a plain range is encoded in one go; else the plain ranges that
// one does come from are encoded by themselves, which may move token borders at their ends.
func ProtectedEncoder(specials []string, encode func(text string, plainSpecial bool) ([]int32, [][2]int)) func(text string, plain [][2]int) ([]int32, [][2]int, error) {
	control := controlIDs(specials, encode)
	return func(text string, plain [][2]int) ([]int32, [][2]int, error) {
		var cuts [][2]int
		for round := 0; ; round++ {
			ids, offsets := encodePieces(text, cuts, encode)
			forged := forgedRanges(text, plain, cuts, ids, offsets, control)
			if len(forged) == 0 {
				return ids, offsets, nil
			}
			if round > 0 { // taking one token for text can uncover another: then all that is plain stands alone
				forged = plain
			}
			cuts = union(append(cuts, forged...))
		}
	}
}

// controlIDs are the ids of the special tokens, the unknown token's apart: that one stands for characters outside of
// the vocabulary, and ordinary text is full of them. Tokens are told by id rather than searched for in the text,
// because a normalizer can make a special token of other characters.
func controlIDs(specials []string, encode func(text string, plainSpecial bool) ([]int32, [][2]int)) map[int32]bool {
	control := map[int32]bool{}
	for _, s := range specials {
		if ids, _ := encode(s, false); len(ids) == 1 {
			control[ids[0]] = true
		}
	}
	const outside = "\U0010fffd" // a private-use code point, in nobody's vocabulary
	ids, _ := encode(outside, true)
	for _, id := range ids {
		delete(control, id)
	}
	return control
}

// encodePieces encodes the cuts (ascending, disjoint) as plain text, and what lies between them as it comes.
func encodePieces(text string, cuts [][2]int, encode func(text string, plainSpecial bool) ([]int32, [][2]int)) (ids []int32, offsets [][2]int) {
	piece := func(from, to int, plainSpecial bool) {
		if from >= to {
			return
		}
		more, at := encode(text[from:to], plainSpecial)
		ids = append(ids, more...)
		for _, o := range at {
			offsets = append(offsets, [2]int{from + o[0], from + o[1]})
		}
	}
	from := 0
	for _, cut := range cuts {
		piece(from, cut[0], false)
		piece(cut[0], cut[1], true)
		from = cut[1]
	}
	piece(from, len(text), false)
	return ids, offsets
}

// forgedRanges lists the plain ranges that a control token has characters of, each widened to that token. White space
// doesn't count, as special tokens may take what is beside them, nor does what already lies in a cut.
func forgedRanges(text string, plain, cuts [][2]int, ids []int32, offsets [][2]int, control map[int32]bool) [][2]int {
	var forged [][2]int
	for i, o := range offsets {
		if !control[ids[i]] {
			continue
		}
		if c, ok := firstOverlap(cuts, o); ok && c[0] <= o[0] && o[1] <= c[1] {
			continue
		}
		k := sort.Search(len(plain), func(k int) bool { return plain[k][1] > o[0] })
		for ; k < len(plain) && plain[k][0] < o[1]; k++ {
			shared := text[max(o[0], plain[k][0]):min(o[1], plain[k][1])]
			if strings.TrimSpace(shared) != "" {
				forged = append(forged, [2]int{min(o[0], plain[k][0]), max(o[1], plain[k][1])})
			}
		}
	}
	return forged
}

func firstOverlap(ranges [][2]int, o [2]int) ([2]int, bool) {
	k := sort.Search(len(ranges), func(k int) bool { return ranges[k][1] > o[0] })
	if k < len(ranges) && ranges[k][0] < o[1] {
		return ranges[k], true
	}
	return [2]int{}, false
}

// union sorts ranges and joins those that overlap.
func union(ranges [][2]int) [][2]int {
	sort.Slice(ranges, func(i, j int) bool { return ranges[i][0] < ranges[j][0] })
	var out [][2]int
	for _, r := range ranges {
		if n := len(out); n > 0 && r[0] < out[n-1][1] {
			out[n-1][1] = max(out[n-1][1], r[1])
		} else {
			out = append(out, r)
		}
	}
	return out
}
