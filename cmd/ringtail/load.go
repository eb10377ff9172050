package main

import (
	"fmt"
	"slices"
	"time"

	"ringtail/engine"
	"ringtail/folder"
	"ringtail/gguf"
	"ringtail/model"
	"ringtail/tensor/cpu"
)

// assistant is a model ready to generate.
type assistant struct {
	model  *model.Model
	text   *folder.Text
	engine *engine.Engine
	stops  []string // of the chat template
}

// open loads a model with its tokenizer and template.
func (f modelFlags) open(e *env, context int, chatting bool) (*assistant, error) {
	run, err := e.findModel(f.Model)
	if err != nil {
		return nil, err
	}
	f.Model = run.Dir
	if !gguf.Is(f.Model) {
		if _, err := model.LoadConfig(f.Model); err != nil { // the first thing that a folder must have
			return nil, err
		}
	}
	text, err := folder.Open(f.Model, run.Tokenizer, f.Template)
	if err != nil {
		return nil, err
	}
	m, err := model.Load(f.Model, cpu.New(), model.Options{Head: model.CausalLM})
	if err != nil {
		return nil, err
	}
	if n := text.Tokenizer.Size(); n > m.Config.Vocab {
		m.Free()
		return nil, fmt.Errorf("%s: the tokenizer has %d tokens, the model only %d rows: they don't belong together", f.Model, n, m.Config.Vocab)
	}
	a := &assistant{model: m, text: text}
	opt := engine.Options{Slots: 1, Capacity: context, ReusePrefix: chatting,
		NewText: func() engine.TextDecoder { return text.Tokenizer.NewStream(true) }}
	for _, id := range m.Config.EOS {
		opt.EOS = append(opt.EOS, int32(id))
	}
	if id, ok := text.Tokenizer.EOS(); ok && !slices.Contains(opt.EOS, id) {
		opt.EOS = append(opt.EOS, id)
	}
	if chatting {
		for _, id := range text.StopIDs() {
			if !slices.Contains(opt.EOS, id) {
				opt.EOS = append(opt.EOS, id)
			}
		}
		a.stops = text.StopText()
	}
	if a.engine, err = engine.New(m, opt); err != nil {
		m.Free()
		return nil, err
	}
	return a, nil
}

func (a *assistant) close() {
	a.engine.Close()
	a.model.Free()
}

// seedOf is the seed that was asked for, or one that differs each time.
func seedOf(seed *uint64) uint64 {
	if seed != nil {
		return *seed
	}
	return uint64(time.Now().UnixNano())
}
