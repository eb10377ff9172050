package chat

import (
	"regexp"
	"sort"
	"strings"
)

// Probe texts are plain words, so that no template trims or rewrites them.
const (
	probeUser      = "Ringtail probe question"
	probeAssistant = "Ringtail probe answer"
)

// Stops lists the texts that end an assistant's turn: the template's end-of-turn marker, such as <|im_end|>, or where
// it has none the text that starts the next turn, such as "USER:". The tokenizer's EOS ends a turn in any case and
// isn't repeated here, unless it is the marker. Only BOS, EOS and Specials of opts matter.
func (t *Template) Stops(opts RenderOptions) []string {
	marker, next := t.probe(opts)
	if marker != "" {
		return []string{marker}
	}
	if next = strings.TrimSpace(next); next != "" {
		return []string{next}
	}
	return nil
}

// probe renders a small conversation. marker is the first special token behind the answer, between is all of the
// template's text between the answer and the next question.
func (t *Template) probe(opts RenderOptions) (marker, between string) {
	opts.AddGenerationPrompt, opts.Tools = false, nil
	c, err := t.prepare([]Message{
		{Role: "user", Content: probeUser}, {Role: "assistant", Content: probeAssistant}, {Role: "user", Content: probeUser},
	}, opts)
	if err != nil {
		return "", ""
	}
	behind := func(n int) string {
		s, err := c.render(n, false)
		if err != nil {
			return ""
		}
		_, text, _ := strings.Cut(s.Text, probeAssistant)
		text, _, _ = strings.Cut(text, probeUser)
		return text
	}
	alone, followed := behind(2), behind(3)
	text := alone
	if followed != "" {
		text = alone[:commonPrefix(alone, followed)]
	}
	if found := specialTokens(text, opts); len(found) > 0 {
		marker = text[found[0].Start:found[0].End]
	}
	return marker, followed
}

// specialShape matches what special tokens look like in the usual vocabularies, for renderings that don't know their
// tokenizer: <|im_end|>, DeepSeek's full-width bars, </s>, <eos>, Gemma's <end_of_turn>.
var specialShape = regexp.MustCompile(`<\|[^|<>\s]{1,64}\|>|<｜[^｜<>\s]{1,64}｜>|</?s>|<(?:bos|eos|pad|unk|end_of_turn|start_of_turn)>|\[(?:EOS|BOS)\]`)

// specialTokens finds special tokens in text: ascending and disjoint, at each place the longest.
func specialTokens(text string, opts RenderOptions) []Span {
	var found []Span
	add := func(token string) {
		if token == "" || strings.TrimSpace(token) == "" {
			return
		}
		for from := 0; ; {
			at := strings.Index(text[from:], token)
			if at < 0 {
				return
			}
			found = append(found, Span{from + at, from + at + len(token), -1})
			from += at + len(token)
		}
	}
	if text == "" {
		return nil
	}
	for _, token := range []string{opts.BOS, opts.EOS, opts.PAD, opts.UNK} {
		add(token)
	}
	for _, token := range opts.Specials {
		add(token)
	}
	for _, m := range specialShape.FindAllStringIndex(text, -1) {
		found = append(found, Span{m[0], m[1], -1})
	}
	sort.Slice(found, func(i, j int) bool {
		if found[i].Start != found[j].Start {
			return found[i].Start < found[j].Start
		}
		return found[i].End > found[j].End
	})
	disjoint := found[:0]
	for _, s := range found {
		if n := len(disjoint); n == 0 || s.Start >= disjoint[n-1].End {
			disjoint = append(disjoint, s)
		}
	}
	return disjoint
}
