package cpu

import "ringtail/tensor"

// Sums: of the rows of a matrix (the gradient of a bias) and of the squares of
// all elements (for the norm of the gradients).

// sumBlock is how many rows are added up before they join the total: with two
// levels the error grows with the square root of the rows, not with the rows.
const sumBlock = 32

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
	total, block := ws.scratch(0, n), ws.scratch(1, n)
	clear(total)
	for i := 0; i < j.n; i += sumBlock {
		clear(block)
		for k := i; k < min(i+sumBlock, j.n); k++ {
			vecAdd(block, block, j.x.data[k*j.x.stride+from:])
		}
		vecAdd(total, total, block)
	}
	y := j.y[from:][:n]
	vecAdd(y, y, total)
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
