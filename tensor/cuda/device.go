// Package cuda is the device that computes on an NVIDIA GPU, without cgo: the driver
// (libcuda), cuBLASLt and cuDNN are opened at run time (library.go). Kernels of our
// own are CUDA C++ in kernels/, embedded as PTX, which the driver compiles for the
// GPU at hand (module.go).
//
// Every operation is enqueued on one stream and nothing waits for it but Sync and
// Read; errors of calls are kept and reported by Sync. Operations allocate nothing
// but a workspace that grows (memory.go), so that a program that ran once can be
// captured as a graph (graph.go).
//
// A device keeps activations and weights as F32 or as BF16, statistics and losses in
// F32 (see tensor.Ops). Each operation has a file of its name here, and kernels of the
// same name in kernels/; docs/kernels.md has their floors and what they reach.
package cuda

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"ringtail/tensor"
)

// Options of Open.
type Options struct {
	Index int          // of the GPU, as the driver counts
	Float tensor.Dtype // of activations and weights: F32 or BF16; 0: F32
	// Memory is the most bytes that tensors may take; 0: what the GPU has.
	Memory int
	// Fast allows what gives other bytes on another run: attention whose gradients are
	// added in any order, products by the algorithm that was fastest when timed.
	Fast bool
	// TF32 lets products of F32 round their operands to 10 bits of fraction, which tensor
	// cores take; sums stay float32.
	TF32 bool
}

// Device is one GPU.
type Device struct {
	opt     Options
	ops     tensor.Ops
	gpu     Info
	handle  int32 // CUdevice
	context uintptr
	stream  uintptr
	err     error // the first one

	memory   memory
	transfer transfer
	modules  modules
	blas     blas
	dnn      dnn
	graphs   int  // alive
	capture  bool // under way
	profile  *profile
}

// Info describes a GPU.
type Info struct {
	Name            string `json:"name"`
	Memory          int    `json:"memory_bytes"`
	Capability      int    `json:"compute_capability"` // 90 for 9.0
	Multiprocessors int    `json:"multiprocessors"`
	SharedMemory    int    `json:"shared_memory_bytes"` // that a block may have at most
}

// Attributes of cuDeviceGetAttribute.
const (
	attributeMultiprocessors = 16
	attributeMajor           = 75
	attributeMinor           = 76
	attributeSharedOptin     = 97
)

// HasDriver tells whether this machine seems to be one for NVIDIA's GPUs, whether or not
// they work: it has a driver, or devices of it, or its user named one.
func HasDriver() bool {
	loadDriver()
	if named := os.Getenv("RINGTAIL_LIBCUDA"); named != "" && named != "off" {
		return true
	}
	_, err := os.Stat("/dev/nvidiactl")
	return cu.handle != 0 || err == nil
}

