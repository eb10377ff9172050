package main

import "fmt"

// neonTile emits a tile of rows×16 for NEON: accumulators V0 … V23, four a row;
// V24 … V29 hold A, V30 and V31 half a row of B at a time. A is multiplied in by
// element (FMLA by element, which Go's assembler lacks), so no broadcasts are needed.
type neonTile struct {
	*asmFile
	rows int
	cols bool
}

func (x *neonTile) acc(i, j int) int { return 4*i + j }

// aRow is the pointer to row i of A.
func aRow(i int) string { return fmt.Sprintf("R%d", 19+i) }

// fmla emits d += n·m[lane] on four lanes.
func (f *asmFile) fmla(d, n, m, lane int) {
	f.word(0x4f801000|uint32(lane&1)<<21|uint32(m)<<16|uint32(lane>>1)<<11|uint32(n)<<5|uint32(d), "FMLA V%d.S4, V%d.S4, V%d.S[%d]", d, n, m, lane)
}

// fadd emits d = n + m on four lanes.
func (f *asmFile) fadd(d, n, m int) {
	f.word(0x4e20d400|uint32(m)<<16|uint32(n)<<5|uint32(d), "FADD V%d.S4, V%d.S4, V%d.S4", d, n, m)
}

// faddp emits the sums of adjacent lanes of n, then of m.
func (f *asmFile) faddp(d, n, m int) {
	f.word(0x6e20d400|uint32(m)<<16|uint32(n)<<5|uint32(d), "FADDP V%d.S4, V%d.S4, V%d.S4", d, n, m)
}

// step multiplies a column of A, element i being lane(i) of register reg(i), with a row of B.
func (x *neonTile) step(reg, lane func(i int) int) {
	for half := range 2 {
		if half == 0 {
			x.p("VLD1.P 32(R4), [V30.S4, V31.S4]")
		} else {
			x.p("VLD1 (R4), [V30.S4, V31.S4]")
			x.p("ADD R5, R4")
		}
		for i := range x.rows {
			for j := range 2 {
				x.fmla(x.acc(i, 2*half+j), 30+j, reg(i), lane(i))
			}
		}
	}
}

func (x *neonTile) emit(name string) {
	x.text(name, tileSignature, tileArgs)
	x.p("MOVD k+0(FP), R0")
	x.p("MOVD a+8(FP), R19")
	x.p("MOVD as+16(FP), R2")
	x.p("MOVD ak+24(FP), R3")
	x.p("MOVD b+32(FP), R4")
	x.p("MOVD ldb+40(FP), R5")
	x.p("SUB $32, R5")
	x.p("MOVD c+48(FP), R6")
	x.p("MOVD ldc+56(FP), R7")
	x.p("MOVD bias+64(FP), R8")
	x.p("MOVD accumulate+80(FP), R10")
	if !x.cols {
		for i := 1; i < x.rows; i++ {
			x.p("ADD R2, %s, %s", aRow(i-1), aRow(i))
		}
	}
	x.p("CBZ R8, zero")
	x.p("VLD1 (R8), [V0.S4, V1.S4, V2.S4, V3.S4]")
	for i := 1; i < x.rows; i++ {
		for j := range 4 {
			x.p("VMOV V%d.B16, V%d.B16", j, x.acc(i, j))
		}
	}
	x.p("B begin")
	x.label("zero")
	for i := range 4 * x.rows {
		x.p("VEOR V%[1]d.B16, V%[1]d.B16, V%[1]d.B16", i)
	}
	x.label("begin")
	if x.cols {
		x.colLoop()
	} else {
		x.rowLoop()
	}
	for i := range x.rows {
		skip := fmt.Sprintf("store%d", i)
		x.p("CBZ R10, %s", skip)
		x.p("VLD1 (R6), [V24.S4, V25.S4, V26.S4, V27.S4]")
		for j := range 4 {
			x.fadd(x.acc(i, j), x.acc(i, j), 24+j)
		}
		x.label(skip)
		a := x.acc(i, 0)
		x.p("VST1 [V%d.S4, V%d.S4, V%d.S4, V%d.S4], (R6)", a, a+1, a+2, a+3)
		x.p("ADD R7, R6")
	}
	x.p("RET")
}

// rowLoop takes four steps of k at a time: a vector of each row of A.
func (x *neonTile) rowLoop() {
	a := func(i int) int { return 24 + i }
	x.p("SUBS $4, R0")
	x.p("BLT rest")
	x.label("loop")
	for i := range x.rows {
		x.p("VLD1 (%s), [V%d.S4]", aRow(i), a(i))
		x.p("ADD R3, %s", aRow(i))
	}
	for s := range 4 {
		x.step(a, func(int) int { return s })
	}
	x.p("SUBS $4, R0")
	x.p("BGE loop")
	x.label("rest")
	x.p("ADDS $4, R0")
	x.p("BEQ done")
	x.label("one")
	for i := range x.rows {
		x.p("FMOVS (%s), F%d", aRow(i), a(i))
		x.p("ADD $4, %s", aRow(i))
	}
	x.step(a, func(int) int { return 0 })
	x.p("SUBS $1, R0")
	x.p("BNE one")
	x.label("done")
}

