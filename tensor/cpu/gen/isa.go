package main

import (
	"bytes"
	"fmt"
	"go/format"
	"math"
	"strings"
)

// A small virtual vector instruction set. A row kernel (rows.go) is a loop over
// runs of n elements, written once against the emitter below and emitted for
// AVX2 with FMA, AVX-512 and NEON by three backends (isa_x86.go, isa_neon.go).
//
// Registers: temporaries grow from register 0 upwards and are given back after
// each body; constants and broadcast arguments live for the whole kernel and
// grow from the last register downwards. The emitter fails if they meet.
//
// Tails: after the vectors comes a rest of n mod lanes elements. Where the
// machine has masks the body runs once with masked loads and stores, on NEON
// once an element with one-lane loads and stores. Either way inactive lanes are
// loaded as 0; a kernel that needs another value there says so by loadFill or
// keep.

// operand is a register or, on AVX2 with its 16 registers, a constant in memory.
type operand struct {
	reg  int
	mem  string
	zero bool // the constant 0
}

func (o operand) isMem() bool { return o.mem != "" }

type paramKind int

const (
	ptr32 paramKind = iota // *float32, a slice in the Go function
	ptr16                  // *uint16, a slice in the Go function
	f32                    // float32
)

type rowParam struct {
	name string
	kind paramKind
}

// rowKernel is one row kernel. Its Go function takes the params in order, slices of
// the length of the first; the assembly takes n and pointers.
type rowKernel struct {
	name   string
	doc    string
	params []rowParam
	result string // "", "float32" or "float64"
	empty  string // result for an empty run, "0" if absent
	whole  bool   // only whole vectors: the Go function gives the rest (n mod 16) to plain Go
	body   func(e *rowEmitter)
}

// rowISA emits one instruction set.
type rowISA interface {
	suffix() string
	lanes() int
	registers() int
	begin(e *rowEmitter)
	// loop emits the loop around body, with tail unless the kernel takes whole vectors only.
	loop(e *rowEmitter, unroll int, body func(u int))
	end(e *rowEmitter)

	constant(e *rowEmitter, v float32) operand
	arg(e *rowEmitter, name string, r operand)
	countFrom(e *rowEmitter, r operand) // ahead of the loop: r += 0, 1, 2, … by lane

	load(e *rowEmitter, d operand, ptr string, u int)
	loadFill(e *rowEmitter, d operand, ptr string, u int, fill operand)
	store(e *rowEmitter, ptr string, u int, v operand)
	keep(e *rowEmitter, v operand)
	mov(e *rowEmitter, d, a operand)
	bin(e *rowEmitter, op string, d, a, b operand) // add sub mul div max min maxnum
	fma(e *rowEmitter, d, a, b, c operand)         // a·b + c
	fnma(e *rowEmitter, d, a, b, c operand)        // c - a·b
	sqrt(e *rowEmitter, d, a operand)
	round(e *rowEmitter, d, a operand) // to nearest, ties to even
	abs(e *rowEmitter, d, a operand)
	selNeg(e *rowEmitter, d, s, a, b operand)        // sign bit of s ? a : b
	zeroBelow(e *rowEmitter, d, v, x, bound operand) // x < bound ? 0 : v
	pow2(e *rowEmitter, d, p, n operand)             // p·2^n, n whole; clobbers n
	add64(e *rowEmitter, lo, hi, v operand)          // two float64 accumulators += v
	squares64(e *rowEmitter, lo, hi, v operand)      // two float64 accumulators += v²
	widen(e *rowEmitter, format string, d operand, ptr string, u int)
	narrow(e *rowEmitter, format string, ptr string, u int, v operand)

	reduce(e *rowEmitter, op string, accs []operand) // add max add64: to the result
}

type rowEmitter struct {
	rowISA
	k         *rowKernel
	pre, body strings.Builder
	out       *strings.Builder
	used      [32]bool // registers that hold temporaries
	highest   int      // most registers that temporaries ever took
	top       int      // constants are above
	consts    map[uint32]operand
	tail      bool
	data      *constTable
}

// constTable is the pool of constants of one assembly file.
type constTable struct {
	slot   map[uint32]int
	values []uint32
	width  int // bytes a slot
}

