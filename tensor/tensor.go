// Package tensor defines what every device shares: element types, tensors as
// views of device memory, the Device interface and the table of operations
// (ops.go) that each device fills in.
//
// A Tensor never owns memory. Memory is allocated from a Device as a Buffer;
// tensors are typed windows into it, as cheap to copy as a struct. On the CPU a
// buffer is mapped outside the Go heap, so that the garbage collector never
// scans weights and an address stays what it is for the buffer's life (what a
// captured CUDA graph and registered host memory need as well).
//
// Devices: tensor/ref (float64, plain Go, the oracle), tensor/cpu (float32,
// SIMD). tensor/conformance runs one suite over any of them.
package tensor

import (
	"fmt"
	"unsafe"
)

// Dtype is the type of a tensor's elements.
type Dtype uint8

// The element types. Their names are those of the safetensors format.
const (
	Invalid Dtype = iota
	F32
	F64
	BF16
	F16
	I32
	U8
	F8E4M3
	F8E5M2
)

var dtypes = [...]struct {
	name string
	size int
}{{"invalid", 0}, {"F32", 4}, {"F64", 8}, {"BF16", 2}, {"F16", 2}, {"I32", 4}, {"U8", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}}

// Size is the number of bytes of one element.
func (d Dtype) Size() int { return dtypes[d].size }

func (d Dtype) String() string { return dtypes[d].name }

// Wide is the type of what must be kept more exactly than activations of type d:
// statistics, losses and what they are made of, master weights and moments. F32
// for the 16-bit floats, d itself for F32 and F64.
func (d Dtype) Wide() Dtype {
	if d == BF16 || d == F16 {
		return F32
	}
	return d
}

// IsF8 tells whether elements are 8-bit floats: E4M3 (4 bits of exponent, 3 of fraction, no
// infinity, 448 at most) or E5M2 (57344 at most). They are operands of Matmul only (docs/fp8.md).
func (d Dtype) IsF8() bool { return d == F8E4M3 || d == F8E5M2 }

// IsFloat tells whether elements are floats that every operation takes where it takes floats: not the 8-bit ones.
func (d Dtype) IsFloat() bool { return d == F32 || d == F64 || d == BF16 || d == F16 }

// Align is the alignment in bytes at which parameters and activations start:
// a multiple of the cache line, of an AVX-512 vector, and of what cuBLASLt and
// the tensor memory accelerator ask for.
const Align = 256

// AlignUp rounds a number of bytes up to Align.
func AlignUp(n int) int { return (n + Align - 1) &^ (Align - 1) }

// Tensor is a typed, row-major view of device memory. Elements of the last
// dimension are adjacent; all dimensions before it form rows that stand Stride
// elements apart (Stride equals the last dimension for a dense tensor, more for
// a column window of a wider matrix, such as the q part of a merged qkv).
type Tensor struct {
	Device Device
	Dtype  Dtype
	Shape  []int
	Stride int     // elements from the start of one row to that of the next
	Addr   uintptr // address of the first element in the device's memory
}

// Rank is the number of dimensions.
func (t Tensor) Rank() int { return len(t.Shape) }

// IsZero tells whether t is the absent tensor, as in an optional argument.
func (t Tensor) IsZero() bool { return t.Addr == 0 && t.Shape == nil }

// Cols is the last dimension, 1 for a scalar.
func (t Tensor) Cols() int {
	if len(t.Shape) == 0 {
		return 1
	}
	return t.Shape[len(t.Shape)-1]
}

// Rows is the product of all dimensions but the last.
func (t Tensor) Rows() int {
	n := 1
	for i := 0; i+1 < len(t.Shape); i++ {
		n *= t.Shape[i]
	}
	return n
}

// Len is the number of elements.
func (t Tensor) Len() int { return t.Rows() * t.Cols() }

