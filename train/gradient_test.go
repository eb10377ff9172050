package train

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ringtail/data"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// gradientsOf computes a batch cut as opt says: each parameter's gradient, the
// mean loss and the number of micro-batches.
func gradientsOf(t *testing.T, tr *tester, opt data.LoaderOptions) (grads map[string][]float64, loss float64, micro int) {
	t.Helper()
	loader, err := data.NewLoader(tr.data, data.TrainPart, opt)
	if err != nil {
		t.Fatal(err)
	}
	var step data.Step
	if !loader.Next(&step) {
		t.Fatal("no batch")
	}
	if err := tr.gradients(&step); err != nil {
		t.Fatal(err)
	}
	grads = map[string][]float64{}
	for _, e := range tr.model.Store.Layout.Entries {
		if p := tr.model.Store.Param(e.Name); p.Trainable() {
			grads[e.Name] = tensor.GetFloat64(p.Grad)
		}
	}
	l := tensor.GetFloat64(tr.loss)
	if int(l[1]) != step.Trained || step.Trained == 0 {
		t.Errorf("%v tokens counted in the loss, %d are trained", l[1], step.Trained)
	}
	return grads, l[0] / l[1], len(step.Micro)
}

func relativeError(got, want []float64) float64 {
	var d, n float64
	for i := range want {
		d += (got[i] - want[i]) * (got[i] - want[i])
		n += want[i] * want[i]
	}
	return math.Sqrt(d / max(n, 1e-300))
}

// TestCutDoesNotChangeGradients: a batch of 16 in one packed micro-batch gives the
// gradients of 16 micro-batches of one row each, which are unpacked rows, and of
// every cut in between; on the reference device to float64's precision.
func TestCutDoesNotChangeGradients(t *testing.T) {
	for name, dev := range map[string]struct {
		open func() tensor.Device
		most float64
	}{"cpu": {func() tensor.Device { return cpu.New() }, 1e-5}, "ref": {func() tensor.Device { return ref.New() }, 1e-11}} {
		for _, objective := range []string{"sft", "pretrain"} {
			for _, recompute := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/recompute=%v", name, objective, recompute), func(t *testing.T) {
					t.Parallel()
					rec := mustDecode(t, base(t), fmt.Sprintf("train.recompute=%v", recompute))
					tr := testTrainer(t, rec, objective, dev.open())
					want, wantLoss, n := gradientsOf(t, tr, data.LoaderOptions{Batch: 16})
					if n != 1 {
						t.Fatalf("%d micro-batches, want 1", n)
					}
					for _, cut := range []data.LoaderOptions{{MicroRows: 1}, {MicroRows: 5}, {MicroTokens: 64}, {MicroTokens: 200}} {
						cut.Batch = 16
						got, loss, n := gradientsOf(t, tr, cut)
						if n < 2 || cut.MicroRows == 1 && n != 16 {
							t.Fatalf("%+v gave %d micro-batches", cut, n)
						}
						if e := math.Abs(loss-wantLoss) / wantLoss; e > dev.most {
							t.Errorf("%d micro-batches: loss %.9f, want %.9f", n, loss, wantLoss)
						}
						for name, w := range want {
							if e := relativeError(got[name], w); !(e <= dev.most) {
								t.Errorf("%d micro-batches: gradient of %s is off by %.2g", n, name, e)
							}
						}
					}
				})
			}
		}
	}
}

// TestMicroTokensDoNotChangeSteps: with a batch in tokens too, each step sees the
// same rows under any micro_tokens.
func TestMicroTokensDoNotChangeSteps(t *testing.T) {
	var want []int
	for _, micro := range []int{64, 100, 4096} {
		rec := mustDecode(t, base(t), "train.batch=0", "train.batch_tokens=400", fmt.Sprintf("train.micro_tokens=%d", micro))
		tr := testTrainer(t, rec, "sft", cpu.New())
		var got []int
		for range 12 {
			s := nextStep(t, tr)
			got = append(got, s.Sequences, s.Tokens, s.Trained)
		}
		if want == nil {
			want = got
		}
		if !slices.Equal(got, want) {
			t.Errorf("micro_tokens %d: steps of %v, want %v", micro, got, want)
		}
	}
}

// TestCPUEqualsReference: losses and gradient norms of steps, updates included.
func TestCPUEqualsReference(t *testing.T) {
	rec := mustDecode(t, base(t), "train.micro_tokens=64")
	a, b := testTrainer(t, rec, "sft", cpu.New()), testTrainer(t, rec, "sft", ref.New())
	for i := range 6 {
		x, err := a.step(nextStep(t, a))
		if err != nil {
			t.Fatal(err)
		}
		y, err := b.step(nextStep(t, b))
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(x.loss-y.loss) > 1e-5*y.loss || math.Abs(x.gradNorm-y.gradNorm) > 1e-4*y.gradNorm || x.lr != y.lr || x.tokens != y.tokens {
			t.Errorf("step %d: %+v on cpu, %+v on ref", i, x, y)
		}
	}
}

