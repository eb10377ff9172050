package main

import (
	"fmt"
	"slices"
	"time"

	"ringtail/device"
	"ringtail/engine"
	"ringtail/folder"
	"ringtail/gguf"
	"ringtail/model"
	"ringtail/tensor"
)

// assistant is a model ready to generate.
type assistant struct {
	dev    tensor.Device
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
	dev, note, err := device.Open(f.Device, device.Options{Dtype: f.Dtype})
	if err != nil {
		return nil, err
	}
	a := &assistant{dev: dev, text: text}
	opened := false
	defer func() {
		if !opened {
			a.close()
		}
	}()
	if note != "" {
		fmt.Fprintln(e.stderr, note)
	}
	m, err := model.Load(f.Model, dev, model.Options{Head: model.CausalLM})
	if err != nil {
		return nil, err
	}
	a.model = m
	if n := text.Tokenizer.Size(); n > m.Config.Vocab {
		return nil, fmt.Errorf("%s: the tokenizer has %d tokens, the model only %d rows: they don't belong together", f.Model, n, m.Config.Vocab)
	}
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
		return nil, err
	}
	opened = true
	return a, nil
}

func (a *assistant) close() {
	if a.engine != nil {
		a.engine.Close()
	}
	if a.model != nil {
		a.model.Free()
	}
	device.Close(a.dev)
}

// seedOf is the seed that was asked for, or one that differs each time.
func seedOf(seed *uint64) uint64 {
	if seed != nil {
		return *seed
	}
	return uint64(time.Now().UnixNano())
}
