package chat

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

const humanForm = `{
  "chat_template": "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% else %}{{ ('Q: ' if m.role == 'user' else 'A: ') ~ m.content ~ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
  "system_message": "Say \"hi\"\\ to 你\n\n",
  "stop_ids": [2],
  "end_of_assistant": "</s>",
  "response_format_tags": {"think_start": {"text": "<think>", "num_occur": 1}}
}`

func parseConversation(t *testing.T, text string) *Template {
	t.Helper()
	c, err := ParseConversation("mine.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	tmpl, err := c.Template(c.ChatTemplate)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestConversation(t *testing.T) {
	tmpl := parseConversation(t, humanForm)
	opts := RenderOptions{EOS: "</s>"}
	r, err := tmpl.RenderSpans([]Message{user("a</s>"), bot("b</s>c"), user("d"), bot("")}, opts)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Say \"hi\"\\ to 你\n\nQ: a</s></s>A: b</s>c</s>Q: d</s>A: </s>"; r.Text != want {
		t.Errorf("got  %q\nwant %q", r.Text, want)
	}
	// The space before an answer is trained, and an end that was typed isn't taken for one.
	if got, want := texts(r, r.Trained), []string{" b</s>c</s>", " </s>"}; !slices.Equal(got, want) {
		t.Errorf("trained %q, want %q", got, want)
	}
	own, err := tmpl.Render([]Message{sys("S|"), user("a")}, opts)
	if err != nil || own != "S|Q: a</s>" {
		t.Errorf("with a system message of its own: %q, %v", own, err)
	}
	if got := tmpl.Stops(opts); !slices.Equal(got, []string{"</s>"}) {
		t.Errorf("stops %q", got)
	}
	if got := tmpl.StopIDs(); !reflect.DeepEqual(got, [][]int32{{2}}) {
		t.Errorf("stop ids %v", got)
	}
	// What is saved is Jinja that says the system message itself.
	saved := mustNew(t, "saved", tmpl.Text())
	text, err := saved.Render([]Message{user("a")}, opts)
	if err != nil || text != "Say \"hi\"\\ to 你\n\nQ: a</s>" {
		t.Errorf("saved: %q, %v", text, err)
	}
}

// TestConversationEnd: an answer that no end follows before the next message is trained alone; an end in the next
// turn's header counts.
func TestConversationEnd(t *testing.T) {
	chat := []Message{user("a"), bot("b"), user("c</e>"), bot("d")}
	for end, want := range map[string][]string{
		"<|user|>": {" b<|user|>", " d"},
		"</e>":     {" b", " d"},
	} {
		tmpl := parseConversation(t, `{"chat_template": "{% for m in messages %}<|{{ m.role }}|> {{ m.content }}{% endfor %}", "end_of_assistant": "`+end+`"}`)
		r, err := tmpl.RenderSpans(chat, RenderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := texts(r, r.Trained); !slices.Equal(got, want) {
			t.Errorf("%s: trained %q, want %q", end, got, want)
		}
	}
}

// TestSystemKeepsWhitespace: the system message's line before a template changes nothing of what the template prints.
func TestSystemKeepsWhitespace(t *testing.T) {
	for _, text := range []string{"  {% if 1 %}a{% endif %}", "\n\n{{ 1 }}", "  x", " {#- c #} y", "{{- 1 }}", "\n  {%- if 1 %} z{% endif %}"} {
		tmpl, err := newConversation("t", text, "S", "</s>")
		if err != nil {
			t.Fatal(err)
		}
		got, err := tmpl.Render(nil, RenderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if want, err := mustNew(t, "t", text).Render(nil, RenderOptions{}); err != nil || got != want {
			t.Errorf("%q gives %q behind a system message, %q without", text, got, want)
		}
	}
}

func TestConversationErrors(t *testing.T) {
	for text, want := range map[string]string{
		`nope`:                      "mine.json: not a conversation template, expected a JSON object",
		`[]`:                        "mine.json: not a conversation template",
		`{"chat_template": "{{ 1"}`: `mine.json: end_of_assistant is missing, expected the text that ends an answer`,
		`{"end_of_assistant": 3}`:   "mine.json: end_of_assistant is 3, expected a string or null",
		`{"end_of_assistant": "x", "system_message": false}`:                                      "mine.json: system_message is false, expected a string or null",
		`{"end_of_assistant": "x", "chat_template": ["a"]}`:                                       `mine.json: chat_template is ["a"], expected a string or null`,
		`{"end_of_assistant": "x", "stop_ids": "2"}`:                                              `mine.json: stop_ids is "2", expected a token id, a list of ids, or a list of such lists`,
		`{"end_of_assistant": "x", "stop_ids": [-1]}`:                                             "mine.json: stop_ids is [-1], expected a token id",
		`{"end_of_assistant": "x", "stop_ids": [1e99]}`:                                           "mine.json: stop_ids is [1e99], expected a token id",
		`{"end_of_assistant": "x", "system_message": "s", "chat_template": "a\n{% foo %}"}`:       "chat template mine.json, line 2: unknown tag 'foo'",
		`{"end_of_assistant": "x", "system_message": "s", "chat_template": "a\n\n{{ x.y }}"}`:     "chat template mine.json, line 3: 'x' is undefined",
		`{"end_of_assistant": "x", "chat_template": "a\n\n{{ raise_exception('no ' ~ 'way') }}"}`: "chat template mine.json, line 3: no way",
	} {
		c, err := ParseConversation("mine.json", []byte(text))
		var tmpl *Template
		if err == nil {
			tmpl, err = c.Template(c.ChatTemplate)
		}
		if err == nil {
			_, err = tmpl.Render([]Message{user("a")}, RenderOptions{})
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\n got  %v\n want %s", text, err, want)
		}
	}
	for text, want := range map[string][][]int32{"2": {{2}}, "[1,2]": {{1, 2}}, "[[1],[2,3]]": {{1}, {2, 3}}, "null": nil, "[]": nil} {
		c, err := ParseConversation("mine.json", []byte("\ufeff"+`{"end_of_assistant": "x", "stop_ids": `+text+`}`))
		if err != nil || !reflect.DeepEqual(c.StopIDs, want) {
			t.Errorf("stop_ids %s: got %v, %v", text, c, err)
		}
	}
}

func FuzzParseConversation(f *testing.F) {
	f.Add(humanForm)
	f.Add(`{"end_of_assistant":"x","stop_ids":[[1],[2]],"system_message":"\u2028\u0000\"'}}%}","chat_template":"{{ messages | length }}"}`)
	f.Add(`{"end_of_assistant":"x","chat_template":"THUDM/chatglm3-6b"}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConversation("f", []byte(text))
		if err != nil {
			return
		}
		tmpl, err := c.Template("{{ messages[0].content }}")
		if err != nil {
			t.Fatalf("system message %q breaks the template: %v", c.System, err)
		}
		got, err := tmpl.Render(nil, RenderOptions{})
		want := strings.ReplaceAll(c.System, "\r\n", "\n")
		if c.HasSystem && c.System != "" && (err != nil || got != want && got != c.System) {
			t.Fatalf("system message %q became %q, %v", c.System, got, err)
		}
	})
}
