package train

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"ringtail/runs"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/cuda"
	"ringtail/tensor/cuda/emulator/build"
)

var buildEmulator = sync.OnceValues(func() (string, error) { return build.Library() })

// emulated is a CUDA device whose GPU is emulated; where RINGTAIL_TEST_GPU is set, the
// machine's. It isn't for parallel tests.
func emulated(t testing.TB, float tensor.Dtype) *cuda.Device {
	t.Helper()
	if os.Getenv("RINGTAIL_TEST_GPU") == "" {
		if runtime.GOOS != "linux" {
			t.Skip("the emulator is built for Linux only")
		}
		path, err := buildEmulator()
		if errors.Is(err, build.ErrNoCompiler) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("RINGTAIL_LIBCUDA", path)
		t.Setenv("RINGTAIL_LIBCUBLASLT", path)
		t.Setenv("RINGTAIL_LIBCUDNN", "off")
	}
	d, err := cuda.Open(cuda.Options{Float: float})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// TestGPUSFT: a run on the GPU has the losses of one on the CPU: of steps and of
// evaluations; resumed, it has its own bytes.
func TestGPUSFT(t *testing.T) {
	for _, c := range []struct {
		name  string
		float tensor.Dtype
		most  float64 // by which losses may differ
		sets  []string
	}{
		{"f32", tensor.F32, 1e-4, nil},
		{"f32/accumulation", tensor.F32, 1e-4, []string{"train.batch=7", "train.micro_tokens=64", "train.recompute=true"}},
		{"bf16", tensor.BF16, 1e-2, nil},
		{"bf16/accumulation", tensor.BF16, 1e-2, []string{"train.batch=7", "train.micro_tokens=64"}},
		{"bf16/state", tensor.BF16, 2e-2, []string{"optimizer.state=bf16", "train.gradients=bf16"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.name != "bf16/accumulation" {
				t.Skip("one will do")
			}
			dev := emulated(t, c.float)
			sets := append([]string{"model.new.num_hidden_layers=1", "train.lr=0.003", "data.max_tokens=40", "checkpoint.every=10", "eval.every=10", "samples.rows=1",
				"samples.max_tokens=2", "log.tensorboard=false"}, c.sets...)
			on := func(dir string, dev tensor.Device, resume bool, ctx context.Context, sets ...string) error {
				return trainRun(ctx, mustDecode(t, base(t), sets...), "sft", dir, resume, dev)
			}
			onCPU, whole, halves := filepath.Join(t.TempDir(), "cpu"), filepath.Join(t.TempDir(), "gpu"), filepath.Join(t.TempDir(), "gpu")
			var plain []string
			for _, s := range sets {
				if !strings.HasPrefix(s, "optimizer.state") && !strings.HasPrefix(s, "train.gradients") {
					plain = append(plain, s)
				}
			}
			if err := on(onCPU, cpu.New(), false, t.Context(), plain...); err != nil {
				t.Fatal(err)
			}
			if err := on(whole, dev, false, t.Context(), sets...); err != nil {
				t.Fatal(err)
			}
			want, got := metricsOf(t, onCPU), metricsOf(t, whole)
			if len(got) != len(want) || len(got) != 21 {
				t.Fatalf("%d lines of metrics, on the CPU %d", len(got), len(want))
			}
			worst := 0.0
			for i, w := range want {
				for _, name := range []string{"loss", "eval/loss"} {
					if d := math.Abs(got[i][name] - w[name]); !(d <= c.most) {
						t.Errorf("step %d: %s %.6f, on the CPU %.6f", i, name, got[i][name], w[name])
					} else {
						worst = max(worst, d)
					}
				}
			}
			if err := loadAlgorithms(dev, whole); err != nil {
				t.Error(err)
			}
			t.Logf("losses of the GPU and the CPU differ by %.2g at most; last %.4f", worst, got[20]["loss"])
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stop := &interrupting{Device: dev, at: 13, do: cancel}
			if err := on(halves, stop, false, ctx, sets...); !errors.Is(err, ErrInterrupted) {
				t.Fatal(err)
			}
			if err := on(halves, dev, true, t.Context(), sets...); err != nil {
				t.Fatal(err)
			}
			same(t, outcome(t, halves), outcome(t, whole))
		})
	}
}

// interrupting is a device that calls a function in the at-th step: when its loss is set to 0.
type interrupting struct {
	*cuda.Device
	ops tensor.Ops
	at  int
	do  func()
}

func (d *interrupting) Ops() *tensor.Ops {
	if d.ops.Zero == nil {
		d.ops = *d.Device.Ops()
		d.ops.Zero = func(x tensor.Tensor) {
			d.Device.Ops().Zero(x)
			if x.Dtype == tensor.F64 && x.Len() == 3 {
				if d.at--; d.at == 0 {
					d.do()
				}
			}
		}
	}
	return &d.ops
}

// TestGPUReinforcement: a reward model and PPO train on the GPU; in float32 their
// figures are those of the CPU (the same answers are sampled). PPO, resumed, has its own bytes.
func TestGPUReinforcement(t *testing.T) {
	dir := rlFixture(t)
	for _, c := range []struct {
		name, objective string
		float           tensor.Dtype
		sets, more      []string           // more are the GPU's
		same            map[string]float64 // metrics, and by how much they may differ
	}{
		{"reward f32", "reward", tensor.F32, []string{"train.steps=4", "eval.every=4", "reward.normalize=false", "data.held_out=0.05"}, nil,
			map[string]float64{"loss": 1e-4, "eval/loss": 1e-4, "eval/accuracy": 0.05, "grad_norm": 1e-3}},
		{"reward bf16", "reward", tensor.BF16, []string{"train.steps=4", "eval.every=4", "reward.normalize=false", "data.held_out=0.05"}, []string{"optimizer.state=bf16"},
			map[string]float64{"loss": 0.05, "eval/loss": 0.05}},
		{"ppo f32", "ppo", tensor.F32, []string{"train.rollouts=2", "ppo.ptx_coef=0.3"}, nil,
			map[string]float64{"loss": 5e-3, "ppo/kl": 1e-2, "ppo/score": 1e-3, "ppo/ptx_loss": 1e-3, "ppo/critic_grad_norm": 1e-3}},
		{"ppo bf16", "ppo", tensor.BF16, []string{"train.rollouts=2", "ppo.ptx_coef=0.3"}, []string{"ppo.ema=0.9"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := map[string]string{"reward": rewardBase(dir), "ppo": ppoBase(dir)}[c.objective]
			dev := emulated(t, c.float)
			on := func(ctx context.Context, dir string, dev tensor.Device, resume bool, sets ...string) (string, error) {
				return startRun(ctx, mustRecipe(t, c.objective, text, append([]string{"log.tensorboard=false"}, sets...)...), c.objective, dir, resume, dev)
			}
			onCPU, whole, halves := filepath.Join(t.TempDir(), "cpu"), filepath.Join(t.TempDir(), "gpu"), filepath.Join(t.TempDir(), "gpu")
			if _, err := on(t.Context(), onCPU, cpu.New(), false, c.sets...); err != nil {
				t.Fatal(err)
			}
			sets := append(slices.Clone(c.sets), c.more...)
			said, err := on(t.Context(), whole, dev, false, sets...)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(said, "warning") {
				t.Error(said)
			}
			want, got := metricsOf(t, onCPU), metricsOf(t, whole)
			if len(got) != len(want) {
				t.Fatalf("%d lines of metrics, on the CPU %d", len(got), len(want))
			}
			for i, w := range want {
				for name, most := range c.same {
					if d := math.Abs(got[i][name] - w[name]); !(d <= most) {
						t.Errorf("line %d: %s %.6f, on the CPU %.6f", i, name, got[i][name], w[name])
					}
				}
			}
			if testing.Short() || c.name != "ppo bf16" {
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if _, err := on(ctx, halves, &interrupting{Device: dev, at: 3, do: cancel}, false, sets...); !errors.Is(err, ErrInterrupted) {
				t.Fatal(err)
			}
			if _, err := on(t.Context(), halves, dev, true, sets...); err != nil {
				t.Fatal(err)
			}
			same(t, outcome(t, halves), outcome(t, whole))
		})
	}
}

// plainly is a device that neither records graphs nor reads later.
type plainly struct{ tensor.Device }

// recording counts the graphs that a device records and how often they are launched. In
// some steps, counted from 1, it makes a loss that isn't a number.
type recording struct {
	*cuda.Device
	graphs, launches int
	broken           []int
	step             int
	ops              tensor.Ops
}

func (r *recording) Ops() *tensor.Ops {
	if r.ops.Zero == nil {
		r.ops = *r.Device.Ops()
		r.ops.Zero = func(x tensor.Tensor) {
			r.Device.Ops().Zero(x)
			if x.Dtype != tensor.F64 || x.Len() != 3 {
				return
			}
			if r.step++; slices.Contains(r.broken, r.step) {
				tensor.SetFloat64(x, []float64{math.NaN(), 0, 0})
			}
		}
	}
	return &r.ops
}

type countedGraph struct {
	tensor.Graph
	r *recording
}

func (g countedGraph) Launch() { g.r.launches++; g.Graph.Launch() }

func (r *recording) Capture(f func()) (tensor.Graph, error) {
	g, err := r.Device.Capture(f)
	r.graphs++
	return countedGraph{g, r}, err
}

// TestGPUGraphs: recorded and enqueued ahead, a run leaves the same bytes as one whose
// every operation is launched and every step waited for: with micro-batches of several shapes,
// evaluations and samples between steps for which the arena moves, and PPO's passes of four models.
func TestGPUGraphs(t *testing.T) {
	dir := rlFixture(t)
	small := []string{"model.new.num_hidden_layers=1", "data.max_tokens=40", "eval.every=6", "samples.rows=1", "samples.max_tokens=2"}
	for _, c := range []struct {
		name, objective, text string
		sets                  []string
		least                 int // launches of graphs
		broken                []int
	}{
		{"sft", "sft", base(t), append([]string{"train.steps=9", "train.batch=7", "train.micro_tokens=64", "log.every=2"}, small...), 30, nil},
		{"skips", "sft", base(t), append([]string{"train.steps=10", "train.batch=4", "train.micro_tokens=64", "eval.every=100"}, small[:2]...), 20, []int{2, 5, 6, 9}},
		{"windows", "pretrain", base(t), append([]string{"data.train=[" + windowsText(t) + "]", "train.steps=8", "train.micro_tokens=160"}, small...), 6, nil},
		{"ppo", "ppo", ppoBase(dir), []string{"train.rollouts=2", "ppo.prompts=4", "ppo.epochs=2", "ppo.ptx_coef=0.3", "ppo.max_tokens=6", "eval.answers=2", "samples.off=true"}, 20, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.name == "ppo" {
				t.Skip("long")
			}
			dev := &recording{Device: emulated(t, tensor.BF16), broken: c.broken}
			plain, graphs := filepath.Join(t.TempDir(), "run"), filepath.Join(t.TempDir(), "run")
			on := func(dir string, dev tensor.Device) {
				t.Helper()
				sets := append([]string{"log.tensorboard=false"}, c.sets...)
				if _, err := startRun(t.Context(), mustRecipe(t, c.objective, c.text, sets...), c.objective, dir, false, dev); err != nil {
					t.Fatal(err)
				}
			}
			on(plain, plainly{dev})
			dev.step = 0
			on(graphs, dev)
			if last := metricsOf(t, graphs); last[len(last)-1]["skipped"] != float64(len(c.broken)) {
				t.Errorf("%v steps were skipped, want %d", last[len(last)-1]["skipped"], len(c.broken))
			}
			want, got := outcome(t, plain), outcome(t, graphs)
			delete(got, runs.AlgorithmsFile)
			same(t, got, want)
			if dev.launches < c.least {
				t.Errorf("%d graphs launched %d times", dev.graphs, dev.launches)
			}
			t.Logf("%d graphs launched %d times", dev.graphs, dev.launches)
		})
	}
}

// windowsText is a file of a few long texts.
func windowsText(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "long.txt")
	var lines []string
	for i := range uint64(8) {
		lines = append(lines, strings.Join(sentences(9+i, 40, 5, 20), " "))
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestGPUWindows: whole windows of a text are compiled as sequences of equal length.
func TestGPUWindows(t *testing.T) {
	dev := emulated(t, tensor.F32)
	tr := testTrainer(t, mustDecode(t, base(t), "data.train=["+windowsText(t)+"]", "data.max_tokens=20", "train.micro_tokens=80"), "pretrain", dev)
	if _, err := tr.step(nextStep(t, tr)); err != nil {
		t.Fatal(err)
	}
	for s := range tr.passes {
		if s != (shape{tokens: 80, sequences: 4, longest: 20, dense: true, train: true}) {
			t.Errorf("compiled for %+v", s)
		}
	}
}
