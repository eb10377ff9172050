package cpu

import (
	"fmt"

	"ringtail/tensor"
)

// matmul hands a matrix product of float32 to the GEMM (gemm.go).
func matmul(p tensor.Matmul) {
	if !p.Plain() {
		p.Apart(&tensor.Ops{Matmul: matmul, SumRows: sumRows, Activate: activation, ActivateBackward: activationBackward})
		return
	}
	m, n, k := p.C.Rows(), p.C.Cols(), p.A.Cols()
	if p.TransA {
		k = p.A.Rows()
	}
	for _, t := range [...]tensor.Tensor{p.C, p.A, p.B} {
		if t.Dtype != tensor.F32 {
			panic(fmt.Sprintf("cpu: Matmul of %v, %v and %v; the CPU multiplies F32 only", p.C, p.A, p.B))
		}
	}
	if p.Beta != 0 && p.Beta != 1 {
		panic(fmt.Sprintf("cpu: Matmul with Beta %g; it must be 0 or 1", p.Beta))
	}
	c := rowsOf("Matmul's C", p.C, m, n)
	a := operandOf("Matmul's A", p.A, m, k, p.TransA)
	b := operandOf("Matmul's B", p.B, k, n, p.TransB)
	var bias []float32
	if !p.Bias.IsZero() {
		bias = vectorOf("Matmul's Bias", p.Bias, n)
	}
	sgemm(p.TransA, p.TransB, m, n, k, first(a.data), a.stride, first(b.data), b.stride, first(c.data), c.stride, p.Beta == 1, first(bias))
}

// operandOf checks that t is [n, cols] or, transposed, [cols, n].
func operandOf(what string, t tensor.Tensor, n, cols int, transposed bool) rows {
	if transposed {
		n, cols = cols, n
	}
	return rowsOf(what, t, n, cols)
}
