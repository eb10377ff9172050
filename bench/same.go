package bench

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/optim"
	"ringtail/tensor"
)

// SameOptions say how Same trains: AdamW and clipping as bench/peers/torch_same.py has them.
type SameOptions struct {
	Batch, Seq, Steps int
	LR                float64
	Warmup            int          // steps in which the learning rate rises to LR, where it stays
	Grad, State       tensor.Dtype // see shard.Options
	Eight             bool         // 8-bit floats in the layers' products
}

// SameResult is a training run on given batches, with the keys of torch_same.py.
type SameResult struct {
	Bench   string    `json:"bench"`
	By      string    `json:"by"`
	Device  string    `json:"device"`
	Mode    string    `json:"mode"`
	Batch   int       `json:"batch"`
	Seq     int       `json:"seq"`
	Losses  []float64 `json:"losses"`
	Norms   []float64 `json:"grad_norms"`
	Seconds float64   `json:"seconds"`
}

// InitSame writes a named shape with weights from a seed as a model folder that
// transformers reads as well.
func InitSame(dev tensor.Device, name, dir string) error {
	s, err := findShape(name)
	if err != nil {
		return err
	}
	c, err := s.config(s.seq)
	if err != nil {
		return err
	}
	m, err := model.New(c, dev, model.Options{Seed: 1})
	if err != nil {
		return err
	}
	defer m.Free()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return m.Save(dir)
}

// readBatches reads steps of batch rows of seq+1 tokens each: int32, little-endian.
func readBatches(path string, o SameOptions, vocab int) ([]int32, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := o.Steps * o.Batch * (o.Seq + 1)
	if len(data) < 4*n {
		return nil, fmt.Errorf("%s has %d tokens, %d steps of %d rows of %d need %d", path, len(data)/4, o.Steps, o.Batch, o.Seq+1, n)
	}
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(binary.LittleEndian.Uint32(data[4*i:]))
		if out[i] < 0 || int(out[i]) >= vocab {
			return nil, fmt.Errorf("%s: token %d is %d, the model has %d", path, i, out[i], vocab)
		}
	}
	return out, nil
}

// Same trains the model of a folder on the batches of a file and returns the loss of each
// step: what another program computes from the same weights, batches and settings can be compared.
func Same(dev tensor.Device, dir, batches string, o SameOptions) (*SameResult, error) {
	if o.Grad == tensor.Invalid {
		o.Grad = dev.Float().Wide()
	}
	m, err := model.Load(dir, dev, model.Options{Head: model.CausalLM, Train: true, Seed: 1, Grad: o.Grad, State: o.State, Eight: o.Eight})
	if err != nil {
		return nil, err
	}
	defer m.Free()
	tokens, err := readBatches(batches, o, m.Config.Vocab)
	if err != nil {
		return nil, err
	}
	n := o.Batch * o.Seq
	var ids, positions, targets, starts, loss, scale, block tensor.Tensor
	for _, x := range []struct {
		dst *tensor.Tensor
		d   tensor.Dtype
		n   int
	}{{&ids, tensor.I32, n}, {&positions, tensor.I32, n}, {&targets, tensor.I32, n}, {&starts, tensor.I32, o.Batch + 1},
		{&loss, tensor.F64, 3}, {&scale, dev.Float().Wide(), 1}, {&block, tensor.F64, tensor.StepSize}} {
		t, b, err := tensor.New(dev, x.d, x.n)
		if err != nil {
			return nil, err
		}
		defer b.Free()
		*x.dst = t
	}
	host, next, st := make([]int32, n), make([]int32, n), make([]int32, o.Batch+1)
	for i := range host {
		host[i] = int32(i % o.Seq)
	}
	for i := range st {
		st[i] = int32(i * o.Seq)
	}
	tensor.SetInt32(positions, host)
	tensor.SetInt32(starts, st)
	tensor.SetFloat64(scale, []float64{1 / float64(n)})
	arena := autograd.NewArena(dev)
	defer arena.Free()
	tape := autograd.NewTape(dev)
	h, err := m.Hidden(tape, model.Inputs{IDs: tape.Input("ids", ids), Positions: tape.Input("positions", positions),
		Starts: tape.Input("starts", starts), Longest: o.Seq, Dense: true})
	if err != nil {
		return nil, err
	}
	m.Loss(tape, h, tape.Input("targets", targets), loss, scale)
	prog, err := tape.Compile(arena, autograd.Options{Train: true})
	if err != nil {
		return nil, err
	}
	adamw := optim.AdamW{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1}
	settings := make([]float64, tensor.StepSize)
	state := o.State
	if state == tensor.Invalid {
		state = dev.Float().Wide()
	}
	r := &SameResult{Bench: "same", By: "ringtail", Device: dev.Name(), Batch: o.Batch, Seq: o.Seq,
		Mode: fmt.Sprintf("%v weights, %v gradients, %v state", dev.Float(), o.Grad, state)}
	if o.Eight {
		r.Mode = fmt.Sprintf("F8 weights, %v gradients, %v state", o.Grad, state)
	}
	begin := time.Now()
	for step := range o.Steps {
		for row := range o.Batch {
			line := tokens[(step*o.Batch+row)*(o.Seq+1):][:o.Seq+1]
			copy(host[row*o.Seq:], line[:o.Seq])
			copy(next[row*o.Seq:(row+1)*o.Seq], line[1:])
		}
		tensor.SetInt32(ids, host)
		tensor.SetInt32(targets, next)
		m.Store.ZeroGrads()
		dev.Ops().Zero(loss)
		prog.Forward()
		prog.Backward()
		clear(settings)
		settings[tensor.StepLR] = o.LR * min(1, float64(step+1)/float64(max(o.Warmup, 1)))
		settings[tensor.StepOffset], settings[tensor.StepUpdates] = float64(step), float64(step)
		tensor.SetFloat64(block, settings)
		m.Store.GradSumSquares(block.Slice(tensor.StepSumSquares, 1))
		dev.Ops().ClipFactor(tensor.ClipFactor{Step: block, Check: loss, MaxNorm: 1, Beta1: adamw.Beta1, Beta2: adamw.Beta2})
		m.Store.Update(block, adamw)
		if err := dev.Sync(); err != nil {
			return nil, fmt.Errorf("step %d: %w", step+1, err)
		}
		sums, norm := tensor.GetFloat64(loss), tensor.GetFloat64(block)[tensor.StepGradNorm]
		r.Losses, r.Norms = append(r.Losses, sums[0]/max(sums[1], 1)), append(r.Norms, norm)
	}
	r.Seconds = time.Since(begin).Seconds()
	return r, nil
}
