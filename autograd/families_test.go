package autograd

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"ringtail/tensor"
)

// otherLayer records a layer of the operations that layer lacks: layer norm with
// bias, norms of heads, capped and biased attention, a plain activation, scaling.
func otherLayer(r *rig, tokens int, act tensor.Activation, ps *[]*Param) func(t *Tape, x *Var) *Var {
	const hidden, heads, kv, dim = 6, 4, 2, 2
	add := func(name string, shape ...int) *Param {
		p := r.param(name, shape...)
		*ps = append(*ps, p)
		return p
	}
	n1 := Norm{W: add("n1", hidden), Bias: add("n1.bias", hidden), Layer: true, Eps: 1e-5}
	n2 := Norm{W: add("n2", hidden), Layer: true, Eps: 1e-5}
	n3 := Norm{W: add("n3", hidden), Eps: 1e-5, WOffset: 1}
	qkv, wq, wk := add("qkv", (heads+2*kv)*dim, hidden), add("wq", dim), add("wk", dim)
	o, up, down := add("o", hidden, heads*dim), add("up", 7, hidden), add("down", hidden, 7)
	starts := r.ints(0, int32(tokens/3), int32(tokens))
	return func(t *Tape, x *Var) *Var {
		shape := tensor.AttentionShape{Heads: heads, KVHeads: kv, HeadDim: dim, Scale: 0.7, Window: 3, SoftCap: 1.5, ALiBi: true}
		h := t.HeadNorm(t.Linear(t.Norm(x, n1), qkv, nil), wq, wk, shape, 1e-5, 1)
		a := t.Linear(t.Attention(h, t.Input("starts", starts), shape, tokens), o, nil)
		s, n := t.AddNorm(t.Scale(x, 1.5), t.Norm(a, n3), n2)
		return t.Add(s, t.SoftCap(t.Linear(t.Activate(t.Linear(n, up, nil), act), down, nil), 2))
	}
}

