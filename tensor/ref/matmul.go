package ref

import (
	"fmt"

	"ringtail/tensor"
)

// matmul sets C[i,j] = Σ_l A[i,l]·B[l,j] + Beta·C[i,j] + Bias[j], with A[i,l]
// standing for the memory's [l,i] under TransA, and B[l,j] for [j,l] under TransB. What
// goes with it is done by the operations of that name.
func matmul(p tensor.Matmul) {
	if !p.Plain() {
		p.Apart(exactOps())
		return
	}
	if p.A.Dtype.IsF8() || p.B.Dtype.IsF8() {
		p = widenedProduct(p)
		defer free(p.A.Addr)
		defer free(p.B.Addr)
	}
	m, n := p.C.Rows(), p.C.Cols()
	k := p.A.Cols()
	if p.TransA {
		k = p.A.Rows()
	}
	c := matrixOf("Matmul's C", p.C, m, n)
	a := operandOf("Matmul's A", p.A, m, k, p.TransA)
	b := operandOf("Matmul's B", p.B, k, n, p.TransB)
	var bias []float64
	if !p.Bias.IsZero() {
		bias = vectorOf("Matmul's Bias", p.Bias, n)
	}
	if p.Beta != 0 && p.Beta != 1 {
		panic(fmt.Sprintf("ref: Matmul with Beta %g; it must be 0 or 1", p.Beta))
	}
	for i := range m {
		for j := range n {
			sum := 0.0
			for l := range k {
				sum += a.data[i*a.down+l*a.right] * b.data[l*b.down+j*b.right]
			}
			if p.Beta == 1 {
				sum += c.row(i)[j]
			}
			if bias != nil {
				sum += bias[j]
			}
			c.row(i)[j] = sum
		}
	}
}

// operand is a matrix, transposed or not, by the distance in memory from an
// element to the one below it and to the one on its right.
type operand struct {
	data        []float64
	down, right int
}

func operandOf(what string, t tensor.Tensor, rows, cols int, transposed bool) operand {
	if transposed {
		m := matrixOf(what, t, cols, rows)
		return operand{m.data, 1, m.stride}
	}
	m := matrixOf(what, t, rows, cols)
	return operand{m.data, m.stride, 1}
}

// sumRows sets y[j] += Σ_t x[t,j].
func sumRows(y, x tensor.Tensor) {
	sum := vectorOf("SumRows' y", y, x.Cols())
	m := matrixOf("SumRows' x", x, x.Rows(), x.Cols())
	for t := range m.rows {
		for j, v := range m.row(t) {
			sum[j] += v
		}
	}
}
