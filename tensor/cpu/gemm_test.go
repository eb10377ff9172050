package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// useLevel exchanges the matrix product's kernels for the length of a test.
func useLevel(t testing.TB, l simd) {
	old := gemmActive
	gemmActive = gemmLevel(l)
	t.Cleanup(func() { gemmActive = old })
}

// forEachLevel runs f with the kernels of every level that can run here.
func forEachLevel(t *testing.T, f func(t *testing.T)) {
	for _, l := range availableSIMD() {
		t.Run(l.String(), func(t *testing.T) {
			useLevel(t, l)
			f(t)
		})
	}
}

// gemmCase is one product; padX are columns between the rows of X.
type gemmCase struct {
	transA, transB, accumulate, bias bool
	m, n, k                          int
	padA, padB, padC                 int
}

func (g gemmCase) String() string {
	return fmt.Sprintf("m=%d n=%d k=%d transA=%v transB=%v accumulate=%v bias=%v pads=%d,%d,%d",
		g.m, g.n, g.k, g.transA, g.transB, g.accumulate, g.bias, g.padA, g.padB, g.padC)
}

// gemmData are the operands of a case.
type gemmData struct {
	gemmCase
	a, b, c, biasRow []float32
	lda, ldb, ldc    int
}

func span(rows, cols, ld int) int {
	if rows == 0 || cols == 0 {
		return 0
	}
	return (rows-1)*ld + cols
}

// data makes random operands in memory from alloc.
func (g gemmCase) data(r *rand.Rand, alloc func(n int) []float32) *gemmData {
	d := &gemmData{gemmCase: g}
	ar, ac, br, bc := g.m, g.k, g.k, g.n
	if g.transA {
		ar, ac = ac, ar
	}
	if g.transB {
		br, bc = bc, br
	}
	d.lda, d.ldb, d.ldc = ac+g.padA, bc+g.padB, g.n+g.padC
	d.a, d.b, d.c = alloc(span(ar, ac, d.lda)), alloc(span(br, bc, d.ldb)), alloc(span(g.m, g.n, d.ldc))
	for _, s := range [][]float32{d.a, d.b, d.c} {
		for i := range s {
			s[i] = float32(r.NormFloat64())
		}
	}
	if !g.accumulate {
		for i := range g.m { // must not be read
			for j := range g.n {
				d.c[i*d.ldc+j] = float32(math.NaN())
			}
		}
	}
	if g.bias {
		d.biasRow = alloc(g.n)
		for i := range d.biasRow {
			d.biasRow[i] = float32(r.NormFloat64())
		}
	}
	return d
}

func addr(s []float32) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

func (d *gemmData) run(ws *workspace) {
	if ws == nil {
		sgemm(d.transA, d.transB, d.m, d.n, d.k, addr(d.a), d.lda, addr(d.b), d.ldb, addr(d.c), d.ldc, d.accumulate, addr(d.biasRow))
	} else {
		sgemmSerial(ws, d.transA, d.transB, d.m, d.n, d.k, addr(d.a), d.lda, addr(d.b), d.ldb, addr(d.c), d.ldc, d.accumulate, addr(d.biasRow))
	}
}

// check runs the product, compares it with float64 and looks at the gaps
// between the rows of C.
func (d *gemmData) check(t *testing.T, ws *workspace) {
	t.Helper()
	old := append([]float32(nil), d.c...)
	d.run(ws)
	for i := range d.m {
		for j := range d.n {
			sum, size := d.element(old, i, j)
			got := float64(d.c[i*d.ldc+j])
			// size bounds what rounding can do; a wrong term is far more than this.
			if !(math.Abs(got-sum) <= 1e-6*size+1e-30) {
				t.Fatalf("%v: C[%d,%d] = %v, want %v", d.gemmCase, i, j, got, sum)
			}
		}
		if i+1 < d.m && d.n > 0 {
			for j := d.n; j < d.ldc; j++ {
				if d.c[i*d.ldc+j] != old[i*d.ldc+j] {
					t.Fatalf("%v: wrote between the rows at [%d,%d]", d.gemmCase, i, j)
				}
			}
		}
	}
}

// element is C[i,j] in float64 and the sum of the sizes of its terms. It runs
// when the product is done, and is most of the work of these tests.
//
//go:norace
func (d *gemmData) element(old []float32, i, j int) (sum, size float64) {
	if d.accumulate {
		sum = float64(old[i*d.ldc+j])
		size = math.Abs(sum)
	}
	if d.bias {
		sum += float64(d.biasRow[j])
		size += math.Abs(float64(d.biasRow[j]))
	}
	ai, aStep, bi, bStep := i*d.lda, 1, j, d.ldb
	if d.transA {
		ai, aStep = i, d.lda
	}
	if d.transB {
		bi, bStep = j*d.ldb, 1
	}
	for p := range d.k {
		x := float64(d.a[ai+p*aStep]) * float64(d.b[bi+p*bStep])
		sum += x
		size += math.Abs(x)
	}
	return sum, size
}

