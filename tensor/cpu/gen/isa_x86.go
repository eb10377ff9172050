package main

import (
	"fmt"
	"math"
)

// x86Vectors emits AVX2 with FMA (ymm, 8 lanes) or, wide, AVX-512 F+DQ (zmm, 16 lanes).
// CX counts the elements left, AX is the index of the next one. K1 (AVX-512) or
// the last ymm register (AVX2) is the mask of the tail, K2 a comparison.
type x86Vectors struct{ wide bool }

const x86Mask = "Y15"

var x86Pointers = []string{"DI", "SI", "R8", "R9", "R10", "R11"}

func (x *x86Vectors) suffix() string {
	if x.wide {
		return "AVX512"
	}
	return "AVX2"
}

func (x *x86Vectors) lanes() int {
	if x.wide {
		return 16
	}
	return 8
}

func (x *x86Vectors) registers() int {
	if x.wide {
		return 32
	}
	return 15
}

// r names an operand; in memory only where the instruction takes it.
func (x *x86Vectors) r(o operand) string {
	switch {
	case o.isMem():
		return o.mem
	case x.wide:
		return fmt.Sprintf("Z%d", o.reg)
	}
	return fmt.Sprintf("Y%d", o.reg)
}

// inReg is o in a register.
func (x *x86Vectors) inReg(e *rowEmitter, o operand) operand {
	if !o.isMem() {
		return o
	}
	d := e.tmp()
	x.mov(e, d, o)
	return d
}

func (x *x86Vectors) pointer(k *rowKernel, name string) string {
	for i, p := range k.pointers() {
		if p.name == name {
			return x86Pointers[i]
		}
	}
	panic("no pointer " + name)
}

// addr is the address of vector u of ptr.
func (x *x86Vectors) addr(e *rowEmitter, ptr string, u int) string {
	size := e.k.elem(ptr)
	a := fmt.Sprintf("(%s)(AX*%d)", x.pointer(e.k, ptr), size)
	if u > 0 {
		return fmt.Sprintf("%d%s", u*x.lanes()*size, a)
	}
	return a
}

func (x *x86Vectors) begin(e *rowEmitter) {
	e.ins("MOVQ n+0(FP), CX")
	for i, p := range e.k.pointers() {
		e.ins("MOVQ %s+%d(FP), %s", p.name, e.k.offset(p.name), x86Pointers[i])
	}
	e.ins("XORL AX, AX")
}

func (x *x86Vectors) loop(e *rowEmitter, unroll int, body func(u int)) {
	n := x.lanes()
	if unroll > 1 {
		e.ins("CMPQ CX, $%d", unroll*n)
		e.ins("JLT single")
		e.label("many")
		for u := range unroll {
			body(u)
		}
		e.ins("ADDQ $%d, AX", unroll*n)
		e.ins("SUBQ $%d, CX", unroll*n)
		e.ins("CMPQ CX, $%d", unroll*n)
		e.ins("JGE many")
		e.label("single")
	}
	e.ins("CMPQ CX, $%d", n)
	e.ins("JLT tail")
	e.label("one")
	body(0)
	e.ins("ADDQ $%d, AX", n)
	e.ins("SUBQ $%d, CX", n)
	e.ins("CMPQ CX, $%d", n)
	e.ins("JGE one")
	e.label("tail")
	if e.k.whole {
		return
	}
	e.ins("TESTQ CX, CX")
	e.ins("JEQ done")
	if x.wide {
		e.ins("MOVL $1, DX")
		e.ins("SHLL CX, DX")
		e.ins("DECL DX")
		e.ins("KMOVW DX, K1")
	} else {
		e.ins("LEAQ rowMask<>+32(SB), DX")
		e.ins("SHLQ $2, CX")
		e.ins("SUBQ CX, DX")
		e.ins("VMOVUPS (DX), %s", x86Mask)
	}
	e.tail = true
	body(0)
	e.tail = false
	e.label("done")
}

func (x *x86Vectors) end(e *rowEmitter) {
	e.ins("VZEROUPPER")
	e.ins("RET")
}

func (x *x86Vectors) constant(e *rowEmitter, v float32) operand {
	mem := fmt.Sprintf("rowConst<>+%d(SB)", e.data.offset(v))
	if !x.wide {
		return operand{mem: mem}
	}
	r := e.hold()
	e.inPre(func() {
		if v == 0 && !math.Signbit(float64(v)) {
			e.ins("VPXORD %s, %s, %s", x.r(r), x.r(r), x.r(r))
		} else {
			e.ins("VBROADCASTSS %s, %s", mem, x.r(r))
		}
	})
	return r
}

