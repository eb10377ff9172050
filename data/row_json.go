package data

import (
	"bytes"
	"encoding/json"
)

// jsonObject writes an object field by field, in order.
type jsonObject struct{ bytes.Buffer }

func (o *jsonObject) field(name string, value any) {
	if o.Len() == 0 {
		o.WriteByte('{')
	} else {
		o.WriteByte(',')
	}
	o.Write(marshal(name))
	o.WriteByte(':')
	o.Write(marshal(value))
}

func (o *jsonObject) end() json.RawMessage {
	if o.Len() == 0 {
		return json.RawMessage("{}")
	}
	o.WriteByte('}')
	return o.Bytes()
}

// MarshalJSON is the normal form of a row, as `ringtail data show --json` prints
// it: where it stands, what format it had, and of the fields of Row those that
// are set. Messages are objects of role, content and what else they have;
// answers of a ranking have rank, score and messages; tokens have input_ids and,
// unless they are a prompt, labels, with IgnoreLabel where a token isn't trained
// on.
func (r Row) MarshalJSON() ([]byte, error) {
	var o jsonObject
	o.field("where", r.Where)
	o.field("format", r.Format)
	if len(r.Messages) > 0 {
		o.field("messages", messagesJSON(r.Messages))
	}
	if r.Text != "" {
		o.field("text", r.Text)
	}
	if r.Chosen != nil {
		o.field("chosen", messagesJSON(r.Chosen))
		o.field("rejected", messagesJSON(r.Rejected))
	}
	if r.Ranked != nil {
		list := make([]json.RawMessage, len(r.Ranked))
		for i, answer := range r.Ranked {
			var a jsonObject
			a.field("rank", r.Ranks[i])
			if r.Scores != nil {
				a.field("score", r.Scores[i])
			}
			a.field("messages", messagesJSON(answer))
			list[i] = a.end()
		}
		o.field("ranked", list)
	}
	if r.Label != nil {
		o.field("label", *r.Label)
	}
	if r.Margin != 0 {
		o.field("margin", r.Margin)
	}
	if r.Tools != nil {
		o.field("tools", r.Tools)
	}
	for _, f := range []struct{ name, text string }{{"reference", r.Reference}, {"category", r.Category}} {
		if f.text != "" {
			o.field(f.name, f.text)
		}
	}
	if r.TestCases != nil {
		o.field("test_cases", r.TestCases)
	}
	if len(r.Tokens) > 0 {
		list := make([]json.RawMessage, len(r.Tokens))
		for i, t := range r.Tokens {
			var one jsonObject
			one.field("input_ids", t.IDs)
			if t.Trained != nil {
				labels := make([]int32, len(t.IDs))
				for k, id := range t.IDs {
					if labels[k] = IgnoreLabel; t.Trained[k] {
						labels[k] = id
					}
				}
				one.field("labels", labels)
			}
			list[i] = one.end()
		}
		o.field("tokens", list)
	}
	if len(r.Notes) > 0 {
		o.field("notes", r.Notes)
	}
	return o.end(), nil
}

func messagesJSON(messages []Message) []json.RawMessage {
	list := make([]json.RawMessage, len(messages))
	for i, m := range messages {
		var o jsonObject
		o.field("role", m.Role)
		o.field("content", m.Content)
		for _, f := range m.Extra {
			if f.Name != "role" && f.Name != "content" {
				o.field(f.Name, f.Value)
			}
		}
		list[i] = o.end()
	}
	return list
}
