package data

import (
	"encoding/json"
	"strings"

	"ringtail/chat"
)

// Calls of functions come in three forms: OpenAI's tool_calls with the
// arguments as JSON in a string, its older function_call, and ShareGPT's turn of
// the role function_call whose text is the call. Rows hold one: tool_calls, with
// the arguments as an object, which is what chat templates expect.

// toolCall is a call in that form.
type toolCall struct {
	ID       json.RawMessage `json:"id,omitempty"`
	Type     string          `json:"type"`
	Function callFunction    `json:"function"`
}

type callFunction struct {
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

// normalise makes an object of arguments that are written as a string. Text that
// isn't an object stays what it is: models write such, too.
func (f *callFunction) normalise() {
	if kindOf(f.Arguments) == kindString {
		var s string
		if json.Unmarshal(f.Arguments, &s) == nil {
			if raw := json.RawMessage(strings.TrimSpace(s)); kindOf(raw) == kindObject && json.Valid(raw) {
				f.Arguments = raw
			}
		}
	}
	if k := kindOf(f.Arguments); k == kindNone || k == kindNull {
		f.Arguments = json.RawMessage("{}")
	}
}

// parseCalls reads OpenAI's tool_calls; nil if the list is empty.
func parseCalls(raw json.RawMessage, path string) (json.RawMessage, *RowError) {
	items, err := listOf(raw, path)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	calls := make([]toolCall, len(items))
	for i, item := range items {
		at := indexed(path, i)
		o, err := parseObject(item, nil)
		if err != nil {
			err.Field = at
			return nil, err
		}
		o.path = at + "."
		function, found := o.get("function")
		if function == nil && o.has("name") { // some write the function's fields without the object around them
			function, found = item, "name"
		}
		if kindOf(function) != kindObject {
			return nil, o.missing("{name, arguments}", "function")
		}
		c := &calls[i]
		if json.Unmarshal(function, &c.Function) != nil || c.Function.Name == "" {
			return nil, rowErr(ReasonWrongType, o.path+found, "expected {name, arguments} with the name of a function")
		}
		c.Function.normalise()
		c.Type = "function"
		if id, _ := o.get("id"); kindOf(id) == kindString {
			c.ID = id
		}
	}
	return marshal(calls), nil
}

// callsOfText reads ShareGPT's function_call text, {"name": ..., "arguments": ...}
// or a list of these.
func callsOfText(text string) (json.RawMessage, bool) {
	raw := json.RawMessage(strings.TrimSpace(text))
	items := []json.RawMessage{raw}
	if kindOf(raw) == kindList {
		if json.Unmarshal(raw, &items) != nil || len(items) == 0 {
			return nil, false
		}
	}
	calls := make([]toolCall, len(items))
	for i, item := range items {
		calls[i].Type = "function"
		f := &calls[i].Function
		if kindOf(item) != kindObject || json.Unmarshal(item, f) != nil || f.Name == "" {
			return nil, false
		}
		f.normalise()
	}
	return marshal(calls), true
}

// normalExtra brings what a message has besides role and text into the form that
// rows have: calls as above, and a weight only where it is 0, which says that the
// answer isn't trained on (OpenAI; 1 is what holds anyway).
func (o object) normalExtra(m Message) ([]chat.Field, *RowError) {
	var out []chat.Field
	for _, f := range m.Extra {
		path := o.path + f.Name
		switch f.Name {
		case "tool_calls":
			calls, err := parseCalls(f.Value, path)
			if err != nil {
				return nil, err
			}
			if calls == nil {
				continue
			}
			f.Value = calls
		case "function_call":
			calls, err := parseCalls(json.RawMessage("["+string(f.Value)+"]"), path)
			if err != nil {
				return nil, err
			}
			f = chat.Field{Name: "tool_calls", Value: calls}
		case "weight":
			var w float64
			if json.Unmarshal(f.Value, &w) != nil || w != 0 && w != 1 {
				return nil, rowErr(ReasonWrongType, path, "expected 0 (the answer isn't trained on) or 1, found %s", clip(string(f.Value), 20))
			}
			if w == 1 || m.Role != RoleAssistant {
				continue
			}
			f.Value = json.RawMessage("0")
		}
		out = append(out, f)
	}
	return out, nil
}

// toolsOf reads the functions a chat may call: a list, or a list written as a
// string. OpenAI's older functions, and ShareGPT's lists, name the functions
// themselves; rows have {type, function} around each.
func toolsOf(o object) (json.RawMessage, *RowError) {
	raw, found := o.get("tools", "functions")
	if raw == nil {
		return nil, nil
	}
	if kindOf(raw) == kindString {
		s, err := stringOf(raw, o.path+found)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(s) == "" {
			return nil, nil
		}
		raw = json.RawMessage(strings.TrimSpace(s))
	}
	items, err := listOf(raw, o.path+found)
	if err != nil {
		return nil, rowErr(ReasonWrongType, o.path+found, "expected a JSON list of functions, or one written as a string")
	}
	if len(items) == 0 {
		return nil, nil
	}
	bare := false
	for i, item := range items {
		var f struct{ Name, Function json.RawMessage }
		if kindOf(item) == kindObject && json.Unmarshal(item, &f) == nil && f.Function == nil && kindOf(f.Name) == kindString {
			bare = true
			items[i] = marshal(struct {
				Type     string          `json:"type"`
				Function json.RawMessage `json:"function"`
			}{"function", item})
		}
	}
	if bare {
		return marshal(items), nil
	}
	return raw, nil
}
