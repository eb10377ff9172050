// Package ref is the reference device: every operation of tensor.Ops in plain
// float64 Go, written to be read beside its equation. Tests compare other
// devices with it and take finite differences on it; nothing is fast, nothing
// runs in parallel, and an operation is done when its call returns.
//
// All float tensors are F64. Only Copy also reads and writes narrower types.
// NewRounded gives a device of a narrower type made of the same operations.
package ref

import (
	"fmt"

	"ringtail/tensor"
)

// Device is the reference device. The zero value is ready to use and keeps F64.
type Device struct{ float tensor.Dtype }

// New returns a reference device.
func New() *Device { return &Device{} }

// Name is "ref", followed by the type of a rounded device.
func (d *Device) Name() string {
	if d.float != tensor.Invalid {
		return "ref:" + d.float.String()
	}
	return "ref"
}

// Host is true: the memory is ordinary Go memory.
func (*Device) Host() bool { return true }

// Float is F64, or a rounded device's type.
func (d *Device) Float() tensor.Dtype {
	if d.float != tensor.Invalid {
		return d.float
	}
	return tensor.F64
}

// Sync returns nil: every operation ended when it was called.
func (*Device) Sync() error { return nil }

// Ops is the table of reference operations. It is a fresh copy, which a test may
// alter.
func (d *Device) Ops() *tensor.Ops {
	if d.float != tensor.Invalid {
		return roundedOps(d.float)
	}
	return exactOps()
}

func exactOps() *tensor.Ops {
	return &tensor.Ops{
		Zero:              zero,
		Copy:              copyTensor,
		Add:               add,
		Scale:             scale,
		Matmul:            matmul,
		AMax:              amax,
		Quantize:          quantize,
		SumRows:           sumRows,
		Embedding:         embedding,
		EmbeddingBackward: embeddingBackward,
		RMSNorm:           rmsNorm,
		RMSNormBackward:   rmsNormBackward,
		LayerNorm:         layerNorm,
		LayerNormBackward: layerNormBackward,
		HeadNorm:          headNorm,
		HeadNormBackward:  headNormBackward,
		RoPE:              rope,
		Attention:         attention,
		AttentionBackward: attentionBackward,
		CachedAttention:   cachedAttention,
		GLU:               glu,
		GLUBackward:       gluBackward,
		Activate:          activation,
		ActivateBackward:  activationBackward,
		SoftCap:           softCap,
		SoftCapBackward:   softCapBackward,
		Route:             route,
		RouteBackward:     routeBackward,
		GroupedMatmul:     groupedMatmul,
		GroupedOuter:      groupedOuter,
		Combine:           combine,
		CombineBackward:   combineBackward,
		RouterLoss:        routerLoss,
		CrossEntropy:      crossEntropy,
		LogProb:           logProb,
		LogProbBackward:   logProbBackward,
		SumSquares:        sumSquares,
		ClipFactor:        clipFactor,
		AdamW:             adamW,
		Sample:            sample,
	}
}

// matrix is an F64 tensor as rows of float64.
type matrix struct {
	data               []float64
	rows, cols, stride int
}

func (m matrix) row(i int) []float64 {
	if m.cols == 0 {
		return nil
	}
	return m.data[i*m.stride:][:m.cols]
}

// matrixOf checks that t is F64 [rows, cols] (or any shape of as many rows).
func matrixOf(what string, t tensor.Tensor, rows, cols int) matrix {
	if t.Dtype != tensor.F64 || t.Rank() < 1 || t.Rows() != rows || t.Cols() != cols {
		panic(fmt.Sprintf("ref: %s is %v; it must be F64[%d %d]", what, t, rows, cols))
	}
	return matrix{t.Float64(), rows, cols, t.Stride}
}

// intMatrixOf checks that t is dense I32 [rows, cols].
func intMatrixOf(what string, t tensor.Tensor, rows, cols int) []int32 {
	if t.Dtype != tensor.I32 || t.Rank() != 2 || t.Rows() != rows || t.Cols() != cols || t.Stride != cols {
		panic(fmt.Sprintf("ref: %s is %v; it must be I32[%d %d]", what, t, rows, cols))
	}
	return t.Int32()
}

// vectorOf checks that t is F64 [n].
func vectorOf(what string, t tensor.Tensor, n int) []float64 {
	if t.Dtype != tensor.F64 || t.Rank() != 1 || t.Len() != n {
		panic(fmt.Sprintf("ref: %s is %v; it must be F64[%d]", what, t, n))
	}
	return t.Float64()
}

// intsOf checks that t is I32 [n].
func intsOf(what string, t tensor.Tensor, n int) []int32 {
	if t.Dtype != tensor.I32 || t.Rank() != 1 || t.Len() != n {
		panic(fmt.Sprintf("ref: %s is %v; it must be I32[%d]", what, t, n))
	}
	return t.Int32()
}

// index checks that a number read from an I32 tensor names one of n rows.
func index(what string, i int32, n int) int {
	if i < 0 || int(i) >= n {
		panic(fmt.Sprintf("ref: %s %d is outside [0,%d)", what, i, n))
	}
	return int(i)
}
