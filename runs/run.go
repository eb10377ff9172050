// Package runs keeps a run folder: what a training run leaves behind, and what
// it needs to go on after it was killed.
//
//	recipe.yaml      the resolved recipe
//	run.json         what was run on what: Info
//	metrics.jsonl    one object a step
//	samples.jsonl    what the model answered, at some steps
//	events.out.*     the same for TensorBoard
//	checkpoints/     step-N folders, complete or absent (written by package train)
//	model/           the result, a Hugging Face folder (written by package train)
//	critic/          a PPO run's value model, such a folder too
//	report.html      one page to look at; made from the files above at any time
//	.lock            held while a process trains into the folder
//
// Everything but the lock can be read while the run goes on, and nothing is
// lost when it is killed: files that grow do so by whole lines, and a line cut
// short is dropped when the run is resumed; other files are replaced whole.
package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"ringtail/atomicfile"
)

// Names in a run folder.
const (
	RecipeFile     = "recipe.yaml"
	InfoFile       = "run.json"
	AlgorithmsFile = "gemm.json" // of matrix products on a GPU
	MetricsFile    = "metrics.jsonl"
	SamplesFile    = "samples.jsonl"
	ReportFile     = "report.html"
	CheckpointsDir = "checkpoints"
	ModelDir       = "model"
	CriticDir      = "critic" // a PPO run's value model
)

