package cpu

import "unsafe"

var gemmNEON = &gemmKernels{
	mr: 6, nr: 16, ku: 4, kcMax: 256, ncMax: 256,
	rows: rowTilesNEON, cols: colTilesNEON,
	dots:      dotsNEON,
	packRows:  packRowsNEON,
	copyRows:  copyRowsNEON,
	transpose: transposePanelNEON,
}

func gemmLevel(l simd) *gemmKernels {
	if l == simdNEON {
		return gemmNEON
	}
	return gemmGeneric
}

func packRowsNEON(k, rows int, src unsafe.Pointer, ld int, dst unsafe.Pointer) {
	packLines(4, packLinesNEON, k, rows, src, ld, dst)
}

func transposePanelNEON(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int) {
	transposeBlocks(4, transposeNEON, k, n, src, ld, dst, ldd)
}
