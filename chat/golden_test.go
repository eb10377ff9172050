package chat

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"ringtail/golden"
)

type goldenCase struct {
	Name                string
	Template            string
	Messages            []json.RawMessage
	AddGenerationPrompt bool `json:"add_generation_prompt"`
	Rendered            *string
	Error               *string // "" if the rendering fails by itself rather than by raise_exception

	// Optional: what else the template is given, and the texts of its generation blocks (oracle/chat_templates.py).
	Tools, Documents, Vars json.RawMessage
	Tokens                 map[string]string
	Now                    time.Time
	Trained                *[]string
}

// options are the variables of the case besides the messages.
func (c goldenCase) options(t *testing.T) RenderOptions {
	o := RenderOptions{AddGenerationPrompt: c.AddGenerationPrompt, BOS: "<s>", EOS: "</s>", Tools: c.Tools, Documents: c.Documents, Now: c.Now}
	if c.Tokens != nil {
		o.BOS, o.EOS, o.PAD, o.UNK = c.Tokens["bos_token"], c.Tokens["eos_token"], c.Tokens["pad_token"], c.Tokens["unk_token"]
	}
	if c.Vars != nil {
		o.Vars = parseFields(t, c.Vars)
	}
	return o
}

func TestGoldenChatTemplates(t *testing.T) {
	data, err := os.ReadFile(golden.Find(t, "chat_templates.json")[0])
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	byName := map[string][]goldenCase{}
	var names []string
	for _, c := range cases {
		if byName[c.Name] == nil {
			names = append(names, c.Name)
		}
		byName[c.Name] = append(byName[c.Name], c)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			for i, c := range byName[name] {
				t.Run(fmt.Sprint(i), func(t *testing.T) { checkGolden(t, c) })
			}
		})
	}
}

func checkGolden(t *testing.T, c goldenCase) {
	messages, opts := parseMessages(t, c.Messages), c.options(t)
	var got string
	tmpl, err := New(c.Name, c.Template)
	if err == nil {
		got, err = tmpl.Render(messages, opts)
	}
	switch {
	case c.Error != nil && (err == nil || !strings.Contains(err.Error(), *c.Error)):
		t.Errorf("got %q and error %v, want an error with %q", got, err, *c.Error)
	case c.Error == nil && err != nil:
		t.Errorf("got error %v, want %q", err, *c.Rendered)
	case c.Error == nil && got != *c.Rendered:
		t.Errorf("got  %q\nwant %q", got, *c.Rendered)
	}
}

// parseFields reads a JSON object in its order.
func parseFields(t *testing.T, object json.RawMessage) []Field {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(object)))
	if _, err := dec.Token(); err != nil {
		t.Fatal(err)
	}
	var fields []Field
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		fields = append(fields, Field{key.(string), value})
	}
	return fields
}

// parseMessages reads messages as JSON objects; fields besides role and content become Extra, in their order.
func parseMessages(t *testing.T, objects []json.RawMessage) []Message {
	t.Helper()
	var messages []Message
	for _, object := range objects {
		var m Message
		for _, f := range parseFields(t, object) {
			var err error
			switch {
			case f.Name == "role":
				err = json.Unmarshal(f.Value, &m.Role)
			case f.Name == "content" && len(f.Value) > 0 && f.Value[0] == '"':
				err = json.Unmarshal(f.Value, &m.Content)
			default:
				m.Extra = append(m.Extra, f)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		messages = append(messages, m)
	}
	return messages
}