// Bytes is the number of bytes from the first element to the end of the last.
func (t Tensor) Bytes() int {
	r, c := t.Rows(), t.Cols()
	if r == 0 || c == 0 {
		return 0
	}
	return ((r-1)*t.Stride + c) * t.Dtype.Size()
}

// Dense tells whether rows follow each other without a gap.
func (t Tensor) Dense() bool { return t.Stride == t.Cols() || t.Rows() <= 1 }

// Columns is the window of columns [from, from+n) of every row.
func (t Tensor) Columns(from, n int) Tensor {
	if from < 0 || n < 0 || from+n > t.Cols() {
		panic(fmt.Sprintf("tensor: columns [%d,%d) of a tensor of shape %v", from, from+n, t.Shape))
	}
	s := append([]int(nil), t.Shape...)
	s[len(s)-1] = n
	t.Shape = s
	t.Addr += uintptr(from * t.Dtype.Size())
	return t
}

// Slice is rows [from, from+n) of the first dimension.
func (t Tensor) Slice(from, n int) Tensor {
	if len(t.Shape) == 0 || from < 0 || n < 0 || from+n > t.Shape[0] {
		panic(fmt.Sprintf("tensor: rows [%d,%d) of a tensor of shape %v", from, from+n, t.Shape))
	}
	if len(t.Shape) == 1 {
		return t.Columns(from, n)
	}
	inner := t.Rows() / max(t.Shape[0], 1)
	s := append([]int(nil), t.Shape...)
	s[0] = n
	t.Shape = s
	t.Addr += uintptr(from * inner * t.Stride * t.Dtype.Size())
	return t
}

// Reshape gives a dense tensor another shape with as many elements.
func (t Tensor) Reshape(shape ...int) Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	if n != t.Len() || !t.Dense() {
		panic(fmt.Sprintf("tensor: reshape of %v (dense: %v) to %v", t.Shape, t.Dense(), shape))
	}
	t.Shape = shape
	t.Stride = t.Cols()
	return t
}

func (t Tensor) String() string {
	d := "no device"
	if t.Device != nil {
		d = t.Device.Name()
	}
	return fmt.Sprintf("%s%v on %s", t.Dtype, t.Shape, d)
}

// pointer turns an address outside the Go heap into a pointer without an
// integer conversion that vet would have to trust.
func (t Tensor) pointer() unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&t.Addr)) }

// Pointer is the address of t as a pointer, for kernels of a device whose
// memory is the host's.
func (t Tensor) Pointer() unsafe.Pointer {
	if t.Device == nil || !t.Device.Host() {
		panic("tensor: host pointer to " + t.String())
	}
	return t.pointer()
}

func hostSlice[E any](t Tensor, want Dtype) []E {
	if t.Dtype != want {
		panic(fmt.Sprintf("tensor: %v read as %v", t, want))
	}
	n := t.Bytes() / want.Size()
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*E)(t.Pointer()), n)
}

// Float32 is the memory of an F32 tensor of a host device, from its first
// element to its last (gaps between rows included).
func (t Tensor) Float32() []float32 { return hostSlice[float32](t, F32) }

// Float64 is the memory of an F64 tensor of a host device.
func (t Tensor) Float64() []float64 { return hostSlice[float64](t, F64) }

// Int32 is the memory of an I32 tensor of a host device.
func (t Tensor) Int32() []int32 { return hostSlice[int32](t, I32) }

// Uint8 is the memory of a tensor of U8 or 8-bit floats of a host device.
func (t Tensor) Uint8() []uint8 {
	if t.Dtype.IsF8() {
		return hostSlice[uint8](t, t.Dtype)
	}
	return hostSlice[uint8](t, U8)
}

// Uint16 is the memory of a BF16 or F16 tensor of a host device.
func (t Tensor) Uint16() []uint16 { return hostSlice[uint16](t, t.half()) }

func (t Tensor) half() Dtype {
	if t.Dtype != BF16 && t.Dtype != F16 {
		panic(fmt.Sprintf("tensor: %v read as a 16-bit float", t))
	}
	return t.Dtype
}
