package cpu

import "unsafe"

// The dot path: products x·Wᵀ with few rows of x, or few rows of W.

// skinny tells whether the product takes the dot path.
func (p *product) skinny() bool {
	return !p.transA && p.transB && (p.m <= dotRows || p.n <= dotCols)
}

// dotLength is the number of rows of the longer operand.
func (p *product) dotLength() int {
	if p.m <= dotRows {
		return p.n
	}
	return p.m
}

// initDots sets C to what kernels add to, where that is neither C nor 0.
func (p *product) initDots() {
	if p.bias != nil {
		p.initC()
		p.accumulate = true
	}
}

// dotBlock computes the products with rows [lo, hi) of the longer operand. It is
// read once, a few rows at a time, each against all rows of the shorter one.
func (p *product) dotBlock(lo, hi int) {
	x, ldx, ox, nx, w, ldw, ow := p.a, 4*p.lda, 4*p.ldc, p.m, p.b, 4*p.ldb, 4
	if p.m > dotRows {
		x, ldx, ox, nx, w, ldw, ow = p.b, 4*p.ldb, 4, p.n, p.a, 4*p.lda, 4*p.ldc
	}
	accumulate := 0
	if p.accumulate {
		accumulate = 1
	}
	maxX := min(len(p.dots)-1, nx)
	maxW := len(p.dots[maxX]) - 1
	for j := lo; j < hi; j += maxW {
		nw := min(maxW, hi-j)
		for i := 0; i < nx; i += maxX {
			p.dots[min(maxX, nx-i)][nw](p.k, unsafe.Add(x, i*ldx), ldx, unsafe.Add(w, j*ldw), ldw, unsafe.Add(p.c, i*ox+j*ow), ox, ow, accumulate)
		}
	}
}

// dotTaskBytes is about what one task reads of the longer operand.
const dotTaskBytes = 128 << 10

func (g *gemmJob) parallelDots() {
	g.initDots()
	length := g.dotLength()
	// A multiple of every kernel's number of rows of w, at least four tasks a thread if there is enough.
	rows := max(min(dotTaskBytes/(4*g.k), length/(4*Threads())), 1)
	g.taskCols = roundUp(rows, 12)
	g.phase = gemmDots
	parallel((length+g.taskCols-1)/g.taskCols, g)
}