func (x *x86Vectors) arg(e *rowEmitter, name string, r operand) {
	e.inPre(func() { e.ins("VBROADCASTSS %s+%d(FP), %s", name, e.k.offset(name), x.r(r)) })
}

func (x *x86Vectors) countFrom(e *rowEmitter, r operand) {
	e.ins("VADDPS rowLane<>(SB), %s, %s", x.r(r), x.r(r))
}

func (x *x86Vectors) load(e *rowEmitter, d operand, ptr string, u int) {
	a := x.addr(e, ptr, u)
	switch {
	case !e.tail:
		e.ins("VMOVUPS %s, %s", a, x.r(d))
	case x.wide:
		e.ins("VMOVUPS.Z %s, K1, %s", a, x.r(d))
	default:
		e.ins("VMASKMOVPS %s, %s, %s", a, x86Mask, x.r(d))
	}
}

func (x *x86Vectors) loadFill(e *rowEmitter, d operand, ptr string, u int, fill operand) {
	defer e.scope()()
	switch {
	case !e.tail:
		x.load(e, d, ptr, u)
	case x.wide:
		x.mov(e, d, fill)
		e.ins("VMOVUPS %s, K1, %s", x.addr(e, ptr, u), x.r(d))
	default:
		x.load(e, d, ptr, u)
		e.ins("VBLENDVPS %s, %s, %s, %s", x86Mask, x.r(d), x.r(x.inReg(e, fill)), x.r(d))
	}
}

func (x *x86Vectors) store(e *rowEmitter, ptr string, u int, v operand) {
	a := x.addr(e, ptr, u)
	switch {
	case !e.tail:
		e.ins("VMOVUPS %s, %s", x.r(v), a)
	case x.wide:
		e.ins("VMOVUPS %s, K1, %s", x.r(v), a)
	default:
		e.ins("VMASKMOVPS %s, %s, %s", x.r(v), x86Mask, a)
	}
}

func (x *x86Vectors) keep(e *rowEmitter, v operand) {
	if !e.tail {
		return
	}
	if x.wide {
		e.ins("VMOVAPS.Z %s, K1, %s", x.r(v), x.r(v))
	} else {
		e.ins("VANDPS %s, %s, %s", x86Mask, x.r(v), x.r(v))
	}
}

func (x *x86Vectors) mov(e *rowEmitter, d, a operand) {
	if !a.isMem() && a.reg == d.reg {
		return
	}
	if a.zero {
		op := "VXORPS"
		if x.wide {
			op = "VPXORD"
		}
		e.ins("%s %s, %s, %s", op, x.r(d), x.r(d), x.r(d))
		return
	}
	e.ins("VMOVUPS %s, %s", x.r(a), x.r(d))
}

// bin: of the two sources only the second may be in memory. VMAXPS and VMINPS
// return the second source where either is NaN: so b's NaN passes, and maxnum,
// with its sources exchanged, keeps a (a running maximum, never NaN).
func (x *x86Vectors) bin(e *rowEmitter, op string, d, a, b operand) {
	defer e.scope()()
	name := map[string]string{"add": "VADDPS", "sub": "VSUBPS", "mul": "VMULPS", "div": "VDIVPS", "max": "VMAXPS", "min": "VMINPS", "maxnum": "VMAXPS"}[op]
	if a.isMem() && (op == "add" || op == "mul") || op == "maxnum" {
		a, b = b, a
	}
	a = x.inReg(e, a)
	e.ins("%s %s, %s, %s", name, x.r(b), x.r(a), x.r(d))
}

func (x *x86Vectors) fma(e *rowEmitter, d, a, b, c operand)  { x.multiplyAdd(e, "VFMADD", d, a, b, c) }
func (x *x86Vectors) fnma(e *rowEmitter, d, a, b, c operand) { x.multiplyAdd(e, "VFNMADD", d, a, b, c) }

// multiplyAdd picks the form whose overwritten operand is d: 231 overwrites the
// addend, 213 a factor; the first operand written may be in memory.
func (x *x86Vectors) multiplyAdd(e *rowEmitter, op string, d, a, b, c operand) {
	defer e.scope()()
	if a.isMem() || !b.isMem() && b.reg == d.reg {
		a, b = b, a
	}
	same := func(o operand) bool { return !o.isMem() && o.reg == d.reg }
	switch {
	case same(c):
		e.ins("%s231PS %s, %s, %s", op, x.r(b), x.r(x.inReg(e, a)), x.r(d))
	case same(a):
		e.ins("%s213PS %s, %s, %s", op, x.r(c), x.r(x.inReg(e, b)), x.r(d))
	case b.isMem(): // a is a register, the addend is copied
		x.mov(e, d, c)
		e.ins("%s231PS %s, %s, %s", op, x.r(b), x.r(a), x.r(d))
	default:
		x.mov(e, d, a)
		e.ins("%s213PS %s, %s, %s", op, x.r(c), x.r(b), x.r(d))
	}
}

