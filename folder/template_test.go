package folder

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/chat"
	"ringtail/tokenizer"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTemplateNames: all that a recipe or flag may give for a template.
func TestTemplateNames(t *testing.T) {
	dir := t.TempDir()
	own := chatML
	own.ChatTemplate = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
	model := tokenizerFolder(t, own)
	other := tokenizerFolder(t, tokenizer.TrainOptions{ChatTemplate: "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"})
	conversation := func(name, template string) string {
		return write(t, filepath.Join(dir, name), `{"chat_template": `+template+`, "system_message": "S", "stop_ids": [], "end_of_assistant": "<|im_end|>"}`)
	}
	if err := os.Symlink(other, filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		"chatml":         "<|im_start|>user\nhi<|im_end|>\n",
		"ChatML":         "<|im_start|>user\nhi<|im_end|>\n",
		"qwen2.5":        "<|im_start|>user\nhi<|im_end|>\n",
		dir + "/qwen2.5": "<|im_start|>user\nhi<|im_end|>\n", // a recipe makes it relative to itself
		write(t, filepath.Join(dir, "a.jinja"), "{{ messages[0].content }}!"):                            "hi!",
		conversation("jinja.json", `"{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}"`): "system=S;user=hi;",
		conversation("null.json", "null"):                                                                "[system]S[user]hi",
		conversation("path.json", `"other"`):                                                             "<system>S<user>hi",
		other:                                                                                            "<user>hi",
	} {
		x := open(t, model, "", spec)
		got, err := x.Template.Render([]chat.Message{{Role: "user", Content: "hi"}}, x.render())
		if err != nil || !strings.HasSuffix(got, want) {
			t.Errorf("%s: renders %q, %v; want %q", spec, got, err, want)
		}
	}
	for spec, want := range map[string]string{
		"chatlm":                      `chat template "chatlm": there is no built-in template of that name`,
		dir + "/none.jinja":           "no such file; give a Jinja file, a conversation template (.json), a model folder, or one of alpaca, chatml",
		t.TempDir():                   "tokenizer",
		conversation("bad.json", "3"): "bad.json: chat_template is 3, expected a string or null",
		conversation("hub.json", `"THUDM/chatglm3-6b"`):                                 `hub.json: chat_template is "THUDM/chatglm3-6b", expected Jinja or a model folder`,
		write(t, filepath.Join(dir, "syntax.jinja"), "a\n{% foo %}"):                    "syntax.jinja, line 2: unknown tag 'foo'",
		write(t, filepath.Join(dir, "large.jinja"), strings.Repeat("x", maxTemplate+1)): "expected at most",
	} {
		_, err := Open(model, "", spec)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q in one line", spec, err, want)
		}
	}
	plain := tokenizerFolder(t, chatML)
	if _, err := Open(plain, "", filepath.Join(dir, "null.json")); err == nil || !strings.Contains(err.Error(), "the model has no template of its own") {
		t.Errorf("no template anywhere: %v", err)
	}
}

// TestConversationStops: end_of_assistant and stop_ids as ids where they are tokens, else as text.
func TestConversationStops(t *testing.T) {
	model := tokenizerFolder(t, chatML) // <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2
	tok, err := OpenTokenizer(model)
	if err != nil {
		t.Fatal(err)
	}
	word := tok.Encode("zq", tokenizer.EncodeOptions{})
	ids := make([]string, len(word))
	for i, id := range word {
		ids[i] = string(rune('0'+id/100)) + string(rune('0'+id/10%10)) + string(rune('0'+id%10))
		ids[i] = strings.TrimLeft(ids[i], "0")
	}
	for _, c := range []struct {
		stopIDs, end string
		ids          []int32
		text         []string
	}{
		{"null", "<|im_end|>", []int32{0, 2}, nil},
		{"[1, 2]", "<|im_end|>", []int32{0, 2, 1}, nil},
		{"[[1]]", "END", []int32{0, 1}, []string{"END"}},
		{"[" + strings.Join(ids, ",") + "]", "<|im_end|>", []int32{0, 2}, []string{"zq"}},
	} {
		file := write(t, filepath.Join(t.TempDir(), "c.json"), `{"chat_template": "{{ messages[0].content }}", "stop_ids": `+c.stopIDs+`, "end_of_assistant": "`+c.end+`"}`)
		x := open(t, model, "", file)
		if !slices.Equal(x.StopIDs(), c.ids) || !slices.Equal(x.StopText(), c.text) {
			t.Errorf("stop_ids %s, end %s: %v %q, want %v %q", c.stopIDs, c.end, x.StopIDs(), x.StopText(), c.ids, c.text)
		}
	}
	file := write(t, filepath.Join(t.TempDir(), "c.json"), `{"chat_template": "{{ 1 }}", "stop_ids": 151645, "end_of_assistant": "x"}`)
	if _, err := Open(model, "", file); err == nil || !strings.Contains(err.Error(), "stop_ids holds 151645, but the tokenizer has") {
		t.Errorf("another model's stop_ids: %v", err)
	}
}

// TestPromptVariables: tools, documents and variables reach the template.
func TestPromptVariables(t *testing.T) {
	x := open(t, tokenizerFolder(t, chatML), "", "qwen3")
	ids, err := x.EncodePromptWith([]chat.Message{{Role: "user", Content: "hi"}}, chat.RenderOptions{
		Tools: []byte(`[{"name": "f"}]`), Vars: []chat.Field{{Name: "enable_thinking", Value: []byte("false")}}})
	if err != nil {
		t.Fatal(err)
	}
	text := x.Tokenizer.Decode(ids, false)
	if !strings.Contains(text, `<tools>
{"name": "f"}
</tools>`) || !strings.HasSuffix(text, "<|im_start|>assistant\n<think>\n\n</think>\n\n") {
		t.Errorf("%q", text)
	}
	file := write(t, filepath.Join(t.TempDir(), "d.jinja"), "{{ documents[0].title }}")
	ids, err = open(t, tokenizerFolder(t, chatML), "", file).EncodePromptWith([]chat.Message{{Role: "user", Content: "hi"}},
		chat.RenderOptions{Documents: []byte(`[{"title": "hello"}]`)})
	if err != nil || x.Tokenizer.Decode(ids, false) != "hello" {
		t.Errorf("%v, %v", ids, err)
	}
}