// colLoop takes one step at a time; the column's elements lie together.
func (x *neonTile) colLoop() {
	x.label("loop")
	// In runs of 4, 2 and 1: never more than there are.
	var reg, lane []int
	for i, r := 0, 24; i < x.rows; r++ {
		n := 4
		for n > x.rows-i {
			n /= 2
		}
		switch n {
		case 4:
			x.p("FMOVQ %d(R19), F%d", 4*i, r)
		case 2:
			x.p("FMOVD %d(R19), F%d", 4*i, r)
		case 1:
			x.p("FMOVS %d(R19), F%d", 4*i, r)
		}
		for l := range n {
			reg, lane = append(reg, r), append(lane, l)
		}
		i += n
	}
	x.p("ADD R3, R19")
	x.step(func(i int) int { return reg[i] }, func(i int) int { return lane[i] })
	x.p("SUBS $1, R0")
	x.p("BNE loop")
}

// neonDot is what x86Dot is: two accumulators a product, the rest of k one by one in lane 0.
func neonDot(f *asmFile, name string, nx, nw int) {
	acc := func(i, j, half int) int { return (i*nw+j)*2 + half }
	total := 2 * nx * nw
	f.text(name, dotSignature, dotArgs)
	f.p("MOVD k+0(FP), R0")
	f.p("MOVD x+8(FP), R1")
	f.p("MOVD xs+16(FP), R2")
	f.p("MOVD w+24(FP), R19")
	f.p("MOVD ws+32(FP), R3")
	f.p("MOVD out+40(FP), R6")
	f.p("MOVD ox+48(FP), R7")
	f.p("MOVD ow+56(FP), R8")
	f.p("MOVD accumulate+64(FP), R10")
	rx := []string{"R1", "R11", "R12", "R13"}
	rw := []string{"R19", "R20", "R21"}
	for i := 1; i < nx; i++ {
		f.p("ADD R2, %s, %s", rx[i-1], rx[i])
	}
	for j := 1; j < nw; j++ {
		f.p("ADD R3, %s, %s", rw[j-1], rw[j])
	}
	for i := range total {
		f.p("VEOR V%[1]d.B16, V%[1]d.B16, V%[1]d.B16", i)
	}
	w0, x0 := total, total+nw
	f.p("SUBS $8, R0")
	f.p("BLT rest")
	f.label("loop")
	for half := range 2 {
		for j := range nw {
			f.p("VLD1.P 16(%s), [V%d.S4]", rw[j], w0+j)
		}
		for i := range nx {
			f.p("VLD1.P 16(%s), [V%d.S4]", rx[i], x0)
			for j := range nw {
				f.p("VFMLA V%d.S4, V%d.S4, V%d.S4", w0+j, x0, acc(i, j, half))
			}
		}
	}
	f.p("SUBS $8, R0")
	f.p("BGE loop")
	f.label("rest")
	f.p("ADDS $8, R0")
	f.p("BEQ sum")
	f.label("one")
	for j := range nw {
		f.p("FMOVS.P 4(%s), F%d", rw[j], w0+j)
	}
	for i := range nx {
		f.p("FMOVS.P 4(%s), F%d", rx[i], x0)
		for j := range nw {
			f.p("VFMLA V%d.S4, V%d.S4, V%d.S4", w0+j, x0, acc(i, j, 0))
		}
	}
	f.p("SUBS $1, R0")
	f.p("BNE one")
	f.label("sum")
	for j := range nw {
		f.p("MOVD R6, R9")
		for i := range nx {
			a := acc(i, j, 0)
			f.fadd(a, a, a+1)
			f.faddp(a, a, a)
			f.faddp(a, a, a)
			skip := fmt.Sprintf("store%dx%d", i, j)
			f.p("CBZ R10, %s", skip)
			f.p("FMOVS (R9), F%d", w0)
			f.p("FADDS F%d, F%d, F%d", w0, a, a)
			f.label(skip)
			f.p("FMOVS F%d, (R9)", a)
			f.p("ADD R7, R9")
		}
		f.p("ADD R8, R6")
	}
	f.p("RET")
}

