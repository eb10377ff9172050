package autograd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// TestMetamorphic compiles random graphs in several ways that must not matter and
// asks for the same bits: as usual; with memory of its own for every buffer, so
// that nothing is shared or taken over; without recomputation; with that of cheap
// values; with gradients of parameters in the arena; and a second time,
// in an arena that another program has used. The graphs use values again, join
// and leave checkpointed regions, freeze parameters, and have several outputs,
// seeds, log-probabilities and losses. On the reference device finite differences check the gradients.
func TestMetamorphic(t *testing.T) {
	for _, d := range []struct {
		dev    tensor.Device
		graphs int
	}{{ref.New(), graphs}, {cpu.New(), graphs / 4}} {
		t.Run(d.dev.Name(), func(t *testing.T) {
			for seed := range d.graphs {
				g := newGraph(t, d.dev, uint64(seed))
				g.check(seed)
				g.free()
				if t.Failed() {
					return
				}
			}
		})
	}
}

// graph builds one random graph, the same at each call of build.
type graph struct {
	t       *testing.T
	dev     tensor.Device
	rnd     *rand.Rand
	buffers []*tensor.Buffer

	steps  []func(b *building)
	inputs [][2]tensor.Tensor // value, gradient
	params []*Param
	moved  *moved // gradients in the arena
	losses []tensor.Tensor
	scales []tensor.Tensor
	text   []string // what it is, for messages
}

// building is one recording of the graph.
type building struct {
	tape  *Tape
	vars  []*Var // that steps may use, by their number
	outs  []*Var
	seeds map[*Var]tensor.Tensor
}

// The sizes are few, so that values often fit each other: rows are 4 or 6,
// columns 4 (a hidden state), 8 (for GLU) or 12 (q, k and v of one head).
const narrow, double, triple = 4, 8, 12

func newGraph(t *testing.T, dev tensor.Device, seed uint64) *graph {
	g := &graph{t: t, dev: dev, rnd: rand.New(rand.NewPCG(seed, 77))}
	// shapes[i] is the shape of the i-th value, known without recording.
	var shapes [][2]int
	var consumable []int
	add := func(rows, cols int) {
		consumable = append(consumable, len(shapes))
		shapes = append(shapes, [2]int{rows, cols})
	}
	for i := range 1 + g.rnd.IntN(3) {
		rows, cols := 4+2*g.rnd.IntN(2), []int{narrow, narrow, double, triple}[g.rnd.IntN(4)]
		x, dx := g.floats(rows, cols), tensor.Tensor{}
		if g.rnd.IntN(4) > 0 {
			dx = g.floats(rows, cols)
			g.inputs = append(g.inputs, [2]tensor.Tensor{x, dx})
		}
		name := fmt.Sprintf("x%d", i)
		g.steps = append(g.steps, func(b *building) {
			if dx.IsZero() {
				b.vars = append(b.vars, b.tape.Input(name, x))
			} else {
				b.vars = append(b.vars, b.tape.GradInput(name, x, dx))
			}
		})
		add(rows, cols)
	}
	// Recent values are used more often, so that graphs are deep.
	pick := func() int {
		n := len(consumable)
		return consumable[n-1-min(g.rnd.IntN(n), g.rnd.IntN(n))]
	}
	// fellow is another value, or the same, of i's shape.
	fellow := func(i int) int {
		for range 6 {
			if j := pick(); shapes[j] == shapes[i] {
				return j
			}
		}
		return i
	}
	var record func(n int, inside bool)
	record = func(n int, inside bool) {
		for range n {
			if !inside && g.rnd.IntN(4) == 0 {
				begin := len(g.steps)
				g.say("region {")
				record(1+g.rnd.IntN(6), true)
				g.say("}")
				body := slices.Clone(g.steps[begin:])
				g.steps = append(g.steps[:begin], func(b *building) {
					b.tape.Checkpoint(func() {
						for _, s := range body {
							s(b)
						}
					})
				})
				continue
			}
			g.step(pick(), fellow, shapes, add)
		}
	}
	record(3+g.rnd.IntN(14), false)
	// The outputs; values left over are used by nobody.
	last := len(shapes) - 1
	g.seed(last, shapes[last])
	for range g.rnd.IntN(3) {
		i := pick()
		if g.rnd.IntN(2) == 0 {
			g.seed(i, shapes[i])
			continue
		}
		g.say("output %d", i)
		g.steps = append(g.steps, func(b *building) { b.outs = append(b.outs, b.tape.Output(b.vars[i])) })
	}
	return g
}

