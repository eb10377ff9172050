package engine

import (
	"fmt"
	"slices"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/tensor"
)

// bucketStep is the granularity of programs' sizes beyond 16 tokens: a step's
// tokens are filled up to a multiple, so that few programs serve all steps.
const bucketStep = 16

// program is a compiled step for a number of tokens and of sampled rows.
type program struct {
	tokens, rows                int
	ids, slots, positions, pick tensor.Tensor
	sampled, logProbs           tensor.Tensor
	logits                      *autograd.Var
	prog                        *autograd.Program
	buffers                     []*tensor.Buffer
	hostIDs, hostSlots, hostPos []int32
	hostPick                    []int32
}

func (p *program) free() {
	for _, b := range p.buffers {
		b.Free()
	}
}

// bucket rounds a number of tokens or rows up to a program's size.
func bucket(n int) int {
	if n <= bucketStep {
		return n
	}
	return (n + bucketStep - 1) / bucketStep * bucketStep
}

// program returns the compiled step for so many tokens and rows.
func (e *Engine) program(tokens, rows int) (*program, error) {
	key := [2]int{bucket(tokens), bucket(rows)}
	if p := e.programs[key]; p != nil {
		return p, nil
	}
	p := &program{tokens: key[0], rows: key[1]}
	defer tensor.Label(e.dev, "inputs")() // the program's activations have their own
	for _, x := range []struct {
		dst *tensor.Tensor
		d   tensor.Dtype
		n   int
	}{{&p.ids, tensor.I32, p.tokens}, {&p.slots, tensor.I32, p.tokens}, {&p.positions, tensor.I32, p.tokens},
		{&p.pick, tensor.I32, p.rows}, {&p.sampled, tensor.I32, p.rows}, {&p.logProbs, e.dev.Float().Wide(), p.rows}} {
		t, b, err := tensor.New(e.dev, x.d, x.n)
		if err != nil {
			p.free()
			return nil, err
		}
		*x.dst = t
		p.buffers = append(p.buffers, b)
	}
	p.hostIDs, p.hostSlots, p.hostPos = make([]int32, p.tokens), make([]int32, p.tokens), make([]int32, p.tokens)
	p.hostPick = make([]int32, p.rows)
	tape := autograd.NewTape(e.dev)
	h, err := e.m.Hidden(tape, model.Inputs{
		IDs: tape.Input("ids", p.ids), Positions: tape.Input("positions", p.positions), Slots: tape.Input("slots", p.slots),
		Cache: e.kv, Longest: e.opt.Capacity})
	if err == nil {
		p.logits = tape.Output(e.m.Logits(tape, tape.Gather(h, tape.Input("rows", p.pick))))
		p.prog, err = tape.Compile(e.arena, autograd.Options{})
	}
	if err != nil {
		p.free()
		return nil, err
	}
	e.programs[key] = p
	return p, nil
}

// part is what one slot contributes to a step.
type part struct {
	slot, from, n int
	last          bool // the prompt is read to its end: sample
}

// Step advances every running request by one token, reading prompts in chunks.
// It reports whether anything is left to do.
func (e *Engine) Step() (more bool, err error) {
	for slot, s := range e.seqs {
		if s != nil && s.req != nil && s.req.isCancelled() {
			text := ""
			if s.req.text != nil {
				text, _ = s.req.text.flush()
			}
			e.finish(slot, Event{ID: -1, Text: text, Finish: Cancelled})
		}
	}
	e.admit()
	parts, tokens := e.plan()
	if len(parts) == 0 {
		return e.Stats().Waiting > 0, nil // a cancelled request's sink may have submitted another
	}
	rows := 0
	for _, p := range parts {
		if p.last {
			rows++
		}
	}
	p, err := e.program(tokens, max(rows, 1))
	if err != nil {
		return false, err
	}
	e.fill(p, parts)
	p.prog.Forward()
	if rows > 0 {
		e.sample(p, parts, rows)
	}
	if err := e.dev.Sync(); err != nil {
		return false, err
	}
	for _, q := range parts {
		e.seqs[q.slot].cached += q.n
	}
	e.mu.Lock()
	e.stats.Steps++
	e.stats.NewTokens += rows
	e.mu.Unlock()
	return true, e.deliver(p, parts)
}

