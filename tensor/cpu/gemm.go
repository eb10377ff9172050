package cpu

import (
	"sync"
	"unsafe"
)

// The general matrix product in float32, C = op(A)·op(B) (+ C) (+ bias), for
// row-major matrices with strides, in all four transpositions.
//
// The blocked path follows Goto & van de Geijn, "Anatomy of High-Performance
// Matrix Multiplication" (ACM TOMS 2008). A micro-kernel keeps a tile of C of mr×nr
// elements in registers and runs along k over a packed sliver of A (mr rows) and
// a packed panel of B (nr columns). k is cut into blocks of at most kcMax, so that a
// sliver stays in the first-level cache and a worker's block of B in the second.
// A is packed once for all workers where B has many columns, else by each task;
// each task packs its own columns of B.
//
//	                n
//	            ┌──┬──┬──┐ B, packed by a task: panels of nr columns
//	          k │  │nr│  │
//	            └──┴──┴──┘
//	      k
//	   ┌──────┐ ┌──┬──┬──┐
//	 m │  mr  │ │  │▓▓│  │ C
//	   └──────┘ └──┴──┴──┘
//	 A, packed: slivers of mr rows
//
// With few rows (or few columns) of a product x·Wᵀ, as in generation, packing W
// would cost more than the product: dot kernels stream W once as it lies.
//
// Order of summation. An element of C is a function of its row of op(A), its
// column of op(B), k, and the path alone, never of the number of threads, of the
// strides, of the other rows and columns or of their number, as long as they
// leave the path the same:
//
//   - dot path (A not transposed, B transposed, m ≤ dotRows or n ≤ dotCols):
//     lane sums along k, added up at the end;
//   - blocked path: sums in the order of k within blocks of k, added in order.
//
// So generation gives a sequence the same logits in every batch of up to dotRows
// sequences, and training the same in every batch above it; between the two the
// last bits differ, as they do between SIMD levels. sgemmSerial chooses as
// sgemm does.

const (
	// dotRows and dotCols bound the dot path: above them packing pays.
	dotRows = 16
	dotCols = 4
	// packedMax bounds the floats of packed A; longer products go in several steps.
	packedMax = 2 << 20
	// serialWork is the m·n·k below which a parallel region costs more than it saves.
	serialWork = 100_000
	// lineK is the granularity of blocks of k: a cache line.
	lineK = 16
)

// A tileFunc adds A·B along k to a tile of C of as many rows as the function is
// made for and n columns. Strides are in bytes. ldb separates the rows of B.
//
// Functions for rows take A(i, p) from a + i·as + p/ku·ak + p%ku·4 (ku: see
// gemmKernels): a packed sliver [k/ku][rows][ku], or A as it lies, with ak = ku·4.
// Functions for columns take A(i, p) from a + i·4 + p·ak: a packed sliver
// [k][rows], or transposed A as it lies.
//
// The sum starts from bias [n] where present and from C's content where
// accumulate is not 0; otherwise C is only written.
type tileFunc func(k int, a unsafe.Pointer, as, ak int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, bias unsafe.Pointer, n, accumulate int)

// A dotFunc computes the products of rows of x (xs bytes apart) with rows of w
// (ws bytes apart), each of k elements, into out + i·ox + j·ow for row i of x
// and j of w, adding to what is there if accumulate is not 0.
type dotFunc func(k int, x unsafe.Pointer, xs int, w unsafe.Pointer, ws int, out unsafe.Pointer, ox, ow, accumulate int)

// gemmKernels are the kernels of one SIMD level.
type gemmKernels struct {
	mr, nr int // largest tile
	ku     int // elements along k that lie together in a packed sliver of rows
	// rows and cols are indexed by the number of rows, 1 … mr.
	rows, cols []tileFunc
	// kcMax bounds a block of k, ncMax the columns of B that a task packs at a
	// time. The block of B takes about half of the second-level cache.
	kcMax, ncMax int
	// masked: tiles take n < nr and touch nothing beyond column n of B, C and bias.
	// Otherwise n must be nr.
	masked bool
	// dots[x][w] takes x rows of x and w rows of w.
	dots [][]dotFunc

	packRows  func(k, rows int, src unsafe.Pointer, ld int, dst unsafe.Pointer)
	copyRows  func(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int)
	transpose func(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int)
}

// gemmActive are the kernels in use. Tests exchange them.
var gemmActive = gemmLevel(simdLevel)

