package cpu

import (
	"fmt"

	"ringtail/tensor"
)

// The activations of plain MLPs and the soft cap; their loop over the elements is
// elementwise.go's.

// activation sets y = act(x).
func activation(y, x tensor.Tensor, act tensor.Activation) {
	n, cols := y.Rows(), y.Cols()
	j := elementwiseJobs.take()
	j.op, j.act, j.grain = activateElements, act, heavyGrain
	j.v = [5]rows{rowsOf("Activate's y", y, n, cols), rowsOf("Activate's x", x, n, cols)}
	j.n, j.cols = n*cols, flat(n*cols, cols, y.Dense() && x.Dense())
	j.start()
}

// activationBackward sets dx = dy·act'(x).
func activationBackward(dx, dy, x tensor.Tensor, act tensor.Activation) {
	n, cols := dx.Rows(), dx.Cols()
	j := elementwiseJobs.take()
	j.op, j.act, j.grain = activateGradients, act, heavyGrain
	j.v = [5]rows{rowsOf("ActivateBackward's dx", dx, n, cols), rowsOf("ActivateBackward's dy", dy, n, cols), rowsOf("ActivateBackward's x", x, n, cols)}
	j.n, j.cols = n*cols, flat(n*cols, cols, dx.Dense() && dy.Dense() && x.Dense())
	j.start()
}

// softCap sets y = limit·tanh(x/limit).
func softCap(y, x tensor.Tensor, limit float32) {
	n, cols := y.Rows(), y.Cols()
	checkLimit("SoftCap", limit)
	j := elementwiseJobs.take()
	j.op, j.f, j.grain = capElements, limit, heavyGrain
	j.v = [5]rows{rowsOf("SoftCap's y", y, n, cols), rowsOf("SoftCap's x", x, n, cols)}
	j.n, j.cols = n*cols, flat(n*cols, cols, y.Dense() && x.Dense())
	j.start()
}

// softCapBackward sets dx = dy·(1 − (y/limit)²), as (limit − y)·(limit + y)/limit²:
// where y nears the limit the difference keeps its digits.
func softCapBackward(dx, dy, y tensor.Tensor, limit float32) {
	n, cols := dx.Rows(), dx.Cols()
	checkLimit("SoftCapBackward", limit)
	j := elementwiseJobs.take()
	j.op, j.f, j.grain = capGradients, limit, lightGrain
	j.v = [5]rows{rowsOf("SoftCapBackward's dx", dx, n, cols), rowsOf("SoftCapBackward's dy", dy, n, cols), rowsOf("SoftCapBackward's y", y, n, cols)}
	j.n, j.cols = n*cols, flat(n*cols, cols, dx.Dense() && dy.Dense() && y.Dense())
	j.start()
}

func checkLimit(op string, limit float32) {
	if !(limit > 0) {
		panic(fmt.Sprintf("cpu: %s with a limit of %g; it must be above 0", op, limit))
	}
}

func activate(act tensor.Activation, y, x []float32) {
	switch act {
	case tensor.SiLU:
		vecSiLU(y, x)
	case tensor.GELU:
		vecGELU(y, x)
	case tensor.GELUTanh:
		vecGELUTanh(y, x)
	case tensor.ReLU:
		vecReLU(y, x)
	default:
		panic(fmt.Sprintf("cpu: activation %d is unknown", act))
	}
}

func activateGradient(act tensor.Activation, dx, dy, x []float32) {
	switch act {
	case tensor.SiLU:
		vecSiLUGrad(dx, dy, x)
	case tensor.GELU:
		vecGELUGrad(dx, dy, x)
	case tensor.GELUTanh:
		vecGELUTanhGrad(dx, dy, x)
	case tensor.ReLU:
		vecReLUGrad(dx, dy, x)
	default:
		panic(fmt.Sprintf("cpu: activation %d is unknown", act))
	}
}
