package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// productArgs mirrors ProductArgs of kernels/gemm.cu.
type productArgs struct {
	a, b, c, bias, starts                   uintptr
	aStride, bStride, cStride, bPage, cPage uint64
	m, n, k, groups                         int32
	kind, transA, transB, accumulate        int32
	aType, bType, cType, biasType           uint32
	cVector                                 int32
}

// What a product is of, as enum Kind of kernels/gemm.cu.
const (
	productPlain = iota
	productGrouped
	productOuter
)

// typeCode is a float type as enum Type of the kernels that take any of them.
func typeCode(d tensor.Dtype) uint32 {
	switch d {
	case tensor.F32, tensor.Invalid: // Invalid: an absent tensor
		return 0
	case tensor.BF16:
		return 1
	case tensor.F16:
		return 2
	}
	panic(fmt.Sprintf("cuda: elements of type %v where F32, BF16 or F16 are expected", d))
}

// matmulOwn is Matmul by kernels of our own, for any mix of F32, BF16 and F16, any
// strides and any alignment.
func (d *Device) matmulOwn(m tensor.Matmul) {
	rows, cols, k := m.C.Rows(), m.C.Cols(), m.A.Cols()
	if m.TransA {
		k = m.A.Rows()
	}
	if rows == 0 || cols == 0 {
		return
	}
	if min(rows, cols) <= dotsMost && max(rows, cols)*dotsMost*4 <= gemmWorkspace && k >= 64 {
		d.dots(m, rows, cols, k)
		return
	}
	d.product(m.C, m.A, m.B, m.TransA, m.TransB, productArgs{m: int32(rows), n: int32(cols), k: int32(k),
		bias: m.Bias.Addr, biasType: typeCode(m.Bias.Dtype), accumulate: flag(m.Beta != 0), kind: productPlain})
}

// product launches the kernel that suits the operands. args holds what depends on the
// kind of product; the rest is filled in here.
func (d *Device) product(c, a, b tensor.Tensor, transA, transB bool, args productArgs) {
	args.a, args.b, args.c = a.Addr, b.Addr, c.Addr
	args.aStride, args.bStride, args.cStride = uint64(a.Stride), uint64(b.Stride), uint64(c.Stride)
	args.transA, args.transB = flag(transA), flag(transB)
	args.aType, args.bType, args.cType = typeCode(a.Dtype), typeCode(b.Dtype), typeCode(c.Dtype)
	args.cVector = flag(aligned16(c))
	tile, kernel, threads, shared := 128, "", 256, 0
	switch {
	case a.Dtype != b.Dtype || !aligned16(a, b), a.Dtype != tensor.F32 && c.Dtype != tensor.F32 && c.Dtype != a.Dtype:
		tile, kernel = 64, "any"
	default:
		letter := map[bool]string{false: "n", true: "t"}
		kernel = suffix(a.Dtype) + "_" + letter[transA] + letter[transB]
		if a.Dtype != tensor.F32 {
			threads, shared = 128, 64<<10
		}
	}
	tiles := ceilDiv(int(args.m), tile)
	g := grid{Threads: threads, Shared: shared}
	switch args.kind {
	case productGrouped:
		tiles = int(args.m)/tile + int(args.groups)
	case productOuter:
		g.Z = int(args.groups)
	}
	g.X = tiles * ceilDiv(int(args.n), tile)
	launch(d, "gemm.product_"+kernel, g, &args)
}

// dotsArgs mirrors DotsArgs of kernels/gemm.cu.
type dotsArgs struct {
	large, few, c, bias, parts uintptr
	largeStride                uint64
	fewLine, fewK              uint64
	cLine, cFew                uint64
	lines, count, k            int32
	splits, span               int32
	vector                     int32
	accumulate, biasLine       int32
	fewType, cType, biasType   uint32
}

// dotsMost is the number of vectors that the dots kernels take.
const dotsMost = 8

// dots is a product with few rows or few columns: the other operand is the large one, its
// rows (or columns) are the lines. k is split so that every multiprocessor has work. The
// parts lie in cuBLASLt's scratch, since products run within operations that use the workspace.
func (d *Device) dots(m tensor.Matmul, rows, cols, k int) {
	a := dotsArgs{c: m.C.Addr, bias: m.Bias.Addr, k: int32(k), accumulate: flag(m.Beta != 0),
		cType: typeCode(m.C.Dtype), biasType: typeCode(m.Bias.Dtype)}
	large, few, byRows := m.B, m.A, m.TransB // byRows: k is adjacent in the large operand
	fewByRows := !m.TransA
	if cols <= rows { // few columns: A is the large one
		large, few, byRows, fewByRows = m.A, m.B, !m.TransA, m.TransB
		a.lines, a.count, a.cLine, a.cFew = int32(rows), int32(cols), uint64(m.C.Stride), 1
	} else {
		a.lines, a.count, a.cLine, a.cFew, a.biasLine = int32(cols), int32(rows), 1, uint64(m.C.Stride), 1
	}
	a.large, a.few, a.largeStride, a.fewType = large.Addr, few.Addr, uint64(large.Stride), typeCode(few.Dtype)
	a.fewLine, a.fewK = 1, uint64(few.Stride)
	if fewByRows {
		a.fewLine, a.fewK = uint64(few.Stride), 1
	}
	a.vector = flag(aligned16(large))

	blocks, kernel := ceilDiv(int(a.lines), 8), "gemm.dots_rows_"
	if !byRows {
		blocks, kernel = ceilDiv(int(a.lines), 32*16/large.Dtype.Size()), "gemm.dots_columns_"
	}
	partBytes := int(a.count) * int(a.lines) * 4
	splits := min(ceilDiv(4*d.multiprocessors(), blocks), ceilDiv(k, 128), gemmWorkspace/partBytes)
	a.span = int32(ceilDiv(ceilDiv(k, splits), 64) * 64)
	a.splits = int32(ceilDiv(k, int(a.span)))
	if a.parts = d.gemmSpace(); a.parts == 0 {
		return
	}
	launch(d, kernel+suffix(large.Dtype), grid{X: blocks, Y: int(a.splits), Threads: 256}, &a)
	launch(d, "gemm.dots_finish", grid{X: ceilDiv(int(a.lines), 256), Y: int(a.count), Threads: 256}, &a)
}
