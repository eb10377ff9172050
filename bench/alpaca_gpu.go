package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/rng"
	"ringtail/tensor"
)

// AlpacaResult is a measured run of Alpaca's recipe: updates of 128 examples of given
// lengths, packed end to end without padding. The keys are torch_alpaca.py's.
type AlpacaResult struct {
	Bench       string  `json:"bench"`
	Model       string  `json:"model"`
	Packed      bool    `json:"packed"`
	Batch       int     `json:"batch"`
	RealTokPerS float64 `json:"real_tok_per_s"`
	TokPerS     float64 `json:"padded_tok_per_s"` // filler counted
	PeakGiB     float64 `json:"peak_gib"`
	Updates     int     `json:"updates"`
	StepS       float64 `json:"step_s"`
	KeptLayers  int     `json:"kept_layers"` // whose values aren't computed twice
	Loss        float64 `json:"loss"`
}

const (
	alpacaBatch = 128
	// alpacaStep is the granularity of compiled updates in tokens.
	alpacaStep = 1024
)

// Alpaca times updates of a named LLaMA shape by the lengths in a file (one number of tokens
// an example, in order), for at least so many seconds after every shape of update has been compiled. Each
// update is one packed micro-batch with bfloat16 gradients; masters and moments are float32.
// Layers keep their values as far as memory allows, the others compute them again.
func Alpaca(dev tensor.Device, name, lengthsFile string, updates int, seconds float64) (*AlpacaResult, error) {
	recorder, ok := dev.(tensor.Capturer)
	if !ok {
		return nil, fmt.Errorf("%s records no graphs", dev.Name())
	}
	text, err := os.ReadFile(lengthsFile)
	if err != nil {
		return nil, err
	}
	var lengths []int
	if err := json.Unmarshal(text, &lengths); err != nil {
		return nil, fmt.Errorf("%s: %w", lengthsFile, err)
	}
	updates = min(updates, len(lengths)/alpacaBatch)
	if updates < 1 {
		return nil, fmt.Errorf("%s has %d lengths; an update takes %d", lengthsFile, len(lengths), alpacaBatch)
	}
	s, err := findShape(name)
	if err != nil {
		return nil, err
	}
	c, err := s.config(2048)
	if err != nil {
		return nil, err
	}
	m, err := blankModel(c, dev, model.Options{Train: true, Seed: 1, GradsInArena: true})
	if err != nil {
		return nil, err
	}
	defer m.Free()
	if x, ok := dev.(meter); ok {
		x.ResetPeak()
	}
	a := &alpaca{m: m, dev: dev, recorder: recorder, arena: autograd.NewArena(dev), random: rng.New(1, "bench", 0), steps: map[int]*packedStep{}}
	defer a.free()
	if err := a.alloc(); err != nil {
		return nil, err
	}
	var batches []packedBatch
	for u := range updates {
		batches = append(batches, a.pack(lengths[u*alpacaBatch:][:alpacaBatch]))
	}
	// The largest first: the arena never moves again.
	order := slices.Clone(batches)
	slices.SortFunc(order, func(x, y packedBatch) int { return y.size - x.size })
	if a.kept, err = a.mostKept(order[0].size); err != nil {
		return nil, err
	}
	for _, b := range order {
		if a.steps[b.size] == nil {
			if err := a.compile(b); err != nil {
				return nil, err
			}
		}
	}
	n, real, padded := 0, 0, 0
	begin := time.Now()
	for n < updates || time.Since(begin).Seconds() < seconds {
		b := batches[n%updates]
		n++
		real, padded = real+b.tokens, padded+b.size
		a.run(b, n)
		if n%updates == 0 {
			if err := dev.Sync(); err != nil {
				return nil, err
			}
		}
	}
	if err := dev.Sync(); err != nil {
		return nil, err
	}
	took := time.Since(begin).Seconds()
	loss := tensor.GetFloat64(a.loss)
	return &AlpacaResult{Bench: "alpaca", Model: name, Packed: true, Batch: alpacaBatch, RealTokPerS: round(float64(real)/took, 0),
		TokPerS: round(float64(padded)/took, 0), Updates: n, StepS: round(took/float64(n), 4), KeptLayers: a.kept, Loss: round(loss[0]/math.Max(loss[1], 1), 4),
		PeakGiB: peakGiB(dev)}, nil
}

