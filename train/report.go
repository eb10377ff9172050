package train

import "time"

// stopwatch counts the seconds of a run over its interruptions.
type stopwatch struct {
	before float64
	start  time.Time
}

func newStopwatch(before float64) *stopwatch { return &stopwatch{before, time.Now()} }

func (s *stopwatch) seconds() float64 { return s.before + time.Since(s.start).Seconds() }

// noteStep collects a step's metrics; they are written, with those of an evaluation at the same
// step, by flush.
func (t *Trainer) noteStep(r stepResult, took float64, memory int) {
	if t.state.Step%t.course.log.Every != 0 && t.state.Step != t.steps {
		return
	}
	t.add("time_s", t.state.Seconds)
	t.add("tokens", float64(t.state.Tokens))
	t.add("loss", r.loss)
	t.add("lr", r.lr)
	t.add("grad_norm", r.gradNorm)
	t.add("tok_per_s", float64(r.tokens)/max(took, 1e-9))
	t.add("mem_gib", float64(memory)/(1<<30))
	t.add("epoch", r.epoch)
	for name, v := range r.metrics {
		t.add(name, v)
	}
	if t.state.Skipped > 0 {
		t.add("skipped", float64(t.state.Skipped))
	}
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
	t.state.Memory = max(t.state.Memory, t.objective.bytes())
	return t.state.Memory
}
