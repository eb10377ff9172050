// Package conformance holds one suite of tests that every tensor.Device must
// pass: each operation is run on the device and on the reference device
// (tensor/ref) with equal inputs over ragged shapes, and the results compared.
// A device's own tests are one line:
//
//	conformance.Run(t, func() tensor.Device { return cpu.Open() })
//
// Every call of an operation is checked for more than its results:
//
//   - the error |got − want| of an element must not exceed max(1, |want|, rms(want))
//     times the tolerance of arithmetic (1e-5 in float32), rms being the root mean square
//     of the whole result. Inputs are of order one, and so is the rounding that a sum of
//     them may carry into an element that happens to cancel; an element larger than
//     its neighbours is held to its own size. A result of a 16-bit type may also be off
//     by half a unit in its last place: it is rounded once, and what led to it was not,
//     but where a trial says why it may have been (see through).
//     Statistics, gradients of parameters that are kept in float32, and losses are held
//     to arithmetic's tolerance on every device;
//   - what the reference leaves as it was stays as it was, bit for bit;
//   - inputs, the gaps between rows and the margins around tensors keep their
//     bytes. They, and results before they are written, hold NaN (negative
//     numbers for ids), so that reading them shows as well;
//   - a second run from the same state gives the same bytes.
package conformance

import (
	"fmt"
	"runtime/debug"
	"slices"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// arithmetic is the tolerance (see the package comment) by the type in which a device
// computes, the Wide of its float type.
var arithmetic = map[tensor.Dtype]float64{tensor.F64: 1e-12, tensor.F32: 1e-5}

// rounding is half a unit in the last place of 1, the greatest relative error of rounding to
// nearest, by the type of the result. That of the wider types is part of arithmetic's tolerance.
var rounding = map[tensor.Dtype]float64{tensor.F16: 0x1p-11, tensor.BF16: 0x1p-8}

// narrow tells whether a device has two float types.
func narrow(dev tensor.Device) bool { return dev.Float() != dev.Float().Wide() }

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
	{"AMax", testAMax},
	{"Quantize", testQuantize},
	{"MatmulF8", testMatmulF8},
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

// Options alter a run of the suite.
type Options struct {
	// Every runs one of so many of those trials of each section that go through shapes, chosen
	// by a hash of the trial's name; those of special cases all run. 0 stands for 1, and for 2
	// on 16-bit devices.
	Every int
	// Only runs the sections named; empty: all.
	Only []string
	// Small leaves out the trials of more than so many elements of all operands together; 0: none.
	// For devices that are emulated.
	Small int
}

// Run runs the whole suite on the device that open returns.
func Run(t *testing.T, open func() tensor.Device) { RunWith(t, open, Options{}) }

// RunWith is Run with options.
func RunWith(t *testing.T, open func() tensor.Device, options Options) {
	dev := open()
	if !dev.Float().IsFloat() {
		t.Fatalf("device %q keeps floats as %v; the suite knows no tolerance for that", dev.Name(), dev.Float())
	}
	if options.Every == 0 && narrow(dev) {
		options.Every = 2
	}
	for _, section := range sections {
		if len(options.Only) > 0 && !slices.Contains(options.Only, section.name) {
			continue
		}
		t.Run(section.name, func(t *testing.T) {
			section.run(&suite{dev: dev, ref: ref.New(), report: t.Error, every: options.Every, small: options.Small})
		})
	}
}

// suite is what the sections share.
type suite struct {
	dev, ref tensor.Device
	report   func(...any) // of a failure
	every    int          // see Options
	small    int
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

// large is a number whose square, and sums of a few of which, the device's floats hold.
func (s *suite) large() float64 { return choose(s.dev.Float() == tensor.F16, 1e3, 3e4) }

// far is a power of two, or a thousand, to which eighths can be added without rounding.
func (s *suite) far() float64 {
	switch s.dev.Float() {
	case tensor.BF16:
		return 8
	case tensor.F16:
		return 64
	}
	return 1000
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
