package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ringtail/atomicfile"
	"ringtail/chat"
	"ringtail/data"
	"ringtail/folder"
	"ringtail/tokenizer"
)

type tokenizerCmd struct {
	Train  tokenizerTrainCmd  `cmd:"" help:"Train a byte-level BPE on your text and chats"`
	Encode tokenizerEncodeCmd `cmd:"" help:"Text into token ids"`
	Decode tokenizerDecodeCmd `cmd:"" help:"Token ids into text"`
	Add    tokenizerAddCmd    `cmd:"" help:"Add tokens to a model: its tokenizer and its embedding grow together"`
}

type tokenizerTrainCmd struct {
	Data         []string `arg:"" placeholder:"FILE" help:"Text, JSON or JSONL files in any format that training reads"`
	Out          string   `required:"" placeholder:"DIR" help:"Folder for tokenizer.json and its companions"`
	VocabSize    int      `default:"8000" help:"Tokens in all: control tokens, 256 bytes and merges"`
	MinFrequency int      `default:"2" help:"How often a pair must occur to become a token"`
	Pattern      string   `default:"llama3" enum:"gpt2,llama3,qwen2" help:"How text is cut into words: gpt2, llama3 or qwen2"`
	Special      []string `placeholder:"TOKEN" help:"Further control tokens"`
	Quiet        bool     `help:"No progress"`
}

// Control tokens of a new tokenizer: those of ChatML and an end of text.
const (
	endOfText = "<|endoftext|>"
	imStart   = "<|im_start|>"
	imEnd     = "<|im_end|>"
)

func (c *tokenizerTrainCmd) Run(e *env) error {
	if _, err := os.Stat(filepath.Join(c.Out, "tokenizer.json")); err == nil {
		return fmt.Errorf("%s holds a tokenizer already; name another folder by --out", c.Out)
	}
	texts, failed := corpus(c.Data)
	template, err := chat.Builtin("chatml")
	if err != nil {
		return err
	}
	o := tokenizer.TrainOptions{VocabSize: c.VocabSize, MinFrequency: c.MinFrequency, Pattern: c.Pattern,
		SpecialTokens: append([]string{endOfText, imStart, imEnd}, c.Special...), EOS: endOfText, PAD: endOfText, ChatTemplate: template.Text()}
	tok, err := tokenizer.Train(e.ctx, texts, o)
	if failed := failed(); failed != nil {
		err = failed // it is why the texts ended
	}
	if err != nil {
		return err
	}
	d, err := atomicfile.NewDir(c.Out)
	if err != nil {
		return err
	}
	defer d.Abort()
	if err := tok.SaveFolder(d.Path()); err != nil {
		return err
	}
	if err := d.Commit(); err != nil {
		return err
	}
	if !c.Quiet {
		fmt.Fprintf(e.stderr, "%d tokens, in %s\n", tok.Size(), c.Out)
	}
	return nil
}

// corpus is all text of files: documents, and every message of chats. failed tells what
// went wrong, once the texts have been read.
func corpus(files []string) (texts iter.Seq[string], failed func() error) {
	var problem error
	texts = func(yield func(string) bool) {
		for _, f := range files {
			if problem = readTexts(f, yield); problem != nil {
				return
			}
		}
	}
	return texts, func() error { return problem }
}

// errEnough ends reading where no more text is wanted.
var errEnough = errors.New("enough")

func readTexts(file string, yield func(string) bool) error {
	r, err := data.Open(file, data.ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	var first []data.Record
	var convert *data.Converter
	use := func(rec data.Record) error {
		rows, err := convert.Convert(rec)
		if err != nil {
			return err
		}
		for _, row := range rows {
			for _, text := range row.Texts() {
				if !yield(text) {
					return errEnough
				}
			}
		}
		return nil
	}
	drain := func() error {
		format, ok := data.Detect(first, nil)
		if !ok {
			return fmt.Errorf("%s: no row format is known that these rows have", file)
		}
		convert = data.NewConverter(format, data.Source{Files: []string{file}})
		for _, rec := range first {
			if err := use(rec); err != nil {
				return err
			}
		}
		return nil
	}
	for {
		rec, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			if convert == nil && len(first) > 0 {
				err = drain()
			} else {
				err = nil
			}
		case err != nil:
		case convert != nil:
			if err = use(rec); err == nil {
				continue
			}
		default:
			if first = append(first, rec); len(first) < 32 {
				continue
			}
			if err = drain(); err == nil {
				continue
			}
		}
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	}
}

type tokenizerEncodeCmd struct {
	Model   string   `required:"" placeholder:"DIR|FILE" help:"Model folder or tokenizer.json"`
	Text    []string `arg:"" optional:"" help:"Text; default: standard input"`
	Special bool     `help:"Add the tokens that the tokenizer puts around a text, and read control tokens in it"`
	Pieces  bool     `help:"Print each token with its text"`
	JSON    bool     `help:"Print JSON"`
}

func (c *tokenizerEncodeCmd) Run(e *env) error {
	from, err := e.findTokenizer(c.Model)
	if err != nil {
		return err
	}
	tok, err := folder.OpenTokenizer(from)
	if err != nil {
		return err
	}
	text := strings.Join(c.Text, " ")
	if len(c.Text) == 0 {
		b, err := io.ReadAll(e.stdin)
		if err != nil {
			return err
		}
		text = string(b)
	}
	ids := tok.Encode(text, tokenizer.EncodeOptions{AddSpecial: c.Special, PlainSpecial: !c.Special})
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(ids)
	}
	w := bufio.NewWriter(e.stdout)
	for i, id := range ids {
		switch {
		case c.Pieces:
			fmt.Fprintf(w, "%d\t%q\n", id, tok.Decode([]int32{id}, false))
		case i > 0:
			fmt.Fprintf(w, " %d", id)
		default:
			fmt.Fprint(w, id)
		}
	}
	if !c.Pieces {
		fmt.Fprintln(w)
	}
	return w.Flush()
}

type tokenizerDecodeCmd struct {
	Model string   `required:"" placeholder:"DIR|FILE" help:"Model folder or tokenizer.json"`
	IDs   []string `arg:"" optional:"" name:"ids" help:"Token ids; default: standard input"`
}

func (c *tokenizerDecodeCmd) Run(e *env) error {
	from, err := e.findTokenizer(c.Model)
	if err != nil {
		return err
	}
	tok, err := folder.OpenTokenizer(from)
	if err != nil {
		return err
	}
	words := c.IDs
	if len(words) == 0 {
		b, err := io.ReadAll(e.stdin)
		if err != nil {
			return err
		}
		words = []string{string(b)}
	}
	var ids []int32
	for _, w := range strings.FieldsFunc(strings.Join(words, " "), func(r rune) bool { return strings.ContainsRune(" ,[]\n\r\t", r) }) {
		n, err := strconv.ParseInt(w, 10, 32)
		if err != nil || n < 0 || int(n) >= tok.Size() {
			return fmt.Errorf("%q is not a token id of this tokenizer (0 to %d)", w, tok.Size()-1)
		}
		ids = append(ids, int32(n))
	}
	_, err = fmt.Fprintln(e.stdout, tok.Decode(ids, false))
	return err
}