// TestSeed: one seed, one result, on any number of threads; another seed, another.
func TestSeed(t *testing.T) {
	n := cpu.Threads()
	defer cpu.SetThreads(n)
	run := func(threads int, sets ...string) map[string]string {
		cpu.SetThreads(threads)
		dir := filepath.Join(t.TempDir(), "run")
		sets = append([]string{"model.new.hidden_size=64", "train.steps=6", "train.batch=12", "train.micro_tokens=512", "samples.temperature=1"}, sets...)
		if err := trainRun(context.Background(), mustDecode(t, base(t), sets...), "sft", dir, false, cpu.New()); err != nil {
			t.Fatal(err)
		}
		return outcome(t, dir)
	}
	want := run(2)
	t.Run("again", func(t *testing.T) { same(t, run(2), want) })
	t.Run("one thread", func(t *testing.T) { same(t, run(1), want) })
	t.Run("three threads", func(t *testing.T) { same(t, run(3), want) })
	t.Run("another seed", func(t *testing.T) {
		got := run(2, "seed=1")
		for _, name := range []string{"model/model.safetensors", "metrics.jsonl", "samples.jsonl"} {
			if got[name] == want[name] {
				t.Errorf("%s is the same", name)
			}
		}
	})
}

// TestLossFalls: the loss of a model that trains at all falls far below that of
// an even guess.
func TestLossFalls(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	rec := mustDecode(t, base(t), "train.steps=60", "train.batch=8", "train.micro_tokens=256", "train.lr=0.02")
	if err := trainRun(context.Background(), rec, "sft", dir, false, cpu.New()); err != nil {
		t.Fatal(err)
	}
	loss := series(t, dir, "loss")
	first, last := loss.Values[0], loss.Last()
	if math.Abs(first-math.Log(300)) > 0.3 {
		t.Errorf("first loss %.3f, that of an even guess is %.3f", first, math.Log(300))
	}
	if last > first/2 {
		t.Errorf("loss %.3f after %.3f", last, first)
	}
	if _, err := os.Stat(filepath.Join(dir, "model", "model.safetensors")); err != nil {
		t.Error(err)
	}
}

// TestFreezing: whatever is frozen, the gradients of the rest stay what they were,
// and what is frozen has none.
func TestFreezing(t *testing.T) {
	for name, open := range map[string]func() tensor.Device{"cpu": func() tensor.Device { return cpu.New() }, "ref": func() tensor.Device { return ref.New() }} {
		t.Run(name, func(t *testing.T) {
			sets := []string{"train.batch=3", "model.new.num_hidden_layers=2", "model.new.tie_word_embeddings=false"}
			opt := data.LoaderOptions{Batch: 3, MicroRows: 2}
			want, _, _ := gradientsOf(t, testTrainer(t, mustDecode(t, base(t), sets...), "sft", open()), opt)
			for i, freeze := range []string{
				"model.embed_tokens.weight",
				"model.embed_tokens.weight, model.layers.0.*",
				"model.layers.0.*",
				"model.embed_tokens.weight, '*norm.weight'",
				"'*_proj.weight'",
				"'*_proj.weight', lm_head.weight",
				"'*norm.weight', lm_head.weight",
				"model.embed_tokens.weight, '*layernorm.weight', '*self_attn*'",
				"model.embed_tokens.weight, '*layernorm.weight', '*mlp*'",
				"model.embed_tokens.weight, '*_proj.weight'",
				"'model.*'",
				"'model.embed*', 'model.layers.*'",
				"'*[qkv]_proj.weight', model.embed_tokens.weight, model.layers.0.input_layernorm.weight",
				"lm_head.weight",
			} {
				recompute := i%2 == 0
				rec := mustDecode(t, base(t), append(sets, "model.freeze=["+freeze+"]", fmt.Sprintf("train.recompute=%v", recompute))...)
				got, _, _ := gradientsOf(t, testTrainer(t, rec, "sft", open()), opt)
				if len(got) == 0 || len(got) == len(want) {
					t.Errorf("freeze %s: %d of %d tensors are trained", freeze, len(got), len(want))
				}
				for name, g := range got {
					if e := relativeError(g, want[name]); e > 1e-6 {
						t.Errorf("freeze %s, recompute %v: gradient of %s is off by %.2g", freeze, recompute, name, e)
					}
				}
			}
		})
	}
}
