package cpu

import (
	"fmt"

	"ringtail/tensor"
)

type ropeJob struct {
	x, cos, sin rows
	positions   []int32
	heads, dim  int
	half, grain int
	sign        float32
}

var ropeJobs freeList[ropeJob]

// rope rotates the pairs (x[i], x[i+half]) of each head by the angles of the
// token's position.
func rope(a tensor.RoPE) {
	tokens, half := a.Positions.Len(), a.Cos.Cols()
	j := ropeJobs.take()
	j.positions = intsOf("RoPE's Positions", a.Positions, tokens)
	j.cos = rowsOf("RoPE's Cos", a.Cos, a.Cos.Rows(), half)
	j.sin = rowsOf("RoPE's Sin", a.Sin, a.Cos.Rows(), half)
	j.heads, j.dim, j.half, j.sign = a.Heads, a.HeadDim, half, 1
	if a.Inverse {
		j.sign = -1
	}
	cols, stride := a.X.Cols(), a.X.Stride
	if a.X.Rank() != 2 && tokens > 0 {
		// A token's heads may be dimensions of their own.
		if !a.X.Dense() || a.X.Len()%tokens != 0 {
			panic(fmt.Sprintf("cpu: RoPE of %v for %d tokens", a.X, tokens))
		}
		cols = a.X.Len() / tokens
		stride = cols
	}
	if a.X.Dtype != tensor.F32 || a.X.Len() != tokens*cols || tokens > 0 && a.Heads*a.HeadDim > cols || 2*half > a.HeadDim {
		panic(fmt.Sprintf("cpu: RoPE of %d heads of %d columns with %d angles in %v for %d tokens", a.Heads, a.HeadDim, half, a.X, tokens))
	}
	j.x = rows{a.X.Float32(), stride}
	for _, p := range j.positions {
		checkIndex("RoPE: position", p, a.Cos.Rows())
	}
	if half > 0 && a.Heads > 0 {
		j.grain = max(1, lightGrain/(a.Heads*a.HeadDim))
		parallel(tasksOf(tokens, j.grain), j)
	}
	*j = ropeJob{}
	ropeJobs.give(j)
}

func (j *ropeJob) run(_ *workspace, task int) {
	for t := task * j.grain; t < min((task+1)*j.grain, len(j.positions)); t++ {
		p := int(j.positions[t])
		cos, sin := j.cos.row(p, j.half), j.sin.row(p, j.half)
		x := j.x.row(t, j.heads*j.dim)
		for h := range j.heads {
			head := x[h*j.dim:][:j.dim]
			vecRotate(head[:j.half], head[j.half:], cos, sin, j.sign)
		}
	}
}
