// Command ringtail trains and serves chat models: data, supervised fine-tuning,
// generation and chat, in one program. `ringtail --help` lists its commands, one
// file each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1 // a missing, broken or unfit file, model or recipe
	exitUsage  = 2 // an unknown command or flag, a malformed value, a refused combination
)

// cli is the command line.
type cli struct {
	Demo      demoCmd      `cmd:"" help:"The three stages of ChatGPT on a tiny model, in minutes: start here"`
	Train     trainCmd     `cmd:"" help:"Train a model from a recipe"`
	Generate  generateCmd  `cmd:"" help:"Continue a prompt"`
	Chat      chatCmd      `cmd:"" help:"Chat with a model in the terminal"`
	Data      dataCmd      `cmd:"" help:"Look at training data"`
	Tokenizer tokenizerCmd `cmd:"" help:"Train and use tokenizers"`
	Convert   convertCmd   `cmd:"" help:"Write a model as GGUF, or as a folder for transformers"`
	Pull      pullCmd      `cmd:"" help:"Download a model or data set from the hub"`
	List      listCmd      `cmd:"" help:"Models and data sets in the hub's cache"`
	Show      showCmd      `cmd:"" help:"What a model is: architecture, size, context, template, licence"`
	Rm        rmCmd        `cmd:"" help:"Remove a model or data set from the hub's cache"`
	Bench     benchCmd     `cmd:"" help:"Measure this machine: matrix products, training"`
	Doctor    doctorCmd    `cmd:"" help:"What this machine offers"`
	Version   versionCmd   `cmd:"" help:"Version of this program"`
}

// env is what a command may use of the outside world.
type env struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
}

// usageError is a wrong use of the command line that its parser can't see.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// quietError ends the program with exit code 1 without another word.
var errQuiet = errors.New("")

func main() {
	os.Exit(run(&env{ctx: context.Background(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:]))
}

// run is the program.
func run(e *env, args []string) int {
	var c cli
	exited, code := false, exitDone
	parser, err := kong.New(&c, kong.Name("ringtail"),
		kong.Description("Your own chat model: data, training, generation, chat."),
		kong.Writers(e.stdout, e.stderr), kong.Exit(func(n int) { exited, code = true, n }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(e.stderr, "ringtail:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if exited {
		return code
	}
	if err != nil {
		text := err.Error()
		if strings.HasPrefix(text, "unexpected argument "+args[0]) {
			text = strings.Replace(text, "unexpected argument", "unknown command", 1)
		}
		fmt.Fprintf(e.stderr, "ringtail: %s; see: ringtail --help\n", text)
		return exitUsage
	}
	err = k.Run(e)
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errQuiet):
		return exitFailed
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(e.stderr, "ringtail: interrupted")
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(e.stderr, "ringtail: %v; see: ringtail %s --help\n", err, k.Command())
		return exitUsage
	}
	fmt.Fprintf(e.stderr, "ringtail: %s\n", shorten(err.Error()))
	return exitFailed
}

// shorten keeps an error to four lines.
func shorten(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > 4 {
		lines = append(lines[:3], fmt.Sprintf("(and %d lines more)", len(lines)-3))
	}
	return strings.Join(lines, "\n")
}
