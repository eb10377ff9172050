package chat

import (
	"fmt"
	"sort"
	"strings"
)

// Encode renders a conversation and encodes it: ids are its tokens, trained tells which of them the loss covers. A
// token is trained when all of its bytes are. The special tokens that opts leaves empty are taken from tok.
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
		trained[i] = k < len(r.Trained) && o[0] >= r.Trained[k].Start && o[1] <= r.Trained[k].End
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
// takes every special token's text for plain text, encode(text, false) none. Where a special token's text overlaps a
// plain range, that range is encoded by itself; a text without such a place is encoded in one go.
func ProtectedEncoder(specials []string, encode func(text string, plainSpecial bool) ([]int32, [][2]int)) func(text string, plain [][2]int) ([]int32, [][2]int, error) {
	return func(text string, plain [][2]int) ([]int32, [][2]int, error) {
		var ids []int32
		var offsets [][2]int
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
		for _, cut := range forged(text, plain, specials) {
			piece(from, cut[0], false)
			piece(cut[0], cut[1], true)
			from = cut[1]
		}
		piece(from, len(text), false)
		return ids, offsets, nil
	}
}

// forged lists the plain ranges that a special token's text overlaps, widened to that text: ascending and disjoint.
func forged(text string, plain [][2]int, specials []string) [][2]int {
	var cuts [][2]int
	for _, p := range plain {
		cut := p
		found := false
		for _, token := range specials {
			if token == "" {
				continue
			}
			// Only places that overlap [p[0], p[1]) matter, and those lie in this window.
			low := max(0, p[0]-len(token)+1)
			high := min(len(text), p[1]+len(token)-1)
			for low < high {
				at := strings.Index(text[low:high], token)
				if at < 0 {
					break
				}
				found = true
				cut[0] = min(cut[0], low+at)
				cut[1] = max(cut[1], low+at+len(token))
				low += at + 1
			}
		}
		if !found {
			continue
		}
		if n := len(cuts); n > 0 && cuts[n-1][1] >= cut[0] {
			cuts[n-1][1] = max(cuts[n-1][1], cut[1])
		} else {
			cuts = append(cuts, cut)
		}
	}
	return cuts
}
