package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
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

	// Optional: what else the template is given, and where its generation blocks are (oracle/chat_templates.py).
	Tools, Documents, Vars json.RawMessage
	Tokens                 map[string]string
	Now                    time.Time
	Trained                *[][2]int // in code points
	Conversation           json.RawMessage
	Builtin                string
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

// TestBuiltinsInTransformers: the built-in templates with generation blocks render in transformers as here, and mask the
// same text. In chat/templates,
//
//	python ../../oracle/chat_templates.py --golden ../testdata --cases 8 chatml.jinja deepseek.jinja phi4.jinja qwen25.jinja qwen3.jinja zephyr.jinja
func TestBuiltinsInTransformers(t *testing.T) {
	data, err := os.ReadFile("testdata/chat_templates.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for i, c := range cases {
		t.Run(fmt.Sprintf("%s/%d", c.Name, i), func(t *testing.T) {
			if mustBuiltin(t, c.Name).Text() != c.Template {
				t.Fatal("the template has changed since the cases were made")
			}
			checkGolden(t, c)
		})
	}
}

func checkGolden(t *testing.T, c goldenCase) {
	tmpl, err := New(c.Name, c.Template)
	if c.Conversation != nil {
		var conv *Conversation
		if conv, err = ParseConversation(c.Name, c.Conversation); err == nil {
			tmpl, err = conv.Template(conv.ChatTemplate)
		}
	}
	checkCase(t, c, tmpl, err)
	if c.Builtin != "" {
		tmpl, err := Builtin(c.Builtin)
		if c.Error != nil { // it may say it otherwise, or render more
			return
		}
		checkCase(t, c, tmpl, err)
	}
}

// checkCase checks a template that was compiled with the given result.
func checkCase(t *testing.T, c goldenCase, tmpl *Template, err error) {
	t.Helper()
	messages, opts := parseMessages(t, c.Messages), c.options(t)
	var got string
	if err == nil {
		got, err = tmpl.Render(messages, opts)
	}
	switch {
	case c.Error != nil && (err == nil || !strings.Contains(err.Error(), *c.Error)):
		t.Errorf("got %q and error %v, want an error with %q", got, err, *c.Error)
	case c.Error == nil && err != nil:
		t.Errorf("%s: got error %v, want %q", name(tmpl, c), err, *c.Rendered)
	case c.Error == nil && got != *c.Rendered:
		t.Errorf("%s:\ngot  %q\nwant %q", tmpl.Name(), got, *c.Rendered)
	case c.Error == nil:
		r, err := tmpl.RenderSpans(messages, opts)
		if err != nil && !errors.Is(err, ErrNothingTrained) && !errors.Is(err, ErrAllTrained) {
			t.Fatal(err)
		}
		if r.Text != got {
			t.Errorf("RenderSpans gives %q, Render %q", r.Text, got)
		}
		if c.Trained != nil {
			checkBlocks(t, r, *c.Trained)
		} else if !tmpl.program.HasGeneration() {
			checkSpans(t, r, messages)
		}
	}
}

func name(tmpl *Template, c goldenCase) string {
	if tmpl == nil {
		return c.Name
	}
	return tmpl.Name()
}

// checkBlocks compares trained bytes with transformers' generation blocks, which are counted in code points.
func checkBlocks(t *testing.T, r Rendering, blocks [][2]int) {
	t.Helper()
	var offsets []int
	for i := range r.Text {
		offsets = append(offsets, i)
	}
	offsets = append(offsets, len(r.Text))
	want := make([]bool, len(r.Text))
	for _, b := range blocks {
		for i := offsets[b[0]]; i < offsets[b[1]]; i++ {
			want[i] = true
		}
	}
	got := make([]bool, len(r.Text))
	for _, s := range r.Trained {
		for i := s.Start; i < s.End; i++ {
			got[i] = true
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("trained %q in %q, transformers' blocks are %v", texts(r, r.Trained), r.Text, blocks)
	}
}

// checkSpans checks what holds of derived spans under any template: they are in order and apart, each belongs to an
// assistant's message, and no byte of anything else that was given is trained.
func checkSpans(t *testing.T, r Rendering, messages []Message) {
	t.Helper()
	end := 0
	for _, s := range r.Trained {
		if s.Start < end || s.Start >= s.End || s.End > len(r.Text) {
			t.Fatalf("spans %v of a text of %d bytes", r.Trained, len(r.Text))
		}
		end = s.End
		if s.Message < 0 || messages[s.Message].Role != "assistant" {
			t.Errorf("%q belongs to no assistant's message", r.Text[s.Start:s.End])
		}
		for _, c := range r.Content {
			if c.Message != s.Message && c.Start < s.End && s.Start < c.End {
				t.Errorf("trained %q holds %q, of message %d", r.Text[s.Start:s.End], r.Text[c.Start:c.End], c.Message)
			}
		}
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
