package cpu

import (
	"math/bits"

	"ringtail/tensor"
)

// Sums: of the rows of a matrix (the gradient of a bias) and of the squares of
// all elements (for the norm of the gradients).

// sumBlock is how many rows are added up one after the other; sums of blocks are
// added pairwise, so that rounding errors grow with the logarithm of their number.
// The gradient of the keys' bias is 0 in exact arithmetic, since a softmax ignores
// what all scores share: what is left of it after a sum is its rounding errors
// alone, and AdamW divides by them.
const sumBlock = 8

// sumStrip is the number of columns of a task of SumRows.
const sumStrip = 256

type sumRowsJob struct {
	y       []float32
	x       rows
	n, cols int
}

var sumRowsJobs freeList[sumRowsJob]

// sumRows adds the sum of the rows of x to y.
func sumRows(y, x tensor.Tensor) {
	n, cols := x.Rows(), x.Cols()
	j := sumRowsJobs.take()
	j.y, j.x, j.n, j.cols = vectorOf("SumRows' y", y, cols), rowsOf("SumRows' x", x, n, cols), n, cols
	if n > 0 {
		parallel(tasksOf(cols, sumStrip), j)
	}
	*j = sumRowsJob{}
	sumRowsJobs.give(j)
}

func (j *sumRowsJob) run(ws *workspace, task int) {
	from := task * sumStrip
	n := min(sumStrip, j.cols-from)
	blocks := tasksOf(j.n, sumBlock)
	// stack holds sums of 2^level blocks, level falling, as the ones of a binary count.
	stack := ws.scratch(0, (bits.Len(uint(blocks))+1)*n)
	at := func(i int) []float32 { return stack[i*n:][:n] }
	depth := 0
	for b := range blocks {
		sum := at(depth)
		clear(sum)
		for k := b * sumBlock; k < min((b+1)*sumBlock, j.n); k++ {
			vecAdd(sum, sum, j.x.data[k*j.x.stride+from:])
		}
		depth++
		for c := b + 1; c&1 == 0; c >>= 1 {
			depth--
			vecAdd(at(depth-1), at(depth-1), at(depth))
		}
	}
	y := j.y[from:][:n]
	for ; depth > 1; depth-- {
		vecAdd(at(depth-2), at(depth-2), at(depth-1))
	}
	vecAdd(y, y, at(0))
}

// squareParts is the greatest number of tasks of SumSquares. What a task sums
// depends on the number of elements alone.
const squareParts = 256

// squareRun bounds what one call of the kernel sums: assembly cannot be
// interrupted by the garbage collector.
const squareRun = 64 << 10

type sumSquaresJob struct {
	x       rows
	n, cols int
	grain   int
	part    [squareParts]float64
}

var sumSquaresJobs freeList[sumSquaresJob]

// sumSquares adds Σ x² to out[0], in float64 throughout.
func sumSquares(out, x tensor.Tensor) {
	o, n := doublesOf("SumSquares' out", out, 1), x.Len()
	j := sumSquaresJobs.take()
	j.x = rowsOf("SumSquares' x", x, x.Rows(), x.Cols())
	j.n, j.cols = n, flat(n, x.Cols(), x.Dense())
	j.grain = max(tasksOf(n, squareParts), lightGrain)
	tasks := tasksOf(n, j.grain)
	parallel(tasks, j)
	sum := 0.0
	for _, v := range j.part[:tasks] {
		sum += v
	}
	o[0] += sum
	j.x = rows{}
	sumSquaresJobs.give(j)
}

func (j *sumSquaresJob) run(_ *workspace, task int) {
	sum := 0.0
	i, end := task*j.grain, min((task+1)*j.grain, j.n)
	for i < end {
		row, col := i/j.cols, i%j.cols
		n := min(j.cols-col, end-i, squareRun)
		sum += vecSumSquares(j.x.data[row*j.x.stride+col:][:n])
		i += n
	}
	j.part[task] = sum
}
