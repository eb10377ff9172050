package main

import "fmt"

// Kernels of the matrix product. ../gemm.go documents what tiles and dots
// compute and how operands lie. gemm_x86.go and gemm_neon.go emit them.

func init() {
	generators = append(generators, func() map[string][]byte {
		x86, neon := newAsmFile("cpu"), newAsmFile("cpu")
		gemmX86(x86)
		gemmNEON(neon)
		files := x86.files("gemm", "amd64")
		for name, text := range neon.files("gemm", "arm64") {
			files[name] = text
		}
		return files
	})
}

const (
	tileSignature = "(k int, a unsafe.Pointer, as, ak int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, bias unsafe.Pointer, n, accumulate int)"
	tileArgs      = 88
	dotSignature  = "(k int, x unsafe.Pointer, xs int, w unsafe.Pointer, ws int, out unsafe.Pointer, ox, ow, accumulate int)"
	dotArgs       = 72
	copySignature = "(k, n int, src unsafe.Pointer, ld int, dst unsafe.Pointer, ldd int)"
	copyArgs      = 48
)

// table declares a slice of functions, index 0 empty.
func (f *asmFile) table(name, typ, prefix string, n int) {
	fmt.Fprintf(&f.decl, "\nvar %s = []%s{nil", name, typ)
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&f.decl, ", %s%d", prefix, i)
	}
	f.decl.WriteString("}\n")
}

// dotTable declares dots[x][w].
func (f *asmFile) dotTable(name, prefix string, maxX, maxW int) {
	fmt.Fprintf(&f.decl, "\nvar %s = [][]dotFunc{nil", name)
	for x := 1; x <= maxX; x++ {
		f.decl.WriteString(", {nil")
		for w := 1; w <= maxW; w++ {
			fmt.Fprintf(&f.decl, ", %s%dx%d", prefix, x, w)
		}
		f.decl.WriteString("}")
	}
	f.decl.WriteString("}\n")
}
