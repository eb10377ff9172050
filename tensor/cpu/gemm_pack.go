package cpu

import "unsafe"

// Packing copies parts of A and B into the order in which micro-kernels read
// them. Rows of A and rows of B are copied as they are; rows of transposed B are
// transposed with vector shuffles. Columns beyond the matrix are left as they are
// in the packed memory: what a kernel makes of them goes nowhere.

// sliver is up to mr rows of A, packed or as they lie, with the kernel for it.
type sliver struct {
	tile   tileFunc
	a      unsafe.Pointer
	as, ak int
}

// sliver returns rows rows of A from row i on, for block [p0, p1) of k, as they
// lie or packed into the worker's memory.
func (p *product) sliver(ws *workspace, direct bool, i, rows, p0, p1 int) sliver {
	switch {
	case !direct:
		dst := unsafe.Pointer(&ws.a.grow(p.mr * p.kcMax)[0])
		p.packSliver(dst, i, rows, p0, p1)
		return p.packedSliver(dst, rows)
	case p.transA:
		return sliver{p.cols[rows], unsafe.Add(p.a, 4*(p0*p.lda+i)), 4, 4 * p.lda}
	default:
		return sliver{p.rows[rows], unsafe.Add(p.a, 4*(i*p.lda+p0)), 4 * p.lda, 4 * p.ku}
	}
}

// packedSliver is a packed sliver of rows rows at a.
func (p *product) packedSliver(a unsafe.Pointer, rows int) sliver {
	if p.transA {
		return sliver{p.cols[rows], a, 4, 4 * rows}
	}
	return sliver{p.rows[rows], a, 4 * p.ku, 4 * p.ku * rows}
}

// packSliver packs rows rows of op(A) from row i on, for block [p0, p1) of k.
func (p *product) packSliver(dst unsafe.Pointer, i, rows, p0, p1 int) {
	if p.transA {
		p.copyRows(p1-p0, rows, unsafe.Add(p.a, 4*(p0*p.lda+i)), 4*p.lda, dst, 4*rows)
	} else {
		p.packRows(p1-p0, rows, unsafe.Add(p.a, 4*(i*p.lda+p0)), 4*p.lda, dst)
	}
}

// packLinesAtOnce is the number of rows of B that are packed across all panels before
// the next ones, where there are many panels.
const packLinesAtOnce = 8

// packB packs columns [j0, j1) of block [p0, p1) of op(B) into the worker's
// memory: panels [p1-p0][nr].
func (p *product) packB(ws *workspace, j0, j1, p0, p1 int) unsafe.Pointer {
	kc, nr := p1-p0, p.nr
	b := unsafe.Pointer(&ws.b.grow(p.kcMax * roundUp(p.ncMax, nr))[0])
	if p.transB {
		for j := j0; j < j1; j += nr {
			p.transpose(kc, min(nr, j1-j), unsafe.Add(p.b, 4*(j*p.ldb+p0)), 4*p.ldb, unsafe.Add(b, 4*(j-j0)*kc), 4*nr)
		}
		return b
	}
	// A few rows at a time, so that what is read lies together.
	step := kc
	if j1-j0 > 4*nr {
		step = packLinesAtOnce
	}
	for i := 0; i < kc; i += step {
		rows := min(step, kc-i)
		for j := j0; j < j1; j += nr {
			p.copyRows(rows, min(nr, j1-j), unsafe.Add(p.b, 4*((p0+i)*p.ldb+j)), 4*p.ldb, unsafe.Add(b, 4*((j-j0)*kc+i*nr)), 4*nr)
		}
	}
	return b
}

// packLines packs rows rows of A as [k/ku][rows][ku], a vector of ku elements
// at a time. What is left of k ends the sliver, its gaps undefined.
func packLines(ku int, lines func(lines int, src, dst unsafe.Pointer, ldd int), k, rows int, src unsafe.Pointer, ld int, dst unsafe.Pointer) {
	whole := k / ku
	for i := range rows {
		s, d := unsafe.Add(src, i*ld), unsafe.Add(dst, 4*i*ku)
		if whole > 0 {
			lines(whole, s, d, 4*rows*ku)
		}
		if rest := k % ku; rest > 0 {
			copy(unsafe.Slice(at(d, 4*whole*rows*ku), rest), unsafe.Slice(at(s, 4*whole*ku), rest))
		}
	}
}

// transposeBlocks writes n rows of k elements as k rows of n elements: whole
// blocks of size×size by block, what is left one by one.
func transposeBlocks(size int, block func(blocks int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int), k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int) {
	kb, nb := k/size*size, n/size*size
	if kb > 0 {
		for j := 0; j < nb; j += size {
			block(kb/size, unsafe.Add(src, j*ld), ld, unsafe.Add(dst, 4*j), ldd)
		}
	}
	if kb < k && nb > 0 {
		transposeGeneric(k-kb, nb, unsafe.Add(src, 4*kb), ld, unsafe.Add(dst, kb*ldd), ldd)
	}
	if nb < n {
		transposeGeneric(k, n-nb, unsafe.Add(src, nb*ld), ld, unsafe.Add(dst, 4*nb), ldd)
	}
}