func (t *constTable) offset(v float32) int {
	bits := math.Float32bits(v)
	i, ok := t.slot[bits]
	if !ok {
		i = len(t.values)
		t.slot[bits] = i
		t.values = append(t.values, bits)
	}
	return i * t.width
}

func (t *constTable) emit(w *bytes.Buffer) {
	for i, v := range t.values {
		for j := 0; j < t.width; j += 4 {
			fmt.Fprintf(w, "DATA rowConst<>+%d(SB)/4, $0x%08x\n", i*t.width+j, v)
		}
	}
	fmt.Fprintf(w, "GLOBL rowConst<>(SB), RODATA|NOPTR, $%d\n\n", len(t.values)*t.width)
}

func (e *rowEmitter) ins(f string, a ...any) { fmt.Fprintf(e.out, "\t"+f+"\n", a...) }
func (e *rowEmitter) label(l string)         { fmt.Fprintf(e.out, "%s:\n", l) }

// tmp is a fresh register, given back at the end of the scope or body.
func (e *rowEmitter) tmp() operand {
	r := 0
	for e.used[r] {
		r++
	}
	e.used[r] = true
	e.highest = max(e.highest, r+1)
	return operand{reg: r}
}

// scope begins a stretch of code; the function it returns ends it and gives back
// the registers taken since, except those of keep.
func (e *rowEmitter) scope() func(keep ...operand) {
	used := e.used
	return func(keep ...operand) {
		e.used = used
		for _, o := range keep {
			e.used[o.reg] = true
		}
	}
}

// hold is a register for the whole kernel.
func (e *rowEmitter) hold() operand {
	r := e.top
	e.top--
	return operand{reg: r}
}

// c is a constant.
func (e *rowEmitter) c(v float64) operand {
	f := float32(v)
	if o, ok := e.consts[math.Float32bits(f)]; ok {
		return o
	}
	o := e.constant(e, f)
	o.zero = math.Float32bits(f) == 0
	e.consts[math.Float32bits(f)] = o
	return o
}

// inPre emits what f emits ahead of the loop.
func (e *rowEmitter) inPre(f func()) {
	out := e.out
	e.out = &e.pre
	f()
	e.out = out
}

// argument broadcasts a float argument.
func (e *rowEmitter) argument(name string) operand {
	r := e.hold()
	e.arg(e, name, r)
	return r
}

// counter is a register that holds, for the elements of the vector at hand, the
// argument named plus their index. step moves it on, at the end of a body that is
// not unrolled.
func (e *rowEmitter) counter(name string) (r operand, step func()) {
	r = e.argument(name)
	e.inPre(func() { e.countFrom(e, r) })
	lanes, one := e.c(float64(e.lanes())), e.c(1)
	return r, func() {
		if e.tail {
			e.bin(e, "add", r, r, one) // of one element where the tail is a loop
		} else {
			e.bin(e, "add", r, r, lanes)
		}
	}
}

// accumulators are registers that start as v and live across the loop.
func (e *rowEmitter) accumulators(n int, v float64) []operand {
	accs := make([]operand, n)
	for i := range accs {
		accs[i] = e.tmp()
		e.mov(e, accs[i], e.c(v))
	}
	return accs
}

func (e *rowEmitter) each(unroll int, body func(u int)) {
	e.out = &e.body
	e.loop(e, unroll, func(u int) {
		done := e.scope()
		body(u)
		done()
	})
}

func (e *rowEmitter) Load(ptr string, u int) operand {
	d := e.tmp()
	e.load(e, d, ptr, u)
	return d
}
func (e *rowEmitter) Store(ptr string, u int, v operand) { e.store(e, ptr, u, v) }

func (e *rowEmitter) op(op string, a, b operand) operand {
	d := e.tmp()
	e.bin(e, op, d, a, b)
	return d
}
func (e *rowEmitter) Add(a, b operand) operand { return e.op("add", a, b) }
func (e *rowEmitter) Sub(a, b operand) operand { return e.op("sub", a, b) }
func (e *rowEmitter) Mul(a, b operand) operand { return e.op("mul", a, b) }
func (e *rowEmitter) Div(a, b operand) operand { return e.op("div", a, b) }

// Max and Min let a NaN in b pass.
func (e *rowEmitter) Max(a, b operand) operand { return e.op("max", a, b) }
func (e *rowEmitter) Min(a, b operand) operand { return e.op("min", a, b) }