// product is one matrix product. Its methods take strides in elements.
type product struct {
	*gemmKernels
	transA, transB bool
	m, n, k        int
	a              unsafe.Pointer
	lda            int
	b              unsafe.Pointer
	ldb            int
	c              unsafe.Pointer
	ldc            int
	accumulate     bool
	bias           unsafe.Pointer
}

// sgemm computes C = op(A)·op(B), plus C if accumulate, plus bias [n] in each
// row if not nil, on all threads. op(A) is [m, k] and op(B) [k, n]; a transposed
// operand lies as [k, m] or [n, k]. lda, ldb, ldc are the elements between the
// starts of rows. Without accumulate C's old content is never read. C must not
// overlap A, B or bias.
func sgemm(transA, transB bool, m, n, k int, a unsafe.Pointer, lda int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, accumulate bool, bias unsafe.Pointer) {
	g := takeGemm()
	g.product = product{gemmActive, transA, transB, m, n, k, a, lda, b, ldb, c, ldc, accumulate, bias}
	defer g.release()
	switch {
	case !g.normalize():
	case m*n*k < serialWork:
		g.phase = gemmSerial
		parallel(1, g)
	case g.skinny():
		g.parallelDots()
	default:
		g.parallelBlocks()
	}
}

// Gemm computes C = op(A)·op(B) of dense row-major matrices on all threads, for
// benchmarks. op(A) is [m, k], op(B) [k, n], C [m, n]; a transposed operand lies
// as [k, m] or [n, k].
func Gemm(transA, transB bool, m, n, k int, a, b, c []float32) {
	if min(m, n, k) < 0 || len(a) < m*k || len(b) < k*n || len(c) < m*n {
		panic("cpu: Gemm: a matrix is shorter than its shape")
	}
	lda, ldb := k, n
	if transA {
		lda = m
	}
	if transB {
		ldb = k
	}
	sgemm(transA, transB, m, n, k, unsafe.Pointer(unsafe.SliceData(a)), lda, unsafe.Pointer(unsafe.SliceData(b)), ldb, unsafe.Pointer(unsafe.SliceData(c)), n, false, nil)
}

// sgemmSerial is sgemm on the calling worker alone, for use inside tasks.
func sgemmSerial(ws *workspace, transA, transB bool, m, n, k int, a unsafe.Pointer, lda int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, accumulate bool, bias unsafe.Pointer) {
	p := product{gemmActive, transA, transB, m, n, k, a, lda, b, ldb, c, ldc, accumulate, bias}
	if p.normalize() {
		p.serial(ws)
	}
}

// normalize deals with empty products, telling whether anything is left to do,
// and lets a contiguous vector be the row that it also is.
func (p *product) normalize() bool {
	if p.m <= 0 || p.n <= 0 {
		return false
	}
	if p.k <= 0 {
		p.initC()
		return false
	}
	if p.transA && p.m == 1 && p.lda == 1 {
		p.transA, p.lda = false, p.k
	}
	if !p.transB && p.n == 1 && p.ldb == 1 {
		p.transB, p.ldb = true, p.k
	}
	return true
}

// initC sets C to what the sum starts from.
func (p *product) initC() {
	if p.accumulate && p.bias == nil {
		return
	}
	for i := range p.m {
		row := unsafe.Slice((*float32)(unsafe.Add(p.c, 4*i*p.ldc)), p.n)
		if !p.accumulate {
			clear(row)
		}
		if p.bias != nil {
			for j, x := range unsafe.Slice((*float32)(p.bias), p.n) {
				row[j] += x
			}
		}
	}
}

// serial computes the whole product with one worker's memory.
func (p *product) serial(ws *workspace) {
	if p.skinny() {
		p.initDots()
		p.dotBlock(0, p.dotLength())
		return
	}
	kc := p.blockK()
	for p0 := 0; p0 < p.k; p0 += kc {
		for j0 := 0; j0 < p.n; j0 += p.ncMax {
			p.block(ws, nil, 0, p.m, j0, min(j0+p.ncMax, p.n), p0, min(p0+kc, p.k))
		}
	}
}

