package cpu

import (
	"fmt"
	"unsafe"

	"ringtail/tensor"
)

// Products of groups of rows with matrices of their own: the experts of a mixture.
// Groups differ in size without bound and most may be empty, so threads are not
// given groups but tasks of about equal work, a block of rows and columns of one
// group's result, that call the kernels of gemm.go. A single row, as in generation,
// takes the dot path and streams the matrices of the experts in use, no others.
//
// Each group's product sums as sgemm's of its shape does, so that an element hangs
// on its row, its column and the number of rows in its group alone, never on the
// threads or on the other groups; a group large enough to be cut well by sgemm is
// left to it.

// aloneRows is the number of rows from which a group is a product of its own.
const aloneRows = 1024

// groupTask is rows [i0, i1) and columns [j0, j1) of a group's result, or, on the dot
// path, rows [j0, j1) of the longer operand.
type groupTask struct{ group, i0, i1, j0, j1 int }

type groupedJob struct {
	groups []product
	tasks  []groupTask
	work   int  // multiplications of all groups
	serial bool // all of it as one task
}

var groupedJobs freeList[groupedJob]

func groupedMatmul(a tensor.GroupedMatmul) {
	if a.B.Rank() != 3 {
		panic(fmt.Sprintf("cpu: GroupedMatmul's B is %v; it must have three dimensions", a.B))
	}
	count, n, k := a.B.Shape[0], a.C.Cols(), a.A.Cols()
	height, width := k, n
	if a.TransB {
		height, width = n, k
	}
	if a.B.Shape[1] != height {
		panic(fmt.Sprintf("cpu: GroupedMatmul's B is %v; it must be F32[%d %d %d]", a.B, count, height, width))
	}
	total := a.A.Rows()
	c, x := rowsOf("GroupedMatmul's C", a.C, total, n), rowsOf("GroupedMatmul's A", a.A, total, k)
	b := rowsOf("GroupedMatmul's B", a.B, count*height, width)
	starts := groupStarts("GroupedMatmul's Starts", a.Starts, count, total)
	j := groupedJobs.take()
	for e := range count {
		from, m := int(starts[e]), int(starts[e+1]-starts[e])
		if m > 0 {
			j.add(product{gemmActive, false, a.TransB, m, n, k, rowAddress(x, from), x.stride, rowAddress(b, e*height), b.stride,
				rowAddress(c, from), c.stride, a.Accumulate, nil}, m)
		}
	}
	j.multiply()
}

func groupedOuter(a tensor.GroupedOuter) {
	if a.C.Rank() != 3 {
		panic(fmt.Sprintf("cpu: GroupedOuter's C is %v; it must have three dimensions", a.C))
	}
	count, m, n := a.C.Shape[0], a.A.Cols(), a.B.Cols()
	if a.C.Shape[1] != m {
		panic(fmt.Sprintf("cpu: GroupedOuter's C is %v; it must be F32[%d %d %d]", a.C, count, m, n))
	}
	total := a.A.Rows()
	c := rowsOf("GroupedOuter's C", a.C, count*m, n)
	x, y := rowsOf("GroupedOuter's A", a.A, total, m), rowsOf("GroupedOuter's B", a.B, total, n)
	starts := groupStarts("GroupedOuter's Starts", a.Starts, count, total)
	j := groupedJobs.take()
	for e := range count {
		from, k := int(starts[e]), int(starts[e+1]-starts[e])
		if k > 0 {
			j.add(product{gemmActive, true, false, m, n, k, rowAddress(x, from), x.stride, rowAddress(y, from), y.stride,
				rowAddress(c, e*m), c.stride, true, nil}, k)
		}
	}
	j.multiply()
}

// rowAddress is the address of row i, nil in a matrix without elements.
func rowAddress(r rows, i int) unsafe.Pointer {
	if len(r.data) == 0 {
		return nil
	}
	return r.at(i)
}