// differences checks the gradients along a random direction of all inputs and
// parameters: the derivative of Σ seed·output + Σ scale·loss by central
// differences is the gradients' product with the direction.
func (g *graph) differences(seed int, b *building, p *Program) {
	value := func() float64 {
		for _, l := range g.losses {
			g.dev.Ops().Zero(l)
		}
		p.Forward()
		sum := 0.0
		done := map[*Var]bool{}
		for _, v := range b.outs {
			if s, ok := b.seeds[v]; ok && !done[v] {
				done[v] = true
				w := tensor.GetFloat64(s)
				for i, y := range tensor.GetFloat64(v.Value()) {
					sum += w[i] * y
				}
			}
		}
		for i, l := range g.losses {
			sum += tensor.GetFloat64(l)[0] * tensor.GetFloat64(g.scales[i])[0]
		}
		return sum
	}
	g.run(b, p)
	all := slices.Clone(g.inputs)
	for _, q := range g.params {
		if q.Trainable() {
			all = append(all, [2]tensor.Tensor{q.Value, q.Grad})
		}
	}
	const h = 1e-6
	want, size := 0.0, 0.0
	var at, direction [][]float64
	for _, x := range all {
		v := tensor.GetFloat64(x[0])
		d := make([]float64, len(v))
		for i, grad := range tensor.GetFloat64(x[1]) {
			d[i] = g.rnd.NormFloat64()
			want += d[i] * grad
			size += math.Abs(d[i] * grad)
		}
		at, direction = append(at, v), append(direction, d)
	}
	move := func(by float64) {
		for k, x := range all {
			v := slices.Clone(at[k])
			for i := range v {
				v[i] += by * direction[k][i]
			}
			tensor.SetFloat64(x[0], v)
		}
	}
	move(h)
	up := value()
	move(-h)
	down := value()
	move(0)
	if got := (up - down) / (2 * h); math.Abs(got-want) > 1e-5*(1+size) {
		g.t.Errorf("graph %d: the derivative along a direction is %g, gradients say %g\n%s", seed, got, want, strings.Join(g.text, "\n"))
	}
}

