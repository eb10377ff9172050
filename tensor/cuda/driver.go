package cuda

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"unsafe"
)

// driver is the CUDA driver, libcuda. Its functions' names are the driver's without "cu";
// each field is the address of a function, called through call. A tag gives the symbol
// where cuda.h maps the name to a later version of it.
type driver struct {
	Library
	version int // 13000 is CUDA 13.0

	init               uintptr `c:"cuInit"`
	driverGetVersion   uintptr `c:"cuDriverGetVersion"`
	getErrorName       uintptr `c:"cuGetErrorName"`
	getErrorString     uintptr `c:"cuGetErrorString"`
	deviceGet          uintptr `c:"cuDeviceGet"`
	deviceGetCount     uintptr `c:"cuDeviceGetCount"`
	deviceGetName      uintptr `c:"cuDeviceGetName"`
	deviceGetAttribute uintptr `c:"cuDeviceGetAttribute"`
	deviceTotalMem     uintptr `c:"cuDeviceTotalMem_v2"`
	deviceGetPool      uintptr `c:"cuDeviceGetDefaultMemPool"`
	primaryCtxRetain   uintptr `c:"cuDevicePrimaryCtxRetain"`
	primaryCtxRelease  uintptr `c:"cuDevicePrimaryCtxRelease_v2"`
	ctxSetCurrent      uintptr `c:"cuCtxSetCurrent"`

	memGetInfo        uintptr `c:"cuMemGetInfo_v2"`
	memAllocAsync     uintptr `c:"cuMemAllocAsync"`
	memFreeAsync      uintptr `c:"cuMemFreeAsync"`
	memPoolSet        uintptr `c:"cuMemPoolSetAttribute"`
	memPoolTrimTo     uintptr `c:"cuMemPoolTrimTo"`
	memHostRegister   uintptr `c:"cuMemHostRegister_v2"`
	memHostUnregister uintptr `c:"cuMemHostUnregister"`
	memcpyHtoDAsync   uintptr `c:"cuMemcpyHtoDAsync_v2"`
	memcpyDtoHAsync   uintptr `c:"cuMemcpyDtoHAsync_v2"`
	memsetD8Async     uintptr `c:"cuMemsetD8Async"`

	streamCreate  uintptr `c:"cuStreamCreate"`
	streamDestroy uintptr `c:"cuStreamDestroy_v2"`
	streamSync    uintptr `c:"cuStreamSynchronize"`
	beginCapture  uintptr `c:"cuStreamBeginCapture_v2"`
	endCapture    uintptr `c:"cuStreamEndCapture"`
	eventCreate   uintptr `c:"cuEventCreate"`
	eventDestroy  uintptr `c:"cuEventDestroy_v2"`
	eventRecord   uintptr `c:"cuEventRecord"`
	eventSync     uintptr `c:"cuEventSynchronize"`
	eventElapsed  uintptr `c:"cuEventElapsedTime"`

	moduleLoadData    uintptr `c:"cuModuleLoadData"`
	moduleUnload      uintptr `c:"cuModuleUnload"`
	moduleGetFunction uintptr `c:"cuModuleGetFunction"`
	linkCreate        uintptr `c:"cuLinkCreate_v2"`
	linkAddData       uintptr `c:"cuLinkAddData_v2"`
	linkComplete      uintptr `c:"cuLinkComplete"`
	linkDestroy       uintptr `c:"cuLinkDestroy"`
	funcSetAttribute  uintptr `c:"cuFuncSetAttribute"`
	launchKernel      uintptr `c:"cuLaunchKernel"`

	graphInstantiate uintptr `c:"cuGraphInstantiateWithFlags"`
	graphLaunch      uintptr `c:"cuGraphLaunch"`
	graphExecDestroy uintptr `c:"cuGraphExecDestroy"`
	graphDestroy     uintptr `c:"cuGraphDestroy"`
}

// cu is the driver, once loadDriver has found it.
var cu driver

// leastDriver is CUDA 12.4: the kernels' PTX is of ISA 8.4, which the drivers of branch
// 550 were the first to compile.
const leastDriver = 12040

const updateDriver = "update the NVIDIA driver to branch 550 (CUDA 12.4) or later"

