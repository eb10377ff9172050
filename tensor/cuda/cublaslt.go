package cuda

import (
	"fmt"
	"unsafe"

	"ringtail/tensor"
)

// blas is cuBLASLt: the library's handle and a plan for each shape of product.
type blas struct {
	lib Library
	ltFuncs
	handle  uintptr
	plans   map[gemmKey]*gemmPlan
	loaded  map[string]gemmChoice // of LoadGEMMChoices
	version int                   // 120401 is 12.4.1
	raced   int                   // products timed
	racing  float64               // milliseconds that this took
}

// ltFuncs are cuBLASLt's functions, their names without "cublasLt".
type ltFuncs struct {
	create            uintptr `c:"cublasLtCreate"`
	destroy           uintptr `c:"cublasLtDestroy"`
	getVersion        uintptr `c:"cublasLtGetVersion"`
	descCreate        uintptr `c:"cublasLtMatmulDescCreate"`
	descDestroy       uintptr `c:"cublasLtMatmulDescDestroy"`
	descSet           uintptr `c:"cublasLtMatmulDescSetAttribute"`
	layoutCreate      uintptr `c:"cublasLtMatrixLayoutCreate"`
	layoutDestroy     uintptr `c:"cublasLtMatrixLayoutDestroy"`
	preferenceCreate  uintptr `c:"cublasLtMatmulPreferenceCreate"`
	preferenceDestroy uintptr `c:"cublasLtMatmulPreferenceDestroy"`
	preferenceSet     uintptr `c:"cublasLtMatmulPreferenceSetAttribute"`
	heuristic         uintptr `c:"cublasLtMatmulAlgoGetHeuristic"`
	algorithmCheck    uintptr `c:"cublasLtMatmulAlgoCheck"`
	matmul            uintptr `c:"cublasLtMatmul"`
}

// Values of cublasLt.h and library_types.h.
const (
	cuda32F  = 0
	cuda16F  = 2
	cuda16BF = 14

	compute32F     = 68
	compute32FTF32 = 77

	descTransA          = 3
	descTransB          = 4
	descEpilogue        = 7
	descBiasPointer     = 8
	descAuxPointer      = 11
	descAuxStride       = 12
	descBiasDataType    = 26
	epilogueBias        = 4
	epilogueGELU        = 32
	epilogueDGELU       = 64
	epilogueAux         = 128
	epilogueBGRADB      = 512 // sums of the second operand's columns, in cuBLASLt's order: of our A
	preferenceWorkspace = 1
	preferenceReduction = 3
	preferenceAlignA    = 5 // bytes; B, C, D follow

	// Schemes of split-K. All add up in a fixed order, but "in place" and "output type"
	// round the parts to C's type.
	reductionComputeType = 2
	reductionAny         = 7

	heuristicResultSize = 96 // cublasLtMatmulHeuristicResult_t: algorithm (64), workspace (8), status, waves, reserved
	algorithmSize       = 64
)

// Statuses of what the library doesn't do.
const (
	ltInvalidValue = 7
	ltNotSupported = 15
)

