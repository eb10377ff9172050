package bench

import (
	"io"
	"math"
	"slices"
	"time"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/optim"
	"ringtail/rng"
	"ringtail/tensor"
)

// SFTOptions say what a training step computes; zeros take the shape's own.
type SFTOptions struct {
	Batch, Seq int
	Rounds     int // timed steps, default 5
	// Recompute is what isn't kept for the backward pass: none, selective or full (see
	// train.recompute of recipes); "" is none.
	Recompute string
	// GradsApart gives gradients memory of their own, as several micro-batches a step need
	// it, in place of the arena's.
	GradsApart bool
	// Grad and State are types of gradients and moments (see shard.Options), Mode what
	// the result calls all that.
	Grad, State tensor.Dtype
	Mode        string
	// Eight, on a GPU, multiplies 8-bit floats in the layers (model.Options.Eight).
	Eight bool
	// Trace, on a GPU, receives a Chrome trace of one step's kernels.
	Trace io.Writer
}

// SFTResult is a measured training step.
type SFTResult struct {
	Bench    string  `json:"bench"`
	Model    string  `json:"model"`
	Threads  int     `json:"threads"`
	Batch    int     `json:"batch"`
	Seq      int     `json:"seq"`
	Params   int     `json:"params"`
	TokPerS  float64 `json:"tok_per_s"`
	GFLOPS   float64 `json:"gflops"`
	PeakGiB  float64 `json:"peak_gib"`
	Loss     float64 `json:"loss"`
	StepS    float64 `json:"step_s"`
	UpdateS  float64 `json:"update_s"`
	ForwardS float64 `json:"forward_s"`
}

// SFT times training steps (forward, backward, clipping, AdamW) of a named shape
// on random tokens: tokens of one step over the median time of a step.
func SFT(dev tensor.Device, name string, threads int, opt SFTOptions) (*SFTResult, error) {
	s, err := findShape(name)
	if err != nil {
		return nil, err
	}
	if opt.Batch > 0 {
		s.batch = opt.Batch
	}
	if opt.Seq > 0 {
		s.seq = opt.Seq
	}
	if opt.Rounds <= 0 {
		opt.Rounds = 5
	}
	c, err := s.config(s.seq)
	if err != nil {
		return nil, err
	}
	m, err := model.New(c, dev, model.Options{Train: true, Seed: 1, GradsInArena: !opt.GradsApart})
	if err != nil {
		return nil, err
	}
	defer m.Free()
	b, err := newStep(m, s, opt.Recompute)
	if err != nil {
		return nil, err
	}
	defer b.free()
	b.run(1)
	b.run(2)
	var steps, updates, forwards []float64
	var loss float64
	for i := range opt.Rounds {
		t := b.run(3 + i)
		loss = b.lastLoss()
		steps, updates, forwards = append(steps, t.total), append(updates, t.update), append(forwards, t.forward)
	}
	params, _ := m.Store.Params()
	sec := median(steps)
	tokens := float64(s.batch * s.seq)
	flops := (6*float64(params) + 6*float64(s.layers*s.hidden*s.seq)) * tokens
	return &SFTResult{Bench: "sft", Model: name, Threads: threads, Batch: s.batch, Seq: s.seq, Params: params,
		TokPerS: round(tokens/sec, 1), GFLOPS: round(flops/sec/1e9, 1), Loss: round(loss, 4), StepS: round(sec, 4),
		UpdateS: round(median(updates), 4), ForwardS: round(median(forwards), 4),
		PeakGiB: round(float64(m.Store.Bytes()+b.arena.Size())/(1<<30), 3)}, nil
}

// step is a compiled training step on random tokens.
type step struct {
	m                    *model.Model
	dev                  tensor.Device
	arena                *autograd.Arena
	prog                 *autograd.Program
	ids, targets         tensor.Tensor
	loss, scale, block   tensor.Tensor
	hostIDs, hostTargets []int32
	seq                  int
	random               *rng.Stream
	buffers              []*tensor.Buffer
	stored               [][2]tensor.Tensor // batches on the device: ids and targets
}

