package conformance

import (
	"math"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// scaled runs a correct Quantize of X times a number.
func scaled(a tensor.Quantize, f float32, run func(tensor.Quantize)) {
	x, b, _ := tensor.New(ref.New(), tensor.F64, a.X.Shape...)
	defer b.Free()
	good.Copy(x, a.X)
	good.Scale(x, f)
	a.X = x
	run(a)
}

// f8Mistakes are those of devices that train in 8-bit floats.
var f8Mistakes = []mistake{
	{"All is set", "AMax", "All", func(ops *tensor.Ops) {
		ops.AMax = func(a tensor.AMax) {
			if !a.All.IsZero() {
				good.Zero(a.All)
			}
			good.AMax(a)
		}
	}},
	{"the largest number, not absolute value", "AMax", "", func(ops *tensor.Ops) {
		ops.AMax = func(a tensor.AMax) {
			x, b, _ := tensor.New(ref.New(), tensor.F64, a.X.Shape...)
			defer b.Free()
			good.Copy(x, a.X)
			for i, v := range x.Float64() {
				x.Float64()[i] = max(v, 0)
			}
			a.X = x
			good.AMax(a)
		}
	}},
	{"numbers cut off", "Quantize", "Q", func(ops *tensor.Ops) {
		ops.Quantize = func(a tensor.Quantize) { scaled(a, 1-0x1p-6, good.Quantize) }
	}},
	{"columns past X's stay", "Quantize", "Q", func(ops *tensor.Ops) {
		ops.Quantize = func(a tensor.Quantize) {
			if !a.Q.IsZero() {
				a.Q = a.Q.Columns(0, a.X.Cols())
			}
			good.Quantize(a)
		}
	}},
	{"an infinity becomes the largest number", "Quantize", "special", func(ops *tensor.Ops) {
		ops.Quantize = func(a tensor.Quantize) {
			x, b, _ := tensor.New(ref.New(), tensor.F64, a.X.Shape...)
			defer b.Free()
			good.Copy(x, a.X)
			for i, v := range x.Float64() {
				x.Float64()[i] = min(max(v, -1e200), 1e200)
			}
			a.X = x
			good.Quantize(a)
		}
	}},
	{"a scale of half the size", "Quantize", "Scale", func(ops *tensor.Ops) {
		ops.Quantize = func(a tensor.Quantize) {
			good.Quantize(a)
			if !a.Scale.IsZero() {
				good.Scale(a.Scale, 0.5)
			}
		}
	}},
	{"scales of the neighbours' rows", "MatmulF8", "C", func(ops *tensor.Ops) {
		ops.Matmul = func(m tensor.Matmul) {
			if n := m.ScaleA.Len(); !m.ScaleA.IsZero() && n > 1 {
				s, b, _ := tensor.New(ref.New(), tensor.F64, n)
				defer b.Free()
				for i := range n {
					s.Float64()[i] = m.ScaleA.Float64()[(i+1)%n]
				}
				m.ScaleA = s
			}
			good.Matmul(m)
		}
	}},
	{"products without their last", "MatmulF8", "C", func(ops *tensor.Ops) {
		ops.Matmul = func(m tensor.Matmul) {
			if k := m.A.Cols(); k > 1 && m.TransB && !m.ScaleA.IsZero() {
				m.A, m.B = m.A.Columns(0, k-1), m.B.Columns(0, k-1)
			}
			good.Matmul(m)
		}
	}},
	{"old content is forgotten", "MatmulF8", "Beta 1", func(ops *tensor.Ops) {
		ops.Matmul = func(m tensor.Matmul) { m.Beta = float32(math.Min(float64(m.Beta), 0)); good.Matmul(m) }
	}},
}
