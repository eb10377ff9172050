package cuda

import (
	"fmt"
	"slices"

	"ringtail/tensor"
)

// elementwiseArgs is ElementwiseArgs of kernels/elementwise.cu.
type elementwiseArgs struct {
	Y, A, B     uintptr
	Rows, Units uint64
	YS, AS, BS  uint64
	F           float32
	LogWidth    uint32
	Act         uint32
	_           uint32
}

// elements launches a kernel of one plane of operands: y, a and b (either may be absent)
// in rows of units of n elements.
func elements(d *Device, kernel string, args elementwiseArgs) {
	if args.Rows == 0 || args.Units == 0 {
		return
	}
	g, logWidth := plane(int(args.Rows), int(args.Units), 2)
	args.LogWidth = logWidth
	launch(d, kernel, g, &args)
}

// plane is the grid of 256 threads a block that covers rows × units, each thread having
// perThread units of a row at a time: blocks of 256/w rows of w threads.
func plane(rows, units, perThread int) (g grid, logWidth uint32) {
	width := 1
	for width < 256 && width*perThread < units {
		width *= 2
		logWidth++
	}
	return grid{X: ceilDiv(units, width*perThread), Y: min(ceilDiv(rows, 256/width), 65535), Threads: 256}, logWidth
}

// flat is a plane of rows × cols elements as one row, where all tensors are dense.
func flat(rows, cols int, ts ...tensor.Tensor) (int, int) {
	for _, t := range ts {
		if !t.IsZero() && !t.Dense() {
			return rows, cols
		}
	}
	return 1, rows * cols
}

// eights tells whether rows of cols elements can be read and written 8 at a time, by
// 16-byte accesses. Absent tensors are of no account.
func eights(cols int, ts ...tensor.Tensor) bool {
	if cols%8 != 0 {
		return false
	}
	for _, t := range ts {
		if t.IsZero() {
			continue
		}
		size := t.Dtype.Size()
		if t.Addr%16 != 0 || t.Rows() > 1 && t.Stride*size%16 != 0 {
			return false
		}
	}
	return true
}

// mapElements runs y = f(a, b) (b may be absent), all of one shape, by kernel's form for 8
// elements where it can, and for the rest by the one for single elements.
func (d *Device) mapElements(kernel string, y, a, b tensor.Tensor, args elementwiseArgs) {
	for _, t := range []tensor.Tensor{a, b} {
		if !t.IsZero() && !slices.Equal(t.Shape, y.Shape) {
			panic(fmt.Sprintf("cuda: %s of %v and %v", kernel, y, t))
		}
	}
	rows, cols := flat(y.Rows(), y.Cols(), y, a, b)
	args.Y, args.A, args.B = y.Addr, a.Addr, b.Addr
	args.Rows, args.YS, args.AS, args.BS = uint64(rows), uint64(y.Stride), uint64(a.Stride), uint64(b.Stride)
	main := 0
	if eights(0, y, a, b) && (rows == 1 || cols%8 == 0) {
		main = cols &^ 7
		args.Units = uint64(main / 8)
		elements(d, kernel+"_x8", args)
	}
	if main == cols {
		return
	}
	args.Units = uint64(cols - main)
	args.Y += uintptr(main * y.Dtype.Size())
	args.A += uintptr(main * a.Dtype.Size())
	if !b.IsZero() {
		args.B += uintptr(main * b.Dtype.Size())
	}
	elements(d, kernel, args)
}

// bytes runs zero or copy (a absent or of y's type) over memory, in the widest units that fit.
func (d *Device) bytes(kernel string, y, a tensor.Tensor) {
	rows, cols := flat(y.Rows(), y.Cols(), y, a)
	size := y.Dtype.Size()
	args := elementwiseArgs{Y: y.Addr, A: a.Addr, Rows: uint64(rows)}
	part := func(from, to, unit int) { // bytes of each row
		p := args
		p.Y += uintptr(from)
		if !a.IsZero() {
			p.A += uintptr(from)
		}
		p.Units, p.YS, p.AS = uint64((to-from)/unit), uint64(y.Stride*size/unit), uint64(a.Stride*size/unit)
		elements(d, fmt.Sprintf("elementwise.%s_%d", kernel, unit), p)
	}
	main := 0
	if eights(0, y, a) && (rows == 1 || cols*size%16 == 0) {
		main = cols * size &^ 15
		part(0, main, 16)
	}
	part(main, cols*size, size)
}