func newStep(m *model.Model, s shape, recompute string) (*step, error) {
	b := &step{m: m, dev: m.Device(), arena: autograd.NewArena(m.Device()), seq: s.seq, random: rng.New(1, "bench", 0)}
	n := s.batch * s.seq
	b.hostIDs, b.hostTargets = make([]int32, n), make([]int32, n)
	var positions, starts tensor.Tensor
	for _, x := range []struct {
		dst *tensor.Tensor
		d   tensor.Dtype
		n   int
	}{{&b.ids, tensor.I32, n}, {&b.targets, tensor.I32, n}, {&positions, tensor.I32, n}, {&starts, tensor.I32, s.batch + 1},
		{&b.loss, tensor.F64, 3}, {&b.scale, b.dev.Float().Wide(), 1}, {&b.block, tensor.F64, tensor.StepSize}} {
		t, buf, err := tensor.New(b.dev, x.d, x.n)
		if err != nil {
			return nil, err
		}
		*x.dst = t
		b.buffers = append(b.buffers, buf)
	}
	pos, st := make([]int32, n), make([]int32, s.batch+1)
	for i := range pos {
		pos[i] = int32(i % s.seq)
	}
	for i := range st {
		st[i] = int32(i * s.seq)
	}
	tensor.SetInt32(positions, pos)
	tensor.SetInt32(starts, st)
	tensor.SetFloat64(b.scale, []float64{1 / float64(n-s.batch)})
	tape := autograd.NewTape(b.dev)
	h, err := m.Hidden(tape, model.Inputs{IDs: tape.Input("ids", b.ids), Positions: tape.Input("positions", positions),
		Starts: tape.Input("starts", starts), Longest: s.seq, Dense: true, Checkpoint: recompute == "full"})
	if err != nil {
		return nil, err
	}
	m.Loss(tape, h, tape.Input("targets", b.targets), b.loss, b.scale)
	b.prog, err = tape.Compile(b.arena, autograd.Options{Train: true, Gradients: m.Store.Gradients(), Selective: recompute == "selective"})
	return b, err
}

func (b *step) free() {
	for _, x := range b.buffers {
		x.Free()
	}
	b.arena.Free()
}

// timing is what a step's phases took, in seconds.
type timing struct{ forward, update, total float64 }

// run makes the n-th step, on new random tokens.
func (b *step) run(n int) timing {
	b.draw()
	begin := time.Now()
	tensor.SetInt32(b.ids, b.hostIDs)
	tensor.SetInt32(b.targets, b.hostTargets)
	ops := b.dev.Ops()
	b.m.Store.ZeroGrads()
	ops.Zero(b.loss)
	b.prog.Forward()
	_ = b.dev.Sync()
	forward := time.Since(begin)
	b.prog.Backward()
	_ = b.dev.Sync()
	update := time.Now()
	b.settings(n, 3e-4)
	updateWeights(b.m, b.block, b.loss)
	_ = b.dev.Sync()
	return timing{forward.Seconds(), time.Since(update).Seconds(), time.Since(begin).Seconds()}
}

// settings writes the step block of the n-th step.
func (b *step) settings(n int, lr float64) { tensor.SetFloat64(b.block, stepSettings(n, lr)) }

// updateWeights makes the optimizer step of the peers' scripts: clipping to a norm of 1, and
// PyTorch's defaults of AdamW.
func updateWeights(m *model.Model, block, loss tensor.Tensor) {
	m.Store.GradSumSquares(block.Slice(tensor.StepSumSquares, 1))
	m.Device().Ops().ClipFactor(tensor.ClipFactor{Step: block, Check: loss, MaxNorm: 1})
	m.Store.Update(block, optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01})
}

// stepSettings is the step block of the n-th step, counted from 1.
func stepSettings(n int, lr float64) []float64 {
	host := make([]float64, tensor.StepSize)
	host[tensor.StepLR], host[tensor.StepOffset] = lr, float64(n)
	host[tensor.StepBias1], host[tensor.StepBias2] = 1-math.Pow(0.9, float64(n)), 1-math.Pow(0.999, float64(n))
	return host
}

// draw makes random tokens.
func (b *step) draw() {
	for i := range b.hostIDs {
		b.hostIDs[i] = int32(b.random.Intn(b.m.Config.Vocab))
	}
	for i := range b.hostTargets {
		b.hostTargets[i] = -100
		if (i+1)%b.seq != 0 {
			b.hostTargets[i] = b.hostIDs[i+1]
		}
	}
}

func (b *step) lastLoss() float64 {
	l := tensor.GetFloat64(b.loss)
	return l[0] / math.Max(l[1], 1)
}

func median(x []float64) float64 {
	y := slices.Clone(x)
	slices.Sort(y)
	if len(y)%2 == 1 {
		return y[len(y)/2]
	}
	return (y[len(y)/2-1] + y[len(y)/2]) / 2
}

func round(x float64, digits int) float64 {
	p := math.Pow(10, float64(digits))
	return math.Round(x*p) / p
}
