package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// amaxArgs mirrors AMaxArgs of kernels/fp8.cu.
type amaxArgs struct {
	x, all, perRow, perColumn uintptr
	stride                    uint64
	rows, cols, span          uint32
}

func (d *Device) amax(a tensor.AMax) {
	rows, cols := a.X.Rows(), a.X.Cols()
	for _, to := range []tensor.Tensor{a.All, a.Rows, a.Columns} {
		wantWide("AMax", to)
	}
	if rows == 0 || cols == 0 {
		return
	}
	const least = 16 // rows of a block
	span := max(least, (ceilDiv(rows, 65535)+3)&^3)
	args := amaxArgs{x: a.X.Addr, all: a.All.Addr, perRow: a.Rows.Addr, perColumn: a.Columns.Addr, stride: uint64(a.X.Stride),
		rows: uint32(rows), cols: uint32(cols), span: uint32(span)}
	kernel, n := "fp8.amax_"+suffix(a.X.Dtype), 1
	if eights(cols, a.X) {
		kernel, n = kernel+"_x8", 8
	}
	launch(d, kernel, grid{X: ceilDiv(cols, 256*n), Y: ceilDiv(rows, span), Threads: 256}, &args)
}

// quantizeArgs mirrors QuantizeArgs of kernels/fp8.cu.
type quantizeArgs struct {
	x, q, qt, amax, amaxT, scale, scaleT, next uintptr
	xStride, qStride, qtStride                 uint64
	rows, cols, qCols, qtCols                  uint32
	amaxStep, amaxTStep                        uint32
}

func (d *Device) quantize(a tensor.Quantize) {
	rows, cols := a.X.Rows(), a.X.Cols()
	format := a.Q.Dtype
	if a.Q.IsZero() {
		format = a.QT.Dtype
	}
	for _, t := range []tensor.Tensor{a.AMax, a.AMaxT, a.Scale, a.ScaleT, a.Next} {
		wantWide("Quantize", t)
	}
	separate := !a.QT.IsZero() && !a.AMaxT.IsZero()
	switch {
	case !format.IsF8(), !a.Q.IsZero() && !a.QT.IsZero() && a.Q.Dtype != a.QT.Dtype,
		!a.Q.IsZero() && (a.Q.Rows() != rows || a.Q.Cols() < cols), !a.QT.IsZero() && (a.QT.Rows() != cols || a.QT.Cols() < rows):
		panic(fmt.Sprintf("cuda: Quantize of %v to Q %v and QT %v", a.X, a.Q, a.QT))
	case a.AMax.Len() != 1 && a.AMax.Len() != rows, a.AMax.Len() != 1 && !a.QT.IsZero() && !separate, separate && a.AMaxT.Len() != 1 && a.AMaxT.Len() != cols,
		!a.Scale.IsZero() && a.Scale.Len() != a.AMax.Len(), separate && !a.ScaleT.IsZero() && a.ScaleT.Len() != a.AMaxT.Len():
		panic(fmt.Sprintf("cuda: Quantize of %v with AMax %v, Scale %v, AMaxT %v and ScaleT %v", a.X, a.AMax, a.Scale, a.AMaxT, a.ScaleT))
	}
	args := quantizeArgs{x: a.X.Addr, q: a.Q.Addr, qt: a.QT.Addr, amax: a.AMax.Addr, scale: a.Scale.Addr, next: a.Next.Addr,
		xStride: uint64(a.X.Stride), qStride: uint64(a.Q.Stride), qtStride: uint64(a.QT.Stride), rows: uint32(rows), cols: uint32(cols),
		amaxStep: uint32(flag(a.AMax.Len() != 1))}
	if separate {
		args.amaxT, args.scaleT, args.amaxTStep = a.AMaxT.Addr, a.ScaleT.Addr, uint32(flag(a.AMaxT.Len() != 1))
	}
	down, right := rows, cols // what the tiles cover
	vector := eights(cols, a.X)
	for _, t := range []tensor.Tensor{a.Q, a.QT} {
		if !t.IsZero() {
			vector = vector && aligned16(t)
		}
	}
	if !a.Q.IsZero() {
		args.qCols, right = uint32(a.Q.Cols()), a.Q.Cols()
	}
	if !a.QT.IsZero() {
		args.qtCols, down = uint32(a.QT.Cols()), max(rows, a.QT.Cols())
	}
	kernel := "fp8.quantize_" + suffix(a.X.Dtype) + "_" + suffixF8(format)
	if vector {
		kernel += "_x16"
	}
	const tile = 128
	launch(d, kernel, grid{X: max(ceilDiv(right, tile), 1), Y: max(ceilDiv(down, tile), 1), Threads: 256}, &args)
}

func suffixF8(d tensor.Dtype) string {
	if d == tensor.F8E5M2 {
		return "e5m2"
	}
	return "e4m3"
}

func wantWide(op string, t tensor.Tensor) {
	if !t.IsZero() && (t.Dtype != tensor.F32 || t.Rank() != 1) {
		panic(fmt.Sprintf("cuda: %s with %v, want F32 of one dimension", op, t))
	}
}