// blankModel is a model whose weights are copies of one block of random numbers.
func blankModel(c *model.Config, dev tensor.Device, opt model.Options) (*model.Model, error) {
	block, buf, err := tensor.New(dev, dev.Float().Wide(), 1<<24)
	if err != nil {
		return nil, err
	}
	defer buf.Free()
	values := make([]float32, block.Len())
	rng.New(1, "bench", 0).FillNormal(values, 0, 1)
	tensor.SetFloat32(block, values)
	opt.Block = block
	return model.New(c, dev, opt)
}

// packedBatch is the host's side of an update: size tokens, of which the last are filler.
type packedBatch struct {
	size, tokens, trained           int
	ids, positions, targets, starts []int32
}

// alpaca is the state of a run.
type alpaca struct {
	m                  *model.Model
	dev                tensor.Device
	recorder           tensor.Capturer
	arena              *autograd.Arena
	random             *rng.Stream
	loss, scale, block tensor.Tensor
	buffers            []*tensor.Buffer
	steps              map[int]*packedStep
	kept               int
}

// packedStep is an update of a size, compiled and recorded.
type packedStep struct {
	ids, positions, targets, starts tensor.Tensor
	prog                            *autograd.Program
	graph                           tensor.Graph
}

func (a *alpaca) alloc() error {
	var err error
	for _, x := range []struct {
		dst *tensor.Tensor
		d   tensor.Dtype
		n   int
	}{{&a.loss, tensor.F64, 3}, {&a.scale, a.dev.Float().Wide(), 1}, {&a.block, tensor.F64, tensor.StepSize}} {
		if *x.dst, err = a.tensor(x.d, x.n); err != nil {
			return err
		}
	}
	return nil
}

func (a *alpaca) tensor(d tensor.Dtype, n int) (tensor.Tensor, error) {
	t, buf, err := tensor.New(a.dev, d, n)
	if err == nil {
		a.buffers = append(a.buffers, buf)
	}
	return t, err
}

func (a *alpaca) free() {
	for _, s := range a.steps {
		if s.graph != nil {
			s.graph.Free()
		}
	}
	for _, b := range a.buffers {
		b.Free()
	}
	a.arena.Free()
}

// longestExample is the most tokens of an example: those of the file are cut there.
const longestExample = 512

// pack lays an update's examples end to end: random tokens, every one but the first of an
// example a target, as in torch_alpaca.py.
func (a *alpaca) pack(lengths []int) packedBatch {
	var b packedBatch
	for _, n := range lengths {
		b.tokens += min(n, longestExample)
	}
	b.size = (b.tokens + alpacaStep - 1) / alpacaStep * alpacaStep
	vocab := a.m.Config.Vocab
	for _, n := range lengths {
		b.starts = append(b.starts, int32(len(b.ids)))
		for i := range min(n, longestExample) {
			id := int32(a.random.Intn(vocab))
			if i > 0 {
				b.targets[len(b.targets)-1] = id
				b.trained++
			}
			b.ids, b.positions, b.targets = append(b.ids, id), append(b.positions, int32(i)), append(b.targets, -100)
		}
	}
	for i := 0; len(b.ids) < b.size; i++ {
		if i%longestExample == 0 {
			b.starts = append(b.starts, int32(len(b.ids)))
		}
		b.ids, b.positions, b.targets = append(b.ids, 0), append(b.positions, int32(i%longestExample)), append(b.targets, -100)
	}
	for len(b.starts) < a.sequences()+1 {
		b.starts = append(b.starts, int32(b.size))
	}
	return b
}

