package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/runs"
	"ringtail/tensor/cpu"
)

// variants are the ways of cutting and mixing data that resuming must not disturb.
func variants(t testing.TB) []struct {
	name, objective string
	sets            []string
} {
	dir := fixture(t)
	mix := fmt.Sprintf("data.train=[{files: [%s/chats.jsonl], weight: 3}, {files: [%s/more.jsonl], weight: 1}]", dir, dir)
	text := fmt.Sprintf("data.train=[%s/text.txt]", dir)
	return []struct {
		name, objective string
		sets            []string
	}{
		{"sft/sequences", "sft", nil},
		{"sft/accumulation", "sft", []string{"train.batch=7", "train.micro_tokens=64"}},
		{"sft/tokens", "sft", []string{"train.batch=0", "train.batch_tokens=200"}},
		{"sft/mixture", "sft", []string{mix}},
		{"sft/mixture in tokens", "sft", []string{mix, "train.batch=0", "train.batch_tokens=300", "train.micro_tokens=64"}},
		{"sft/best", "sft", []string{"eval.patience=50", "eval.every=2", "checkpoint.keep=2", "train.recompute=true"}},
		{"sft/epochs", "sft", []string{"train.steps=0", "train.epochs=1.5"}},
		{"sft/sampled answers", "sft", []string{"samples.temperature=0.8", "data.shuffle=false", "log.every=3"}},
		{"pretrain/sequences", "pretrain", []string{text, "data.max_tokens=32", "train.schedule=wsd"}},
		{"pretrain/tokens", "pretrain", []string{text, "data.max_tokens=24", "train.batch=0", "train.batch_tokens=128", "train.micro_tokens=48"}},
	}
}

// TestResumeAfterKill: 20 steps are 10, kill -9 in the middle of a later one, and
// the rest, byte for byte: weights, moments, metrics and samples.
func TestResumeAfterKill(t *testing.T) {
	for _, v := range variants(t) {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			text := resolved(t, base(t), append([]string{"checkpoint.every=10", "eval.every=5"}, v.sets...)...)
			rec := mustDecode(t, text)
			whole, dir := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "run")
			dev := newTripwire(trip{}, nil)
			if err := trainRun(context.Background(), rec, v.objective, whole, false, dev); err != nil {
				t.Fatal(err)
			}
			j := job{Recipe: text, Objective: v.objective, Dir: dir, Trip: trip{"loss", dev.calls["loss"] * 7 / 10}}
			if !start(t, j) {
				t.Fatal("the run wasn't killed")
			}
			steps, err := savedSteps(dir)
			if err != nil || len(steps) == 0 {
				t.Fatalf("checkpoints at %v (%v): the kill came too early to test anything", steps, err)
			}
			if err := trainRun(context.Background(), rec, v.objective, dir, true, cpu.New()); err != nil {
				t.Fatal(err)
			}
			same(t, outcome(t, dir), outcome(t, whole))
		})
	}
}

// TestResumeAfterKillWhileSaving: a kill in the middle of a checkpoint, or of the
// result, leaves a temporary folder that the resumed run removes.
func TestResumeAfterKillWhileSaving(t *testing.T) {
	text := resolved(t, base(t), "checkpoint.every=5", "eval.every=4")
	rec := mustDecode(t, text)
	whole := filepath.Join(t.TempDir(), "run")
	dev := newTripwire(trip{}, nil)
	if err := trainRun(context.Background(), rec, "sft", whole, false, dev); err != nil {
		t.Fatal(err)
	}
	want := outcome(t, whole)
	reads := dev.calls["read"]
	for _, at := range []int{1, reads/2 + 1, reads} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			if !start(t, job{Recipe: text, Objective: "sft", Dir: dir, Trip: trip{"read", at}}) {
				t.Fatal("the run wasn't killed")
			}
			left, err := filepath.Glob(filepath.Join(dir, "*", ".tmp-*"))
			if err != nil || len(left) != 1 && at != reads {
				t.Fatalf("temporary folders %v (%v): the kill came at another moment", left, err)
			}
			metrics, err := os.OpenFile(filepath.Join(dir, runs.MetricsFile), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := metrics.WriteString(`{"step":19,"lo`); err != nil { // as a power cut leaves it
				t.Fatal(err)
			}
			metrics.Close()
			if err := trainRun(context.Background(), rec, "sft", dir, true, cpu.New()); err != nil {
				t.Fatal(err)
			}
			same(t, outcome(t, dir), want)
		})
	}
}

// interruptAt runs a recipe until its n-th loss, where its context ends, and
// then to the end.
func interruptAt(t *testing.T, text, dir string, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err := trainRun(ctx, mustDecode(t, text), "sft", dir, false, newTripwire(trip{"loss", n}, cancel))
	if err != nil && !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	info, ierr := runs.ReadInfo(dir)
	if ierr != nil {
		t.Fatal(ierr)
	}
	if want := map[bool]string{true: "done", false: "stopped"}[err == nil]; info.Status != want {
		t.Errorf("run.json says %q after %v", info.Status, err)
	}
	if err := trainRun(context.Background(), mustDecode(t, text), "sft", dir, true, cpu.New()); err != nil {
		t.Fatal(err)
	}
}

