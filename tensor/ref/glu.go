package ref

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// glu sets y_j = act(gate_j)·up_j, the gate being the left half of x and up the
// right.
func glu(y, x tensor.Tensor, act tensor.Activation) {
	rows, n := y.Rows(), y.Cols()
	out := matrixOf("GLU's y", y, rows, n)
	in := matrixOf("GLU's x", x, rows, 2*n)
	for t := range rows {
		for j := range n {
			f, _ := activate(in.row(t)[j], act)
			out.row(t)[j] = f * in.row(t)[n+j]
		}
	}
}

// gluBackward: dgate_j = dy_j·up_j·act'(gate_j), dup_j = dy_j·act(gate_j).
func gluBackward(dx, dy, x tensor.Tensor, act tensor.Activation) {
	rows, n := dy.Rows(), dy.Cols()
	grad := matrixOf("GLUBackward's dy", dy, rows, n)
	in := matrixOf("GLUBackward's x", x, rows, 2*n)
	out := matrixOf("GLUBackward's dx", dx, rows, 2*n)
	for t := range rows {
		for j := range n {
			g := grad.row(t)[j]
			f, slope := activate(in.row(t)[j], act)
			up := in.row(t)[n+j] // read before dx, which may be x, is written
			out.row(t)[j] = g * up * slope
			out.row(t)[n+j] = g * f
		}
	}
}

// activate gives an activation and its derivative at x. Φ is the normal
// distribution, φ its density:
//
//	SiLU      x·σ(x)                                  σ(x)·(1 + x·(1−σ(x)))
//	GELU      x·Φ(x), Φ = ½(1 + erf(x/√2))            Φ(x) + x·φ(x)
//	GELUTanh  ½x(1 + tanh u), u = √(2/π)(x + 0.044715x³)   ½(1 + tanh u) + ½x(1 − tanh²u)·u'
//	ReLU      max(x, 0)                               1 where x > 0, else 0
func activate(x float64, act tensor.Activation) (value, slope float64) {
	switch act {
	case tensor.SiLU:
		s := 1 / (1 + math.Exp(-x))
		return x * s, s * (1 + x*(1-s))
	case tensor.GELU:
		cdf := 0.5 * math.Erfc(-x/math.Sqrt2)
		density := math.Exp(-x*x/2) / math.Sqrt(2*math.Pi)
		return x * cdf, cdf + x*density
	case tensor.GELUTanh:
		c := math.Sqrt(2 / math.Pi)
		th := math.Tanh(c * (x + 0.044715*x*x*x))
		return 0.5 * x * (1 + th), 0.5*(1+th) + 0.5*x*(1-th*th)*c*(1+3*0.044715*x*x)
	case tensor.ReLU:
		switch {
		case x > 0:
			return x, 1
		case x <= 0:
			return 0, 0
		}
		return x, x // NaN
	}
	panic(fmt.Sprintf("ref: activation %d is unknown", act))
}
