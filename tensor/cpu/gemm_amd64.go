package cpu

import "unsafe"

var gemmAVX2 = &gemmKernels{
	mr: 6, nr: 16, ku: 8, kcMax: 256, ncMax: 192,
	rows: rowTilesAVX2, cols: colTilesAVX2,
	dots:      dotsAVX2,
	packRows:  packRowsAVX2,
	copyRows:  copyRowsAVX2,
	transpose: transposePanelAVX2,
}

var gemmAVX512 = &gemmKernels{
	mr: 12, nr: 32, ku: 16, kcMax: 512, ncMax: 384,
	rows: rowTilesAVX512, cols: colTilesAVX512,
	masked:    true,
	dots:      dotsAVX512,
	packRows:  packRowsAVX512,
	copyRows:  copyRowsAVX512,
	transpose: transposePanelAVX512,
}

func gemmLevel(l simd) *gemmKernels {
	switch l {
	case simdAVX512:
		return gemmAVX512
	case simdAVX2:
		return gemmAVX2
	}
	return gemmGeneric
}

func packRowsAVX2(k, rows int, src unsafe.Pointer, ld int, dst unsafe.Pointer) {
	packLines(8, packLinesAVX2, k, rows, src, ld, dst)
}

func packRowsAVX512(k, rows int, src unsafe.Pointer, ld int, dst unsafe.Pointer) {
	packLines(16, packLinesAVX512, k, rows, src, ld, dst)
}

func transposePanelAVX2(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int) {
	transposeBlocks(8, transposeAVX2, k, n, src, ld, dst, ldd)
}

func transposePanelAVX512(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int) {
	transposeBlocks(16, transposeAVX512, k, n, src, ld, dst, ldd)
}
