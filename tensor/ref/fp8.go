package ref

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// f8 is a format of 8 bits: the bits of the fraction, the exponent of the smallest normal number
// and the largest number.
type f8 struct {
	fraction, minExp int
	largest          float64
}

func f8Of(d tensor.Dtype) f8 {
	switch d {
	case tensor.F8E4M3:
		return f8{3, -6, 448}
	case tensor.F8E5M2:
		return f8{2, -14, 57344}
	}
	panic(fmt.Sprintf("ref: %v used as an 8-bit float", d))
}

// encode8 rounds x to the nearest number of the format, ties to even; what is beyond the largest becomes it, NaN 0x7f.
func encode8(x float64, d tensor.Dtype) uint8 {
	f := f8Of(d)
	if math.IsNaN(x) {
		return 0x7f
	}
	sign := uint8(0)
	if math.Signbit(x) {
		sign = 0x80
	}
	x = min(math.Abs(x), f.largest)
	if x == 0 {
		return sign
	}
	_, exp := math.Frexp(x)
	exp = max(exp-1, f.minExp)
	units := math.RoundToEven(math.Ldexp(x, f.fraction-exp)) // see encode16
	return sign | uint8((exp-f.minExp)<<f.fraction+int(units))
}

// decode8 is the value of a code.
func decode8(code uint8, d tensor.Dtype) float64 {
	f, magnitude := f8Of(d), int(code&0x7f)
	exp, units := magnitude>>f.fraction, float64(magnitude&(1<<f.fraction-1))
	x := math.Ldexp(units, f.minExp-f.fraction)
	if exp > 0 {
		x = math.Ldexp(units+float64(int(1)<<f.fraction), f.minExp-f.fraction+exp-1)
	}
	if x > f.largest { // E4M3 has NaN there alone, E5M2 what IEEE 754 has
		x = math.NaN()
		if d == tensor.F8E5M2 && units == 0 {
			x = math.Inf(1)
		}
	}
	if code&0x80 != 0 {
		return -x
	}
	return x
}

func amax(a tensor.AMax) {
	x := matrixOf("AMax's X", a.X, a.X.Rows(), a.X.Cols())
	raise := func(what string, to tensor.Tensor, n int, place func(i, j int) int) {
		if to.IsZero() {
			return
		}
		v := vectorOf(what, to, n)
		for i := range x.rows {
			for j, e := range x.row(i) {
				if at := place(i, j); !(math.Abs(e) <= v[at]) && !math.IsNaN(v[at]) {
					v[at] = math.Abs(e)
				}
			}
		}
	}
	raise("AMax's All", a.All, 1, func(i, j int) int { return 0 })
	raise("AMax's Rows", a.Rows, x.rows, func(i, j int) int { return i })
	raise("AMax's Columns", a.Columns, x.cols, func(i, j int) int { return j })
}

// scaleFor is Quantize's Scale of an AMax.
func scaleFor(amax float64, d tensor.Dtype) float64 {
	if math.IsNaN(amax) || math.IsInf(amax, 0) {
		return math.NaN()
	}
	scale := 0x1p-60
	for amax > f8Of(d).largest*scale {
		scale *= 2
	}
	return scale
}

func quantize(a tensor.Quantize) {
	x := matrixOf("Quantize's X", a.X, a.X.Rows(), a.X.Cols())
	if a.AMaxT.IsZero() && a.AMax.Len() != 1 && !a.QT.IsZero() {
		panic(fmt.Sprintf("ref: Quantize with QT and AMax %v, without AMaxT; AMax must have one element", a.AMax))
	}
	// round fills q [rows, ≥cols] with element (i, j) of at, and its scales.
	round := func(q, amaxes, scales tensor.Tensor, rows, cols int, at func(i, j int) float64) {
		largest := vectorOf("Quantize's AMax", amaxes, amaxes.Len())
		step := 0
		if len(largest) != 1 {
			largest, step = vectorOf("Quantize's AMax", amaxes, rows), 1
		}
		d := q.Dtype
		if q.IsZero() {
			if d = a.QT.Dtype; d == tensor.Invalid {
				return
			}
		}
		if !scales.IsZero() {
			out := vectorOf("Quantize's Scale", scales, len(largest))
			for i, v := range largest {
				out[i] = scaleFor(v, d)
			}
		}
		if q.IsZero() {
			return
		}
		if q.Rows() != rows || q.Cols() < cols {
			panic(fmt.Sprintf("ref: Quantize to %v; it must be [%d, %d or more]", q, rows, cols))
		}
		put := storeOf(q)
		for i := range rows {
			scale := scaleFor(largest[i*step], d)
			for j := range q.Cols() {
				v := 0.0
				if j < cols {
					v = at(i, j)
				}
				if v /= scale; math.IsInf(v, 0) {
					v = math.NaN()
				}
				put(i*q.Stride+j, v)
			}
		}
	}
	amaxT, scaleT := a.AMaxT, a.ScaleT
	round(a.Q, a.AMax, a.Scale, x.rows, x.cols, func(i, j int) float64 { return x.row(i)[j] })
	if amaxT.IsZero() {
		amaxT, scaleT = a.AMax, tensor.Tensor{}
	}
	if !a.QT.IsZero() {
		round(a.QT, amaxT, scaleT, x.cols, x.rows, func(i, j int) float64 { return x.row(j)[i] })
	}
	if !a.Next.IsZero() {
		amax(tensor.AMax{X: a.X, All: a.Next})
	}
}

// widenedProduct is a product of 8-bit operands as one of their numbers times their scales.
func widenedProduct(p tensor.Matmul) tensor.Matmul {
	if !p.A.Dtype.IsF8() || !p.B.Dtype.IsF8() || p.TransA || !p.TransB {
		panic(fmt.Sprintf("ref: Matmul of %v (transposed: %v) and %v (%v); of 8-bit floats both must be, and B alone transposed", p.A, p.TransA, p.B, p.TransB))
	}
	wide := func(q, scale tensor.Tensor) tensor.Tensor {
		w, _, err := tensor.New(New(), tensor.F64, q.Shape...)
		if err != nil {
			panic(err)
		}
		copyTensor(w, q)
		factors := vectorOf("Matmul's scale", scale, scale.Len())
		if len(factors) != 1 {
			factors = vectorOf("Matmul's scale", scale, q.Rows())
		}
		for i, v := range w.Float64() {
			row := 0
			if len(factors) != 1 {
				row = i / q.Cols()
			}
			w.Float64()[i] = v * factors[row]
		}
		return w
	}
	p.A, p.B = wide(p.A, p.ScaleA), wide(p.B, p.ScaleB)
	return p
}
