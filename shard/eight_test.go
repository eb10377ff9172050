package shard

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"ringtail/autograd"
	"ringtail/optim"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// eightStore has qkv and o for products of 8-bit floats.
func eightStore(t *testing.T, dev tensor.Device, opt Options) (s *Store, qkv, o *autograd.Param) {
	t.Helper()
	specs := slices.Clone(specs)
	for i, e := range specs {
		specs[i].Eight = strings.Contains("q k v o", e.Name)
	}
	s, err := NewStore(dev, plan(t, specs, 300), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Free)
	if qkv, err = s.Merged("qkv", nil, "q", "k", "v"); err != nil {
		t.Fatal(err)
	}
	o = s.Param("o")
	for _, p := range []*autograd.Param{qkv, o} {
		if err := s.Eight(p); err != nil {
			t.Fatal(err)
		}
	}
	return s, qkv, o
}

func eightBytes(t *testing.T, s *Store, list ...*autograd.Param) []byte {
	t.Helper()
	var out []byte
	for _, p := range list {
		for _, x := range []tensor.Tensor{p.Value, p.Eight.W, p.Eight.WT, p.Eight.Scale, p.Eight.AMax} {
			b := make([]byte, x.Bytes())
			s.dev.Read(b, x)
			out = append(out, b...)
		}
	}
	return out
}

// TestEights: 8-bit weights follow the weights, transposed ones too, by scales of the update before, and a
// run that is resumed has the same.
func TestEights(t *testing.T) {
	dev := ref.NewRounded(tensor.BF16)
	r := rand.New(rand.NewPCG(7, 8))
	s, qkv, o := eightStore(t, dev, Options{Train: true})
	if qkv.Value.Dtype != tensor.F32 || s.Param("embed").Value.Dtype != tensor.BF16 || s.Param("norm").Chunk == qkv.Chunk {
		t.Fatalf("qkv is %v, embed %v; norm's chunk is %d, qkv's %d", qkv.Value, s.Param("embed").Value, s.Param("norm").Chunk, qkv.Chunk)
	}
	again, _ := s.Merged("qkv once more", nil, "q", "k", "v")
	if err := s.Eight(again); err != nil || again.Eight != qkv.Eight {
		t.Errorf("another view of qkv has 8-bit weights of its own (%v)", err)
	}
	if err := s.Eight(s.Param("embed")); err == nil {
		t.Error("embed got 8-bit weights")
	}
	for _, name := range []string{"q", "k", "v", "o", "embed"} {
		if err := s.SetTensor(name, func(dst []float32) error {
			for i := range dst {
				dst[i] = float32(r.NormFloat64())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	s.MakeEights()
	step, b, _ := tensor.New(dev, tensor.F64, tensor.StepSize)
	defer b.Free()
	update := func(s *Store, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		for _, name := range []string{"q", "k", "v", "o"} {
			g := s.Param(name).Grad
			v := make([]float64, g.Len())
			for i := range v {
				v[i] = r.NormFloat64()
			}
			tensor.SetFloat64(g, v)
		}
		block := make([]float64, tensor.StepSize)
		block[tensor.StepLR], block[tensor.StepClip], block[tensor.StepBias1], block[tensor.StepBias2] = 20, 1, 0.5, 0.5
		tensor.SetFloat64(step, block)
		s.Update(step, optim.DefaultAdamW())
	}
	check := func() {
		t.Helper()
		for _, p := range []*autograd.Param{qkv, o} {
			scale, out, in := tensor.GetFloat64(p.Eight.Scale)[0], p.Shape[0], p.Shape[1]
			w, wt := wideOf(t, dev, p.Eight.W), wideOf(t, dev, p.Eight.WT)
			for i, v := range tensor.GetFloat64(p.Value) {
				limit := max(math.Abs(v)/16, scale*0x1p-10, math.Abs(v)-448*scale)
				if got := w[i] * scale; math.Abs(got-v) > limit || wt[i%in*out+i/in] != w[i] {
					t.Fatalf("%v: element %d is %g, as 8-bit float %g, transposed %g", p, i, v, got, wt[i%in*out+i/in]*scale)
				}
			}
		}
	}
	check()
	before := tensor.GetFloat64(qkv.Eight.Scale)[0]
	for i := range 6 {
		update(s, uint64(i))
		check()
	}
	if after := tensor.GetFloat64(qkv.Eight.Scale)[0]; after <= before {
		t.Error("weights grew, and their scale did not")
	}

	dir := t.TempDir()
	if err := s.WriteChunks(dir); err != nil {
		t.Fatal(err)
	}
	resumed, qkv2, o2 := eightStore(t, dev, Options{Train: true})
	if err := resumed.ReadChunks(dir); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if !bytes.Equal(eightBytes(t, s, qkv, o), eightBytes(t, resumed, qkv2, o2)) {
			t.Fatalf("%d updates after a checkpoint weights or scales differ", i)
		}
		update(s, 9)
		update(resumed, 9)
	}
}

func wideOf(t *testing.T, dev tensor.Device, x tensor.Tensor) []float64 {
	t.Helper()
	y, b, err := tensor.New(dev, tensor.F64, x.Shape...)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	dev.Ops().Copy(y, x)
	return tensor.GetFloat64(y)
}

// TestEightsOfNarrowStates: a checkpoint holds parameters and moments as they are, of two types.
func TestEightsOfNarrowStates(t *testing.T) {
	dev := ref.NewRounded(tensor.BF16)
	s, qkv, o := eightStore(t, dev, Options{Train: true, State: tensor.BF16})
	c := s.chunks[qkv.Chunk]
	for _, x := range []tensor.Tensor{c.value, c.m, c.v} {
		v := make([]float64, x.Len())
		for i := range v {
			v[i] = float64(i%37) / 37
		}
		tensor.SetFloat64(x, v)
	}
	s.MakeEights()
	dir := t.TempDir()
	if err := s.WriteChunks(dir); err != nil {
		t.Fatal(err)
	}
	r, qkv2, o2 := eightStore(t, dev, Options{Train: true, State: tensor.BF16})
	if err := r.ReadChunks(dir); err != nil {
		t.Fatal(err)
	}
	d := r.chunks[qkv.Chunk]
	if !bytes.Equal(eightBytes(t, s, qkv, o), eightBytes(t, r, qkv2, o2)) || !slices.Equal(tensor.GetFloat64(c.m), tensor.GetFloat64(d.m)) {
		t.Error("weights, scales or moments differ")
	}
}

func TestEightsRefused(t *testing.T) {
	specs := []Spec{{Name: "a", Shape: []int{4, 4}, Eight: true}}
	if _, err := NewStore(cpu.New(), plan(t, specs, 300), Options{}); err == nil || !strings.Contains(err.Error(), "8-bit") {
		t.Errorf("on the CPU: %v", err)
	}
	specs = append(specs, Spec{Name: "b", Shape: []int{4, 4}, Group: "g"})
	specs[0].Group = "g"
	if _, err := Plan(specs, 300); err == nil {
		t.Error("a group of both kinds is laid out")
	}
}
