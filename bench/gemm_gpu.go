package bench

import (
	"encoding/json"
	"fmt"
	"time"

	"ringtail/rng"
	"ringtail/tensor"
)

// GPUGEMMResult is a matrix product of a training step, measured on a GPU.
type GPUGEMMResult struct {
	Bench  string
	Device string
	Dtype  string // of the operands: "bf16", "f32", "tf32", "fp8" (E4M3, gradients of outputs E5M2)
	Layout string // of A and B: N as multiplied, T transposed; of fp8, which is kept in both layouts, those of the product in bf16
	// The result is [M, N], sums of K products.
	M, N, K int
	// Rates in TFLOP/s: of 20 products, the best of three bursts, and once the card's clocks are
	// steady under the load; 0: not measured.
	Burst, Sustained float64
	// Of names the linear layer that the product belongs to: its tokens, outputs and inputs.
	Of [3]int
}

// MarshalJSON writes the keys of the peers' torch_limits.py beside the others.
func (r *GPUGEMMResult) MarshalJSON() ([]byte, error) {
	out := map[string]any{"bench": r.Bench, "device": r.Device, "dtype": r.Dtype, "layout": r.Layout,
		"m": r.M, "n": r.N, "k": r.K, "gflops": round(1000*max(r.Burst, r.Sustained), 0), "burst_tflops": r.Burst}
	name := fmt.Sprintf("gemm_%dx%dx%d", r.Of[0], r.Of[1], r.Of[2])
	if r.Of[0] == r.Of[1] && r.Of[1] == r.Of[2] {
		name = fmt.Sprintf("gemm_%d", r.Of[0])
	}
	if r.Layout != "NT" {
		name += map[string]string{"NN": "_dx", "TN": "_dw"}[r.Layout]
	}
	if r.Dtype != "bf16" || r.Of[0] == r.Of[1] {
		name += "_" + r.Dtype
	}
	out[name+"_tflops"] = r.Burst
	if r.Sustained > 0 {
		out["sustained_tflops"], out[name+"_sustained_tflops"] = r.Sustained, r.Sustained
		if r.Dtype == "fp8" && r.Layout == "NT" {
			out[fmt.Sprintf("fp8_%dx%dx%d_sustained_tflops", r.Of[0], r.Of[1], r.Of[2])] = r.Sustained
		}
	}
	return json.Marshal(out)
}

// burst is the number of products that are timed together.
const burst = 20

