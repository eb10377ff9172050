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

// rig holds a device, its buffers and a source of numbers.
type rig struct {
	t   testing.TB
	dev tensor.Device
	rnd *rand.Rand
}

func newRig(t testing.TB) *rig { return &rig{t, ref.New(), rand.New(rand.NewPCG(1, 2))} }

func (r *rig) tensor(d tensor.Dtype, shape ...int) tensor.Tensor {
	x, b, err := tensor.New(r.dev, d, shape...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(b.Free)
	return x
}

func (r *rig) random(shape ...int) tensor.Tensor {
	x := r.tensor(tensor.F64, shape...)
	v := make([]float64, x.Len())
	for i := range v {
		v[i] = r.rnd.NormFloat64()
	}
	tensor.SetFloat64(x, v)
	return x
}

func (r *rig) ints(v ...int32) tensor.Tensor {
	x := r.tensor(tensor.I32, len(v))
	tensor.SetInt32(x, v)
	return x
}

func (r *rig) param(name string, shape ...int) *Param {
	return &Param{Name: name, Shape: shape, Value: r.random(shape...), Grad: r.tensor(tensor.F64, shape...)}
}

func (r *rig) arena() *Arena {
	a := NewArena(r.dev)
	r.t.Cleanup(a.Free)
	return a
}

// checkGradients compares the program's gradients with central differences of
// Σ seed·out, with respect to everything in wrt.
func (r *rig) checkGradients(build func(t *Tape, in *Var) *Var, x tensor.Tensor, params []*Param) {
	r.t.Helper()
	r.checkOutputs(func(t *Tape, in *Var) []*Var { return []*Var{build(t, in)} }, x, params)
}

// checkOutputs is checkGradients of several results, each with a seed.
func (r *rig) checkOutputs(build func(t *Tape, in *Var) []*Var, x tensor.Tensor, params []*Param) {
	r.t.Helper()
	dx := r.tensor(tensor.F64, x.Shape...)
	tape := NewTape(r.dev)
	outs := build(tape, tape.GradInput("x", x, dx))
	seeds := map[*Var]tensor.Tensor{}
	for _, out := range outs {
		seeds[tape.Output(out)] = r.random(out.Shape...)
	}
	p, err := tape.Compile(r.arena(), Options{Train: true, Seeds: seeds})
	if err != nil {
		r.t.Fatal(err)
	}
	value := func() float64 {
		p.Forward()
		s := 0.0
		for _, out := range outs {
			w := tensor.GetFloat64(seeds[out])
			for i, y := range tensor.GetFloat64(out.Value()) {
				s += y * w[i]
			}
		}
		return s
	}
	for range 2 { // a second run must not see the first one's leftovers
		for _, q := range params {
			r.dev.Ops().Zero(q.Grad)
		}
		value()
		p.Backward()
	}
	r.differences("x", x, dx, value)
	for _, q := range params {
		r.differences(q.Name, q.Value, q.Grad, value)
	}
}

// differences compares the gradient of value by v with central differences.
func (r *rig) differences(name string, v, grad tensor.Tensor, value func() float64) {
	r.t.Helper()
	got, at := tensor.GetFloat64(grad), tensor.GetFloat64(v)
	for i := range at {
		const h = 1e-5
		keep := at[i]
		at[i] = keep + h
		tensor.SetFloat64(v, at)
		up := value()
		at[i] = keep - h
		tensor.SetFloat64(v, at)
		down := value()
		at[i] = keep
		tensor.SetFloat64(v, at)
		want := (up - down) / (2 * h)
		if d := math.Abs(got[i] - want); d > 1e-6*math.Max(1, math.Abs(want)) {
			r.t.Fatalf("d/d%s[%d] is %g, differences say %g", name, i, got[i], want)
		}
	}
}

// layer records a small decoder layer that uses every operation.
func layer(r *rig, tokens int, ps *[]*Param) func(t *Tape, x *Var) *Var {
	const hidden, heads, kv, dim = 6, 2, 1, 4
	add := func(name string, shape ...int) *Param {
		p := r.param(name, shape...)
		*ps = append(*ps, p)
		return p
	}
	n1, n2, qkv, bias := add("n1", hidden), add("n2", hidden), add("qkv", (heads+2*kv)*dim, hidden), add("bias", (heads+2*kv)*dim)
	o, gu, down := add("o", hidden, heads*dim), add("gu", 10, hidden), add("down", hidden, 5)
	pos, starts := make([]int32, tokens), r.ints(0, int32(tokens/2), int32(tokens))
	for i := range pos {
		pos[i] = int32(i % (tokens / 2))
	}
	positions := r.ints(pos...)
	cos, sin := r.random(tokens, dim/2), r.random(tokens, dim/2)
	return func(t *Tape, x *Var) *Var {
		p := t.Input("positions", positions)
		h := t.Linear(t.RMSNorm(x, n1, 1e-5), qkv, bias)
		h = t.RoPE(h, p, cos, sin, heads+kv, dim)
		a := t.Attention(h, t.Input("starts", starts), tensor.AttentionShape{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: 0.5}, tokens)
		s, n := t.AddRMSNorm(x, t.Linear(a, o, nil), n2, 1e-5)
		return t.Add(s, t.Linear(t.GLU(t.Linear(n, gu, nil), tensor.SiLU), down, nil))
	}
}

func TestLayerGradients(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		t.Run(fmt.Sprintf("checkpoint=%v", checkpoint), func(t *testing.T) {
			r := newRig(t)
			var ps []*Param
			one, two := layer(r, 6, &ps), layer(r, 6, &ps)
			r.checkGradients(func(t *Tape, x *Var) *Var {
				for _, f := range []func(*Tape, *Var) *Var{one, two} {
					if checkpoint {
						t.Checkpoint(func() { x = f(t, x) })
					} else {
						x = f(t, x)
					}
				}
				return x
			}, r.random(6, 6), ps)
		})
	}
}

