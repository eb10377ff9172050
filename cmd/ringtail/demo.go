package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/term"

	"ringtail/demo"
	"ringtail/runs"
	"ringtail/train"
)

type demoCmd struct {
	Dir     string `default:"runs/demo" placeholder:"DIR" help:"Where it goes"`
	Seed    uint64 `placeholder:"N" help:"Fixes everything that is random"`
	NoServe bool   `help:"End with the report: no chat afterwards"`
	Threads int    `placeholder:"N" help:"Threads; default: all"`
	Quiet   bool   `help:"No progress"`
	JSON    bool   `help:"The report on standard output, as JSON; no chat"`
}

// started is when the program began.
var started = time.Now()

func (c *demoCmd) Run(e *env) error {
	if err := setThreads(c.Threads); err != nil {
		return err
	}
	opt := demo.Options{Dir: c.Dir, Seed: c.Seed, Messages: e.stderr, Version: version, Started: started}
	if c.Quiet || c.JSON {
		opt.Progress = runs.ProgressQuiet
	}
	ctx, stop := signal.NotifyContext(e.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	r, err := demo.Run(ctx, opt)
	if errors.Is(err, train.ErrInterrupted) || err != nil && ctx.Err() != nil {
		fmt.Fprintf(e.stderr, "interrupted; go on with:\n  ringtail demo --dir %s --seed %d\n", quoted(c.Dir), c.Seed)
		return errQuiet
	}
	if err != nil {
		return err
	}
	if c.JSON {
		text, err := os.ReadFile(filepath.Join(c.Dir, demo.ReportFile))
		if err != nil {
			return err
		}
		_, err = e.stdout.Write(text)
		return err
	}
	if !c.Quiet {
		r.Print(e.stdout, c.Dir)
	}
	stop() // Ctrl-C in the chat stops an answer, not the chat
	in, ok := e.stdin.(*os.File)
	if c.NoServe || !ok || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	chat := chatCmd{modelFlags: modelFlags{Model: filepath.Join(c.Dir, "ppo", runs.ModelDir)}}
	chat.MaxTokens, chat.Temperature, chat.TopP = 96, 0.7, 1
	return chat.Run(e)
}
