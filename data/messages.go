package data

import (
	"encoding/json"
	"slices"
	"strings"

	"ringtail/chat"
)

// roleOf maps every spelling of a role in the known formats to its normal name.
var roleOf = map[string]string{
	"system": RoleSystem, "developer": RoleSystem,
	"user": RoleUser, "human": RoleUser, "prompter": RoleUser,
	"assistant": RoleAssistant, "gpt": RoleAssistant, "chatgpt": RoleAssistant, "bot": RoleAssistant,
	"model": RoleAssistant, "bing": RoleAssistant, "bard": RoleAssistant,
	"function_call": RoleAssistant,
	"tool":          RoleTool, "observation": RoleTool, "function": RoleTool, "tool_response": RoleTool,
}

// parseMessages reads a list of messages, or one message object, at a field's
// path. Roles are normalized; their order is not judged here (see tidy).
func parseMessages(raw json.RawMessage, path string, columns map[string]string) ([]Message, []Note, *RowError) {
	columns = messageColumns(columns)
	if kindOf(raw) == kindObject {
		m, note, err := parseMessage(raw, path, columns)
		return []Message{m}, note, err
	}
	items, err := listOf(raw, path)
	if err != nil {
		return nil, nil, wrongType(path, "a list of messages", raw)
	}
	var notes []Note
	messages := make([]Message, 0, len(items))
	for i, item := range items {
		m, n, err := parseMessage(item, indexed(path, i), columns)
		if err != nil {
			return nil, nil, err
		}
		messages = append(messages, m)
		notes = append(notes, n...)
	}
	return messages, notes, nil
}

// messageColumns keeps the part of a mapping that speaks of a message's own
// fields: a row's "text" may well be called "content" in the file, and a
// message's "content" must still be found.
func messageColumns(columns map[string]string) map[string]string {
	var own map[string]string
	for _, field := range []string{"role", "from", "content", "value"} {
		if name, ok := columns[field]; ok {
			if own == nil {
				own = map[string]string{}
			}
			own[field] = name
		}
	}
	return own
}

// parseMessage reads {role, content}, {from, value} or a mixture of the two.
func parseMessage(raw json.RawMessage, path string, columns map[string]string) (Message, []Note, *RowError) {
	o, err := parseObject(raw, columns)
	if err != nil {
		err.Field = path
		return Message{}, nil, err
	}
	o.path = path + "."
	name, err := o.needText("role", "from")
	if err != nil {
		return Message{}, nil, err
	}
	role, ok := roleOf[strings.ToLower(strings.TrimSpace(name))]
	if !ok {
		return Message{}, nil, rowErr(ReasonUnknownRole, o.path+o.found("role", "from"),
			"unknown role %q: expected system, user, assistant or tool (or human, gpt, function_call, observation)", clip(name, 40))
	}
	m := Message{Role: role, Extra: o.extra()}
	if m.Extra, err = o.normalExtra(m); err != nil {
		return m, nil, err
	}
	content, found := o.get("content", "value", "text")
	switch {
	case content == nil && hasField(m, "tool_calls"):
		// OpenAI's form of a turn that only calls functions: content is null.
	case content == nil:
		return m, nil, o.missing("the message's text", "content", "value")
	default:
		if m.Content, err = contentOf(content, o.path+found); err != nil {
			return m, nil, err
		}
	}
	if strings.EqualFold(name, "function_call") {
		if calls, ok := callsOfText(m.Content); ok {
			m.Content = ""
			m.Extra = append(m.Extra, chat.Field{Name: "tool_calls", Value: calls})
			return m, nil, nil
		}
		return m, []Note{NoteNotFunction}, nil
	}
	return m, nil, nil
}

// found is the name under which one of the fields stands in the file.
func (o object) found(fields ...string) string {
	_, name := o.get(fields...)
	return name
}

// extra collects the fields of a message beyond role and text, sorted by name
// so that one file always yields the same rows.
func (o object) extra() []chat.Field {
	var fields []chat.Field
	for _, key := range o.keys() {
		switch key {
		case "role", "from", "content", "value", "text", o.name("role"), o.name("from"), o.name("content"), o.name("value"):
			continue
		}
		if kindOf(o.fields[key]) != kindNull {
			fields = append(fields, chat.Field{Name: key, Value: o.fields[key]})
		}
	}
	return fields
}

// contentOf reads a message's text: a string, or OpenAI's list of parts as
// long as all of them are text.
func contentOf(raw json.RawMessage, path string) (string, *RowError) {
	if kindOf(raw) != kindList {
		return stringOf(raw, path)
	}
	parts, err := listOf(raw, path)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i, part := range parts {
		if kindOf(part) == kindString {
			s, err := stringOf(part, indexed(path, i))
			if err != nil {
				return "", err
			}
			b.WriteString(s)
			continue
		}
		var p struct {
			Type string  `json:"type"`
			Text *string `json:"text"`
		}
		if json.Unmarshal(part, &p) != nil || p.Text == nil {
			return "", rowErr(ReasonWrongType, indexed(path, i), "expected a text part, found type %q: only text can be trained on", clip(p.Type, 40))
		}
		b.WriteString(*p.Text)
	}
	return b.String(), nil
}