// TestSharing has values whose gradients can, and can't, be one buffer.
func TestSharing(t *testing.T) {
	builds := map[string]func(t *Tape, x *Var, w, v *Param) *Var{
		"sum of two products": func(t *Tape, x *Var, w, v *Param) *Var { return t.Add(t.Linear(x, w, nil), t.Linear(x, v, nil)) },
		"input in two sums": func(t *Tape, x *Var, w, v *Param) *Var {
			a := t.Linear(x, w, nil)
			return t.Add(t.Add(a, x), t.Linear(t.Add(x, a), v, nil))
		},
		"summand read later": func(t *Tape, x *Var, w, v *Param) *Var {
			a, b := t.Linear(x, w, nil), t.Linear(x, v, nil)
			s := t.Add(a, b)
			return t.Add(t.Linear(s, w, nil), t.Add(b, t.Linear(a, v, nil)))
		},
		"chain of sums": func(t *Tape, x *Var, w, v *Param) *Var {
			y := x
			for range 3 {
				y = t.Add(y, t.Linear(y, w, nil))
			}
			return t.Add(y, t.Linear(x, v, nil))
		},
		"gather twice": func(t *Tape, x *Var, w, v *Param) *Var {
			r := t.Input("rows", (&rig{dev: t.dev}).rows())
			return t.Add(t.Gather(x, r), t.Linear(t.Gather(t.Linear(x, w, nil), r), v, nil))
		},
	}
	for name, build := range builds {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			w, v := r.param("w", 3, 3), r.param("v", 3, 3)
			r.checkGradients(func(t *Tape, x *Var) *Var { return build(t, x, w, v) }, r.random(4, 3), []*Param{w, v})
		})
	}
}

// rows is a list of row numbers with a repetition.
func (r *rig) rows() tensor.Tensor {
	x, _, err := tensor.New(r.dev, tensor.I32, 3)
	if err != nil {
		panic(err)
	}
	tensor.SetInt32(x, []int32{2, 0, 2})
	return x
}

