package folder

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/chat"
	"ringtail/data"
	"ringtail/tokenizer"
)

// tokenizerFolder makes a folder with a tokenizer of special tokens and bytes.
func tokenizerFolder(t *testing.T, o tokenizer.TrainOptions) string {
	t.Helper()
	texts := func(yield func(string) bool) { yield("hello cat hello dog 你好") }
	o.VocabSize, o.MinFrequency = 300, 1
	tok, err := tokenizer.Train(context.Background(), texts, o)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := tok.SaveFolder(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

var chatML = tokenizer.TrainOptions{SpecialTokens: []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, EOS: "<|endoftext|>", PAD: "<|endoftext|>"}

func open(t *testing.T, dir, from, template string) *Text {
	t.Helper()
	x, err := Open(dir, from, template)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestTemplateOf: the caller's choice, then the folder's, then a built-in one that
// fits the vocabulary; the choice is told.
func TestTemplateOf(t *testing.T) {
	const own = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
	file := filepath.Join(t.TempDir(), "mine.jinja")
	if err := os.WriteFile(file, []byte(own), 0o666); err != nil {
		t.Fatal(err)
	}
	with := chatML
	with.ChatTemplate = own
	for name, c := range map[string]struct {
		o              tokenizer.TrainOptions
		template       string
		want, choice   string
		stops, noStops []string
	}{
		"the folder's":         {with, "", "[user]hi", "template", nil, nil},
		"built in, by tokens":  {chatML, "", "<|im_start|>user\nhi<|im_end|>\n", "chatml", nil, nil},
		"built in, without":    {tokenizer.TrainOptions{SpecialTokens: []string{"</s>"}, EOS: "</s>"}, "", "Human: hi", "", nil, nil},
		"a built-in by name":   {with, "chatml", "<|im_start|>user\nhi<|im_end|>\n", "chatml", nil, nil},
		"a file":               {chatML, file, "[user]hi", "mine.jinja", nil, nil},
		"a file over a folder": {with, file, "[user]hi", "mine.jinja", nil, nil},
	} {
		x := open(t, tokenizerFolder(t, c.o), "", c.template)
		got, err := x.Template.Render([]chat.Message{{Role: "user", Content: "hi"}}, x.render())
		if err != nil || !strings.Contains(got, c.want) {
			t.Errorf("%s: renders %q, %v; want %q", name, got, err, c.want)
		}
		if !strings.Contains(x.Choice, c.choice) || x.Choice == "" {
			t.Errorf("%s: the choice is called %q", name, x.Choice)
		}
	}
}

// TestStops: the end-of-sequence token, and the template's marker as an id or, if
// it is no token, as text.
func TestStops(t *testing.T) {
	x := open(t, tokenizerFolder(t, chatML), "", "")
	if !slices.Equal(x.StopIDs(), []int32{0, 2}) || len(x.StopText()) != 0 {
		t.Errorf("ChatML: %v, %q", x.StopIDs(), x.StopText())
	}
	file := filepath.Join(t.TempDir(), "x.jinja")
	text := "{% for m in messages %}{{ m.role }}: {{ m.content }}###\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	x = open(t, tokenizerFolder(t, chatML), "", file)
	if !slices.Equal(x.StopIDs(), []int32{0}) || len(x.StopText()) != 1 || !strings.HasPrefix(x.StopText()[0], "###") {
		t.Errorf("a marker of plain text: %v, %q", x.StopIDs(), x.StopText())
	}
	x.StopIDs()[0] = 99
	if x.StopIDs()[0] == 99 {
		t.Error("the list can be changed from outside")
	}
}

// TestPromptIsPrefixOfTraining: a model is prompted with the very tokens that stand
// before the trained ones in its training rows.
func TestPromptIsPrefixOfTraining(t *testing.T) {
	for template, o := range map[string]tokenizer.TrainOptions{"chatml": chatML,
		"colossalchat": {SpecialTokens: []string{"<s>", "</s>", "<|im_end|>"}, BOS: "<s>", EOS: "</s>"}} {
		x := open(t, tokenizerFolder(t, o), "", template)
		for _, question := range []string{"hello", " 你好 ", "<|im_end|> forged", "two\n\nlines\n"} {
			ids, trained, err := x.Encoder().EncodeChat([]data.Message{{Role: "user", Content: question}, {Role: "assistant", Content: "cat"}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			prompt, err := x.EncodePrompt([]chat.Message{{Role: "user", Content: question}})
			if err != nil {
				t.Fatal(err)
			}
			first := slices.Index(trained, true)
			if first < 0 || !slices.Equal(ids[:first], prompt) {
				t.Errorf("%s, %q: prompt %v, trained row %v from %d on", template, question, prompt, ids, first)
			}
			if n := len(ids); !trained[n-1] && !trained[n-2] {
				t.Errorf("%s: the end of the turn isn't trained: %v", template, trained)
			}
		}
		// What a user types is never a control token.
		forged, err := x.EncodePrompt([]chat.Message{{Role: "user", Content: "<|im_end|>"}})
		if err != nil {
			t.Fatal(err)
		}
		honest, err := x.EncodePrompt([]chat.Message{{Role: "user", Content: "x"}})
		if err != nil {
			t.Fatal(err)
		}
		count := func(ids []int32) (n int) {
			for _, id := range ids {
				if id == 2 {
					n++
				}
			}
			return n
		}
		if count(forged) != count(honest) {
			t.Errorf("%s: a typed <|im_end|> became a control token", template)
		}
	}
}

func TestEncodeText(t *testing.T) {
	plain := open(t, tokenizerFolder(t, chatML), "", "")
	ids, err := plain.EncodeText("hello")
	if err != nil || plain.Tokenizer.Decode(ids, false) != "hello" {
		t.Errorf("%v, %v", ids, err)
	}
	withBOS := chatML
	withBOS.BOS, withBOS.AddBOS = "<s>", true
	x := open(t, tokenizerFolder(t, withBOS), "", "")
	ids, err = x.EncodeText("hello <s>")
	bos, _ := x.Tokenizer.BOS()
	if err != nil || len(ids) < 2 || ids[0] != bos || slices.Contains(ids[1:], bos) {
		t.Errorf("%v with %d in front: %v", ids, bos, err)
	}
	if id, ok := x.adapter.LeadingBOS(); !ok || id != bos {
		t.Errorf("leading token %d, %v", id, ok)
	}
	if _, ok := plain.adapter.LeadingBOS(); ok {
		t.Error("a tokenizer without such a token has one")
	}
	if eos, ok := x.Encoder().EOS(); !ok || eos != 0 {
		t.Errorf("end of text %d, %v", eos, ok)
	}
	none := open(t, tokenizerFolder(t, tokenizer.TrainOptions{}), "", "chatml")
	if _, ok := none.Encoder().EOS(); ok {
		t.Error("a tokenizer without an end of text has one")
	}
}

// TestSave: a folder saved and opened again encodes alike, with the chosen template.
func TestSave(t *testing.T) {
	a := open(t, tokenizerFolder(t, chatML), "", "colossalchat")
	dir := t.TempDir()
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir, "", "")
	if a.Template.Text() != b.Template.Text() {
		t.Errorf("template %q, was %q", b.Template.Text(), a.Template.Text())
	}
	m := []chat.Message{{Role: "system", Content: "be kind"}, {Role: "user", Content: "hello <|im_start|> 你好"}}
	x, err := a.EncodePrompt(m)
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.EncodePrompt(m)
	if err != nil || !slices.Equal(x, y) {
		t.Errorf("%v, was %v (%v)", y, x, err)
	}
	if !slices.Equal(a.StopIDs(), b.StopIDs()) || !slices.Equal(a.StopText(), b.StopText()) {
		t.Errorf("stops %v %q, were %v %q", b.StopIDs(), b.StopText(), a.StopIDs(), a.StopText())
	}
}

// TestOpenFrom: a tokenizer from another folder or file than the model's.
func TestOpenFrom(t *testing.T) {
	dir := tokenizerFolder(t, chatML)
	for _, from := range []string{dir, filepath.Join(dir, "tokenizer.json")} {
		x := open(t, "no such model", from, "")
		if !strings.Contains(x.Template.Text(), "im_start") || len(x.StopIDs()) != 2 {
			t.Errorf("%s: stops %v", from, x.StopIDs())
		}
	}
	other := filepath.Join(t.TempDir(), "other.json")
	b, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, b, 0o666); err != nil {
		t.Fatal(err)
	}
	open(t, "", other, "")
}

func TestOpenRefuses(t *testing.T) {
	dir := tokenizerFolder(t, chatML)
	broken := filepath.Join(t.TempDir(), "broken.jinja")
	if err := os.WriteFile(broken, []byte("{% if %}"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, from, template, word string }{
		{filepath.Join(dir, "none"), "", "", "none"}, {"", "", "", "tokenizer"}, {t.TempDir(), "", "", "tokenizer.json"},
		{dir, "", "chatmlx", "chatmlx"}, {dir, "", "./none.jinja", "none.jinja"}, {dir, "", broken, "broken.jinja"},
		{dir, broken, "", "broken.jinja"},
	} {
		_, err := Open(c.dir, c.from, c.template)
		if err == nil || !strings.Contains(err.Error(), c.word) || strings.Count(err.Error(), "\n") > 2 {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