// FlattenTools rewrites a chat for a template that knows nothing of tools: a
// call becomes the assistant's text {"name": ..., "arguments": ...}, a result a
// user turn, and the list of functions goes into the system message. Chats
// without tools come back as they are.
func FlattenTools(messages []Message, tools json.RawMessage) []Message {
	uses := len(tools) > 0
	for _, m := range messages {
		uses = uses || m.Role == RoleTool || hasField(m, "tool_calls")
	}
	if !uses {
		return messages
	}
	flat := make([]Message, 0, len(messages)+1)
	if len(tools) > 0 {
		intro := "Functions that can be called, as JSON:\n" + string(tools)
		if len(messages) > 0 && messages[0].Role == RoleSystem {
			flat = append(flat, Message{Role: RoleSystem, Content: messages[0].Content + "\n\n" + intro})
			messages = messages[1:]
		} else {
			flat = append(flat, Message{Role: RoleSystem, Content: intro})
		}
	}
	for _, m := range messages {
		if m.Role == RoleTool {
			m.Role = RoleUser
		}
		if calls := fieldOf(m, "tool_calls"); calls != nil {
			m.Content = strings.TrimSpace(m.Content + "\n" + callsText(calls))
			m.Extra = without(m.Extra, "tool_calls")
		}
		// Two results in a row would be two user turns in a row.
		if n := len(flat); n > 0 && flat[n-1].Role == m.Role && m.Role == RoleUser {
			flat[n-1].Content += "\n" + m.Content
			continue
		}
		flat = append(flat, m)
	}
	return flat
}

// callsText writes tool_calls as lines of {"name": ..., "arguments": ...}.
func callsText(calls json.RawMessage) string {
	var list []struct {
		Function json.RawMessage `json:"function"`
	}
	if json.Unmarshal(calls, &list) != nil {
		return string(calls)
	}
	lines := make([]string, len(list))
	for i, c := range list {
		lines[i] = string(c.Function)
	}
	return strings.Join(lines, "\n")
}

// tidy judges the order of a chat's turns and repairs what has one plain
// reading: neighbours of one role are merged. Allowed is: a system message
// first, then user and assistant in turn, with tool results behind a call.
func tidy(messages []Message) ([]Message, []Note, *RowError) {
	var notes []Note
	out := make([]Message, 0, len(messages))
	for _, m := range messages {
		last := Message{}
		if len(out) > 0 {
			last = out[len(out)-1]
		}
		switch {
		case m.Role == RoleSystem && len(out) > 0 && last.Role != RoleSystem:
			notes = append(notes, NoteMiddleSystem)
		case m.Role == RoleSystem && m.Content == "" && len(m.Extra) == 0:
			continue // an empty system prompt is none
		case m.Role == RoleUser && strings.TrimSpace(m.Content) == "":
			notes = append(notes, NoteEmptyUser)
		case m.Role == RoleTool && last.Role != RoleAssistant && last.Role != RoleTool:
			return nil, nil, rowErr(ReasonRoles, "", "a tool's result follows no assistant turn")
		case m.Role == RoleAssistant && (len(out) == 0 || last.Role == RoleSystem):
			notes = append(notes, NoteLeadingAnswer)
		}
		if len(out) > 0 && last.Role == m.Role && m.Role != RoleTool && len(m.Extra) == 0 && len(last.Extra) == 0 {
			out[len(out)-1].Content = joinTexts(last.Content, m.Content)
			notes = append(notes, NoteMergedTurns)
			continue
		}
		out = append(out, m)
	}
	return out, notes, nil
}

// joinTexts puts two messages of one role into one, as paragraphs.
func joinTexts(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n\n" + b
}

// isEmptyAnswer says whether an assistant turn says nothing and calls nothing.
func isEmptyAnswer(m Message) bool {
	return strings.TrimSpace(m.Content) == "" && !hasField(m, "tool_calls")
}

func fieldOf(m Message, name string) json.RawMessage {
	for _, f := range m.Extra {
		if f.Name == name {
			return f.Value
		}
	}
	return nil
}

func hasField(m Message, name string) bool { return fieldOf(m, name) != nil }

func without(fields []chat.Field, name string) []chat.Field {
	var rest []chat.Field
	for _, f := range fields {
		if f.Name != name {
			rest = append(rest, f)
		}
	}
	return rest
}

// sortedKeys lists a map's keys in order.
func sortedKeys[K ~string, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
