package model

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/autograd"
	"ringtail/golden"
	"ringtail/optim"
	"ringtail/safetensors"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// goldenModels lists the model folders of the golden data.
func goldenModels(t *testing.T) []string {
	t.Helper()
	list := golden.Find(t, "models/*/config.json")
	for i := range list {
		list[i] = filepath.Dir(list[i])
	}
	return list
}

// devices on which goldens are checked.
var devices = map[string]func() tensor.Device{
	"ref": func() tensor.Device { return ref.New() },
	"cpu": func() tensor.Device { return cpu.New() },
}

// goldenIO is io.safetensors: a padded batch and what the reference computed.
type goldenIO struct {
	ids, mask, labels [][]int64
	logits            []float32
	loss              float64
	vocab             int
}

func ints(t *testing.T, f *safetensors.File, name string) [][]int64 {
	x, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("%s has no %s", f.Path(), name)
	}
	cols := x.Shape[len(x.Shape)-1]
	var rows [][]int64
	for at := 0; at < len(x.Data); at += 8 * cols {
		row := make([]int64, cols)
		for i := range row {
			for b := 7; b >= 0; b-- {
				row[i] = row[i]<<8 | int64(x.Data[at+8*i+b])
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func floats(t *testing.T, f *safetensors.File, name string) []float32 {
	x, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("%s has no %s", f.Path(), name)
	}
	out := make([]float32, x.Len())
	if err := x.ToFloat32(out); err != nil {
		t.Fatal(err)
	}
	return out
}

func readGolden(t *testing.T, dir string) *goldenIO {
	f, err := safetensors.Open(filepath.Join(dir, "io.safetensors"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g := &goldenIO{ids: ints(t, f, "input_ids"), mask: ints(t, f, "attention_mask"), labels: ints(t, f, "labels"), logits: floats(t, f, "logits"), loss: float64(floats(t, f, "loss")[0])}
	g.vocab = len(g.logits) / (len(g.ids) * len(g.ids[0]))
	return g
}

// packed is the golden batch without its padding: each row's unmasked tokens end to end.
type packed struct {
	ids, positions, starts, targets []int32
	longest, trained                int
	row, col                        []int // of each token in the padded batch
}

func (g *goldenIO) pack() *packed {
	p := &packed{starts: []int32{0}}
	for r, ids := range g.ids {
		n := 0
		for c, id := range ids {
			if g.mask[r][c] == 0 {
				continue
			}
			p.ids = append(p.ids, int32(id))
			p.positions = append(p.positions, int32(n))
			p.row, p.col = append(p.row, r), append(p.col, c)
			target := int32(-100)
			if c+1 < len(ids) {
				target = int32(g.labels[r][c+1])
			}
			if target >= 0 {
				p.trained++
			}
			p.targets = append(p.targets, target)
			n++
		}
		p.starts = append(p.starts, int32(len(p.ids)))
		p.longest = max(p.longest, n)
	}
	return p
}

// stepper is a model with a compiled training step on one batch.
type stepper struct {
	m                 *Model
	prog              *autograd.Program
	loss, scale, step tensor.Tensor
	logits            *autograd.Var
}

func newTensor(t *testing.T, dev tensor.Device, d tensor.Dtype, shape ...int) tensor.Tensor {
	x, b, err := tensor.New(dev, d, shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	return x
}

func i32(t *testing.T, dev tensor.Device, v []int32) tensor.Tensor {
	x := newTensor(t, dev, tensor.I32, len(v))
	tensor.SetInt32(x, v)
	return x
}

// newStepper compiles a pass; recompute is none, selective or full.
func newStepper(t *testing.T, m *Model, p *packed, train bool, recompute string) *stepper {
	dev := m.Device()
	s := &stepper{m: m, loss: newTensor(t, dev, tensor.F64, 3), scale: newTensor(t, dev, dev.Float().Wide(), 1), step: newTensor(t, dev, tensor.F64, tensor.StepSize)}
	tensor.SetFloat64(s.scale, []float64{1 / float64(max(p.trained, 1))})
	tape := autograd.NewTape(dev)
	in := Inputs{IDs: tape.Input("ids", i32(t, dev, p.ids)), Positions: tape.Input("positions", i32(t, dev, p.positions)),
		Starts: tape.Input("starts", i32(t, dev, p.starts)), Longest: p.longest, Checkpoint: recompute == "full"}
	h, err := m.Hidden(tape, in)
	if err != nil {
		t.Fatal(err)
	}
	if !train {
		s.logits = tape.Output(m.Logits(tape, h))
	}
	m.Loss(tape, h, tape.Input("targets", i32(t, dev, p.targets)), s.loss, s.scale)
	arena := autograd.NewArena(dev)
	s.prog, err = tape.Compile(arena, autograd.Options{Train: train, Gradients: m.Store.Gradients(), Selective: recompute == "selective"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(arena.Free)
	return s
}

// gradients runs forward and backward and returns the mean loss.
func (s *stepper) gradients() float64 {
	s.m.dev.Ops().Zero(s.loss)
	s.m.Store.ZeroGrads()
	s.prog.Forward()
	s.prog.Backward()
	l := tensor.GetFloat64(s.loss)
	return l[0] / l[1]
}

func loadGolden(t *testing.T, dir string, dev tensor.Device, opt Options) *Model {
	m, err := Load(dir, dev, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	return m
}

func norm(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v * v
	}
	return math.Sqrt(s)
}

// distance is ‖a − b‖.
func distance(a []float64, b []float32) float64 {
	s := 0.0
	for i := range a {
		d := a[i] - float64(b[i])
		s += d * d
	}
	return math.Sqrt(s)
}

func TestGoldenModels(t *testing.T) {
	for _, dir := range goldenModels(t) {
		for name, open := range devices {
			t.Run(filepath.Base(dir)+"/"+name, func(t *testing.T) {
				var unknown *UnknownArchitectureError
				if _, err := LoadConfig(dir); errors.As(err, &unknown) {
					t.Skipf("family %s is not known to this version", unknown.Name)
				}
				testGolden(t, dir, open())
			})
		}
	}
}

func testGolden(t *testing.T, dir string, dev tensor.Device) {
	g := readGolden(t, dir)
	if g == nil {
		loadGolden(t, dir, dev, Options{})
		return
	}
	p := g.pack()
	t.Run("logits", func(t *testing.T) {
		m := loadGolden(t, dir, dev, Options{})
		s := newStepper(t, m, p, false, "none")
		s.prog.Forward()
		got := tensor.GetFloat64(s.logits.Value())
		var most, worst float64
		for i := range p.ids {
			at := (p.row[i]*len(g.ids[0]) + p.col[i]) * g.vocab
			for v := range g.vocab {
				want := float64(g.logits[at+v])
				most = max(most, math.Abs(want))
				worst = max(worst, math.Abs(want-got[i*g.vocab+v]))
			}
		}
		if worst > 2e-4*most {
			t.Errorf("logits differ by %g of at most %g", worst, most)
		}
		l := tensor.GetFloat64(s.loss)
		if loss := l[0] / l[1]; math.Abs(loss-g.loss) > 1e-5*max(1, g.loss) {
			t.Errorf("loss %.8f, want %.8f", loss, g.loss)
		}
	})
	for _, recompute := range []string{"none", "selective", "full"} {
		t.Run("gradients/recompute="+recompute, func(t *testing.T) {
			f, err := safetensors.Open(filepath.Join(dir, "grads.safetensors"))
			if errors.Is(err, os.ErrNotExist) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			m := loadGolden(t, dir, dev, Options{Train: true, GradsInArena: recompute != "none"})
			s := newStepper(t, m, p, true, recompute)
			if loss := s.gradients(); math.Abs(loss-g.loss) > 1e-5*max(1, g.loss) {
				t.Errorf("loss %.8f, want %.8f", loss, g.loss)
			}
			largest := largestGradient(t, f)
			grads := asStored(m, func(p *autograd.Param) tensor.Tensor { return p.Grad })
			for name, got := range grads {
				want := floats(t, f, "grad."+name)
				n := norm(toFloat64(want))
				if d := distance(got, want); d > 1e-4*n && d > 1e-6*largest {
					t.Errorf("gradient of %s: off by %g of norm %g", name, d, n)
				}
				for i, v := range want { // what is 0 there is 0 here
					if math.Abs(float64(v)) < 1e-7*largest && math.Abs(got[i]) > 1e-6*largest {
						t.Errorf("gradient of %s[%d]: %g, want %g, beside %g elsewhere", name, i, got[i], v, largest)
						break
					}
				}
			}
			for _, name := range f.Names() {
				if _, ok := grads[strings.TrimPrefix(name, "grad.")]; !ok {
					t.Errorf("no gradient of %s", name)
				}
			}
		})
	}
	t.Run("adamw", func(t *testing.T) { testGoldenSteps(t, dir, dev, p) })
}

func toFloat64(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

func testGoldenSteps(t *testing.T, dir string, dev tensor.Device, p *packed) {
	text, err := os.ReadFile(filepath.Join(dir, "train.json"))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var want struct {
		Losses    []float64 `json:"losses"`
		GradNorms []float64 `json:"grad_norms"`
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	after, err := safetensors.Open(filepath.Join(dir, "after_3_adamw_steps.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	m := loadGolden(t, dir, dev, Options{Train: true, GradsInArena: true, Decay: func(string, []int) bool { return true }})
	value := func(p *autograd.Param) tensor.Tensor { return p.Value }
	before := asStored(m, value)
	s := newStepper(t, m, p, true, "none")
	block := make([]float64, tensor.StepSize)
	for i := range want.Losses {
		block[tensor.StepLR] = 1e-3
		block[tensor.StepBias1] = 1 - math.Pow(0.9, float64(i+1))
		block[tensor.StepBias2] = 1 - math.Pow(0.95, float64(i+1))
		block[tensor.StepSumSquares] = 0
		tensor.SetFloat64(s.step, block)
		loss := s.gradients()
		m.Store.GradSumSquares(s.step.Slice(tensor.StepSumSquares, 1))
		dev.Ops().ClipFactor(tensor.ClipFactor{Step: s.step, MaxNorm: 1})
		m.Store.Update(s.step, optim.AdamW{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1})
		gn := tensor.GetFloat64(s.step)[tensor.StepGradNorm]
		if math.Abs(loss-want.Losses[i]) > 1e-4*want.Losses[i] || math.Abs(gn-want.GradNorms[i]) > 1e-4*want.GradNorms[i] {
			t.Errorf("step %d: loss %.6f, gradient norm %.6f; want %.6f, %.6f", i, loss, gn, want.Losses[i], want.GradNorms[i])
		}
	}
	noise := roundingNoise(t, dir)
	for name, got := range asStored(m, value) {
		w := floats(t, after, name)
		for i := range noise[name] {
			got[i], w[i], before[name][i] = 0, 0, 0
		}
		moved := distance(before[name], w)
		if d := distance(got, w); d > 1e-3*moved {
			t.Errorf("%s after %d steps: off by %g, moved %g", name, len(want.Losses), d, moved)
		}
	}
}

// asStored is a part of each parameter in the layout of folders, by the names that transformers
// has for them in memory: there a layer's experts are one tensor.
func asStored(m *Model, part func(*autograd.Param) tensor.Tensor) map[string][]float64 {
	out := map[string][]float64{}
	for _, e := range m.Store.Layout.Entries {
		v := tensor.GetFloat64(part(m.Store.Param(e.Name)))
		if s := m.Config.storage(e.Name, e.Shape); s.differs() {
			stored := make([]float64, len(v))
			toStored(s, stored, v)
			v = stored
		}
		name := strings.Replace(strings.Replace(e.Name, "embed_out.", "lm_head.", 1), ".block_sparse_moe.", ".mlp.", 1)
		if at := strings.Index(name, ".experts."); at >= 0 {
			kind := ".experts.gate_up_proj"
			if strings.HasSuffix(name, ".down_proj.weight") || strings.HasSuffix(name, ".w2.weight") {
				kind = ".experts.down_proj"
			}
			name = name[:at] + kind
		}
		out[name] = append(out[name], v...) // experts follow each other, gate then up
	}
	return out
}

// roundingNoise lists, by parameter, elements whose gradient is 0 to float32's
// rounding: below 1e-6 of the model's largest. AdamW divides a gradient by its own
// size, so what it made of these errors isn't compared. In exact arithmetic the whole
// bias of keys is such (OPT's k_proj.bias, a third of GPT-2's c_attn.bias). Rows
// without any gradient, of tokens that don't occur, are no noise.
func roundingNoise(t *testing.T, dir string) map[string]map[int]bool {
	out := map[string]map[int]bool{}
	f, err := safetensors.Open(filepath.Join(dir, "grads.safetensors"))
	if errors.Is(err, os.ErrNotExist) {
		return out
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	limit := 1e-6 * largestGradient(t, f)
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		cols := x.Shape[len(x.Shape)-1]
		list := map[int]bool{}
		for at, g := 0, floats(t, f, name); at < len(g); at += cols {
			row := toFloat64(g[at:][:cols])
			if norm(row) == 0 {
				continue
			}
			for i, v := range row {
				if math.Abs(v) < limit {
					list[at+i] = true
				}
			}
		}
		out[strings.TrimPrefix(name, "grad.")] = list
	}
	return out
}

func largestGradient(t *testing.T, f *safetensors.File) float64 {
	largest := 0.0
	for _, name := range f.Names() {
		for _, v := range floats(t, f, name) {
			largest = max(largest, math.Abs(float64(v)))
		}
	}
	return largest
}
