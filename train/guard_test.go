package train

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/model"
	"ringtail/optim"
	"ringtail/runs"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// series is a metric of a run.
func series(t testing.TB, dir, name string) *runs.Series {
	t.Helper()
	all, err := runs.ReadMetrics(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("%s has no metric %s", dir, name)
	return nil
}

// weights are all weights and moments of a trainer's model, as bytes of a checkpoint.
func weights(t testing.TB, tr *tester) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := tr.model.Store.WriteChunks(dir); err != nil {
		t.Fatal(err)
	}
	return outcome(t, dir)
}

// poison makes one weight of a trainer NaN, or takes it back.
func poison(tr *tester, name string, v float64) (old float64) {
	at := tr.model.Store.Param(name).Value
	at = at.Reshape(at.Len()).Slice(at.Len()/2, 1)
	old = tensor.GetFloat64(at)[0]
	tensor.SetFloat64(at, []float64{v})
	return old
}

// TestSkippedStepChangesNothing: neither weights nor moments nor the count of
// updates; after it training goes on as if it hadn't been.
func TestSkippedStepChangesNothing(t *testing.T) {
	tr := testTrainer(t, mustDecode(t, base(t)), "sft", cpu.New())
	if _, err := tr.step(nextStep(t, tr)); err != nil {
		t.Fatal(err)
	}
	name := "model.layers.1.mlp.down_proj.weight"
	before := weights(t, tr)
	for _, bad := range []float64{math.NaN(), math.Inf(1)} {
		old := poison(tr, name, bad)
		r, err := tr.step(nextStep(t, tr))
		if err != nil {
			t.Fatal(err)
		}
		if !r.skipped {
			t.Fatalf("a step with a weight of %g wasn't skipped: %+v", bad, r)
		}
		if got := tr.badTensor(); !strings.Contains(got, name) {
			t.Errorf("blamed %q, want %s", got, name)
		}
		poison(tr, name, old)
	}
	same(t, weights(t, tr), before)
	if tr.learner.updates != 1 || tr.state.Skips != 2 || tr.state.Skipped != 2 || tr.state.Step != 3 {
		t.Errorf("counted %+v", tr.state)
	}
	if r, err := tr.step(nextStep(t, tr)); err != nil || r.skipped {
		t.Errorf("%+v, %v after the weight was mended", r, err)
	}
	if tr.state.Skips != 0 || tr.state.Skipped != 2 {
		t.Errorf("counted %+v", tr.state)
	}
}

// TestDivergedRun: an absurd learning rate ends the run, by name of a tensor, and
// leaves the last checkpoint.
func TestDivergedRun(t *testing.T) {
	for _, samples := range []string{"samples.off=true", "samples.off=false"} {
		t.Run(samples, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			rec := mustDecode(t, base(t), "train.steps=50", "train.max_skips=3", "train.lr=1e25", "train.schedule=constant", "checkpoint.every=1", "eval.every=2", samples)
			err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New())
			if err == nil || !strings.Contains(err.Error(), "3 steps in a row") || !strings.Contains(err.Error(), "model.") || !strings.Contains(err.Error(), "lr") {
				t.Fatalf("got %v", err)
			}
			if info, err := runs.ReadInfo(dir); err != nil || info.Status != "failed" || info.Note == "" {
				t.Errorf("run.json says %+v, %v", info, err)
			}
			steps, err := savedSteps(dir)
			if err != nil || len(steps) == 0 {
				t.Fatalf("checkpoints %v, %v", steps, err)
			}
			if _, err := os.Stat(filepath.Join(dir, runs.ModelDir)); err == nil {
				t.Error("a diverged run wrote a result")
			}
			skipped := series(t, dir, "skipped")
			if skipped.Last() != 3 {
				t.Errorf("metrics count %v skipped steps", skipped.Values)
			}
		})
	}
}

// TestPoisonedModel: a folder with a NaN among its weights.
func TestPoisonedModel(t *testing.T) {
	rec := mustDecode(t, base(t), "train.steps=2")
	tr := testTrainer(t, rec, "sft", cpu.New())
	poison(tr, "model.layers.0.self_attn.q_proj.weight", math.NaN())
	folder := t.TempDir()
	if err := tr.model.Save(folder); err != nil {
		t.Fatal(err)
	}
	if err := tr.text.Save(folder); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	err := trainRun(context.Background(), fromFolder(t, folder, "train.max_skips=4"), "sft", dir, false, cpu.New())
	if err == nil || !strings.Contains(err.Error(), "model.layers.0.self_attn.q_proj.weight") || !strings.Contains(err.Error(), "4 steps") {
		t.Errorf("got %v", err)
	}
}

