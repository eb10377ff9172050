// Package demo is `ringtail demo`: the three stages that made ChatGPT, on a tiny bilingual model
// from scratch, in minutes on a laptop's CPU.
//
//	tokenizer → supervised fine-tuning → reward model → PPO with PTX → report
//
// It does nothing that its user can't do as well: it writes its data and three recipes into the
// demo's folder and runs these as `ringtail train` would.
//
//	data/        the corpus, parted into what is trained on and what is held out
//	recipes/     sft.yaml, reward.yaml, ppo.yaml
//	tokenizer/   a byte-level BPE
//	sft/ reward/ ppo/   run folders (package runs); ppo/model is the result
//	report.json  Report
//	report.html  the same to look at
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ringtail/atomicfile"
	"ringtail/chat"
	"ringtail/recipe"
	"ringtail/recipes"
	"ringtail/runs"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tokenizer"
	"ringtail/train"
)

// Options say how the demo is run.
type Options struct {
	Dir      string
	Seed     uint64
	Set      map[string][]string // by stage: KEY=VALUE, changes of its recipe
	Progress runs.ProgressMode
	Messages io.Writer // where progress is printed
	Version  string
	Device   tensor.Device // nil: the CPU
	Started  time.Time     // when the program started; zero: now
}

// ReportFile is the report's name in the demo's folder.
const ReportFile = "report.json"

// vocabulary is the tokenizer's size: small, so that each token is seen often.
const vocabulary = 800

// stages are the three trainings in their order.
var stages = []string{"sft", "reward", "ppo"}

// Run goes through the three stages and writes the report. A demo that was interrupted in
// that folder goes on where it was.
func Run(ctx context.Context, opt Options) (*Report, error) {
	if opt.Started.IsZero() {
		opt.Started = time.Now()
	}
	if _, err := os.Stat(filepath.Join(opt.Dir, ReportFile)); err == nil {
		return nil, fmt.Errorf("%s holds a finished demo; look at its report.html, or name another folder by --dir", opt.Dir)
	}
	if err := checkFolder(opt.Dir); err != nil {
		return nil, err
	}
	r := &Report{Seed: opt.Seed, Version: opt.Version, Threads: cpu.Threads(), Device: cpu.Level()}
	c, err := LoadCorpus()
	if err != nil {
		return nil, err
	}
	if err := c.write(filepath.Join(opt.Dir, "data")); err != nil {
		return nil, err
	}
	r.count(c)
	say := func(format string, args ...any) {
		if opt.Progress != runs.ProgressQuiet && opt.Progress != runs.ProgressJSON {
			fmt.Fprintf(opt.Messages, format+"\n", args...)
		}
	}
	say("demo: %d dialogues and %d rankings of answers to learn from, English and Chinese; three stages into %s", r.Data.Dialogues, r.Data.Rankings, opt.Dir)
	clock := time.Now()
	if r.Data.Tokens, err = trainTokenizer(ctx, c, filepath.Join(opt.Dir, "tokenizer")); err != nil {
		return nil, err
	}
	r.Stages = append(r.Stages, StageTime{"tokenizer", time.Since(clock).Seconds()})
	for i, stage := range stages {
		clock := time.Now()
		say("\n%d of %d, %s", i+1, len(stages), headlines[stage])
		if err := opt.train(ctx, stage); err != nil {
			return nil, err
		}
		r.Stages = append(r.Stages, StageTime{stage, time.Since(clock).Seconds()})
	}
	var drawn curves
	if err := r.read(ctx, opt.Dir, c, &drawn); err != nil {
		return nil, err
	}
	r.Seconds, r.PeakRSSBytes = time.Since(opt.Started).Seconds(), peakRSS()
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := writePage(filepath.Join(opt.Dir, "report.html"), r, drawn); err != nil {
		return nil, err
	}
	// Last, for its presence says that the demo is done.
	return r, atomicfile.WriteBytes(filepath.Join(opt.Dir, ReportFile), 0o666, append(text, '\n'))
}

var headlines = map[string]string{
	"sft":    "supervised fine-tuning: the model learns to answer from dialogues",
	"reward": "reward model: it learns which of two answers people like better",
	"ppo":    "PPO with PTX: the model learns to give answers that the reward model scores higher",
}

// checkFolder refuses a folder that holds anything but a demo.
func checkFolder(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(list) == 0 || slices.ContainsFunc(list, func(e fs.DirEntry) bool { return e.Name() == "recipes" }) {
		return nil
	}
	return fmt.Errorf("%s is not empty and holds no demo; name another folder by --dir", dir)
}

