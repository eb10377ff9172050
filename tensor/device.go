package tensor

import (
	"fmt"
	"unsafe"
)

// Device is a place where tensors live and operations run. Operations are
// enqueued and may run later, in the order they were enqueued; Sync waits for
// all of them and returns the first error. A Device is used by one goroutine at
// a time.
type Device interface {
	// Name is how a recipe names the device: "cpu", "cuda:0", "ref".
	Name() string
	// Host tells whether the device's memory is ordinary host memory.
	Host() bool
	// Float is the type in which the device keeps activations: F32 on the CPU,
	// F64 on the reference device.
	Float() Dtype
	// Alloc returns at least n bytes of zeroed memory, aligned to Align at least.
	Alloc(n int) (*Buffer, error)
	// Write copies host memory into dst, whose bytes it must equal in number;
	// dst is dense.
	Write(dst Tensor, src []byte)
	// Read copies src, which is dense, to host memory after everything enqueued
	// before it.
	Read(dst []byte, src Tensor)
	// Sync waits for everything enqueued and returns the first error.
	Sync() error
	// Ops is the device's table of operations.
	Ops() *Ops
}

// Buffer is memory allocated on a device. Tensors that view it must not be used
// after Free.
type Buffer struct {
	Device Device
	Addr   uintptr
	Size   int // bytes, as asked for
	Free   func()
}

// Tensor is a dense tensor at a byte offset of the buffer.
func (b *Buffer) Tensor(offset int, d Dtype, shape ...int) Tensor {
	t := Tensor{Device: b.Device, Dtype: d, Shape: shape, Addr: b.Addr + uintptr(offset)}
	t.Stride = t.Cols()
	if offset < 0 || offset+t.Bytes() > b.Size {
		panic(fmt.Sprintf("tensor: %v at offset %d of a buffer of %d bytes", t, offset, b.Size))
	}
	return t
}

// New allocates a buffer that holds one zeroed tensor.
func New(dev Device, d Dtype, shape ...int) (Tensor, *Buffer, error) {
	t := Tensor{Shape: shape, Dtype: d}
	t.Stride = t.Cols()
	b, err := dev.Alloc(max(t.Bytes(), 1))
	if err != nil {
		return Tensor{}, nil, err
	}
	return b.Tensor(0, d, shape...), b, nil
}

func bytesOf[E any](s []E) []byte {
	var e E
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(e)))
}

// SetInt32 writes whole numbers into a dense I32 tensor of as many elements.
func SetInt32(dst Tensor, v []int32) { dst.Device.Write(dst, bytesOf(v)) }

// SetFloat32 writes numbers into a dense float tensor of as many elements,
// rounding to nearest, ties to even, where its type is narrower.
func SetFloat32(dst Tensor, v []float32) {
	switch dst.mustBeFloat(); dst.Dtype {
	case F32:
		dst.Device.Write(dst, bytesOf(v))
	case F64:
		set(dst, v, func(to []float64, from []float32) {
			for i, x := range from {
				to[i] = float64(x)
			}
		})
	default:
		set(dst, v, func(to []uint16, from []float32) { narrow(to, dst.Dtype, from) })
	}
}

// SetFloat64 writes numbers into a dense float tensor of as many elements,
// rounding to nearest, ties to even, where its type is narrower.
func SetFloat64(dst Tensor, v []float64) {
	switch dst.mustBeFloat(); dst.Dtype {
	case F64:
		dst.Device.Write(dst, bytesOf(v))
	case F32:
		set(dst, v, func(to []float32, from []float64) {
			for i, x := range from {
				to[i] = float32(x)
			}
		})
	default:
		once := make([]float32, min(len(v), chunk))
		set(dst, v, func(to []uint16, from []float64) {
			for i, x := range from {
				once[i] = sticky(x)
			}
			narrow(to, dst.Dtype, once[:len(from)])
		})
	}
}

// GetFloat64 reads a dense float tensor.
func GetFloat64(src Tensor) []float64 {
	out := make([]float64, src.Len())
	switch src.mustBeFloat(); src.Dtype {
	case F64:
		src.Device.Read(bytesOf(out), src)
	case F32:
		get(out, src, func(to []float64, from []float32) {
			for i, x := range from {
				to[i] = float64(x)
			}
		})
	default:
		once := make([]float32, min(len(out), chunk))
		get(out, src, func(to []float64, from []uint16) {
			widen(once, src.Dtype, from)
			for i, x := range once[:len(to)] {
				to[i] = float64(x)
			}
		})
	}
	return out
}

// GetFloat32 reads a dense float tensor, rounding F64 to nearest.
func GetFloat32(src Tensor) []float32 {
	out := make([]float32, src.Len())
	switch src.mustBeFloat(); src.Dtype {
	case F32:
		src.Device.Read(bytesOf(out), src)
	case F64:
		get(out, src, func(to []float32, from []float64) {
			for i, x := range from {
				to[i] = float32(x)
			}
		})
	default:
		get(out, src, func(to []float32, from []uint16) { widen(to, src.Dtype, from) })
	}
	return out
}

// chunk is the number of elements that set and get convert at a time: few enough
// for the cache, and enough for a transfer of some use.
const chunk = 1 << 18

// set writes v, converted, into a dense tensor whose elements are of type E.
func set[E, F any](dst Tensor, v []F, convert func(to []E, from []F)) {
	if len(v) != dst.Len() {
		panic(fmt.Sprintf("tensor: write of %d numbers into %v of %d", len(v), dst, dst.Len()))
	}
	flat, buf := dst.Reshape(len(v)), make([]E, min(len(v), chunk))
	for i := 0; i < len(v); i += chunk {
		n := min(len(v)-i, chunk)
		convert(buf[:n], v[i:i+n])
		dst.Device.Write(flat.Slice(i, n), bytesOf(buf[:n]))
	}
}

// get reads a dense tensor whose elements are of type E, converted, into out.
func get[E, F any](out []F, src Tensor, convert func(to []F, from []E)) {
	flat, buf := src.Reshape(len(out)), make([]E, min(len(out), chunk))
	for i := 0; i < len(out); i += chunk {
		n := min(len(out)-i, chunk)
		src.Device.Read(bytesOf(buf[:n]), flat.Slice(i, n))
		convert(out[i:i+n], buf[:n])
	}
}

func (t Tensor) mustBeFloat() {
	if !t.Dtype.IsFloat() {
		panic(fmt.Sprintf("tensor: %v used as floats", t))
	}
}

// GetInt32 reads a dense I32 tensor.
func GetInt32(src Tensor) []int32 {
	mustBe(src, I32)
	out := make([]int32, src.Len())
	src.Device.Read(bytesOf(out), src)
	return out
}

func mustBe(t Tensor, d Dtype) {
	if t.Dtype != d {
		panic(fmt.Sprintf("tensor: %v used as %v", t, d))
	}
}

// Capturer is a Device that can record what is enqueued and launch it again as one.
type Capturer interface {
	// Capture records what f enqueues, without running it. What f does must have run
	// once before; f must not read, write or allocate.
	Capture(f func()) (Graph, error)
}

// Graph is a recorded sequence of operations. It names addresses: everything that it
// touches must stay where it is.
type Graph interface {
	Launch() // enqueues all of it
	Free()
}
