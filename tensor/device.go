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

// SetFloat32 writes numbers into a dense F32 or F64 tensor of as many elements.
func SetFloat32(dst Tensor, v []float32) {
	if dst.Dtype == F64 {
		w := make([]float64, len(v))
		for i, x := range v {
			w[i] = float64(x)
		}
		dst.Device.Write(dst, bytesOf(w))
		return
	}
	mustBe(dst, F32)
	dst.Device.Write(dst, bytesOf(v))
}

// SetFloat64 writes numbers into a dense F32 or F64 tensor of as many elements.
func SetFloat64(dst Tensor, v []float64) {
	if dst.Dtype == F64 {
		dst.Device.Write(dst, bytesOf(v))
		return
	}
	mustBe(dst, F32)
	w := make([]float32, len(v))
	for i, x := range v {
		w[i] = float32(x)
	}
	dst.Device.Write(dst, bytesOf(w))
}

// GetFloat64 reads a dense F32 or F64 tensor.
func GetFloat64(src Tensor) []float64 {
	out := make([]float64, src.Len())
	if src.Dtype == F64 {
		src.Device.Read(bytesOf(out), src)
		return out
	}
	for i, x := range GetFloat32(src) {
		out[i] = float64(x)
	}
	return out
}

// GetFloat32 reads a dense F32 or F64 tensor.
func GetFloat32(src Tensor) []float32 {
	out := make([]float32, src.Len())
	if src.Dtype == F64 {
		for i, x := range GetFloat64(src) {
			out[i] = float32(x)
		}
		return out
	}
	mustBe(src, F32)
	src.Device.Read(bytesOf(out), src)
	return out
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
