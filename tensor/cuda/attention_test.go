package cuda

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"ringtail/tensor"
)

// TestAttention compares the program's own kernels with the reference for each size of
// head that they have a shape for and for some between, of sequences on both sides of what a tile
// takes, and asks for the same bytes from a second run (the emulator takes blocks, warps
// and lanes in another order each time).
func TestAttention(t *testing.T) {
	for _, float := range []tensor.Dtype{tensor.BF16, tensor.F32} {
		d := open(t, Options{Float: float})
		for _, headDim := range []int{32, 64, 80, 96, 128, 256, 5, 33, 72, 160, 264} {
			for i, lengths := range [][]int{{1}, {130, 0, 65}, {3, 0, 0, 17, 2, 33, 0}} {
				for variant := range 4 {
					shape := tensor.AttentionShape{Heads: 4, KVHeads: 2, HeadDim: headDim, Scale: float32(1 / math.Sqrt(float64(headDim)))}
					shape.Window = []int{0, 40, 0, 7}[variant]
					if variant >= 2 {
						shape.SoftCap, shape.ALiBi = 1.5, true
					}
					if !onGPU() && thin > 1 && (headDim/8+i+variant)%2 == 1 {
						continue
					}
					if float == tensor.F32 && headDim%33 != 0 || i == 1 && (headDim > 128 || variant == 1 || variant == 2) || i == 2 && variant == 0 {
						continue // less to wait for
					}
					t.Run(fmt.Sprintf("%v/%d/%v/%d", float, headDim, lengths, variant), func(t *testing.T) { attentionTrial(t, d, shape, lengths) })
				}
			}
		}
		d.Close()
	}
}

// TestAttentionShared takes the backward pass of two kernels for heads of 256 columns where a block has
// the shared memory of compute capability 8.0.
func TestAttentionShared(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16})
	defer d.Close()
	d.gpu.SharedMemory = min(d.gpu.SharedMemory, 163<<10)
	shape := tensor.AttentionShape{Heads: 4, KVHeads: 2, HeadDim: 256, Scale: 1.0 / 16}
	if f, ok := d.flashFor(shape, true, tensor.BF16, flash.backwardShared); !ok || f.general || f.fused.rows > 0 {
		t.Fatalf("the backward pass takes %+v", f)
	}
	attentionTrial(t, d, shape, []int{67, 0, 35})
}

// TestAttentionFused takes backward passes whose parts of dQ come from several tiles of keys, of which a window
// leaves out the first ones.
func TestAttentionFused(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16})
	defer d.Close()
	for _, headDim := range []int{64, 256} {
		for _, window := range []int{0, 70} {
			shape := tensor.AttentionShape{Heads: 2, KVHeads: 1, HeadDim: headDim, Window: window, Scale: float32(1 / math.Sqrt(float64(headDim)))}
			t.Run(fmt.Sprintf("%d/%d", headDim, window), func(t *testing.T) { attentionTrial(t, d, shape, []int{331 - headDim/2, 1}) })
		}
	}
}

func attentionTrial(t *testing.T, d *Device, shape tensor.AttentionShape, lengths []int) {
	p, starts, longest := newPairs(t, d), []int32{0}, 0
	for _, n := range lengths {
		starts = append(starts, starts[len(starts)-1]+int32(n))
		longest = max(longest, n)
	}
	tokens := int(starts[len(starts)-1])
	qkv, do, dqkv := p.make(d.Float(), tokens, (shape.Heads+2*shape.KVHeads)*shape.HeadDim), p.make(d.Float(), tokens, shape.Heads*shape.HeadDim),
		p.make(d.Float(), tokens, (shape.Heads+2*shape.KVHeads)*shape.HeadDim)
	o, lse, begin := p.make(d.Float(), tokens, shape.Heads*shape.HeadDim), p.make(tensor.F32, shape.Heads, tokens), p.ints(starts...)
	var before [3][]float64
	for run := range 2 {
		d.Ops().Attention(tensor.Attention{AttentionShape: shape, O: o.dev, LSE: lse.dev, QKV: qkv.dev, Starts: begin.dev, Longest: longest})
		d.Ops().AttentionBackward(tensor.AttentionBackward{AttentionShape: shape, DQKV: dqkv.dev, DO: do.dev, O: o.dev, LSE: lse.dev, QKV: qkv.dev,
			Starts: begin.dev, Longest: longest})
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		now := [3][]float64{tensor.GetFloat64(o.dev), tensor.GetFloat64(lse.dev), tensor.GetFloat64(dqkv.dev)}
		for i, name := range []string{"O", "LSE", "DQKV"} {
			if run == 1 && !slices.Equal(now[i], before[i]) {
				t.Errorf("%s: a second run gives other numbers", name)
			}
		}
		before = now
	}
	ops := p.ref.Ops()
	ops.Attention(tensor.Attention{AttentionShape: shape, O: o.ref, LSE: lse.ref, QKV: qkv.ref, Starts: begin.ref, Longest: longest})
	ops.AttentionBackward(tensor.AttentionBackward{AttentionShape: shape, DQKV: dqkv.ref, DO: do.ref, O: o.ref, LSE: lse.ref, QKV: qkv.ref,
		Starts: begin.ref, Longest: longest})
	// Rounding to bfloat16 alone makes an error of about 1/600 of a result.
	bound := map[tensor.Dtype]float64{tensor.BF16: 1, tensor.F32: 1e-3}[d.Float()]
	near(t, "O", before[0], tensor.GetFloat64(o.ref), 4e-3*bound)
	near(t, "LSE", before[1], tensor.GetFloat64(lse.ref), 2e-6)
	near(t, "DQKV", before[2], tensor.GetFloat64(dqkv.ref), 6e-3*bound)
}

