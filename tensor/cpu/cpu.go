// Package cpu is the device that computes on the host's processor, in float32.
//
// Operations run at once, on the calling goroutine and the pool's threads
// (pool.go), so that enqueueing is doing and Sync has nothing to wait for. The
// matrix product is in gemm.go; row operations, one file an idea, stand on
// kernels over contiguous runs of numbers, the functions vec…: gen/rows.go writes
// them as assembly for AVX2 with FMA, AVX-512 and NEON (rows_*.s), vec_generic.go,
// glu_generic.go, activate_generic.go and half.go hold them in plain Go, for other
// processors and against which the assembly is tested. The level is chosen once, when the program
// starts; RINGTAIL_CPU=generic|avx2|avx512|neon asks for a lower one.
//
// In the vec functions operands have one length, that of the first, and a
// destination may be an operand itself but must not overlap one otherwise.
//
// Results do not depend on the number of threads: work is cut into tasks by the
// shape alone, and partial sums are added in the order of the tasks. They do
// differ in the last bits from one SIMD level to another.
//
// Memory is mapped outside the Go heap (memory_*.go).
package cpu

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"ringtail/tensor"
)

//go:generate go run ./gen

// Device is the CPU. All its values share the pool's threads; each is used by one
// goroutine at a time, and several may be used at once.
type Device struct{ ops tensor.Ops }

// New returns a CPU device.
func New() *Device {
	return &Device{ops: tensor.Ops{
		Zero:              zero,
		Copy:              copyTensor,
		Add:               add,
		Scale:             scale,
		Matmul:            matmul,
		SumRows:           sumRows,
		Embedding:         embedding,
		EmbeddingBackward: embeddingBackward,
		RMSNorm:           rmsNorm,
		RMSNormBackward:   rmsNormBackward,
		LayerNorm:         layerNorm,
		LayerNormBackward: layerNormBackward,
		HeadNorm:          headNorm,
		HeadNormBackward:  headNormBackward,
		RoPE:              rope,
		Attention:         attention,
		AttentionBackward: attentionBackward,
		CachedAttention:   cachedAttention,
		GLU:               glu,
		GLUBackward:       gluBackward,
		Activate:          activation,
		ActivateBackward:  activationBackward,
		SoftCap:           softCap,
		SoftCapBackward:   softCapBackward,
		Route:             route,
		RouteBackward:     routeBackward,
		GroupedMatmul:     groupedMatmul,
		GroupedOuter:      groupedOuter,
		Combine:           combine,
		CombineBackward:   combineBackward,
		RouterLoss:        routerLoss,
		CrossEntropy:      crossEntropy,
		LogProb:           logProb,
		LogProbBackward:   logProbBackward,
		SumSquares:        sumSquares,
		ClipFactor:        clipFactor,
		AdamW:             adamW,
		Sample:            sample,
	}}
}

// Name is "cpu".
func (*Device) Name() string { return "cpu" }

// Host is true.
func (*Device) Host() bool { return true }

// Float is F32.
func (*Device) Float() tensor.Dtype { return tensor.F32 }

// Ops is the table of operations, the same at every call.
func (d *Device) Ops() *tensor.Ops { return &d.ops }

// Sync returns nil: every operation ended when it was called.
func (*Device) Sync() error { return nil }

// pageSize is what memory starts at a multiple of: that of a block that may be
// read from a file past the operating system's cache.
const pageSize = 4096

// live is the memory allocated and not yet freed, of all CPU devices, in bytes.
var live atomic.Int64

// Alloc returns n bytes of zeroed memory outside the Go heap, from a multiple of
// 4096 on. The error says how many bytes could not be had.
func (d *Device) Alloc(n int) (*tensor.Buffer, error) {
	if n < 0 || n > 1<<(unsafe.Sizeof(n)*8-2) {
		return nil, fmt.Errorf("cpu: cannot allocate %d bytes: no such amount of memory", n)
	}
	size := max(n+pageSize-1, pageSize) &^ (pageSize - 1)
	// Systems promise more memory than they have and end the program when it is
	// touched; say no while there is somebody to say it to.
	used := live.Add(int64(size)) - int64(size)
	if have := machineMemory(); have > 0 && used+int64(size) > have {
		live.Add(-int64(size))
		return nil, fmt.Errorf("cpu: cannot allocate %d bytes (%.1f GiB) beside the %.1f GiB in use: the machine has %.1f GiB; use a smaller model, batch or cache",
			n, float64(n)/(1<<30), float64(used)/(1<<30), float64(have)/(1<<30))
	}
	p, err := mapMemory(size)
	if err != nil {
		live.Add(-int64(size))
		return nil, fmt.Errorf("cpu: cannot allocate %d bytes (%.1f GiB): %w; use a smaller model, batch or cache", n, float64(n)/(1<<30), err)
	}
	free := sync.OnceFunc(func() {
		live.Add(-int64(size))
		if err := unmapMemory(p, size); err != nil {
			panic(fmt.Sprintf("cpu: memory of %d bytes at %p cannot be freed: %v", n, p, err))
		}
	})
	return &tensor.Buffer{Device: d, Addr: uintptr(p), Size: n, Free: free}, nil
}

// Write copies src into the dense tensor dst.
func (d *Device) Write(dst tensor.Tensor, src []byte) {
	if !dst.Dense() || dst.Bytes() != len(src) {
		panic(fmt.Sprintf("cpu: write of %d bytes into %v of %d (dense: %v)", len(src), dst, dst.Bytes(), dst.Dense()))
	}
	copy(memoryOf(dst), src)
}

// Read copies the dense tensor src into dst.
func (d *Device) Read(dst []byte, src tensor.Tensor) {
	if !src.Dense() || src.Bytes() != len(dst) {
		panic(fmt.Sprintf("cpu: read of %d bytes from %v of %d (dense: %v)", len(dst), src, src.Bytes(), src.Dense()))
	}
	copy(dst, memoryOf(src))
}
