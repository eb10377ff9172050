// Package cpu is the device that computes on the host's processor, in float32.
//
// Operations run at once, on the calling goroutine and the pool's threads
// (pool.go), so that enqueueing is doing and Sync has nothing to wait for. The
// matrix product is in gemm.go; row operations, one file an idea, stand on
// kernels over contiguous runs of numbers: vec.go names them, gen/ writes them as
// assembly for AVX2 with FMA, AVX-512 and NEON, *_generic.go holds them in plain
// Go, for other processors and as the oracle of the tests. The level is chosen
// once, when the program starts; RINGTAIL_CPU=generic|avx2|avx512|neon asks for
// a lower one.
//
// Results do not depend on the number of threads: work is cut into tasks by the
// shape alone, and partial sums are added in the order of the tasks. They do
// differ in the last bits from one SIMD level to another.
//
// Memory is mapped outside the Go heap (memory_*.go).
package cpu
