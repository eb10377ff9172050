package main

import "fmt"

// x86Tile emits a tile of rows×2 vectors for AVX2 (Y registers, 16 of them) or
// AVX-512 (Z, 32). Registers: accumulators from 0 on, two a row; two vectors of
// B; the rest take turns as broadcast elements of A.
type x86Tile struct {
	*asmFile
	wide bool // AVX-512
	rows int
	cols bool // A lies along columns (transposed)
	v    string
	vb   int // bytes of a vector
	b, t int // first register of B, first of the broadcasts
	nt   int // number of broadcast registers
	ku   int // unrolled steps of k; for rows also what lies together
	// vectors a row: 2, or 1 for the left half of a narrow tile
	vectors int
}

// aBases point to rows 0, 3, 6, … of A.
var aBases = []string{"SI", "R10", "R11", "R12", "R13"}

func (x *x86Tile) acc(i, j int) string { return fmt.Sprintf("%s%d", x.v, 2*i+j) }
func (x *x86Tile) bReg(j int) string   { return fmt.Sprintf("%s%d", x.v, x.b+j) }

// aAddr addresses element (i, step) of A from where the bases stand.
func (x *x86Tile) aAddr(i, step int) string {
	if x.cols {
		return fmt.Sprintf("%d(SI)", 4*i)
	}
	return fmt.Sprintf("%d(%s)", 4*step, aBases[i/3]) + []string{"", "(AX*1)", "(AX*2)"}[i%3]
}

// step multiplies one column of A with one row of B, at step of the unrolled
// loop, and moves B on. Masked rows of B are those of the edge of the matrix.
func (x *x86Tile) step(step int, masked, prefetch bool) {
	for j := range x.vectors {
		if masked {
			x.p("VMOVUPS.Z %d(DI), K%d, %s", j*x.vb, j+1, x.bReg(j))
		} else {
			x.p("VMOVUPS %d(DI), %s", j*x.vb, x.bReg(j))
		}
	}
	if prefetch {
		// The next sliver of packed A lies behind this one, R14 ahead; it is wanted
		// in the second-level cache by the time the panels are through.
		if x.cols {
			x.p("PREFETCHT1 (SI)(R14*1)")
		} else if lines := x.rows * x.ku * 4 / 64; step < lines {
			x.p("PREFETCHT1 %d(SI)(R14*1)", 64*step)
		}
		x.p("PREFETCHT0 (DI)(R15*1)")
		if x.wide {
			x.p("PREFETCHT0 64(DI)(R15*1)")
		}
	}
	x.p("ADDQ R9, DI")
	for i := range x.rows {
		t := fmt.Sprintf("%s%d", x.v, x.t+i%x.nt)
		x.p("VBROADCASTSS %s, %s", x.aAddr(i, step), t)
		for j := range x.vectors {
			x.p("VFMADD231PS %s, %s, %s", x.bReg(j), t, x.acc(i, j))
		}
	}
	if x.cols {
		x.p("ADDQ BX, SI")
	}
}

// bases moves all pointers to rows of A on.
func (x *x86Tile) moveA(by string) {
	for i := 0; i < x.rows; i += 3 {
		x.p("ADDQ %s, %s", by, aBases[i/3])
	}
}

// loop emits the loops along k. CX is k on entry.
func (x *x86Tile) loop(name string, masked bool) {
	if masked { // narrow tiles are few: short code
		if x.cols {
			x.label(name)
			x.step(0, masked, false)
			x.p("DECQ CX")
			x.p("JNZ %s", name)
			return
		}
		// Blocks of ku steps, R8 left in the block.
		x.label(name)
		x.p("MOVQ $%d, R8", x.ku)
		x.p("CMPQ CX, R8")
		x.p("CMOVQLT CX, R8")
		x.p("SUBQ R8, CX")
		x.label(name + "step")
		x.step(0, masked, false)
		x.moveA("$4")
		x.p("DECQ R8")
		x.p("JNZ %sstep", name)
		x.moveA("BX")
		x.moveA(fmt.Sprintf("$-%d", 4*x.ku))
		x.p("TESTQ CX, CX")
		x.p("JNZ %s", name)
		return
	}
	x.p("SUBQ $%d, CX", x.ku)
	x.p("JLT %srest", name)
	x.p("PCALIGN $64")
	x.label(name)
	for s := range x.ku {
		x.step(s, masked, true)
	}
	if !x.cols {
		x.moveA("BX")
	}
	x.p("SUBQ $%d, CX", x.ku)
	x.p("JGE %s", name)
	x.label(name + "rest")
	x.p("ADDQ $%d, CX", x.ku)
	x.p("JZ %sdone", name)
	x.label(name + "one")
	x.step(0, masked, false)
	if !x.cols {
		x.moveA("$4")
	}
	x.p("DECQ CX")
	x.p("JNZ %sone", name)
	x.label(name + "done")
}