// step adds a random operation on value i.
func (g *graph) step(i int, fellow func(int) int, shapes [][2]int, add func(rows, cols int)) {
	rows, cols := shapes[i][0], shapes[i][1]
	one := func(name string, rows, cols int, f func(t *Tape, x *Var) *Var) {
		g.say("%d = %s %d", len(shapes), name, i)
		add(rows, cols)
		g.steps = append(g.steps, func(b *building) { b.vars = append(b.vars, f(b.tape, b.vars[i])) })
	}
	j := fellow(i)
	switch k := g.rnd.IntN(20); {
	case k < 3:
		to := []int{narrow, narrow, double, triple}[g.rnd.IntN(4)]
		w := g.param(to, cols)
		var bias *Param
		if g.rnd.IntN(2) == 0 {
			bias = g.param(to)
		}
		one("linear", rows, to, func(t *Tape, x *Var) *Var { return t.Linear(x, w, bias) })
	case k < 6:
		g.say("%d = add %d %d", len(shapes), i, j)
		add(rows, cols)
		g.steps = append(g.steps, func(b *building) { b.vars = append(b.vars, b.tape.Add(b.vars[i], b.vars[j])) })
	case k == 6:
		w := g.param(cols)
		one("rmsnorm", rows, cols, func(t *Tape, x *Var) *Var { return t.RMSNorm(x, w, 1e-5) })
	case k < 10:
		w := g.param(cols)
		g.say("%d, %d = add+rmsnorm %d %d", len(shapes), len(shapes)+1, i, j)
		add(rows, cols)
		add(rows, cols)
		g.steps = append(g.steps, func(b *building) {
			s, y := b.tape.AddRMSNorm(b.vars[i], b.vars[j], w, 1e-5)
			b.vars = append(b.vars, s, y)
		})
	case k == 10:
		to := 4 + 2*g.rnd.IntN(2)
		which := make([]int32, to)
		for i := range which {
			which[i] = int32(g.rnd.IntN(rows))
		}
		list := g.ints(which...)
		one("gather", to, cols, func(t *Tape, x *Var) *Var { return t.Gather(x, t.Input("rows", list)) })
	case k == 11 && cols == triple:
		shape := tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 4, Scale: 0.5, Window: g.rnd.IntN(4)}
		starts := g.ints(0, 1, 1, int32(rows))
		one("attention", rows, narrow, func(t *Tape, x *Var) *Var { return t.Attention(x, t.Input("starts", starts), shape, rows) })
	case k == 11 && cols == double:
		act := tensor.Activation(g.rnd.IntN(4))
		one("glu", rows, narrow, func(t *Tape, x *Var) *Var { return t.GLU(x, act) })
	case k == 12:
		pos := make([]int32, rows)
		for i := range pos {
			pos[i] = int32(g.rnd.IntN(5))
		}
		list, cos, sin := g.ints(pos...), g.floats(5, 2), g.floats(5, 2)
		one("rope", rows, cols, func(t *Tape, x *Var) *Var { return t.RoPE(x, t.Input("positions", list), cos, sin, cols/4, 4) })
	case k == 13:
		g.score(i, rows, cols)
	case k == 14:
		n := Norm{W: g.param(cols), Bias: g.param(cols), Layer: true, Eps: 1e-5}
		one("layernorm", rows, cols, func(t *Tape, x *Var) *Var { return t.Norm(x, n) })
	case k == 15:
		n := Norm{W: g.param(cols), Layer: true, Eps: 1e-5}
		g.say("%d, %d = add+layernorm %d %d", len(shapes), len(shapes)+1, i, j)
		add(rows, cols)
		add(rows, cols)
		g.steps = append(g.steps, func(b *building) {
			s, y := b.tape.AddNorm(b.vars[i], b.vars[j], n)
			b.vars = append(b.vars, s, y)
		})
	case k == 16:
		act := tensor.Activation(g.rnd.IntN(4))
		one("activate", rows, cols, func(t *Tape, x *Var) *Var { return t.Activate(x, act) })
	case k == 17:
		one("scale, softcap", rows, cols, func(t *Tape, x *Var) *Var { return t.SoftCap(t.Scale(x, 0.7), 1.5) })
	case k == 18 && cols == triple:
		shape := tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 4, Scale: 0.5, SoftCap: 1.5, ALiBi: true}
		wq, wk, starts := g.param(4), g.param(4), g.ints(0, 3, int32(rows))
		one("head norm, attention", rows, narrow, func(t *Tape, x *Var) *Var {
			return t.Attention(t.HeadNorm(x, wq, wk, shape, 1e-5, 1), t.Input("starts", starts), shape, rows)
		})
	case k == 18:
		router, up, down := g.param(3, cols), g.param(3, 4, cols), g.param(3, cols, 2)
		one("experts", rows, cols, func(t *Tape, x *Var) *Var {
			y, _ := experts(t, x, router, up, down, 2, true)
			return y
		})
	default:
		g.say("loss of %d", i)
		w, loss, scale := g.param(5, cols), g.tensor(tensor.F64, 3), g.floats(1)
		list := g.ints(g.targets(rows)...)
		g.losses, g.scales = append(g.losses, loss), append(g.scales, scale)
		g.steps = append(g.steps, func(b *building) { b.tape.CrossEntropy(b.vars[i], b.tape.Input("targets", list), w, 0, loss, scale) })
	}
}