// sequences is the number of sequences that a program has room for: the examples, and filler.
func (a *alpaca) sequences() int { return alpacaBatch + alpacaStep/longestExample }

// record puts an update of a size on a tape.
func (a *alpaca) record(size, kept int, s *packedStep) (*autograd.Tape, error) {
	tape := autograd.NewTape(a.dev)
	in := func(name string, t tensor.Tensor, n int) *autograd.Var {
		if t.IsZero() { // only planned
			t = tensor.Tensor{Device: a.dev, Dtype: tensor.I32, Shape: []int{n}, Stride: n, Addr: tensor.Align}
		}
		return tape.Input(name, t)
	}
	h, err := a.m.Hidden(tape, model.Inputs{IDs: in("ids", s.ids, size), Positions: in("positions", s.positions, size),
		Starts: in("starts", s.starts, a.sequences()+1), Longest: longestExample, Checkpoint: kept < a.m.Config.Layers, Kept: kept})
	if err != nil {
		return nil, err
	}
	a.m.Loss(tape, h, in("targets", s.targets, size), a.loss, a.scale)
	return tape, nil
}

func (a *alpaca) options() autograd.Options {
	return autograd.Options{Train: true, Gradients: a.m.Store.Gradients(), Selective: true}
}

// mostKept is how many layers can keep their values in the memory that is free.
func (a *alpaca) mostKept(size int) (int, error) {
	const reserve = 3 << 30 // workspaces: logits, attention, products; and the allocator's own
	free := math.MaxInt
	if x, ok := a.dev.(interface{ MemoryInfo() (free, total int) }); ok {
		free, _ = x.MemoryInfo()
	}
	for kept := a.m.Config.Layers; kept > 0; kept-- {
		tape, err := a.record(size, kept, &packedStep{})
		if err != nil {
			return 0, err
		}
		p, err := tape.Compile(nil, a.options())
		if err != nil {
			return 0, err
		}
		if p.Size() <= free-reserve {
			return kept, nil
		}
	}
	return 0, nil
}

// compile makes, runs once and records an update of a batch's size.
func (a *alpaca) compile(b packedBatch) error {
	s := &packedStep{}
	var err error
	for _, x := range []struct {
		dst *tensor.Tensor
		n   int
	}{{&s.ids, b.size}, {&s.positions, b.size}, {&s.targets, b.size}, {&s.starts, a.sequences() + 1}} {
		if *x.dst, err = a.tensor(tensor.I32, x.n); err != nil {
			return err
		}
	}
	tape, err := a.record(b.size, a.kept, s)
	if err != nil {
		return err
	}
	if s.prog, err = tape.Compile(a.arena, a.options()); err != nil {
		return err
	}
	a.steps[b.size] = s
	a.load(s, b, len(a.steps))
	a.work(s)
	if err := a.dev.Sync(); err != nil {
		return err
	}
	s.graph, err = a.recorder.Capture(func() { a.work(s) })
	return err
}

// load puts a batch and the settings of the n-th update in place.
func (a *alpaca) load(s *packedStep, b packedBatch, n int) {
	tensor.SetInt32(s.ids, b.ids)
	tensor.SetInt32(s.positions, b.positions)
	tensor.SetInt32(s.targets, b.targets)
	tensor.SetInt32(s.starts, b.starts)
	tensor.SetFloat64(a.scale, []float64{1 / float64(b.trained)})
	tensor.SetFloat64(a.block, stepSettings(n, 2e-5))
}

// work is an update.
func (a *alpaca) work(s *packedStep) {
	a.m.Store.ZeroGrads()
	a.dev.Ops().Zero(a.loss)
	s.prog.Forward()
	s.prog.Backward()
	updateWeights(a.m, a.block, a.loss)
}

// run enqueues the n-th update.
func (a *alpaca) run(b packedBatch, n int) {
	s := a.steps[b.size]
	a.load(s, b, n)
	s.graph.Launch()
}
