package cpu

import (
	"fmt"
	"unsafe"

	"ringtail/tensor"
)

// What the operations share to look at their operands: the checks of shapes and
// types, whose failure is a broken invariant, and views of memory. rowsOf, for
// matrices of float32, stands in attention.go.

// memoryOf is the memory of a tensor of any type, gaps between rows included.
func memoryOf(t tensor.Tensor) []byte {
	if t.Bytes() == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(t.Pointer()), t.Bytes())
}

// vectorOf is the memory of an F32 vector of n elements.
func vectorOf(what string, t tensor.Tensor, n int) []float32 {
	if t.Dtype != tensor.F32 || t.Rank() != 1 || t.Len() != n {
		panic(fmt.Sprintf("cpu: %s is %v; it must be F32[%d]", what, t, n))
	}
	return t.Float32()
}

// doublesOf is the memory of an F64 vector of n elements or more.
func doublesOf(what string, t tensor.Tensor, n int) []float64 {
	if t.Dtype != tensor.F64 || !t.Dense() || t.Len() < n {
		panic(fmt.Sprintf("cpu: %s is %v; it must be a dense F64 of %d elements or more", what, t, n))
	}
	return t.Float64()
}

// intsOf is the memory of an I32 vector of n elements.
func intsOf(what string, t tensor.Tensor, n int) []int32 {
	if t.Dtype != tensor.I32 || t.Rank() != 1 || t.Len() != n {
		panic(fmt.Sprintf("cpu: %s is %v; it must be I32[%d]", what, t, n))
	}
	return t.Int32()
}

// checkIndex panics unless 0 <= i < n.
func checkIndex(what string, i int32, n int) {
	if i < 0 || int(i) >= n {
		panic(fmt.Sprintf("cpu: %s %d is not among the %d rows", what, i, n))
	}
}

func sameShape(op string, a, b tensor.Tensor) {
	if a.Rows() != b.Rows() || a.Cols() != b.Cols() {
		panic(fmt.Sprintf("cpu: %s of %v and %v, which differ in shape", op, a, b))
	}
}

// flat is how many columns a set of operands of one shape can be taken to have:
// all elements in one row where each is dense, else cols.
func flat(n, cols int, dense bool) int {
	if dense {
		return n
	}
	return cols
}

// tasksOf is the number of tasks of at most grain units.
func tasksOf(n, grain int) int { return (n + grain - 1) / grain }
