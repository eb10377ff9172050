package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"golang.org/x/term"

	"ringtail/data"
	"ringtail/folder"
	"ringtail/hub"
)

type dataCmd struct {
	Show  dataShowCmd  `cmd:"" help:"Show rows as the model sees them, trained tokens coloured"`
	Stats dataStatsCmd `cmd:"" help:"Count rows, tokens, lengths, and what isn't used and why"`
}

// dataFlags name data and how it is read.
type dataFlags struct {
	Data      []string `arg:"" placeholder:"FILE" help:"Data files, patterns or folders, or ORG/NAME after ringtail pull --dataset"`
	Model     string   `placeholder:"DIR|FILE" help:"Model folder or tokenizer.json, for tokens and chat template"`
	Template  string   `placeholder:"NAME|FILE" help:"Chat template; default: the model's"`
	Format    string   `placeholder:"NAME" help:"Row format; default: detected"`
	Split     string   `placeholder:"NAME" help:"Split of a folder; default: train"`
	Use       string   `default:"chat" enum:"chat,text,rankings,pairs,prompts,labelled,sft,pretrain,kto" help:"What the rows are for: chat, text, rankings, prompts or labelled"`
	TrainOn   string   `default:"" enum:",assistant,last,all" help:"Tokens that count in the loss: assistant, last or all"`
	MaxTokens int      `default:"0" help:"Longest row in tokens; 0: no limit"`
	TooLong   string   `default:"drop" enum:"error,drop,split,truncate" help:"What happens to longer rows: error, drop, split or truncate"`
	BadRows   string   `default:"skip" enum:"error,skip,strict" help:"What happens to broken rows: error, skip or strict"`
}

// use is what the rows are read for; whole says that rows are wanted as a file has them, of which a pair is more than a
// ranking of two.
func (f dataFlags) use(whole bool) data.Use {
	switch f.Use {
	case "chat":
		return data.UseSFT
	case "text":
		return data.UsePretrain
	case "labelled":
		return data.UseKTO
	case "pairs":
		if !whole {
			return data.UseRankings
		}
	}
	return data.Use(f.Use)
}

func (f dataFlags) options(whole bool) ([]data.Source, data.Options, error) {
	if f.MaxTokens < 0 || f.MaxTokens == 1 {
		return nil, data.Options{}, usagef("--max-tokens %d: give 0 (no limit) or at least 2", f.MaxTokens)
	}
	if f.Format != "" && !slices.Contains(data.Formats(), data.Format(f.Format)) {
		return nil, data.Options{}, usagef("no format %q; there are %v", f.Format, data.Formats())
	}
	files := make([]string, len(f.Data))
	for i, name := range f.Data {
		files[i] = hub.ResolveData(name)
	}
	return []data.Source{{Files: files, Format: data.Format(f.Format), Split: f.Split}},
		data.Options{Use: f.use(whole), TrainOn: data.TrainOn(f.TrainOn), MaxTokens: f.MaxTokens, TooLong: data.TooLong(f.TooLong),
			BadRows: data.BadRows(f.BadRows)}, nil
}

func (f dataFlags) load(e *env) (*data.Dataset, *folder.Text, error) {
	sources, opt, err := f.options(false)
	if err != nil {
		return nil, nil, err
	}
	if f.Model == "" {
		return nil, nil, usagef("--model is needed for tokens: give a model folder or tokenizer.json; data show --json shows rows without")
	}
	tokenizer, err := e.findTokenizer(f.Model)
	if err != nil {
		return nil, nil, err
	}
	text, err := folder.Open(tokenizer, tokenizer, f.Template)
	if err != nil {
		return nil, nil, err
	}
	set, err := data.Load(e.ctx, sources, opt, text.Encoder())
	return set, text, err
}

type dataShowCmd struct {
	dataFlags
	From  int    `default:"1" help:"First row shown, from 1"`
	Count int    `default:"3" help:"Rows shown"`
	Color string `default:"auto" enum:"auto,always,never" help:"Colours: auto, always or never; without them trained text stands in ⟦ ⟧"`
	JSON  bool   `help:"Print the rows in normal form, a JSON object a line, without tokens; needs no model"`
}

func (c *dataShowCmd) Run(e *env) error {
	if c.From < 1 || c.Count < 1 {
		return usagef("--from and --count begin at 1")
	}
	if c.JSON {
		return c.showJSON(e)
	}
	set, text, err := c.load(e)
	if err != nil {
		return err
	}
	colour := c.Color == "always"
	if f, ok := e.stdout.(*os.File); ok && c.Color == "auto" {
		colour = term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	}
	shown := 0
	for i := c.From - 1; i < c.From-1+c.Count; i++ {
		seq, ok := set.Sequence(i)
		if !ok {
			break
		}
		if shown++; shown > 1 {
			fmt.Fprintln(e.stdout)
		}
		decode := func(ids []int32) (string, error) { return text.Tokenizer.Decode(ids, false), nil }
		if err := data.Show(e.stdout, seq, decode, data.ShowOptions{Colour: colour}); err != nil {
			return err
		}
	}
	if shown == 0 {
		train, eval := set.Sequences()
		return fmt.Errorf("no row %d: the data has %d that can be trained on", c.From, train+eval)
	}
	return nil
}

// showJSON prints rows in normal form.
func (c *dataShowCmd) showJSON(e *env) error {
	sources, opt, err := c.options(true)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(e.stdout)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	rows := 0
	_, err = data.ScanRows(e.ctx, sources, opt, func(r data.Row) error {
		if rows++; rows < c.From {
			return nil
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
		if rows-c.From+1 >= c.Count {
			return data.ErrEnough
		}
		return nil
	})
	if err == nil && rows < c.From {
		err = fmt.Errorf("no row %d: the data has %d that can be used", c.From, rows)
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

type dataStatsCmd struct {
	dataFlags
	JSON bool `help:"Print JSON"`
}

func (c *dataStatsCmd) Run(e *env) error {
	stats, err := c.stats(e)
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(stats)
	}
	return stats.WriteText(e.stdout)
}

// stats counts rows, and tokens where a model is named.
func (c *dataStatsCmd) stats(e *env) (*data.Stats, error) {
	if c.Model == "" {
		sources, opt, err := c.options(true)
		if err != nil {
			return nil, err
		}
		return data.ScanRows(e.ctx, sources, opt, func(data.Row) error { return nil })
	}
	set, _, err := c.load(e)
	if err != nil {
		return nil, err
	}
	return set.Stats, nil
}
