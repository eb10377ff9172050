package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ringtail/tensor"
)

// dnn is cuDNN's graph library: its handle, and a plan for each shape of attention.
// It is opened for 16-bit devices only, since its attention takes nothing wider.
type dnn struct {
	lib, nvrtc Library
	dnnFuncs
	version int // 91900 is 9.19.0
	handle  uintptr
	// properties is, in tests, a descriptor of a GPU that plans are made for without one.
	properties uintptr
	plans      map[sdpa]*dnnPlan
	// why holds the reasons, in the order met, for which attention was not left to cuDNN.
	why []string
	// tokenStats keeps the forward's statistics in the layout that cuDNN's other users
	// have, [T, Heads] if packed, else [sequences, Heads, Longest], in LSE's memory; only
	// its own backward pass can read them there. Otherwise they are tensor.Attention's.
	tokenStats bool
	// fullRagged lays the gradients of keys and values, before they are summed over the
	// query heads of a group, out by tokens, not by [sequences, Longest].
	fullRagged bool
	// zeroDQ zeroes the accumulator of dQ before each backward pass, which cuDNN has
	// done itself since 9.6 (cudnn-frontend).
	zeroDQ bool
}

// dnnFuncs are cuDNN's functions, their names without "cudnn" and "cudnnBackend".
type dnnFuncs struct {
	getVersion      uintptr `c:"cudnnGetVersion"`
	getCudart       uintptr `c:"cudnnGetCudartVersion"`
	create          uintptr `c:"cudnnCreate"`
	destroy         uintptr `c:"cudnnDestroy"`
	setStream       uintptr `c:"cudnnSetStream"`
	errorString     uintptr `c:"cudnnGetErrorString"`
	lastErrorString uintptr `c:"cudnnGetLastErrorString"`
	createDesc      uintptr `c:"cudnnBackendCreateDescriptor"`
	destroyDesc     uintptr `c:"cudnnBackendDestroyDescriptor"`
	finalize        uintptr `c:"cudnnBackendFinalize"`
	setAttribute    uintptr `c:"cudnnBackendSetAttribute"`
	getAttribute    uintptr `c:"cudnnBackendGetAttribute"`
	execute         uintptr `c:"cudnnBackendExecute"`
}

// leastDNN is 9.10: the first whose masked scores are −∞ and whose packed backward
// pass needs no second mask. It also zeroes the accumulator of dQ itself (since 9.6).
const leastDNN = 91000

// openDNN finds cuDNN. Without it attention runs on our own kernels; why says so.
func (d *Device) openDNN() {
	n := &d.dnn
	n.plans = map[sdpa]*dnnPlan{}
	n.lib.Name, n.nvrtc.Name = "cudnn", "nvrtc"
	n.fullRagged = true
	if d.opt.Float == tensor.F32 {
		n.refuse("attention in float32 is not cuDNN's")
		return
	}
	if os.Getenv("RINGTAIL_CUDNN") == "off" {
		n.refuse("hidden by RINGTAIL_CUDNN=off")
		return
	}
	if err := n.open(); err != nil {
		n.lib.Err = err
		n.refuse("%v", err)
		return
	}
	err := n.check("cudnnCreate", call(n.create, address(&n.handle)), "%s", n.lib.Path)
	if err == nil {
		err = n.check("cudnnSetStream", call(n.setStream, n.handle, d.stream), "")
	}
	if err != nil {
		n.lib.Err = err
		n.refuse("%v", err)
		if n.handle != 0 {
			call(n.destroy, n.handle)
			n.handle = 0
		}
	}
}

// open opens the library and NVRTC, with which cuDNN compiles its attention: it asks the
// loader for it by name alone, and so finds the one that is open already. NVRTC asks for
// its built-in functions likewise, a library beside it that nothing else leads to.
func (n *dnn) open() error {
	n.lib.find(sonames("cudnn", 9)...)
	if n.lib.Err != nil {
		return n.lib.Err
	}
	if err := bindFunctions(&n.dnnFuncs, n.lib.handle); err != nil {
		return fmt.Errorf("%s: %w", n.lib.Path, err)
	}
	n.version = int(callSize(n.getVersion))
	n.lib.Version = fmt.Sprintf("%d.%d.%d", n.version/10000, n.version%10000/100, n.version%100)
	if n.version < leastDNN {
		return fmt.Errorf("%s is cuDNN %s; 9.10.0 is the least", n.lib.Path, n.lib.Version)
	}
	if cudart := int(callSize(n.getCudart)); cudart > 0 {
		n.nvrtc.find(sonames("nvrtc", cudart/1000)...)
		if dir := filepath.Dir(n.nvrtc.Path); n.nvrtc.Err == nil && dir != "." {
			beside, _ := filepath.Glob(filepath.Join(dir, "libnvrtc-builtins.so.*"))
			for _, file := range beside {
				openLibrary(file) // without it cuDNN says which plan it can't compile
			}
		}
	}
	return nil
}

