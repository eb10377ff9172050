package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ringtail/atomicfile"
	"ringtail/folder"
	"ringtail/gguf"
	"ringtail/model"
)

type convertCmd struct {
	Model     string `required:"" placeholder:"DIR|FILE.gguf" help:"Model folder or GGUF file to read, or ORG/NAME in the hub's cache"`
	Out       string `required:"" placeholder:"FILE.gguf|DIR" help:"GGUF file to write, or a model folder where the name doesn't end in .gguf"`
	Dtype     string `placeholder:"TYPE" help:"Type of the weights: f32, f16, bf16, and in GGUF files q8_0, q4_0; default: the model's own, f32 for quantised ones"`
	Tokenizer string `placeholder:"DIR|FILE" help:"Tokenizer and chat template: a folder, tokenizer.json or GGUF file; default: the model's"`
}

func (c *convertCmd) Run(e *env) error {
	if _, err := os.Lstat(c.Out); err == nil {
		return fmt.Errorf("%s exists already; remove it or choose another name by --out", c.Out)
	}
	run, err := e.findModel(c.Model)
	if err != nil {
		return err
	}
	c.Model = run.Dir
	switch {
	case c.Tokenizer != "":
		if c.Tokenizer, err = e.findTokenizer(c.Tokenizer); err != nil {
			return err
		}
	case run.Tokenizer != "":
		c.Tokenizer = run.Tokenizer
	default:
		c.Tokenizer = c.Model
	}
	write := c.toFolder
	if strings.HasSuffix(c.Out, ".gguf") {
		write = c.toGGUF
	}
	size, err := write(e)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s: %.1f MB\n", c.Out, float64(size)/1e6)
	return err
}

func (c *convertCmd) toGGUF(e *env) (int64, error) {
	metadata := func(m *model.Config) ([]gguf.Pair, error) {
		pairs, warning, err := folder.GGUFMetadata(c.Tokenizer, m.Vocab)
		if errors.Is(err, fs.ErrNotExist) && c.Tokenizer == c.Model {
			pairs, warning, err = []gguf.Pair{{Key: "tokenizer.ggml.model", Value: "none"}}, c.noTokenizer(), nil
		}
		if warning != "" {
			fmt.Fprintf(e.stderr, "ringtail: warning: %s\n", warning)
		}
		return pairs, err
	}
	if err := model.WriteGGUF(c.Model, c.Out, model.GGUFOptions{Type: c.Dtype, Name: c.name(), Metadata: metadata}); err != nil {
		return 0, err
	}
	info, err := os.Stat(c.Out)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// name is the model's, for general.name: that of its folder or file.
func (c *convertCmd) name() string {
	path, err := filepath.Abs(c.Model)
	if err != nil {
		path = c.Model
	}
	return strings.TrimSuffix(filepath.Base(path), ".gguf")
}

func (c *convertCmd) noTokenizer() string {
	return fmt.Sprintf("%s has no tokenizer, so %s holds none (name one by --tokenizer)", c.Model, c.Out)
}

func (c *convertCmd) toFolder(e *env) (int64, error) {
	dtype, ok := map[string]string{"": "", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}[strings.ToLower(c.Dtype)]
	if !ok {
		return 0, usagef("--dtype %s: model folders hold f32, f16 or bf16; name a file that ends in .gguf by --out for other types", c.Dtype)
	}
	dir, err := atomicfile.NewDir(c.Out)
	if err != nil {
		return 0, err
	}
	defer dir.Abort()
	if err := model.WriteFolder(c.Model, dir.Path(), dtype); err != nil {
		return 0, err
	}
	t, err := folder.OpenTokenizer(c.Tokenizer)
	switch {
	case err == nil:
		err = t.SaveFolder(dir.Path())
	case c.Tokenizer == c.Model && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, folder.ErrNoTokenizer)):
		fmt.Fprintf(e.stderr, "ringtail: warning: %s\n", c.noTokenizer())
		err = nil
	}
	if err != nil {
		return 0, err
	}
	size := int64(0)
	entries, err := os.ReadDir(dir.Path())
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			size += info.Size()
		}
	}
	return size, dir.Commit()
}