func TestEmbeddingAndCrossEntropy(t *testing.T) {
	r := newRig(t)
	table, proj := r.param("table", 7, 4), r.param("proj", 4, 4)
	ids, targets := r.ints(1, 5, 1, 0), r.ints(5, -100, 0, 3)
	loss, scale := r.tensor(tensor.F64, 3), r.random(1)
	for _, tied := range []bool{true, false} {
		head := table
		if !tied {
			head = r.param("head", 7, 4)
		}
		tape := NewTape(r.dev)
		h := tape.Linear(tape.Embedding(tape.Input("ids", ids), table), proj, nil)
		tape.CrossEntropy(h, tape.Input("targets", targets), head, 0, loss, scale)
		p, err := tape.Compile(r.arena(), Options{Train: true})
		if err != nil {
			t.Fatal(err)
		}
		f := tensor.GetFloat64(scale)[0]
		value := func() float64 {
			r.dev.Ops().Zero(loss)
			p.Forward()
			return tensor.GetFloat64(loss)[0] * f
		}
		all := []*Param{table, proj, head}
		for _, q := range all {
			r.dev.Ops().Zero(q.Grad)
		}
		value()
		p.Backward()
		if n := tensor.GetFloat64(loss)[1]; n != 3 {
			t.Fatalf("%g trained tokens, want 3", n)
		}
		grads := map[*Param][]float64{} // read now: each further run adds to them
		for _, q := range all {
			grads[q] = tensor.GetFloat64(q.Grad)
		}
		for _, q := range all {
			got, at := grads[q], tensor.GetFloat64(q.Value)
			for i := range at {
				keep := at[i]
				at[i] = keep + 1e-5
				tensor.SetFloat64(q.Value, at)
				up := value()
				at[i] = keep - 1e-5
				tensor.SetFloat64(q.Value, at)
				down := value()
				at[i] = keep
				tensor.SetFloat64(q.Value, at)
				if want := (up - down) / 2e-5; math.Abs(got[i]-want) > 1e-6*math.Max(1, math.Abs(want)) {
					t.Fatalf("tied=%v: d/d%s[%d] is %g, differences say %g", tied, q.Name, i, got[i], want)
				}
			}
		}
	}
}

// TestLogProb: gradients of log-probabilities, entropies or both, through a norm
// and a projection; the hidden state may go elsewhere too, and the operation may
// stand in a checkpointed region.
func TestLogProb(t *testing.T) {
	for _, of := range []string{"log-probabilities", "log-probabilities beside entropies", "entropies", "both"} {
		for _, temperature := range []float32{1, 0.7} {
			for _, form := range []string{"plain", "shared", "checkpointed"} {
				t.Run(fmt.Sprintf("%s at %g, %s", of, temperature, form), func(t *testing.T) {
					r := newRig(t)
					w, n, head := r.param("w", 4, 3), r.param("n", 4), r.param("head", 9, 4)
					targets := r.ints(5, -100, 0, 8, 3)
					r.checkOutputs(func(t *Tape, x *Var) (outs []*Var) {
						h := t.RMSNorm(t.Linear(x, w, nil), n, 1e-5)
						var logProbs, entropies *Var
						score := func() {
							logProbs, entropies = t.LogProb(h, t.Input("targets", targets), head, temperature, 0, of != "log-probabilities")
						}
						switch form {
						case "checkpointed":
							t.Checkpoint(score)
						case "shared":
							outs = append(outs, t.Linear(h, r.fixed("other", 2, 4), nil))
							fallthrough
						default:
							score()
						}
						if of != "entropies" {
							outs = append(outs, logProbs)
						}
						if of == "entropies" || of == "both" {
							outs = append(outs, entropies)
						}
						return outs
					}, r.random(5, 3), []*Param{w, n, head})
				})
			}
		}
	}
}

