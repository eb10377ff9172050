package autograd

import (
	"slices"
	"strings"
	"testing"

	"ringtail/tensor"
)

// run compiles a tape for training with one seed and runs it once.
func (r *rig) run(tape *Tape, out *Var, seed tensor.Tensor) *Program {
	r.t.Helper()
	p, err := tape.Compile(r.arena(), Options{Train: true, Seeds: map[*Var]tensor.Tensor{out: seed}})
	if err != nil {
		r.t.Fatal(err)
	}
	p.Forward()
	p.Backward()
	return p
}

// TestNormGradients: gradients through a norm whose input, weight, sum or result
// alone carries one.
func TestNormGradients(t *testing.T) {
	for name, build := range map[string]func(t *Tape, x *Var, w, v *Param) *Var{
		"of a norm's input twice": func(t *Tape, x *Var, w, v *Param) *Var { _, y := t.AddRMSNorm(x, x, w, 1e-5); return y },
		"of the sum alone": func(t *Tape, x *Var, w, v *Param) *Var {
			s, _ := t.AddRMSNorm(x, t.Linear(x, v, nil), w, 1e-5)
			return s
		},
		"of the sum alone, accumulating": func(t *Tape, x *Var, w, v *Param) *Var {
			s, _ := t.AddRMSNorm(x, t.Input("c", constant(t, 4, 3)), w, 1e-5)
			return t.Add(s, t.Linear(x, v, nil))
		},
		"of sum and result in one buffer": func(t *Tape, x *Var, w, v *Param) *Var {
			s, y := t.AddRMSNorm(t.Linear(x, v, nil), x, w, 1e-5)
			return t.Add(y, s)
		},
		"of a constant's sum": func(t *Tape, x *Var, w, v *Param) *Var {
			c := t.Linear(t.Input("c", constant(t, 4, 3)), v, nil)
			s, y := t.AddRMSNorm(c, x, w, 1e-5)
			return t.Add(y, t.RMSNorm(s, w, 1e-5))
		},
		"twice the same": func(t *Tape, x *Var, w, v *Param) *Var { y := t.Linear(x, v, nil); return t.Add(y, t.Add(y, y)) },
		"of a constant's norm": func(t *Tape, x *Var, w, v *Param) *Var {
			return t.Add(x, t.Linear(t.RMSNorm(t.Input("c", constant(t, 4, 3)), w, 1e-5), v, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w, v := r.param("w", 3), r.param("v", 3, 3)
			r.checkGradients(func(t *Tape, x *Var) *Var { return build(t, x, w, v) }, r.random(4, 3), []*Param{w, v})
		})
	}
}

// TestSeeds: a seed is read only, and adds to what flows to its value from
// elsewhere.
func TestSeeds(t *testing.T) {
	r := newRig(t)
	w := r.param("w", 3, 3)
	x, dx := r.random(2, 3), r.tensor(tensor.F64, 2, 3)
	one := slices.Repeat([]float64{1}, 6)
	seed := r.tensor(tensor.F64, 2, 3)
	tensor.SetFloat64(seed, one)
	gradient := func(both bool) []float64 {
		tape := NewTape(r.dev)
		h := tape.Output(tape.Linear(tape.GradInput("x", x, dx), w, nil))
		out := tape.Output(tape.GLU(tape.Linear(h, r.fixed("up", 4, 3), nil), tensor.SiLU))
		last := tape.Output(tape.Linear(out, r.fixed("down", 3, 2), nil))
		seeds := map[*Var]tensor.Tensor{last: seed}
		if both {
			seeds[h] = seed
		}
		p, err := tape.Compile(r.arena(), Options{Train: true, Seeds: seeds})
		if err != nil {
			t.Fatal(err)
		}
		var first []float64
		for range 2 {
			p.Forward()
			p.Backward()
			if got := tensor.GetFloat64(dx); first == nil {
				first = got
			} else if !slices.Equal(first, got) {
				t.Errorf("both=%v: a second backward pass gives %v, the first %v", both, got, first)
			}
		}
		if !slices.Equal(tensor.GetFloat64(seed), one) {
			t.Errorf("both=%v: the seed was changed to %v", both, tensor.GetFloat64(seed))
		}
		return first
	}
	alone, both := gradient(false), gradient(true)
	weights := tensor.GetFloat64(w.Value)
	for i := range alone {
		through := weights[i%3] + weights[3+i%3] + weights[6+i%3]
		if d := both[i] - alone[i] - through; d > 1e-12 || d < -1e-12 {
			t.Errorf("dx[%d] is %g with the inner seed, %g without; want a difference of %g", i, both[i], alone[i], through)
		}
	}
}

// fixed is a frozen parameter whose values depend on its name alone.
func (r *rig) fixed(name string, shape ...int) *Param {
	p := &Param{Name: name, Shape: shape, Value: r.tensor(tensor.F64, shape...)}
	v := make([]float64, p.Value.Len())
	for i := range v {
		v[i] = float64((i*7+len(name))%5) - 1.5
	}
	tensor.SetFloat64(p.Value, v)
	return p
}

// TestSeedBesideLoss: a value may have a seed and go into a fused loss.
func TestSeedBesideLoss(t *testing.T) {
	r := newRig(t)
	head := r.fixed("head", 5, 3)
	x, dx := r.random(2, 3), r.tensor(tensor.F64, 2, 3)
	w := r.param("w", 3, 3)
	gradient := func(loss, seeded bool) []float64 {
		tape := NewTape(r.dev)
		h := tape.Output(tape.Linear(tape.GradInput("x", x, dx), w, nil))
		if loss {
			scale := r.tensor(tensor.F64, 1)
			tensor.SetFloat64(scale, []float64{1})
			tape.CrossEntropy(h, tape.Input("targets", r.ints(1, 4)), head, 0, r.tensor(tensor.F64, 3), scale)
		}
		seeds := map[*Var]tensor.Tensor{}
		if seeded {
			seeds[h] = r.fixed("seed", 2, 3).Value
		}
		p, err := tape.Compile(r.arena(), Options{Train: true, Seeds: seeds})
		if err != nil {
			t.Fatal(err)
		}
		p.Forward()
		p.Backward()
		return tensor.GetFloat64(dx)
	}
	a, b, both := gradient(true, false), gradient(false, true), gradient(true, true)
	for i := range both {
		if d := both[i] - a[i] - b[i]; d > 1e-12 || d < -1e-12 {
			t.Fatalf("dx[%d] is %g from loss and seed, %g and %g from each", i, both[i], a[i], b[i])
		}
	}
}

// TestCompiledTwice: programs of one tape don't disturb each other, run in any
// order.
func TestCompiledTwice(t *testing.T) {
	r := newRig(t)
	w := r.param("w", 3, 3)
	x, dx := r.random(2, 3), r.tensor(tensor.F64, 2, 3)
	tape := NewTape(r.dev)
	h := tape.Output(tape.Linear(tape.GradInput("x", x, dx), w, nil))
	out := tape.Output(tape.Add(tape.Linear(h, w, nil), h))
	infer, err := tape.Compile(r.arena(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	arena := r.arena()
	var programs []*Program
	for _, v := range []*Var{out, h} {
		p, err := tape.Compile(arena, Options{Train: true, Seeds: map[*Var]tensor.Tensor{v: r.fixed("seed", 2, 3).Value}})
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, p)
	}
	infer.Forward()
	want := tensor.GetFloat64(out.Value())
	var first [2][]float64
	for round := range 3 {
		for i, p := range programs {
			p.Forward()
			if got := tensor.GetFloat64(out.Value()); !slices.Equal(got, want) {
				t.Errorf("program %d gives %v, want %v", i, got, want)
			}
			p.Backward()
			if got := tensor.GetFloat64(dx); round == 0 {
				first[i] = got
			} else if !slices.Equal(got, first[i]) {
				t.Errorf("round %d: program %d gives gradient %v, at first %v", round, i, got, first[i])
			}
		}
		infer.Forward()
	}
	fresh := r.run(tape, out, r.fixed("seed", 2, 3).Value)
	_ = fresh
	if got := tensor.GetFloat64(dx); !slices.Equal(got, first[0]) {
		t.Errorf("compiled anew the gradient is %v, before %v", got, first[0])
	}
}

// TestUnreachedInput: an input that nothing depends on has gradient 0, also
// where its memory held something else.
func TestUnreachedInput(t *testing.T) {
	r := newRig(t)
	w := r.param("w", 3, 3)
	dx, dy := r.random(2, 3), r.random(2, 3)
	tape := NewTape(r.dev)
	x := tape.GradInput("x", r.random(2, 3), dx)
	tape.Output(tape.Linear(tape.GradInput("y", r.random(2, 3), dy), w, nil))
	r.run(tape, tape.Output(tape.Linear(x, w, nil)), r.random(2, 3))
	if got := tensor.GetFloat64(dy); !slices.Equal(got, make([]float64, 6)) {
		t.Errorf("the gradient of an unused input is %v", got)
	}
	if got := tensor.GetFloat64(dx); slices.Equal(got, make([]float64, 6)) {
		t.Error("the gradient of the used input is 0")
	}
}

// mover is a placement policy that has parameters in memory only while they are used.
type mover struct{ home map[*Param][2]tensor.Tensor }

func (m mover) Before(_ Phase, _ string, params []*Param) {
	for _, p := range params {
		p.Value = m.home[p][0]
	}
}

func (m mover) After(_ Phase, _ string, params []*Param) {
	for _, p := range params {
		p.Value = m.home[p][1]
	}
}

// TestMovedParameters: operations look for weights when they run, not when they
// are recorded, so that hooks can fetch and release them.
func TestMovedParameters(t *testing.T) {
	r := newRig(t)
	var ps []*Param
	build := layer(r, 6, &ps)
	x, dx := r.random(6, 6), r.tensor(tensor.F64, 6, 6)
	seed := r.random(6, 6)
	gradients := func(h Hooks) [][]float64 {
		for _, p := range ps {
			r.dev.Ops().Zero(p.Grad)
		}
		tape := NewTape(r.dev)
		var out *Var
		tape.Checkpoint(func() { out = build(tape, tape.GradInput("x", x, dx)) })
		p, err := tape.Compile(r.arena(), Options{Train: true, Hooks: h, Seeds: map[*Var]tensor.Tensor{tape.Output(out): seed}})
		if err != nil {
			t.Fatal(err)
		}
		p.Forward()
		all := [][]float64{tensor.GetFloat64(out.Value())}
		p.Backward()
		for _, q := range ps {
			all = append(all, tensor.GetFloat64(q.Grad))
		}
		return append(all, tensor.GetFloat64(dx))
	}
	want := gradients(nil)
	m := mover{home: map[*Param][2]tensor.Tensor{}}
	for _, p := range ps {
		away := r.tensor(tensor.F64, p.Shape...)
		tensor.SetFloat64(away, slices.Repeat([]float64{1e30}, away.Len()))
		m.home[p] = [2]tensor.Tensor{p.Value, away}
		p.Value = away
	}
	for i, got := range gradients(m) {
		if !slices.Equal(got, want[i]) {
			t.Errorf("result %d differs where parameters are moved in and out", i)
		}
	}
}

// TestNoTokens: a batch without tokens passes through everything.
func TestNoTokens(t *testing.T) {
	r := newRig(t)
	table, n, qkv, gu := r.param("table", 7, 4), r.param("n", 4), r.param("qkv", 12, 4), r.param("gu", 8, 4)
	none := r.ints()
	tape := NewTape(r.dev)
	pos := tape.Input("positions", none)
	x := tape.Embedding(tape.Input("ids", none), table)
	tape.Checkpoint(func() {
		h := tape.RoPE(tape.Linear(tape.RMSNorm(x, n, 1e-5), qkv, nil), pos, r.random(2, 2), r.random(2, 2), 2, 4)
		a := tape.Attention(h, tape.Input("starts", r.ints(0)), tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 4, Scale: 1}, 4)
		s, y := tape.AddRMSNorm(x, a, n, 1e-5)
		x = tape.Add(s, tape.GLU(tape.Linear(y, gu, nil), tensor.ReLU))
	})
	x = tape.Gather(x, pos)
	loss, scale := r.tensor(tensor.F64, 3), r.random(1)
	tape.CrossEntropy(tape.Output(x), pos, table, 0, loss, scale)
	logProbs, entropies := tape.LogProb(x, pos, table, 1, 0, true)
	p, err := tape.Compile(r.arena(), Options{Train: true, Seeds: map[*Var]tensor.Tensor{logProbs: r.random(0), entropies: r.random(0)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []*Param{table, n, qkv, gu} {
		r.dev.Ops().Zero(q.Grad)
	}
	p.Forward()
	p.Backward()
	if got := tensor.GetFloat64(loss); !slices.Equal(got, make([]float64, 3)) {
		t.Errorf("loss %v of no tokens", got)
	}
	for _, q := range []*Param{table, n, qkv, gu} {
		if g := tensor.GetFloat64(q.Grad); slices.ContainsFunc(g, func(v float64) bool { return v != 0 }) {
			t.Errorf("%s has a gradient without tokens", q.Name)
		}
	}
}

// TestOutputOfRegion: an output inside a checkpointed region is kept, and is
// read from where it was kept, though it is computed again for others.
func TestOutputOfRegion(t *testing.T) {
	r := newRig(t)
	w, v := r.param("w", 3, 3), r.param("v", 3, 3)
	var inner *Var
	r.checkGradients(func(t *Tape, x *Var) *Var {
		var y *Var
		t.Checkpoint(func() {
			inner = t.Output(t.Linear(t.GLU(t.Linear(x, r.fixed("up", 6, 3), nil), tensor.SiLU), w, nil))
			y = t.Linear(t.GLU(t.Linear(t.Add(inner, x), r.fixed("gate", 6, 3), nil), tensor.GELU), v, nil)
		})
		return t.Add(y, t.Linear(x, v, nil))
	}, r.random(4, 3), []*Param{w, v})
	if g := tensor.GetFloat64(inner.Value()); len(g) != 12 {
		t.Errorf("an output of %d numbers", len(g))
	}
}

// TestRefuses: what can't be right panics when it is recorded or compiled, and
// says what it is.
func TestRefuses(t *testing.T) {
	for want, f := range map[string]func(r *rig, t *Tape, x *Var){
		"linear: x [4 6] times w [5 7]": func(r *rig, t *Tape, x *Var) { t.Linear(x, r.param("w", 5, 7), nil) },
		"bias b [4]":                    func(r *rig, t *Tape, x *Var) { t.Linear(x, r.param("w", 5, 6), r.param("b", 4)) },
		"add: x [4 6] and y [4 5]":      func(r *rig, t *Tape, x *Var) { t.Add(x, t.Input("y", r.random(4, 5))) },
		"norm: x [4 6] with w [5]":      func(r *rig, t *Tape, x *Var) { t.RMSNorm(x, r.param("w", 5), 1) },
		"add+norm: x [4 6] and y [6 4]": func(r *rig, t *Tape, x *Var) {
			t.AddRMSNorm(x, t.Input("y", r.random(6, 4)), r.param("w", 6), 1)
		},
		"glu: x [4 5]": func(r *rig, t *Tape, _ *Var) { t.GLU(t.Input("x", r.random(4, 5)), tensor.SiLU) },
		"rope: 2 heads of 4": func(r *rig, t *Tape, x *Var) {
			t.RoPE(x, t.Input("p", r.ints(0, 1, 2, 3)), r.random(9, 2), r.random(9, 2), 2, 4)
		},
		"rope: positions p [3]": func(r *rig, t *Tape, x *Var) {
			t.RoPE(x, t.Input("p", r.ints(0, 1, 2)), r.random(9, 1), r.random(9, 1), 1, 4)
		},
		"rope: tables": func(r *rig, t *Tape, x *Var) {
			t.RoPE(x, t.Input("p", r.ints(0, 1, 2, 3)), r.random(9, 3), r.random(9, 3), 1, 4)
		},
		"attention: x [4 6] for": func(r *rig, t *Tape, x *Var) {
			t.Attention(x, t.Input("s", r.ints(0, 4)), tensor.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: 2}, 4)
		},
		"cross-entropy: targets t [3]": func(r *rig, t *Tape, x *Var) {
			t.CrossEntropy(x, t.Input("t", r.ints(0, 1, 2)), r.param("w", 9, 6), 0, r.tensor(tensor.F64, 3), r.random(1))
		},
		"log-probabilities: targets t [3]": func(r *rig, t *Tape, x *Var) {
			t.LogProb(x, t.Input("t", r.ints(0, 1, 2)), r.param("w", 9, 6), 1, 0, false)
		},
		"log-probabilities: temperature 0": func(r *rig, t *Tape, x *Var) {
			t.LogProb(x, t.Input("t", r.ints(0, 1, 2, 3)), r.param("w", 9, 6), 0, 0, false)
		},
		"embedding: ids x": func(r *rig, t *Tape, x *Var) { t.Embedding(x, r.param("w", 9, 6)) },
		"gather: rows x":   func(r *rig, t *Tape, x *Var) { t.Gather(x, x) },
		"no backward pass": func(r *rig, t *Tape, x *Var) {
			k := r.random(1, 4, 2)
			i := t.Input("i", r.ints(0, 0, 0, 0))
			y := t.Output(t.CachedAttention(t.Linear(x, r.param("w", 6, 6), nil), i, i, k, k, tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 2}))
			_, _ = t.Compile(r.arena(), Options{Train: true, Seeds: map[*Var]tensor.Tensor{y: r.random(4, 2)}})
		},
		"seed of linear [4 5]": func(r *rig, t *Tape, x *Var) {
			y := t.Linear(x, r.param("w", 5, 6), nil)
			_, _ = t.Compile(r.arena(), Options{Train: true, Seeds: map[*Var]tensor.Tensor{y: r.random(5, 4)}})
		},
		"of another tape": func(r *rig, t *Tape, x *Var) { NewTape(r.dev).Linear(x, r.param("w", 5, 6), nil) },
	} {
		t.Run(want, func(t *testing.T) {
			r := newRig(t)
			defer func() {
				if msg, _ := recover().(string); !strings.Contains(msg, want) {
					t.Errorf("panic %q, want %q", msg, want)
				}
			}()
			tape := NewTape(r.dev)
			f(r, tape, tape.Input("x", r.random(4, 6)))
		})
	}
}

// TestPlanned: a program can be planned without any memory, of parameters and
// inputs included, and takes what it takes when it is run.
func TestPlanned(t *testing.T) {
	r := newRig(t)
	absent := func(d tensor.Dtype, shape ...int) tensor.Tensor {
		return tensor.Tensor{Device: r.dev, Dtype: d, Shape: shape, Stride: shape[len(shape)-1]}
	}
	var ps []*Param
	build := layer(r, 6, &ps)
	compile := func(arena *Arena, x, dx, seed tensor.Tensor) *Program {
		tape := NewTape(r.dev)
		out := tape.Output(build(tape, tape.GradInput("x", x, dx)))
		p, err := tape.Compile(arena, Options{Train: true, Seeds: map[*Var]tensor.Tensor{out: seed}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	real := compile(r.arena(), r.random(6, 6), r.random(6, 6), r.random(6, 6))
	for _, p := range ps {
		p.Value, p.Grad = absent(tensor.F64, p.Shape...), absent(tensor.F64, p.Shape...)
	}
	planned := compile(nil, absent(tensor.F64, 6, 6), absent(tensor.F64, 6, 6), absent(tensor.F64, 6, 6))
	if planned.Size() != real.Size() || !slices.Equal(planned.Instructions(), real.Instructions()) {
		t.Errorf("planned: %d bytes\n%s\nreal: %d bytes\n%s", planned.Size(), strings.Join(planned.Instructions(), "\n"),
			real.Size(), strings.Join(real.Instructions(), "\n"))
	}
	defer func() {
		if msg, _ := recover().(string); !strings.Contains(msg, "only planned") {
			t.Errorf("panic %q", msg)
		}
	}()
	planned.Forward()
}

// constant is memory of arbitrary numbers for an input of a tape under test.
func constant(t *Tape, shape ...int) tensor.Tensor {
	x, _, err := tensor.New(t.dev, tensor.F64, shape...)
	if err != nil {
		panic(err)
	}
	v := make([]float64, x.Len())
	for i := range v {
		v[i] = float64(i*i%7) - 2.5
	}
	tensor.SetFloat64(x, v)
	return x
}

// TestOneOperandIsOverwritten: an operation that may write a gradient over that
// of one result is not made to write it over that of another, which happen to be
// one buffer.
func TestOneOperandIsOverwritten(t *testing.T) {
	r := newRig(t)
	x, dx := r.random(2, 3), r.tensor(tensor.F64, 2, 3)
	tape := NewTape(r.dev)
	ops := r.dev.Ops()
	h := tape.Add(tape.GradInput("x", x, dx), tape.Input("0", r.tensor(tensor.F64, 2, 3)))
	a, b := tape.NewVar("a", tensor.F64, 2, 3), tape.NewVar("b", tensor.F64, 2, 3)
	tape.Record(&Node{ // a = x, b = 3x
		Name: "fork", In: []*Var{h}, Out: []*Var{a, b}, GradInPlace: [][2]int{{0, 1}},
		Forward: func() {
			ops.Copy(a.value, h.value)
			ops.Copy(b.value, h.value)
			ops.Scale(b.value, 3)
		},
		Backward: func(g *Grads) {
			d, _ := g.In(0)
			if d.Addr != g.Out(1).Addr {
				ops.Copy(d, g.Out(1))
			}
			ops.Scale(d, 3)
			ops.Add(d, d, g.Out(0))
		},
	})
	out := tape.Output(tape.Linear(tape.Add(a, b), r.fixed("w", 3, 3), nil))
	seed := r.random(2, 3)
	p := r.run(tape, out, seed)
	shared := false
	for _, in := range p.code {
		shared = shared || len(in.shares) > 0
	}
	if !shared {
		t.Fatal("the gradients of a and b were not shared, so that this tests nothing")
	}
	want := r.tensor(tensor.F64, 2, 3)
	ops.Matmul(tensor.Matmul{C: want, A: seed, B: r.fixed("w", 3, 3).Value})
	ops.Scale(want, 4)
	for i, w := range tensor.GetFloat64(want) {
		if d := tensor.GetFloat64(dx)[i] - w; d > 1e-12 || d < -1e-12 {
			t.Fatalf("dx[%d] is %g, want %g", i, tensor.GetFloat64(dx)[i], w)
		}
	}
}

// TestBackwardAlone: a backward pass over what another program left in the arena
// is refused.
func TestBackwardAlone(t *testing.T) {
	r := newRig(t)
	w := r.param("w", 3, 3)
	arena := r.arena()
	compile := func() *Program {
		tape := NewTape(r.dev)
		y := tape.Output(tape.Linear(tape.Input("x", r.random(2, 3)), w, nil))
		p, err := tape.Compile(arena, Options{Train: true, Seeds: map[*Var]tensor.Tensor{y: r.random(2, 3)}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p, q := compile(), compile()
	p.Forward()
	q.Forward()
	q.Backward()
	defer func() {
		if msg, _ := recover().(string); !strings.Contains(msg, "without its forward pass") {
			t.Errorf("panic %q", msg)
		}
	}()
	p.Backward()
}
