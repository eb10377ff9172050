package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ringtail/atomicfile"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/tokenizer"
)

type tokenizerAddCmd struct {
	Model   string   `required:"" placeholder:"DIR" help:"Model folder to read, or ORG/NAME in the hub's cache"`
	Out     string   `required:"" placeholder:"DIR" help:"Folder to write: the model with the tokens, or where DIR has no model just the tokenizer"`
	Token   []string `sep:"none" placeholder:"TOKEN" help:"Token to add; may be given more than once. One that there is keeps its id"`
	Special bool     `help:"The tokens are control tokens: what users write can't contain them, and they are not shown"`
	Pad     string   `placeholder:"TOKEN" help:"Control token that fills up rows; added where it is new"`
	BOS     string   `name:"bos" placeholder:"TOKEN" help:"Control token that begins a text; added where it is new"`
	EOS     string   `name:"eos" placeholder:"TOKEN" help:"Control token that ends a text; added where it is new"`
}

func (c *tokenizerAddCmd) Run(e *env) error {
	roles := []struct {
		token string
		name  func(*tokenizer.Config) *string
		set   func(*model.Config, int)
	}{
		{c.Pad, func(t *tokenizer.Config) *string { return &t.PAD }, func(m *model.Config, id int) { m.PAD = id }},
		{c.BOS, func(t *tokenizer.Config) *string { return &t.BOS }, func(m *model.Config, id int) { m.BOS = id }},
		{c.EOS, func(t *tokenizer.Config) *string { return &t.EOS }, func(m *model.Config, id int) { m.EOS = []int{id} }},
	}
	special := map[string]bool{}
	var names []string
	add := func(s string, isSpecial bool) {
		if _, ok := special[s]; !ok {
			names = append(names, s)
		}
		special[s] = special[s] || isSpecial
	}
	for _, s := range c.Token {
		add(s, c.Special)
	}
	for _, r := range roles {
		if r.token != "" {
			add(r.token, true)
		}
	}
	if len(names) == 0 {
		return usagef("nothing to add: give tokens by --token, --pad, --bos or --eos")
	}
	if _, err := os.Lstat(c.Out); err == nil {
		return fmt.Errorf("%s exists already; remove it or choose another name by --out", c.Out)
	}
	run, err := e.findModel(c.Model)
	if err != nil {
		return err
	}
	from := run.Tokenizer
	if from == "" {
		from = run.Dir
	}
	tok, err := folder.OpenTokenizer(from)
	if err != nil {
		return err
	}
	// What is there keeps its other flags.
	flags := map[string]tokenizer.AddedToken{}
	_, known := tok.AddedTokens()
	for _, a := range known {
		flags[a.Content] = a
	}
	tokens := make([]tokenizer.AddedToken, len(names))
	for i, s := range names {
		tokens[i] = flags[s]
		tokens[i].Content, tokens[i].Special = s, tokens[i].Special || special[s]
	}
	before := tok.Size()
	ids, err := tok.AddTokens(tokens...)
	if err != nil {
		return err
	}
	for _, r := range roles {
		if r.token != "" {
			*r.name(tok.Config()) = r.token
		}
	}

	dir, err := atomicfile.NewDir(c.Out)
	if err != nil {
		return err
	}
	defer dir.Abort()
	_, err = os.Stat(filepath.Join(run.Dir, "config.json"))
	switch {
	case err == nil:
		err = model.GrowVocab(run.Dir, dir.Path(), tok.Size(), func(m *model.Config) {
			for _, r := range roles {
				if id, ok := tok.ID(r.token); ok && r.token != "" {
					r.set(m, int(id))
				}
			}
		})
	case errors.Is(err, fs.ErrNotExist):
		err = nil // a tokenizer alone
	}
	if err != nil {
		return err
	}
	if err := tok.SaveFolder(dir.Path()); err != nil {
		return err
	}
	if err := dir.Commit(); err != nil {
		return err
	}
	for i, s := range names {
		word := "added"
		if int(ids[i]) < before {
			word = "was there"
		}
		fmt.Fprintf(e.stdout, "%d\t%q\t%s\n", ids[i], s, word)
	}
	return nil
}