func TestOtherLayerGradients(t *testing.T) {
	for _, act := range []tensor.Activation{tensor.SiLU, tensor.GELU, tensor.GELUTanh, tensor.ReLU} {
		for _, checkpoint := range []bool{false, true} {
			t.Run(fmt.Sprintf("activation %d, checkpoint=%v", act, checkpoint), func(t *testing.T) {
				r := newRig(t)
				var ps []*Param
				one, two := otherLayer(r, 6, act, &ps), otherLayer(r, 6, act, &ps)
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
}

// experts records a mixture of gated experts; it returns the router's logits too.
func experts(t *Tape, x *Var, router, gateUp, down *Param, k int, normalize bool) (y, logits *Var) {
	logits = t.Linear(x, router, nil)
	weights, r := t.Route(logits, k, normalize)
	rows := t.GroupedLinear(t.Gather(x, r.Tokens), r.Starts, gateUp)
	rows = t.GroupedLinear(t.GLU(rows, tensor.SiLU), r.Starts, down)
	return t.Combine(rows, weights, r.Slots), logits
}

func TestExpertGradients(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		for _, normalize := range []bool{false, true} {
			t.Run(fmt.Sprintf("checkpoint=%v, normalize=%v", checkpoint, normalize), func(t *testing.T) {
				r := newRig(t)
				router, gateUp, down := r.param("router", 4, 3), r.param("gateup", 4, 10, 3), r.param("down", 4, 3, 5)
				r.checkGradients(func(t *Tape, x *Var) *Var {
					for range 2 {
						f := func() {
							y, _ := experts(t, x, router, gateUp, down, 2, normalize)
							x = t.Add(x, y)
						}
						if checkpoint {
							t.Checkpoint(f)
						} else {
							f()
						}
					}
					return x
				}, r.random(7, 3), []*Param{router, gateUp, down})
			})
		}
	}
}

// TestRouterLoss: its gradient joins what reaches the router through the experts,
// also where their layer is recomputed.
func TestRouterLoss(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		t.Run(fmt.Sprintf("checkpoint=%v", checkpoint), func(t *testing.T) {
			r := newRig(t)
			router, gateUp, down := r.param("router", 4, 3), r.param("gateup", 4, 10, 3), r.param("down", 4, 3, 5)
			x, dx := r.random(7, 3), r.tensor(tensor.F64, 7, 3)
			live, loss, scale := r.ints(5), r.tensor(tensor.F64, 1), r.random(1)
			const coef = 0.25
			tape := NewTape(r.dev)
			y := tape.GradInput("x", x, dx)
			var routers []*Var
			for range 2 {
				f := func() {
					e, logits := experts(tape, y, router, gateUp, down, 2, true)
					y, routers = tape.Add(y, e), append(routers, logits)
				}
				if checkpoint {
					tape.Checkpoint(f)
				} else {
					f()
				}
			}
			tape.RouterLoss(routers, tape.Input("live", live), 2, coef, loss, scale)
			out, seed := tape.Output(y), r.random(7, 3)
			p, err := tape.Compile(r.arena(), Options{Train: true, Seeds: map[*Var]tensor.Tensor{out: seed}})
			if err != nil {
				t.Fatal(err)
			}
			value := func() float64 {
				r.dev.Ops().Zero(loss)
				p.Forward()
				s := tensor.GetFloat64(loss)[0] * tensor.GetFloat64(scale)[0] * coef
				for i, v := range tensor.GetFloat64(out.Value()) {
					s += v * tensor.GetFloat64(seed)[i]
				}
				return s
			}
			for range 2 {
				for _, q := range []*Param{router, gateUp, down} {
					r.dev.Ops().Zero(q.Grad)
				}
				value()
				p.Backward()
			}
			for name, c := range map[string][2]tensor.Tensor{"x": {x, dx}, "router": {router.Value, router.Grad}, "down": {down.Value, down.Grad}} {
				r.differences(name, c[0], c[1], value)
			}
		})
	}
}

// TestSelective: cheap values, and no others, are made again, each once, in time for the
// backward pass; values and gradients have the same bits. In regions nothing changes.
func TestSelective(t *testing.T) {
	for name, regions := range map[string]bool{"alone": false, "in regions": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var ps []*Param
			one, two := layer(r, 6, &ps), otherLayer(r, 6, tensor.GELU, &ps)
			router, gateUp, down := r.param("router", 4, 6), r.param("gateup", 4, 10, 6), r.param("down", 4, 6, 5)
			table := r.param("table", 9, 6)
			ps = append(ps, router, gateUp, down, table)
			ids, seed := r.ints(3, 1, 4, 1, 5, 8), r.random(6, 6)
			three := func(t *Tape, x *Var) *Var {
				n := t.RMSNorm(x, ps[0], 1e-5)
				y, _ := experts(t, n, router, gateUp, down, 2, true)
				return t.Add(x, y)
			}
			qkv, wq, wk := r.param("qkv", 6, 6), r.param("wq", 2), r.param("wk", 2)
			ps = append(ps, qkv, wq, wk)
			positions, starts, cos, sin := r.ints(0, 1, 2, 3, 0, 1), r.ints(0, 4, 6), r.random(4, 1), r.random(4, 1)
			four := func(t *Tape, x *Var) *Var {
				shape := tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: 2, Scale: 0.7}
				h := t.HeadNorm(t.Linear(x, qkv, nil), wq, wk, shape, 1e-5, 0)
				h = t.RoPE(h, t.Input("positions", positions), cos, sin, 2, 2)
				return t.Add(x, t.Linear(t.Attention(h, t.Input("starts", starts), shape, 4), r.fixed("o", 6, 2), nil))
			}
			compile := func(selective bool) (*Program, [][]float64) {
				tape := NewTape(r.dev)
				x := tape.Embedding(tape.Input("ids", ids), table)
				for _, f := range []func(*Tape, *Var) *Var{one, two, three, four} {
					if regions {
						tape.Checkpoint(func() { x = f(tape, x) })
					} else {
						x = f(tape, x)
					}
				}
				out := tape.Output(tape.Linear(tape.Norm(x, Norm{W: ps[1], Eps: 1e-5}), r.fixed("w", 6, 6), nil))
				p, err := tape.Compile(r.arena(), Options{Train: true, Selective: selective, Seeds: map[*Var]tensor.Tensor{out: seed}})
				if err != nil {
					t.Fatal(err)
				}
				for _, q := range ps {
					r.dev.Ops().Zero(q.Grad)
				}
				p.Forward()
				p.Backward()
				all := [][]float64{tensor.GetFloat64(out.Value())}
				for _, q := range ps {
					all = append(all, tensor.GetFloat64(q.Grad))
				}
				return p, all
			}
			p, want := compile(false)
			q, got := compile(true)
			for i := range want {
				if !slices.Equal(got[i], want[i]) {
					t.Errorf("result %d differs", i)
				}
			}
			count := func(p *Program) map[string]int {
				n := map[string]int{}
				for _, in := range p.code {
					if in.phase == Recompute {
						n[in.node.Name]++
					}
				}
				return n
			}
			if regions {
				if p.Size() < q.Size() {
					t.Errorf("%d bytes, without Selective %d", q.Size(), p.Size())
				}
				return
			}
			if n := count(p); len(n) > 0 {
				t.Errorf("recomputed %v", n)
			}
			// Not otherLayer's norm of attention, whose result no gradient needs, nor the last
			// norm, read by a product with frozen weights alone, nor the rotation in layer, whose operand isn't kept.
			expected := map[string]int{"norm": 3, "add+norm": 2, "head norm": 2, "rope": 1, "glu": 2, "activate": 1, "gather": 1, "embedding": 1}
			if n := count(q); !maps.Equal(n, expected) {
				t.Errorf("recomputed %v, want %v", n, expected)
			}
			if p.Size() <= q.Size() {
				t.Errorf("%d bytes, without Selective %d", q.Size(), p.Size())
			}
		})
	}
}
