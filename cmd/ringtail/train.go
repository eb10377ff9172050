package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"ringtail/recipe"
	"ringtail/runs"
	"ringtail/train"
)

type trainCmd struct {
	Pretrain trainPretrainCmd `cmd:"" help:"Language modelling on plain text, from scratch or continued"`
	Sft      trainSFTCmd      `cmd:"" name:"sft" help:"Supervised fine-tuning on conversations"`
	Reward   trainRewardCmd   `cmd:"" help:"A reward model, from pairs and rankings of answers"`
	PPO      trainPPOCmd      `cmd:"" name:"ppo" help:"Reinforcement learning from a reward model (PPO, with PTX)"`
}

type trainPretrainCmd struct{ trainFlags }

func (c *trainPretrainCmd) Run(e *env) error { return c.run(e, "pretrain") }

type trainSFTCmd struct{ trainFlags }

func (c *trainSFTCmd) Run(e *env) error { return c.run(e, "sft") }

type trainRewardCmd struct{ trainFlags }

func (c *trainRewardCmd) Run(e *env) error { return c.run(e, "reward") }

type trainPPOCmd struct{ trainFlags }

func (c *trainPPOCmd) Run(e *env) error { return c.run(e, "ppo") }

type trainFlags struct {
	Recipe    string     `arg:"" optional:"" placeholder:"RECIPE.yaml" help:"The recipe; paths in it are relative to it"`
	Dir       string     `placeholder:"DIR" help:"The run's folder; default: runs/NAME, after the recipe"`
	Resume    bool       `help:"Go on with the run in --dir from its last checkpoint"`
	Set       []string   `sep:"none" placeholder:"KEY=VALUE" help:"Override a key of the recipe: train.lr=1e-4; paths are relative to the recipe (may be given several times)"`
	Explain   bool       `help:"Print every key of a recipe and end"`
	Seed      *uint64    `placeholder:"N" help:"Same as --set seed=N"`
	Device    string     `placeholder:"auto|cpu|cuda:N" help:"Same as --set device=..."`
	GPUMemory memorySize `name:"gpu-memory" placeholder:"SIZE" help:"Most memory that the run's tensors may take on a GPU, such as 40GiB; default: all that is free"`
	Like      string     `placeholder:"RUN" help:"Folder of a run on a GPU whose algorithms of matrix products are taken: with its recipe, the same bytes"`
	Threads   int        `placeholder:"N" help:"Threads; default: all"`
	Quiet     bool       `help:"No progress"`
	JSON      bool       `help:"Progress as JSON lines"`
}

func (c *trainFlags) run(e *env, objective string) error {
	if c.Explain {
		return recipe.Explain(e.stdout, train.NewRecipe(objective))
	}
	if c.Like != "" && c.Resume {
		return usagef("--like is for a new run; --resume takes the algorithms of its own")
	}
	if c.Quiet && c.JSON {
		return usagef("--quiet and --json exclude each other")
	}
	if err := setThreads(c.Threads); err != nil {
		return err
	}
	rec, dir, err := c.read(objective)
	if err != nil {
		return err
	}
	opt := train.Options{Objective: objective, Dir: dir, Resume: c.Resume, Messages: e.stderr, Version: version, GPUMemory: int(c.GPUMemory), Like: c.Like}
	switch {
	case c.Quiet:
		opt.Progress = runs.ProgressQuiet
	case c.JSON:
		opt.Progress, opt.Messages = runs.ProgressJSON, e.stdout
	}
	// The first Ctrl-C, or SIGTERM, saves at the end of the step; a second one ends at once.
	ctx, stop := signal.NotifyContext(e.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err = train.Start(ctx, rec, opt)
	if errors.Is(err, train.ErrInterrupted) {
		fmt.Fprintf(e.stderr, "interrupted; the run is saved in %s. Go on with:\n  ringtail train %s --resume --dir %s\n", dir, objective, quoted(dir))
		return errQuiet
	}
	if err == nil && !c.Quiet && !c.JSON {
		fmt.Fprintf(e.stderr, "done: the model is in %s, the report in %s\n", filepath.Join(dir, runs.ModelDir), filepath.Join(dir, runs.ReportFile))
	}
	return err
}

// quoted writes a path so that a shell reads it as one word.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t\n'\"\\$`&|;<>()*?[]#~!{}") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}

// read reads the recipe, or with --resume alone that of the run.
func (c *trainFlags) read(objective string) (train.Recipe, string, error) {
	path, dir := c.Recipe, c.Dir
	switch {
	case path == "" && c.Resume && dir != "":
		path = filepath.Join(dir, runs.RecipeFile)
	case path == "":
		return nil, "", usagef("which recipe? give a RECIPE.yaml, or --resume with --dir")
	case dir == "":
		dir = filepath.Join("runs", strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("%s: no such recipe", path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("recipe: %w", err)
	}
	sets := c.Set
	if c.Seed != nil {
		sets = append(sets, fmt.Sprintf("seed=%d", *c.Seed))
	}
	if c.Device != "" {
		sets = append(sets, "device="+c.Device)
	}
	rec := train.NewRecipe(objective)
	if err := recipe.Decode(text, path, sets, rec); err != nil {
		return nil, "", err
	}
	if c.Recipe != "" { // a run's own recipe is resolved already
		base, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return nil, "", err
		}
		if err := rec.Resolve(base); err != nil {
			return nil, "", fmt.Errorf("%s: %w", path, err)
		}
	}
	return rec, dir, nil
}
