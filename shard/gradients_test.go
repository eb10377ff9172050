package shard

import (
	"slices"
	"strings"
	"testing"

	"ringtail/autograd"
	"ringtail/optim"
	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// TestGradsInArena: steps with gradients in a program's arena are those with gradients in
// the store, whatever the chunks; merged and stored tensors show the same gradients; and
// the optimizer refuses to run over what another program left there.
func TestGradsInArena(t *testing.T) {
	dev := ref.New()
	floats := func(shape ...int) tensor.Tensor {
		x, b, err := tensor.New(dev, tensor.F64, shape...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Free)
		v := make([]float64, x.Len())
		for i := range v {
			v[i] = float64((i*7)%11)/10 - 0.5
		}
		tensor.SetFloat64(x, v)
		return x
	}
	x, seed, step := floats(5, 6), floats(5, 10), floats(tensor.StepSize)
	o := optim.DefaultAdamW()
	steps := func(inArena bool, chunk int) (result map[string][]float64, s *Store, again func()) {
		s, err := NewStore(dev, plan(t, specs, chunk), Options{Train: true, GradsInArena: inArena})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Free)
		for _, e := range s.Layout.Entries {
			tensor.SetFloat64(s.Param(e.Name).Value, tensor.GetFloat64(floats(e.Shape...)))
		}
		qkv, err := s.Merged("qkv", nil, "q", "k", "v")
		if err != nil {
			t.Fatal(err)
		}
		arena := autograd.NewArena(dev)
		t.Cleanup(arena.Free)
		compile := func(train bool) *autograd.Program {
			tape := autograd.NewTape(dev)
			y := tape.Linear(tape.RMSNorm(tape.Input("x", x), s.Param("norm"), 1e-5), qkv, nil)
			opt := autograd.Options{Train: train, Gradients: s.Gradients()}
			if out := tape.Output(y); train { // embed, o and head are trained, and unused
				opt.Seeds = map[*autograd.Var]tensor.Tensor{out: seed}
			}
			p, err := tape.Compile(arena, opt)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		train, other := compile(true), compile(false)
		block := make([]float64, tensor.StepSize)
		result = map[string][]float64{}
		update := func() {
			s.GradSumSquares(step.Slice(tensor.StepSumSquares, 1))
			dev.Ops().ClipFactor(tensor.ClipFactor{Step: step, MaxNorm: 1})
			s.Update(step, o)
		}
		for n := range 3 {
			other.Forward()
			s.ZeroGrads()
			train.Forward()
			train.Backward()
			block[tensor.StepLR] = 0.1
			block[tensor.StepBias1], block[tensor.StepBias2] = o.Bias(n)
			tensor.SetFloat64(step, block)
			update()
		}
		for _, e := range s.Layout.Entries {
			p := s.Param(e.Name)
			if p.Trainable() == e.Frozen {
				t.Errorf("%s is trainable: %v", e.Name, p.Trainable())
			}
			result[e.Name] = tensor.GetFloat64(p.Value)
			if !e.Frozen {
				result["gradient of "+e.Name] = tensor.GetFloat64(p.Grad)
			}
		}
		if qkv.Grad.Addr != s.Param("q").Grad.Addr {
			t.Error("the merged gradient is not a view of the parts'")
		}
		return result, s, func() { other.Forward(); update() }
	}
	for _, chunk := range []int{1, 600, 1 << 20} {
		want, own, _ := steps(false, chunk)
		got, s, again := steps(true, chunk)
		for name, w := range want {
			if !slices.Equal(got[name], w) {
				t.Errorf("chunks of %d: %s differs", chunk, name)
			}
		}
		if own.Gradients() != nil {
			t.Error("a store with gradients of its own has some in the arena")
		}
		gradients := 0
		for _, g := range s.Gradients() {
			gradients += g.Len * g.Dtype.Size()
		}
		if gradients == 0 || own.Bytes()-s.Bytes() != gradients {
			t.Errorf("chunks of %d: %d bytes, %d with %d of gradients", chunk, s.Bytes(), own.Bytes(), gradients)
		}
		func() {
			defer func() {
				if msg, _ := recover().(string); !strings.Contains(msg, "another program") {
					t.Errorf("panic %q", msg)
				}
			}()
			again()
		}()
	}
}
