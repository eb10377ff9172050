package cuda

import (
	"fmt"
	"unsafe"

	"ringtail/tensor"
)

// Values of cublasLt.h and library_types.h for products of 8-bit floats.
const (
	cudaE4M3 = 28
	cudaE5M2 = 29

	descScaleA     = 17 // pointers
	descScaleB     = 18
	descFastSum    = 25 // "fast accumulation", int8
	descScaleModeA = 31 // since 12.8; without it: one scale
	descScaleModeB = 32
	scaleOuter     = 3 // a scale for each row of our A (B); on Hopper since 12.9
)

// How many scales an operand of 8-bit floats has.
const (
	scaleNone = iota // no such operand
	scaleOne
	scaleRows
)

// matmulF8 is Matmul of 8-bit floats: by cuBLASLt on GPUs whose tensor cores take them (compute
// capability 8.9 and later) where it takes the shape, else as a product of bfloat16, which
// holds every number of both formats.
func (d *Device) matmulF8(m tensor.Matmul) {
	rows, cols, inner := m.C.Rows(), m.C.Cols(), m.A.Cols()
	if !m.A.Dtype.IsF8() || !m.B.Dtype.IsF8() || m.TransA || !m.TransB || m.A.Rows() != rows || m.B.Rows() != cols || m.B.Cols() != inner {
		panic(fmt.Sprintf("cuda: Matmul C %v of A %v (transposed: %v) and B %v (%v): of 8-bit floats C [m, n] = A [m, k] · B [n, k] transposed", m.C, m.A, m.TransA, m.B, m.TransB))
	}
	for _, s := range []struct {
		scale tensor.Tensor
		rows  int
	}{{m.ScaleA, rows}, {m.ScaleB, cols}} {
		if wantWide("Matmul", s.scale); s.scale.IsZero() || s.scale.Len() != 1 && s.scale.Len() != s.rows {
			panic(fmt.Sprintf("cuda: Matmul of A %v and B %v with scales %v and %v", m.A, m.B, m.ScaleA, m.ScaleB))
		}
	}
	switch {
	case d.failed():
	case !m.Plain():
		m.Apart(&d.ops)
	case rows == 0 || cols == 0:
	case inner == 0 || !d.takesF8(m):
		d.matmulWidened(m)
	default:
		k := gemmKey{m: rows, n: cols, k: inner, lda: lead(m.A), ldb: lead(m.B), ldc: lead(m.C), transB: true,
			typeA: m.A.Dtype, typeB: m.B.Dtype, typeC: m.C.Dtype, accumulate: m.Beta != 0, alignA: alignment(m.A), alignB: alignment(m.B), alignC: alignment(m.C),
			scaleA: scaling(m.ScaleA), scaleB: scaling(m.ScaleB), fastSum: m.FastSum}
		if !m.Bias.IsZero() {
			k.bias, k.typeBias, k.alignBias = true, m.Bias.Dtype, alignment(m.Bias)
		}
		switch p := d.plan(k, m); {
		case p == nil:
		case p.refused:
			d.matmulWidened(m)
		default:
			d.runPlan(k, p, m)
		}
	}
}

func scaling(s tensor.Tensor) uint8 {
	if s.Len() == 1 {
		return scaleOne
	}
	return scaleRows
}

// takesF8 tells whether to ask cuBLASLt: rows must be whole 16 bytes, of the two types one
// E4M3, and scales of rows, which 12.9 brought to Hopper, are there for both operands or neither.
func (d *Device) takesF8(m tensor.Matmul) bool {
	sixteens := m.C.Cols()%16 == 0 && aligned16(m.A, m.B, m.C)
	if d.blas.handle == 0 || d.gpu.Capability < 89 || !sixteens || m.A.Dtype == tensor.F8E5M2 && m.B.Dtype == tensor.F8E5M2 {
		return false
	}
	a, b := scaling(m.ScaleA), scaling(m.ScaleB)
	return a == scaleOne && b == scaleOne || a == scaleRows && b == scaleRows && d.gpu.Capability == 90 && d.blas.version >= 120900
}

// describeF8 sets what is special about a product of 8-bit floats. set is describe's.
func (k gemmKey) describeF8(set func(attribute uintptr, value unsafe.Pointer, size uintptr)) {
	fast, outer, none := int8(flag(k.fastSum)), int32(scaleOuter), uint64(128) // an address for the heuristic; multiply has the true one
	set(descFastSum, unsafe.Pointer(&fast), 1)
	for i, scale := range []uint8{k.scaleB, k.scaleA} { // cuBLASLt's first operand is our B
		set(descScaleA+uintptr(i), unsafe.Pointer(&none), 8)
		if scale == scaleRows {
			set(descScaleModeA+uintptr(i), unsafe.Pointer(&outer), 4)
		}
	}
}

// dequantizeArgs mirrors DequantizeArgs of kernels/fp8.cu.
type dequantizeArgs struct {
	q, y, scale           uintptr
	qStride, yStride      uint64
	rows, cols, scaleStep uint32
}

// matmulWidened is the product of the operands' numbers times their scales as bfloat16, which is exact
// where scales are powers of two.
func (d *Device) matmulWidened(m tensor.Matmul) {
	stride := (max(m.A.Cols(), 1) + 7) &^ 7
	size := func(t tensor.Tensor) int { return tensor.AlignUp(t.Rows() * stride * 2) }
	space := d.workspace(size(m.A) + size(m.B))
	if space == 0 {
		return
	}
	widen := func(q, scale tensor.Tensor, to uintptr) tensor.Tensor {
		args := dequantizeArgs{q: q.Addr, y: to, scale: scale.Addr, qStride: uint64(q.Stride), yStride: uint64(stride), rows: uint32(q.Rows()), cols: uint32(q.Cols()),
			scaleStep: uint32(flag(scale.Len() != 1))}
		if q.Len() > 0 {
			launch(d, "fp8.dequantize_"+suffixF8(q.Dtype), grid{X: ceilDiv(stride, 256*8), Y: min(q.Rows(), 65535), Threads: 256}, &args)
		}
		q.Dtype, q.Addr, q.Stride = tensor.BF16, to, stride
		return q
	}
	plain := m
	plain.A, plain.B = widen(m.A, m.ScaleA, space), widen(m.B, m.ScaleB, space+uintptr(size(m.A)))
	plain.ScaleA, plain.ScaleB, plain.FastSum = tensor.Tensor{}, tensor.Tensor{}, false
	d.matmul(plain)
}