// start sets the accumulators to the bias or 0.
func (x *x86Tile) start(name string, masked bool) {
	x.p("MOVQ bias+64(FP), R8")
	x.p("TESTQ R8, R8")
	x.p("JZ %szero", name)
	for j := range x.vectors {
		if masked {
			x.p("VMOVUPS.Z %d(R8), K%d, %s", j*x.vb, j+1, x.acc(0, j))
		} else {
			x.p("VMOVUPS %d(R8), %s", j*x.vb, x.acc(0, j))
		}
	}
	for i := 1; i < x.rows; i++ {
		for j := range x.vectors {
			x.p("VMOVAPS %s, %s", x.acc(0, j), x.acc(i, j))
		}
	}
	x.p("JMP %s", name+"begin")
	x.label(name + "zero")
	for i := range x.rows {
		for j := range x.vectors {
			if x.wide {
				x.p("VPXORQ %[1]s, %[1]s, %[1]s", x.acc(i, j))
			} else {
				x.p("VXORPS %[1]s, %[1]s, %[1]s", x.acc(i, j))
			}
		}
	}
	x.label(name + "begin")
}

// finish adds C where asked and stores the tile.
func (x *x86Tile) finish(name string, masked bool) {
	x.p("MOVQ ldc+56(FP), R8")
	x.p("CMPQ accumulate+80(FP), $0")
	x.p("JE %sstore", name)
	x.p("MOVQ DX, R9")
	for i := range x.rows {
		for j := range x.vectors {
			if masked {
				x.p("VMOVUPS.Z %d(R9), K%d, %s", j*x.vb, j+1, x.bReg(j))
				x.p("VADDPS %s, %[2]s, %[2]s", x.bReg(j), x.acc(i, j))
			} else {
				x.p("VADDPS %d(R9), %[2]s, %[2]s", j*x.vb, x.acc(i, j))
			}
		}
		if i+1 < x.rows {
			x.p("ADDQ R8, R9")
		}
	}
	x.label(name + "store")
	for i := range x.rows {
		for j := range x.vectors {
			if masked {
				x.p("VMOVUPS %s, K%d, %d(DX)", x.acc(i, j), j+1, j*x.vb)
			} else {
				x.p("VMOVUPS %s, %d(DX)", x.acc(i, j), j*x.vb)
			}
		}
		if i+1 < x.rows {
			x.p("ADDQ R8, DX")
		}
	}
	x.p("VZEROUPPER")
	x.p("RET")
}

