package cuda

import (
	"fmt"

	"ringtail/tensor"
)

func (d *Device) activate(y, x tensor.Tensor, act tensor.Activation) {
	d.mapElements("elementwise.activate_"+suffix(x.Dtype), y, x, tensor.Tensor{}, elementwiseArgs{Act: uint32(act)})
}

func (d *Device) activateBackward(dx, dy, x tensor.Tensor, act tensor.Activation) {
	d.mapElements("elementwise.activate_backward_"+suffix(x.Dtype), dx, dy, x, elementwiseArgs{Act: uint32(act)})
}

func (d *Device) softCap(y, x tensor.Tensor, limit float32) {
	checkLimit("SoftCap", limit)
	d.mapElements("elementwise.soft_cap_"+suffix(x.Dtype), y, x, tensor.Tensor{}, elementwiseArgs{F: limit})
}

func (d *Device) softCapBackward(dx, dy, y tensor.Tensor, limit float32) {
	checkLimit("SoftCapBackward", limit)
	d.mapElements("elementwise.soft_cap_backward_"+suffix(y.Dtype), dx, dy, y, elementwiseArgs{F: limit})
}

func checkLimit(op string, limit float32) {
	if !(limit > 0) {
		panic(fmt.Sprintf("cuda: %s with a limit of %g; it must be above 0", op, limit))
	}
}

func (d *Device) glu(y, x tensor.Tensor, act tensor.Activation) {
	d.gated("elementwise.glu_", y.Rows(), y.Cols(), y, x, tensor.Tensor{}, act)
}

func (d *Device) gluBackward(dx, dy, x tensor.Tensor, act tensor.Activation) {
	d.gated("elementwise.glu_backward_", dy.Rows(), dy.Cols(), dx, x, dy, act)
}

// gated launches a GLU of [rows, n].
func (d *Device) gated(kernel string, rows, n int, y, x, dy tensor.Tensor, act tensor.Activation) {
	if x.Rows() != rows || x.Cols() != 2*n {
		panic(fmt.Sprintf("cuda: a GLU of [%d %d] from %v", rows, n, x))
	}
	kernel += suffix(x.Dtype)
	units := n
	if eights(n, y, x, dy) {
		kernel, units = kernel+"_x8", n/8
	}
	elements(d, kernel, elementwiseArgs{Y: y.Addr, A: x.Addr, B: dy.Addr, Rows: uint64(rows), Units: uint64(units),
		YS: uint64(y.Stride), AS: uint64(x.Stride), BS: uint64(dy.Stride), Act: uint32(act)})
}
