package chat

import (
	"encoding/json"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// Probe texts are plain words, so that no template trims or rewrites them.
const (
	probeUser      = "Ringtail probe question"
	probeAssistant = "Ringtail probe answer"
	probeArgument  = "Ringtail probe argument"
)

// probeCalls is an assistant's tool_calls, with the probe text last in it.
var probeCalls = []Field{{"tool_calls", json.RawMessage(
	`[{"id":"probe0000","type":"function","function":{"name":"probe","arguments":{"value":"` + probeArgument + `"}}}]`)}}

// Stops lists the texts that end an assistant's turn, the usual one first: the template's end-of-turn marker, such as
// <|im_end|>; where it has none, what opens the next turn, such as <|user|> or "USER:"; and what ends a turn that calls
// functions, where that is another token, such as <|call|>. The tokenizer's EOS ends a turn in any case and isn't
// repeated here, unless it is the marker. Only BOS, EOS and Specials of opts matter.
func (t *Template) Stops(opts RenderOptions) []string {
	if t.endOfAssistant != "" {
		return []string{t.endOfAssistant}
	}
	p := t.probe(opts)
	var stops []string
	for _, s := range append([]string{p.stop}, p.more...) {
		if s != "" && !slices.Contains(stops, s) && (len(stops) == 0 || s != opts.EOS) {
			stops = append(stops, s)
		}
	}
	return stops
}

// probed is what small conversations tell about a template.
type probed struct {
	marker string   // the special tokens between an answer and whatever follows, "" if there are none
	stop   string   // what to stop at: the marker's last token, or else what comes behind an answer
	more   []string // the same for calls of functions, and for answers that results of functions follow
}

func (t *Template) probe(opts RenderOptions) probed {
	opts.AddGenerationPrompt, opts.Tools, opts.Documents = false, nil, nil
	// Some templates want content as parts, some a list of tools even if empty.
	for _, form := range []struct {
		parts bool
		tools json.RawMessage
	}{{false, nil}, {true, nil}, {false, json.RawMessage("[]")}} {
		opts.Tools = form.tools
		message := func(role, text string) Message {
			if form.parts {
				return Message{Role: role, Extra: []Field{{"content", json.RawMessage(`[{"type":"text","text":"` + text + `"}]`)}}}
			}
			return Message{Role: role, Content: text}
		}
		if p, ok := t.probeForm(opts, message("user", probeUser), message("assistant", probeAssistant)); ok {
			return p
		}
	}
	return probed{}
}

func (t *Template) probeForm(opts RenderOptions, question, answer Message) (p probed, ok bool) {
	alone, followed, ok := t.behind(opts, probeAssistant, question, answer, question)
	if !ok {
		return p, false
	}
	text := alone
	if followed != "" {
		text = alone[:commonPrefix(alone, followed)]
	}
	if run := markerRun(text, opts); len(run) > 0 {
		p.marker = text[run[0].Start:run[len(run)-1].End]
		p.stop = text[run[len(run)-1].Start:run[len(run)-1].End]
	} else if found := specialTokens(alone, opts); len(found) > 0 { // another one at the chat's end than before a next turn
		p.stop = alone[found[0].Start:found[0].End]
	} else {
		p.stop = openerText(followed, opts)
	}
	if !strings.Contains(t.text, "tool") {
		return p, true
	}
	call := Message{Role: "assistant", Extra: probeCalls}
	result := Message{Role: "tool", Content: probeUser, Extra: []Field{{"name", json.RawMessage(`"probe"`)}, {"tool_call_id", json.RawMessage(`"probe0000"`)}}}
	if alone, followed, ok = t.behind(opts, probeArgument, question, call, result); !ok {
		return p, true
	}
	found := specialTokens(alone, opts)
	for len(found) > 0 && opensTurn(alone[found[len(found)-1].Start:found[len(found)-1].End], opts) { // of a header that is always there
		found = found[:len(found)-1]
	}
	if len(found) > 0 {
		p.more = append(p.more, alone[found[len(found)-1].Start:found[len(found)-1].End])
	} else if rest, ok := strings.CutPrefix(followed, alone); ok {
		if found := specialTokens(rest, opts); len(found) > 0 && found[0].Start == 0 {
			p.more = append(p.more, rest[:found[0].End])
		}
	}
	return p, true
}

// opener matches the names of tokens that begin a turn rather than end one.
var opener = regexp.MustCompile(`(?i)start|begin|header|user|assistant|system|chatbot|model`)

func opensTurn(token string, opts RenderOptions) bool {
	return token != opts.EOS && (token == opts.BOS || opener.MatchString(token))
}

// behind renders a chat of three without and with its last message, and returns what stands behind the text in each,
// in the second up to the next content.
func (t *Template) behind(opts RenderOptions, text string, messages ...Message) (alone, followed string, ok bool) {
	c, err := t.prepare(messages, opts)
	if err != nil {
		return "", "", false
	}
	s, err := c.render(len(messages)-1, false)
	if err != nil {
		return "", "", false
	}
	if _, alone, ok = cutLast(s.Text, text); !ok {
		return "", "", false
	}
	if s, err = c.render(len(messages), false); err == nil {
		_, followed, _ = cutLast(s.Text, text)
		followed, _, _ = strings.Cut(followed, probeUser)
	}
	return alone, followed, true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	at := strings.LastIndex(s, sep)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+len(sep):], true
}

// markerRun is the first special token of text with those right behind it, up to EOS.
func markerRun(text string, opts RenderOptions) []Span {
	found := specialTokens(text, opts)
	n := min(1, len(found))
	for n > 0 && n < len(found) && found[n].Start == found[n-1].End && text[found[n-1].Start:found[n-1].End] != opts.EOS &&
		!opensTurn(text[found[n].Start:found[n].End], opts) {
		n++
	}
	return found[:n]
}

// openerText is what opens a turn, in the text behind an answer that no marker ends: a special token other than BOS, or
// words.
func openerText(text string, opts RenderOptions) string {
	text = strings.TrimSpace(text)
	for opts.BOS != "" && strings.HasPrefix(text, opts.BOS) {
		text = strings.TrimSpace(text[len(opts.BOS):])
	}
	found := specialTokens(text, opts)
	switch {
	case len(found) > 0 && found[0].Start == 0:
		return text[:found[0].End]
	case len(found) > 0:
		return strings.TrimSpace(text[:found[0].Start])
	}
	return text
}

// specialShape matches what special tokens look like in the usual vocabularies, for renderings that don't know their
// tokenizer: <|im_end|>, DeepSeek's full-width bars, EXAONE's [|endofturn|], Gemma 4's <turn|>, </s>, <eos>, Gemma's
// <end_of_turn>.
var specialShape = regexp.MustCompile(`<\|[^|<>\s]{1,64}\|>|<｜[^｜<>\s]{1,64}｜>|\[\|[^|\[\]\s]{1,64}\|\]|<\|[a-z_]{1,64}>|<[a-z_]{1,64}\|>|` +
	`</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_[a-z]{1,32})>|\[(?:EOS|BOS)\]`)

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