func (d *Device) closeDNN() {
	n := &d.dnn
	for _, p := range n.plans {
		p.free()
	}
	if n.handle != 0 {
		call(n.destroy, n.handle)
	}
	*n = dnn{}
}

// refuse remembers why cuDNN did not take a case.
func (n *dnn) refuse(format string, args ...any) {
	reason := fmt.Sprintf(format, args...)
	const most = 16
	if len(n.why) >= most {
		return
	}
	for _, w := range n.why {
		if w == reason {
			return
		}
	}
	n.why = append(n.why, reason)
}

// cudnnWhyNot says why attention, or some shapes of it, ran without cuDNN; empty if all ran on it.
func (d *Device) cudnnWhyNot() string { return strings.Join(d.dnn.why, "; ") }

// dnnCodes is added to cuDNN's statuses, so that they are not taken for the driver's.
const dnnCodes = 20000

// check turns a status into an error with cuDNN's own words and what was being done.
func (n *dnn) check(name string, code int32, detail string, args ...any) error {
	if code == 0 {
		return nil
	}
	e := &Error{Call: name, Code: int(code) + dnnCodes, Name: "CUDNN_STATUS", Detail: fmt.Sprintf(detail, args...)}
	if p := callSize(n.errorString, uintptr(code)); p != 0 {
		e.Name = goString(p)
	}
	said := make([]byte, 1024)
	call(n.lastErrorString, address(&said[0]), uintptr(len(said)))
	if words := goString(uintptr(address(&said[0]))); words != "" {
		e.Detail += " (cuDNN: " + strings.TrimSpace(words) + ")"
	}
	return e
}

// Kinds of descriptors (cudnnBackendDescriptorType_t).
const (
	kindPointwise     = 0
	kindEngineConfig  = 3
	kindHeuristics    = 4
	kindPlan          = 5
	kindPointwiseOp   = 13
	kindGraph         = 15
	kindVariantPack   = 16
	kindTensor        = 17
	kindMatmul        = 18
	kindMatmulOp      = 19
	kindReduction     = 21
	kindReductionOp   = 22
	kindReshapeOp     = 31
	kindDevice        = 38
	heuristicsDefault = 3 // CUDNN_HEUR_MODE_A
)

// attr is an attribute and the type of its values (cudnnBackendAttributeName_t, …Type_t).
type attr struct {
	id, typ uintptr
	name    string
}

const (
	typeHandle     = 0
	typeDataType   = 1
	typeBoolean    = 2
	typeInt64      = 3
	typePointer    = 6
	typeHeuristics = 8
	typePointwise  = 14
	typeDescriptor = 15
	typeReduction  = 18
	typeCharacter  = 24

	booleanFalse, booleanTrue = byte(0), byte(1)

	statusNotSupported = 3000
)