// Devices lists the machine's GPUs. The error says why there is none.
func Devices() ([]Info, error) {
	if err := loadDriver(); err != nil {
		return nil, err
	}
	n, err := count()
	if err != nil {
		return nil, err
	}
	var out []Info
	for i := range n {
		_, g, err := describe(i)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

// count is the number of GPUs, at least one.
func count() (int, error) {
	var n int32
	if err := check("cuDeviceGetCount", call(cu.deviceGetCount, address(&n))); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, errNoGPU
	}
	return int(n), nil
}

var errNoGPU = errors.New("the NVIDIA driver sees no GPU; see whether nvidia-smi lists one, and start a container with --gpus all")

func describe(index int) (handle int32, g Info, err error) {
	if err := check("cuDeviceGet", call(cu.deviceGet, address(&handle), uintptr(index)), "no GPU %d", index); err != nil {
		return 0, g, err
	}
	name := make([]byte, 256)
	if err := check("cuDeviceGetName", call(cu.deviceGetName, address(&name[0]), 256, uintptr(handle))); err != nil {
		return 0, g, err
	}
	g.Name = strings.TrimRight(string(name), "\x00")
	var total uint64
	if err := check("cuDeviceTotalMem", call(cu.deviceTotalMem, address(&total), uintptr(handle))); err != nil {
		return 0, g, err
	}
	g.Memory = int(total)
	get := func(attribute int) int {
		var v int32
		if err == nil {
			err = check("cuDeviceGetAttribute", call(cu.deviceGetAttribute, address(&v), uintptr(attribute), uintptr(handle)))
		}
		return int(v)
	}
	g.Capability = 10*get(attributeMajor) + get(attributeMinor)
	g.Multiprocessors, g.SharedMemory = get(attributeMultiprocessors), get(attributeSharedOptin)
	return handle, g, err
}

// Open makes a GPU ready. It must be closed.
func Open(opt Options) (*Device, error) {
	if opt.Float == tensor.Invalid {
		opt.Float = tensor.F32
	}
	if opt.Float != tensor.F32 && opt.Float != tensor.BF16 {
		return nil, fmt.Errorf("cuda: activations as %v are not supported; F32 and BF16 are", opt.Float)
	}
	if err := loadDriver(); err != nil {
		return nil, err
	}
	d := &Device{opt: opt}
	n, err := count()
	if err != nil {
		return nil, err
	}
	if opt.Index < 0 || opt.Index >= n {
		return nil, fmt.Errorf("the machine has no cuda:%d; its last GPU is cuda:%d", opt.Index, n-1)
	}
	if d.handle, d.gpu, err = describe(opt.Index); err != nil {
		return nil, err
	}
	if d.gpu.Capability < 80 {
		return nil, fmt.Errorf("cuda:%d is a %s of compute capability %d.%d; 8.0 (Ampere, 2020) is the least: use a newer GPU, or device: cpu", opt.Index, d.gpu.Name,
			d.gpu.Capability/10, d.gpu.Capability%10)
	}
	// The primary context is the one that cuBLASLt and cuDNN work in.
	if err := check("cuDevicePrimaryCtxRetain", call(cu.primaryCtxRetain, address(&d.context), uintptr(d.handle))); err != nil {
		return nil, fmt.Errorf("%w; see in nvidia-smi whether another program fills cuda:%d or has it to itself", err, opt.Index)
	}
	d.enter()
	defer d.leave()
	const nonBlocking = 1
	if err := check("cuStreamCreate", call(cu.streamCreate, address(&d.stream), nonBlocking)); err != nil {
		d.Close()
		return nil, err
	}
	// Libraries of hundreds of megabytes: each on a thread of its own.
	var libraries sync.WaitGroup
	for _, open := range []func(){d.openBLAS, d.openDNN} {
		libraries.Go(func() {
			d.enter()
			defer d.leave()
			open()
		})
	}
	err = d.memory.open(d)
	if err == nil {
		_, err = d.function(smallest, 0) // does this driver take the kernels at all?
	}
	if err == nil {
		err = d.transfer.open()
	}
	libraries.Wait()
	if err != nil {
		d.Close()
		return nil, err
	}
	d.table()
	return d, nil
}

// Close frees everything that the device holds. Tensors on it must not be used after.
// After an error that ended the context there is nothing that the driver would free, and
// its libraries may crash when asked to: all is left to the end of the process.
func (d *Device) Close() {
	d.modules.quiesce()
	if Sticky(d.err) {
		d.context, d.stream = 0, 0
		return
	}
	d.enter()
	defer d.leave()
	if d.stream != 0 {
		call(cu.streamSync, d.stream)
	}
	d.closeDNN()
	d.closeBLAS()
	d.modules.close()
	d.memory.close(d)
	d.transfer.close()
	if d.stream != 0 {
		call(cu.streamDestroy, d.stream)
		d.stream = 0
	}
	if d.context != 0 {
		call(cu.primaryCtxRelease, uintptr(d.handle))
		d.context = 0
	}
}

// enter ties the goroutine to its thread and makes the device's context that thread's,
// until leave: a goroutine may be on another thread at each call.
func (d *Device) enter() {
	runtime.LockOSThread()
	call(cu.ctxSetCurrent, d.context)
}

func (d *Device) leave() { runtime.UnlockOSThread() }

// Name is "cuda:0" for the first GPU.
func (d *Device) Name() string { return fmt.Sprintf("cuda:%d", d.opt.Index) }

// Host is false.
func (d *Device) Host() bool { return false }

// Float is the type of activations and weights, F32 or BF16.
func (d *Device) Float() tensor.Dtype { return d.opt.Float }

// Ops is the table of operations, the same at every call.
func (d *Device) Ops() *tensor.Ops { return &d.ops }

// Info describes the GPU.
func (d *Device) Info() Info { return d.gpu }

// Sync waits for everything enqueued and returns the first error of all calls so far.
// From that error on nothing was enqueued, since it might have worked on memory that
// there isn't. One that has ended the GPU's context is returned by every Sync from then on.
func (d *Device) Sync() error {
	d.enter()
	defer d.leave()
	if !Sticky(d.err) {
		d.fail(check("cuStreamSynchronize", call(cu.streamSync, d.stream)))
	}
	return d.told()
}

// told is the first error so far, which the caller is to pass on.
func (d *Device) told() error {
	err := d.err
	if !Sticky(err) {
		d.err = nil
	}
	return err
}

// fail keeps the first error, but for one that ends the context: what failed before was
// its doing, or does not matter any more.
func (d *Device) fail(err error) {
	switch {
	case err == nil || Sticky(d.err):
	case Sticky(err):
		d.err = fmt.Errorf("%s has stopped; the fault may be an earlier kernel's, which CUDA_LAUNCH_BLOCKING=1 finds: %w", d.Name(), err)
	case d.err == nil:
		d.err = err
	}
}

// failed tells that nothing more is to be enqueued until Sync has told why.
func (d *Device) failed() bool { return d.err != nil }

func (d *Device) multiprocessors() int { return d.gpu.Multiprocessors }

// suffix is the end of kernels' names for an element type.
func suffix(t tensor.Dtype) string {
	switch t {
	case tensor.F32:
		return "f32"
	case tensor.F64:
		return "f64"
	case tensor.BF16:
		return "bf16"
	case tensor.F16:
		return "f16"
	}
	panic("cuda: no kernels for elements of type " + t.String())
}

// aligned16 tells whether every row of each tensor starts at a multiple of 16 bytes and
// is one long. Absent tensors are.
func aligned16(ts ...tensor.Tensor) bool {
	for _, t := range ts {
		if t.IsZero() {
			continue
		}
		size := t.Dtype.Size()
		if t.Addr%16 != 0 || t.Cols()*size%16 != 0 || t.Rows() > 1 && t.Stride*size%16 != 0 {
			return false
		}
	}
	return true
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
