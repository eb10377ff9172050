package bench

import (
	"time"

	"ringtail/rng"
	"ringtail/tensor"
)

// GEMMResult is a measured matrix product.
type GEMMResult struct {
	Bench      string  `json:"bench"`
	M          int     `json:"m"`
	N          int     `json:"n"`
	K          int     `json:"k"`
	Threads    int     `json:"threads"`
	Transposed bool    `json:"transposed"` // B is stored [n, k], as a linear layer's weights are
	GFLOPS     float64 `json:"gflops"`     // best round
	Median     float64 `json:"median_gflops"`
	Rounds     int     `json:"rounds"`
}

// GEMM times C = A·B (or A·Bᵀ) on random numbers.
func GEMM(dev tensor.Device, m, n, k int, transposed bool, threads, rounds int) (*GEMMResult, error) {
	b := []int{k, n}
	if transposed {
		b = []int{n, k}
	}
	var x [3]tensor.Tensor
	for i, s := range [][]int{{m, k}, b, {m, n}} {
		t, buf, err := tensor.New(dev, dev.Float(), s...)
		if err != nil {
			return nil, err
		}
		defer buf.Free()
		v := make([]float32, t.Len())
		rng.New(uint64(i), "bench", 0).FillNormal(v, 0, 1)
		tensor.SetFloat32(t, v)
		x[i] = t
	}
	run := func() float64 {
		begin := time.Now()
		dev.Ops().Matmul(tensor.Matmul{C: x[2], A: x[0], B: x[1], TransB: transposed})
		_ = dev.Sync()
		return time.Since(begin).Seconds()
	}
	for range 3 {
		run()
	}
	var times []float64
	for range rounds {
		times = append(times, run())
	}
	best := times[0]
	for _, t := range times {
		best = min(best, t)
	}
	flops := 2 * float64(m) * float64(n) * float64(k) / 1e9
	return &GEMMResult{Bench: "gemm", M: m, N: n, K: k, Threads: threads, Transposed: transposed,
		GFLOPS: round(flops/best, 1), Median: round(flops/median(times), 1), Rounds: rounds}, nil
}