// TestLogProbEqualsCrossEntropy: the cross-entropy is the sum of the negative
// log-probabilities, so that with seeds of −scale the gradients are equal.
func TestLogProbEqualsCrossEntropy(t *testing.T) {
	for _, d := range []struct {
		dev tensor.Device
		tol float64
	}{{ref.New(), 1e-13}, {cpu.New(), 1e-6}} {
		t.Run(d.dev.Name(), func(t *testing.T) {
			g := newGraph(t, d.dev, 1)
			defer g.free()
			const tokens, hidden, vocab = 37, 24, 130
			table, norm, head := g.floats(vocab, hidden), g.floats(hidden), g.floats(vocab, hidden)
			ids, targets := make([]int32, tokens), make([]int32, tokens)
			for i := range ids {
				ids[i], targets[i] = int32(g.rnd.IntN(vocab)), int32(g.rnd.IntN(vocab+20))
				if targets[i] >= vocab {
					targets[i] = -100
				}
			}
			in, want := g.ints(ids...), g.ints(targets...)
			loss, scale, seed := g.tensor(tensor.F64, 3), g.tensor(d.dev.Float(), 1), g.tensor(d.dev.Float(), tokens)
			tensor.SetFloat64(scale, []float64{0.03125})
			tensor.SetFloat64(seed, slices.Repeat([]float64{-0.03125}, tokens))
			gradients := func(record func(tape *Tape, h, targets *Var, head *Param) map[*Var]tensor.Tensor) (grads [][]float64, logProbs []float64) {
				var params []*Param
				for _, v := range []tensor.Tensor{table, norm, head} {
					params = append(params, &Param{Name: "p", Shape: v.Shape, Value: v, Grad: g.tensor(d.dev.Float(), v.Shape...)})
				}
				tape := NewTape(d.dev)
				h := tape.RMSNorm(tape.Embedding(tape.Input("ids", in), params[0]), params[1], 1e-5)
				seeds := record(tape, h, tape.Input("targets", want), params[2])
				arena := NewArena(d.dev)
				defer arena.Free()
				p, err := tape.Compile(arena, Options{Train: true, Seeds: seeds})
				if err != nil {
					t.Fatal(err)
				}
				p.Forward()
				for v := range seeds {
					logProbs = tensor.GetFloat64(v.Value())
				}
				p.Backward()
				for _, q := range params {
					grads = append(grads, tensor.GetFloat64(q.Grad))
				}
				return grads, logProbs
			}
			a, _ := gradients(func(tape *Tape, h, targets *Var, head *Param) map[*Var]tensor.Tensor {
				tape.CrossEntropy(h, targets, head, 0, loss, scale)
				return nil
			})
			b, logProbs := gradients(func(tape *Tape, h, targets *Var, head *Param) map[*Var]tensor.Tensor {
				logProbs, _ := tape.LogProb(h, targets, head, 1, 0, false)
				return map[*Var]tensor.Tensor{tape.Output(logProbs): seed}
			})
			sum := 0.0
			for _, v := range logProbs {
				sum -= v
			}
			if l := tensor.GetFloat64(loss)[0]; math.Abs(sum-l) > d.tol*l {
				t.Errorf("log-probabilities add up to %g, the loss is %g", -sum, l)
			}
			for k := range a {
				largest := 0.0
				for _, v := range a[k] {
					largest = max(largest, math.Abs(v))
				}
				for i, v := range a[k] {
					if math.Abs(b[k][i]-v) > d.tol*largest {
						t.Fatalf("gradient %d of parameter %d is %g, of the cross-entropy %g", i, k, b[k][i], v)
					}
				}
			}
		})
	}
}

// recorder notes the calls of hooks.
type recorder struct{ calls []string }

func (h *recorder) Before(p Phase, op string, params []*Param) {
	h.calls = append(h.calls, "before "+p.String()+" "+op+" "+params[0].Name)
}
func (h *recorder) After(p Phase, op string, params []*Param) {
	h.calls = append(h.calls, "after "+p.String()+" "+op+" "+params[0].Name)
}

