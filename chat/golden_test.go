package chat

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"ringtail/golden"
)

type goldenCase struct {
	Name                string
	Template            string
	Messages            []json.RawMessage
	AddGenerationPrompt bool `json:"add_generation_prompt"`
	Rendered            *string
	Error               *string
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
	tmpl, err := New(c.Name, c.Template)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tmpl.Render(parseMessages(t, c.Messages), RenderOptions{
		AddGenerationPrompt: c.AddGenerationPrompt, BOS: "<s>", EOS: "</s>",
	})
	switch {
	case c.Error != nil && (err == nil || !strings.Contains(err.Error(), *c.Error)):
		t.Errorf("got %q and error %v, want an error with %q", got, err, *c.Error)
	case c.Error == nil && err != nil:
		t.Errorf("got error %v, want %q", err, *c.Rendered)
	case c.Error == nil && got != *c.Rendered:
		t.Errorf("got  %q\nwant %q", got, *c.Rendered)
	}
}

// parseMessages reads messages as JSON objects; fields besides role and content become Extra, in their order.
func parseMessages(t *testing.T, objects []json.RawMessage) []Message {
	t.Helper()
	var messages []Message
	for _, object := range objects {
		dec := json.NewDecoder(strings.NewReader(string(object)))
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		var m Message
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				t.Fatal(err)
			}
			isString := len(value) > 0 && value[0] == '"'
			switch {
			case key == "role":
				err = json.Unmarshal(value, &m.Role)
			case key == "content" && isString:
				err = json.Unmarshal(value, &m.Content)
			default:
				m.Extra = append(m.Extra, Field{key.(string), value})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		messages = append(messages, m)
	}
	return messages
}
