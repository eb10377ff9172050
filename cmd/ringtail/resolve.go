package main

import (
	"fmt"

	"ringtail/hub"
	"ringtail/model"
)

// findModel finds what a person calls a model: a path, ORG/NAME in the hub's cache, or a
// folder that ColossalChat's training left. A word about the choice goes to the terminal.
func (e *env) findModel(name string) (model.Run, error) {
	path, err := hub.Resolve(name)
	if err != nil {
		return model.Run{}, err
	}
	run, err := model.FindRun(path)
	if err == nil && run.Note != "" {
		fmt.Fprintln(e.stderr, run.Note)
	}
	return run, err
}

// findTokenizer is findModel where only the tokenizer is of interest.
func (e *env) findTokenizer(name string) (string, error) {
	run, err := e.findModel(name)
	if run.Tokenizer != "" {
		return run.Tokenizer, err
	}
	return run.Dir, err
}