// GPUGEMM times the three products of a linear layer of m tokens, n outputs and k inputs: Y = X·Wᵀ ("NT"), dX = dY·W
// ("NN") and dW += dYᵀ·X ("TN"), on normally distributed numbers, weights times 0.02 as initialised: zeros or constants
// take less power, and so run faster. Those of fp8 are made of 8-bit operands, as docs/fp8.md says. seconds is the length of the sustained load, once to settle and once measured;
// 0: bursts only.
func GPUGEMM(dev tensor.Device, dtype string, m, n, k int, seconds float64) ([]*GPUGEMMResult, error) {
	recorder, ok := dev.(tensor.Capturer)
	if !ok {
		return nil, fmt.Errorf("%s records no graphs", dev.Name())
	}
	var buffers []*tensor.Buffer
	defer func() {
		for _, b := range buffers {
			b.Free()
		}
	}()
	block, buf, err := tensor.New(dev, dev.Float().Wide(), 1<<22)
	if err != nil {
		return nil, err
	}
	buffers = append(buffers, buf)
	values := make([]float32, block.Len())
	rng.New(1, "bench", 0).FillNormal(values, 0, 1)
	tensor.SetFloat32(block, values)
	matrix := func(rows, cols int, scale float32) (x tensor.Tensor) {
		if err != nil {
			return x
		}
		if x, buf, err = tensor.New(dev, dev.Float(), rows*cols); err != nil {
			return x
		}
		buffers = append(buffers, buf)
		for at := 0; at < x.Len(); at += block.Len() {
			part := min(block.Len(), x.Len()-at)
			dev.Ops().Copy(x.Slice(at, part), block.Slice(0, part))
		}
		if scale != 1 {
			dev.Ops().Scale(x, scale)
		}
		x.Shape, x.Stride = []int{rows, cols}, cols
		return x
	}
	x, w, y := matrix(m, k, 1), matrix(n, k, 0.02), matrix(m, n, 1)
	dx, dw := matrix(m, k, 1), matrix(n, k, 1)
	if err != nil {
		return nil, err
	}
	products := [3]tensor.Matmul{{C: y, A: x, B: w, TransB: true}, {C: dx, A: y, B: w}, {C: dw, A: y, B: x, TransA: true, Beta: 1}}
	if dtype == "fp8" {
		if dev.Ops().Quantize == nil {
			return nil, fmt.Errorf("%s has no 8-bit floats", dev.Name())
		}
		eights := func(x tensor.Tensor, format tensor.Dtype) (q, qt, scale tensor.Tensor) {
			alloc := func(d tensor.Dtype, shape ...int) (t tensor.Tensor) {
				if err != nil {
					return t
				}
				if t, buf, err = tensor.New(dev, d, shape...); err == nil {
					buffers = append(buffers, buf)
				}
				return t
			}
			q, qt, scale = alloc(format, x.Shape...), alloc(format, x.Shape[1], x.Shape[0]), alloc(dev.Float().Wide(), 1)
			amax := alloc(dev.Float().Wide(), 1)
			if err == nil {
				dev.Ops().Zero(amax)
				dev.Ops().AMax(tensor.AMax{X: x, All: amax})
				dev.Ops().Quantize(tensor.Quantize{X: x, Q: q, QT: qt, AMax: amax, Scale: scale})
			}
			return q, qt, scale
		}
		qx, qxt, ofX := eights(x, tensor.F8E4M3)
		qw, qwt, ofW := eights(w, tensor.F8E4M3)
		qy, qyt, ofY := eights(y, tensor.F8E5M2)
		if err != nil {
			return nil, err
		}
		products = [3]tensor.Matmul{{C: y, A: qx, B: qw, TransB: true, ScaleA: ofX, ScaleB: ofW, FastSum: true},
			{C: dx, A: qy, B: qwt, TransB: true, ScaleA: ofY, ScaleB: ofW}, {C: dw, A: qyt, B: qxt, TransB: true, ScaleA: ofY, ScaleB: ofX, Beta: 1}}
	}
	var out []*GPUGEMMResult
	for i, p := range []struct {
		layout  string
		m, n, k int
	}{{"NT", m, n, k}, {"NN", m, k, n}, {"TN", n, k, m}} {
		r := &GPUGEMMResult{Bench: "gemm", Device: dev.Name(), Dtype: dtype, Layout: p.layout, M: p.m, N: p.n, K: p.k, Of: [3]int{m, n, k}}
		tflop := 2e-12 * float64(m) * float64(n) * float64(k)
		if r.Burst, r.Sustained, err = productRates(dev, recorder, products[i], tflop, seconds); err != nil {
			return nil, fmt.Errorf("%s %dx%dx%d: %w", p.layout, p.m, p.n, p.k, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// productRates times a product of tflop 10^12 floating-point operations.
func productRates(dev tensor.Device, recorder tensor.Capturer, p tensor.Matmul, tflop, seconds float64) (fast, steady float64, err error) {
	for range 3 {
		dev.Ops().Matmul(p)
	}
	g, err := recorder.Capture(func() {
		for range burst {
			dev.Ops().Matmul(p)
		}
	})
	if err != nil {
		return 0, 0, err
	}
	defer g.Free()
	run := func() float64 {
		begin := time.Now()
		g.Launch()
		if e := dev.Sync(); err == nil {
			err = e
		}
		return time.Since(begin).Seconds() / burst
	}
	run()
	best := run()
	for range 2 {
		best = min(best, run())
	}
	fast = rate(tflop, best)
	if seconds <= 0 || err != nil {
		return fast, 0, err
	}
	var count int
	var took float64
	for range 2 { // the first to settle
		begin := time.Now()
		count, took = 0, 0
		for took < seconds && err == nil {
			run()
			count += burst
			took = time.Since(begin).Seconds()
		}
	}
	return fast, rate(tflop*float64(count), took), err
}

// rate is in TFLOP/s, of three digits or so.
func rate(tflop, seconds float64) float64 {
	if r := tflop / seconds; r < 10 {
		return round(r, 9)
	}
	return round(tflop/seconds, 1)
}
