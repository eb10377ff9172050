package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// matmul runs on cuBLASLt where it takes the product, else on our own kernels.
// Operands that end in a row of one element or none have no leading dimension to speak of.
func (d *Device) matmul(m tensor.Matmul) {
	if m.A.Dtype.IsF8() || m.B.Dtype.IsF8() {
		d.matmulF8(m)
		return
	}
	rows, cols := m.C.Rows(), m.C.Cols()
	inner := m.A.Cols()
	if m.TransA {
		inner = m.A.Rows()
	}
	if d.failed() {
		return
	}
	if !m.Plain() && (rows == 0 || cols == 0 || inner == 0 || d.blas.handle == 0 || !fusible(m)) {
		m.Apart(&d.ops)
		return
	}
	if rows == 0 || cols == 0 {
		return
	}
	if inner == 0 || d.blas.handle == 0 {
		d.matmulOwn(m)
		return
	}
	k := gemmKey{m: rows, n: cols, k: inner, lda: lead(m.A), ldb: lead(m.B), ldc: lead(m.C), transA: m.TransA, transB: m.TransB,
		typeA: m.A.Dtype, typeB: m.B.Dtype, typeC: m.C.Dtype, accumulate: m.Beta != 0, alignA: alignment(m.A), alignB: alignment(m.B), alignC: alignment(m.C)}
	if !m.Bias.IsZero() {
		k.bias, k.typeBias, k.alignBias = true, m.Bias.Dtype, alignment(m.Bias)
	}
	if k.dBias, k.fused = !m.DBias.IsZero(), m.Fused; k.fused != tensor.Unfused {
		k.ldPre, k.alignPre = lead(m.Pre), alignment(m.Pre)
	}
	if k.typeA == tensor.F32 {
		k.tf32 = d.opt.TF32
	}
	p := d.plan(k, m)
	if p == nil {
		return
	}
	switch {
	case !m.Plain() && (p.refused || p.apart):
		m.Apart(&d.ops)
	case p.refused:
		d.matmulOwn(m)
	default:
		d.runPlan(k, p, m)
	}
}

// fusible tells whether cuBLASLt's forms of a product with something beside it may take the
// operands: those of GELU want Pre in whole 16 bytes, and a bias's gradient, which they
// overwrite, is added to DBias as a tensor of C's type.
func fusible(m tensor.Matmul) bool {
	if m.Fused != tensor.Unfused {
		return m.Beta == 0 && m.Pre.Dtype == m.C.Dtype && lead(m.Pre)%8 == 0 && aligned16(m.Pre)
	}
	return m.TransA && (m.C.Dtype == m.DBias.Dtype || m.C.Dtype == tensor.F32 || m.DBias.Dtype == tensor.F32)
}

// lead is the leading dimension of a row-major matrix.
func lead(t tensor.Tensor) int { return max(t.Stride, t.Cols(), 1) }

func (d *Device) runPlan(k gemmKey, p *gemmPlan, m tensor.Matmul) {
	space := d.gemmSpace()
	if space == 0 {
		return
	}
	d.enter()
	defer d.leave()
	if d.profile != nil {
		defer d.timed(k.label())()
	}
	code := d.multiply(k, p, p.algorithm, m, m.C.Addr, space)
	if !m.Plain() && (code == ltInvalidValue || code == ltNotSupported) { // though the heuristic proposed it
		p.refused = true
		m.Apart(&d.ops)
		return
	}
	d.fail(checkLt("cublasLtMatmul", code, "C %v = A %v · B %v, %+v", m.C, m.A, m.B, k))
	if k.dBias && code == 0 {
		d.addBiasGradient(m.DBias, m.C.Dtype)
	}
}

// addBiasGradient adds what multiply left in the workspace, of C's type.
func (d *Device) addBiasGradient(to tensor.Tensor, typ tensor.Dtype) {
	made := d.workspace(to.Len() * typ.Size())
	if typ == tensor.F32 {
		d.addRowPartials(to, made, 1, to.Len())
		return
	}
	x := to
	x.Dtype, x.Addr = typ, made
	d.add(to, to, x)
}

// multiply enqueues a product whose result goes to address to. The context must be current.
func (d *Device) multiply(k gemmKey, p *gemmPlan, algorithm [algorithmSize / 8]uint64, m tensor.Matmul, to, space uintptr) int32 {
	b := &d.blas
	if k.bias {
		bias := m.Bias.Addr
		if code := call(b.descSet, p.desc, descBiasPointer, address(&bias), 8); code != 0 {
			return code
		}
	}
	if k.dBias {
		to := d.workspace(m.DBias.Len() * m.C.Dtype.Size())
		if code := call(b.descSet, p.desc, descBiasPointer, address(&to), 8); code != 0 {
			return code
		}
	}
	if k.fused != tensor.Unfused {
		pre := m.Pre.Addr
		if code := call(b.descSet, p.desc, descAuxPointer, address(&pre), 8); code != 0 {
			return code
		}
	}
	if k.scaleA != scaleNone {
		for i, scale := range []tensor.Tensor{m.ScaleB, m.ScaleA} {
			at := scale.Addr
			if code := call(b.descSet, p.desc, descScaleA+uintptr(i), address(&at), 8); code != 0 {
				return code
			}
		}
	}
	alpha, beta := float32(1), m.Beta
	return call(b.matmul, b.handle, p.desc, address(&alpha), m.B.Addr, p.a, m.A.Addr, p.b, address(&beta), m.C.Addr, p.c, to, p.c,
		address(&algorithm), space, gemmWorkspace, d.stream)
}

// label names a product in profiles.
func (k gemmKey) label() string {
	side := func(trans bool) string {
		if trans {
			return "T"
		}
		return "N"
	}
	s := fmt.Sprintf("gemm %s%s %dx%dx%d %v", side(k.transA), side(k.transB), k.m, k.n, k.k, k.typeC)
	if k.accumulate {
		s += " +="
	}
	if k.dBias {
		s += ", sums"
	}
	if k.scaleA != scaleNone {
		s += fmt.Sprintf(" of %v %v", k.typeA, k.typeB)
	}
	return s + [...]string{"", ", GELU", ", GELU'"}[k.fused]
}

// gemmSpace is cuBLASLt's scratch: its own, for products run within operations that
// have a workspace.
func (d *Device) gemmSpace() uintptr {
	m := &d.memory
	if m.gemm == 0 {
		d.enter()
		defer d.leave()
		p, err := d.allocate(gemmWorkspace)
		if err != nil {
			d.fail(err)
			return 0
		}
		m.gemm = p
	}
	return m.gemm
}