func TestHooks(t *testing.T) {
	r := newRig(t)
	w, frozen := r.param("w", 3, 3), r.param("frozen", 3, 3)
	frozen.Grad = tensor.Tensor{}
	x, dx := r.random(2, 3), r.tensor(tensor.F64, 2, 3)
	tape := NewTape(r.dev)
	var out *Var
	tape.Checkpoint(func() {
		h := tape.Linear(tape.GradInput("x", x, dx), w, nil)
		out = tape.Output(tape.Linear(tape.GLU(tape.Linear(h, r.param("up", 4, 3), nil), tensor.GELU), r.param("down", 3, 2), nil))
	})
	out2 := tape.Output(tape.Linear(out, frozen, nil))
	h := &recorder{}
	p, err := tape.Compile(r.arena(), Options{Train: true, Hooks: h, Seeds: map[*Var]tensor.Tensor{out2: r.random(2, 3)}})
	if err != nil {
		t.Fatal(err)
	}
	p.Forward()
	p.Backward()
	var want []string
	add := func(phase, name string) {
		want = append(want, "before "+phase+" linear "+name, "after "+phase+" linear "+name)
	}
	for _, n := range []string{"w", "up", "down", "frozen"} {
		add("forward", n)
	}
	add("backward", "frozen")
	add("recompute", "w") // for the input of down, which is made again
	add("recompute", "up")
	add("backward", "down")
	add("backward", "up")
	add("backward", "w")
	if !slices.Equal(h.calls, want) {
		t.Errorf("hooks were called\n%s\nwant\n%s", strings.Join(h.calls, "\n"), strings.Join(want, "\n"))
	}
}

// TestFrozen: nothing flows where nothing is trained, and no backward
// instruction is emitted for it.
func TestFrozen(t *testing.T) {
	r := newRig(t)
	below, above := r.param("below", 3, 3), r.param("above", 3, 3)
	below.Grad = tensor.Tensor{}
	tape := NewTape(r.dev)
	out := tape.Output(tape.Linear(tape.Linear(tape.Input("x", r.random(2, 3)), below, nil), above, nil))
	p, err := tape.Compile(r.arena(), Options{Train: true, Seeds: map[*Var]tensor.Tensor{out: r.random(2, 3)}})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Instructions(); len(got) != 3 {
		t.Errorf("instructions %q, want two forward and one backward", got)
	}
}

// TestArenaMoves: programs of one arena survive its growth.
func TestArenaMoves(t *testing.T) {
	r := newRig(t)
	a := r.arena()
	w := r.param("w", 8, 8)
	compile := func(rows int) (*Program, *Var) {
		tape := NewTape(r.dev)
		x := tape.Input("x", r.random(rows, 8))
		for range 3 {
			x = tape.Linear(x, w, nil)
		}
		tape.Output(x)
		p, err := tape.Compile(a, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return p, x
	}
	p, x := compile(2)
	p.Forward()
	before := tensor.GetFloat64(x.Value())
	size := a.Size()
	q, _ := compile(200)
	if a.Size() <= size {
		t.Fatal("the arena did not grow")
	}
	q.Forward()
	p.Forward()
	if !slices.Equal(before, tensor.GetFloat64(x.Value())) {
		t.Error("a program's result changed when its arena moved")
	}
}

// TestPlacement: memory is reused, and nothing is overwritten that is still needed.
func TestPlacement(t *testing.T) {
	r := newRig(t)
	w := r.param("w", 64, 64)
	w.Grad = tensor.Tensor{}
	tape := NewTape(r.dev)
	x := tape.Input("x", r.random(16, 64))
	for range 20 {
		x = tape.Linear(x, w, nil)
	}
	tape.Output(x)
	p, err := tape.Compile(r.arena(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if most := 3 * 16 * 64 * 8; p.Size() > most {
		t.Errorf("a chain of 20 products takes %d bytes, want at most %d", p.Size(), most)
	}
	p.verify()
}
