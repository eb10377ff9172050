package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"ringtail/chat"
	"ringtail/data"
	"ringtail/engine"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/runs"
)

// samplePrompt is a prompt that is answered on the way.
type samplePrompt struct {
	text, reference string
	ids             []int32
}

// scoreOf is a sample's score; one that isn't finite is none.
func scoreOf(score float64) *float64 {
	if math.IsNaN(score) || math.IsInf(score, 0) {
		return nil
	}
	return &score
}

// prefixTokens is how much of a text is given, to be continued.
const prefixTokens = 16

// encodePrompts encodes the recipe's sample prompts.
func (s *Samples) encodePrompts(text *folder.Text, c *model.Config, plain bool) ([]samplePrompt, error) {
	var out []samplePrompt
	for _, p := range s.Prompts {
		var ids []int32
		var err error
		if plain {
			ids, err = text.EncodeText(p)
		} else {
			ids, err = text.EncodePrompt([]chat.Message{{Role: "user", Content: p}})
		}
		if err == nil && len(ids) == 0 {
			err = errors.New("an empty prompt")
		}
		if err == nil && len(ids) >= c.MaxPositions {
			err = fmt.Errorf("a prompt of %d tokens leaves no room for an answer in the model's context of %d", len(ids), c.MaxPositions)
		}
		if err != nil {
			return nil, fmt.Errorf("samples.prompts: %w", err)
		}
		out = append(out, samplePrompt{text: p, ids: ids})
	}
	return out, nil
}

// findPrompts encodes the recipe's sample prompts, or takes held-out rows up to
// where the assistant first speaks.
func (l *language) findPrompts() ([]samplePrompt, error) {
	s := &l.rec.Samples
	prompts, err := s.encodePrompts(l.text, l.model.Config, l.pretrain)
	if err != nil || len(prompts) > 0 {
		return prompts, err
	}
	decode := func(ids []int32) string { return l.text.Tokenizer.Decode(ids, true) }
	for i := 0; len(prompts) < s.Rows; i++ {
		q, ok := l.data.Sequence(i)
		if !ok {
			break
		}
		if !q.HeldOut || len(q.IDs) < 2 {
			continue
		}
		from := slices.Index(q.Trained, true)
		if l.pretrain {
			from = min(prefixTokens, len(q.IDs)/2)
		}
		if from < 1 {
			continue
		}
		to := from
		for to < len(q.IDs) && q.Trained[to] && to-from < s.MaxTokens {
			to++
		}
		p := samplePrompt{text: decode(q.IDs[:from]), reference: decode(q.IDs[from:to]), ids: slices.Clone(q.IDs[:from])}
		if asked := question(l.data, i); !l.pretrain && asked != "" && strings.Contains(p.text, asked) {
			p.text = asked
		}
		prompts = append(prompts, p)
	}
	return prompts, nil
}

// question is what the user last asked before the assistant first speaks in the row
// of sequence i, "" where that isn't known.
func question(set *data.Dataset, i int) string {
	row, err := set.Row(i)
	if err != nil {
		return "" // the rendered text will do
	}
	last := ""
	for _, m := range row.Messages {
		if m.Role == data.RoleAssistant {
			break
		}
		last = m.Content
	}
	return last
}

// sample answers the sample prompts with the present weights. The engine shares
// the trainer's arena: activations of a step aren't needed while it runs. Weights
// that have diverged give no answers: what is to be done then is the loop's to say.
func (l *language) sample(ctx context.Context, step int) ([]runs.Sample, error) {
	s := l.rec.Samples
	if s.Off || len(l.prompts) == 0 {
		return nil, nil
	}
	longest := 0
	for _, p := range l.prompts {
		longest = max(longest, len(p.ids))
	}
	capacity := min(longest+s.MaxTokens+1, l.model.Config.MaxPositions)
	e, err := engine.New(l.model, engine.Options{Slots: min(len(l.prompts), 8), Capacity: capacity, Arena: l.arena,
		EOS: l.text.StopIDs(), NewText: func() engine.TextDecoder { return l.text.Tokenizer.NewStream(true) }})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	var stops []string
	if !l.pretrain {
		stops = l.text.StopText()
	}
	answers := make([]runs.Sample, len(l.prompts))
	for i, p := range l.prompts {
		answers[i] = runs.Sample{Step: step, Prompt: p.text, Reference: p.reference}
		_, err := e.Submit(p.ids, engine.Settings{MaxTokens: s.MaxTokens, Temperature: float32(s.Temperature), Stop: stops,
			Seed: l.rec.Seed + uint64(i)}, func(ev engine.Event) {
			answers[i].Completion += ev.Text
			answers[i].Finish = string(ev.Finish)
		})
		if err != nil {
			return nil, err
		}
	}
	if err := runEngine(ctx, e); errors.Is(err, engine.ErrNotFinite) {
		l.say("no samples at step %d: %v", step, err)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	return answers, nil
}

// runEngine steps an engine until no request is left, or ctx ends.
func runEngine(ctx context.Context, e *engine.Engine) error {
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		more, err := e.Step()
		if err != nil || !more {
			return err
		}
	}
}