func heap(n int) []float32 { return make([]float32, n) }

func randomCase(r *rand.Rand, limit int) gemmCase {
	g := gemmCase{
		transA: r.IntN(2) == 0, transB: r.IntN(2) == 0, accumulate: r.IntN(2) == 0, bias: r.IntN(2) == 0,
		m: r.IntN(limit + 1), n: r.IntN(limit + 1), k: r.IntN(limit + 1),
	}
	if r.IntN(2) == 0 {
		g.padA, g.padB, g.padC = r.IntN(5), r.IntN(5), r.IntN(5)
	}
	return g
}

// edgeCases cross the borders of blocks, tasks and paths.
func edgeCases() []gemmCase {
	kcMax, ncMax := gemmActive.kcMax, gemmActive.ncMax
	var cases []gemmCase
	for trans := range 4 {
		for _, s := range [][3]int{
			{130, 100, kcMax + 1}, {25, ncMax + 33, 40}, {200, 2*ncMax + 5, 17}, {64, 64, 2*kcMax + 5},
			{1, 300, 500}, {300, 1, 500}, {1, 1, 1000}, {16, 130, 260}, {17, 130, 260}, {64, 4, 100}, {64, 5, 100}, {4, 700, 33}, {257, 65, 1},
		} {
			cases = append(cases, gemmCase{transA: trans&1 != 0, transB: trans&2 != 0, m: s[0], n: s[1], k: s[2],
				bias: s[0]%2 == 0, accumulate: s[1]%2 == 0, padA: 3, padB: trans, padC: 1})
		}
	}
	return cases
}

func TestGemmAgainstFloat64(t *testing.T) {
	forEachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		ws := &workspace{}
		for i := range 600 {
			randomCase(r, 70).data(r, heap).check(t, []*workspace{nil, ws}[i%2])
		}
		for _, g := range edgeCases() {
			g.data(r, heap).check(t, nil)
			g.data(r, heap).check(t, ws)
		}
	})
}

// Every height of tile, every width, both ends of the k loop.
func TestGemmTiles(t *testing.T) {
	forEachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		ws := &workspace{}
		for trans := range 4 {
			for m := 1; m <= gemmActive.mr+1; m++ {
				for n := 1; n <= gemmActive.nr+1; n += 1 + n%3 {
					for _, k := range []int{1, 15, 16, 33} {
						gemmCase{transA: trans&1 != 0, transB: trans&2 != 0, m: m, n: n, k: k, bias: m%2 == 0, accumulate: n%2 == 0}.data(r, heap).check(t, ws)
					}
				}
			}
		}
	})
}

// bits of C must not depend on the number of threads, nor on serial or parallel.
func TestGemmThreadsBitwise(t *testing.T) {
	forEachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		cases := edgeCases()
		for range 20 {
			cases = append(cases, randomCase(r, 200))
		}
		for _, g := range cases {
			d := g.data(r, heap)
			start := append([]float32(nil), d.c...)
			var want []float32
			for _, threads := range []int{1, 2, 3, 5} {
				SetThreads(threads)
				copy(d.c, start)
				d.run(nil)
				want = sameBits(t, g, want, d.c)
			}
			SetThreads(2)
			copy(d.c, start)
			d.run(&workspace{})
			sameBits(t, g, want, d.c)
		}
	})
}

func sameBits(t *testing.T, g gemmCase, want, got []float32) []float32 {
	t.Helper()
	if want == nil {
		return append([]float32(nil), got...)
	}
	for i := range want {
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			t.Fatalf("%v at %d: %v and %v", g, i, want[i], got[i])
		}
	}
	return want
}

// Within one path a row must not depend on how many others there are.
func TestGemmRowsIndependent(t *testing.T) {
	forEachLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, g := range []gemmCase{
			{m: dotRows, n: 77, k: 333, transB: true},
			{m: 200, n: 77, k: 1000, transB: true}, {m: 150, n: 77, k: 500}, {m: 150, n: 40, k: 100, transA: true, transB: true},
		} {
			least := 1
			if g.transB && !g.transA && g.m > dotRows {
				least = dotRows + 1
			}
			d := g.data(r, heap)
			d.run(nil)
			want := append([]float32(nil), d.c...)
			for m := least; m < g.m; m += 1 + m/3 {
				e := *d
				e.m = m
				e.run(nil)
				sameBits(t, e.gemmCase, want[:m*d.ldc], e.c[:m*d.ldc])
			}
		}
	})
}

func TestGemmDoesNotAllocate(t *testing.T) {
	forEachLevel(t, func(t *testing.T) {
		setThreads(t, 2)
		r := rand.New(rand.NewPCG(9, 10))
		ws := &workspace{}
		for _, g := range []gemmCase{
			{m: 100, n: 120, k: 90}, {m: 100, n: 120, k: 90, transB: true}, {m: 100, n: 120, k: 90, transA: true},
			{m: 3, n: 200, k: 300, transB: true, bias: true}, {m: 20, n: 20, k: 20},
		} {
			d := g.data(r, heap)
			for _, w := range []*workspace{nil, ws} {
				for range 5 {
					d.run(w) // both workers have taken tasks
				}
				if n := testing.AllocsPerRun(10, func() { d.run(w) }); n != 0 {
					t.Errorf("%v: %v allocations, want 0", g, n)
				}
			}
		}
	})
}