var (
	attrPointwiseMode = attr{0, typePointwise, "POINTWISE_MODE"}
	attrPointwiseMath = attr{1, typeDataType, "POINTWISE_MATH_PREC"}
	attrPointwiseAxis = attr{9, typeInt64, "POINTWISE_AXIS"}

	attrHeuristicsMode    = attr{200, typeHeuristics, "ENGINEHEUR_MODE"}
	attrHeuristicsGraph   = attr{201, typeDescriptor, "ENGINEHEUR_OPERATION_GRAPH"}
	attrHeuristicsResults = attr{202, typeDescriptor, "ENGINEHEUR_RESULTS"}
	attrHeuristicsDevice  = attr{204, typeDescriptor, "ENGINEHEUR_DEVICEPROP"}

	attrPlanHandle    = attr{400, typeHandle, "EXECUTION_PLAN_HANDLE"}
	attrPlanConfig    = attr{401, typeDescriptor, "EXECUTION_PLAN_ENGINE_CONFIG"}
	attrPlanWorkspace = attr{402, typeInt64, "EXECUTION_PLAN_WORKSPACE_SIZE"}
	attrPlanDevice    = attr{407, typeDescriptor, "EXECUTION_PLAN_DEVICEPROP"}

	attrPointwiseOpDesc = attr{750, typeDescriptor, "OPERATION_POINTWISE_PW_DESCRIPTOR"}
	attrPointwiseOpX    = attr{751, typeDescriptor, "OPERATION_POINTWISE_XDESC"}
	attrPointwiseOpB    = attr{752, typeDescriptor, "OPERATION_POINTWISE_BDESC"}
	attrPointwiseOpY    = attr{753, typeDescriptor, "OPERATION_POINTWISE_YDESC"}
	attrPointwiseOpT    = attr{758, typeDescriptor, "OPERATION_POINTWISE_TDESC"}

	attrGraphHandle = attr{800, typeHandle, "OPERATIONGRAPH_HANDLE"}
	attrGraphOps    = attr{801, typeDescriptor, "OPERATIONGRAPH_OPS"}

	attrTensorAlignment = attr{900, typeInt64, "TENSOR_BYTE_ALIGNMENT"}
	attrTensorType      = attr{901, typeDataType, "TENSOR_DATA_TYPE"}
	attrTensorDims      = attr{902, typeInt64, "TENSOR_DIMENSIONS"}
	attrTensorStrides   = attr{903, typeInt64, "TENSOR_STRIDES"}
	attrTensorID        = attr{906, typeInt64, "TENSOR_UNIQUE_ID"}
	attrTensorVirtual   = attr{907, typeBoolean, "TENSOR_IS_VIRTUAL"}
	attrTensorByValue   = attr{908, typeBoolean, "TENSOR_IS_BY_VALUE"}
	attrTensorRagged    = attr{913, typeDescriptor, "TENSOR_RAGGED_OFFSET_DESC"}

	attrPackIDs       = attr{1000, typeInt64, "VARIANT_PACK_UNIQUE_IDS"}
	attrPackPointers  = attr{1001, typePointer, "VARIANT_PACK_DATA_POINTERS"}
	attrPackWorkspace = attr{1003, typePointer, "VARIANT_PACK_WORKSPACE"}

	attrMatmulMath   = attr{1500, typeDataType, "MATMUL_COMP_TYPE"}
	attrMatmulOpA    = attr{1520, typeDescriptor, "OPERATION_MATMUL_ADESC"}
	attrMatmulOpB    = attr{1521, typeDescriptor, "OPERATION_MATMUL_BDESC"}
	attrMatmulOpC    = attr{1522, typeDescriptor, "OPERATION_MATMUL_CDESC"}
	attrMatmulOpDesc = attr{1523, typeDescriptor, "OPERATION_MATMUL_DESC"}
	attrMatmulOpM    = attr{1525, typeDescriptor, "OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC"}
	attrMatmulOpN    = attr{1526, typeDescriptor, "OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC"}
	attrMatmulOpK    = attr{1527, typeDescriptor, "OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC"}

	attrReductionMode   = attr{1600, typeReduction, "REDUCTION_OPERATOR"}
	attrReductionMath   = attr{1601, typeDataType, "REDUCTION_COMP_TYPE"}
	attrReductionOpX    = attr{1610, typeDescriptor, "OPERATION_REDUCTION_XDESC"}
	attrReductionOpY    = attr{1611, typeDescriptor, "OPERATION_REDUCTION_YDESC"}
	attrReductionOpDesc = attr{1612, typeDescriptor, "OPERATION_REDUCTION_DESC"}

	attrReshapeOpX = attr{2200, typeDescriptor, "OPERATION_RESHAPE_XDESC"}
	attrDeviceJSON = attr{2702, typeCharacter, "DEVICEPROP_JSON_REPRESENTATION"}

	attrReshapeOpY = attr{2201, typeDescriptor, "OPERATION_RESHAPE_YDESC"}
)

// descriptors makes cuDNN's descriptors and keeps them until free; after a first
// error nothing more is done. what names, in errors, the case that they are made for.
type descriptors struct {
	n    *dnn
	what string
	err  error
	all  []uintptr
}

func (b *descriptors) create(kind uintptr) uintptr {
	if b.err != nil {
		return 0
	}
	var d uintptr
	b.err = b.n.check("cudnnBackendCreateDescriptor", call(b.n.createDesc, kind, address(&d)), "kind %d, for %s", kind, b.what)
	if b.err == nil {
		b.all = append(b.all, d)
	}
	return d
}

func (b *descriptors) finalize(d uintptr, of string) uintptr {
	if b.err == nil {
		b.err = b.n.check("cudnnBackendFinalize", call(b.n.finalize, d), "%s, for %s", of, b.what)
	}
	return d
}

// free destroys the descriptors, the last first.
func (b *descriptors) free() {
	for i := len(b.all) - 1; i >= 0; i-- {
		call(b.n.destroyDesc, b.all[i])
	}
	b.all = nil
}

// setValues sets an attribute; the values are int64 for whole numbers, uintptr for
// descriptors and pointers, int32 for enumerations, a byte for booleans.
func setValues[T int64 | int32 | uintptr | byte](b *descriptors, d uintptr, a attr, values ...T) {
	if b.err != nil {
		return
	}
	code := call(b.n.setAttribute, d, a.id, a.typ, uintptr(len(values)), address(&values[0]))
	b.err = b.n.check("cudnnBackendSetAttribute", code, "%s = %v, for %s", a.name, values, b.what)
}
