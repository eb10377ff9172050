package chat

import (
	"errors"
	"fmt"
	"slices"
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
//   - Where the template writes nothing behind an answer, the special token that opens the next turn, such as GLM's
//     <|user|>, is what the model must say to be stopped, and is trained.
//   - Where it writes one marker at the end of the chat and another before a next turn (gpt-oss: <|return|>, <|end|>),
//     the one before a next turn isn't trained: it wouldn't stop a generation.
//
// The template's end-of-turn marker is what special tokens stand first and side by side behind an answer in a probe
// conversation, up to EOS.

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
	switch {
	case t.endOfAssistant != "":
		r.Trained = c.conversationSpans(r)
	case t.marksAnswers():
		r.Trained = c.generationSpans(s, r.Content)
	default:
		r.Trained = c.derivedSpans(r)
	}
	return r, t.check(r, messages)
}

// marksAnswers tells whether the trained bytes are the template's generation blocks.
func (t *Template) marksAnswers() bool { return t.endOfAssistant == "" && t.program.HasGeneration() }

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
	// One without text of any, as of an empty answer, is known by its place where each answer has one block.
	var speaking []int
	for i, m := range c.messages {
		if m.Role == "assistant" {
			speaking = append(speaking, i)
		}
	}
	if len(speaking) == len(spans) {
		for i := range spans {
			spans[i].Message = speaking[i]
		}
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
	runs := d.runs(i, len(d.Text))
	if len(runs) == 0 {
		return d.spanWithoutContent(i)
	}
	if len(runs) == 1 {
		gap, tail, before := d.around(runs[0])
		if k, ok := d.known[knownKey(gap, tail, i == len(d.messages)-1)]; ok {
			return Span{before + k[0], runs[0].End + k[1], i}, true
		}
	}
	prompt, err := d.render(i, true)
	alone, aloneErr := d.render(i+1, false)
	if aloneErr == nil && strings.HasPrefix(d.Text, alone.Text) {
		// What shows of the message behind its turn, such as the name of a function that a later result is of, isn't said.
		if within := d.runs(i, len(alone.Text)); len(within) > 0 {
			runs = within
		}
	}
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
	gap, tail, before := d.around(run)
	start := run.Start
	switch {
	case exact:
		start = min(len(prompt.Text), run.End)
	case err == nil:
		start = before + d.promptEnd(i, prompt, gap)
	}
	end := run.End
	if aloneErr == nil {
		end += d.tailEnd(i, tail, alone)
	} else {
		end += d.cut(tail, true)
	}
	if len(runs) == 1 && start <= run.Start {
		d.known[knownKey(gap, tail, i == len(d.messages)-1)] = [2]int{start - before, end - run.End}
	}
	return Span{start, end, i}, true
}

