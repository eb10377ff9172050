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
	dense                      bool // every sequence has longest tokens
	train                      bool
}

// longestOf bounds the sequences of programs: that of the data, rounded up.
func longestOf(tokens, micro int) int { return min(roundUp(max(tokens, 1), tokenBucket), micro) }

// packed are the inputs of a compiled pass: a micro-batch of a fixed shape on the device.
type packed struct {
	shape
	prog                            *compiled
	ids, positions, targets, starts tensor.Tensor
	live                            tensor.Tensor // [1]: tokens before the filler
	all                             tensor.Tensor // the five, which one copy fills
	host                            []int32
	buffers                         []*tensor.Buffer
}

func newPacked(dev tensor.Device, s shape) (*packed, error) {
	p := &packed{shape: s}
	const align = tensor.Align / 4
	total := 0
	parts := []struct {
		dst *tensor.Tensor
		n   int
	}{{&p.ids, s.tokens}, {&p.positions, s.tokens}, {&p.targets, s.tokens}, {&p.starts, s.sequences + 1}, {&p.live, 1}}
	for _, x := range parts {
		total += roundUp(x.n, align)
	}
	var err error
	if p.all, err = p.alloc(dev, tensor.I32, total); err != nil {
		return nil, err
	}
	at := 0
	for _, x := range parts {
		*x.dst = p.all.Slice(at, x.n)
		at += roundUp(x.n, align)
	}
	p.host = make([]int32, total)
	return p, nil
}

// of is where the host keeps what is copied to one of the inputs.
func (p *packed) of(x tensor.Tensor) []int32 {
	at := int(x.Addr-p.all.Addr) / 4
	return p.host[at : at+x.Len()]
}

// alloc makes a tensor that lives as long as the inputs.
func (p *packed) alloc(dev tensor.Device, d tensor.Dtype, shape ...int) (tensor.Tensor, error) {
	defer tensor.Label(dev, "inputs")()
	t, b, err := tensor.New(dev, d, shape...)
	if err == nil {
		p.buffers = append(p.buffers, b)
	}
	return t, err
}

func (p *packed) free() {
	if p.prog != nil {
		p.prog.free()
	}
	for _, b := range p.buffers {
		b.Free()
	}
	p.buffers = nil
}

// hidden records the decoder on these inputs; training a mixture of experts, with a
// balance if there is one.
func (p *packed) hidden(m *model.Model, tape *autograd.Tape, recompute string, x *balance) (*autograd.Var, error) {
	in := model.Inputs{IDs: tape.Input("ids", p.ids), Positions: tape.Input("positions", p.positions),
		Starts: tape.Input("starts", p.starts), Longest: p.longest, Dense: p.dense, Checkpoint: recompute == "full" && p.train}
	if p.train {
		in.Router = x.record(tape, p.live)
	}
	return m.Hidden(tape, in)
}

// options are those of a pass through m, recompute being what train.recompute says;
// gradients lie where the model's do.
func (p *packed) options(m *model.Model, recompute string) autograd.Options {
	return autograd.Options{Train: p.train, Selective: recompute == "selective", Gradients: m.Store.Gradients()}
}

// lossPass is a compiled forward (and, training, backward) pass to the
// cross-entropy of a micro-batch.
type lossPass struct{ *packed }

// newLossPass compiles the model's loss for a shape.
func newLossPass(m *model.Model, arena *autograd.Arena, s shape, recompute string, x *balance, loss, scale tensor.Tensor) (*lossPass, error) {
	in, err := newPacked(m.Device(), s)
	if err != nil {
		return nil, err
	}
	p := &lossPass{packed: in}
	tape := autograd.NewTape(m.Device())
	h, err := p.hidden(m, tape, recompute, x)
	if err == nil {
		m.Loss(tape, h, tape.Input("targets", p.targets), loss, scale)
		p.prog, err = compile(tape, arena, in.options(m, recompute))
	}
	if err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

// load copies a micro-batch to the device. Its tail is filled with sequences of
// at most longest tokens without targets.
func (p *packed) load(b *data.Batch) {
	ids, positions, targets, starts := p.of(p.ids), p.of(p.positions), p.of(p.targets), p.of(p.starts)
	n := copy(ids, b.IDs[:b.Tokens])
	copy(positions, b.Positions[:n])
	copy(targets, b.Targets[:n])
	s := copy(starts, b.Starts[:b.Rows])
	if n < p.tokens {
		starts[s] = int32(n)
		s++
	}
	for i := n; i < p.tokens; i++ {
		ids[i], positions[i], targets[i] = 0, int32((i-n)%p.longest), -100
		if (i-n)%p.longest == 0 && i > n {
			starts[s] = int32(i)
			s++
		}
	}
	for ; s < len(starts); s++ {
		starts[s] = int32(p.tokens)
	}
	p.of(p.live)[0] = int32(n)
	tensor.SetInt32(p.all, p.host)
}

// shapeOf is the shape that a micro-batch's real tokens are compiled for; the
// loader's own filler is left out.
func shapeOf(b *data.Batch, micro, longest int, train bool) shape {
	s := shape{tokens: roundUp(b.Tokens, bucketOf(micro)), longest: longest, train: train}
	filler := (s.tokens - b.Tokens + longest - 1) / longest
	s.sequences = roundUp(b.Rows+filler, sequenceBucket)
	return s
}

// windowsOf is the shape of a micro-batch whose sequences have n tokens each, as most
// windows of a pretraining text do; ok is false for any other. Attention is faster on these.
func windowsOf(b *data.Batch, n int, train bool) (s shape, ok bool) {
	if n < 2 || b.Rows == 0 || b.Tokens != b.Rows*n {
		return s, false
	}
	for i, at := range b.Starts[:b.Rows] {
		if int(at) != i*n {
			return s, false
		}
	}
	return shape{tokens: b.Tokens, sequences: b.Rows, longest: n, dense: true, train: train}, true
}

// batchOf lays rows of tokens end to end; what row i says from token prompt[i] on is
// a target.
func batchOf(rows [][]int32, prompt []int) data.Batch {
	var b data.Batch
	for i, ids := range rows {
		b.Starts = append(b.Starts, int32(len(b.IDs)))
		b.IDs = append(b.IDs, ids...)
		for t := range ids {
			target := int32(data.IgnoreTarget)
			if t+1 < len(ids) && t+1 >= prompt[i] {
				target = ids[t+1]
				b.Trained++
			}
			b.Positions = append(b.Positions, int32(t))
			b.Targets = append(b.Targets, target)
		}
	}
	b.Rows, b.Tokens = len(rows), len(b.IDs)
	b.Starts = append(b.Starts, int32(len(b.IDs)))
	return b
}
