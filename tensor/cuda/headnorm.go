package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// headNormArgs is HeadNormArgs of kernels/norm.cu.
type headNormArgs struct {
	X, WQ, WK, DY           uintptr
	Y, RStd, Partial        uintptr
	XS, YS, GS, RS          uint64
	Rows, Heads, KVHeads, D uint32
	Lanes, Values           uint32
	Eps, Offset             float32
}

// maxHeadDim is what a warp holds of a head.
const maxHeadDim = 256

func (d *Device) headNorm(a tensor.HeadNorm) {
	args := headNormArgs{X: a.X.Addr, WQ: a.WQ.Addr, WK: a.WK.Addr, Y: a.Y.Addr, RStd: a.RStd.Addr,
		XS: uint64(a.X.Stride), YS: uint64(a.Y.Stride), RS: uint64(a.RStd.Stride),
		Rows: uint32(a.X.Rows()), Heads: uint32(a.Heads), KVHeads: uint32(a.KVHeads), D: uint32(a.HeadDim), Eps: a.Eps, Offset: a.WOffset}
	if a.X.Addr != a.Y.Addr {
		args.Values = 1
	}
	form := args.form(eights(a.HeadDim, a.X, a.Y, a.WQ, a.WK))
	launch(d, "norm.head_norm_"+suffix(a.X.Dtype)+form, grid{X: args.blocks(), Threads: 256}, &args)
}

// form chooses the kernel and how many threads have a head.
func (a *headNormArgs) form(eights bool) string {
	if a.D > maxHeadDim {
		panic(fmt.Sprintf("cuda: HeadNorm of heads of %d columns; at most %d", a.D, maxHeadDim))
	}
	a.Lanes = 32
	if !eights {
		return "_x1"
	}
	a.Lanes = 1
	for a.Lanes*8 < a.D {
		a.Lanes *= 2
	}
	return "_x8"
}

// blocks is how many blocks of 256 threads have a thread for every lane of every head.
func (a *headNormArgs) blocks() int {
	heads := int(a.Rows) * int(a.Heads+a.KVHeads+a.Values*a.KVHeads)
	return ceilDiv(heads*int(a.Lanes), 256)
}

// headNormBackward goes over the heads with as many blocks as run at a time, each with sums
// of its own for DWQ and DWK.
func (d *Device) headNormBackward(a tensor.HeadNormBackward) {
	args := headNormArgs{X: a.X.Addr, WQ: a.WQ.Addr, WK: a.WK.Addr, DY: a.DY.Addr, Y: a.DX.Addr, RStd: a.RStd.Addr,
		XS: uint64(a.X.Stride), YS: uint64(a.DX.Stride), GS: uint64(a.DY.Stride), RS: uint64(a.RStd.Stride),
		Rows: uint32(a.X.Rows()), Heads: uint32(a.Heads), KVHeads: uint32(a.KVHeads), D: uint32(a.HeadDim), Offset: a.WOffset}
	if a.DX.Addr != a.DY.Addr {
		args.Values = 1
	}
	form := args.form(eights(a.HeadDim, a.X, a.DX, a.DY, a.WQ, a.WK))
	blocks := min(args.blocks(), 4*d.multiprocessors())
	if blocks == 0 {
		return
	}
	weights := !a.DWQ.IsZero() || !a.DWK.IsZero()
	if weights {
		args.Partial = d.workspace(blocks * 2 * a.HeadDim * 4)
	}
	launch(d, "norm.head_norm_backward_"+suffix(a.X.Dtype)+form, grid{X: blocks, Threads: 256}, &args)
	if weights {
		d.addRowPartials(a.DWQ, args.Partial, blocks, 2*a.HeadDim)
		d.addRowPartials(a.DWK, args.Partial+uintptr(a.HeadDim*4), blocks, 2*a.HeadDim)
	}
}
