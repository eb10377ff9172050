package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// normArgs is NormArgs of kernels/norm.cu.
type normArgs struct {
	X, Delta, W, Bias uintptr
	Sum, Y            uintptr
	Mean, RStd        uintptr
	XS, DS, SS, YS    uint64
	Rows, H           uint32
	Eps, Offset       float32
}

func (d *Device) rmsNorm(a tensor.RMSNorm) {
	d.norm("norm.rms_norm_", a.Y, a.X, a.W, tensor.Tensor{}, a.Delta, a.Sum, normArgs{RStd: a.RStd.Addr, Eps: a.Eps, Offset: a.WOffset})
}

func (d *Device) layerNorm(a tensor.LayerNorm) {
	d.norm("norm.layer_norm_", a.Y, a.X, a.W, a.Bias, a.Delta, a.Sum, normArgs{RStd: a.RStd.Addr, Mean: a.Mean.Addr, Eps: a.Eps})
}

func (d *Device) norm(kernel string, y, x, w, bias, delta, sum tensor.Tensor, args normArgs) {
	if delta.IsZero() != sum.IsZero() {
		panic("cuda: a norm takes Delta and Sum together")
	}
	rows, h := x.Rows(), x.Cols()
	form, g := normForm(rows, h, eights(h, y, x, w, bias, delta, sum))
	args.X, args.Delta, args.W, args.Bias, args.Sum, args.Y = x.Addr, delta.Addr, w.Addr, bias.Addr, sum.Addr, y.Addr
	args.XS, args.DS, args.SS, args.YS = uint64(x.Stride), uint64(delta.Stride), uint64(sum.Stride), uint64(y.Stride)
	args.Rows, args.H = uint32(rows), uint32(h)
	launch(d, kernel+suffix(x.Dtype)+form, g, &args)
}

// normForm chooses the form of a norm's kernel for rows of h elements, with a group for
// each row (see norm.cu): a warp up to 1024, else a block with as many registers a thread
// as it takes, else memory.
func normForm(rows, h int, eights bool) (form string, g grid) {
	const most = 512
	block := func(form string, perThread int) (string, grid) {
		return form, grid{X: rows, Threads: max(ceilDiv(ceilDiv(h, perThread), 32)*32, 32)}
	}
	switch {
	case eights && h <= 1024:
		return fmt.Sprintf("_w%d", max(ceilDiv(h, 256), 1)), grid{X: ceilDiv(rows, 4), Threads: 128}
	case eights && h <= most*2*8:
		return block("_b2", 2*8)
	case eights && h <= most*4*8:
		return block("_b4", 4*8)
	case h <= most*8:
		return block("_scalar", 8)
	}
	return "_long", grid{X: rows, Threads: most}
}

// normBackwardArgs is NormBackwardArgs of kernels/norm.cu.
type normBackwardArgs struct {
	DX, DY, DSum, S, W uintptr
	Mean, RStd         uintptr
	Partial            uintptr
	XS, YS, DS, SS     uint64
	Rows, H            uint32
	Offset             float32
	Accumulate         uint32
	Share, _           uint32
}

func (d *Device) rmsNormBackward(a tensor.RMSNormBackward) {
	d.normBackward("rms_norm", 1, a.DX, a.DY, a.DSum, a.S, a.W, a.DW, tensor.Tensor{}, a.Accumulate,
		normBackwardArgs{RStd: a.RStd.Addr, Offset: a.WOffset})
}

func (d *Device) layerNormBackward(a tensor.LayerNormBackward) {
	d.normBackward("layer_norm", 2, a.DX, a.DY, a.DSum, a.S, a.W, a.DW, a.DBias, a.Accumulate,
		normBackwardArgs{RStd: a.RStd.Addr, Mean: a.Mean.Addr})
}

// residentThreads is how many threads of a form of normBackward a multiprocessor has registers for: of RMSNorm in BF16,
// of LayerNorm in BF16, of both in F32. With more, some blocks would start when others have ended.
var residentThreads = map[string][3]int{
	"_w1": {1024, 1024, 768}, "_w2": {640, 640, 512}, "_w3": {512, 384, 256}, "_w4": {384, 256, 256},
	"_b2": {640, 512, 512}, "_b4": {512, 512, 512}, "_scalar": {1024, 640, 640},
}

// normBackward makes DX and, over a fixed number of blocks, the sums of DW and DBias (parts:
// 1 or 2 of them), which are then added up.
func (d *Device) normBackward(op string, parts int, dx, dy, dsum, s, w, dw, dbias tensor.Tensor, accumulate bool, args normBackwardArgs) {
	rows, h := s.Rows(), s.Cols()
	if rows == 0 || h == 0 {
		return
	}
	form, g := normForm(rows, h, eights(h, dx, dy, dsum, s, w))
	args.DX, args.DY, args.DSum, args.S, args.W = dx.Addr, dy.Addr, dsum.Addr, s.Addr, w.Addr
	args.XS, args.YS, args.DS, args.SS = uint64(dx.Stride), uint64(dy.Stride), uint64(dsum.Stride), uint64(s.Stride)
	args.Rows, args.H = uint32(rows), uint32(h)
	if accumulate {
		args.Accumulate = 1
	}
	weights := !dw.IsZero() || !dbias.IsZero()
	type_ := suffix(s.Dtype)
	class := parts - 1
	if s.Dtype == tensor.F32 {
		class = 2
	}
	blocks := 0
	if form == "_long" {
		if !dx.IsZero() {
			launch(d, "norm."+op+"_backward_"+type_+form, g, &args)
		}
		if weights {
			strips := ceilDiv(h, 256)
			share := max(ceilDiv(rows, ceilDiv(4*d.multiprocessors(), strips)), 16)
			blocks = ceilDiv(rows, share)
			args.Share, args.Partial = uint32(share), d.workspace(blocks*parts*h*4)
			launch(d, "norm."+op+"_weight_"+type_+form, grid{X: strips, Y: blocks, Threads: 256}, &args)
		}
	} else {
		g.X = min(g.X, max(residentThreads[form][class]/g.Threads, 1)*d.multiprocessors())
		blocks = g.X
		if weights {
			args.Partial = d.workspace(blocks * parts * h * 4)
		}
		launch(d, "norm."+op+"_backward_"+type_+form, g, &args)
	}
	if weights {
		d.addRowPartials(dw, args.Partial, blocks, parts*h)
		d.addRowPartials(dbias, args.Partial+uintptr(h*4), blocks, parts*h)
	}
}
