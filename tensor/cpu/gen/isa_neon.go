package main

import "fmt"

// neonVectors emits arm64 Advanced SIMD, 4 lanes. R8 counts the elements left; R0 … are
// the pointers, moved on after each round. Go's assembler knows VFMLA, the moves
// and little else of the floating-point vectors, so that most instructions are
// written as words; the opcodes are those of the Arm Architecture Reference
// Manual, C7.2, for the arrangement 4S.
type neonVectors struct{}

const (
	neonFADD    = 0x4E20D400
	neonFSUB    = 0x4EA0D400
	neonFMUL    = 0x6E20DC00
	neonFDIV    = 0x6E20FC00
	neonFMAX    = 0x4E20F400
	neonFMIN    = 0x4EA0F400
	neonFMAXNM  = 0x4E20C400
	neonFMLA    = 0x4E20CC00
	neonFMLS    = 0x4EA0CC00
	neonFSQRT   = 0x6EA1F800
	neonFRINTN  = 0x4E218800
	neonFCVTNS  = 0x4E21A800
	neonFABS    = 0x4EA0F800
	neonFCMEQ   = 0x4E20E400
	neonFCMGT   = 0x6EA0E400
	neonADD     = 0x4EA08400
	neonSUB     = 0x6EA08400
	neonAND     = 0x4E201C00
	neonORR     = 0x4EA01C00
	neonBIC     = 0x4E601C00
	neonBSL     = 0x6E601C00
	neonSSHR    = 0x4F000400 // immh:immb = 64 - shift
	neonUSHR    = 0x6F000400
	neonSHL     = 0x4F005400 // immh:immb = 32 + shift
	neonFADDP   = 0x6E20D400
	neonFMAXNMV = 0x6E30C800
	neonFCVTL   = 0x0E617800 // 2S to 2D, low half
	neonFCVTL2  = 0x4E617800 // high half
	neonFMLA2D  = 0x4E60CC00
	neonFADD2D  = 0x4E60D400
	neonFADDP2D = 0x7E70D800 // 2D to a scalar
	neonSHLL16  = 0x2E613800 // 4H to 4S, shifted left by 16
	neonFCVTLH  = 0x0E217800 // 4H to 4S
	neonFCVTNH  = 0x0E216800 // 4S to 4H
	neonXTN     = 0x0E612800 // 4S to 4H
)

func (neonVectors) suffix() string { return "NEON" }
func (neonVectors) lanes() int     { return 4 }
func (neonVectors) registers() int { return 32 }

func neonWord(e *rowEmitter, op uint32, d, n, m int) {
	e.ins("WORD $0x%08X", op|uint32(m)<<16|uint32(n)<<5|uint32(d))
}

func (neonVectors) pointer(k *rowKernel, name string) string {
	for i, p := range k.pointers() {
		if p.name == name {
			return fmt.Sprintf("R%d", i)
		}
	}
	panic("no pointer " + name)
}

func (neonVectors) begin(e *rowEmitter) {
	e.ins("MOVD n+0(FP), R8")
	for i, p := range e.k.pointers() {
		e.ins("MOVD %s+%d(FP), R%d", p.name, e.k.offset(p.name), i)
	}
	e.ins("MOVD $rowConst<>(SB), R9")
}

func (b neonVectors) loop(e *rowEmitter, unroll int, body func(u int)) {
	round := func(label, next string, elements, unroll int) {
		e.ins("CMP $%d, R8", elements)
		e.ins("BLT %s", next)
		e.label(label)
		for u := range unroll {
			body(u)
		}
		for i, p := range e.k.pointers() {
			e.ins("ADD $%d, R%d", elements*e.k.elem(p.name), i)
		}
		e.ins("SUB $%d, R8", elements)
		e.ins("CMP $%d, R8", elements)
		e.ins("BGE %s", label)
	}
	if unroll > 1 {
		round("many", "single", 4*unroll, unroll)
		e.label("single")
	}
	round("one", "tail", 4, 1)
	e.label("tail")
	if e.k.whole {
		return
	}
	e.tail = true
	round("lane", "done", 1, 1)
	e.tail = false
	e.label("done")
}

func (neonVectors) end(e *rowEmitter) { e.ins("RET") }

func (b neonVectors) constant(e *rowEmitter, v float32) operand {
	r := e.hold()
	e.inPre(func() { e.ins("FMOVQ %d(R9), F%d", e.data.offset(v), r.reg) })
	return r
}