func (x *x86Vectors) sqrt(e *rowEmitter, d, a operand) { e.ins("VSQRTPS %s, %s", x.r(a), x.r(d)) }

func (x *x86Vectors) round(e *rowEmitter, d, a operand) {
	op := "VROUNDPS"
	if x.wide {
		op = "VRNDSCALEPS"
	}
	e.ins("%s $8, %s, %s", op, x.r(a), x.r(d))
}

func (x *x86Vectors) abs(e *rowEmitter, d, a operand) {
	// Shifting the sign out needs no register for a mask.
	e.ins("VPSLLD $1, %s, %s", x.r(a), x.r(d))
	e.ins("VPSRLD $1, %s, %s", x.r(d), x.r(d))
}

func (x *x86Vectors) selNeg(e *rowEmitter, d, s, a, b operand) {
	defer e.scope()()
	a, b = x.inReg(e, a), x.inReg(e, b)
	if x.wide {
		e.ins("VPMOVD2M %s, K2", x.r(s))
		e.ins("VBLENDMPS %s, %s, K2, %s", x.r(a), x.r(b), x.r(d))
	} else {
		e.ins("VBLENDVPS %s, %s, %s, %s", x.r(s), x.r(a), x.r(b), x.r(d))
	}
}

func (x *x86Vectors) zeroBelow(e *rowEmitter, d, v, a, bound operand) {
	defer e.scope()()
	if x.wide {
		e.ins("VCMPPS $5, %s, %s, K2", x.r(bound), x.r(a)) // not less than, or NaN
		e.ins("VMOVAPS.Z %s, K2, %s", x.r(v), x.r(d))
		return
	}
	t := e.tmp()
	e.ins("VCMPPS $1, %s, %s, %s", x.r(bound), x.r(a), x.r(t))
	e.ins("VANDNPS %s, %s, %s", x.r(v), x.r(t), x.r(d))
}

func (x *x86Vectors) pow2(e *rowEmitter, d, p, n operand) {
	defer e.scope()()
	if x.wide {
		e.ins("VSCALEFPS %s, %s, %s", x.r(n), x.r(p), x.r(d))
		return
	}
	// In two halves, as exponents up to 128 have no number of their own. The
	// bias 127 is added by an integer addition of its bits.
	half, bias := e.tmp(), e.c(float64(math.Float32frombits(127)))
	e.ins("VCVTPS2DQ %s, %s", x.r(n), x.r(n))
	e.ins("VPSRAD $1, %s, %s", x.r(n), x.r(half))
	e.ins("VPSUBD %s, %s, %s", x.r(half), x.r(n), x.r(n))
	for _, r := range []operand{half, n} {
		e.ins("VPADDD %s, %s, %s", x.r(bias), x.r(r), x.r(r))
		e.ins("VPSLLD $23, %s, %s", x.r(r), x.r(r))
	}
	e.ins("VMULPS %s, %s, %s", x.r(half), x.r(p), x.r(d))
	e.ins("VMULPS %s, %s, %s", x.r(n), x.r(d), x.r(d))
}

func (x *x86Vectors) add64(e *rowEmitter, lo, hi, v operand) {
	defer e.scope()()
	a, b := x.doubles(e, v)
	e.ins("VADDPD %s, %s, %s", x.r(a), x.r(lo), x.r(lo))
	e.ins("VADDPD %s, %s, %s", x.r(b), x.r(hi), x.r(hi))
}

func (x *x86Vectors) squares64(e *rowEmitter, lo, hi, v operand) {
	defer e.scope()()
	a, b := x.doubles(e, v)
	e.ins("VFMADD231PD %s, %s, %s", x.r(a), x.r(a), x.r(lo))
	e.ins("VFMADD231PD %s, %s, %s", x.r(b), x.r(b), x.r(hi))
}

// doubles are the halves of v in float64.
func (x *x86Vectors) doubles(e *rowEmitter, v operand) (a, b operand) {
	a, b = e.tmp(), e.tmp()
	if x.wide {
		e.ins("VEXTRACTF64X4 $1, Z%d, Y%d", v.reg, b.reg)
		e.ins("VCVTPS2PD Y%d, Z%d", v.reg, a.reg)
		e.ins("VCVTPS2PD Y%d, Z%d", b.reg, b.reg)
	} else {
		e.ins("VEXTRACTF128 $1, Y%d, X%d", v.reg, b.reg)
		e.ins("VCVTPS2PD X%d, Y%d", v.reg, a.reg)
		e.ins("VCVTPS2PD X%d, Y%d", b.reg, b.reg)
	}
	return a, b
}