// score takes log-probabilities and entropies of value i, which are outputs with
// seeds for one of them or both.
func (g *graph) score(i, rows, cols int) {
	seeded := g.rnd.IntN(3)
	g.say("log-probabilities of %d, seeds %d", i, seeded)
	w, d, e := g.param(5, cols), g.floats(rows), g.floats(rows)
	list := g.ints(g.targets(rows)...)
	g.steps = append(g.steps, func(b *building) {
		logProbs, entropies := b.tape.LogProb(b.vars[i], b.tape.Input("targets", list), w, 0.75, 0, true)
		b.outs = append(b.outs, b.tape.Output(logProbs), b.tape.Output(entropies))
		if seeded != 1 {
			b.seeds[logProbs] = d
		}
		if seeded != 2 {
			b.seeds[entropies] = e
		}
	})
}

// targets are among five tokens, or none.
func (g *graph) targets(n int) []int32 {
	targets := make([]int32, n)
	for i := range targets {
		targets[i] = int32(g.rnd.IntN(6)) - 1
	}
	return targets
}

// seed makes value i an output whose gradient is given.
func (g *graph) seed(i int, shape [2]int) {
	g.say("seed %d", i)
	x := g.floats(shape[0], shape[1])
	g.steps = append(g.steps, func(b *building) {
		b.outs = append(b.outs, b.tape.Output(b.vars[i]))
		b.seeds[b.vars[i]] = x
	})
}

func (g *graph) say(format string, a ...any) { g.text = append(g.text, fmt.Sprintf(format, a...)) }