func (neonVectors) arg(e *rowEmitter, name string, r operand) {
	e.inPre(func() {
		e.ins("FMOVS %s+%d(FP), F%d", name, e.k.offset(name), r.reg)
		e.ins("VDUP V%d.S[0], V%d.S4", r.reg, r.reg)
	})
}

func (b neonVectors) countFrom(e *rowEmitter, r operand) {
	defer e.scope()()
	t := e.tmp()
	e.ins("MOVD $rowLane<>(SB), R10")
	e.ins("FMOVQ (R10), F%d", t.reg)
	neonWord(e, neonFADD, r.reg, r.reg, t.reg)
}

func (b neonVectors) load(e *rowEmitter, d operand, ptr string, u int) {
	if e.tail {
		e.ins("FMOVS (%s), F%d", b.pointer(e.k, ptr), d.reg)
		return
	}
	e.ins("FMOVQ %d(%s), F%d", 16*u, b.pointer(e.k, ptr), d.reg)
}

func (b neonVectors) loadFill(e *rowEmitter, d operand, ptr string, u int, fill operand) {
	defer e.scope()()
	if !e.tail {
		b.load(e, d, ptr, u)
		return
	}
	b.mov(e, d, fill)
	e.ins("VLD1 (%s), V%d.S[0]", b.pointer(e.k, ptr), d.reg)
}

func (b neonVectors) store(e *rowEmitter, ptr string, u int, v operand) {
	if e.tail {
		e.ins("FMOVS F%d, (%s)", v.reg, b.pointer(e.k, ptr))
		return
	}
	e.ins("FMOVQ F%d, %d(%s)", v.reg, 16*u, b.pointer(e.k, ptr))
}

func (neonVectors) keep(e *rowEmitter, v operand) {
	if e.tail {
		// Writing the low word clears the rest.
		e.ins("FMOVS F%d, F%d", v.reg, v.reg)
	}
}

func (neonVectors) mov(e *rowEmitter, d, a operand) {
	if d.reg != a.reg {
		e.ins("VMOV V%d.B16, V%d.B16", a.reg, d.reg)
	}
}

func (neonVectors) bin(e *rowEmitter, op string, d, a, b operand) {
	defer e.scope()()
	neonWord(e, map[string]uint32{"add": neonFADD, "sub": neonFSUB, "mul": neonFMUL, "div": neonFDIV,
		"max": neonFMAX, "min": neonFMIN, "maxnum": neonFMAXNM}[op], d.reg, a.reg, b.reg)
}

func (b neonVectors) fma(e *rowEmitter, d, x, y, c operand)  { b.multiplyAdd(e, neonFMLA, d, x, y, c) }
func (b neonVectors) fnma(e *rowEmitter, d, x, y, c operand) { b.multiplyAdd(e, neonFMLS, d, x, y, c) }

// multiplyAdd: the machine overwrites the addend.
func (b neonVectors) multiplyAdd(e *rowEmitter, op uint32, d, x, y, c operand) {
	defer e.scope()()
	t := d
	if d.reg == x.reg || d.reg == y.reg {
		t = e.tmp()
	}
	b.mov(e, t, c)
	neonWord(e, op, t.reg, x.reg, y.reg)
	b.mov(e, d, t)
}

func (neonVectors) sqrt(e *rowEmitter, d, a operand)  { neonWord(e, neonFSQRT, d.reg, a.reg, 0) }
func (neonVectors) round(e *rowEmitter, d, a operand) { neonWord(e, neonFRINTN, d.reg, a.reg, 0) }
func (neonVectors) abs(e *rowEmitter, d, a operand)   { neonWord(e, neonFABS, d.reg, a.reg, 0) }

func (b neonVectors) selNeg(e *rowEmitter, d, s, x, y operand) {
	defer e.scope()()
	t := e.tmp()
	neonWord(e, neonSSHR, t.reg, s.reg, 64-31)
	neonWord(e, neonBSL, t.reg, x.reg, y.reg)
	b.mov(e, d, t)
}

func (neonVectors) zeroBelow(e *rowEmitter, d, v, x, bound operand) {
	defer e.scope()()
	t := e.tmp()
	neonWord(e, neonFCMGT, t.reg, bound.reg, x.reg)
	neonWord(e, neonBIC, d.reg, v.reg, t.reg)
}

