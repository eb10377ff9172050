package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"golang.org/x/term"

	"ringtail/data"
	"ringtail/folder"
)

type dataCmd struct {
	Show  dataShowCmd  `cmd:"" help:"Show rows as the model sees them, trained tokens coloured"`
	Stats dataStatsCmd `cmd:"" help:"Count rows, tokens, lengths, and what isn't used and why"`
}

// dataFlags name data and how it is read.
type dataFlags struct {
	Data      []string `arg:"" placeholder:"FILE" help:"Data files"`
	Model     string   `required:"" placeholder:"DIR|FILE" help:"Model folder or tokenizer.json, for tokens and chat template"`
	Template  string   `placeholder:"NAME|FILE" help:"Chat template; default: the model's"`
	Format    string   `placeholder:"NAME" help:"Row format; default: detected"`
	Use       string   `default:"sft" enum:"sft,pretrain" help:"What the rows are for: sft or pretrain"`
	TrainOn   string   `default:"" enum:",assistant,last,all" help:"Tokens that count in the loss: assistant, last or all"`
	MaxTokens int      `default:"0" help:"Longest row in tokens; 0: no limit"`
	TooLong   string   `default:"drop" enum:"error,drop,split,truncate" help:"What happens to longer rows: error, drop, split or truncate"`
	BadRows   string   `default:"skip" enum:"error,skip,strict" help:"What happens to broken rows: error, skip or strict"`
}

func (f dataFlags) load(e *env) (*data.Dataset, *folder.Text, error) {
	if f.MaxTokens < 0 || f.MaxTokens == 1 {
		return nil, nil, usagef("--max-tokens %d: give 0 (no limit) or at least 2", f.MaxTokens)
	}
	text, err := folder.Open(f.Model, f.Model, f.Template)
	if err != nil {
		return nil, nil, err
	}
	if f.Format != "" && !slices.Contains(data.Formats(), data.Format(f.Format)) {
		return nil, nil, usagef("no format %q; there are %v", f.Format, data.Formats())
	}
	set, err := data.Load(e.ctx, []data.Source{{Files: f.Data, Format: data.Format(f.Format)}}, data.Options{Use: data.Use(f.Use),
		TrainOn: data.TrainOn(f.TrainOn), MaxTokens: f.MaxTokens, TooLong: data.TooLong(f.TooLong), BadRows: data.BadRows(f.BadRows)}, text.Encoder())
	return set, text, err
}

type dataShowCmd struct {
	dataFlags
	From  int    `default:"1" help:"First row shown, from 1"`
	Count int    `default:"3" help:"Rows shown"`
	Color string `default:"auto" enum:"auto,always,never" help:"Colours: auto, always or never; without them trained text stands in ⟦ ⟧"`
}

func (c *dataShowCmd) Run(e *env) error {
	set, text, err := c.load(e)
	if err != nil {
		return err
	}
	colour := c.Color == "always"
	if f, ok := e.stdout.(*os.File); ok && c.Color == "auto" {
		colour = term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	}
	if c.From < 1 || c.Count < 1 {
		return usagef("--from and --count begin at 1")
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

type dataStatsCmd struct {
	dataFlags
	JSON bool `help:"Print JSON"`
}

func (c *dataStatsCmd) Run(e *env) error {
	set, _, err := c.load(e)
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(set.Stats)
	}
	return set.Stats.WriteText(e.stdout)
}
