package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"ringtail/chat/jinja"
)

// Template is a compiled chat template. It is immutable, and safe for concurrent use.
type Template struct {
	name    string
	text    string
	program *jinja.Template
	// Of a conversation template of ColossalChat's; see ParseConversation.
	endOfAssistant string
	stopIDs        [][]int32
	addedLines     int // lines of text that aren't in the file
}

// New compiles a chat template. The name, such as the file that the text is from, appears in errors.
func New(name, text string) (*Template, error) {
	program, err := jinja.Parse(name, text)
	if err != nil {
		return nil, fmt.Errorf("chat %w", err)
	}
	return &Template{name: name, text: text, program: program}, nil
}

// Name is the name that the template was compiled under.
func (t *Template) Name() string { return t.name }

// Text is the Jinja source, as it belongs into chat_template.jinja.
func (t *Template) Text() string { return t.text }

// StopIDs are the sequences of token ids that a conversation template of ColossalChat's names as ends of an answer.
func (t *Template) StopIDs() [][]int32 { return t.stopIDs }

// ShowsTools tells whether the template shows an assistant's calls of functions.
func (t *Template) ShowsTools() bool {
	if !strings.Contains(t.text, "tool_calls") {
		return false
	}
	for _, tools := range []json.RawMessage{nil, json.RawMessage("[]")} {
		text, err := t.Render([]Message{{Role: "user", Content: probeUser}, {Role: "assistant", Extra: probeCalls}}, RenderOptions{BOS: "<s>", EOS: "</s>", Tools: tools})
		if err == nil && strings.Contains(text, probeArgument) {
			return true
		}
	}
	return false
}

// Render renders a conversation to text.
func (t *Template) Render(messages []Message, opts RenderOptions) (string, error) {
	c, err := t.prepare(messages, opts)
	if err != nil {
		return "", err
	}
	s, err := c.render(len(messages), opts.AddGenerationPrompt)
	return s.Text, err
}

// originOther marks data that belongs to no message: tools and variables.
const originOther = 1 << 30

// conversation is a chat made into template values, of which prefixes can be rendered.
type conversation struct {
	template *Template
	messages []Message
	values   []jinja.Value
	vars     []variable
	opts     RenderOptions
}

type variable struct {
	name  string
	value jinja.Value
}

func (t *Template) prepare(messages []Message, opts RenderOptions) (*conversation, error) {
	c := &conversation{template: t, messages: messages, opts: opts}
	for i, m := range messages {
		v, err := messageValue(m, i)
		if err != nil {
			return nil, fmt.Errorf("chat template %s: message %d: %w", t.name, i+1, err)
		}
		c.values = append(c.values, v)
	}
	for _, f := range opts.Vars {
		v, err := jinja.ParseJSON(f.Value, originOther)
		if err != nil {
			return nil, fmt.Errorf("chat template %s: variable %s: %w", t.name, f.Name, err)
		}
		c.vars = append(c.vars, variable{f.Name, v})
	}
	for _, token := range []struct{ name, text string }{
		{"bos_token", opts.BOS}, {"eos_token", opts.EOS}, {"pad_token", opts.PAD}, {"unk_token", opts.UNK},
	} {
		if token.text != "" {
			c.vars = append(c.vars, variable{token.name, jinja.String(token.text)})
		}
	}
	for _, list := range []Field{{"tools", opts.Tools}, {"documents", opts.Documents}} {
		v, err := fieldValue(list.Value, originOther)
		if err != nil {
			return nil, fmt.Errorf("chat template %s: %s: %w", t.name, list.Name, err)
		}
		c.vars = append(c.vars, variable{list.Name, v})
	}
	return c, nil
}

// messageValue makes the dict that templates see. All of it is data but the role, which is checked instead: it is
// what templates compare and write between control tokens.
func messageValue(m Message, index int) (jinja.Value, error) {
	if m.Role == "" || strings.ContainsFunc(m.Role, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-. ", r)
	}) {
		return nil, fmt.Errorf("role %.40q: expected a word such as user, assistant, system or tool", m.Role)
	}
	d := jinja.NewDict()
	d.Set("role", jinja.String(m.Role))
	d.Set("content", jinja.DataString(m.Content, index))
	for _, f := range m.Extra {
		if f.Name == "role" {
			return nil, fmt.Errorf("a second field \"role\"")
		}
		v, err := fieldValue(f.Value, index)
		if err != nil {
			return nil, fmt.Errorf("field %.40q: %w", f.Name, err)
		}
		d.Set(f.Name, v)
	}
	return d, nil
}

func fieldValue(text json.RawMessage, origin int) (jinja.Value, error) {
	if len(text) == 0 {
		return jinja.None{}, nil
	}
	return jinja.ParseJSON(text, origin)
}

// render renders the first n messages.
func (c *conversation) render(n int, addGenerationPrompt bool) (jinja.Str, error) {
	vars := jinja.NewDict()
	for _, v := range c.vars {
		vars.Set(v.name, v.value)
	}
	vars.Set("messages", jinja.NewList(c.values[:n:n]...))
	vars.Set("add_generation_prompt", jinja.Bool(addGenerationPrompt))
	s, err := c.template.program.Render(vars, jinja.Options{Limits: c.opts.Limits, Now: c.opts.Now})
	if err != nil {
		if e := new(*jinja.Error); errors.As(err, e) && (*e).Line > c.template.addedLines {
			located := **e
			located.Line -= c.template.addedLines
			err = &located
		}
		return jinja.Str{}, fmt.Errorf("chat %w", err)
	}
	return s, nil
}