func (b neonVectors) pow2(e *rowEmitter, d, p, n operand) {
	defer e.scope()()
	// In two halves, as exponents up to 128 have no number of their own. The
	// bias 127 is added by an integer addition of its bits.
	half, bias := e.tmp(), e.c(floatBits(127))
	neonWord(e, neonFCVTNS, n.reg, n.reg, 0)
	neonWord(e, neonSSHR, half.reg, n.reg, 64-1)
	neonWord(e, neonSUB, n.reg, n.reg, half.reg)
	for _, r := range []operand{half, n} {
		neonWord(e, neonADD, r.reg, r.reg, bias.reg)
		neonWord(e, neonSHL, r.reg, r.reg, 32+23)
	}
	neonWord(e, neonFMUL, d.reg, p.reg, half.reg)
	neonWord(e, neonFMUL, d.reg, d.reg, n.reg)
}

func (b neonVectors) add64(e *rowEmitter, lo, hi, v operand) {
	defer e.scope()()
	x, y := b.doubles(e, v)
	neonWord(e, neonFADD2D, lo.reg, lo.reg, x.reg)
	neonWord(e, neonFADD2D, hi.reg, hi.reg, y.reg)
}

func (b neonVectors) squares64(e *rowEmitter, lo, hi, v operand) {
	defer e.scope()()
	x, y := b.doubles(e, v)
	neonWord(e, neonFMLA2D, lo.reg, x.reg, x.reg)
	neonWord(e, neonFMLA2D, hi.reg, y.reg, y.reg)
}

// doubles are the halves of v in float64.
func (neonVectors) doubles(e *rowEmitter, v operand) (x, y operand) {
	x, y = e.tmp(), e.tmp()
	neonWord(e, neonFCVTL, x.reg, v.reg, 0)
	neonWord(e, neonFCVTL2, y.reg, v.reg, 0)
	return x, y
}

func (b neonVectors) widen(e *rowEmitter, format string, d operand, ptr string, u int) {
	e.ins("FMOVD %d(%s), F%d", 8*u, b.pointer(e.k, ptr), d.reg)
	op := uint32(neonSHLL16)
	if format == "f16" {
		op = neonFCVTLH
	}
	neonWord(e, op, d.reg, d.reg, 0)
}

func (b neonVectors) narrow(e *rowEmitter, format string, ptr string, u int, v operand) {
	defer e.scope()()
	t := e.tmp()
	if format == "f16" {
		neonWord(e, neonFCVTNH, t.reg, v.reg, 0)
	} else {
		// As on x86: round to nearest even, but keep a NaN a NaN.
		q, m := e.tmp(), e.tmp()
		neonWord(e, neonUSHR, t.reg, v.reg, 64-16)
		neonWord(e, neonORR, q.reg, t.reg, e.c(floatBits(0x40)).reg)
		neonWord(e, neonAND, t.reg, t.reg, e.c(floatBits(1)).reg)
		neonWord(e, neonADD, t.reg, t.reg, e.c(floatBits(0x7fff)).reg)
		neonWord(e, neonADD, t.reg, t.reg, v.reg)
		neonWord(e, neonUSHR, t.reg, t.reg, 64-16)
		neonWord(e, neonFCMEQ, m.reg, v.reg, v.reg)
		neonWord(e, neonBSL, m.reg, t.reg, q.reg)
		neonWord(e, neonXTN, t.reg, m.reg, 0)
	}
	e.ins("FMOVD F%d, %d(%s)", t.reg, 8*u, b.pointer(e.k, ptr))
}

func (b neonVectors) reduce(e *rowEmitter, op string, accs []operand) {
	join := map[string]uint32{"add": neonFADD, "max": neonFMAXNM, "add64": neonFADD2D}[op]
	for step := 1; step < len(accs); step *= 2 {
		for i := 0; i+step < len(accs); i += 2 * step {
			neonWord(e, join, accs[i].reg, accs[i].reg, accs[i+step].reg)
		}
	}
	a := accs[0].reg
	_, ret := e.k.frame()
	switch op {
	case "add":
		neonWord(e, neonFADDP, a, a, a)
		neonWord(e, neonFADDP, a, a, a)
	case "max":
		neonWord(e, neonFMAXNMV, a, a, 0)
	case "add64":
		neonWord(e, neonFADDP2D, a, a, 0)
		e.ins("FMOVD F%d, ret+%d(FP)", a, ret)
		return
	}
	e.ins("FMOVS F%d, ret+%d(FP)", a, ret)
}