func (x *x86Tile) emit(name string) {
	x.vectors = 2
	x.text(name, tileSignature, tileArgs)
	x.p("MOVQ k+0(FP), CX")
	x.p("MOVQ a+8(FP), SI")
	x.p("MOVQ ak+24(FP), BX")
	if !x.cols {
		x.p("MOVQ as+16(FP), AX")
		x.p("LEAQ (AX)(AX*2), R8")
		for i := 3; i < x.rows; i += 3 {
			x.p("LEAQ (%s)(R8*1), %s", aBases[i/3-1], aBases[i/3])
		}
	}
	x.p("MOVQ b+32(FP), DI")
	x.p("MOVQ ldb+40(FP), R9")
	x.p("MOVQ R9, R15")
	x.p("SHLQ $4, R15")
	x.p("MOVQ c+48(FP), DX")
	if x.wide {
		x.p("CMPQ n+72(FP), $%d", x.vb/2)
		x.p("JLT edge")
	}
	x.p("MOVQ ldc+56(FP), R8")
	x.p("MOVQ DX, R14")
	for i := range x.rows { // C is needed at the end: let it come meanwhile
		x.p("PREFETCHT0 (R14)")
		x.p("PREFETCHT0 %d(R14)", 2*x.vb-1)
		if i+1 < x.rows {
			x.p("ADDQ R8, R14")
		}
	}
	x.p("MOVQ CX, R14")
	if !x.cols {
		x.p("SHRQ $%d, R14", map[int]int{8: 3, 16: 4}[x.ku])
	}
	x.p("IMULQ BX, R14")
	x.start("full", false)
	x.loop("loop", false)
	x.finish("full", false)
	if !x.wide {
		return
	}
	x.label("edge")
	// K1, K2: the low n bits.
	x.p("MOVQ CX, R8")
	x.p("MOVQ n+72(FP), CX")
	x.p("MOVQ $1, R14")
	x.p("SHLQ CX, R14")
	x.p("DECQ R14")
	x.p("KMOVW R14, K1")
	x.p("SHRQ $16, R14")
	x.p("KMOVW R14, K2")
	x.p("CMPQ CX, $16")
	x.p("MOVQ R8, CX")
	x.p("JLE narrow")
	x.start("part", true)
	x.loop("edgeloop", true)
	x.finish("part", true)
	x.label("narrow")
	x.vectors = 1
	x.start("half", true)
	x.loop("halfloop", true)
	x.finish("half", true)
}

// x86Dot emits the products of nx rows of x with nw rows of w. Each has two
// accumulators, for even and odd vectors along k, whatever nx and nw are, so
// that a result does not depend on what is computed beside it.
type x86Dot struct {
	*asmFile
	wide   bool
	nx, nw int
	v      string
	vb     int
}

func (x *x86Dot) acc(i, j, half int) int { return (i*x.nw+j)*2 + half }

func x86Rows(base string, three string, stride string) []string {
	return []string{"(" + base + ")", "(" + base + ")(" + stride + "*1)", "(" + base + ")(" + stride + "*2)", "(" + three + ")"}
}

