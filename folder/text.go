// Package folder is the text side of a model folder: its tokenizer and its chat
// template, which together turn conversations into token ids and ids into text.
// Training, generation and chat all use it, so that a model is prompted exactly
// as it was trained.
package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"ringtail/chat"
	"ringtail/data"
	"ringtail/gguf"
	"ringtail/tokenizer"
)

// Text is a tokenizer with a chat template. It is safe for concurrent use.
type Text struct {
	Tokenizer *tokenizer.Tokenizer
	Template  *chat.Template
	// Choice says where the template came from, to be shown to the user.
	Choice string

	adapter  *adapter
	stopIDs  []int32
	stopText []string
}

// Open reads the tokenizer of a model folder or GGUF file, or that of another one or of a
// tokenizer.json where from isn't empty, and finds the chat template: template
// names a built-in one, a Jinja file, a conversation template of ColossalChat's
// or a model folder; where it is empty the folder's own is taken,
// else a built-in one that fits the vocabulary.
func Open(dir, from, template string) (*Text, error) {
	if from == "" {
		from = dir
	}
	tok, err := OpenTokenizer(from)
	if err != nil {
		return nil, err
	}
	return New(tok, template)
}

// New is Open with the tokenizer at hand.
func New(tok *tokenizer.Tokenizer, template string) (*Text, error) {
	t := &Text{Tokenizer: tok, adapter: newAdapter(tok)}
	var err error
	if template != "" {
		if t.Template, err = openTemplate(template, tok); err != nil {
			return nil, err
		}
		t.Choice = "chat template from " + t.Template.Name()
	} else {
		c := tok.Config()
		t.Template, t.Choice, err = chat.Pick(c.ChatTemplate, c.ChatTemplateSource, func(token string) bool { _, ok := tok.ID(token); return ok })
		if err != nil {
			return nil, err
		}
	}
	if err := t.findStops(); err != nil {
		return nil, err
	}
	return t, nil
}

// OpenTokenizer reads the tokenizer of a folder, a tokenizer.json or a GGUF file; beside a
// file of the second name the folder's other tokenizer files count too.
func OpenTokenizer(from string) (*tokenizer.Tokenizer, error) {
	if gguf.Is(from) {
		return openGGUFTokenizer(from)
	}
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no such tokenizer; give a folder with tokenizer.json, or such a file", from)
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return tokenizer.LoadFolder(from)
	}
	if filepath.Base(from) == "tokenizer.json" {
		return tokenizer.LoadFolder(filepath.Dir(from))
	}
	return tokenizer.Load(from)
}

// StopIDs are the tokens that end an assistant's turn.
func (t *Text) StopIDs() []int32 { return slices.Clone(t.stopIDs) }

// StopText are the texts that end an assistant's turn where the template's marker is no token.
func (t *Text) StopText() []string { return slices.Clone(t.stopText) }

// render is how templates are rendered for this tokenizer.
func (t *Text) render() chat.RenderOptions {
	c := t.Tokenizer.Config()
	return chat.RenderOptions{BOS: c.BOS, EOS: c.EOS, PAD: c.PAD, UNK: c.UNK, Specials: t.adapter.SpecialTokens()}
}

// Encoder encodes training data as this tokenizer and template do.
func (t *Text) Encoder() *data.ChatEncoder {
	e := &data.ChatEncoder{Tokenizer: t.adapter, Template: t.Template, Render: t.render()}
	id, ok := t.Tokenizer.EOS()
	e.EOSID, e.NoEOS = id, !ok
	return e
}

// EncodePrompt renders a chat up to where the assistant begins to answer.
func (t *Text) EncodePrompt(messages []chat.Message) ([]int32, error) {
	return t.EncodePromptWith(messages, chat.RenderOptions{})
}

// EncodePromptWith is EncodePrompt with tools, documents and further variables of the template, such as
// enable_thinking. The special tokens are the tokenizer's.
func (t *Text) EncodePromptWith(messages []chat.Message, o chat.RenderOptions) ([]int32, error) {
	own := t.render()
	o.BOS, o.EOS, o.PAD, o.UNK, o.Specials = own.BOS, own.EOS, own.PAD, own.UNK, own.Specials
	return chat.EncodePrompt(t.adapter, t.Template, messages, o)
}

// EncodeText encodes a text to be continued: with the tokens that the tokenizer
// puts in front; what looks like a special token is plain text.
func (t *Text) EncodeText(text string) ([]int32, error) { return t.Encoder().EncodeText(text) }

// Save writes the tokenizer's files and the template into dir.
func (t *Text) Save(dir string) error {
	c := t.Tokenizer.Config()
	c.ChatTemplate = t.Template.Text()
	return t.Tokenizer.SaveFolder(dir)
}
