package chat

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestColossalChatSpace: what the model is given before an answer is a prefix of the row it was trained on, and all of
// the answer is trained; without a BOS token the space in front belongs to the answer.
func TestColossalChatSpace(t *testing.T) {
	tmpl, err := Builtin("colossalchat")
	if err != nil {
		t.Fatal(err)
	}
	question := []Message{{Role: "user", Content: "a"}}
	for bos, want := range map[string][2]string{"<s>": {"<s>Human: <s>a</s>Assistant: <s>", "b</s>"}, "": {"Human: a</s>Assistant:", " b</s>"}} {
		opts := RenderOptions{BOS: bos, EOS: "</s>"}
		r, err := tmpl.RenderSpans(append(question, Message{Role: "assistant", Content: "b"}), opts)
		if err != nil {
			t.Fatal(err)
		}
		opts.AddGenerationPrompt = true
		prompt, err := tmpl.Render(question, opts)
		if err != nil {
			t.Fatal(err)
		}
		if prompt != want[0] || r.Text != want[0]+want[1] {
			t.Errorf("BOS %q: prompt %q, row %q, want %q and then %q", bos, prompt, r.Text, want[0], want[1])
		}
		if len(r.Trained) != 1 || r.Text[r.Trained[0].Start:r.Trained[0].End] != want[1] {
			t.Errorf("BOS %q: trained %v of %q, want %q", bos, r.Trained, r.Text, want[1])
		}
	}
}

// TestBuiltins: every built-in template is what its description says, by each of its names, and trains on the answers.
func TestBuiltins(t *testing.T) {
	for _, info := range Builtins() {
		t.Run(info.Name, func(t *testing.T) {
			opts := RenderOptions{BOS: "<s>", EOS: "</s>"}
			if info.Name == "colossalchat-deepseek-v2-lite" { // its stop is the tokenizer's EOS
				opts.EOS = info.Stop
			}
			tmpl := mustBuiltin(t, info.Name)
			for _, alias := range append([]string{strings.ToUpper(info.Name)}, info.Aliases...) {
				if other, err := Builtin(alias); err != nil || other != tmpl || !IsBuiltin(alias) {
					t.Errorf("%s is another template, or none: %v", alias, err)
				}
			}
			stop := info.Stop
			if stop == "" {
				stop = opts.EOS
			}
			if got := tmpl.Stops(opts); !slices.Equal(got, []string{stop}) {
				t.Errorf("stops %q, want %q", got, stop)
			}
			text, err := tmpl.Render([]Message{user("hi"), bot("yo")}, opts)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(text, strings.TrimSpace(info.System)) {
				t.Errorf("no system message %q in %q", info.System, text)
			}
			if with, err := tmpl.Render([]Message{sys("Be kind."), user("hi"), bot("yo")}, opts); err == nil &&
				(!strings.Contains(with, "Be kind.") || info.System != "" && strings.Contains(with, strings.TrimSpace(info.System))) {
				t.Errorf("the chat's own system message isn't taken: %q", with)
			}
			if info.Stop != "<|endoftext|>" { // ColossalChat's Qwen2.5-3B, which ends answers with another token than it says
				checkTurns(t, tmpl, opts)
			}
			if _, err := tmpl.RenderSpans(nil, opts); err != nil && !errors.Is(err, ErrNothingTrained) {
				t.Errorf("an empty chat: %v", err)
			}
		})
	}
	if _, err := Builtin("chatlm"); err == nil || !strings.Contains(err.Error(), "chatml, colossalchat") {
		t.Errorf("got %v, want an error that lists the names", err)
	}
}

// TestBuiltinTools: Qwen's templates show functions and calls, and a call is trained on as it is written.
func TestBuiltinTools(t *testing.T) {
	call := Message{Role: "assistant", Extra: []Field{{"content", []byte("null")}, {"tool_calls", []byte(`[{"function":{"name":"add","arguments":{"a":1}}}]`)}}}
	chat := []Message{user("1+1?"), call, {Role: "tool", Content: "2"}, bot("Two.")}
	for name, want := range map[string][]string{
		"qwen25": {"<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call><|im_end|>", "Two.<|im_end|>"},
		"qwen3":  {"<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call><|im_end|>", "<think>\n\n</think>\n\nTwo.<|im_end|>"},
	} {
		tmpl := mustBuiltin(t, name)
		r, err := tmpl.RenderSpans(chat, RenderOptions{Tools: []byte(`[{"type":"function","function":{"name":"add"}}]`)})
		if err != nil {
			t.Fatal(err)
		}
		if got := texts(r, r.Trained); !slices.Equal(got, want) {
			t.Errorf("%s: trained %q, want %q", name, got, want)
		}
		if !strings.Contains(r.Text, `{"type": "function", "function": {"name": "add"}}`) || !strings.Contains(r.Text, "<tool_response>\n2\n</tool_response>") {
			t.Errorf("%s: %q", name, r.Text)
		}
	}
	for _, name := range BuiltinNames() {
		if got, want := mustBuiltin(t, name).ShowsTools(), strings.HasPrefix(name, "qwen"); got != want {
			t.Errorf("%s shows tools: %t", name, got)
		}
	}
}
