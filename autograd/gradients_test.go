package autograd

import (
	"slices"
	"strings"
	"testing"

	"ringtail/tensor"
)

// inArena is a parameter whose gradient is all of a chunk of the arena; it counts how
// often that is bound.
func (r *rig) inArena(name string, bound *int, shape ...int) *Param {
	p := &Param{Name: name, Shape: shape, Value: r.random(shape...)}
	p.InArena = &GradChunk{Dtype: tensor.F64, Len: p.Value.Len(), Bind: func(at tensor.Tensor) {
		*bound++
		p.Grad = at.Reshape(shape...)
	}}
	return p
}

// TestGradientsInArena: gradients of a chain of layers begin one after the other, in
// memory that activations gave back; two programs of one arena bind them by turns.
func TestGradientsInArena(t *testing.T) {
	r := newRig(t)
	const layers = 8
	bound := 0
	var ps []*Param
	var chunks []*GradChunk
	for range layers {
		p := r.inArena("w", &bound, 16, 16)
		ps, chunks = append(ps, p), append(chunks, p.InArena)
	}
	x, seed := r.random(40, 16), r.random(40, 16)
	arena := r.arena()
	compile := func(n int, opt Options) *Program {
		tape := NewTape(r.dev)
		y := tape.Input("x", x)
		for _, p := range ps[:n] {
			y = tape.Activate(tape.Linear(y, p, nil), tensor.SiLU)
		}
		opt.Train, opt.Seeds = true, map[*Var]tensor.Tensor{tape.Output(y): seed}
		p, err := tape.Compile(arena, opt)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	run := func(p *Program) [][]float64 {
		p.Forward()
		p.Backward()
		var all [][]float64
		for _, q := range ps {
			all = append(all, tensor.GetFloat64(q.Grad))
		}
		return all
	}
	p := compile(layers, Options{Gradients: chunks})
	for i, g := range p.grads {
		if first := p.code[g.to.first]; first.node.Name != "zero" || first.phase != Backward {
			t.Errorf("the gradient of layer %d begins with %v %s", i, first.phase, first.node.Name)
		}
		if len(g.clear) > 0 {
			t.Errorf("elements %v of layer %d's gradient are cleared, and then written", g.clear, i)
		}
		if i > 0 && p.grads[i-1].to.first <= g.to.first {
			t.Errorf("the gradient of layer %d begins before that of layer %d", i-1, i)
		}
	}
	if ps[0].InArena.Held() {
		t.Error("gradients are there before a program ran")
	}
	want := run(p)
	if bound != layers || !chunks[0].Held() {
		t.Errorf("bound %d times, held %v", bound, chunks[0].Held())
	}
	own := make([]*Param, layers)
	for i, q := range ps {
		own[i] = &Param{Name: q.Name, Shape: q.Shape, Value: q.Value, Grad: r.tensor(tensor.F64, q.Shape...)}
	}
	arenaPs := ps
	ps = own
	apart := compile(layers, Options{})
	for i, got := range run(apart) {
		if !slices.Equal(got, want[i]) {
			t.Errorf("the gradient of layer %d differs from that in memory of its own", i)
		}
	}
	if most := apart.Size() + 3*16*16*8; p.Size() > most {
		t.Errorf("%d bytes with gradients, %d without: they don't take over memory of activations", p.Size(), apart.Size())
	}
	ps = arenaPs
	if chunks[0].Held() {
		t.Error("gradients are held where another program has run")
	}
	short := compile(2, Options{Gradients: chunks})
	larger := compile(layers, Options{Gradients: chunks, separate: true}) // the arena moves
	if got := run(short); slices.ContainsFunc(got[layers-1], func(v float64) bool { return v != 0 }) || slices.Equal(got[0], want[0]) {
		t.Error("the gradients of a shorter chain aren't its own")
	}
	for _, q := range []*Program{p, larger, p} {
		for i, got := range run(q) {
			if !slices.Equal(got, want[i]) {
				t.Errorf("the gradient of layer %d differs on another run", i)
			}
		}
	}
	before := bound
	run(p)
	if bound != before {
		t.Error("gradients that stay where they are are bound again")
	}
	short.Launched() // as if a graph of it had run
	if !chunks[0].Held() || bound == before || ps[0].Grad.Addr != short.grads[0].to.at.Addr {
		t.Error("a graph's launch doesn't bind its gradients")
	}
	arena.Free()
	if chunks[0].Held() {
		t.Error("gradients are held in an arena that was freed")
	}
	defer func() {
		if msg, _ := recover().(string); !strings.Contains(msg, "Options.Gradients lacks") {
			t.Errorf("panic %q", msg)
		}
	}()
	compile(2, Options{Gradients: chunks[:1]})
}

// TestPeak: what is said to be held adds up, and the arena holds it.
func TestPeak(t *testing.T) {
	r := newRig(t)
	var ps []*Param
	build := layer(r, 6, &ps)
	tape := NewTape(r.dev)
	out := tape.Output(build(tape, tape.Input("x", r.random(6, 6))))
	p, err := tape.Compile(nil, Options{Train: true, Seeds: map[*Var]tensor.Tensor{out: r.random(6, 6)}})
	if err != nil {
		t.Fatal(err)
	}
	k := p.Peak()
	sum := 0
	for _, b := range k.Buffers {
		sum += b.Bytes
		if k.Index < b.First || b.Last < k.Index {
			t.Errorf("%s is held from %d to %d, at %d", b.Name, b.First, b.Last, k.Index)
		}
	}
	if sum != k.Bytes || k.Bytes > p.Size() || k.Bytes < p.Size()/2 || len(k.Buffers) < 3 {
		t.Errorf("%d buffers of %d bytes, %d in all, of an arena of %d", len(k.Buffers), sum, k.Bytes, p.Size())
	}
	if text := k.String(); !strings.Contains(text, k.Instruction) || strings.Count(text, "MiB") < 3 {
		t.Error(text)
	}
	if k := (&Program{}).Peak(); k.Bytes != 0 || k.String() == "" {
		t.Errorf("an empty program's peak is %v", k)
	}
}

// TestFirstAddition: the first addition to a parameter writes its gradient if it is a
// product's; not where another has added to it, or to a part of it, before. The rest is cleared.
func TestFirstAddition(t *testing.T) {
	a, b, part := &Param{Name: "a", Shape: []int{2, 5}, At: 3}, &Param{Name: "b", Shape: []int{4}, At: 13}, &Param{Name: "part", Shape: []int{5}, At: 8}
	for name, c := range map[string]struct {
		adds  []addition
		fresh []bool
		clear []span
	}{
		"nothing":         {nil, nil, []span{{0, 20}}},
		"written":         {[]addition{{param: a, writes: true}}, []bool{true}, []span{{0, 3}, {13, 20}}},
		"added to":        {[]addition{{param: a}}, []bool{false}, []span{{0, 20}}},
		"neighbours":      {[]addition{{param: b, writes: true}, {param: a, writes: true}}, []bool{true, true}, []span{{0, 3}, {17, 20}}},
		"twice":           {[]addition{{param: a, writes: true}, {param: a, writes: true}}, []bool{true, false}, []span{{0, 3}, {13, 20}}},
		"added to before": {[]addition{{param: a}, {param: a, writes: true}}, []bool{false, false}, []span{{0, 20}}},
		"a part before":   {[]addition{{param: part, writes: true}, {param: a, writes: true}}, []bool{true, false}, []span{{0, 8}, {13, 20}}},
	} {
		p := &gradPlace{chunk: &GradChunk{Len: 20}, adds: c.adds}
		for i := range p.adds {
			p.adds[i].grads = &Grads{}
		}
		p.settle()
		for i, want := range c.fresh {
			if got := p.adds[i].grads.Beta(p.adds[i].param) == 0; got != want {
				t.Errorf("%s: addition %d writes: %v", name, i, got)
			}
		}
		if !slices.Equal(p.clear, c.clear) {
			t.Errorf("%s: cleared %v, want %v", name, p.clear, c.clear)
		}
	}
}
