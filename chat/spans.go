package chat

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"ringtail/chat/jinja"
)

// How the trained bytes are found.
//
// A template with {% generation %} blocks says so itself. Any other is asked what it gives the model and what it
// leaves to the model. For the assistant's message i, with T the whole text:
//
//   - The span starts where the prompt ends. The prompt is what the template makes of messages[:i] with
//     add_generation_prompt; where T begins with it, the span begins behind it. Some templates rewrite what came
//     before (they drop earlier thinking, or move the tools), and then T doesn't begin with the prompt. But the bytes
//     that came from a message are known (jinja.Mark), so it is enough to compare the text between the data before
//     the answer and the answer itself.
//   - The span ends with the marker that ends the turn. It is sought in the text behind the answer's last byte, as far
//     as that agrees with messages[:i+1] rendered alone (what follows belongs to the next turn): up to the template's
//     end-of-turn marker, else the EOS token, else the last special token, and to the end of that text if it holds
//     none, since it is then all that tells the model to stop. What comes after the marker, such as the newline
//     after <|im_end|>, isn't trained, for generation stops at the marker.
//
// The template's end-of-turn marker is the first special token behind an answer in a probe conversation.

// ErrNothingTrained and ErrAllTrained are wrapped by the errors about a template and a conversation that would train
// on no byte though the assistant speaks, or on every byte.
var (
	ErrNothingTrained = errors.New("the template yields no text to train on")
	ErrAllTrained     = errors.New("the template trains on everything, prompts included")
)

// RenderSpans renders a conversation and tells which bytes the model is trained on, and which came from the messages.
// A conversation in which the assistant says nothing has no trained bytes; one in which it does must have some, and
// must have others besides.
func (t *Template) RenderSpans(messages []Message, opts RenderOptions) (Rendering, error) {
	c, err := t.prepare(messages, opts)
	if err != nil {
		return Rendering{}, err
	}
	s, err := c.render(len(messages), opts.AddGenerationPrompt)
	if err != nil {
		return Rendering{}, err
	}
	r := Rendering{Text: s.Text, Content: contentSpans(s)}
	if t.program.HasGeneration() {
		r.Trained = c.generationSpans(s, r.Content)
	} else {
		r.Trained = c.derivedSpans(r)
	}
	return r, t.check(r, messages)
}

// check refuses renderings that would train on nothing or on everything.
func (t *Template) check(r Rendering, messages []Message) error {
	speaks := false
	for _, m := range messages {
		speaks = speaks || m.Role == "assistant"
	}
	if speaks && len(r.Trained) == 0 {
		return fmt.Errorf("chat template %s: %w: the assistant's messages don't show in it", t.name, ErrNothingTrained)
	}
	from := 0
	for _, s := range r.Trained {
		if strings.TrimSpace(r.Text[from:s.Start]) != "" {
			return nil
		}
		from = s.End
	}
	if len(r.Trained) > 0 && strings.TrimSpace(r.Text[from:]) == "" {
		return fmt.Errorf("chat template %s: %w", t.name, ErrAllTrained)
	}
	return nil
}

// contentSpans lists what is data in s.
func contentSpans(s jinja.Str) []Span {
	var spans []Span
	for _, m := range s.Marks() {
		if m.Origin == jinja.Generation {
			continue
		}
		message := m.Origin
		if message == originOther {
			message = -1
		}
		spans = append(spans, Span{m.Start, m.End, message})
	}
	return spans
}

// generationSpans lists the generation blocks. A block belongs to the assistant's message that it has text of.
func (c *conversation) generationSpans(s jinja.Str, content []Span) []Span {
	var spans []Span
	for _, m := range s.Marks() {
		if m.Origin != jinja.Generation {
			continue
		}
		span := Span{m.Start, m.End, -1}
		i := sort.Search(len(content), func(i int) bool { return content[i].End > span.Start })
		for ; i < len(content) && content[i].Start < span.End && span.Message < 0; i++ {
			if k := content[i].Message; k >= 0 && c.messages[k].Role == "assistant" {
				span.Message = k
			}
		}
		spans = append(spans, span)
	}
	return spans
}

// derivedSpans finds the trained bytes of a template without generation blocks.
func (c *conversation) derivedSpans(r Rendering) []Span {
	d := &derivation{conversation: c, Rendering: r, known: map[string][2]int{}}
	var spans []Span
	for i, m := range c.messages {
		if m.Role != "assistant" {
			continue
		}
		span, ok := d.span(i)
		if !ok {
			continue
		}
		if n := len(spans); n > 0 && span.Start < spans[n-1].End { // a template that shuffles messages
			span.Start = spans[n-1].End
		}
		if span.Start < span.End {
			spans = append(spans, span)
		}
	}
	return spans
}

type derivation struct {
	*conversation
	Rendering
	// known maps the template's text around an answer to where the span starts and ends in it. Rendering prefixes is
	// quadratic in the number of turns, and nearly all turns have the same text around them.
	known map[string][2]int

	probed bool
	marker string // the template's end-of-turn marker, once probed
}

