package cpu

import "unsafe"

// The matrix product's kernels in plain Go, for processors without kernels of
// their own.

var gemmGeneric = &gemmKernels{
	mr: 4, nr: 8, ku: 1, kcMax: 256, ncMax: 128,
	rows:      []tileFunc{nil, tile1, tile2, tile3, tile4},
	cols:      []tileFunc{nil, tile1, tile2, tile3, tile4},
	masked:    true,
	dots:      [][]dotFunc{nil, {nil, dotGeneric}},
	packRows:  packRowsGeneric,
	copyRows:  copyRowsGeneric,
	transpose: transposeGeneric,
}

func at(p unsafe.Pointer, offset int) *float32 { return (*float32)(unsafe.Add(p, offset)) }

func tile1(k int, a unsafe.Pointer, as, ak int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, bias unsafe.Pointer, n, accumulate int) {
	for j := range n {
		s := start(bias, j)
		bp := unsafe.Add(b, 4*j)
		for p := range k {
			s += *at(a, p*ak) * *at(bp, p*ldb)
		}
		finish(at(c, 4*j), s, accumulate)
	}
}

func tile2(k int, a unsafe.Pointer, as, ak int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, bias unsafe.Pointer, n, accumulate int) {
	for i := range 2 {
		tile1(k, unsafe.Add(a, i*as), as, ak, b, ldb, unsafe.Add(c, i*ldc), ldc, bias, n, accumulate)
	}
}

func tile3(k int, a unsafe.Pointer, as, ak int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, bias unsafe.Pointer, n, accumulate int) {
	for i := range 3 {
		tile1(k, unsafe.Add(a, i*as), as, ak, b, ldb, unsafe.Add(c, i*ldc), ldc, bias, n, accumulate)
	}
}

// tile4 keeps 4×2 sums in registers.
func tile4(k int, a unsafe.Pointer, as, ak int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, bias unsafe.Pointer, n, accumulate int) {
	j := 0
	for ; j+2 <= n; j += 2 {
		s00, s01 := start(bias, j), start(bias, j+1)
		s10, s11, s20, s21, s30, s31 := s00, s01, s00, s01, s00, s01
		for p := range k {
			ap, bp := unsafe.Add(a, p*ak), (*[2]float32)(unsafe.Add(b, p*ldb+4*j))
			b0, b1 := bp[0], bp[1]
			x := *at(ap, 0)
			s00 += x * b0
			s01 += x * b1
			x = *at(ap, as)
			s10 += x * b0
			s11 += x * b1
			x = *at(ap, 2*as)
			s20 += x * b0
			s21 += x * b1
			x = *at(ap, 3*as)
			s30 += x * b0
			s31 += x * b1
		}
		for i, s := range [...][2]float32{{s00, s01}, {s10, s11}, {s20, s21}, {s30, s31}} {
			finish(at(c, i*ldc+4*j), s[0], accumulate)
			finish(at(c, i*ldc+4*j+4), s[1], accumulate)
		}
	}
	if j < n {
		if bias != nil {
			bias = unsafe.Add(bias, 4*j)
		}
		b, c = unsafe.Add(b, 4*j), unsafe.Add(c, 4*j)
		for i := range 4 {
			tile1(k, unsafe.Add(a, i*as), as, ak, b, ldb, unsafe.Add(c, i*ldc), ldc, bias, 1, accumulate)
		}
	}
}

func start(bias unsafe.Pointer, j int) float32 {
	if bias == nil {
		return 0
	}
	return *at(bias, 4*j)
}

func finish(c *float32, s float32, accumulate int) {
	if accumulate != 0 {
		s += *c
	}
	*c = s
}

// dotGeneric sums in four lanes.
func dotGeneric(k int, x unsafe.Pointer, xs int, w unsafe.Pointer, ws int, out unsafe.Pointer, ox, ow, accumulate int) {
	a, b := unsafe.Slice((*float32)(x), k), unsafe.Slice((*float32)(w), k)
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	s := (s0 + s1) + (s2 + s3)
	for i, v := range a {
		s += v * b[i]
	}
	finish((*float32)(out), s, accumulate)
}

// packRowsGeneric packs rows rows of A, ld bytes apart, as [k][rows].
func packRowsGeneric(k, rows int, src unsafe.Pointer, ld int, dst unsafe.Pointer) {
	transposeGeneric(k, rows, src, ld, dst, 4*rows)
}

// copyRowsGeneric copies k rows of n elements.
func copyRowsGeneric(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int) {
	for p := range k {
		copy(unsafe.Slice(at(dst, p*ldd), n), unsafe.Slice(at(src, p*ld), n))
	}
}

// transposeGeneric writes n rows of k elements as k rows of n elements.
func transposeGeneric(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int) {
	for j := range n {
		for p, v := range unsafe.Slice(at(src, j*ld), k) {
			*at(dst, p*ldd+4*j) = v
		}
	}
}

// alignedFloats returns n zeroed float32 that start at a multiple of 64 bytes.
func alignedFloats(n int) []float32 {
	s := make([]float32, n+15)
	skip := -int(uintptr(unsafe.Pointer(&s[0]))>>2) & 15
	return s[skip : skip+n : skip+n]
}