func gemmNEON(f *asmFile) {
	const mr = 6
	for rows := 1; rows <= mr; rows++ {
		(&neonTile{f, rows, false}).emit(fmt.Sprintf("tileRowsNEONx%d", rows))
		(&neonTile{f, rows, true}).emit(fmt.Sprintf("tileColsNEONx%d", rows))
	}
	f.table("rowTilesNEON", "tileFunc", "tileRowsNEONx", mr)
	f.table("colTilesNEON", "tileFunc", "tileColsNEONx", mr)
	for nx := 1; nx <= 4; nx++ {
		for nw := 1; nw <= 3; nw++ {
			neonDot(f, fmt.Sprintf("dotNEONx%dx%d", nx, nw), nx, nw)
		}
	}
	f.dotTable("dotsNEON", "dotNEONx", 4, 3)

	f.text("packLinesNEON", "(lines int, src, dst unsafe.Pointer, ldd int)", 32)
	f.p("MOVD lines+0(FP), R0")
	f.p("MOVD src+8(FP), R1")
	f.p("MOVD dst+16(FP), R2")
	f.p("MOVD ldd+24(FP), R3")
	f.label("loop")
	f.p("VLD1.P 16(R1), [V0.S4]")
	f.p("VST1 [V0.S4], (R2)")
	f.p("ADD R3, R2")
	f.p("SUBS $1, R0")
	f.p("BNE loop")
	f.p("RET")

	// Rows of 16, of 6, or of any length.
	f.text("copyRowsNEON", copySignature, copyArgs)
	f.p("MOVD k+0(FP), R0")
	f.p("MOVD n+8(FP), R1")
	f.p("MOVD src+16(FP), R2")
	f.p("MOVD ld+24(FP), R3")
	f.p("MOVD dst+32(FP), R4")
	f.p("MOVD ldd+40(FP), R5")
	f.p("CMP $16, R1")
	f.p("BEQ sixteen")
	f.p("CMP $6, R1")
	f.p("BEQ six")
	f.label("any")
	f.p("MOVD R1, R6")
	f.p("MOVD R2, R7")
	f.p("MOVD R4, R8")
	f.label("one")
	f.p("FMOVS.P 4(R7), F0")
	f.p("FMOVS.P F0, 4(R8)")
	f.p("SUBS $1, R6")
	f.p("BNE one")
	f.p("ADD R3, R2")
	f.p("ADD R5, R4")
	f.p("SUBS $1, R0")
	f.p("BNE any")
	f.p("RET")
	f.label("sixteen")
	f.p("VLD1 (R2), [V0.S4, V1.S4, V2.S4, V3.S4]")
	f.p("VST1 [V0.S4, V1.S4, V2.S4, V3.S4], (R4)")
	f.p("ADD R3, R2")
	f.p("ADD R5, R4")
	f.p("SUBS $1, R0")
	f.p("BNE sixteen")
	f.p("RET")
	f.label("six")
	f.p("FMOVQ (R2), F0")
	f.p("FMOVD 16(R2), F1")
	f.p("FMOVQ F0, (R4)")
	f.p("FMOVD F1, 16(R4)")
	f.p("ADD R3, R2")
	f.p("ADD R5, R4")
	f.p("SUBS $1, R0")
	f.p("BNE six")
	f.p("RET")

	// Blocks of 4×4: 4 rows of src, ld bytes apart, to 4 rows of dst a block, ldd apart.
	f.text("transposeNEON", "(blocks int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int)", 40)
	f.p("MOVD blocks+0(FP), R0")
	f.p("MOVD src+8(FP), R1")
	f.p("MOVD ld+16(FP), R2")
	f.p("MOVD dst+24(FP), R3")
	f.p("MOVD ldd+32(FP), R4")
	f.p("ADD R2, R1, R5")
	f.p("ADD R2, R5, R6")
	f.p("ADD R2, R6, R7")
	f.label("block")
	for i, r := range []string{"R1", "R5", "R6", "R7"} {
		f.p("VLD1.P 16(%s), [V%d.S4]", r, i)
	}
	f.p("VZIP1 V2.S4, V0.S4, V4.S4")
	f.p("VZIP2 V2.S4, V0.S4, V5.S4")
	f.p("VZIP1 V3.S4, V1.S4, V6.S4")
	f.p("VZIP2 V3.S4, V1.S4, V7.S4")
	f.p("VZIP1 V6.S4, V4.S4, V0.S4")
	f.p("VZIP2 V6.S4, V4.S4, V1.S4")
	f.p("VZIP1 V7.S4, V5.S4, V2.S4")
	f.p("VZIP2 V7.S4, V5.S4, V3.S4")
	for i := range 4 {
		f.p("VST1 [V%d.S4], (R3)", i)
		f.p("ADD R4, R3")
	}
	f.p("SUBS $1, R0")
	f.p("BNE block")
	f.p("RET")
}