func (d *Device) zero(x tensor.Tensor) { d.bytes("zero", x, tensor.Tensor{}) }

func (d *Device) copyTensor(dst, src tensor.Tensor) {
	if !slices.Equal(dst.Shape, src.Shape) {
		panic(fmt.Sprintf("cuda: Copy of %v and %v", dst, src))
	}
	if dst.Dtype == src.Dtype {
		d.bytes("copy", dst, src)
		return
	}
	kernel := "elementwise.copy_" + suffix(src.Dtype) + "_" + suffix(dst.Dtype)
	if dst.Dtype != tensor.F64 && src.Dtype != tensor.F64 {
		d.mapElements(kernel, dst, src, tensor.Tensor{}, elementwiseArgs{})
		return
	}
	rows, cols := flat(dst.Rows(), dst.Cols(), dst, src)
	elements(d, kernel, elementwiseArgs{Y: dst.Addr, A: src.Addr, Rows: uint64(rows), Units: uint64(cols), YS: uint64(dst.Stride), AS: uint64(src.Stride)})
}

// add's operands are all of one type, or y and one operand F32 and the other BF16.
func (d *Device) add(y, a, b tensor.Tensor) {
	if a.Dtype != y.Dtype {
		a, b = b, a
	}
	kernel := "elementwise.add_" + suffix(y.Dtype)
	if b.Dtype != y.Dtype {
		kernel += "_" + suffix(b.Dtype)
	}
	d.mapElements(kernel, y, a, b, elementwiseArgs{})
}

func (d *Device) scale(x tensor.Tensor, f float32) {
	d.mapElements("elementwise.scale_"+suffix(x.Dtype), x, x, tensor.Tensor{}, elementwiseArgs{F: f})
}

// sumRowsArgs is SumRowsArgs of kernels/elementwise.cu.
type sumRowsArgs struct {
	X, Partial uintptr
	Stride     uint64
	Rows, Cols uint32
	Share      uint32
	_          uint32
}

// sumRows sums shares of the rows, then adds up the shares' sums: enough blocks for all
// multiprocessors, and an order that depends on the shape alone.
func (d *Device) sumRows(y, x tensor.Tensor) {
	rows, cols := x.Rows(), x.Cols()
	if rows == 0 || cols == 0 {
		return
	}
	kernel, n := "elementwise.sum_rows_"+suffix(x.Dtype), 1
	if eights(cols, x) {
		kernel, n = kernel+"_x8", 8
	}
	strips := ceilDiv(cols, 32*n)
	share := max(ceilDiv(rows, ceilDiv(6*d.multiprocessors(), strips)), 32)
	share = max(share, ceilDiv(rows, 65535))
	shares := ceilDiv(rows, share)
	partial := d.workspace(shares * cols * 4)
	launch(d, kernel, grid{X: strips, Y: shares, Threads: 256}, &sumRowsArgs{X: x.Addr, Partial: partial,
		Stride: uint64(x.Stride), Rows: uint32(rows), Cols: uint32(cols), Share: uint32(share)})
	d.addRowPartials(y, partial, shares, cols)
}

// rowPartialsArgs is RowPartialsArgs of kernels/elementwise.cu.
type rowPartialsArgs struct {
	Partial, Y uintptr
	Stride     uint64
	Rows, Cols uint32
}

// addRowPartials adds to y the sum of rows of float32, stride apart; nothing where y is absent.
func (d *Device) addRowPartials(y tensor.Tensor, partial uintptr, rows, stride int) {
	if y.IsZero() {
		return
	}
	launch(d, "elementwise.add_row_partials_"+suffix(y.Dtype), grid{X: ceilDiv(y.Len(), 32), Threads: 512},
		&rowPartialsArgs{Partial: partial, Y: y.Addr, Stride: uint64(stride), Rows: uint32(rows), Cols: uint32(y.Len())})
}
