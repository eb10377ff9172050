package runs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func step(i int) map[string]float64 {
	return map[string]float64{"loss": 5 / float64(i), "lr": float64(float32(2e-5)), "tokens": float64(i * 1000)}
}

func TestRunGoesOnAfterAKill(t *testing.T) {
	// The run that nothing interrupts.
	whole := filepath.Join(t.TempDir(), "whole")
	r, err := Create(whole)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 20; i++ {
		if err := errors.Join(r.Log(i, step(i)), r.Sample(Sample{Step: i, Prompt: "p", Completion: fmt.Sprint(i)})); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(r.Sync(), r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	if err := r.Log(21, step(21)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Log after Close: %v", err)
	}

	// Killed in step 14, resumed from the checkpoint of step 10.
	dir := filepath.Join(t.TempDir(), "killed")
	r, err = Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.WriteRecipe([]byte("train: {}\n")); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 13; i++ {
		if err := errors.Join(r.Log(i, step(i)), r.Sample(Sample{Step: i, Prompt: "p", Completion: fmt.Sprint(i)})); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	f, err := os.OpenFile(filepath.Join(dir, MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"step":14,"lo`)
	f.Close()
	left := filepath.Join(dir, CheckpointsDir, fmt.Sprintf(".tmp-%d-0123456789ab-step-14", 1<<30))
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}

	r, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := os.Stat(left); err == nil {
		t.Error("a half-written checkpoint was not removed")
	}
	if err := r.Resume(10); err != nil {
		t.Fatal(err)
	}
	for i := 11; i <= 20; i++ {
		if err := errors.Join(r.Log(i, step(i)), r.Sample(Sample{Step: i, Prompt: "p", Completion: fmt.Sprint(i)})); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Resume(5); err == nil {
		t.Error("Resume after logging was accepted")
	}
	for _, name := range []string{MetricsFile, SamplesFile} {
		if got, want := read(t, filepath.Join(dir, name)), read(t, filepath.Join(whole, name)); got != want {
			t.Errorf("%s differs from that of the uninterrupted run:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// Cut anywhere, metrics.jsonl is readable, and goes on after the lines that
// are whole.
func TestTruncatedAnywhere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, MetricsFile)
	var text []byte
	var ends []int
	for i := 1; i <= 3; i++ {
		text = append(text, encodeMetrics(i, step(i))...)
		ends = append(ends, len(text))
	}
	for n := range len(text) + 1 {
		for _, tail := range []string{"", "\x00\x00\x00", "\x00\n\x00\x00"} { // what a power cut leaves
			write(t, path, string(text[:n])+tail)
			whole := 0
			for _, end := range ends {
				if n >= end || n == end-1 && tail == "" { // without its newline a line is whole
					whole++
				}
			}
			series, err := ReadMetrics(dir)
			if err != nil {
				t.Fatalf("%d bytes and %q: %v", n, tail, err)
			}
			if got := len(seriesNamed(series, "loss").Steps); got != whole {
				t.Fatalf("%d bytes and %q: %d steps read, want %d", n, tail, got, whole)
			}
			l, err := openLines(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.append(encodeMetrics(9, step(9))); err != nil {
				t.Fatal(err)
			}
			l.f.Close()
			want := string(encodeMetrics(9, step(9)))
			if whole > 0 {
				want = string(text[:ends[whole-1]]) + want
			}
			if got := read(t, path); got != want {
				t.Fatalf("%d bytes and %q: went on as\n%s\nwant\n%s", n, tail, got, want)
			}
		}
	}
}

func seriesNamed(all []*Series, name string) *Series {
	if s := find(all, name); s != nil {
		return s
	}
	return &Series{}
}

func TestBrokenLineInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, MetricsFile)
	for _, bad := range []string{"{\"step\":2,\"lo", "[2]", "{\"loss\":3}", "{\"step\":1.5}", ""} {
		content := "{\"step\":1}\n" + bad + "\n{\"step\":3}\n"
		write(t, path, content)
		_, err := ReadMetrics(dir)
		if err == nil || !strings.Contains(err.Error(), path+":2: ") {
			t.Errorf("%q: %v, want an error naming line 2", bad, err)
		}
		if err := cutAfter(path, 1); err == nil {
			t.Errorf("%q: cut", bad)
		}
		if read(t, path) != content {
			t.Errorf("%q: the file was changed", bad)
		}
	}
}

func TestCutAfter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.jsonl")
	if err := cutAfter(path, 3); err != nil {
		t.Errorf("absent file: %v", err)
	}
	const text = "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"x\":1}\n{\"step\":5}\n"
	for last, want := range map[int64]string{
		-1: "", 0: "", 1: "{\"step\":1}\n", 2: text[:len(text)-len("{\"step\":5}\n")], 4: text[:len(text)-len("{\"step\":5}\n")], 5: text, 9: text,
	} {
		write(t, path, text)
		if err := cutAfter(path, last); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != want {
			t.Errorf("after step %d: %q, want %q", last, got, want)
		}
	}
}

func TestCreateAndOpenRefuse(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "a", "run")
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("Open of an absent folder: %v", err)
	}
	r, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Log(1, step(1)); err != nil {
		t.Fatal(err)
	}
	for name, begin := range map[string]func(string) (*Run, error){"Create": Create, "Open": Open} {
		_, err := begin(dir)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s while it is in use: %v, want an error naming folder and process", name, err)
		}
	}
	r.Close()
	if _, err := Create(dir); err == nil || !strings.Contains(err.Error(), MetricsFile) {
		t.Errorf("Create over a run: %v", err)
	}
	r, err = Open(dir) // the refusal gave the lock back
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := Open(parent); err == nil || !strings.Contains(err.Error(), RecipeFile) {
		t.Errorf("Open of some folder: %v", err)
	}
	if got, want := r.CheckpointPath(30), filepath.Join(dir, "checkpoints", "step-30"); got != want {
		t.Errorf("checkpoint path %s, want %s", got, want)
	}
}

func TestInfo(t *testing.T) {
	dir := t.TempDir()
	if info, err := ReadInfo(dir); err != nil || info != (Info{}) {
		t.Errorf("absent: %+v, %v", info, err)
	}
	r, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := Info{Objective: "sft", Model: "m", Device: "cpu", Parameters: 5, Started: time.Now().UTC().Round(0), Status: "running"}
	if err := r.WriteInfo(want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadInfo(dir)
	if err != nil || !got.Started.Equal(want.Started) {
		t.Fatalf("%+v, %v", got, err)
	}
	got.Started = want.Started
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	write(t, r.Path(InfoFile), "{")
	if _, err := ReadInfo(dir); err == nil || !strings.Contains(err.Error(), InfoFile) {
		t.Errorf("broken: %v", err)
	}
}

func TestEncodeMetrics(t *testing.T) {
	got := string(encodeMetrics(12, map[string]float64{
		"ppo/kl": 0.5, "eval/loss": 2, "mem_gib": float64(float32(0.1)), "loss": math.NaN(), "lr": float64(float32(2e-5)), "time_s": 1.0 / 3,
		"tokens": 12345678901, "tok_per_s": 1e20, "a\"b<": -0.25, "grad_norm": math.Inf(1), "zero": 0, "step": 99,
	}))
	want := `{"step":12,"time_s":0.3333333333333333,"tokens":12345678901,"loss":null,"lr":2e-05,"grad_norm":null,` +
		`"tok_per_s":1e+20,"mem_gib":0.1,"a\"b\u003c":-0.25,"eval/loss":2,"ppo/kl":0.5,"zero":0}` + "\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	var back map[string]any
	if err := json.Unmarshal([]byte(got), &back); err != nil {
		t.Error(err)
	}
	// Float64 values survive exactly, float32 values as float32.
	for _, v := range []float64{math.Pi, 1e-300, -1e300, 1 << 53, 0.1, float64(float32(0.1)), float64(float32(1e-30)), 123456.789} {
		var x float64
		if err := json.Unmarshal(appendNumber(nil, v), &x); err != nil || x != v && float64(float32(x)) != v {
			t.Errorf("%v is written %s, read %v (%v)", v, appendNumber(nil, v), x, err)
		}
	}
}

func TestReadMetrics(t *testing.T) {
	dir := t.TempDir()
	if all, err := ReadMetrics(dir); err != nil || all != nil {
		t.Errorf("absent: %v, %v", all, err)
	}
	write(t, filepath.Join(dir, MetricsFile), `{"step":1,"loss":3,"note":"text","z":1}
{"loss":null,"step":2,"eval/loss":2.5}
{"step":3,"loss":1,"time_s":7}
`)
	all, err := ReadMetrics(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	if want := []string{"time_s", "loss", "eval/loss", "z"}; !slices.Equal(names, want) {
		t.Errorf("series %q, want %q", names, want)
	}
	loss := seriesNamed(all, "loss")
	if !slices.Equal(loss.Steps, []int64{1, 2, 3}) || loss.Values[0] != 3 || !math.IsNaN(loss.Values[1]) || loss.Last() != 1 {
		t.Errorf("loss %+v", loss)
	}
}

func TestSamples(t *testing.T) {
	dir := t.TempDir()
	r, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	score := 0.5
	want := []Sample{
		{Step: 1, Prompt: "hi\n<b>", Completion: "\u4f60\u597d\u2028\x00\"", Score: &score, Finish: "stop"},
		{Step: 2, Prompt: "hi\n<b>", Completion: "", Reference: "r"},
	}
	for _, s := range want {
		if err := r.Sample(s); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
	got, err := ReadSamples(dir)
	if err != nil || len(got) != 2 || *got[0].Score != score {
		t.Fatalf("%+v, %v", got, err)
	}
	got[0].Score, want[0].Score = nil, nil
	if got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n := bytes.Count([]byte(read(t, filepath.Join(dir, SamplesFile))), []byte("\n")); n != 2 {
		t.Errorf("%d lines, want 2", n)
	}
	if err := r.Sample(Sample{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Sample after Close: %v", err)
	}
	nan := math.NaN()
	r, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Sample(Sample{Step: 3, Score: &nan}); err == nil {
		t.Error("a score that is not a number was accepted")
	}
}

func TestNoTensorBoard(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	r, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.SetTensorBoard(false)
	if err := errors.Join(r.Log(1, map[string]float64{"loss": 2}), r.Sample(Sample{Step: 1, Prompt: "p", Completion: "c"}), r.Close()); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "events.*")); len(files) != 0 {
		t.Errorf("event files %v were written", files)
	}
	if s, err := ReadMetrics(dir); err != nil || len(s) != 1 {
		t.Errorf("metrics %v (%v)", s, err)
	}
}
