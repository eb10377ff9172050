package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"ringtail/chat"
	"ringtail/data"
	"ringtail/recipe"
	"ringtail/runs"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tokenizer"
)

// jobVar names, in the environment, the file of a job: then the test binary runs
// that job instead of tests, as a process of its own that can be killed.
const jobVar = "RINGTAIL_TRAIN_JOB"

func TestMain(m *testing.M) {
	if file := os.Getenv(jobVar); file != "" {
		os.Exit(runJob(file))
	}
	code := m.Run()
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// A job is a training run in a process of its own.
type job struct {
	Recipe, Objective, Dir string
	Resume                 bool
	Trip                   trip
}

// A trip ends a run at the At-th call of a device operation: the loss of a
// micro-batch, in training or evaluation; the reading of a piece of weights for a
// checkpoint or the result; the sampling of a token for each of a batch; the scoring of
// answers by the reference; the gradient of a policy's loss; the update of a run of weights;
// or the attention of a layer.
type trip struct {
	Op string // "loss", "read", "sample", "score", "policy", "update", "attention"
	At int
}

func runJob(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	var j job
	if err := json.Unmarshal(text, &j); err != nil {
		panic(err)
	}
	rec := NewRecipe(j.Objective)
	if err := recipe.Decode([]byte(j.Recipe), "test.yaml", nil, rec); err != nil {
		panic(err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		panic(err)
	}
	dev := newTripwire(j.Trip, func() { self.Kill(); select {} })
	err = Start(context.Background(), rec, Options{Objective: j.Objective, Dir: j.Dir, Resume: j.Resume, Progress: runs.ProgressQuiet,
		Messages: os.Stderr, Device: dev})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// tripwire is the CPU, calling a function at some operation.
type tripwire struct {
	*cpu.Device
	ops   tensor.Ops
	trip  trip
	calls map[string]int
	do    func()
}

func newTripwire(at trip, do func()) *tripwire {
	w := &tripwire{Device: cpu.New(), trip: at, calls: map[string]int{}, do: do}
	w.ops = *w.Device.Ops()
	w.ops.CrossEntropy = func(a tensor.CrossEntropy) {
		w.Device.Ops().CrossEntropy(a)
		w.count("loss")
	}
	w.ops.Sample = func(a tensor.Sample) {
		w.Device.Ops().Sample(a)
		w.count("sample")
	}
	w.ops.LogProb = func(a tensor.LogProb) {
		w.Device.Ops().LogProb(a)
		if a.Entropies.IsZero() { // the reference's have none
			w.count("score")
		}
	}
	w.ops.LogProbBackward = func(a tensor.LogProbBackward) {
		w.Device.Ops().LogProbBackward(a)
		w.count("policy")
	}
	w.ops.AdamW = func(a tensor.AdamW) {
		w.Device.Ops().AdamW(a)
		w.count("update")
	}
	w.ops.Attention = func(a tensor.Attention) {
		w.Device.Ops().Attention(a)
		w.count("attention")
	}
	return w
}

func (w *tripwire) Ops() *tensor.Ops { return &w.ops }

func (w *tripwire) Read(dst []byte, src tensor.Tensor) {
	w.Device.Read(dst, src)
	if len(dst) > 1024 { // a loss or a step block is smaller
		w.count("read")
	}
}

func (w *tripwire) count(op string) {
	w.calls[op]++
	if op == w.trip.Op && w.calls[op] == w.trip.At {
		w.do()
	}
}

// start runs a job in a process and tells whether it was killed.
func start(t *testing.T, j job) (killed bool) {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "job.json")
	if err := os.WriteFile(file, text, 0o666); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), jobVar+"="+file)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false
	case errors.As(err, &exit) && !exit.Exited():
		return true
	}
	t.Fatalf("%v\n%s", err, out)
	return false
}

// shared is made once for all tests: a tokenizer and data files.
var shared struct {
	once sync.Once
	dir  string
	err  error
}