func TestGemmInfinities(t *testing.T) {
	forEachLevel(t, func(t *testing.T) {
		// Row 1 of A is infinite: the other rows must stay finite, whatever lies
		// beside them in the packed memory.
		const m, n, k = 50, 37, 20
		r := rand.New(rand.NewPCG(11, 12))
		d := gemmCase{m: m, n: n, k: k, transB: true}.data(r, heap)
		for p := range k {
			d.a[d.lda+p] = float32(math.Inf(1))
		}
		d.run(nil)
		for i := range m {
			for j := range n {
				x := float64(d.c[i*d.ldc+j])
				if finite := !math.IsNaN(x) && !math.IsInf(x, 0); finite != (i != 1) {
					t.Fatalf("C[%d,%d] = %v", i, j, x)
				}
			}
		}
	})
}

func FuzzGemm(f *testing.F) {
	f.Add(uint64(1), uint16(12), uint16(32), uint16(16), uint8(0), uint8(0))
	f.Add(uint64(2), uint16(13), uint16(33), uint16(17), uint8(2), uint8(7))
	f.Add(uint64(3), uint16(5), uint16(100), uint16(400), uint8(14), uint8(255))
	f.Fuzz(func(t *testing.T, seed uint64, m, n, k uint16, flags, pads uint8) {
		g := gemmCase{
			m: int(m % 150), n: int(n % 500), k: int(k % 500),
			transA: flags&1 != 0, transB: flags&2 != 0, accumulate: flags&4 != 0, bias: flags&8 != 0,
			padA: int(pads & 3), padB: int(pads >> 2 & 3), padC: int(pads >> 4 & 3),
		}
		levels := availableSIMD()
		old := gemmActive
		defer func() { gemmActive = old }()
		gemmActive = gemmLevel(levels[int(flags>>4)%len(levels)])
		g.data(rand.New(rand.NewPCG(seed, 0)), heap).check(t, nil)
	})
}

// benchGemm reports GFLOP/s of one shape.
func benchGemm(b *testing.B, g gemmCase) {
	d := g.data(rand.New(rand.NewPCG(1, 1)), alignedFloats)
	d.run(nil)
	for b.Loop() {
		d.run(nil)
	}
	b.ReportMetric(2*float64(g.m)*float64(g.n)*float64(g.k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
}

func BenchmarkGemm(b *testing.B) {
	shapes := []gemmCase{}
	for _, n := range []int{512, 1024, 2048} {
		shapes = append(shapes, gemmCase{m: n, n: n, k: n}, gemmCase{m: n, n: n, k: n, transB: true}, gemmCase{m: n, n: n, k: n, transA: true})
	}
	shapes = append(shapes,
		gemmCase{m: 2048, n: 288, k: 768, transB: true},
		gemmCase{m: 2048, n: 864, k: 288, transB: true},
		gemmCase{m: 2048, n: 32000, k: 288, transB: true},
		gemmCase{m: 2048, n: 288, k: 32000},
		gemmCase{m: 32000, n: 288, k: 2048, transA: true},
	)
	for _, g := range shapes {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%dx%dx%d/%s/threads=%d", g.m, g.n, g.k, g.layout(), threads), func(b *testing.B) {
				setThreads(b, threads)
				benchGemm(b, g)
			})
		}
	}
}

func (g gemmCase) layout() string {
	return map[bool]string{false: "N", true: "T"}[g.transA] + map[bool]string{false: "N", true: "T"}[g.transB]
}

func BenchmarkGemmSkinny(b *testing.B) {
	for _, m := range []int{1, 4, 16, 17, 32} {
		for _, n := range []int{768, 4096} {
			b.Run(fmt.Sprintf("%dx%dx%d", m, n, n), func(b *testing.B) {
				benchGemm(b, gemmCase{m: m, n: n, k: n, transB: true})
			})
		}
	}
}

func BenchmarkGemmSerial(b *testing.B) {
	for _, g := range []gemmCase{
		{m: 64, n: 256, k: 48, transB: true}, {m: 64, n: 48, k: 256}, {m: 256, n: 48, k: 64, transA: true}, {m: 64, n: 64, k: 48, transB: true},
	} {
		g.padA, g.padB = 800, 800
		b.Run(fmt.Sprintf("%dx%dx%d/%s", g.m, g.n, g.k, g.layout()), func(b *testing.B) {
			d := g.data(rand.New(rand.NewPCG(1, 1)), alignedFloats)
			ws := &workspace{}
			for b.Loop() {
				d.run(ws)
			}
			b.ReportMetric(2*float64(g.m)*float64(g.n)*float64(g.k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
		})
	}
}