// testInterrupts interrupts a run at each n-th loss: in a step's first and later
// micro-batches, and in evaluations.
func testInterrupts(t *testing.T, every int, sets ...string) {
	text := resolved(t, base(t), sets...)
	whole := filepath.Join(t.TempDir(), "run")
	dev := newTripwire(trip{}, nil)
	if err := trainRun(context.Background(), mustDecode(t, text), "sft", whole, false, dev); err != nil {
		t.Fatal(err)
	}
	want := outcome(t, whole)
	for at := 1; at <= dev.calls["loss"]; at += every {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			interruptAt(t, text, dir, at)
			same(t, outcome(t, dir), want)
		})
	}
}

// TestResumeAfterInterrupt: a run that Ctrl-C stopped anywhere saves, and goes on
// to the same bytes.
func TestResumeAfterInterrupt(t *testing.T) {
	testInterrupts(t, 11, "eval.every=3", "train.steps=8", "train.micro_tokens=64")
}

// TestResumeAfterInterruptWithPatience: best weights, early stop and checkpoints
// hang on evaluations, which may be those that are cut short.
func TestResumeAfterInterruptWithPatience(t *testing.T) {
	testInterrupts(t, 13, "eval.every=2", "eval.patience=2", "train.lr=0.3", "train.schedule=constant", "train.steps=12",
		"checkpoint.every=3", "train.micro_tokens=64")
}

func TestResumeTwiceDone(t *testing.T) {
	rec, dir := mustDecode(t, base(t), "train.steps=3"), filepath.Join(t.TempDir(), "run")
	if err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	want := outcome(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, runs.ModelDir)); err != nil { // killed before it was written
		t.Fatal(err)
	}
	for range 2 {
		if err := trainRun(context.Background(), rec, "sft", dir, true, cpu.New()); err != nil {
			t.Fatal(err)
		}
		same(t, outcome(t, dir), want)
	}
}

// TestResumeWithoutCheckpoint begins anew, and says nothing wrong.
func TestResumeWithoutCheckpoint(t *testing.T) {
	text := resolved(t, base(t), "train.steps=4")
	whole, dir := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "run")
	if err := trainRun(context.Background(), mustDecode(t, text), "sft", whole, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	interruptAt(t, text, dir, 1)
	same(t, outcome(t, dir), outcome(t, whole))
}

func TestResumeRefuses(t *testing.T) {
	text := resolved(t, base(t), "train.steps=3")
	dir := filepath.Join(t.TempDir(), "run")
	if err := trainRun(context.Background(), mustDecode(t, text), "sft", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	want := outcome(t, dir)
	refuse := func(name, dir string, rec *LanguageRecipe, resume bool, words ...string) {
		t.Run(name, func(t *testing.T) {
			err := trainRun(context.Background(), rec, "sft", dir, resume, cpu.New())
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if strings.Count(err.Error(), "\n") > 3 {
				t.Errorf("%q has more than four lines", err)
			}
		})
	}
	refuse("a run is there", dir, mustDecode(t, text), false, dir, "--resume", "--dir")
	refuse("another recipe", dir, mustDecode(t, text, "train.lr=0.5"), true, "recipe.yaml", "0.01", "0.5")
	refuse("no such folder", dir+"-none", mustDecode(t, text), true, dir+"-none")
	refuse("not a run", t.TempDir(), mustDecode(t, text), true, "not a run folder")
	if err := trainRun(context.Background(), mustDecode(t, text), "pretrain", dir, true, cpu.New()); err == nil || !strings.Contains(err.Error(), "train sft") {
		t.Errorf("another objective: %v", err)
	}
	same(t, outcome(t, dir), want)

	damage := func(name, file string, change func([]byte) []byte, words ...string) {
		path := filepath.Join(dir, runs.CheckpointsDir, "step-3", file)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(append([]byte(nil), old...)), 0o666); err != nil {
			t.Fatal(err)
		}
		refuse(name, dir, mustDecode(t, text), true, append(words, path)...)
		if err := os.WriteFile(path, old, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	half := func(b []byte) []byte { return b[:len(b)/2] }
	damage("broken state", stateFile, half)
	damage("broken manifest", "manifest.json", half)
	damage("truncated chunk", "chunk-00000.safetensors", half)
	damage("empty chunk", "chunk-00000.safetensors", func([]byte) []byte { return nil })
	damage("position of other data", stateFile, func(b []byte) []byte {
		return []byte(strings.Replace(string(b), `"fingerprint": "`, `"fingerprint": "0`, 1))
	}, "other data")
}
