package train

import (
	"ringtail/autograd"
	"ringtail/data"
	"ringtail/model"
	"ringtail/tensor"
)

// tokenBucket and sequenceBucket are the least granularity of compiled programs'
// shapes: a micro-batch is filled up to them with tokens that no loss counts.
const (
	tokenBucket    = 64
	sequenceBucket = 16
)

// bucketOf is the granularity in tokens for micro-batches of at most micro: a part
// of it, so that the number of programs, which are all kept, stays small.
func bucketOf(micro int) int { return max(tokenBucket, roundUp(micro/32, tokenBucket)) }

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// shape is what a program is compiled for.
type shape struct {
	tokens, sequences, longest int
	train                      bool
}

// pass is a compiled forward (and, training, backward) pass over one packed
// micro-batch of a fixed shape.
type pass struct {
	shape
	ids, positions, targets, starts tensor.Tensor
	prog                            *autograd.Program
	buffers                         []*tensor.Buffer
	host                            [3][]int32
	hostStarts                      []int32
}

// newPass compiles the model's loss for a shape.
func newPass(m *model.Model, arena *autograd.Arena, s shape, recompute bool, loss, scale tensor.Tensor) (*pass, error) {
	p := &pass{shape: s, hostStarts: make([]int32, s.sequences+1)}
	for i := range p.host {
		p.host[i] = make([]int32, s.tokens)
	}
	dev := m.Device()
	for _, x := range []struct {
		dst *tensor.Tensor
		n   int
	}{{&p.ids, s.tokens}, {&p.positions, s.tokens}, {&p.targets, s.tokens}, {&p.starts, s.sequences + 1}} {
		t, b, err := tensor.New(dev, tensor.I32, x.n)
		if err != nil {
			p.free()
			return nil, err
		}
		*x.dst = t
		p.buffers = append(p.buffers, b)
	}
	tape := autograd.NewTape(dev)
	h, err := m.Hidden(tape, model.Inputs{IDs: tape.Input("ids", p.ids), Positions: tape.Input("positions", p.positions),
		Starts: tape.Input("starts", p.starts), Longest: s.longest, Checkpoint: recompute && s.train})
	if err == nil {
		m.Loss(tape, h, tape.Input("targets", p.targets), loss, scale)
		p.prog, err = tape.Compile(arena, autograd.Options{Train: s.train})
	}
	if err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

func (p *pass) free() {
	for _, b := range p.buffers {
		b.Free()
	}
}

// load copies a micro-batch to the device. Its tail is filled with sequences of
// at most longest tokens without targets.
func (p *pass) load(b *data.Batch) {
	ids, positions, targets := p.host[0], p.host[1], p.host[2]
	n := copy(ids, b.IDs[:b.Tokens])
	copy(positions, b.Positions[:n])
	copy(targets, b.Targets[:n])
	s := copy(p.hostStarts, b.Starts[:b.Rows])
	if n < p.tokens {
		p.hostStarts[s] = int32(n)
		s++
	}
	for i := n; i < p.tokens; i++ {
		ids[i], positions[i], targets[i] = 0, int32((i-n)%p.longest), -100
		if (i-n)%p.longest == 0 && i > n {
			p.hostStarts[s] = int32(i)
			s++
		}
	}
	for ; s < len(p.hostStarts); s++ {
		p.hostStarts[s] = int32(p.tokens)
	}
	tensor.SetInt32(p.ids, ids)
	tensor.SetInt32(p.positions, positions)
	tensor.SetInt32(p.targets, targets)
	tensor.SetInt32(p.starts, p.hostStarts)
}

// shapeOf is the shape that a micro-batch's real tokens are compiled for; the
// loader's own filler is left out.
func shapeOf(b *data.Batch, micro, longest int, train bool) shape {
	s := shape{tokens: roundUp(b.Tokens, bucketOf(micro)), longest: longest, train: train}
	filler := (s.tokens - b.Tokens + longest - 1) / longest
	s.sequences = roundUp(b.Rows+filler, sequenceBucket)
	return s
}