func (x *x86Dot) emit(name string) {
	x.text(name, dotSignature, dotArgs)
	x.p("MOVQ k+0(FP), CX")
	x.p("MOVQ x+8(FP), SI")
	x.p("MOVQ xs+16(FP), AX")
	x.p("MOVQ w+24(FP), DI")
	x.p("MOVQ ws+32(FP), BX")
	x.p("LEAQ (AX)(AX*2), R9")
	x.p("ADDQ SI, R9")
	rx := x86Rows("SI", "R9", "AX")
	rw := x86Rows("DI", "", "BX")
	reg := func(i int) string { return fmt.Sprintf("%s%d", x.v, i) }
	total := 2 * x.nx * x.nw
	for i := range total {
		if x.wide {
			x.p("VPXORQ %[1]s, %[1]s, %[1]s", reg(i))
		} else {
			x.p("VXORPS %[1]s, %[1]s, %[1]s", reg(i))
		}
	}
	// Registers above the accumulators: nw of w, then one of x.
	w0, x0, mask := total, total+x.nw, 15
	step := 2 * x.vb
	advance := func() {
		x.p("ADDQ $%d, SI", step)
		if x.nx == 4 {
			x.p("ADDQ $%d, R9", step)
		}
		x.p("ADDQ $%d, DI", step)
	}
	x.p("SUBQ $%d, CX", step/4)
	x.p("JLT rest")
	x.p("PCALIGN $32")
	x.label("loop")
	for half := range 2 {
		for j := range x.nw {
			x.p("VMOVUPS %d%s, %s", half*x.vb, rw[j], reg(w0+j))
		}
		for i := range x.nx {
			if x.nw == 1 {
				x.p("VFMADD231PS %d%s, %s, %s", half*x.vb, rx[i], reg(w0), reg(x.acc(i, 0, half)))
				continue
			}
			x.p("VMOVUPS %d%s, %s", half*x.vb, rx[i], reg(x0))
			for j := range x.nw {
				x.p("VFMADD231PS %s, %s, %s", reg(x0), reg(w0+j), reg(x.acc(i, j, half)))
			}
		}
	}
	advance()
	x.p("SUBQ $%d, CX", step/4)
	x.p("JGE loop")
	x.label("rest")
	x.p("ADDQ $%d, CX", step/4)
	x.p("JZ sum")
	// The rest of k, less than two vectors, under a mask.
	for half := range 2 {
		if x.wide {
			if half == 0 {
				x.p("MOVQ $1, R8")
				x.p("SHLQ CX, R8")
				x.p("DECQ R8")
			} else {
				x.p("SHRQ $16, R8")
			}
			x.p("KMOVW R8, K1")
			for j := range x.nw {
				x.p("VMOVUPS.Z %d%s, K1, %s", half*x.vb, rw[j], reg(w0+j))
			}
			for i := range x.nx {
				x.p("VMOVUPS.Z %d%s, K1, %s", half*x.vb, rx[i], reg(x0))
				for j := range x.nw {
					x.p("VFMADD231PS %s, %s, %s", reg(x0), reg(w0+j), reg(x.acc(i, j, half)))
				}
			}
			continue
		}
		// A window of the table has its first CX (less 8 for the second half) lanes set.
		if half == 0 {
			x.p("LEAQ ·gemmMask+64(SB), R8")
			x.p("SHLQ $2, CX")
			x.p("SUBQ CX, R8")
		} else {
			x.p("ADDQ $32, R8")
		}
		x.p("VMOVUPS (R8), %s", reg(mask))
		for j := range x.nw {
			x.p("VMASKMOVPS %d%s, %s, %s", half*x.vb, rw[j], reg(mask), reg(w0+j))
		}
		for i := range x.nx {
			x.p("VMASKMOVPS %d%s, %s, %s", half*x.vb, rx[i], reg(mask), reg(x0))
			for j := range x.nw {
				x.p("VFMADD231PS %s, %s, %s", reg(x0), reg(w0+j), reg(x.acc(i, j, half)))
			}
		}
	}
	x.label("sum")
	x.p("MOVQ out+40(FP), DX")
	x.p("MOVQ ox+48(FP), R8")
	x.p("MOVQ ow+56(FP), R9")
	x.p("MOVQ accumulate+64(FP), R10")
	t := w0 // a register that is free now
	for j := range x.nw {
		for i := range x.nx {
			a := x.acc(i, j, 0)
			x.p("VADDPS %[1]s%[2]d, %[1]s%[3]d, %[1]s%[3]d", x.v, a+1, a)
			if x.wide {
				x.p("VEXTRACTF64X4 $1, Z%d, Y%d", a, t)
				x.p("VADDPS Y%d, Y%d, Y%d", t, a, a)
			}
			if x.wide {
				x.p("VEXTRACTF32X4 $1, Y%d, X%d", a, t)
			} else {
				x.p("VEXTRACTF128 $1, Y%d, X%d", a, t)
			}
			x.p("VADDPS X%d, X%d, X%d", t, a, a)
		}
		// Horizontal sums of up to four at once, each (0+2)+(1+3).
		a := func(i int) int { return x.acc(min(i, x.nx-1), j, 0) }
		pair := func(i, to int) {
			x.p("VUNPCKLPS X%d, X%d, X%d", a(i+1), a(i), to)
			x.p("VUNPCKHPS X%d, X%d, X%d", a(i+1), a(i), t+2)
			x.p("VADDPS X%d, X%[2]d, X%[2]d", t+2, to)
		}
		pair(0, t)
		other := t
		if x.nx > 2 {
			pair(2, t+1)
			other = t + 1
		}
		x.p("VUNPCKHPD X%d, X%d, X%d", other, t, t+2)
		x.p("VUNPCKLPD X%d, X%[2]d, X%[2]d", other, t)
		x.p("VADDPS X%d, X%[2]d, X%[2]d", t+2, t)
		x.p("MOVQ DX, R11")
		skip := fmt.Sprintf("store%d", j)
		x.p("TESTQ R10, R10")
		x.p("JZ %s", skip)
		for i := range x.nx { // gather what is there
			if i == 0 {
				x.p("VMOVSS (R11), X%d", t+1)
			} else {
				x.p("VINSERTPS $%d, (R11), X%d, X%d", i<<4, t+1, t+1)
			}
			if i+1 < x.nx {
				x.p("ADDQ R8, R11")
			}
		}
		x.p("VADDPS X%d, X%d, X%d", t+1, t, t)
		x.p("MOVQ DX, R11")
		x.label(skip)
		for i := range x.nx {
			x.p("VEXTRACTPS $%d, X%d, (R11)", i, t)
			if i+1 < x.nx {
				x.p("ADDQ R8, R11")
			}
		}
		if j+1 < x.nw {
			x.p("ADDQ R9, DX")
		}
	}
	x.p("VZEROUPPER")
	x.p("RET")
}