// groupStarts checks that the starts of groups rise from 0 to total.
func groupStarts(what string, t tensor.Tensor, groups, total int) []int32 {
	starts := intsOf(what, t, groups+1)
	if starts[0] != 0 || int(starts[groups]) != total {
		panic(fmt.Sprintf("cpu: %s go from %d to %d; they must go from 0 to the number of rows, %d", what, starts[0], starts[groups], total))
	}
	for e := range groups {
		if starts[e] > starts[e+1] {
			panic(fmt.Sprintf("cpu: %s[%d] is %d, after %d; they must not fall", what, e+1, starts[e+1], starts[e]))
		}
	}
	return starts
}

// add takes in one group's product of a number of rows.
func (j *groupedJob) add(p product, rows int) {
	if rows >= aloneRows {
		sgemm(p.transA, p.transB, p.m, p.n, p.k, p.a, p.lda, p.b, p.ldb, p.c, p.ldc, p.accumulate, nil)
		return
	}
	if p.normalize() {
		j.groups = append(j.groups, p)
		j.work += p.m * p.n * p.k
	}
}

// multiply cuts the groups into tasks, runs them and gives the job back.
func (j *groupedJob) multiply() {
	share := j.work/(4*Threads()) + 1
	for g := range j.groups {
		j.cut(g, share)
	}
	if j.serial = j.work < serialWork; j.serial {
		parallel(min(len(j.tasks), 1), j)
	} else {
		parallel(len(j.tasks), j)
	}
	clear(j.groups) // keep no pointer to memory that may be unmapped
	j.groups, j.tasks, j.work = j.groups[:0], j.tasks[:0], 0
	groupedJobs.give(j)
}

// cut makes tasks of about share multiplications, or less where memory has it so.
// The cut decides nothing but who computes what.
func (j *groupedJob) cut(g, share int) {
	p := &j.groups[g]
	if p.skinny() {
		// A multiple of every kernel's number of rows of w.
		length := p.dotLength()
		step := roundUp(max(min(dotTaskBytes/(4*p.k), share/(p.m*p.n/length*p.k)), 1), 12)
		for at := 0; at < length; at += step {
			j.tasks = append(j.tasks, groupTask{g, 0, 0, at, min(at+step, length)})
		}
		return
	}
	// A task packs its columns of B, and its rows of A anew: few and tall tasks pack
	// least. Rows are cut where columns alone give too large tasks.
	cols := evenPart(p.n, max(min(share/(p.m*p.k), p.ncMax), 4*p.nr), p.nr)
	tall := p.m
	if p.m*cols*p.k > 2*share {
		tall = evenPart(p.m, max(share/(cols*p.k), 8*p.mr), p.mr)
	}
	for j0 := 0; j0 < p.n; j0 += cols {
		for i0 := 0; i0 < p.m; i0 += tall {
			j.tasks = append(j.tasks, groupTask{g, i0, min(i0+tall, p.m), j0, min(j0+cols, p.n)})
		}
	}
}

// evenPart is the size, a multiple of unit, of equal parts of n that are at most
// about `most` long.
func evenPart(n, most, unit int) int {
	units, each := (n+unit-1)/unit, max(most/unit, 1)
	parts := (units + each - 1) / each
	return (units + parts - 1) / parts * unit
}

func (j *groupedJob) run(ws *workspace, task int) {
	if j.serial {
		for t := range j.tasks {
			j.task(ws, &j.tasks[t])
		}
		return
	}
	j.task(ws, &j.tasks[task])
}

func (j *groupedJob) task(ws *workspace, t *groupTask) {
	p := &j.groups[t.group]
	if p.skinny() {
		p.dotBlock(t.j0, t.j1)
		return
	}
	kc := p.blockK()
	for p0 := 0; p0 < p.k; p0 += kc {
		p.block(ws, nil, t.i0, t.i1, t.j0, t.j1, p0, min(p0+kc, p.k))
	}
}
