package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ColossalChat's conversation template is a JSON object with these fields; others, such as response_format_tags, are
// left to whoever knows them.
//
//	chat_template      Jinja; or the path of a model folder whose template it is; absent or null: the model's own
//	system_message     what a chat without a system message begins with; null for nothing
//	stop_ids           token ids that end an answer: one, a sequence, or several sequences
//	end_of_assistant   the text that ends an answer; an answer is trained on through it
//
// Source: applications/ColossalChat/coati/dataset/{conversation,utils}.py of ColossalAI.

// Conversation is a conversation template as read from its file.
type Conversation struct {
	name string
	// ChatTemplate is as in the file: Jinja, a path, or "".
	ChatTemplate string
	// System is the system message; HasSystem is false for null.
	System    string
	HasSystem bool
	// StopIDs are sequences of token ids.
	StopIDs        [][]int32
	EndOfAssistant string
}

// ParseConversation reads ColossalChat's conversation template. name, the file's, begins errors.
func ParseConversation(name string, data []byte) (*Conversation, error) {
	var fields struct {
		ChatTemplate   json.RawMessage `json:"chat_template"`
		System         json.RawMessage `json:"system_message"`
		StopIDs        json.RawMessage `json:"stop_ids"`
		EndOfAssistant json.RawMessage `json:"end_of_assistant"`
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("%s: not a conversation template, expected a JSON object with chat_template and end_of_assistant: %w", name, err)
	}
	c := &Conversation{name: name}
	var err error
	if c.ChatTemplate, _, err = optionalText(name, "chat_template", fields.ChatTemplate); err != nil {
		return nil, err
	}
	if c.System, c.HasSystem, err = optionalText(name, "system_message", fields.System); err != nil {
		return nil, err
	}
	if c.EndOfAssistant, _, err = optionalText(name, "end_of_assistant", fields.EndOfAssistant); err != nil {
		return nil, err
	}
	if c.EndOfAssistant == "" {
		return nil, fmt.Errorf("%s: end_of_assistant is missing, expected the text that ends an answer, such as \"<|im_end|>\"", name)
	}
	if c.StopIDs, err = stopSequences(fields.StopIDs); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func optionalText(name, field string, value json.RawMessage) (text string, given bool, err error) {
	if len(value) == 0 || string(value) == "null" {
		return "", false, nil
	}
	if err := json.Unmarshal(value, &text); err != nil {
		return "", false, fmt.Errorf("%s: %s is %.40s, expected a string or null", name, field, value)
	}
	return text, true, nil
}

// stopSequences reads an id, a list of ids, which is one sequence, or a list of such lists.
func stopSequences(value json.RawMessage) ([][]int32, error) {
	if len(value) == 0 || string(value) == "null" {
		return nil, nil
	}
	bad := func() ([][]int32, error) {
		return nil, fmt.Errorf("stop_ids is %.60s, expected a token id, a list of ids, or a list of such lists", value)
	}
	var lists [][]json.Number
	var list []json.Number
	var one json.Number
	switch {
	case bytes.ContainsRune(value, '"'): // json.Number takes numbers in strings too
		return bad()
	case json.Unmarshal(value, &lists) == nil:
	case json.Unmarshal(value, &list) == nil:
		lists = [][]json.Number{list}
	case json.Unmarshal(value, &one) == nil:
		lists = [][]json.Number{{one}}
	default:
		return bad()
	}
	var sequences [][]int32
	for _, list := range lists {
		var ids []int32
		for _, n := range list {
			id, err := strconv.ParseInt(n.String(), 10, 64)
			if err != nil || id < 0 || id > math.MaxInt32 {
				return bad()
			}
			ids = append(ids, int32(id))
		}
		if len(ids) > 0 {
			sequences = append(sequences, ids)
		}
	}
	return sequences, nil
}

// IsJinja tells whether ChatTemplate is a template rather than a path. "" is neither.
func (c *Conversation) IsJinja() bool {
	return strings.Contains(c.ChatTemplate, "{{") || strings.Contains(c.ChatTemplate, "{%")
}

// Template compiles text, which is ChatTemplate or what that names, as this conversation's template.
func (c *Conversation) Template(text string) (*Template, error) {
	system := c.System
	if !c.HasSystem {
		system = ""
	}
	t, err := newConversation(c.name, text, system, c.EndOfAssistant)
	if err == nil {
		t.stopIDs = c.StopIDs
	}
	return t, err
}

// newConversation compiles a template that puts a system message before chats without one, "" for none, and trains on
// answers through endOfAssistant. The system message becomes a part of the Jinja, so that the template says it
// wherever it is taken.
func newConversation(name, text, system, endOfAssistant string) (*Template, error) {
	t, err := New(name, text)
	if err != nil {
		return nil, err
	}
	if system != "" {
		// The line break behind the tag is the tag's own (trim_blocks), and lets text begin a line as before.
		prefix := "{%- if not messages or messages[0]['role'] != 'system' %}{% set messages = [{'role': 'system', 'content': " +
			jinjaString(system) + "}] + (messages or []) %}{% endif %}\n"
		if t, err = New(name, prefix+text); err != nil {
			return nil, err
		}
		t.addedLines = 1
	}
	t.endOfAssistant = endOfAssistant
	return t, nil
}

// jinjaString is s as a string literal on one line.
func jinjaString(s string) string {
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out.WriteByte('\\')
			out.WriteRune(r)
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == '\t':
			out.WriteString(`\t`)
		case r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// conversationSpans finds the trained bytes as ColossalChat does: an answer, with a space before it if there is one,
// through the next end_of_assistant; where none stands between the answer and the next message, the answer alone.
func (c *conversation) conversationSpans(r Rendering) []Span {
	d := &derivation{conversation: c, Rendering: r, known: map[string][2]int{}}
	var spans []Span
	for i, m := range c.messages {
		if m.Role != "assistant" {
			continue
		}
		start, end, ok := d.answer(i)
		if !ok {
			continue
		}
		_, tail, before := d.around(Span{start, end, i})
		if start > before && r.Text[start-1] == ' ' {
			start--
		}
		if at := strings.Index(tail, c.template.endOfAssistant); at >= 0 {
			end += at + len(c.template.endOfAssistant)
		}
		if n := len(spans); n > 0 {
			start = max(start, spans[n-1].End)
		}
		if start < end {
			spans = append(spans, Span{start, end, i})
		}
	}
	return spans
}

// answer is where message i shows, or where it would if it is empty.
func (d *derivation) answer(i int) (start, end int, ok bool) {
	runs := d.runs(i, len(d.Text))
	if len(runs) == 0 {
		s, ok := d.spanWithoutContent(i)
		return s.Start, s.Start, ok
	}
	run := runs[0]
	if len(runs) > 1 {
		if prompt, err := d.render(i, true); err == nil && strings.HasPrefix(d.Text, prompt.Text) {
			for _, other := range runs[1:] {
				if run.Start < len(prompt.Text) {
					run = other
				}
			}
		}
	}
	return run.Start, run.End, true
}
