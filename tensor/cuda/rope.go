package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// ropeArgs is RoPEArgs of kernels/rope.cu.
type ropeArgs struct {
	X, Cos, Sin, Positions uintptr
	XS, CS, SS             uint64
	Tokens, Heads, Dim     uint32
	Units                  uint32
	Direction              float32
	_                      uint32
}

func (d *Device) rope(a tensor.RoPE) {
	tokens, half := a.Positions.Len(), a.Cos.Cols()
	if tokens == 0 || half == 0 || a.Heads == 0 {
		return
	}
	if a.X.Rank() != 2 { // a token's heads may be dimensions of their own
		a.X = a.X.Reshape(tokens, a.X.Len()/tokens)
	}
	if a.Heads*a.HeadDim > a.X.Cols() || 2*half > a.HeadDim {
		panic(fmt.Sprintf("cuda: RoPE of %d heads of %d columns with %d angles in %v", a.Heads, a.HeadDim, half, a.X))
	}
	kernel, units := "rope.rope_"+suffix(a.X.Dtype), half
	if a.HeadDim%8 == 0 && eights(half, a.X, a.Cos, a.Sin) {
		kernel, units = kernel+"_x8", half/8
	}
	args := ropeArgs{X: a.X.Addr, Cos: a.Cos.Addr, Sin: a.Sin.Addr, Positions: a.Positions.Addr,
		XS: uint64(a.X.Stride), CS: uint64(a.Cos.Stride), SS: uint64(a.Sin.Stride),
		Tokens: uint32(tokens), Heads: uint32(a.Heads), Dim: uint32(a.HeadDim), Units: uint32(units), Direction: 1}
	if a.Inverse {
		args.Direction = -1
	}
	launch(d, kernel, grid{X: ceilDiv(tokens*ceilDiv(a.Heads, 4)*units, 256), Threads: 256}, &args)
}