// FMA is a·b + c, FNMA c - a·b.
func (e *rowEmitter) FMA(a, b, c operand) operand {
	d := e.tmp()
	e.fma(e, d, a, b, c)
	return d
}
func (e *rowEmitter) FNMA(a, b, c operand) operand {
	d := e.tmp()
	e.fnma(e, d, a, b, c)
	return d
}
func (e *rowEmitter) Sqrt(a operand) operand {
	d := e.tmp()
	e.sqrt(e, d, a)
	return d
}
func (e *rowEmitter) Abs(a operand) operand {
	d := e.tmp()
	e.abs(e, d, a)
	return d
}
func (e *rowEmitter) SelNeg(s, a, b operand) operand {
	d := e.tmp()
	e.selNeg(e, d, s, a, b)
	return d
}

// emit is the assembly of one kernel for one backend.
func (k *rowKernel) emit(w *bytes.Buffer, b rowISA, data *constTable) {
	e := &rowEmitter{rowISA: b, k: k, consts: map[uint32]operand{}, data: data, top: b.registers() - 1}
	e.out = &e.pre
	k.body(e)
	e.end(e)
	if e.highest > e.top+1 {
		panic(fmt.Sprintf("%s%s: %d temporaries and %d constants for %d registers",
			k.name, b.suffix(), e.highest, b.registers()-1-e.top, b.registers()))
	}
	args, _ := k.frame()
	fmt.Fprintf(w, "// func %s\nTEXT ·%s%s(SB), NOSPLIT, $0-%d\n", k.asmSignature(b), k.name, b.suffix(), args)
	var head rowEmitter
	head.k, head.out = k, &strings.Builder{}
	b.begin(&head)
	w.WriteString(head.out.String())
	w.WriteString(e.pre.String())
	w.WriteString(e.body.String())
	w.WriteString("\n")
}

// frame is the size of the arguments and the offset of the result.
func (k *rowKernel) frame() (size, result int) {
	size = 8
	for _, p := range k.params {
		if p.kind == f32 {
			size += 4
		} else {
			size += 8
		}
	}
	if k.result == "" {
		return size, 0
	}
	size = (size + 7) &^ 7
	result = size
	if k.result == "float64" {
		return size + 8, result
	}
	return size + 4, result
}

// offset of a parameter in the frame: pointers come before floats.
func (k *rowKernel) offset(name string) int {
	o := 8
	for _, p := range k.params {
		if p.name == name {
			return o
		}
		if p.kind == f32 {
			o += 4
		} else {
			o += 8
		}
	}
	panic("no parameter " + name + " in " + k.name)
}

func (k *rowKernel) pointers() []rowParam {
	var ps []rowParam
	for _, p := range k.params {
		if p.kind != f32 {
			ps = append(ps, p)
		}
	}
	return ps
}

func (k *rowKernel) elem(name string) int {
	for _, p := range k.params {
		if p.name == name && p.kind == ptr16 {
			return 2
		}
	}
	return 4
}

func (k *rowKernel) asmSignature(b rowISA) string {
	s := k.name + b.suffix() + "(n int"
	for _, p := range k.params {
		s += ", " + p.name + [...]string{" *float32", " *uint16", " float32"}[p.kind]
	}
	s += ")"
	if k.result != "" {
		s += " (ret " + k.result + ")"
	}
	return s
}

func (k *rowKernel) goSignature() string {
	var ps []string
	for _, p := range k.params {
		ps = append(ps, p.name+[...]string{" []float32", " []uint16", " float32"}[p.kind])
	}
	s := k.name + "(" + strings.Join(ps, ", ") + ")"
	if k.result != "" {
		s += " " + k.result
	}
	return s
}

