package train

import (
	"ringtail/autograd"
	"ringtail/model"
	"ringtail/tensor"
)

// Passes that end in numbers which the host turns into a loss: scores of a scalar
// head and log-probabilities of chosen tokens. Forward leaves them to be read;
// the loss's derivatives by them are written, and Backward carries those on. So every loss of
// reinforcement and preference learning is a pure function over slices.

// scorePass is a compiled pass through a model with a scalar head: a score at each token.
type scorePass struct {
	*packed
	scores *autograd.Var // [T, 1]
	seed   tensor.Tensor // [T, 1], training: the loss's derivative by scores
}

func newScorePass(m *model.Model, arena *autograd.Arena, s shape, recompute string, x *balance) (*scorePass, error) {
	in, err := newPacked(m.Device(), s)
	if err != nil {
		return nil, err
	}
	p := &scorePass{packed: in}
	opt := in.options(m, recompute)
	if s.train {
		if p.seed, err = in.alloc(m.Device(), m.Device().Float().Wide(), s.tokens, 1); err != nil {
			p.free()
			return nil, err
		}
	}
	tape := autograd.NewTape(m.Device())
	h, err := p.hidden(m, tape, recompute, x)
	if err == nil {
		p.scores = tape.Output(m.Logits(tape, h))
		if s.train {
			opt.Seeds = map[*autograd.Var]tensor.Tensor{p.scores: p.seed}
		}
		p.prog, err = compile(tape, arena, opt)
	}
	if err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

// read are the scores of the Forward before, at each token.
func (p *scorePass) read() []float32 { return tensor.GetFloat32(p.scores.Value()) }

// backward adds the gradient of a loss, given its derivative by each token's score.
func (p *scorePass) backward(seed []float32) {
	tensor.SetFloat32(p.seed, seed)
	p.prog.Backward()
}

// logProbPass is a compiled pass to the log-probabilities of the targets, at a
// temperature; entropies are made where asked for.
type logProbPass struct {
	*packed
	logProbs, entropies     *autograd.Var // [T]
	seedLogProbs, seedEntro tensor.Tensor // [T], training
}

func newLogProbPass(m *model.Model, arena *autograd.Arena, s shape, recompute string, temperature float64, entropy bool) (*logProbPass, error) {
	in, err := newPacked(m.Device(), s)
	if err != nil {
		return nil, err
	}
	p := &logProbPass{packed: in}
	for _, seed := range []*tensor.Tensor{&p.seedLogProbs, &p.seedEntro} {
		if !s.train || seed == &p.seedEntro && !entropy {
			continue
		}
		if *seed, err = in.alloc(m.Device(), m.Device().Float().Wide(), s.tokens); err != nil {
			p.free()
			return nil, err
		}
	}
	opt := in.options(m, recompute)
	tape := autograd.NewTape(m.Device())
	h, err := p.hidden(m, tape, recompute, nil)
	if err == nil {
		p.logProbs, p.entropies = m.LogProb(tape, h, tape.Input("targets", p.targets), float32(temperature), entropy)
		tape.Output(p.logProbs)
		if entropy {
			tape.Output(p.entropies)
		}
		if s.train {
			opt.Seeds = map[*autograd.Var]tensor.Tensor{p.logProbs: p.seedLogProbs}
			if entropy {
				opt.Seeds[p.entropies] = p.seedEntro
			}
		}
		p.prog, err = compile(tape, arena, opt)
	}
	if err != nil {
		p.free()
		return nil, err
	}
	return p, nil
}

// read are the log-probabilities of the Forward before, and the entropies where they are made.
func (p *logProbPass) read() (logProbs, entropies []float32) {
	if p.entropies != nil {
		entropies = tensor.GetFloat32(p.entropies.Value())
	}
	return tensor.GetFloat32(p.logProbs.Value()), entropies
}

// backward adds the gradient of a loss, given its derivatives by each token's
// log-probability and entropy.
func (p *logProbPass) backward(byLogProb, byEntropy []float32) {
	tensor.SetFloat32(p.seedLogProbs, byLogProb)
	if !p.seedEntro.IsZero() {
		tensor.SetFloat32(p.seedEntro, byEntropy)
	}
	p.prog.Backward()
}