// Info is run.json: what the report says about a run beside its curves.
type Info struct {
	Objective  string    `json:"objective"`           // "sft", "ppo", ...
	Model      string    `json:"model,omitempty"`     // what the run starts from
	Device     string    `json:"device,omitempty"`    // "cpu (AMD EPYC 9B14, 2 threads)", ...
	Parameters int64     `json:"parameters"`          // all, frozen ones too
	Trainable  int64     `json:"trainable,omitempty"` // 0: all of them
	Steps      int       `json:"steps,omitempty"`     // planned; 0: unknown
	Version    string    `json:"version,omitempty"`   // of Ringtail
	Started    time.Time `json:"started,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
	Status     string    `json:"status,omitempty"` // "running", "done", "stopped", "failed"
	Note       string    `json:"note,omitempty"`   // why it stopped or failed
	// Exported is the step whose weights are the result, where it isn't the last.
	Exported int `json:"exported,omitempty"`
}

// Run is a run folder that this process trains into. Its methods may be called
// from several goroutines.
type Run struct {
	dir  string
	lock *lock

	mu       sync.Mutex
	metrics  *lines
	samples  *lines
	events   *events // nil until something is logged
	noEvents bool
	purge    int64 // first step that TensorBoard is to forget; -1: none
	closed   bool
}

// Create makes a run folder and locks it. A folder that holds a run already is
// refused, as is one that another process trains into.
func Create(dir string) (*Run, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("run folder: %w", err)
	}
	r, err := open(dir)
	if err != nil {
		return nil, err
	}
	if what := r.holds(); what != "" {
		r.Close()
		return nil, fmt.Errorf("%s holds a run already (%s is there): resume it, or choose another folder", dir, what)
	}
	return r, nil
}

// Open locks the folder of a run that was begun before, to go on with it. What
// a killed process left half-written there is removed. Call Resume before
// logging.
func Open(dir string) (*Run, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a run folder: there is no such folder", dir)
	}
	r, err := open(dir)
	if err != nil {
		return nil, err
	}
	if r.holds() == "" {
		r.Close()
		return nil, fmt.Errorf("%s is not a run folder: it holds neither %s nor %s", dir, RecipeFile, MetricsFile)
	}
	return r, nil
}

func open(dir string) (*Run, error) {
	l, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	// The lock says that nobody else writes here.
	for _, parent := range []string{dir, filepath.Join(dir, CheckpointsDir)} {
		if err := atomicfile.Clean(parent); err != nil {
			l.release()
			return nil, err
		}
	}
	return &Run{dir: dir, lock: l, purge: -1}, nil
}

// holds names a file of an earlier run, or gives "".
func (r *Run) holds() string {
	for _, name := range []string{RecipeFile, MetricsFile, SamplesFile, CheckpointsDir, ModelDir, CriticDir} {
		if _, err := os.Lstat(filepath.Join(r.dir, name)); err == nil {
			return name
		}
	}
	return ""
}

// Dir is the folder.
func (r *Run) Dir() string { return r.dir }

// Path is the path of something in the folder.
func (r *Run) Path(name string) string { return filepath.Join(r.dir, name) }

// CheckpointPath is the folder of a step's checkpoint.
func (r *Run) CheckpointPath(step int) string {
	return filepath.Join(r.dir, CheckpointsDir, "step-"+strconv.Itoa(step))
}

// WriteRecipe keeps the resolved recipe.
func (r *Run) WriteRecipe(text []byte) error {
	return atomicfile.WriteBytes(r.Path(RecipeFile), 0o666, text)
}

// WriteInfo replaces run.json.
func (r *Run) WriteInfo(info Info) error {
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", InfoFile, err)
	}
	return atomicfile.WriteBytes(r.Path(InfoFile), 0o666, append(text, '\n'))
}

// ReadInfo reads run.json of a run folder; a folder without one gives an empty Info.
func ReadInfo(dir string) (Info, error) {
	var info Info
	path := filepath.Join(dir, InfoFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return info, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", path, err)
	}
	return info, nil
}

// Resume prepares the folder for going on after a step, that of the checkpoint
// which was loaded: metrics and samples of later steps are cut away, together
// with a last line that was cut short, and TensorBoard is told to forget them.
// Resume(-1) begins anew.
func (r *Run) Resume(step int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.metrics != nil || r.samples != nil {
		return fmt.Errorf("%s: Resume after logging", r.dir)
	}
	for _, name := range []string{MetricsFile, SamplesFile} {
		if err := cutAfter(r.Path(name), int64(step)); err != nil {
			return err
		}
	}
	r.purge = int64(step) + 1
	return nil
}

// Log appends one step's metrics to metrics.jsonl and the TensorBoard events.
// The keys are those of the contract in metrics.go; step is not among them.
func (r *Run) Log(step int, values map[string]float64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.openLines(&r.metrics, MetricsFile); err != nil {
		return err
	}
	if err := r.metrics.append(encodeMetrics(step, values)); err != nil {
		return err
	}
	if err := r.openEvents(); r.events == nil {
		return err
	}
	return r.events.scalars(step, values)
}

// Sample appends an answer of the model to samples.jsonl and the TensorBoard
// events.
func (r *Run) Sample(s Sample) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.openLines(&r.samples, SamplesFile); err != nil {
		return err
	}
	line, err := encodeSample(s)
	if err != nil {
		return err
	}
	if err := r.samples.append(line); err != nil {
		return err
	}
	if err := r.openEvents(); r.events == nil {
		return err
	}
	return r.events.text(s)
}

func (r *Run) openLines(l **lines, name string) error {
	if r.closed {
		return fmt.Errorf("%s: %w", r.dir, os.ErrClosed)
	}
	if *l != nil {
		return nil
	}
	var err error
	*l, err = openLines(r.Path(name))
	return err
}

// openEvents opens the event file, unless there is to be none.
func (r *Run) openEvents() error {
	if r.events != nil || r.noEvents {
		return nil
	}
	events, err := createEvents(r.dir, r.purge)
	if err == nil {
		r.events = events
	}
	return err
}

// SetTensorBoard says whether event files are written; they are unless this says no.
func (r *Run) SetTensorBoard(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.noEvents = !on
}

// Sync brings metrics, samples and events to the disk. Call it before a
// checkpoint is committed: then the lines up to its step survive a power cut.
func (r *Run) Sync() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.each((*os.File).Sync)
}

// each does something to every file that is open.
func (r *Run) each(do func(*os.File) error) error {
	var errs []error
	for _, l := range []*lines{r.metrics, r.samples} {
		if l != nil {
			errs = append(errs, do(l.f))
		}
	}
	if r.events != nil {
		errs = append(errs, do(r.events.f))
	}
	return errors.Join(errs...)
}

// Close closes the files and unlocks the folder.
func (r *Run) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.each((*os.File).Close)
	return errors.Join(err, r.lock.release())
}