func gemmX86(f *asmFile) {
	fmt.Fprint(&f.asm, "\n// A run of set lanes, then clear ones.\n")
	for i := range 16 {
		fmt.Fprintf(&f.asm, "DATA ·gemmMask+%d(SB)/4, $0xffffffff\n", 4*i)
	}
	for i := 16; i < 32; i++ {
		fmt.Fprintf(&f.asm, "DATA ·gemmMask+%d(SB)/4, $0\n", 4*i)
	}
	fmt.Fprint(&f.asm, "GLOBL ·gemmMask(SB), RODATA|NOPTR, $128\n")
	for _, l := range []struct {
		name   string
		wide   bool
		mr     int
		ku     int
		dx, dw int
	}{{"avx2", false, 6, 8, 3, 2}, {"avx512", true, 12, 16, 4, 3}} {
		v, vb, b := "Y", 32, 12
		if l.wide {
			v, vb, b = "Z", 64, 24
		}
		for _, cols := range []bool{false, true} {
			prefix := map[bool]string{false: "tileRows", true: "tileCols"}[cols] + map[bool]string{false: "AVX2x", true: "AVX512x"}[l.wide]
			for rows := 1; rows <= l.mr; rows++ {
				x := &x86Tile{asmFile: f, wide: l.wide, rows: rows, cols: cols, v: v, vb: vb, b: b, t: b + 2, nt: 2, ku: l.ku}
				if l.wide {
					x.nt = 4
				}
				if cols {
					x.ku = 8
				}
				x.emit(fmt.Sprintf("%s%d", prefix, rows))
			}
			f.table(map[bool]string{false: "rowTiles", true: "colTiles"}[cols]+map[bool]string{false: "AVX2", true: "AVX512"}[l.wide], "tileFunc", prefix, l.mr)
		}
		prefix := map[bool]string{false: "dotAVX2x", true: "dotAVX512x"}[l.wide]
		for nx := 1; nx <= l.dx; nx++ {
			for nw := 1; nw <= l.dw; nw++ {
				(&x86Dot{f, l.wide, nx, nw, v, vb}).emit(fmt.Sprintf("%s%dx%d", prefix, nx, nw))
			}
		}
		f.dotTable(map[bool]string{false: "dotsAVX2", true: "dotsAVX512"}[l.wide], prefix, l.dx, l.dw)
	}
	packX86(f)
}

