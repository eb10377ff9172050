package ref

import (
	"fmt"
	"math"
	"slices"

	"ringtail/tensor"
)

// zero sets x = 0, whatever its type.
func zero(x tensor.Tensor) {
	size := x.Dtype.Size()
	memory := bytesOf(x)
	for i := range x.Rows() {
		if x.Cols() > 0 {
			clear(memory[i*x.Stride*size:][:x.Cols()*size])
		}
	}
}

// add sets y = a + b.
func add(y, a, b tensor.Tensor) {
	sameShape("Add", y, a)
	sameShape("Add", y, b)
	my := matrixOf("Add's y", y, y.Rows(), y.Cols())
	ma := matrixOf("Add's a", a, y.Rows(), y.Cols())
	mb := matrixOf("Add's b", b, y.Rows(), y.Cols())
	for i := range my.rows {
		for j := range my.cols {
			my.row(i)[j] = ma.row(i)[j] + mb.row(i)[j]
		}
	}
}

// scale sets x = x·f.
func scale(x tensor.Tensor, f float32) {
	m := matrixOf("Scale's x", x, x.Rows(), x.Cols())
	for i := range m.rows {
		for j := range m.cols {
			m.row(i)[j] *= float64(f)
		}
	}
}

// copyTensor sets dst = src, rounding to nearest, ties to even, where dst's type
// is narrower. Types that are no floats are copied to their like.
func copyTensor(dst, src tensor.Tensor) {
	sameShape("Copy", dst, src)
	if dst.Len() == 0 {
		return
	}
	if dst.Dtype == src.Dtype {
		size := dst.Dtype.Size()
		to, from := bytesOf(dst), bytesOf(src)
		for i := range dst.Rows() {
			copy(to[i*dst.Stride*size:][:dst.Cols()*size], from[i*src.Stride*size:])
		}
		return
	}
	store, load := storeOf(dst), loadOf(src)
	for i := range dst.Rows() {
		for j := range dst.Cols() {
			store(i*dst.Stride+j, load(i*src.Stride+j))
		}
	}
}

func sameShape(op string, a, b tensor.Tensor) {
	if !slices.Equal(a.Shape, b.Shape) {
		panic(fmt.Sprintf("ref: %s of %v and %v", op, a, b))
	}
}

// The 16-bit floats, by the bits of their fraction and the exponent of their
// smallest normal number.
const (
	f16Fraction, f16MinExp   = 10, -14
	bf16Fraction, bf16MinExp = 7, -126
)

// loadOf reads elements of a float tensor's memory.
func loadOf(t tensor.Tensor) func(i int) float64 {
	switch t.Dtype {
	case tensor.F64:
		m := t.Float64()
		return func(i int) float64 { return m[i] }
	case tensor.F32:
		m := t.Float32()
		return func(i int) float64 { return float64(m[i]) }
	case tensor.F16:
		m := t.Uint16()
		return func(i int) float64 { return decode16(m[i], f16Fraction, f16MinExp) }
	case tensor.BF16:
		m := t.Uint16()
		return func(i int) float64 { return decode16(m[i], bf16Fraction, bf16MinExp) }
	case tensor.F8E4M3, tensor.F8E5M2:
		m := t.Uint8()
		return func(i int) float64 { return decode8(m[i], t.Dtype) }
	}
	panic(fmt.Sprintf("ref: %v used as a float", t))
}

// storeOf rounds numbers into elements of a float tensor's memory.
func storeOf(t tensor.Tensor) func(i int, x float64) {
	switch t.Dtype {
	case tensor.F64:
		m := t.Float64()
		return func(i int, x float64) { m[i] = x }
	case tensor.F32:
		m := t.Float32()
		return func(i int, x float64) { m[i] = float32(x) }
	case tensor.F16:
		m := t.Uint16()
		return func(i int, x float64) { m[i] = encode16(x, f16Fraction, f16MinExp) }
	case tensor.BF16:
		m := t.Uint16()
		return func(i int, x float64) { m[i] = encode16(x, bf16Fraction, bf16MinExp) }
	case tensor.F8E4M3, tensor.F8E5M2:
		m := t.Uint8()
		return func(i int, x float64) { m[i] = encode8(x, t.Dtype) }
	}
	panic(fmt.Sprintf("ref: %v used as a float", t))
}

// encode16 rounds x to the nearest IEEE-like 16-bit float, ties to even.
func encode16(x float64, fraction, minExp int) uint16 {
	sign := uint16(0)
	if math.Signbit(x) {
		sign = 0x8000
	}
	infinity := uint16(0x7fff) >> fraction << fraction
	switch {
	case math.IsNaN(x):
		return sign | infinity | 1<<(fraction-1)
	case math.IsInf(x, 0):
		return sign | infinity
	case x == 0:
		return sign
	}
	x = math.Abs(x)
	_, exp := math.Frexp(x) // x in [2^(exp-1), 2^exp)
	exp = max(exp-1, minExp)
	// In units of the last place x is a whole number below 2^(fraction+1); the
	// implied leading bit, where it is set, carries into the exponent field, and
	// so does a fraction that rounds up past its end.
	units := math.RoundToEven(math.Ldexp(x, fraction-exp))
	bits := (exp-minExp)<<fraction + int(units)
	if bits >= int(infinity) {
		return sign | infinity
	}
	return sign | uint16(bits)
}

// decode16 is the value of an IEEE-like 16-bit float.
func decode16(bits uint16, fraction, minExp int) float64 {
	exp := int(bits&0x7fff) >> fraction
	units := float64(bits & (1<<fraction - 1))
	var x float64
	switch {
	case exp == 0x7fff>>fraction && units != 0:
		return math.NaN()
	case exp == 0x7fff>>fraction:
		x = math.Inf(1)
	case exp == 0:
		x = math.Ldexp(units, minExp-fraction)
	default:
		x = math.Ldexp(units+float64(int(1)<<fraction), minExp-fraction+exp-1)
	}
	if bits&0x8000 != 0 {
		return -x
	}
	return x
}