// fromFolder is the base recipe with a folder's model and tokenizer.
func fromFolder(t testing.TB, folder string, sets ...string) *LanguageRecipe {
	t.Helper()
	text := fmt.Sprintf("model: %s\ndata: {train: [%s/chats.jsonl], max_tokens: 64, held_out: 0.1}\ntrain: {steps: 20, batch: 4, micro_tokens: 128, lr: 0.01}\nsamples: {max_tokens: 4}\n",
		folder, fixture(t))
	return mustDecode(t, text, sets...)
}

// TestFrozen: frozen weights neither change nor are written to checkpoints.
func TestFrozen(t *testing.T) {
	first := testTrainer(t, mustDecode(t, base(t)), "sft", cpu.New())
	folder := t.TempDir()
	if err := first.model.Save(folder); err != nil {
		t.Fatal(err)
	}
	if err := first.text.Save(folder); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	rec := fromFolder(t, folder, "model.freeze=[model.embed_tokens.weight, model.layers.0.*]", "train.steps=3")
	if err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(filepath.Join(dir, runs.ModelDir), cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	for _, e := range m.Store.Layout.Entries {
		equal := slices.Equal(tensor.GetFloat32(m.Store.Param(e.Name).Value), tensor.GetFloat32(first.model.Store.Param(e.Name).Value))
		frozen := e.Name == "model.embed_tokens.weight" || strings.HasPrefix(e.Name, "model.layers.0.")
		if equal != frozen {
			t.Errorf("%s: frozen %v, unchanged %v", e.Name, frozen, equal)
		}
	}
	rec = fromFolder(t, folder, "model.freeze=['*', 'model.*']")
	if err := trainRun(context.Background(), rec, "sft", dir+"2", false, cpu.New()); err == nil || !strings.Contains(err.Error(), "model.freeze") {
		t.Errorf("everything frozen: %v", err)
	}
}

// TestBestAndPrune: with patience the run stops early, keeps the best checkpoint
// beside the latest, and its weights are the result.
func TestBestAndPrune(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	// A batch of one row and a high rate: the loss falls first and then rises.
	rec := mustDecode(t, base(t), "train.steps=400", "eval.every=2", "eval.patience=3", "train.lr=0.08", "train.schedule=constant", "train.batch=2")
	if err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	eval := series(t, dir, "eval/loss")
	best, at := math.Inf(1), 0
	for i, v := range eval.Values {
		if eval.Steps[i] > 0 && v < best {
			best, at = v, int(eval.Steps[i])
		}
	}
	last := int(eval.Steps[len(eval.Steps)-1])
	if last >= 400 || last-at != 6 {
		t.Fatalf("best at step %d, stopped at %d; patience is 3 evaluations, 2 steps apart", at, last)
	}
	steps, err := savedSteps(dir)
	if err != nil || !slices.Equal(steps, []int{at, last}) {
		t.Errorf("checkpoints at %v, want %d and %d (%v)", steps, at, last, err)
	}
	tr := testTrainer(t, rec, "sft", cpu.New())
	if err := tr.model.Store.ReadChunks(filepath.Join(dir, runs.CheckpointsDir, fmt.Sprintf("step-%d", at))); err != nil {
		t.Fatal(err)
	}
	ev, err := tr.measure(t.Context())
	if err != nil || math.Abs(ev.loss-best) > 1e-6 {
		t.Errorf("the best checkpoint's loss is %v (%v), metrics say %v", ev.loss, err, best)
	}
	m, err := model.Load(filepath.Join(dir, runs.ModelDir), cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	for _, e := range m.Store.Layout.Entries {
		if !slices.Equal(tensor.GetFloat32(m.Store.Param(e.Name).Value), tensor.GetFloat32(tr.model.Store.Param(e.Name).Value)) {
			t.Errorf("the result's %s is not the best checkpoint's", e.Name)
		}
	}
}

// TestEvalOnSeparateFiles: all of their rows, and none of them trained on.
func TestEvalOnSeparateFiles(t *testing.T) {
	rec := mustDecode(t, base(t), fmt.Sprintf("data.eval=[%s/eval.jsonl]", fixture(t)))
	tr := testTrainer(t, rec, "sft", cpu.New())
	train, eval := tr.data.Sequences()
	dropped := 0
	for _, tally := range tr.data.Stats.Total.Skipped { // too long, or equal to a row of eval.jsonl
		dropped += tally.Count
	}
	if train+dropped != 60 || dropped > 3 || eval != 7 {
		t.Errorf("%d rows to train on, %d dropped, %d to evaluate on; want 60 and 7", train, dropped, eval)
	}
	ev, err := tr.measure(t.Context())
	if err != nil || ev.tokens == 0 || math.Abs(ev.loss-math.Log(300)) > 0.3 {
		t.Errorf("%+v, %v", ev, err)
	}
	rec = mustDecode(t, base(t), "data.held_out=0", "train.steps=2")
	dir := filepath.Join(t.TempDir(), "run")
	if err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New()); err != nil {
		t.Errorf("nothing held out: %v", err)
	}
}

// TestEvaluationDoesNotHangOnMicroTokens nor disturb training.
func TestEvaluationDoesNotHangOnMicroTokens(t *testing.T) {
	var want heldOutLoss
	for _, micro := range []int{64, 150, 4000} {
		tr := testTrainer(t, mustDecode(t, base(t), fmt.Sprintf("train.micro_tokens=%d", micro)), "sft", cpu.New())
		got, err := tr.measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want.tokens == 0 {
			want = got
		}
		if got.tokens != want.tokens || math.Abs(got.loss-want.loss) > 1e-6 || got.accuracy != want.accuracy {
			t.Errorf("micro_tokens %d: %+v, want %+v", micro, got, want)
		}
	}
}

// TestClip: the update after clipping is that of the scaled gradient, and metrics
// give the norm before.
func TestClip(t *testing.T) {
	norms := map[string]float64{}
	for _, clip := range []string{"0", "0.001", "1000"} {
		tr := testTrainer(t, mustDecode(t, base(t), "train.clip="+clip), "sft", cpu.New())
		r, err := tr.step(nextStep(t, tr))
		if err != nil {
			t.Fatal(err)
		}
		norms[clip] = r.gradNorm
		factor := tensor.GetFloat64(tr.learner.block)[tensor.StepClip]
		want := 1.0
		if clip == "0.001" {
			want = 0.001 / (r.gradNorm + 1e-6)
		}
		if math.Abs(factor-want) > 1e-6*want {
			t.Errorf("clip %s: factor %g at norm %g, want %g", clip, factor, r.gradNorm, want)
		}
	}
	if norms["0"] != norms["0.001"] || norms["0"] != norms["1000"] || norms["0"] <= 0 {
		t.Errorf("norms before clipping differ: %v", norms)
	}
}

// TestSchedules: metrics show the rate of each step as package optim computes it.
func TestSchedules(t *testing.T) {
	for _, kind := range []string{"constant", "linear", "cosine", "wsd"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "run")
			rec := mustDecode(t, base(t), "train.steps=12", "train.warmup=0.25", "train.schedule="+kind, "train.min_lr=0.1", "train.decay=0.5", "samples.off=true", "eval.every=12")
			if err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New()); err != nil {
				t.Fatal(err)
			}
			s := optim.Schedule{Kind: optim.Kind(kind), LR: 0.01, Steps: 12, Warmup: 3, MinRatio: 0.1, Decay: 6}
			lr := series(t, dir, "lr")
			if len(lr.Values) != 12 {
				t.Fatalf("%d rates in metrics, want 12", len(lr.Values))
			}
			for i, v := range lr.Values {
				if want := s.At(i); math.Abs(v-want) > 1e-9 {
					t.Errorf("step %d: rate %g, want %g", i+1, v, want)
				}
			}
		})
	}
}

// TestSettingsInResult: what was trained to end a turn ends it in the result's
// configuration, and dtype is the recipe's.
func TestSettingsInResult(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	rec := mustDecode(t, base(t), "train.steps=1", "model.dtype=bfloat16", "samples.prompts=[hello]")
	if err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	c, err := model.LoadConfig(filepath.Join(dir, runs.ModelDir))
	if err != nil {
		t.Fatal(err)
	}
	if c.Dtype != "bfloat16" || !slices.Contains(c.EOS, 2) || !slices.Contains(c.EOS, 0) {
		t.Errorf("dtype %s, end tokens %v; <|im_end|> is 2, <|endoftext|> 0", c.Dtype, c.EOS)
	}
	samples, err := runs.ReadSamples(dir)
	if err != nil || len(samples) != 2 || samples[0].Prompt != "hello" || samples[1].Step != 1 {
		t.Errorf("samples %+v, %v", samples, err)
	}
}