// around is the template's text before and after an answer; before is where the first begins.
func (d *derivation) around(run Span) (gap, tail string, before int) {
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

func knownKey(gap, tail string, last bool) string {
	return fmt.Sprintf("%t%d:%s%s", last, len(gap), gap, tail)
}

// runs lists the stretches of the text before limit that come from message i, with nothing but template text inside of
// each.
func (d *derivation) runs(i, limit int) []Span {
	var runs []Span
	joins := false
	for _, c := range d.Content {
		if c.End > limit {
			break
		}
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
	if without, err := d.render(i, false); err == nil {
		if at, ok := d.headerEnd(prompt.Text, without.Text, gap); ok {
			return at
		}
	}
	return len(gap)
}

// headerEnd finds the end of the assistant's header in text. The header is what a prompt has more than the same chat
// without; of one that opens more than the turn (<|im_start|>assistant\n<think>\n) as much is taken as is there.
func (d *derivation) headerEnd(prompt, without, text string) (int, bool) {
	header := prompt[d.agreement(prompt, without):]
	cuts := []int{len(header)}
	for _, s := range specialTokens(header, d.opts) {
		cuts = append(cuts, s.End)
	}
	for at, r := range header {
		if r == '\n' {
			cuts = append(cuts, at+1)
		}
	}
	slices.Sort(cuts)
	for _, n := range slices.Backward(cuts) {
		if strings.TrimSpace(header[:n]) == "" {
			break
		}
		if at := strings.LastIndex(text, header[:n]); at >= 0 {
			return at + n, true
		}
	}
	return 0, false
}

// tailEnd finds how much of the text behind an answer is trained: up to and including the end-of-turn marker. alone is
// the rendering that ends with the answer.
func (d *derivation) tailEnd(i int, tail string, alone jinja.Str) int {
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
	behind := alone.Text[last:next]
	n := d.agreement(tail, behind)
	if end := d.cut(tail[:n], false); end < n || len(specialTokens(tail[:n], d.opts)) > 0 {
		return end
	}
	if n == len(behind) { // nothing but white space or words ends the turn
		return n + d.opener(i, tail[n:])
	}
	return n
}

// opener is the length of the special token that opens the turn after message i, where text begins with one.
func (d *derivation) opener(i int, text string) int {
	found := specialTokens(text, d.opts)
	if i == len(d.messages)-1 || len(found) == 0 || found[0].Start > 0 || text[:found[0].End] == d.opts.BOS || d.endOfTurn() != "" {
		return 0
	}
	return found[0].End
}

// agreement is how many bytes two texts have in common from the start, without a part of a special token that only one
// of them has.
func (d *derivation) agreement(a, b string) int {
	n := commonPrefix(a, b)
	from, cut := max(0, n-maxSpecial), n
	for _, text := range []string{a, b} {
		for _, s := range specialTokens(text[from:min(len(text), n+maxSpecial)], d.opts) {
			if from+s.Start < n && n < from+s.End {
				cut = min(cut, from+s.Start)
			}
		}
	}
	return cut
}

// maxSpecial is how long a special token may be to count in agreement.
const maxSpecial = 200

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
		d.marker = d.template.probe(d.opts).marker
	}
	return d.marker
}

// spanWithoutContent is the span of a message of which no byte shows: one that is empty, or that the template drops. It
// lies between the content before and the content behind, which are found in each rendering.
func (d *derivation) spanWithoutContent(i int) (Span, bool) {
	prompt, err := d.render(i, true)
	if err != nil {
		return Span{}, false
	}
	alone, err := d.render(i+1, false)
	if err != nil {
		return Span{}, false
	}
	before, gap := gapAfter(d.Text, d.Content, i)
	_, promptGap := gapAfter(prompt.Text, contentSpans(prompt), i)
	_, aloneGap := gapAfter(alone.Text, contentSpans(alone), i)
	start, turnEnd := len(promptGap), d.agreement(gap, aloneGap)
	if !strings.HasPrefix(gap, promptGap) {
		without, err := d.render(i, false)
		if err != nil {
			return Span{}, false
		}
		_, withoutGap := gapAfter(without.Text, contentSpans(without), i)
		at, ok := d.headerEnd(promptGap, withoutGap, gap)
		if !ok { // the marker alone, then
			marker, from := d.endOfTurn(), d.agreement(gap, withoutGap)
			if at = strings.Index(gap[from:], marker); at < 0 || marker == "" {
				return Span{}, false
			}
			at += from
		}
		start = at
	}
	end := start
	switch rest := gap[start:]; {
	case turnEnd > start:
		end += d.cut(gap[start:turnEnd], false)
	case turnEnd == len(aloneGap):
		end += d.opener(i, rest)
	}
	if marker := d.endOfTurn(); end == start && marker != "" && strings.HasPrefix(strings.TrimSpace(gap[start:]), marker) {
		end += strings.Index(gap[start:], marker) + len(marker) // a history that the template writes otherwise than a chat's end
	}
	return Span{before + start, before + end, i}, start < end
}

// gapAfter is the template's text behind the content of the messages before i, and where it begins.
func gapAfter(text string, content []Span, i int) (start int, gap string) {
	last := -1
	for k, c := range content {
		if c.Message >= 0 && c.Message < i && (last < 0 || c.Message >= content[last].Message) {
			last = k
		}
	}
	end := len(text)
	if last >= 0 {
		start = content[last].End
	}
	if last+1 < len(content) {
		end = content[last+1].Start
	}
	return start, text[start:end]
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