var loadDriver = sync.OnceValue(func() error {
	cu.Name = "cuda"
	if cu.Err = unsupported(); cu.Err != nil {
		return cu.Err
	}
	cu.find("libcuda.so.1", "libcuda.so")
	if cu.Err != nil {
		return fmt.Errorf("no NVIDIA driver: %w; install it, start a container with --gpus all, or name the file in RINGTAIL_LIBCUDA", cu.Err)
	}
	if err := bindFunctions(&cu, cu.handle); err != nil {
		return fmt.Errorf("%s is not the driver of a GPU of today: %w; %s", cu.Path, err, updateDriver)
	}
	var v int32
	if err := check("cuDriverGetVersion", call(cu.driverGetVersion, address(&v))); err != nil {
		return err
	}
	cu.version = int(v)
	cu.Version = fmt.Sprintf("CUDA %d.%d", v/1000, v%1000/10)
	if cu.version < leastDriver {
		return fmt.Errorf("the NVIDIA driver (%s) is for CUDA %d.%d: %s", cu.Path, v/1000, v%1000/10, updateDriver)
	}
	if err := check("cuInit", call(cu.init, 0)); err != nil {
		return fmt.Errorf("the NVIDIA driver (%s, %s) doesn't start: %w%s", cu.Path, cu.Version, err, startRemedy(err))
	}
	return nil
})

// startRemedy is what may help against a failure of cuInit.
func startRemedy(err error) string {
	var e *Error
	errors.As(err, &e)
	switch e.Code {
	case 3: // NOT_INITIALIZED
		return "; the kernel module is being unloaded or is not there: load it with modprobe nvidia"
	case 34: // STUB_LIBRARY
		return "; that is the toolkit's stub: take its folder out of LD_LIBRARY_PATH and RINGTAIL_CUDA_DIR"
	case 35: // INSUFFICIENT_DRIVER
		return "; " + updateDriver
	case 100: // NO_DEVICE
		if list, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
			return fmt.Sprintf("; CUDA_VISIBLE_DEVICES=%s hides the others: unset it", list)
		}
		return "; see whether nvidia-smi lists a GPU, and start a container with --gpus all"
	case 802: // SYSTEM_NOT_READY
		return "; start nvidia-fabricmanager, which GPUs joined by NVSwitch need"
	case 803: // SYSTEM_DRIVER_MISMATCH
		return "; libcuda and the kernel module are of different versions: reboot after an update of the driver, or take the container's own libcuda away"
	case 804: // COMPAT_NOT_SUPPORTED_ON_DEVICE
		return "; this GPU takes no libcuda newer than its kernel module: take the compat folder out of LD_LIBRARY_PATH"
	case 999: // UNKNOWN
		return "; load the module of unified memory anew (modprobe -r nvidia_uvm, modprobe nvidia_uvm) or reboot"
	}
	return "; see whether nvidia-smi works"
}

// bindFunctions fills the uintptr fields of a struct of functions that have a tag.
func bindFunctions(to any, handle uintptr) error {
	v := reflect.ValueOf(to).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("c")
		if name == "" {
			continue
		}
		f, err := symbol(handle, name)
		if err != nil {
			return fmt.Errorf("it has no %s", name)
		}
		*(*uintptr)(v.Field(i).Addr().UnsafePointer()) = f
	}
	return nil
}

// address is that of a Go variable, as an argument of call.
func address[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

// Error is a failed call of a native library.
type Error struct {
	Call   string // cuMemAllocAsync
	Code   int
	Name   string // CUDA_ERROR_OUT_OF_MEMORY
	Detail string // what was asked for: shapes, sizes; or the library's own words
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s (%d)", e.Call, e.Name, e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Codes of the driver that are looked at.
const (
	errInvalidValue = 1
	errOutOfMemory  = 2
)

// Sticky tells whether an error has ended the GPU's context: nothing on the device
// works until the process ends.
func Sticky(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case 214, 220, 700, 702, 710, 713, 714, 715, 716, 717, 718, 719, 721:
		// ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE, ILLEGAL_ADDRESS, LAUNCH_TIMEOUT, ASSERT, HARDWARE_STACK_ERROR,
		// ILLEGAL_INSTRUCTION, MISALIGNED_ADDRESS, INVALID_ADDRESS_SPACE, INVALID_PC, LAUNCH_FAILED
		return true
	}
	return false
}

// check turns the result of a driver call into an error.
func check(name string, code int32, detail ...any) error {
	if code == 0 {
		return nil
	}
	e := &Error{Call: name, Code: int(code), Name: "unknown error"}
	if cu.getErrorName != 0 {
		var p uintptr
		if call(cu.getErrorName, uintptr(code), address(&p)) == 0 {
			e.Name = goString(p)
		}
		if call(cu.getErrorString, uintptr(code), address(&p)) == 0 {
			e.Detail = goString(p)
		}
	}
	if len(detail) > 0 {
		e.Detail = fmt.Sprintf(detail[0].(string), detail[1:]...)
	}
	return e
}

// goString copies a C string that the library keeps.
func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	b := *(**byte)(unsafe.Pointer(&p))
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(b), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(b, n))
}

func cString(s string) *byte { return &append([]byte(s), 0)[0] }
