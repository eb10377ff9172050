package ref

import (
	"fmt"

	"ringtail/tensor"
)

// rope turns each pair (x[i], x[i+half]) of each head by the angle whose cosine
// and sine stand in column i of row positions[t]:
//
//	x[i]      = x[i]·c − x[i+half]·s
//	x[i+half] = x[i+half]·c + x[i]·s
//
// Inverse turns by the opposite angle, s → −s, which is also the transpose of
// the rotation and so its backward pass.
func rope(a tensor.RoPE) {
	tokens := a.Positions.Len()
	positions := intsOf("RoPE's Positions", a.Positions, tokens)
	half := a.Cos.Cols()
	cos := matrixOf("RoPE's Cos", a.Cos, a.Cos.Rows(), half)
	sin := matrixOf("RoPE's Sin", a.Sin, a.Cos.Rows(), half)
	if a.X.Rank() != 2 {
		// A token's heads may be dimensions of their own.
		cols := 0
		if tokens > 0 {
			cols = a.X.Len() / tokens
		}
		a.X = a.X.Reshape(tokens, cols)
	}
	x := matrixOf("RoPE's X", a.X, tokens, a.X.Cols())
	if tokens > 0 && a.Heads*a.HeadDim > x.cols || 2*half > a.HeadDim {
		panic(fmt.Sprintf("ref: RoPE of %d heads of %d columns with %d angles in %v", a.Heads, a.HeadDim, half, a.X))
	}
	for t := range tokens {
		p := index("position", positions[t], cos.rows)
		for h := range a.Heads {
			head := x.row(t)[h*a.HeadDim:][:a.HeadDim]
			for i := range half {
				c, s := cos.row(p)[i], sin.row(p)[i]
				if a.Inverse {
					s = -s
				}
				u, v := head[i], head[i+half]
				head[i] = u*c - v*s
				head[i+half] = v*c + u*s
			}
		}
	}
}