// goFunction is the function the package calls: it picks the level.
func (k *rowKernel) goFunction(w *bytes.Buffer, backends []rowISA) {
	for i, l := range strings.Split(strings.TrimSpace(k.doc), "\n") {
		if i == 0 {
			l = k.name + " " + l
		}
		fmt.Fprintf(w, "// %s\n", strings.TrimSpace(l))
	}
	fmt.Fprintf(w, "func %s {\n", k.goSignature())
	var names, starts, rest []string
	first := ""
	for _, p := range k.params {
		names = append(names, p.name)
		if p.kind == f32 {
			starts = append(starts, p.name)
			rest = append(rest, p.name)
		} else {
			if first == "" {
				first = p.name
			}
			starts = append(starts, "&"+p.name+"[0]")
			rest = append(rest, p.name+"[n:]")
		}
	}
	generic := k.name + "Generic(" + strings.Join(names, ", ") + ")"
	ret := ""
	if k.result != "" {
		ret = "return "
	}
	if len(backends) == 0 {
		fmt.Fprintf(w, "\t%s%s\n}\n\n", ret, generic)
		return
	}
	fmt.Fprintf(w, "\tn := len(%s)\n", first)
	if k.whole {
		fmt.Fprintf(w, "\tn &^= 15\n")
	}
	fmt.Fprintf(w, "\tif n == 0 || simdLevel == simdGeneric {\n\t\t%s%s\n", ret, generic)
	if ret == "" {
		fmt.Fprintf(w, "\t\treturn\n")
	}
	fmt.Fprintf(w, "\t}\n")
	for _, p := range k.pointers() {
		if p.name != first {
			fmt.Fprintf(w, "\t_ = %s[n-1]\n", p.name)
		}
	}
	call := func(b rowISA) string {
		return k.name + b.suffix() + "(n, " + strings.Join(starts, ", ") + ")"
	}
	switch {
	case len(backends) == 1:
		fmt.Fprintf(w, "\t%s%s\n", ret, call(backends[0]))
	case ret != "":
		fmt.Fprintf(w, "\tif simdLevel == simd%s {\n\t\t%s%s\n\t}\n\t%s%s\n", backends[1].suffix(), ret, call(backends[1]), ret, call(backends[0]))
	default:
		fmt.Fprintf(w, "\tif simdLevel == simd%s {\n\t\t%s\n\t} else {\n\t\t%s\n\t}\n", backends[1].suffix(), call(backends[1]), call(backends[0]))
	}
	if k.whole {
		fmt.Fprintf(w, "\t%sGeneric(%s)\n", k.name, strings.Join(rest, ", "))
	}
	fmt.Fprintf(w, "}\n\n")
}

// rowFiles are the generated files of the row kernels, by name.
func rowFiles() map[string][]byte {
	files := map[string][]byte{}
	for _, t := range []struct {
		arch, build string
		backends    []rowISA
		width       int
	}{
		{"amd64", "", []rowISA{&x86Vectors{}, &x86Vectors{wide: true}}, 32},
		{"arm64", "", []rowISA{neonVectors{}}, 16},
		{"other", "//go:build !amd64 && !arm64\n\n", nil, 0},
	} {
		data := &constTable{slot: map[uint32]int{}, width: t.width}
		var text, stubs bytes.Buffer
		stubs.WriteString("// Code generated by gen; DO NOT EDIT.\n\n" + t.build + "package cpu\n\n")
		for _, k := range rowKernels() {
			k.goFunction(&stubs, t.backends)
			for _, b := range t.backends {
				fmt.Fprintf(&stubs, "//go:noescape\nfunc %s\n\n", k.asmSignature(b))
				k.emit(&text, b, data)
			}
		}
		src, err := format.Source(stubs.Bytes())
		if err != nil {
			panic(err)
		}
		files["rows_"+t.arch+".go"] = src
		if t.backends == nil {
			continue
		}
		var asm bytes.Buffer
		asm.WriteString("// Code generated by gen; DO NOT EDIT.\n\n#include \"textflag.h\"\n\n")
		data.emit(&asm)
		for i := range 16 {
			fmt.Fprintf(&asm, "DATA rowLane<>+%d(SB)/4, $0x%08x\n", 4*i, math.Float32bits(float32(i)))
		}
		asm.WriteString("GLOBL rowLane<>(SB), RODATA|NOPTR, $64\n\n")
		if t.arch == "amd64" {
			// The mask of an AVX2 tail of r elements starts r words before the middle.
			for i := range 4 {
				fmt.Fprintf(&asm, "DATA rowMask<>+%d(SB)/8, $0xffffffffffffffff\n", 8*i)
			}
			asm.WriteString("GLOBL rowMask<>(SB), RODATA|NOPTR, $64\n\n")
		}
		asm.Write(text.Bytes())
		files["rows_"+t.arch+".s"] = asm.Bytes()
	}
	return files
}
