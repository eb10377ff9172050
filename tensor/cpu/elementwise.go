package cpu

import (
	"fmt"

	"ringtail/tensor"
)

// Operations on each element apart: Add, Scale, the gated activations and those of
// activate.go. The elements, in the order of rows, are cut into tasks of grain elements; a task
// calls its kernel on runs of adjacent ones.

type elementwise uint8

const (
	addElements elementwise = iota
	scaleElements
	gateElements
	gateGradients
	activateElements
	activateGradients
	capElements
	capGradients
)

// The number of elements of a task: enough to be worth handing out, few enough
// to stay in the first-level cache and to share evenly.
const (
	lightGrain = 16 << 10 // a few operations an element
	heavyGrain = 4 << 10  // exponentials
)

type elementwiseJob struct {
	op      elementwise
	act     tensor.Activation
	f       float32
	n, cols int // elements; columns of a row
	grain   int
	v       [5]rows // operands, in the order of the kernel's
}

var elementwiseJobs freeList[elementwiseJob]

func (j *elementwiseJob) start() {
	if j.n > 0 {
		parallel(tasksOf(j.n, j.grain), j)
	}
	*j = elementwiseJob{}
	elementwiseJobs.give(j)
}

func (j *elementwiseJob) run(_ *workspace, task int) {
	i, end := task*j.grain, min((task+1)*j.grain, j.n)
	for i < end {
		row, col := i/j.cols, i%j.cols
		n := min(j.cols-col, end-i)
		var v [len(j.v)][]float32
		for k, r := range j.v {
			if r.data != nil {
				v[k] = r.data[row*r.stride+col:][:n]
			}
		}
		switch j.op {
		case addElements:
			vecAdd(v[0], v[1], v[2])
		case scaleElements:
			vecScale(v[0], j.f)
		case gateElements:
			gate(j.act, v[0], v[1], v[2])
		case gateGradients:
			gateGradient(j.act, v[0], v[1], v[2], v[3], v[4])
		case activateElements:
			activate(j.act, v[0], v[1])
		case activateGradients:
			activateGradient(j.act, v[0], v[1], v[2])
		case capElements:
			vecSoftCap(v[0], v[1], 1/j.f, j.f)
		case capGradients:
			vecSoftCapGrad(v[0], v[1], v[2], j.f, 1/(j.f*j.f))
		}
		i += n
	}
}

// add sets y = a + b.
func add(y, a, b tensor.Tensor) {
	n, cols := y.Rows(), y.Cols()
	j := elementwiseJobs.take()
	j.op, j.grain = addElements, lightGrain
	j.v = [5]rows{rowsOf("Add's y", y, n, cols), rowsOf("Add's a", a, n, cols), rowsOf("Add's b", b, n, cols)}
	j.n, j.cols = n*cols, flat(n*cols, cols, y.Dense() && a.Dense() && b.Dense())
	j.start()
}

// scale sets x = x·f.
func scale(x tensor.Tensor, f float32) {
	n, cols := x.Rows(), x.Cols()
	j := elementwiseJobs.take()
	j.op, j.f, j.grain = scaleElements, f, lightGrain
	j.v = [5]rows{rowsOf("Scale's x", x, n, cols)}
	j.n, j.cols = n*cols, flat(n*cols, cols, x.Dense())
	j.start()
}

// glu sets y = act(gate)·up, gate the left half of x, up the right.
func glu(y, x tensor.Tensor, act tensor.Activation) {
	n, cols := y.Rows(), y.Cols()
	out, in := rowsOf("GLU's y", y, n, cols), rowsOf("GLU's x", x, n, 2*cols)
	if n*cols == 0 {
		return
	}
	j := elementwiseJobs.take()
	j.op, j.act, j.grain = gateElements, act, heavyGrain
	j.v = [5]rows{out, in, in.from(0, cols)}
	j.n, j.cols = n*cols, cols
	j.start()
}

// gluBackward sets dx from dy and the forward's x.
func gluBackward(dx, dy, x tensor.Tensor, act tensor.Activation) {
	n, cols := dy.Rows(), dy.Cols()
	out, in := rowsOf("GLUBackward's dx", dx, n, 2*cols), rowsOf("GLUBackward's x", x, n, 2*cols)
	grad := rowsOf("GLUBackward's dy", dy, n, cols)
	if n*cols == 0 {
		return
	}
	j := elementwiseJobs.take()
	j.op, j.act, j.grain = gateGradients, act, heavyGrain
	j.v = [5]rows{out, out.from(0, cols), grad, in, in.from(0, cols)}
	j.n, j.cols = n*cols, cols
	j.start()
}

func gate(act tensor.Activation, y, g, up []float32) {
	switch act {
	case tensor.SiLU:
		vecGLUSiLU(y, g, up)
	case tensor.GELU:
		vecGLUGELU(y, g, up)
	case tensor.GELUTanh:
		vecGLUGELUTanh(y, g, up)
	case tensor.ReLU:
		vecGLUReLU(y, g, up)
	default:
		panic(fmt.Sprintf("cpu: activation %d is unknown", act))
	}
}

func gateGradient(act tensor.Activation, dg, dup, dy, g, up []float32) {
	switch act {
	case tensor.SiLU:
		vecGLUSiLUGrad(dg, dup, dy, g, up)
	case tensor.GELU:
		vecGLUGELUGrad(dg, dup, dy, g, up)
	case tensor.GELUTanh:
		vecGLUGELUTanhGrad(dg, dup, dy, g, up)
	case tensor.ReLU:
		vecGLUReLUGrad(dg, dup, dy, g, up)
	default:
		panic(fmt.Sprintf("cpu: activation %d is unknown", act))
	}
}
