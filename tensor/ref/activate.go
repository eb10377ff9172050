package ref

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// activation sets y = act(x).
func activation(y, x tensor.Tensor, act tensor.Activation) {
	out, in := matrixOf("Activate's y", y, y.Rows(), y.Cols()), matrixOf("Activate's x", x, y.Rows(), y.Cols())
	for t := range out.rows {
		for j, v := range in.row(t) {
			out.row(t)[j], _ = activate(v, act)
		}
	}
}

// activationBackward sets dx = dy·act'(x).
func activationBackward(dx, dy, x tensor.Tensor, act tensor.Activation) {
	rows, cols := dx.Rows(), dx.Cols()
	out, grad := matrixOf("ActivateBackward's dx", dx, rows, cols), matrixOf("ActivateBackward's dy", dy, rows, cols)
	in := matrixOf("ActivateBackward's x", x, rows, cols)
	for t := range rows {
		for j, v := range in.row(t) {
			_, slope := activate(v, act)
			out.row(t)[j] = grad.row(t)[j] * slope
		}
	}
}

// softCap sets y = limit·tanh(x/limit).
func softCap(y, x tensor.Tensor, limit float32) {
	checkLimit("SoftCap", limit)
	out, in := matrixOf("SoftCap's y", y, y.Rows(), y.Cols()), matrixOf("SoftCap's x", x, y.Rows(), y.Cols())
	for t := range out.rows {
		for j, v := range in.row(t) {
			out.row(t)[j] = float64(limit) * math.Tanh(v/float64(limit))
		}
	}
}

// softCapBackward sets dx = dy·(1 − (y/limit)²): tanh' = 1 − tanh².
func softCapBackward(dx, dy, y tensor.Tensor, limit float32) {
	checkLimit("SoftCapBackward", limit)
	rows, cols := dx.Rows(), dx.Cols()
	out, grad := matrixOf("SoftCapBackward's dx", dx, rows, cols), matrixOf("SoftCapBackward's dy", dy, rows, cols)
	result := matrixOf("SoftCapBackward's y", y, rows, cols)
	for t := range rows {
		for j, v := range result.row(t) {
			th := v / float64(limit)
			out.row(t)[j] = grad.row(t)[j] * (1 - th*th)
		}
	}
}

func checkLimit(op string, limit float32) {
	if !(limit > 0) {
		panic(fmt.Sprintf("ref: %s with a limit of %g; it must be above 0", op, limit))
	}
}