// span finds the trained bytes of message i; ok is false if it has none.
func (d *derivation) span(i int) (s Span, ok bool) {
	runs := d.runs(i)
	if len(runs) == 0 {
		return d.spanWithoutContent(i)
	}
	// The template's text before and after the answer.
	around := func(run Span) (gap, tail string, before int) {
		after := len(d.Text)
		for _, c := range d.Content {
			if c.End <= run.Start {
				before = c.End
			}
			if c.Start >= run.End {
				after = c.Start
				break
			}
		}
		return d.Text[before:run.Start], d.Text[run.End:after], before
	}
	if len(runs) == 1 {
		gap, tail, before := around(runs[0])
		if k, ok := d.known[knownKey(gap, tail, i == len(d.messages)-1)]; ok {
			return Span{before + k[0], runs[0].End + k[1], i}, true
		}
	}
	prompt, err := d.render(i, true)
	exact := err == nil && strings.HasPrefix(d.Text, prompt.Text)
	run := runs[0]
	for _, other := range runs[1:] {
		switch {
		case exact && run.Start < len(prompt.Text): // shown before its turn, in a summary say
			run = other
		case !exact && other.End-other.Start > run.End-run.Start:
			run = other
		}
	}
	gap, tail, before := around(run)
	start := run.Start
	switch {
	case exact:
		start = min(len(prompt.Text), run.End)
	case err == nil:
		start = before + d.promptEnd(i, prompt, gap)
	}
	end := run.End + d.tailEnd(i, tail)
	if len(runs) == 1 && start <= run.Start {
		d.known[knownKey(gap, tail, i == len(d.messages)-1)] = [2]int{start - before, end - run.End}
	}
	return Span{start, end, i}, true
}

func knownKey(gap, tail string, last bool) string {
	return fmt.Sprintf("%t%d:%s%s", last, len(gap), gap, tail)
}

// runs lists the stretches of the text that come from message i, with nothing but template text inside of each.
func (d *derivation) runs(i int) []Span {
	var runs []Span
	joins := false
	for _, c := range d.Content {
		if c.Message != i {
			joins = false
			continue
		}
		if n := len(runs); joins {
			runs[n-1].End = c.End
		} else {
			runs = append(runs, c)
		}
		joins = true
	}
	return runs
}

// promptEnd finds where in the gap before an answer the prompt ends, for a template whose text doesn't begin with the
// prompt. If in doubt that is the end of the gap: only the answer is trained.
func (d *derivation) promptEnd(i int, prompt jinja.Str, gap string) int {
	last := 0
	for _, m := range contentSpans(prompt) {
		last = m.End
	}
	tail := prompt.Text[last:]
	if strings.HasPrefix(gap, tail) {
		return len(tail)
	}
	without, err := d.render(i, false)
	if err == nil && strings.HasPrefix(prompt.Text, without.Text) {
		header := prompt.Text[len(without.Text):]
		if at := strings.LastIndex(gap, header); at >= 0 && header != "" {
			return at + len(header)
		}
	}
	return len(gap)
}

// tailEnd finds how much of the text behind an answer is trained: up to and including the end-of-turn marker.
func (d *derivation) tailEnd(i int, tail string) int {
	alone, err := d.render(i+1, false)
	if err != nil {
		return d.cut(tail, true)
	}
	last, next := -1, len(alone.Text)
	for _, c := range contentSpans(alone) {
		if c.Message == i {
			last, next = c.End, len(alone.Text)
		} else if last >= 0 && next == len(alone.Text) {
			next = c.Start
		}
	}
	if last < 0 {
		return d.cut(tail, true)
	}
	return d.cut(tail[:commonPrefix(tail, alone.Text[last:next])], false)
}

// cut finds the end of the marker in the text behind an answer. markerOnly says that the text may run into the next
// turn, so that without a marker none of it is trained.
func (d *derivation) cut(tail string, markerOnly bool) int {
	for _, marker := range []string{d.endOfTurn(), d.opts.EOS} {
		if marker == "" {
			continue
		}
		if at := strings.Index(tail, marker); at >= 0 {
			return at + len(marker)
		}
	}
	found := specialTokens(tail, d.opts)
	switch {
	case len(found) > 0 && markerOnly:
		return found[0].End
	case len(found) > 0:
		return found[len(found)-1].End
	case markerOnly:
		return 0
	}
	return len(tail)
}

// endOfTurn is the template's end-of-turn marker, "" if it has none.
func (d *derivation) endOfTurn() string {
	if !d.probed {
		d.probed = true
		d.marker, _ = d.template.probe(d.opts)
	}
	return d.marker
}

// spanWithoutContent is the span of a message of which no byte shows: one that is empty, or that the template drops.
func (d *derivation) spanWithoutContent(i int) (Span, bool) {
	prompt, err := d.render(i, true)
	if err != nil || !strings.HasPrefix(d.Text, prompt.Text) {
		return Span{}, false
	}
	alone, err := d.render(i+1, false)
	if err != nil || len(alone.Text) < len(prompt.Text) || !strings.HasPrefix(d.Text, alone.Text) {
		return Span{}, false
	}
	start := len(prompt.Text)
	end := start + d.cut(alone.Text[start:], false)
	return Span{start, end, i}, start < end
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