// packX86 emits what packs operands.
func packX86(f *asmFile) {
	for _, wide := range []bool{false, true} {
		name, v, vb := "AVX2", "Y", 32
		if wide {
			name, v, vb = "AVX512", "Z", 64
		}
		// One row of a sliver: adjacent vectors of A, ldd apart in packed memory.
		f.text("packLines"+name, "(lines int, src, dst unsafe.Pointer, ldd int)", 32)
		f.p("MOVQ lines+0(FP), CX")
		f.p("MOVQ src+8(FP), SI")
		f.p("MOVQ dst+16(FP), DI")
		f.p("MOVQ ldd+24(FP), BX")
		f.label("loop")
		f.p("VMOVUPS (SI), %s0", v)
		f.p("VMOVUPS %s0, (DI)", v)
		f.p("ADDQ $%d, SI", vb)
		f.p("ADDQ BX, DI")
		f.p("DECQ CX")
		f.p("JNZ loop")
		f.p("VZEROUPPER")
		f.p("RET")

		f.text("copyRows"+name, copySignature, copyArgs)
		f.p("MOVQ k+0(FP), CX")
		f.p("MOVQ n+8(FP), AX")
		f.p("MOVQ src+16(FP), SI")
		f.p("MOVQ ld+24(FP), R8")
		f.p("MOVQ dst+32(FP), DI")
		f.p("MOVQ ldd+40(FP), R9")
		f.p("CMPQ AX, $%d", vb/2)
		f.p("JNE part")
		f.label("loop")
		f.p("VMOVUPS (SI), %s0", v)
		f.p("VMOVUPS %d(SI), %s1", vb, v)
		f.p("VMOVUPS %s0, (DI)", v)
		f.p("VMOVUPS %s1, %d(DI)", v, vb)
		f.p("ADDQ R8, SI")
		f.p("ADDQ R9, DI")
		f.p("DECQ CX")
		f.p("JNZ loop")
		f.p("VZEROUPPER")
		f.p("RET")
		f.label("part")
		if wide {
			f.p("MOVQ CX, R10")
			f.p("MOVQ AX, CX")
			f.p("MOVQ $1, AX")
			f.p("SHLQ CX, AX")
			f.p("DECQ AX")
			f.p("KMOVW AX, K1")
			f.p("SHRQ $16, AX")
			f.p("KMOVW AX, K2")
			f.p("MOVQ R10, CX")
			f.p("CMPQ n+8(FP), $16")
			f.p("JLE one")
			f.label("two")
			f.p("VMOVUPS.Z (SI), K1, Z0")
			f.p("VMOVUPS.Z 64(SI), K2, Z1")
			f.p("VMOVUPS Z0, K1, (DI)")
			f.p("VMOVUPS Z1, K2, 64(DI)")
			f.p("ADDQ R8, SI")
			f.p("ADDQ R9, DI")
			f.p("DECQ CX")
			f.p("JNZ two")
			f.p("VZEROUPPER")
			f.p("RET")
			f.label("one")
			f.p("VMOVUPS.Z (SI), K1, Z0")
			f.p("VMOVUPS Z0, K1, (DI)")
			f.p("ADDQ R8, SI")
			f.p("ADDQ R9, DI")
			f.p("DECQ CX")
			f.p("JNZ one")
			f.p("VZEROUPPER")
			f.p("RET")
		} else {
			f.p("CMPQ AX, $6")
			f.p("JNE any")
			f.label("six")
			f.p("VMOVUPS (SI), X0")
			f.p("MOVQ 16(SI), DX")
			f.p("VMOVUPS X0, (DI)")
			f.p("MOVQ DX, 16(DI)")
			f.p("ADDQ R8, SI")
			f.p("ADDQ R9, DI")
			f.p("DECQ CX")
			f.p("JNZ six")
			f.p("RET")
			f.label("any")
			f.p("XORQ BX, BX")
			f.label("one")
			f.p("MOVL (SI)(BX*4), DX")
			f.p("MOVL DX, (DI)(BX*4)")
			f.p("INCQ BX")
			f.p("CMPQ BX, AX")
			f.p("JLT one")
			f.p("ADDQ R8, SI")
			f.p("ADDQ R9, DI")
			f.p("DECQ CX")
			f.p("JNZ any")
			f.p("RET")
		}
	}
	transposeAVX512(f)
	transposeAVX2(f)
}

func transposeHead(f *asmFile, name string) {
	f.text(name, "(blocks int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int)", 40)
	f.p("MOVQ blocks+0(FP), CX")
	f.p("MOVQ src+8(FP), SI")
	f.p("MOVQ ld+16(FP), AX")
	f.p("MOVQ dst+24(FP), DI")
	f.p("MOVQ ldd+32(FP), BX")
	f.p("LEAQ (AX)(AX*2), R8")
	f.label("block")
}

// loadRows loads a vector of each of n rows, AX bytes apart (R8: three times that), from SI.
func loadRows(f *asmFile, n int, v string) {
	f.p("MOVQ SI, R9")
	for i := 0; i < n; i += 4 {
		for j, a := range []string{"(R9)", "(R9)(AX*1)", "(R9)(AX*2)", "(R9)(R8*1)"} {
			f.p("VMOVUPS %s, %s%d", a, v, i+j)
		}
		if i+4 < n {
			f.p("LEAQ (R9)(AX*4), R9")
		}
	}
}

