package bench

import (
	"fmt"
	"io"
	"time"

	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cuda"
)

// peakFLOPS is what MFU is a part of: the dense bfloat16 rate on an H100's or H200's data
// sheet, as in the peers' torch_sft.py.
const peakFLOPS = 989e12

// GPUSFTResult is a measured training step on a GPU, with the peers' keys.
type GPUSFTResult struct {
	Bench   string  `json:"bench"`
	Model   string  `json:"model"`
	Mode    string  `json:"mode"`
	Device  string  `json:"device"`
	Batch   int     `json:"batch"`
	Seq     int     `json:"seq"`
	Params  int     `json:"params"`
	TokPerS float64 `json:"tok_per_s"`
	MFU     float64 `json:"mfu"`
	PeakGiB float64 `json:"peak_gib"`
	Loss    float64 `json:"loss"`
	StepS   float64 `json:"step_s"`
	// Of a step, measured apart with waits in between.
	ForwardS  float64 `json:"forward_s"` // the loss's gradients included
	BackwardS float64 `json:"backward_s"`
	UpdateS   float64 `json:"update_s"`
	StartS    float64 `json:"start_s"`   // from weights in place to the end of the first step
	ProcessS  float64 `json:"process_s"` // from the program's start to the end of the first step
	FirstLoss float64 `json:"first_loss"`

	Kernels []cuda.Timing `json:"kernels,omitempty"` // of a step, with a profile
}

// began is when the program started, but for the milliseconds that its runtime takes.
var began = time.Now()

// profiler is a device that times its kernels.
type profiler interface {
	StartProfile()
	StopProfile(trace io.Writer) ([]cuda.Timing, error)
}

// meter is a device that counts the memory of tensors.
type meter interface {
	MemoryUse() (now, most int)
	ResetPeak()
}

// GPUSFT times training steps on a device that records graphs, as torch_sft.py does: three
// windows of at least seconds each, the median of a step's time; eight batches that lie on the device.
func GPUSFT(dev tensor.Device, name string, opt SFTOptions, seconds float64) (*GPUSFTResult, error) {
	recorder, ok := dev.(tensor.Capturer)
	if !ok {
		return nil, fmt.Errorf("%s records no graphs", dev.Name())
	}
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
	c, err := s.config(s.seq)
	if err != nil {
		return nil, err
	}
	m, err := blankModel(c, dev, model.Options{Train: true, Seed: 1, Grad: opt.Grad, State: opt.State, GradsInArena: !opt.GradsApart, Eight: opt.Eight})
	if err != nil {
		return nil, err
	}
	defer m.Free()
	if x, ok := dev.(meter); ok {
		x.ResetPeak()
	}
	begin := time.Now()
	b, err := newStep(m, s, opt.Recompute)
	if err != nil {
		return nil, err
	}
	defer b.free()
	if err := b.batches(8); err != nil {
		return nil, err
	}
	g := &graphs{}
	defer g.free()
	forward := func() {
		m.Store.ZeroGrads()
		dev.Ops().Zero(b.loss)
		b.prog.Forward()
	}
	update := func() { updateWeights(m, b.block, b.loss) }
	b.next(1)
	forward()
	b.prog.Backward()
	update()
	if err := dev.Sync(); err != nil {
		return nil, err
	}
	start, process, first := time.Since(begin).Seconds(), time.Since(began).Seconds(), b.lastLoss()
	if err := g.record(recorder, forward, b.prog.Backward, update, func() { forward(); b.prog.Backward(); update() }); err != nil {
		return nil, err
	}
	n := 1
	step := func() { n++; b.next(n); g.list[3].Launch() }
	for range 3 {
		step()
	}
	if err := dev.Sync(); err != nil {
		return nil, err
	}
	var times []float64
	for range 3 {
		begin, count := time.Now(), 0
		for time.Since(begin).Seconds() < seconds {
			for range 4 {
				step()
			}
			if err := dev.Sync(); err != nil {
				return nil, err
			}
			count += 4
		}
		times = append(times, time.Since(begin).Seconds()/float64(count))
	}
	loss := b.lastLoss()
	var kernels []cuda.Timing
	var phases [3][]float64
	for range 5 {
		n++
		b.next(n)
		for i := range phases {
			begin := time.Now()
			g.list[i].Launch()
			if err := dev.Sync(); err != nil {
				return nil, err
			}
			phases[i] = append(phases[i], time.Since(begin).Seconds())
		}
	}
	if x, ok := dev.(profiler); ok && opt.Trace != nil {
		n++
		b.next(n)
		x.StartProfile()
		forward()
		b.prog.Backward()
		update()
		if kernels, err = x.StopProfile(opt.Trace); err != nil {
			return nil, err
		}
	}
	params, _ := m.Store.Params()
	sec, tokens := median(times), float64(s.batch*s.seq)
	flops := (6*float64(params) + 6*float64(s.layers*s.hidden*s.seq)) * tokens
	return &GPUSFTResult{Kernels: kernels, Bench: "sft", Model: name, Mode: opt.Mode, Device: dev.Name(), Batch: s.batch, Seq: s.seq, Params: params,
		TokPerS: round(tokens/sec, 0), MFU: round(flops/sec/peakFLOPS, 4), Loss: round(loss, 4), StepS: round(sec, 5),
		ForwardS: round(median(phases[0]), 5), BackwardS: round(median(phases[1]), 5), UpdateS: round(median(phases[2]), 5),
		StartS: round(start, 3), ProcessS: round(process, 3), FirstLoss: round(first, 4), PeakGiB: peakGiB(dev)}, nil
}

// peakGiB is the most memory that tensors have taken, 0 of a device that doesn't count it.
func peakGiB(dev tensor.Device) float64 {
	x, ok := dev.(meter)
	if !ok {
		return 0
	}
	_, most := x.MemoryUse()
	return round(float64(most)/(1<<30), 2)
}

// graphs are recorded pieces of a step.
type graphs struct{ list []tensor.Graph }

func (g *graphs) record(dev tensor.Capturer, work ...func()) error {
	for _, f := range work {
		x, err := dev.Capture(f)
		if err != nil {
			return err
		}
		g.list = append(g.list, x)
	}
	return nil
}

func (g *graphs) free() {
	for _, x := range g.list {
		x.Free()
	}
}

// batches makes n random batches on the device.
func (b *step) batches(n int) error {
	for range n {
		b.draw()
		var pair [2]tensor.Tensor
		for i, v := range [][]int32{b.hostIDs, b.hostTargets} {
			t, buf, err := tensor.New(b.dev, tensor.I32, len(v))
			if err != nil {
				return err
			}
			b.buffers = append(b.buffers, buf)
			tensor.SetInt32(t, v)
			pair[i] = t
		}
		b.stored = append(b.stored, pair)
	}
	return nil
}

// next puts the n-th step's batch and settings in place.
func (b *step) next(n int) {
	pair := b.stored[n%len(b.stored)]
	b.dev.Ops().Copy(b.ids, pair[0])
	b.dev.Ops().Copy(b.targets, pair[1])
	b.settings(n, 1e-5)
}
