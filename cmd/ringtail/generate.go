package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"ringtail/engine"
)

type generateCmd struct {
	modelFlags
	sampleFlags
	Prompt string `placeholder:"TEXT" help:"Text to continue; default: standard input"`
	JSON   bool   `help:"Print one JSON object: text, tokens, log-probabilities, finish reason"`
}

// generated is what --json prints.
type generated struct {
	Text         string    `json:"text"`
	Tokens       []int32   `json:"tokens"`
	LogProbs     []float32 `json:"logprobs"`
	Finish       string    `json:"finish_reason"`
	PromptTokens int       `json:"prompt_tokens"`
}

func (c *generateCmd) Run(e *env) error {
	if err := c.apply(); err != nil {
		return err
	}
	prompt := c.Prompt
	if prompt == "" {
		b, err := io.ReadAll(e.stdin)
		if err != nil {
			return err
		}
		prompt = string(b)
	}
	if prompt == "" {
		return usagef("no prompt: give --prompt TEXT or write it to standard input")
	}
	a, err := c.open(e, c.Context, false)
	if err != nil {
		return err
	}
	defer a.close()
	ids, err := a.text.EncodeText(prompt)
	if err != nil {
		return err
	}
	out := generated{PromptTokens: len(ids), Tokens: []int32{}, LogProbs: []float32{}}
	var failed error
	r, err := a.engine.Submit(ids, c.settings(nil), func(ev engine.Event) {
		out.Text += ev.Text
		out.Finish = string(ev.Finish)
		if ev.ID >= 0 {
			out.Tokens, out.LogProbs = append(out.Tokens, ev.ID), append(out.LogProbs, ev.LogProb)
		}
		if !c.JSON && failed == nil {
			_, failed = io.WriteString(e.stdout, ev.Text)
		}
	})
	if errors.Is(err, engine.ErrContext) {
		return fmt.Errorf("%w; shorten it or raise --context", err)
	}
	if err != nil {
		return usageError{err}
	}
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	defer signal.Stop(interrupt)
	for more := true; more && failed == nil; {
		select {
		case <-interrupt:
			a.engine.Cancel(r)
		case <-e.ctx.Done():
			a.engine.Cancel(r)
		default:
		}
		if more, err = a.engine.Step(); err != nil {
			return err
		}
	}
	if failed != nil {
		return failed
	}
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(out)
	}
	_, err = fmt.Fprintln(e.stdout)
	return err
}