// cuBLASLt's statuses.
var ltStatus = map[int32]string{1: "CUBLAS_STATUS_NOT_INITIALIZED", 3: "CUBLAS_STATUS_ALLOC_FAILED", 7: "CUBLAS_STATUS_INVALID_VALUE",
	8: "CUBLAS_STATUS_ARCH_MISMATCH", 11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
	14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED"}

func checkLt(name string, code int32, detail string, args ...any) error {
	if code == 0 {
		return nil
	}
	status := ltStatus[code]
	if status == "" {
		status = "CUBLAS_STATUS"
	}
	return &Error{Call: name, Code: int(code) + ltCodes, Name: status, Detail: fmt.Sprintf(detail, args...)}
}

// ltCodes is added to cuBLASLt's statuses, so that they are not taken for the driver's.
const ltCodes = 10000

// openBLAS finds cuBLASLt. Without it products run on our own kernels.
func (d *Device) openBLAS() {
	b := &d.blas
	b.plans = map[gemmKey]*gemmPlan{}
	b.lib.Name = "cublasLt"
	b.lib.find(sonames("cublasLt", majorsUpTo(cu.version/1000, 12)...)...)
	if b.lib.Err != nil {
		return
	}
	if err := bindFunctions(&b.ltFuncs, b.lib.handle); err != nil {
		b.lib.Err = fmt.Errorf("%s: %w", b.lib.Path, err)
		return
	}
	v := int(callSize(b.getVersion))
	if v < 100000 { // 11502 is 11.5.2
		v = v/1000*10000 + v%1000/100*100 + v%100
	}
	b.version = v
	b.lib.Version = fmt.Sprintf("%d.%d.%d", v/10000, v%10000/100, v%100)
	switch least := 12; {
	case v/10000 < least:
		b.lib.Err = fmt.Errorf("%s is cuBLASLt %s; %d.0 is the least", b.lib.Path, b.lib.Version, least)
		return
	case v/10000 > cu.version/1000:
		b.lib.Err = fmt.Errorf("%s is cuBLASLt %s, for newer drivers than this one of %s", b.lib.Path, b.lib.Version, cu.Version)
		return
	}
	b.lib.Err = checkLt("cublasLtCreate", call(b.create, address(&b.handle)), "%s", b.lib.Path)
}

// majorsUpTo lists major versions from newest to oldest.
func majorsUpTo(newest, oldest int) []int {
	var out []int
	for m := max(newest, oldest); m >= oldest; m-- {
		out = append(out, m)
	}
	return out
}

func (d *Device) closeBLAS() {
	b := &d.blas
	for _, p := range b.plans {
		p.free(b)
	}
	if b.handle != 0 {
		call(b.destroy, b.handle)
	}
	*b = blas{}
}

// gemmKey is everything that a plan depends on.
type gemmKey struct {
	m, n, k             int
	lda, ldb, ldc       int
	transA, transB      bool
	typeA, typeB, typeC tensor.Dtype
	accumulate, bias    bool
	typeBias            tensor.Dtype
	alignA, alignB      uint8 // bytes, a power of two of at most 128
	alignC, alignBias   uint8
	tf32                bool

	dBias    bool
	fused    tensor.Fusion
	ldPre    int
	alignPre uint8

	scaleA, scaleB uint8 // scaleNone but of 8-bit floats
	fastSum        bool
}

// gemmPlan is a product made ready: descriptors and the algorithm. refused: cuBLASLt
// doesn't take it.
type gemmPlan struct {
	desc, a, b, c uintptr
	candidate
	chosen  gemmChoice
	refused bool
	apart   bool // the product is faster by itself, and what goes with it by kernels of our own
}

func (p *gemmPlan) free(b *blas) {
	if p.desc != 0 {
		call(b.descDestroy, p.desc)
	}
	for _, l := range []uintptr{p.a, p.b, p.c} {
		if l != 0 {
			call(b.layoutDestroy, l)
		}
	}
	*p = gemmPlan{}
}

// ltType is cuBLASLt's number of an element type, -1 where it has none that we use.
func ltType(t tensor.Dtype) int {
	switch t {
	case tensor.F32:
		return cuda32F
	case tensor.F16:
		return cuda16F
	case tensor.BF16:
		return cuda16BF
	case tensor.F8E4M3:
		return cudaE4M3
	case tensor.F8E5M2:
		return cudaE5M2
	}
	return -1
}

// epilogue is cuBLASLt's number of what goes with a product; 0 for nothing.
func (k gemmKey) epilogue() (e int32) {
	if k.bias {
		e |= epilogueBias
	}
	switch {
	case k.dBias:
		e |= epilogueBGRADB
	case k.fused == tensor.GELUForward:
		e |= epilogueGELU | epilogueAux
	case k.fused == tensor.GELUBackward:
		e |= epilogueDGELU | epilogueAux
	}
	return e
}

// alignment is the largest power of two, up to 128, that divides the addresses of all rows.
func alignment(t tensor.Tensor) uint8 {
	a := uint8(128)
	for a > 1 && (t.Addr%uintptr(a) != 0 || t.Rows() > 1 && t.Stride*t.Dtype.Size()%int(a) != 0) {
		a /= 2
	}
	return a
}

// gemmWorkspace is the scratch that algorithms may use: what NVIDIA advises for Hopper.
const gemmWorkspace = 32 << 20

// describe makes a product's descriptors, those of a refused plan where cuBLASLt has no such
// types. cuBLASLt thinks in columns: a row-major C = A·B is a column-major Cᵀ = Bᵀ·Aᵀ, so
// that its first operand is our B.
func (b *blas) describe(k gemmKey) (*gemmPlan, error) {
	p := &gemmPlan{}
	taken := ltType(k.typeA) >= 0 && k.typeA == k.typeB && (k.typeC == k.typeA || k.typeC == tensor.F32) ||
		k.scaleA != scaleNone && (k.typeC == tensor.BF16 || k.typeC == tensor.F16 || k.typeC == tensor.F32)
	if !taken || b.handle == 0 {
		p.refused = true
		return p, nil
	}
	compute := uintptr(compute32F)
	if k.tf32 {
		compute = compute32FTF32
	}
	err := checkLt("cublasLtMatmulDescCreate", call(b.descCreate, address(&p.desc), compute, cuda32F), "%+v", k)
	set := func(attribute uintptr, value unsafe.Pointer, size uintptr) {
		if err == nil {
			err = checkLt("cublasLtMatmulDescSetAttribute", call(b.descSet, p.desc, attribute, value, size), "attribute %d of %+v", attribute, k)
		}
	}
	op := func(trans bool) *int32 {
		v := new(int32)
		if trans {
			*v = 1
		}
		return v
	}
	set(descTransA, unsafe.Pointer(op(k.transB)), 4)
	set(descTransB, unsafe.Pointer(op(k.transA)), 4)
	if k.scaleA != scaleNone {
		k.describeF8(set)
	}
	if e := k.epilogue(); e != 0 {
		set(descEpilogue, unsafe.Pointer(&e), 4)
	}
	// The heuristic looks at the alignment of addresses that aren't there yet.
	if k.bias || k.dBias {
		t, at := int32(ltType(k.typeC)), uint64(128)
		if k.bias {
			t, at = int32(ltType(k.typeBias)), uint64(k.alignBias)
		}
		set(descBiasDataType, unsafe.Pointer(&t), 4)
		set(descBiasPointer, unsafe.Pointer(&at), 8)
	}
	if k.fused != tensor.Unfused {
		ld, at := int64(k.ldPre), uint64(k.alignPre)
		set(descAuxStride, unsafe.Pointer(&ld), 8)
		set(descAuxPointer, unsafe.Pointer(&at), 8)
	}
	layout := func(to *uintptr, t tensor.Dtype, rows, cols, ld int) {
		if err == nil {
			err = checkLt("cublasLtMatrixLayoutCreate", call(b.layoutCreate, address(to), uintptr(ltType(t)), uintptr(rows), uintptr(cols), uintptr(ld)), "%+v", k)
		}
	}
	if k.transB {
		layout(&p.a, k.typeB, k.k, k.n, k.ldb)
	} else {
		layout(&p.a, k.typeB, k.n, k.k, k.ldb)
	}
	if k.transA {
		layout(&p.b, k.typeA, k.m, k.k, k.lda)
	} else {
		layout(&p.b, k.typeA, k.k, k.m, k.lda)
	}
	layout(&p.c, k.typeC, k.n, k.m, k.ldc)
	if err != nil {
		p.free(b)
		return nil, err
	}
	return p, nil
}

// candidate is an algorithm that cuBLASLt proposes, the most promising first.
type candidate struct {
	algorithm [algorithmSize / 8]uint64
	workspace int
}

func (b *blas) candidates(k gemmKey, p *gemmPlan, most int) ([]candidate, error) {
	var preference uintptr
	if err := checkLt("cublasLtMatmulPreferenceCreate", call(b.preferenceCreate, address(&preference)), "%+v", k); err != nil {
		return nil, err
	}
	defer call(b.preferenceDestroy, preference)
	space := uint64(gemmWorkspace)
	call(b.preferenceSet, preference, preferenceWorkspace, address(&space), 8)
	reduction := uint32(reductionAny)
	if k.typeC != tensor.F32 {
		reduction = reductionComputeType
	}
	call(b.preferenceSet, preference, preferenceReduction, address(&reduction), 4)
	for i, a := range []uint8{k.alignB, k.alignA, k.alignC, k.alignC} {
		align := uint32(a)
		call(b.preferenceSet, preference, uintptr(preferenceAlignA+i), address(&align), 4)
	}
	results := make([]uint64, most*heuristicResultSize/8)
	var n int32
	code := call(b.heuristic, b.handle, p.desc, p.a, p.b, p.c, p.c, preference, uintptr(most), address(&results[0]), address(&n))
	if code == ltNotSupported || code == ltInvalidValue || code == 0 && n == 0 { // invalid: a bias of another type than C
		return nil, nil
	}
	if err := checkLt("cublasLtMatmulAlgoGetHeuristic", code, "%+v", k); err != nil {
		return nil, err
	}
	var out []candidate
	for i := range int(n) {
		r := results[i*heuristicResultSize/8:][:heuristicResultSize/8]
		if int32(r[9]) != 0 { // state
			continue
		}
		c := candidate{workspace: int(r[8])}
		copy(c.algorithm[:], r[:8])
		out = append(out, c)
	}
	return out, nil
}

// verify tells whether the library takes an algorithm for a product, and with which workspace.
func (b *blas) verify(p *gemmPlan, algorithm [algorithmSize / 8]uint64) (candidate, bool) {
	var result [heuristicResultSize / 8]uint64
	code := call(b.algorithmCheck, b.handle, p.desc, p.a, p.b, p.c, p.c, address(&algorithm[0]), address(&result[0]))
	c := candidate{algorithm: algorithm, workspace: int(result[8])}
	return c, code == 0 && int32(result[9]) == 0 && c.workspace <= gemmWorkspace
}