// write puts the corpus into files, where the recipes look for them, and the recipes beside it.
func (c *Corpus) write(dir string) error {
	for _, d := range []string{dir, filepath.Join(filepath.Dir(dir), "recipes")} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return err
		}
	}
	for _, stage := range stages {
		text, err := recipes.Demo.ReadFile("demo/" + stage + ".yaml")
		if err != nil {
			return err
		}
		if err := atomicfile.WriteBytes(filepath.Join(filepath.Dir(dir), "recipes", stage+".yaml"), 0o666, text); err != nil {
			return err
		}
	}
	rankings := func(list []ranking, zh bool) (out []ranking) {
		for _, r := range list {
			if chinese(r.Prompt) == zh {
				out = append(out, r)
			}
		}
		return out
	}
	prompts := func(list []string) (out []promptRow) {
		for _, p := range list {
			out = append(out, promptRow{p})
		}
		return out
	}
	for name, write := range map[string]func(io.Writer) error{
		"chats.jsonl":                func(w io.Writer) error { return writeJSONL(w, c.Chats) },
		"good-chats.jsonl":           func(w io.Writer) error { return writeJSONL(w, c.Clean) },
		"chats-held-out.jsonl":       func(w io.Writer) error { return writeJSONL(w, c.HeldOutChats) },
		"rankings.en.jsonl":          func(w io.Writer) error { return writeJSONL(w, rankings(c.Rankings, false)) },
		"rankings.zh.jsonl":          func(w io.Writer) error { return writeJSONL(w, rankings(c.Rankings, true)) },
		"rankings-held-out.en.jsonl": func(w io.Writer) error { return writeJSONL(w, rankings(c.HeldOutRanks, false)) },
		"rankings-held-out.zh.jsonl": func(w io.Writer) error { return writeJSONL(w, rankings(c.HeldOutRanks, true)) },
		"prompts.jsonl":              func(w io.Writer) error { return writeJSONL(w, prompts(c.Prompts)) },
		"prompts-held-out.jsonl":     func(w io.Writer) error { return writeJSONL(w, prompts(c.HeldOutPrompts)) },
	} {
		if err := atomicfile.WriteFile(filepath.Join(dir, name), 0o666, write); err != nil {
			return err
		}
	}
	return nil
}

type promptRow struct {
	Prompt string `json:"prompt"`
}

// texts are what the tokenizer learns from: all that is trained on, each text once, lest
// what stands in many rows be cut into fewer tokens than its equals.
func (c *Corpus) texts() iter.Seq[string] {
	return func(yield func(string) bool) {
		seen := map[string]bool{}
		once := func(text string) bool {
			if seen[text] {
				return true
			}
			seen[text] = true
			return yield(text)
		}
		for _, d := range c.Chats {
			for _, m := range d.Messages {
				if !once(m.Content) {
					return
				}
			}
		}
		for _, r := range c.Rankings {
			for _, a := range r.Answers {
				if !once(a) {
					return
				}
			}
		}
	}
}

// trainTokenizer writes the tokenizer's folder, unless it is there already, and returns its size.
func trainTokenizer(ctx context.Context, c *Corpus, dir string) (int, error) {
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err == nil {
		tok, err := tokenizer.LoadFolder(dir)
		if err != nil {
			return 0, err
		}
		return tok.Size(), nil
	}
	template, err := chat.Builtin("chatml")
	if err != nil {
		return 0, err
	}
	tok, err := tokenizer.Train(ctx, c.texts(), tokenizer.TrainOptions{VocabSize: vocabulary, MinFrequency: 2,
		SpecialTokens: []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, EOS: "<|endoftext|>", PAD: "<|endoftext|>", ChatTemplate: template.Text()})
	if err != nil {
		return 0, err
	}
	d, err := atomicfile.NewDir(dir)
	if err != nil {
		return 0, err
	}
	defer d.Abort()
	if err := tok.SaveFolder(d.Path()); err != nil {
		return 0, err
	}
	return tok.Size(), d.CommitReplace()
}

// train runs a stage's recipe, goes on with it, or leaves it where it is done.
func (o *Options) train(ctx context.Context, stage string) error {
	dir := filepath.Join(o.Dir, stage)
	if info, err := runs.ReadInfo(dir); err == nil && info.Status == "done" {
		return o.sameSeed(dir)
	}
	path := filepath.Join(o.Dir, "recipes", stage+".yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rec := train.NewRecipe(stage)
	if err := recipe.Decode(text, path, append([]string{fmt.Sprintf("seed=%d", o.Seed)}, o.Set[stage]...), rec); err != nil {
		return err
	}
	base, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := rec.Resolve(base); err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(dir, runs.RecipeFile))
	return train.Start(ctx, rec, train.Options{Objective: stage, Dir: dir, Resume: err == nil, Progress: o.Progress, Messages: o.Messages,
		Version: o.Version, Device: o.Device})
}

// sameSeed refuses to go on with a demo that was begun with another seed.
func (o *Options) sameSeed(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, runs.RecipeFile))
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("seed: %d", o.Seed); !slices.Contains(strings.Split(string(text), "\n"), want) {
		return fmt.Errorf("%s was begun with another seed than %d; give that one by --seed, or another folder by --dir", dir, o.Seed)
	}
	return nil
}