func (g *graph) tensor(d tensor.Dtype, shape ...int) tensor.Tensor {
	x, b, err := tensor.New(g.dev, d, shape...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.buffers = append(g.buffers, b)
	return x
}

func (g *graph) floats(shape ...int) tensor.Tensor {
	x := g.tensor(g.dev.Float(), shape...)
	v := make([]float64, x.Len())
	for i := range v {
		v[i] = g.rnd.NormFloat64() / 2
	}
	tensor.SetFloat64(x, v)
	return x
}

func (g *graph) ints(v ...int32) tensor.Tensor {
	x := g.tensor(tensor.I32, len(v))
	tensor.SetInt32(x, v)
	return x
}

// param is a new parameter, frozen now and then, or an old one of that shape.
func (g *graph) param(shape ...int) *Param {
	for _, p := range g.params {
		if slices.Equal(p.Shape, shape) && g.rnd.IntN(3) == 0 {
			return p
		}
	}
	p := &Param{Name: fmt.Sprintf("w%d", len(g.params)), Shape: shape, Value: g.floats(shape...)}
	if g.rnd.IntN(3) > 0 {
		p.Grad = g.tensor(g.dev.Float(), shape...)
	}
	g.params = append(g.params, p)
	return p
}

// moved is where gradients are: in memory of their own, or, many of them, in chunks of
// an arena.
type moved struct {
	own    map[*Param]tensor.Tensor
	in     map[*Param]*GradChunk
	chunks []*GradChunk
}

// move puts gradients into the arena, or all back where they were.
func (g *graph) move(inArena bool) []*GradChunk {
	if g.moved == nil {
		g.moved = &moved{own: map[*Param]tensor.Tensor{}, in: map[*Param]*GradChunk{}}
		for range 3 { // nothing touches the last
			g.moved.chunks = append(g.moved.chunks, &GradChunk{Dtype: g.dev.Float(), Len: 1})
		}
		var views [3][]func(x tensor.Tensor)
		for _, q := range g.params {
			g.moved.own[q] = q.Grad
			k := g.rnd.IntN(3)
			if k == 2 || !q.Trainable() {
				continue
			}
			c := g.moved.chunks[k]
			q.At = c.Len
			c.Len += q.Value.Len() + 1
			g.moved.in[q] = c
			views[k] = append(views[k], func(x tensor.Tensor) { q.Grad = x.Slice(q.At, q.Value.Len()).Reshape(q.Shape...) })
		}
		for k, c := range g.moved.chunks {
			c.Bind = func(x tensor.Tensor) {
				for _, f := range views[k] {
					f(x)
				}
			}
		}
	}
	for _, q := range g.params {
		q.InArena, q.Grad = nil, g.moved.own[q]
		if c := g.moved.in[q]; c != nil && inArena {
			q.InArena, q.Grad = c, tensor.Tensor{}
		}
	}
	if !inArena {
		return nil
	}
	for _, c := range g.moved.chunks {
		c.at = tensor.Tensor{} // bound anew
	}
	return g.moved.chunks
}

func (g *graph) free() {
	for _, b := range g.buffers {
		b.Free()
	}
}

// result is all that a run gives.
type result struct {
	names []string
	bits  [][]uint64
}

func (r *result) add(name string, x tensor.Tensor) {
	var bits []uint64
	for _, v := range tensor.GetFloat64(x) {
		bits = append(bits, math.Float64bits(v))
	}
	r.names = append(r.names, name)
	r.bits = append(r.bits, bits)
}

// compile records the graph and compiles it.
func (g *graph) compile(arena *Arena, opt Options) (*building, *Program) {
	g.move(opt.Gradients != nil)
	b := &building{tape: NewTape(g.dev), seeds: map[*Var]tensor.Tensor{}}
	for _, s := range g.steps {
		s(b)
	}
	opt.Train, opt.Seeds = true, b.seeds
	p, err := b.tape.Compile(arena, opt)
	if err != nil {
		g.t.Fatal(err)
	}
	p.verify()
	return b, p
}

func (g *graph) run(b *building, p *Program) *result {
	r := &result{}
	g.move(len(p.grads) > 0)
	for _, q := range g.params {
		if !q.Grad.IsZero() {
			g.dev.Ops().Zero(q.Grad)
		}
	}
	for _, l := range g.losses {
		g.dev.Ops().Zero(l)
	}
	p.Forward()
	for i, v := range b.outs {
		r.add(fmt.Sprintf("output %d", i), v.Value())
	}
	p.Backward()
	for i, l := range g.losses {
		r.add(fmt.Sprintf("loss %d", i), l)
	}
	for _, q := range g.params {
		if q.Trainable() {
			r.add("gradient of "+q.Name, q.Grad)
		}
	}
	for i, x := range g.inputs {
		r.add(fmt.Sprintf("gradient of input %d", i), x[1])
	}
	for _, c := range p.grads {
		if !c.chunk.Held() {
			g.t.Error("gradients in the arena aren't those of the program that ran last")
		}
	}
	if n := len(p.grads); n > 0 && slices.ContainsFunc(tensor.GetFloat64(p.grads[n-1].to.at), func(v float64) bool { return v != 0 }) {
		g.t.Error("a gradient that nothing adds to isn't 0")
	}
	for i, v := range b.outs {
		if s, ok := b.seeds[v]; ok {
			r.add(fmt.Sprintf("seed of output %d", i), s)
		}
	}
	return r
}

// check compares the ways to compile.
func (g *graph) check(seed int) {
	arena := NewArena(g.dev)
	defer arena.Free()
	usual, p := g.compile(arena, Options{})
	want := g.run(usual, p)
	apart, q := g.compile(arena, Options{separate: true})
	kept, r := g.compile(arena, Options{keep: true})
	selective, s := g.compile(arena, Options{Selective: true})
	chunks := g.move(true)
	inArena, u := g.compile(arena, Options{Gradients: chunks})
	both, v := g.compile(arena, Options{Gradients: chunks, Selective: true})
	if p.Size() > q.Size() {
		g.t.Errorf("graph %d takes %d bytes, %d without reuse", seed, p.Size(), q.Size())
	}
	if g.dev.Float() == tensor.F64 {
		g.differences(seed, usual, p)
	}
	for _, c := range []struct {
		name string
		got  *result
	}{
		{"memory of its own for all", g.run(apart, q)},
		{"nothing recomputed", g.run(kept, r)},
		{"cheap values recomputed", g.run(selective, s)},
		{"gradients in the arena", g.run(inArena, u)},
		{"both", g.run(both, v)},
		{"gradients in the arena again", g.run(inArena, u)},
		{"a second run", g.run(usual, p)},
	} {
		for i, name := range want.names {
			if c.got.names[i] != name || !slices.Equal(c.got.bits[i], want.bits[i]) {
				g.t.Errorf("graph %d, %s: %s differs\n%s\n\nprogram:\n%s", seed, c.name, name,
					strings.Join(g.text, "\n"), strings.Join(p.Instructions(), "\n"))
				return
			}
		}
	}
}