// Every kernel fits into the GPUs it is meant for: 227 KiB a block on compute capability 9.0,
// and for heads of up to 128 columns 99 KiB.
func TestAttentionFits(t *testing.T) {
	for _, shared := range []int{99 << 10, 227 << 10} {
		d := &Device{gpu: Info{SharedMemory: shared}}
		for headDim := 1; headDim <= 256; headDim++ {
			for _, plain := range []bool{false, true} {
				shape := tensor.AttentionShape{Heads: 1, KVHeads: 1, HeadDim: headDim, Scale: 1, ALiBi: !plain}
				_, forward := d.flashFor(shape, plain, tensor.BF16, flash.forwardShared)
				_, backward := d.flashFor(shape, plain, tensor.BF16, flash.backwardShared)
				if large := headDim > 128 && shared == 99<<10; !forward || backward == large {
					t.Errorf("heads of %d columns, %d bytes: forward %v, backward %v", headDim, shared, forward, backward)
				}
			}
		}
	}
}

// near asks that the root of the mean square of errors is at most bound times that of what is
// wanted, and no error 15 times as large.
func near(t *testing.T, name string, got, want []float64, bound float64) {
	t.Helper()
	var errors, squares, worst float64
	for i, w := range want {
		e := got[i] - w
		if math.IsNaN(e) {
			t.Fatalf("%s: element %d is %g, want %g", name, i, got[i], w)
		}
		errors, squares, worst = errors+e*e, squares+w*w, max(worst, math.Abs(e)/max(1, math.Abs(w)))
	}
	if relative := math.Sqrt(errors / squares); relative > bound || worst > 15*bound {
		t.Errorf("%s: relative error %.2g, the largest %.2g; the bounds are %.2g and %.2g", name, relative, worst, bound, 15*bound)
	}
}

// BenchmarkAttention times our own kernels and cuDNN's on a GPU, 32 calls at a time. FLOPs are counted as
// FlashAttention's authors do: 2·T·length·Heads·HeadDim for causal attention, 2.5 times that backward.
//
//	RINGTAIL_TEST_GPU=1 go test ./tensor/cuda -run - -bench Attention
func BenchmarkAttention(b *testing.B) {
	if !onGPU() {
		b.Skip("not on a GPU")
	}
	d := open(b, Options{Float: tensor.BF16})
	defer d.Close()
	for _, c := range []struct{ sequences, length, heads, kvHeads, headDim int }{
		{4, 2048, 32, 32, 128}, {4, 2048, 32, 8, 128}, {4, 2048, 32, 32, 64}, {4, 4096, 32, 8, 128}, {16, 1024, 12, 12, 64}, {4, 2048, 8, 4, 256},
	} {
		tokens, columns := c.sequences*c.length, c.heads*c.headDim
		shape := tensor.AttentionShape{Heads: c.heads, KVHeads: c.kvHeads, HeadDim: c.headDim, Scale: float32(1 / math.Sqrt(float64(c.headDim)))}
		var buffers []*tensor.Buffer
		blank := func(t tensor.Dtype, shape ...int) tensor.Tensor {
			x, buffer, err := tensor.New(d, t, shape...)
			if err != nil {
				b.Fatal(err)
			}
			buffers = append(buffers, buffer)
			return x
		}
		qkv, dqkv := blank(tensor.BF16, tokens, columns+2*c.kvHeads*c.headDim), blank(tensor.BF16, tokens, columns+2*c.kvHeads*c.headDim)
		o, do, lse := blank(tensor.BF16, tokens, columns), blank(tensor.BF16, tokens, columns), blank(tensor.F32, c.heads, tokens)
		starts := blank(tensor.I32, c.sequences+1)
		first := []int32{0}
		for range c.sequences {
			first = append(first, first[len(first)-1]+int32(c.length))
		}
		tensor.SetInt32(starts, first)
		v := slices.Repeat([]float64{0.5, -1, 0.25, 1.5, -0.75, 0.125, -0.3}, qkv.Len()/7+1)
		tensor.SetFloat64(qkv, v[:qkv.Len()])
		tensor.SetFloat64(do, v[:do.Len()])
		forward := tensor.Attention{AttentionShape: shape, O: o, LSE: lse, QKV: qkv, Starts: starts, Longest: c.length, Dense: true}
		backward := tensor.AttentionBackward{AttentionShape: shape, DQKV: dqkv, DO: do, O: o, LSE: lse, QKV: qkv, Starts: starts,
			Longest: c.length, Dense: true}
		flops := 2 * float64(tokens) * float64(c.length) * float64(columns)
		for _, way := range []struct {
			name  string
			flops float64
			run   func() bool
		}{
			{"own/forward", flops, func() bool { d.ownAttention(forward); return true }},
			{"own/backward", 2.5 * flops, func() bool { d.ownAttentionBackward(backward); return true }},
			{"cudnn/forward", flops, func() bool { return d.cudnnAttention(forward) }},
			{"cudnn/backward", 2.5 * flops, func() bool { return d.cudnnAttentionBackward(backward) }},
		} {
			b.Run(fmt.Sprintf("%dx%d/heads=%d,%d,%d/%s", c.sequences, c.length, c.heads, c.kvHeads, c.headDim, way.name), func(b *testing.B) {
				if !way.run() {
					b.Skip("cuDNN doesn't take it")
				}
				if err := d.Sync(); err != nil {
					b.Fatal(err)
				}
				b.ResetTimer()
				const calls = 32
				for range b.N {
					for range calls {
						way.run()
					}
					if err := d.Sync(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(way.flops*calls*float64(b.N)/b.Elapsed().Seconds()/1e12, "TFLOP/s")
			})
		}
		for _, buffer := range buffers {
			buffer.Free()
		}
	}
}
