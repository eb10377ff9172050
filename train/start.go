package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ringtail/data"
	"ringtail/device"
	"ringtail/recipe"
	"ringtail/runs"
	"ringtail/tensor"
)

// Options say how a recipe is run.
type Options struct {
	Objective string // one of Objectives
	Dir       string // the run's folder
	Resume    bool   // go on with the run in Dir
	Progress  runs.ProgressMode
	Messages  io.Writer // where progress is printed
	Version   string    // of this program, kept in run.json
	// Device computes; nil: the one that the recipe names.
	Device tensor.Device
	// GPUMemory is the most bytes that a GPU's tensors may take; 0: what it has.
	GPUMemory int
	// Like is the folder of a run whose algorithms of matrix products are taken again on a
	// GPU: from the same recipe, the same bytes.
	Like string
}

// Start trains by a recipe into a run folder, or goes on with a run that was
// interrupted. Nothing is written before data, models and recipe have been read and
// found fit. When ctx ends the run is saved and ErrInterrupted returned.
func Start(ctx context.Context, rec Recipe, opt Options) error {
	if err := rec.Check(); err != nil {
		return err
	}
	resolved, err := recipe.Marshal(rec)
	if err != nil {
		return err
	}
	var run *runs.Run
	if opt.Resume {
		if run, err = runs.Open(opt.Dir); err != nil {
			return err
		}
		defer run.Close()
		if err := sameRun(opt, resolved); err != nil {
			return err
		}
	} else if _, err := os.Stat(filepath.Join(opt.Dir, runs.RecipeFile)); err == nil {
		return fmt.Errorf("%s holds a run already; go on with it by --resume, or name another folder by --dir", opt.Dir)
	}
	t, err := newTrainer(ctx, rec, opt)
	if err != nil {
		return err
	}
	defer t.Close()
	if !opt.Resume {
		if run, err = runs.Create(opt.Dir); err != nil {
			return err
		}
		defer run.Close()
		if err := run.WriteRecipe(resolved); err != nil {
			return err
		}
	}
	t.run = run
	t.run.SetTensorBoard(t.course.log.TensorBoard)
	t.progress = runs.NewProgress(opt.Messages, opt.Progress, t.steps)
	t.objective.common().say = t.progress.Message
	defer t.progress.Close()
	if opt.Resume {
		if err := t.restore(); err != nil {
			return err
		}
		from := t.state.Step
		if t.state.EvalStep < 0 {
			from = -1
		}
		if err := t.run.Resume(from); err != nil {
			return err
		}
	}
	return t.conduct(ctx, opt)
}

// newTrainer loads what a recipe names and stands before the first step, without a
// run folder.
func newTrainer(ctx context.Context, rec Recipe, opt Options) (*Trainer, error) {
	dev, note := opt.Device, ""
	var opened tensor.Device
	if dev == nil {
		name, how := rec.place()
		how.Memory = opt.GPUMemory
		var err error
		if dev, note, err = device.Open(name, how); err != nil {
			return nil, err
		}
		opened = dev
	}
	if err := likeRun(dev, opt); err != nil {
		device.Close(opened)
		return nil, err
	}
	t := &Trainer{opened: opened, objective: rec.objective(dev, opt.Objective), course: rec.course(), dir: opt.Dir}
	t.objective.common().say = func(string, ...any) {}
	t.note = note
	err := t.objective.load(ctx)
	if err == nil {
		err = t.prepare()
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// conduct runs the training and keeps run.json and the report up to date.
func (t *Trainer) conduct(ctx context.Context, opt Options) error {
	info := runs.Info{Objective: opt.Objective, Steps: t.steps, Version: opt.Version, Started: time.Now().UTC().Truncate(time.Second), Status: "running",
		Device: device.Describe(t.objective.common().dev)}
	about := t.objective.describe(&info)
	if t.note != "" {
		about += "\n" + t.note
	}
	if err := t.run.WriteInfo(info); err != nil {
		return err
	}
	for i, line := range strings.Split(about, "\n") {
		if i == 0 {
			line = fmt.Sprintf("%s: %d steps; %s", opt.Objective, t.steps, line)
		}
		t.progress.Message("%s", line)
	}
	if t.state.Step > 0 {
		t.progress.Message("going on after step %d", t.state.Step)
	}
	err := t.Run(ctx)
	if !device.Fault(err) {
		err = errors.Join(err, t.keepAlgorithms())
	}
	info.Ended, info.Exported = time.Now().UTC().Truncate(time.Second), t.exported
	switch {
	case err == nil:
		info.Status = "done"
		if t.ended != "" {
			info.Note = fmt.Sprintf("ended after step %d: %s", t.state.Step, t.ended)
		}
	case errors.Is(err, ErrInterrupted):
		info.Status = "stopped"
		info.Note = fmt.Sprintf("interrupted after step %d", t.state.Step)
	default:
		if device.Fault(err) {
			err = fmt.Errorf("%w; %s", err, t.lastSaved())
		}
		info.Status, info.Note = "failed", err.Error()
	}
	return errors.Join(err, t.run.WriteInfo(info), runs.WriteReport(opt.Dir))
}

// lastSaved says from where a run that failed can go on.
func (t *Trainer) lastSaved() string {
	steps, err := savedSteps(t.dir)
	if err != nil || len(steps) == 0 {
		return fmt.Sprintf("it failed after step %d, before the first checkpoint", t.state.Step)
	}
	return fmt.Sprintf("it failed after step %d; the last checkpoint is %s, from which --resume --dir %s goes on", t.state.Step,
		t.checkpointDir(steps[len(steps)-1]), t.dir)
}

// sameRun refuses to go on with a run by another recipe or of another objective.
func sameRun(opt Options, resolved []byte) error {
	if err := sameRecipe(opt.Dir, resolved); err != nil {
		return err
	}
	info, err := runs.ReadInfo(opt.Dir)
	if err != nil {
		return err
	}
	if info.Objective != "" && info.Objective != opt.Objective {
		return fmt.Errorf("%s is a run of train %s; go on with it by: train %s --resume", opt.Dir, info.Objective, info.Objective)
	}
	return nil
}

// sameRecipe refuses to go on with a run by another recipe.
func sameRecipe(dir string, resolved []byte) error {
	file := filepath.Join(dir, runs.RecipeFile)
	was, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	old, now := bytes.Split(was, []byte("\n")), bytes.Split(resolved, []byte("\n"))
	for i := range max(len(old), len(now)) {
		var a, b []byte
		if i < len(old) {
			a = old[i]
		}
		if i < len(now) {
			b = now[i]
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%s:%d: the run was begun with %q, the recipe now says %q; go on with the same recipe, or begin another run",
				file, i+1, bytes.TrimSpace(a), bytes.TrimSpace(b))
		}
	}
	return nil
}

// count writes a number of parameters for people.
func count(n int) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0fK", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}

// skipped says how many rows are not used and why, "" if all are.
func skipped(s *data.SourceStats) string {
	var parts []string
	for reason, tally := range s.Skipped {
		part := fmt.Sprintf("%d rows (%s)", tally.Count, reason)
		if len(tally.Examples) > 0 {
			part = fmt.Sprintf("%d rows (%s, first %s)", tally.Count, reason, tally.Examples[0])
		}
		parts = append(parts, part)
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// skippedIn is skipped in parentheses, where there is anything to say.
func skippedIn(s *data.SourceStats) string {
	if text := skipped(s); text != "" {
		return " (" + text + ")"
	}
	return ""
}