// plan chooses the tokens of the next step: first one token of every request
// that is generating, then as much of the unread prompts as the chunk holds, in
// the order in which they were admitted, so that newcomers can't starve them.
func (e *Engine) plan() (parts []part, tokens int) {
	e.order = e.order[:0]
	for slot, s := range e.seqs {
		if s != nil && s.req != nil {
			e.order = append(e.order, slot)
		}
	}
	slices.SortFunc(e.order, func(a, b int) int { return e.seqs[a].turn - e.seqs[b].turn })
	left := e.opt.Chunk
	for pass := range 2 {
		for _, slot := range e.order {
			s := e.seqs[slot]
			unread := len(s.ids) - s.cached
			if (unread == 1) != (pass == 0) || left == 0 {
				continue
			}
			n := min(unread, left)
			left -= n
			tokens += n
			parts = append(parts, part{slot, s.cached, n, n == unread})
		}
	}
	return parts, tokens
}

// fill writes a step's inputs; filler tokens go to the slot behind the last.
func (e *Engine) fill(p *program, parts []part) {
	at, row := 0, 0
	for _, q := range parts {
		s := e.seqs[q.slot]
		for i := range q.n {
			p.hostIDs[at] = s.ids[q.from+i]
			p.hostSlots[at] = int32(q.slot)
			p.hostPos[at] = int32(q.from + i)
			at++
		}
		if q.last {
			p.hostPick[row] = int32(at - 1)
			row++
		}
	}
	for i := at; i < p.tokens; i++ {
		p.hostIDs[i], p.hostSlots[i], p.hostPos[i] = 0, int32(e.opt.Slots), int32(i-at)
	}
	for ; row < p.rows; row++ {
		p.hostPick[row] = 0
	}
	tensor.SetInt32(p.ids, p.hostIDs)
	tensor.SetInt32(p.slots, p.hostSlots)
	tensor.SetInt32(p.positions, p.hostPos)
	tensor.SetInt32(p.pick, p.hostPick)
}

// sample draws the next token of each row.
func (e *Engine) sample(p *program, parts []part, rows int) {
	e.rows = e.rows[:0]
	for _, q := range parts {
		if !q.last {
			continue
		}
		r := e.seqs[q.slot].req
		s := r.settings
		row := tensor.SampleRow{Temperature: s.Temperature, TopP: s.TopP, MinP: s.MinP, TopK: s.TopK,
			RepetitionPenalty: s.RepetitionPenalty, Seen: r.seen, Uniform: r.stream.Float64At(uint64(r.made)),
			TemperedLogProb: s.TemperedLogProbs}
		r.banned = r.banned[:0]
		if s.IgnoreEOS || r.made < s.MinTokens {
			r.banned = append(r.banned, e.opt.EOS...)
		}
		if r.made < s.MinTokens {
			r.banned = append(r.banned, s.StopIDs...)
		}
		row.Banned = r.banned
		e.rows = append(e.rows, row)
	}
	e.dev.Ops().Sample(tensor.Sample{IDs: p.sampled.Slice(0, rows), LogProbs: p.logProbs.Slice(0, rows),
		Logits: p.logits.Value().Slice(0, rows), Rows: e.rows})
}

// deliver hands the sampled tokens to their sinks.
func (e *Engine) deliver(p *program, parts []part) (err error) {
	if len(e.rows) == 0 {
		return nil
	}
	ids, logProbs := tensor.GetInt32(p.sampled), tensor.GetFloat32(p.logProbs)
	row := 0
	for _, q := range parts {
		if !q.last {
			continue
		}
		id, lp := ids[row], logProbs[row]
		row++
		s := e.seqs[q.slot]
		r := s.req
		if id < 0 { // end this request; the others of the step go on
			err = fmt.Errorf("%w after %d tokens: its weights are broken or diverged", ErrNotFinite, len(s.ids))
			e.finish(q.slot, Event{ID: -1, Finish: Failed})
			continue
		}
		r.made++
		r.saw(id)
		s.ids = append(s.ids, id)
		ev := Event{ID: id, LogProb: lp}
		special := !r.settings.IgnoreEOS && slices.Contains(e.opt.EOS, id) || slices.Contains(r.settings.StopIDs, id)
		if special {
			ev.Finish = Stop
		} else if r.settings.MaxTokens > 0 && r.made >= r.settings.MaxTokens || len(s.ids) >= e.opt.Capacity {
			ev.Finish = Length
		}
		if r.text != nil {
			stopped := false
			if !special {
				ev.Text, stopped = r.text.push(id)
			}
			if ev.Finish != Running && !stopped {
				var rest string
				rest, stopped = r.text.flush()
				ev.Text += rest
			}
			if stopped {
				ev.Finish = Stop
			}
		}
		if ev.Finish != Running {
			e.finish(q.slot, ev)
		} else {
			r.sink(ev)
		}
	}
	e.rows = e.rows[:0]
	return err
}