// fixture is the folder of shared: tok/, chats.jsonl, more.jsonl, eval.jsonl, text.txt.
func fixture(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() { shared.dir, shared.err = makeFixture() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.dir
}

// sentences are lines of words drawn from a seed.
func sentences(seed uint64, n, least, most int) []string {
	words := strings.Fields("the a cat dog sat on mat ran home blue red sky is big small tree hello thanks 你好 世界 猫")
	r := rand.New(rand.NewPCG(seed, 1))
	var out []string
	for range n {
		var w []string
		for range least + r.IntN(most-least+1) {
			w = append(w, words[r.IntN(len(words))])
		}
		out = append(out, strings.Join(w, " "))
	}
	return out
}

func writeChats(path string, lines []string) error {
	var b strings.Builder
	for _, s := range lines {
		row, err := json.Marshal(map[string]string{"instruction": "say " + s, "output": s + "."})
		if err != nil {
			return err
		}
		b.Write(append(row, '\n'))
	}
	return os.WriteFile(path, []byte(b.String()), 0o666)
}

func makeFixture() (string, error) {
	dir, err := os.MkdirTemp("", "ringtail-train")
	if err != nil {
		return "", err
	}
	text := strings.Join(sentences(4, 300, 3, 20), "\n")
	template, err := chat.Builtin("chatml")
	if err != nil {
		return dir, err
	}
	var texts iter.Seq[string] = func(yield func(string) bool) { yield(text) }
	tok, err := tokenizer.Train(context.Background(), texts, tokenizer.TrainOptions{VocabSize: 300, MinFrequency: 2,
		SpecialTokens: []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, EOS: "<|endoftext|>", PAD: "<|endoftext|>",
		ChatTemplate: template.Text()})
	if err != nil {
		return dir, err
	}
	if err := os.Mkdir(filepath.Join(dir, "tok"), 0o777); err != nil {
		return dir, err
	}
	return dir, errors.Join(tok.SaveFolder(filepath.Join(dir, "tok")),
		writeChats(filepath.Join(dir, "chats.jsonl"), sentences(1, 60, 2, 8)),
		writeChats(filepath.Join(dir, "more.jsonl"), sentences(2, 25, 2, 6)),
		writeChats(filepath.Join(dir, "eval.jsonl"), sentences(3, 7, 5, 6)),
		os.WriteFile(filepath.Join(dir, "text.txt"), []byte(text), 0o666))
}

// decode reads a recipe's text.
func decode(text string, sets ...string) (*LanguageRecipe, error) {
	rec := &LanguageRecipe{}
	return rec, recipe.Decode([]byte(text), "test.yaml", sets, rec)
}

// base is a recipe of a tiny new model on the shared data.
func base(t testing.TB) string {
	return strings.ReplaceAll(`
model: {new: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64, intermediate_size: 24}}
tokenizer: DIR/tok
data: {train: [DIR/chats.jsonl], max_tokens: 64, held_out: 0.1}
train: {steps: 20, batch: 4, micro_tokens: 128, lr: 0.01}
samples: {max_tokens: 4}
`, "DIR", fixture(t))
}

func mustDecode(t testing.TB, text string, sets ...string) *LanguageRecipe {
	t.Helper()
	rec, err := decode(text, sets...)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// resolved is a recipe's full text with changes, for a job.
func resolved(t testing.TB, text string, sets ...string) string {
	t.Helper()
	out, err := recipe.Marshal(mustDecode(t, text, sets...))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// trainRun runs a recipe in this process.
func trainRun(ctx context.Context, rec Recipe, objective, dir string, resume bool, dev tensor.Device) error {
	return Start(ctx, rec, Options{Objective: objective, Dir: dir, Resume: resume, Progress: runs.ProgressQuiet, Messages: io.Discard, Device: dev})
}

// tester is a trainer of a language model, for tests to look into.
type tester struct {
	*Trainer
	*language
}

// step makes one optimizer step on a batch and counts it, as the loop does.
func (t *tester) step(b *data.Step) (stepResult, error) {
	r, err := t.update(t.state.Step, b)
	if err == nil {
		r, err = r.done()
	}
	if err == nil {
		t.count(r)
	}
	return r, err
}

// testTrainer makes a trainer that stands at its first step, without a run folder.
func testTrainer(t testing.TB, rec *LanguageRecipe, objective string, dev tensor.Device) *tester {
	t.Helper()
	if err := rec.Check(); err != nil {
		t.Fatal(err)
	}
	tr, err := newTrainer(context.Background(), rec, Options{Objective: objective, Dir: t.TempDir(), Device: dev})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return &tester{tr, tr.objective.(*language)}
}

// nextStep draws the trainer's next batch.
func nextStep(t testing.TB, tr *tester) *data.Step {
	t.Helper()
	if !tr.loader.Next(&tr.batch) {
		t.Fatal("no more data")
	}
	return &tr.batch
}

// clockKeys are the metrics that hang on a clock.
var clockKeys = regexp.MustCompile(`"(time_s|tok_per_s|seconds|time/[a-z]+)":\s*[^,}]*,?`)

// outcome is what a run left that must not hang on how often it was interrupted.
func outcome(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch base := filepath.Base(name); {
		case base == runs.InfoFile, base == runs.ReportFile, base == ".lock", strings.HasPrefix(base, "events."):
			return nil // times
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		switch filepath.Base(name) {
		case runs.MetricsFile, stateFile:
			text = clockKeys.ReplaceAll(text, nil)
		}
		out[filepath.ToSlash(name)] = string(text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// same compares two outcomes.
func same(t testing.TB, got, want map[string]string) {
	t.Helper()
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			t.Errorf("%s is absent", name)
			continue
		}
		if g == w {
			continue
		}
		if strings.HasSuffix(name, ".safetensors") {
			t.Errorf("%s differs", name)
			continue
		}
		gl, wl := strings.Split(g, "\n"), strings.Split(w, "\n")
		for i := range max(len(gl), len(wl)) {
			var a, b string
			if i < len(gl) {
				a = gl[i]
			}
			if i < len(wl) {
				b = wl[i]
			}
			if a != b {
				t.Errorf("%s:%d\n got %s\nwant %s", name, i+1, a, b)
				break
			}
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}