func (x *x86Vectors) widen(e *rowEmitter, format string, d operand, ptr string, u int) {
	a := x.addr(e, ptr, u)
	if format == "f16" {
		e.ins("VCVTPH2PS %s, %s", a, x.r(d))
		return
	}
	e.ins("VPMOVZXWD %s, %s", a, x.r(d))
	e.ins("VPSLLD $16, %s, %s", x.r(d), x.r(d))
}

func (x *x86Vectors) narrow(e *rowEmitter, format string, ptr string, u int, v operand) {
	defer e.scope()()
	a := x.addr(e, ptr, u)
	if format == "f16" {
		e.ins("VCVTPS2PH $0, %s, %s", x.r(v), a)
		return
	}
	// Round to nearest even by adding 0x7fff and the lowest kept bit; a NaN
	// instead keeps its upper half with the quiet bit set, lest it carry into
	// the exponent's neighbour and become a number.
	t, q := e.tmp(), e.tmp()
	bits := func(b uint32) operand { return e.c(floatBits(b)) }
	if x.wide {
		e.ins("VPSRLD $16, %s, %s", x.r(v), x.r(t))
		e.ins("VPORD %s, %s, %s", x.r(bits(0x40)), x.r(t), x.r(q))
		e.ins("VPANDD %s, %s, %s", x.r(bits(1)), x.r(t), x.r(t))
		e.ins("VCMPPS $3, %s, %s, K2", x.r(v), x.r(v))
		e.ins("VPADDD %s, %s, %s", x.r(bits(0x7fff)), x.r(t), x.r(t))
		e.ins("VPADDD %s, %s, %s", x.r(v), x.r(t), x.r(t))
		e.ins("VPSRLD $16, %s, %s", x.r(t), x.r(t))
		e.ins("VMOVAPS %s, K2, %s", x.r(q), x.r(t))
		e.ins("VPMOVDW %s, %s", x.r(t), a)
		return
	}
	m := e.tmp()
	e.ins("VPSRLD $16, %s, %s", x.r(v), x.r(t))
	e.ins("VPOR %s, %s, %s", x.r(bits(0x40)), x.r(t), x.r(q))
	e.ins("VPAND %s, %s, %s", x.r(bits(1)), x.r(t), x.r(t))
	e.ins("VCMPPS $3, %s, %s, %s", x.r(v), x.r(v), x.r(m))
	e.ins("VPADDD %s, %s, %s", x.r(bits(0x7fff)), x.r(t), x.r(t))
	e.ins("VPADDD %s, %s, %s", x.r(v), x.r(t), x.r(t))
	e.ins("VPSRLD $16, %s, %s", x.r(t), x.r(t))
	e.ins("VBLENDVPS %s, %s, %s, %s", x.r(m), x.r(q), x.r(t), x.r(t))
	// Pack works within 128-bit halves; bring both packed quarters together.
	e.ins("VPACKUSDW %s, %s, %s", x.r(t), x.r(t), x.r(t))
	e.ins("VPERMQ $8, %s, %s", x.r(t), x.r(t))
	e.ins("VMOVDQU X%d, %s", t.reg, a)
}

func (x *x86Vectors) reduce(e *rowEmitter, op string, accs []operand) {
	f := map[string]string{"add": "VADDPS", "max": "VMAXPS", "add64": "VADDPD"}[op]
	join := func(prefix string, a, b int) {
		e.ins("%s %s%d, %s%d, %s%d", f, prefix, b, prefix, a, prefix, a)
	}
	p := "Y"
	if x.wide {
		p = "Z"
	}
	for step := 1; step < len(accs); step *= 2 {
		for i := 0; i+step < len(accs); i += 2 * step {
			join(p, accs[i].reg, accs[i+step].reg)
		}
	}
	a := accs[0].reg
	t := e.tmp().reg
	if x.wide {
		e.ins("VEXTRACTF64X4 $1, Z%d, Y%d", a, t)
		join("Y", a, t)
	}
	e.ins("VEXTRACTF128 $1, Y%d, X%d", a, t)
	join("X", a, t)
	e.ins("VPERMILPD $1, X%d, X%d", a, t)
	join("X", a, t)
	_, ret := e.k.frame()
	if op == "add64" {
		e.ins("VMOVSD X%d, ret+%d(FP)", a, ret)
		return
	}
	e.ins("VMOVSHDUP X%d, X%d", a, t)
	join("X", a, t)
	e.ins("VMOVSS X%d, ret+%d(FP)", a, ret)
}
