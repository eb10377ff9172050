package train

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ringtail/chat"
	"ringtail/data"
	"ringtail/engine"
	"ringtail/runs"
)

// stopwatch counts the seconds of a run over its interruptions.
type stopwatch struct {
	before float64
	start  time.Time
}

func newStopwatch(before float64) *stopwatch { return &stopwatch{before, time.Now()} }

func (s *stopwatch) seconds() float64 { return s.before + time.Since(s.start).Seconds() }

// noteStep collects a step's metrics; they are written, with those of an evaluation at the same
// step, by flush.
func (t *Trainer) noteStep(r stepResult, took float64, tokens int) {
	if t.state.Step%t.rec.Log.Every != 0 && t.state.Step != t.steps {
		return
	}
	t.add("time_s", t.state.Seconds)
	t.add("tokens", float64(t.state.Tokens))
	t.add("loss", r.loss)
	t.add("lr", r.lr)
	t.add("grad_norm", r.gradNorm)
	t.add("tok_per_s", float64(tokens)/max(took, 1e-9))
	t.add("mem_gib", float64(t.memory())/(1<<30))
	t.add("epoch", t.loader.Epoch())
	if t.state.Skipped > 0 {
		t.add("skipped", float64(t.state.Skipped))
	}
}

func (t *Trainer) noteEval(ev evaluation) {
	t.add("eval/loss", ev.loss)
	t.add("eval/accuracy", ev.accuracy)
}

func (t *Trainer) add(name string, v float64) { t.pending[name] = v }

// flush writes the metrics of the present step.
func (t *Trainer) flush() error {
	if len(t.pending) == 0 {
		return nil
	}
	t.progress.Step(t.state.Step, t.pending)
	err := t.run.Log(t.state.Step, t.pending)
	clear(t.pending)
	return err
}

// memory is the most device memory that the run has held, in bytes.
func (t *Trainer) memory() int {
	t.state.Memory = max(t.state.Memory, t.model.Store.Bytes()+t.arena.Size())
	return t.state.Memory
}

// samplePrompt is a prompt that is answered on the way.
type samplePrompt struct {
	text, reference string
	ids             []int32
}

// heldOutSamples is how many held-out rows are answered where the recipe names
// no prompts; a text is continued from its first prefixTokens tokens.
const (
	heldOutSamples = 3
	prefixTokens   = 16
)

// findPrompts encodes the recipe's sample prompts, or takes held-out rows up to
// where the assistant first speaks.
func (t *Trainer) findPrompts() error {
	for _, p := range t.rec.Samples.Prompts {
		var ids []int32
		var err error
		if t.pretrain {
			ids, err = t.text.EncodeText(p)
		} else {
			ids, err = t.text.EncodePrompt([]chat.Message{{Role: "user", Content: p}})
		}
		if err == nil && len(ids) == 0 {
			err = errors.New("an empty prompt")
		}
		if most := t.model.Config.MaxPositions; err == nil && len(ids) >= most {
			err = fmt.Errorf("a prompt of %d tokens leaves no room for an answer in the model's context of %d", len(ids), most)
		}
		if err != nil {
			return fmt.Errorf("samples.prompts: %w", err)
		}
		t.prompts = append(t.prompts, samplePrompt{text: p, ids: ids})
	}
	decode := func(ids []int32) string { return t.text.Tokenizer.Decode(ids, true) }
	for i := 0; len(t.rec.Samples.Prompts) == 0 && len(t.prompts) < heldOutSamples; i++ {
		s, ok := t.data.Sequence(i)
		if !ok {
			break
		}
		if !s.HeldOut || len(s.IDs) < 2 {
			continue
		}
		from := slices.Index(s.Trained, true)
		if t.pretrain {
			from = min(prefixTokens, len(s.IDs)/2)
		}
		if from < 1 {
			continue
		}
		to := from
		for to < len(s.IDs) && s.Trained[to] && to-from < t.rec.Samples.MaxTokens {
			to++
		}
		p := samplePrompt{text: decode(s.IDs[:from]), reference: decode(s.IDs[from:to]), ids: slices.Clone(s.IDs[:from])}
		if q := t.question(i, p.text); q != "" {
			p.text = q
		}
		t.prompts = append(t.prompts, p)
	}
	return nil
}

// sample answers the sample prompts with the present weights. The engine shares
// the trainer's arena: activations of a step aren't needed while it runs. Weights
// that have diverged give no answers: what is to be done then is the loop's to say.
func (t *Trainer) sample(ctx context.Context) ([]runs.Sample, error) {
	s := t.rec.Samples
	if s.Off || len(t.prompts) == 0 {
		return nil, nil
	}
	longest := 0
	for _, p := range t.prompts {
		longest = max(longest, len(p.ids))
	}
	capacity := min(longest+s.MaxTokens+1, t.model.Config.MaxPositions)
	e, err := engine.New(t.model, engine.Options{Slots: min(len(t.prompts), 8), Capacity: capacity, Arena: t.arena,
		EOS: t.text.StopIDs(), NewText: func() engine.TextDecoder { return t.text.Tokenizer.NewStream(true) }})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	var stops []string
	if !t.pretrain {
		stops = t.text.StopText()
	}
	answers := make([]runs.Sample, len(t.prompts))
	for i, p := range t.prompts {
		answers[i] = runs.Sample{Step: t.state.Step, Prompt: p.text, Reference: p.reference}
		_, err := e.Submit(p.ids, engine.Settings{MaxTokens: s.MaxTokens, Temperature: float32(s.Temperature), Stop: stops,
			Seed: t.rec.Seed + uint64(i)}, func(ev engine.Event) {
			answers[i].Completion += ev.Text
			answers[i].Finish = string(ev.Finish)
		})
		if err != nil {
			return nil, err
		}
	}
	for more := true; more; {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		more, err = e.Step()
		if errors.Is(err, engine.ErrNotFinite) {
			t.progress.Message("no samples at step %d: %v", t.state.Step, err)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// question is what the user asked in the row of a held-out sequence, where the sequence begins with it;
// rendered tells.
func (t *Trainer) question(i int, rendered string) string {
	if t.pretrain {
		return ""
	}
	row, err := t.data.Row(i)
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
	if !strings.Contains(rendered, last) {
		return ""
	}
	return last
}