// blockK cuts k into equal blocks of at most kcMax; it depends on k alone.
func (p *product) blockK() int {
	blocks := (p.k + p.kcMax - 1) / p.kcMax
	return roundUp((p.k+blocks-1)/blocks, lineK)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// block adds the products of the block [p0, p1) of k to rows [i0, i1) and
// columns [j0, j1) of C. packed holds the slivers of these rows and this block
// of k (packA); without it A is packed sliver by sliver, or used as it lies.
func (p *product) block(ws *workspace, packed unsafe.Pointer, i0, i1, j0, j1, p0, p1 int) {
	kc, nr := p1-p0, p.nr
	// B is used as it lies where too few tiles would profit from packing it.
	var b unsafe.Pointer
	var ldb, panel int
	if directB := !p.transB && p.m <= 2*p.mr; directB && (p.masked || (j1-j0)%nr == 0) {
		b, ldb, panel = unsafe.Add(p.b, 4*(p0*p.ldb+j0)), 4*p.ldb, 4*nr
	} else {
		b, ldb, panel = p.packB(ws, j0, j1, p0, p1), 4*nr, 4*nr*kc
	}
	accumulate, bias := 1, unsafe.Pointer(nil)
	if p0 == 0 {
		bias = p.bias
		if !p.accumulate {
			accumulate = 0
		}
	}
	directA := j1-j0 <= 2*nr
	for i := i0; i < i1; i += p.mr {
		rows := min(p.mr, i1-i)
		var s sliver
		if packed != nil {
			s = p.packedSliver(unsafe.Add(packed, 4*(i-i0)*roundUp(kc, p.ku)), rows)
		} else {
			s = p.sliver(ws, directA, i, rows, p0, p1)
		}
		for j := j0; j < j1; j += nr {
			n := min(nr, j1-j)
			bp := unsafe.Add(b, (j-j0)/nr*panel)
			c := unsafe.Add(p.c, 4*(i*p.ldc+j))
			var bj unsafe.Pointer
			if bias != nil {
				bj = unsafe.Add(bias, 4*j)
			}
			if n < nr && !p.masked {
				p.edge(ws, s, rows, kc, bp, ldb, c, bj, n, accumulate)
			} else {
				s.tile(kc, s.a, s.as, s.ak, bp, ldb, c, 4*p.ldc, bj, n, accumulate)
			}
		}
	}
}

// edge computes a tile narrower than the kernel's beside C and copies it over.
func (p *product) edge(ws *workspace, s sliver, rows, kc int, b unsafe.Pointer, ldb int, c, bias unsafe.Pointer, n, accumulate int) {
	t := ws.edge.grow((p.mr + 1) * p.nr)
	var start unsafe.Pointer
	if bias != nil {
		start = unsafe.Pointer(&t[p.mr*p.nr])
		copy(t[p.mr*p.nr:], unsafe.Slice((*float32)(bias), n))
	}
	if accumulate != 0 {
		for i := range rows {
			copy(t[i*p.nr:], unsafe.Slice((*float32)(unsafe.Add(c, 4*i*p.ldc)), n))
		}
	}
	s.tile(kc, s.a, s.as, s.ak, b, ldb, unsafe.Pointer(&t[0]), 4*p.nr, start, p.nr, accumulate)
	for i := range rows {
		copy(unsafe.Slice((*float32)(unsafe.Add(c, 4*i*p.ldc)), n), t[i*p.nr:])
	}
}

// Phases of a product on the pool.
const (
	gemmSerial = iota
	gemmPack
	gemmMultiply
	gemmDots
)

// gemmJob is a product on the pool. Jobs are kept and used again.
type gemmJob struct {
	product
	phase  int
	packed packed // slivers of A
	kc     int
	// The step in progress: rows [i0, i1), [p0, p1) of k; A packed or not.
	i0, i1, p0, p1 int
	packA          bool
	// How C is cut into tasks.
	colTasks, taskCols, taskRows int
	next                         *gemmJob
}

var gemmJobs struct {
	sync.Mutex
	free *gemmJob
}

func takeGemm() *gemmJob {
	gemmJobs.Lock()
	defer gemmJobs.Unlock()
	g := gemmJobs.free
	if g == nil {
		return &gemmJob{}
	}
	gemmJobs.free, g.next = g.next, nil
	return g
}

func (g *gemmJob) release() {
	g.product = product{} // keep no pointer to memory that may be unmapped
	gemmJobs.Lock()
	defer gemmJobs.Unlock()
	g.next, gemmJobs.free = gemmJobs.free, g
}

func (g *gemmJob) run(ws *workspace, task int) {
	switch g.phase {
	case gemmSerial:
		g.serial(ws)
	case gemmPack:
		g.packTask(task)
	case gemmMultiply:
		g.multiplyTask(ws, task)
	case gemmDots:
		g.dotBlock(task*g.taskCols, min((task+1)*g.taskCols, g.dotLength()))
	}
}

// parallelBlocks multiplies in parallel. Where A is packed in common, it goes
// over the product in steps whose part of A fits into packedMax.
func (g *gemmJob) parallelBlocks() {
	g.kc = g.blockK()
	// A sliver that few tasks use they may as well pack for themselves, and have it
	// in the first-level cache; from transposed A that is dearer.
	g.packA = g.n > 2*g.ncMax || g.transA && g.n > g.ncMax
	mStep, kStep := g.m, g.k
	if g.packA {
		mStep = min(g.m, packedMax/g.kc/g.mr*g.mr)
		kStep = max(packedMax/(mStep*g.kc), 1) * g.kc
	}
	for g.i0 = 0; g.i0 < g.m; g.i0 = g.i1 {
		g.i1 = min(g.i0+mStep, g.m)
		colTasks, rowTasks := g.split(g.i1 - g.i0)
		for g.p0 = 0; g.p0 < g.k; g.p0 = g.p1 {
			g.p1 = min(g.p0+kStep, g.k)
			if g.packA {
				g.packed.grow((g.i1 - g.i0) * roundUp(g.p1-g.p0, lineK))
				g.phase = gemmPack
				parallel((g.i1-g.i0+packTaskRows*g.mr-1)/(packTaskRows*g.mr), g)
			}
			g.phase = gemmMultiply
			parallel(colTasks*rowTasks, g)
		}
	}
}

// split cuts rows rows of C into tasks. The cut decides nothing but who
// computes what. A task packs its columns of B, and without packA its rows of A
// as well: then tasks are few and tall. Otherwise they are cut by columns, and
// by rows too where the columns alone cannot be shared evenly.
func (g *gemmJob) split(rows int) (colTasks, rowTasks int) {
	threads := Threads()
	panels := (g.n + g.nr - 1) / g.nr
	colTasks, rowTasks = (g.n+g.ncMax-1)/g.ncMax, 1
	switch {
	case threads == 1:
	case !g.packA:
		rowTasks = max(rows/256/threads*threads, (threads+colTasks-1)/colTasks)
	default:
		colTasks = max(colTasks, min(4*threads, g.n/128))
		if even := panels%colTasks == 0 && colTasks%threads == 0; !even && colTasks < 8*threads {
			rowTasks = (8*threads + colTasks - 1) / colTasks
		}
	}
	rowTasks = max(1, min(rowTasks, rows/(4*g.mr)))
	g.taskCols = (panels + colTasks - 1) / colTasks * g.nr
	g.taskRows = roundUp((rows+rowTasks-1)/rowTasks, g.mr)
	g.colTasks = (g.n + g.taskCols - 1) / g.taskCols
	return g.colTasks, (rows + g.taskRows - 1) / g.taskRows
}

// packTaskRows is the number of slivers that one task packs.
const packTaskRows = 4

func (g *gemmJob) packTask(task int) {
	lo := g.i0 + task*packTaskRows*g.mr
	for i := lo; i < min(lo+packTaskRows*g.mr, g.i1); i += g.mr {
		for p := g.p0; p < g.p1; p += g.kc {
			p1 := min(p+g.kc, g.p1)
			g.packSliver(g.packedBlock(p, p1, i), i, min(g.mr, g.i1-i), p, p1)
		}
	}
}

// packedBlock is where the sliver that starts at row i lies for block [p, p1) of k.
func (g *gemmJob) packedBlock(p, p1, i int) unsafe.Pointer {
	return unsafe.Pointer(&g.packed.mem[(p-g.p0)*(g.i1-g.i0)+(i-g.i0)*roundUp(p1-p, g.ku)])
}

func (g *gemmJob) multiplyTask(ws *workspace, task int) {
	j0, i0 := task%g.colTasks*g.taskCols, g.i0+task/g.colTasks*g.taskRows
	j1, i1 := min(j0+g.taskCols, g.n), min(i0+g.taskRows, g.i1)
	for p := g.p0; p < g.p1; p += g.kc {
		p1 := min(p+g.kc, g.p1)
		var packed unsafe.Pointer
		if g.packA {
			packed = g.packedBlock(p, p1, i0)
		}
		g.block(ws, packed, i0, i1, j0, j1, p, p1)
	}
}
