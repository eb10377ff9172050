package cuda

import "ringtail/tensor"

// Products of groups of rows, each with a matrix of its own. Only the device knows the
// groups' sizes: the launch has room for a partial tile in every group, and blocks find their
// group in Starts.

func (d *Device) groupedMatmul(a tensor.GroupedMatmul) {
	rows, cols, groups := a.C.Rows(), a.C.Cols(), a.B.Shape[0]
	if rows == 0 || cols == 0 || groups == 0 {
		return
	}
	d.product(a.C, a.A, a.B, false, a.TransB, productArgs{kind: productGrouped, m: int32(rows), n: int32(cols), k: int32(a.A.Cols()),
		groups: int32(groups), starts: a.Starts.Addr, bPage: uint64(a.B.Shape[1] * a.B.Stride), accumulate: flag(a.Accumulate)})
}

func (d *Device) groupedOuter(a tensor.GroupedOuter) {
	groups, rows, cols := a.C.Shape[0], a.C.Shape[1], a.C.Shape[2]
	if a.A.Rows() == 0 || rows == 0 || cols == 0 || groups == 0 {
		return
	}
	d.product(a.C, a.A, a.B, true, false, productArgs{kind: productOuter, m: int32(rows), n: int32(cols),
		groups: int32(groups), starts: a.Starts.Addr, cPage: uint64(rows * a.C.Stride), accumulate: 1})
}
