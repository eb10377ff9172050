// Package conformance holds one suite of tests that every tensor.Device must
// pass: each operation is run on the device and on the reference device
// (tensor/ref) with equal inputs over ragged shapes, and the results compared.
// A device's own tests are one line:
//
//	conformance.Run(t, func() tensor.Device { return cpu.Open() })
//
// Every call of an operation is checked for more than its results:
//
//   - the error of an element is |got − want| / max(1, |want|, rms(want)), rms
//     being the root mean square of the whole result, and must not exceed the
//     tolerance of the device's float type. Inputs are of order one, and so is the
//     rounding that a sum of them may carry into an element that happens to
//     cancel; an element larger than its neighbours is held to its own size;
//   - what the reference leaves as it was stays as it was, bit for bit;
//   - inputs, the gaps between rows and the margins around tensors keep their
//     bytes. They, and results before they are written, hold NaN (negative
//     numbers for ids), so that reading them shows as well;
//   - a second run from the same state gives the same bytes.
package conformance

import (
	"fmt"
	"runtime/debug"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// tolerance is the greatest error (see the package comment) by the type in which
// a device keeps floats. The 16-bit types allow for rounding of the result and of
// what an operation stores between its steps.
var tolerance = map[tensor.Dtype]float64{
	tensor.F64:  1e-12,
	tensor.F32:  1e-5,
	tensor.F16:  4e-3,
	tensor.BF16: 3e-2,
}

// sections are the suite's parts, one a subtest.
var sections = []struct {
	name string
	run  func(*suite)
}{
	{"Memory", testMemory},
	{"Order", testOrder},
	{"Zero", testZero},
	{"Copy", testCopy},
	{"Add", testAdd},
	{"Scale", testScale},
	{"Matmul", testMatmul},
	{"SumRows", testSumRows},
	{"Embedding", testEmbedding},
	{"EmbeddingBackward", testEmbeddingBackward},
	{"RMSNorm", testRMSNorm},
	{"RMSNormBackward", testRMSNormBackward},
	{"LayerNorm", testLayerNorm},
	{"LayerNormBackward", testLayerNormBackward},
	{"HeadNorm", testHeadNorm},
	{"HeadNormBackward", testHeadNormBackward},
	{"RoPE", testRoPE},
	{"Attention", testAttention},
	{"AttentionBackward", testAttentionBackward},
	{"CachedAttention", testCachedAttention},
	{"GLU", testGLU},
	{"GLUBackward", testGLUBackward},
	{"Activate", testActivate},
	{"ActivateBackward", testActivateBackward},
	{"SoftCap", testSoftCap},
	{"SoftCapBackward", testSoftCapBackward},
	{"Route", testRoute},
	{"RouteBackward", testRouteBackward},
	{"GroupedMatmul", testGroupedMatmul},
	{"GroupedOuter", testGroupedOuter},
	{"Combine", testCombine},
	{"CombineBackward", testCombineBackward},
	{"RouterLoss", testRouterLoss},
	{"CrossEntropy", testCrossEntropy},
	{"LogProb", testLogProb},
	{"LogProbBackward", testLogProbBackward},
	{"SumSquares", testSumSquares},
	{"ClipFactor", testClipFactor},
	{"AdamW", testAdamW},
	{"Sample", testSample},
	{"SampleSettings", testSampleSettings},
	{"SampleRows", testSampleRows},
}

// Run runs the whole suite on the device that open returns.
func Run(t *testing.T, open func() tensor.Device) {
	dev := open()
	if _, ok := tolerance[dev.Float()]; !ok {
		t.Fatalf("device %q keeps floats as %v; the suite knows no tolerance for that", dev.Name(), dev.Float())
	}
	for _, section := range sections {
		t.Run(section.name, func(t *testing.T) {
			section.run(&suite{dev: dev, ref: ref.New(), report: t.Error})
		})
	}
}

// suite is what the sections share.
type suite struct {
	dev, ref tensor.Device
	report   func(...any) // of a failure
	failures int
}

// maxFailures bounds what one section prints: a broken operation fails nearly
// everywhere.
const maxFailures = 12

func (s *suite) failf(format string, args ...any) {
	s.failures++
	switch {
	case s.failures <= maxFailures:
		s.report(fmt.Sprintf(format, args...))
	case s.failures == maxFailures+1:
		s.report("more failures of this kind follow")
	}
}

// guard calls f and turns a panic into a failure.
func (s *suite) guard(name string, f func()) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			s.failf("%s: panic: %v\n%s", name, r, debug.Stack())
			ok = false
		}
	}()
	f()
	return true
}

// layouts are the ways in which a trial lays out its operands.
var layouts = []layout{dense, window}

type layout int

const (
	// dense: rows follow each other, tensors start at a multiple of tensor.Align.
	dense layout = iota
	// window: tensors of two dimensions or more are column windows of wider ones,
	// vectors slices of longer ones; they start at odd elements.
	window
)

func (l layout) String() string { return [...]string{"dense", "window"}[l] }
