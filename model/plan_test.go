package model

import (
	"fmt"
	"testing"

	"ringtail/autograd"
	"ringtail/tensor"
)

// unreal is a device in bfloat16 that has addresses and no memory: programs are planned
// on it, not run.
type unreal struct {
	ops  tensor.Ops
	next uintptr
}

func newUnreal() *unreal {
	d := &unreal{next: 1 << 40}
	d.ops.Copy = func(_, _ tensor.Tensor) {}
	return d
}

func (d *unreal) Name() string                    { return "unreal" }
func (d *unreal) Host() bool                      { return false }
func (d *unreal) Float() tensor.Dtype             { return tensor.BF16 }
func (d *unreal) Write(_ tensor.Tensor, _ []byte) {}
func (d *unreal) Read(_ []byte, _ tensor.Tensor)  {}
func (d *unreal) Sync() error                     { return nil }
func (d *unreal) Ops() *tensor.Ops                { return &d.ops }
func (d *unreal) Alloc(n int) (*tensor.Buffer, error) {
	b := &tensor.Buffer{Device: d, Addr: d.next, Size: n, Free: func() {}}
	d.next += uintptr(tensor.AlignUp(n))
	return b, nil
}

// planned is the plan of a training step of a LLaMA.
func planned(t testing.TB, hidden, layers, heads, kv, mlp, batch, seq int, inArena, selective, full bool) (*Model, *autograd.Program) {
	t.Helper()
	c, err := ParseConfig([]byte(fmt.Sprintf(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":32000,"hidden_size":%d,
		"num_hidden_layers":%d,"num_attention_heads":%d,"num_key_value_heads":%d,"intermediate_size":%d,"max_position_embeddings":%d,
		"tie_word_embeddings":false}`, hidden, layers, heads, kv, mlp, seq)))
	if err != nil {
		t.Fatal(err)
	}
	dev := newUnreal()
	m, err := allocate(c, dev, Options{Train: true, Head: CausalLM, State: tensor.BF16, GradsInArena: inArena})
	if err != nil {
		t.Fatal(err)
	}
	absent := func(d tensor.Dtype, n int) tensor.Tensor {
		x, _, _ := tensor.New(dev, d, n)
		return x
	}
	tape := autograd.NewTape(dev)
	n := batch * seq
	h, err := m.Hidden(tape, Inputs{IDs: tape.Input("ids", absent(tensor.I32, n)), Positions: tape.Input("positions", absent(tensor.I32, n)),
		Starts: tape.Input("starts", absent(tensor.I32, batch+1)), Longest: seq, Dense: true, Checkpoint: full})
	if err != nil {
		t.Fatal(err)
	}
	m.Loss(tape, h, tape.Input("targets", absent(tensor.I32, n)), absent(tensor.F64, 3), absent(tensor.F32, 1))
	p, err := tape.Compile(nil, autograd.Options{Train: true, Gradients: m.Store.Gradients(), Selective: selective})
	if err != nil {
		t.Fatal(err)
	}
	return m, p
}

// TestPlan: a training step's memory, of weights, moments, gradients (all bfloat16) and
// activations, planned for large models, is what arithmetic says, by each way of saving it.
func TestPlan(t *testing.T) {
	const gib = 1 << 30
	sizes := map[string]func(inArena, selective, full bool) (*Model, *autograd.Program){
		"1.1B, 8 x 2048": func(a, s, f bool) (*Model, *autograd.Program) {
			return planned(t, 2048, 22, 32, 4, 5632, 8, 2048, a, s, f)
		},
		"7B, 4 x 2048": func(a, s, f bool) (*Model, *autograd.Program) {
			return planned(t, 4096, 32, 32, 32, 11008, 4, 2048, a, s, f)
		},
	}
	// Bounds in GiB. Elements a token and layer of 7B: 5·4096 + 12288 + 3·11008 kept, less
	// 2·4096 + 11008 with Selective; 4096 with full recomputation, and one whole layer.
	for _, c := range []struct {
		size                     string
		inArena, selective, full bool
		most                     float64
	}{
		{"1.1B, 8 x 2048", false, false, false, 28.6}, {"1.1B, 8 x 2048", true, false, false, 26.7}, {"1.1B, 8 x 2048", true, true, false, 20.2},
		{"7B, 4 x 2048", false, false, false, 82.8}, {"7B, 4 x 2048", true, false, false, 70.5}, {"7B, 4 x 2048", false, true, false, 73.4},
		{"7B, 4 x 2048", true, true, false, 61.2}, {"7B, 4 x 2048", false, false, true, 53.5}, {"7B, 4 x 2048", true, false, true, 51},
		{"7B, 4 x 2048", true, true, true, 51},
	} {
		m, p := sizes[c.size](c.inArena, c.selective, c.full)
		peak, all := p.Peak(), float64(m.Store.Bytes()+p.Size())/gib
		how := fmt.Sprintf("%s: gradients in the arena %v, selective %v, full %v", c.size, c.inArena, c.selective, c.full)
		t.Logf("%s: %.2f GiB, in the arena %.2f, at its peak %.2f", how, all, float64(p.Size())/gib, float64(peak.Bytes)/gib)
		if all > c.most || all < c.most-0.3 {
			t.Errorf("%s: %.2f GiB, want %.2f\n%v", how, all, c.most, peak)
		}
		if p.Size() > peak.Bytes+peak.Bytes/25 {
			t.Errorf("%s: %d bytes of arena for %d at its peak", how, p.Size(), peak.Bytes)
		}
	}
}
