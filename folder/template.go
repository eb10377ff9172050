package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ringtail/chat"
	"ringtail/tokenizer"
)

// maxTemplate bounds a template's file, in bytes.
const maxTemplate = 4 << 20

// openTemplate finds the chat template that a recipe or a flag names: a built-in one; a Jinja file; a conversation
// template of ColossalChat's (*.json), whose Jinja may be another model's or tok's own; or a model folder, for its own.
func openTemplate(spec string, tok *tokenizer.Tokenizer) (*chat.Template, error) {
	info, err := os.Stat(spec)
	switch {
	case !strings.ContainsAny(spec, `/\.`), err != nil && chat.IsBuiltin(spec):
		return chat.Builtin(spec)
	case errors.Is(err, fs.ErrNotExist) && chat.IsBuiltin(filepath.Base(spec)): // qwen2.5, which a recipe took for a file beside it
		return chat.Builtin(filepath.Base(spec))
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("chat template %s: no such file; give a Jinja file, a conversation template (.json), a model folder, or one of %s",
			spec, strings.Join(chat.BuiltinNames(), ", "))
	case err != nil:
		return nil, fmt.Errorf("chat template: %w", err)
	case info.IsDir():
		return templateOf(spec)
	case info.Size() > maxTemplate:
		return nil, fmt.Errorf("chat template %s: %d bytes, expected at most %d: is it a template?", spec, info.Size(), maxTemplate)
	}
	b, err := os.ReadFile(spec)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	if !strings.EqualFold(filepath.Ext(spec), ".json") {
		return chat.New(spec, string(b))
	}
	c, err := chat.ParseConversation(spec, b)
	if err != nil {
		return nil, err
	}
	text := c.ChatTemplate
	switch {
	case text == "":
		if text = tok.Config().ChatTemplate; text == "" {
			return nil, fmt.Errorf("%s: chat_template is absent and the model has no template of its own: put Jinja there, or the path of a model folder", spec)
		}
	case !c.IsJinja():
		from := text
		if _, err := os.Stat(from); err != nil && !filepath.IsAbs(from) {
			from = filepath.Join(filepath.Dir(spec), from)
		}
		other, err := templateOf(from)
		if err != nil {
			return nil, fmt.Errorf("%s: chat_template is %.80q, expected Jinja or a model folder: %w", spec, text, err)
		}
		text = other.Text()
	}
	return c.Template(text)
}

// templateOf is the template of a model folder.
func templateOf(dir string) (*chat.Template, error) {
	tok, err := OpenTokenizer(dir)
	if err != nil {
		return nil, err
	}
	c := tok.Config()
	if strings.TrimSpace(c.ChatTemplate) == "" {
		return nil, fmt.Errorf("%s: this model has no chat template", dir)
	}
	return chat.New(c.ChatTemplateSource, c.ChatTemplate)
}

// findStops finds what ends an assistant's turn: the end-of-sequence token, and the template's own markers, as ids where
// they are single tokens, else as text.
func (t *Text) findStops() error {
	add := func(id int32) {
		if !slices.Contains(t.stopIDs, id) {
			t.stopIDs = append(t.stopIDs, id)
		}
	}
	if id, ok := t.Tokenizer.EOS(); ok {
		add(id)
	}
	for _, s := range t.Template.Stops(t.render()) {
		if id, ok := t.Tokenizer.ID(s); ok {
			add(id)
		} else if strings.TrimSpace(s) != "" {
			t.stopText = append(t.stopText, s)
		}
	}
	return t.addSequences(t.Template.StopIDs(), add)
}

// addSequences adds the stop_ids of a conversation template. Several special tokens in a list are each an end (Qwen's
// <|im_end|> and <|endoftext|>), ordinary ones are one text in pieces (ChatGLM's <|im_end|>).
func (t *Text) addSequences(sequences [][]int32, add func(id int32)) error {
	if len(sequences) == 0 {
		return nil
	}
	special := map[int32]bool{}
	for _, s := range t.adapter.SpecialTokens() {
		if id, ok := t.Tokenizer.ID(s); ok {
			special[id] = true
		}
	}
	for _, ids := range sequences {
		ordinary := false
		for _, id := range ids {
			if int(id) >= t.Tokenizer.Size() {
				return fmt.Errorf("%s: stop_ids holds %d, but the tokenizer has %d tokens: the template is for another model", t.Template.Name(), id, t.Tokenizer.Size())
			}
			ordinary = ordinary || !special[id]
		}
		if ordinary && len(ids) > 1 {
			if s := t.Tokenizer.Decode(ids, false); strings.TrimSpace(s) != "" && !slices.Contains(t.stopText, s) {
				t.stopText = append(t.stopText, s)
			}
			continue
		}
		for _, id := range ids {
			add(id)
		}
	}
	return nil
}