// transposeAVX512 transposes blocks of 16×16: 16 rows of src, ld bytes apart,
// to 16 rows of dst a block, ldd apart.
func transposeAVX512(f *asmFile) {
	transposeHead(f, "transposeAVX512")
	loadRows(f, 16, "Z")
	for i := 0; i < 16; i += 2 {
		f.p("VUNPCKLPS Z%d, Z%d, Z%d", i+1, i, 16+i)
		f.p("VUNPCKHPS Z%d, Z%d, Z%d", i+1, i, 17+i)
	}
	for g := range 4 {
		t, u := 16+4*g, 4*g
		f.p("VUNPCKLPD Z%d, Z%d, Z%d", t+2, t, u)
		f.p("VUNPCKHPD Z%d, Z%d, Z%d", t+2, t, u+1)
		f.p("VUNPCKLPD Z%d, Z%d, Z%d", t+3, t+1, u+2)
		f.p("VUNPCKHPD Z%d, Z%d, Z%d", t+3, t+1, u+3)
	}
	// Register 4g+j holds, in each 128-bit lane l, column 4l+j of rows 4g … 4g+3:
	// what is left is a 4×4 transpose of lanes for each j.
	for j := range 4 {
		v := 16 + 4*j
		f.p("VSHUFF32X4 $0x88, Z%d, Z%d, Z%d", 4+j, j, v)
		f.p("VSHUFF32X4 $0xdd, Z%d, Z%d, Z%d", 4+j, j, v+1)
		f.p("VSHUFF32X4 $0x88, Z%d, Z%d, Z%d", 12+j, 8+j, v+2)
		f.p("VSHUFF32X4 $0xdd, Z%d, Z%d, Z%d", 12+j, 8+j, v+3)
	}
	for j := range 4 {
		v := 16 + 4*j
		f.p("VSHUFF32X4 $0x88, Z%d, Z%d, Z%d", v+2, v, j)
		f.p("VSHUFF32X4 $0xdd, Z%d, Z%d, Z%d", v+2, v, 8+j)
		f.p("VSHUFF32X4 $0x88, Z%d, Z%d, Z%d", v+3, v+1, 4+j)
		f.p("VSHUFF32X4 $0xdd, Z%d, Z%d, Z%d", v+3, v+1, 12+j)
	}
	for i := range 16 {
		f.p("VMOVUPS Z%d, (DI)", i)
		f.p("ADDQ BX, DI")
	}
	f.p("ADDQ $64, SI")
	f.p("DECQ CX")
	f.p("JNZ block")
	f.p("VZEROUPPER")
	f.p("RET")
}

// transposeAVX2 does the same with blocks of 8×8.
func transposeAVX2(f *asmFile) {
	transposeHead(f, "transposeAVX2")
	loadRows(f, 8, "Y")
	for i := 0; i < 8; i += 2 {
		f.p("VUNPCKLPS Y%d, Y%d, Y%d", i+1, i, 8+i)
		f.p("VUNPCKHPS Y%d, Y%d, Y%d", i+1, i, 9+i)
	}
	for g := range 2 {
		t, u := 8+4*g, 4*g
		f.p("VUNPCKLPD Y%d, Y%d, Y%d", t+2, t, u)
		f.p("VUNPCKHPD Y%d, Y%d, Y%d", t+2, t, u+1)
		f.p("VUNPCKLPD Y%d, Y%d, Y%d", t+3, t+1, u+2)
		f.p("VUNPCKHPD Y%d, Y%d, Y%d", t+3, t+1, u+3)
	}
	for j := range 4 {
		f.p("VPERM2F128 $0x20, Y%d, Y%d, Y%d", 4+j, j, 8+j)
		f.p("VPERM2F128 $0x31, Y%d, Y%d, Y%d", 4+j, j, 12+j)
	}
	for i := range 8 {
		f.p("VMOVUPS Y%d, (DI)", 8+i)
		f.p("ADDQ BX, DI")
	}
	f.p("ADDQ $32, SI")
	f.p("DECQ CX")
	f.p("JNZ block")
	f.p("VZEROUPPER")
	f.p("RET")
}
