package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"ringtail/atomicfile"
	"ringtail/runs"
)

const stateFile = "state.json"

// figures are metrics as state.json keeps them. JSON has no NaN and no infinity, which
// those of a run that diverges may be: they stand there as strings.
type figures map[string]float64

func (f figures) MarshalJSON() ([]byte, error) {
	out := make(map[string]any, len(f))
	for name, v := range f {
		if out[name] = v; math.IsNaN(v) || math.IsInf(v, 0) {
			out[name] = fmt.Sprint(v)
		}
	}
	return json.Marshal(out)
}

func (f *figures) UnmarshalJSON(text []byte) error {
	var in map[string]any
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*f = make(figures, len(in))
	for name, v := range in {
		x, err := strconv.ParseFloat(fmt.Sprint(v), 64)
		if err != nil {
			return fmt.Errorf("%s: %v is not a number", name, v)
		}
		(*f)[name] = x
	}
	return nil
}

func (t *Trainer) checkpointDir(step int) string {
	return filepath.Join(t.dir, runs.CheckpointsDir, fmt.Sprintf("step-%d", step))
}

// save writes a checkpoint of the present step, complete or not at all, and
// removes those that are no longer kept.
func (t *Trainer) save() error {
	d, err := atomicfile.NewDir(t.checkpointDir(t.state.Step))
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	defer d.Abort()
	kept, err := t.objective.save(d.Path())
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	t.memory()
	s := t.state
	if math.IsInf(s.Best, 0) {
		s.Best = math.MaxFloat64 // JSON has no infinity
	}
	if s.Objective, err = json.Marshal(kept); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), stateFile), append(text, '\n'), 0o666); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := errors.Join(t.keepAlgorithms(), t.run.Sync()); err != nil {
		return err
	}
	if err := d.CommitReplace(); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return t.prune()
}

// prune removes checkpoints but the latest and the best.
func (t *Trainer) prune() error {
	steps, err := savedSteps(t.dir)
	if err != nil {
		return err
	}
	for i, s := range steps {
		if i >= len(steps)-t.course.checkpoint.Keep || s == t.state.BestStep {
			continue
		}
		if err := os.RemoveAll(t.checkpointDir(s)); err != nil {
			return err
		}
	}
	return nil
}

// savedSteps lists the steps of a run's checkpoints, ascending.
func savedSteps(dir string) ([]int, error) {
	list, err := os.ReadDir(filepath.Join(dir, runs.CheckpointsDir))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range list {
		if n, ok := strings.CutPrefix(e.Name(), "step-"); ok {
			if s, err := strconv.Atoi(n); err == nil && s >= 0 {
				out = append(out, s)
			}
		}
	}
	sort.Ints(out)
	return out, nil
}

// restore puts the trainer where the run's last checkpoint was taken.
func (t *Trainer) restore() error {
	if err := atomicfile.Clean(filepath.Join(t.dir, runs.CheckpointsDir)); err != nil {
		return err
	}
	steps, err := savedSteps(t.dir)
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		t.progress.Message("no checkpoint yet: the run begins anew")
		return nil
	}
	dir := t.checkpointDir(steps[len(steps)-1])
	path := filepath.Join(dir, stateFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	s := position{}
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if s.Best == math.MaxFloat64 {
		s.Best = math.Inf(1)
	}
	if err := t.objective.restore(dir, s.Objective); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.Objective = nil
	t.state = s
	return nil
}
