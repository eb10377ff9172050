//go:build !windows

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"ringtail/tensor/cuda/emulator/build"
)

var library = sync.OnceValues(func() (uintptr, error) {
	path, err := build.Library("testdata/selftest.cu")
	if err != nil {
		return 0, err
	}
	return purego.Dlopen(path, purego.RTLD_NOW)
})

// emulator is the library and a stream on it.
type emulator struct {
	testing.TB
	handle uintptr
	stream uintptr
}

func start(t testing.TB) *emulator {
	if runtime.GOOS != "linux" {
		t.Skip("the emulator is built for Linux only")
	}
	handle, err := library()
	if errors.Is(err, build.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // a capture ends on the thread that began it
	t.Cleanup(runtime.UnlockOSThread)
	e := &emulator{TB: t, handle: handle}
	e.must("cuInit", 0)
	context := make([]uintptr, 1)
	e.must("cuDevicePrimaryCtxRetain", at(context), 0)
	e.must("cuCtxSetCurrent", context[0])
	e.stream = e.create("cuStreamCreate", 1)
	if module == 0 {
		module = e.create("cuModuleLoadData", at([]byte("any image")))
	}
	return e
}

//go:uintptrescapes
func (e *emulator) call(name string, args ...uintptr) int {
	e.Helper()
	f, err := purego.Dlsym(e.handle, name)
	if err != nil {
		e.Fatal(err)
	}
	r, _, _ := purego.SyscallN(f, args...)
	return int(int32(r))
}

//go:uintptrescapes
func (e *emulator) must(name string, args ...uintptr) {
	e.Helper()
	if code := e.call(name, args...); code != 0 {
		e.Fatalf("%s: %d", name, code)
	}
}

// create calls a function whose first argument is where it puts a handle.
func (e *emulator) create(name string, args ...uintptr) uintptr {
	e.Helper()
	out := make([]uintptr, 1)
	e.must(name, append([]uintptr{at(out)}, args...)...)
	return out[0]
}

// at is the address of a slice, which is moved to the heap: a stack could move.
func at[T any](s []T) uintptr {
	onHeap = s
	return uintptr(unsafe.Pointer(unsafe.SliceData(s)))
}

var onHeap any

func (e *emulator) alloc(bytes int) uintptr {
	e.Helper()
	p := e.create("cuMemAlloc_v2", uintptr(bytes))
	e.Cleanup(func() { e.call("cuMemFree_v2", p) })
	return p
}

func upload[T any](e *emulator, s []T) uintptr {
	e.Helper()
	bytes := len(s) * int(unsafe.Sizeof(s[0]))
	p := e.alloc(bytes)
	e.must("cuMemcpyHtoD_v2", p, at(s), uintptr(bytes))
	return p
}

func download[T any](e *emulator, p uintptr, n int) []T {
	e.Helper()
	s := make([]T, n)
	e.must("cuMemcpyDtoH_v2", at(s), p, uintptr(n)*unsafe.Sizeof(s[0]))
	return s
}

var module uintptr // loaded before captures, which don't bear it

func (e *emulator) function(name string) uintptr {
	e.Helper()
	return e.create("cuModuleGetFunction", module, at(append([]byte(name), 0)))
}

// launch returns the launch's code.
func launch[A any](e *emulator, name string, blocks, threads, shared int, args A) int {
	e.Helper()
	a := []A{args}
	params := []uintptr{at(a)}
	code := e.call("cuLaunchKernel", e.function(name), uintptr(blocks), 1, 1, uintptr(threads), 1, 1, uintptr(shared), e.stream, at(params), 0)
	runtime.KeepAlive(a)
	return code
}

func run[A any](e *emulator, name string, blocks, threads, shared int, args A) {
	e.Helper()
	if code := launch(e, name, blocks, threads, shared, args); code != 0 {
		e.Fatalf("launch of %s: %d", name, code)
	}
}

type mapArgs struct {
	in, out      uintptr
	n, parameter int32
}

func TestBlockSum(t *testing.T) {
	e := start(t)
	x := make([]float32, 100000)
	var want float64
	for i := range x {
		x[i] = float32(i%1000) / 8
		want += float64(x[i])
	}
	type sumArgs struct {
		x, out uintptr
		n      uint64
	}
	for _, threads := range []int{32, 64, 256, 992, 1024} {
		out := e.alloc(8 * 7)
		run(e, "selftest.sum_blocks", 7, threads, 0, sumArgs{upload(e, x), out, uint64(len(x))})
		var got float64
		for _, part := range download[float64](e, out, 7) {
			got += part
		}
		if got != want {
			t.Errorf("%d threads: sum %v, want %v", threads, got, want)
		}
	}
}

func TestShuffles(t *testing.T) {
	e := start(t)
	in := make([]int32, 32*24)
	for i := range in {
		in[i] = int32(rand.Int32N(1000))
	}
	out := e.alloc(len(in) * 5 * 4)
	run(e, "selftest.shuffles", 3, 256, 0, mapArgs{in: upload(e, in), out: out, n: int32(len(in))})
	got := download[int32](e, out, len(in)*5)
	for row := range len(in) / 32 {
		v := in[row*32:][:32]
		var ballot uint32
		for i, x := range v {
			if x%3 == 0 {
				ballot |= 1 << i
			}
		}
		for lane := range 32 {
			down, up := lane+3, lane-7
			if down > 31 {
				down = lane
			}
			if up < 0 {
				up = lane
			}
			want := []int32{v[lane^5], v[down], v[up], v[9], int32(ballot)}
			for i, w := range want {
				if g := got[row*160+i*32+lane]; g != w {
					t.Fatalf("row %d, lane %d, shuffle %d: %d, want %d", row, lane, i, g, w)
				}
			}
		}
	}
}

// A missing barrier shows: threads run one after the other.
func TestBarrier(t *testing.T) {
	e := start(t)
	in := make([]int32, 1024)
	for i := range in {
		in[i] = int32(i)
	}
	out := e.alloc(len(in) * 4)
	for _, missing := range []int32{0, 1} {
		run(e, "selftest.reverse", 4, 256, 1024, mapArgs{upload(e, in), out, 1024, missing})
		right := true
		for i, v := range download[int32](e, out, 1024) {
			right = right && v == int32(i/256*256+255-i%256)
		}
		if right != (missing == 0) {
			t.Errorf("barrier missing %d: right %v", missing, right)
		}
	}
}

func TestEarlyReturnAndSharedMemory(t *testing.T) {
	e := start(t)
	out := e.alloc(128 * 4)
	for range 3 {
		run(e, "selftest.early", 1, 64, 0, mapArgs{out: out})
		got := download[float32](e, out, 128)
		for i := range 64 {
			if i < 40 && got[i] != float32(39-i) {
				t.Errorf("thread %d: %v, want %v", i, got[i], 39-i)
			}
			if !math.IsNaN(float64(got[64+i])) {
				t.Errorf("shared memory %d starts as %v", i, got[64+i])
			}
		}
	}
}

func TestLastBlock(t *testing.T) {
	e := start(t)
	type lastArgs struct{ counter, parts, out uintptr }
	a := lastArgs{upload(e, []uint32{0}), e.alloc(4 * 300), e.alloc(4)}
	run(e, "selftest.last", 300, 64, 0, a)
	if got := download[uint32](e, a.out, 1)[0]; got != 300*299/2 {
		t.Errorf("sum %d, want %d", got, 300*299/2)
	}
}

func bfloat16(x float32) uint16 { return uint16(math.Float32bits(x) >> 16) }

// float16 of whole numbers up to 15.
func float16(x float32) uint16 {
	if x == 0 {
		return 0
	}
	b := math.Float32bits(x)
	return uint16(b>>16&0x8000 | (b&0x7fffffff-112<<23)>>13)
}

func TestMMA(t *testing.T) {
	e := start(t)
	for name, bits := range map[string]func(float32) uint16{"multiply_bf16": bfloat16, "multiply_f16": float16} {
		a, b := make([]float32, 256), make([]float32, 128)
		in := make([]uint16, 384)
		for i := range in {
			v := float32(rand.Int32N(31) - 15)
			in[i] = bits(v)
			if i < 256 {
				a[i] = v
			} else {
				b[i-256] = v
			}
		}
		out := e.alloc(128 * 4)
		wrong := 0
		for i := range 16 {
			missing := int32(i % 2) // wait: it shows in the launches that copy late
			run(e, "selftest."+name, 1, 32, 0, mapArgs{upload(e, in), out, 0, missing})
			got, right := download[float32](e, out, 128), true
			for i := range 16 {
				for j := range 8 {
					var want float32
					for k := range 16 {
						want += a[i*16+k] * b[k*8+j]
					}
					right = right && got[i*8+j] == want
				}
			}
			if !right && missing == 0 {
				t.Fatalf("%s: wrong product", name)
			}
			if !right {
				wrong++
			}
		}
		if wrong == 0 {
			t.Errorf("%s: a missing wait for cp.async did not show", name)
		}
	}
}

// convertHalf is float16's value by its definition.
func convertHalf(h uint16) float64 {
	sign, exponent, fraction := 1.0, int(h>>10&31), float64(h&1023)/1024
	if h>>15 == 1 {
		sign = -1
	}
	switch {
	case exponent == 31 && fraction != 0:
		return math.NaN()
	case exponent == 31:
		return sign * math.Inf(1)
	case exponent == 0:
		return sign * math.Ldexp(fraction, -14)
	}
	return sign * math.Ldexp(1+fraction, exponent-15)
}

func TestConversions(t *testing.T) {
	e := start(t)
	// Numbers around every 16-bit float of either kind, and halfway between two.
	in := make([]uint32, 65536)
	for i := range in {
		x := rand.Uint32()
		switch i % 4 {
		case 0:
			x = x&^0xffff | uint32(0x8000+i/4%3-1) // halfway of bfloat16, and a bit beside
		case 1:
			h := convertHalf(uint16(x))
			x = math.Float32bits(float32((h+convertHalf(uint16(x+1)))/2)) + uint32(i/4%3) - 1
		case 2:
			x = math.Float32bits(float32(convertHalf(uint16(x))))
		}
		in[i] = x
	}
	out := e.alloc(65536 * 16)
	run(e, "selftest.convert", 256, 256, 0, mapArgs{in: upload(e, in), out: out})
	got := download[uint32](e, out, 4*65536)
	same := func(a float32, b float64) bool { return float64(a) == b || math.IsNaN(float64(a)) && math.IsNaN(b) }
	for i, x := range in {
		g := got[4*i:][:4]
		if g[0] != uint32(i)<<16 {
			t.Fatalf("bfloat16 %#x is %#x", i, g[0])
		}
		if !same(math.Float32frombits(g[1]), convertHalf(uint16(i))) {
			t.Fatalf("float16 %#x is %v, want %v", i, math.Float32frombits(g[1]), convertHalf(uint16(i)))
		}
		f := float64(math.Float32frombits(x))
		nearest(t, "bfloat16", f, uint16(g[2]), func(b uint16) float64 { return float64(math.Float32frombits(uint32(b) << 16)) }, 0x7f80)
		nearest(t, "float16", f, uint16(g[3]), convertHalf, 0x7c00)
	}
}

// nearest checks that got is the 16-bit float nearest to x, the even one of two.
func nearest(t *testing.T, name string, x float64, got uint16, value func(uint16) float64, infinity uint16) {
	t.Helper()
	if math.IsNaN(x) {
		if !math.IsNaN(value(got)) {
			t.Fatalf("%s of NaN is %#x", name, got)
		}
		return
	}
	if math.Signbit(x) != (got>>15 == 1) {
		t.Fatalf("%s of %v is %#x", name, x, got)
	}
	x = math.Abs(x)
	magnitude := got & 0x7fff
	// Infinity stands where the next number would be.
	at := func(b uint16) float64 {
		if b == infinity {
			return 2*value(infinity-1) - value(infinity-2)
		}
		return value(b)
	}
	if magnitude > infinity {
		t.Fatalf("%s of %v is NaN", name, x)
	}
	if math.IsInf(x, 0) || magnitude == infinity && x > at(infinity) {
		if magnitude != infinity {
			t.Fatalf("%s of %v is %#x", name, x, got)
		}
		return
	}
	distance := math.Abs(x - at(magnitude))
	for _, other := range []uint16{magnitude - 1, magnitude + 1} {
		if other > infinity {
			continue
		}
		d := math.Abs(x - at(other))
		if d < distance || d == distance && magnitude%2 == 1 {
			t.Fatalf("%s of %v (%#x) is %#x (%v), but %#x (%v) is nearer or even", name, x, math.Float32bits(float32(x)), got, at(magnitude), other, at(other))
		}
	}
}

func TestMistakesAreFound(t *testing.T) {
	e := start(t)
	for _, c := range []struct {
		name            string
		parameter, code int
	}{
		{"half a warp shuffles", 0, 715},
		{"a lane has returned", 1, 715},
		{"different collectives", 2, 715},
		{"misaligned", 3, 716},
		{"far out of bounds", 4, 700},
		{"ldmatrix of global memory", 6, 717},
	} {
		for _, blocks := range []int{1, 200} {
			out := e.alloc(4096)
			if code := launch(e, "selftest.broken", blocks, 64, 0, mapArgs{out: out, n: 1024, parameter: int32(c.parameter)}); code != c.code {
				t.Errorf("%s, %d blocks: code %d, want %d", c.name, blocks, code, c.code)
			}
		}
	}
	if code := launch(e, "selftest.deep", 1, 64, 0, mapArgs{out: e.alloc(4096)}); code != 700 {
		t.Errorf("more local memory than a stack holds: code %d, want 700", code)
	}
	// The next launch works.
	x := upload(e, []int32{41})
	run(e, "selftest.add_one", 1, 256, 0, mapArgs{x, x, 1, 0})
	if got := download[int32](e, x, 1)[0]; got != 42 {
		t.Errorf("after mistakes: %d, want 42", got)
	}
}

func TestGuardPages(t *testing.T) {
	if os.Getenv("RINGTAIL_EMULATOR_GUARD") != "1" {
		start(t) // may skip
		command := exec.Command(os.Args[0], "-test.run=^TestGuardPages$", "-test.v")
		command.Env = append(os.Environ(), "RINGTAIL_EMULATOR_GUARD=1")
		if out, err := command.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestGuardPages") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	e := start(t)
	for i := range 4 {
		out := e.alloc(4096 + 16)
		want := 700
		if i%4 == 0 {
			want = 0 // this one has its guard before it
		}
		if code := launch(e, "selftest.broken", 1, 64, 0, mapArgs{out: out, n: 1024 + 4, parameter: 5}); code != want {
			t.Errorf("allocation %d: code %d, want %d", i, code, want)
		}
	}
}

func TestLaunchLimits(t *testing.T) {
	e := start(t)
	x := e.alloc(1024)
	a := mapArgs{x, x, 0, 0}
	f := e.function("selftest.add_one")
	try := func(gx, gy, gz, threads, shared int) int {
		args := []mapArgs{a}
		params := []uintptr{at(args)}
		code := e.call("cuLaunchKernel", f, uintptr(gx), uintptr(gy), uintptr(gz), uintptr(threads), 1, 1, uintptr(shared), e.stream, at(params), 0)
		runtime.KeepAlive(args)
		return code
	}
	for _, c := range []struct{ gx, gy, gz, threads, shared, code int }{
		{1, 1, 1, 256, 48 << 10, 0},
		{0, 1, 1, 256, 0, 1},
		{1, 65536, 1, 1, 0, 1},
		{1, 1, 65536, 1, 0, 1},
		{1, 1, 1, 257, 0, 1}, // more than the kernel's
		{1, 1, 1, 0, 0, 1},
		{1, 1, 1, 256, 48<<10 + 1, 1},
	} {
		if code := try(c.gx, c.gy, c.gz, c.threads, c.shared); code != c.code {
			t.Errorf("%+v: code %d", c, code)
		}
	}
	e.must("cuFuncSetAttribute", f, 8, 227<<10)
	if code := try(1, 1, 1, 256, 227<<10); code != 0 {
		t.Errorf("227 KiB after cuFuncSetAttribute: %d", code)
	}
	if code := e.call("cuFuncSetAttribute", f, 8, 227<<10+1); code != 1 {
		t.Errorf("more than 227 KiB: %d", code)
	}
	if code := e.call("cuModuleGetFunction", at(make([]uintptr, 1)), 1, at([]byte("no_such_kernel\x00"))); code != 500 {
		t.Errorf("no such kernel: %d", code)
	}
}

func TestMemory(t *testing.T) {
	e := start(t)
	for i, v := range download[uint32](e, e.alloc(4000), 1000) {
		if v != math.MaxUint32 {
			t.Fatalf("fresh memory %d holds %#x", i, v)
		}
	}
	before := make([]uint64, 2)
	e.must("cuMemGetInfo_v2", at(before), at(before[1:]))
	if code := e.call("cuMemAlloc_v2", at(make([]uintptr, 1)), uintptr(before[0]+1)); code != 2 {
		t.Errorf("more than there is: %d", code)
	}
	p := e.alloc(1000)
	if code := e.call("cuMemsetD8Async", p, 0, 1001, e.stream); code != 1 {
		t.Errorf("memset past the end: %d", code)
	}
	if code := e.call("cuMemFree_v2", p+8); code != 1 {
		t.Errorf("free of no allocation: %d", code)
	}
	// Two columns of three rows out of a 4x3 matrix.
	source := upload(e, []byte("abcdefghijkl"))
	target := upload(e, []byte("............"))
	copy2D := make([]byte, 128)
	put := func(at int, v uint64) { binary.LittleEndian.PutUint64(copy2D[at:], v) }
	put(0, 1) // source's x
	binary.LittleEndian.PutUint32(copy2D[16:], 2)
	put(32, uint64(source))
	put(48, 4)
	put(56, 2) // target's x
	binary.LittleEndian.PutUint32(copy2D[72:], 2)
	put(88, uint64(target))
	put(104, 4)
	put(112, 2)
	put(120, 3)
	e.must("cuMemcpy2DAsync_v2", at(copy2D), e.stream)
	if got := string(download[byte](e, target, 12)); got != "..bc..fg..jk" {
		t.Errorf("2D copy: %s", got)
	}
}

func TestCapture(t *testing.T) {
	e := start(t)
	x, y := upload(e, []int32{1, 2, 3}), e.alloc(12)
	second := e.create("cuStreamCreate", 1)
	fork, join := e.create("cuEventCreate", 2), e.create("cuEventCreate", 2)
	e.must("cuStreamBeginCapture_v2", e.stream, 1)
	run(e, "selftest.add_one", 1, 256, 0, mapArgs{x, x, 3, 0})
	e.must("cuEventRecord", fork, e.stream)
	e.must("cuStreamWaitEvent", second, fork, 0)
	e.must("cuMemcpyDtoDAsync_v2", y, x, 12, second)
	e.must("cuEventRecord", join, second)
	e.must("cuStreamWaitEvent", e.stream, join, 0)
	graph := e.create2("cuStreamEndCapture", e.stream)
	if got := download[int32](e, x, 3); !slices.Equal(got, []int32{1, 2, 3}) {
		t.Errorf("a launch ran while it was captured: %v", got)
	}
	executable := e.create("cuGraphInstantiateWithFlags", graph, 0)
	e.must("cuGraphDestroy", graph)
	for range 5 {
		e.must("cuGraphLaunch", executable, e.stream)
	}
	if got := download[int32](e, y, 3); !slices.Equal(got, []int32{6, 7, 8}) {
		t.Errorf("after 5 launches of the graph: %v", got)
	}
	e.must("cuGraphExecDestroy", executable)
	if code := e.call("cuEventQuery", join); code != 907 {
		t.Errorf("query of a captured event: %d", code)
	}
}

// create2 calls a function whose second argument is where it puts a handle.
func (e *emulator) create2(name string, first uintptr) uintptr {
	e.Helper()
	out := make([]uintptr, 1)
	e.must(name, first, at(out))
	return out[0]
}

func TestCaptureMistakes(t *testing.T) {
	e := start(t)
	x := upload(e, []int32{1})
	second := e.create("cuStreamCreate", 1)
	event, old := e.create("cuEventCreate", 2), e.create("cuEventCreate", 2)
	e.must("cuEventRecord", old, second)
	for _, c := range []struct {
		name      string
		do        func() int
		code, end int
	}{
		{"allocation", func() int { return e.call("cuMemAlloc_v2", at(make([]uintptr, 1)), 16) }, 900, 901},
		{"allocation on the stream", func() int { return e.call("cuMemAllocAsync", at(make([]uintptr, 1)), 16, e.stream) }, 900, 901},
		{"free on the stream", func() int { return e.call("cuMemFreeAsync", x, e.stream) }, 900, 901},
		{"stream synchronisation", func() int { return e.call("cuStreamSynchronize", e.stream) }, 900, 901},
		{"context synchronisation", func() int { return e.call("cuCtxSynchronize") }, 900, 901},
		{"synchronous copy", func() int { return e.call("cuMemcpyHtoD_v2", x, at([]int32{2}), 4) }, 900, 901},
		{"work of outside", func() int { return e.call("cuStreamWaitEvent", e.stream, old, 0) }, 905, 901},
		{"unjoined stream", func() int {
			e.must("cuEventRecord", event, e.stream)
			e.must("cuStreamWaitEvent", second, event, 0)
			return e.call("cuMemsetD8Async", x, 0, 4, second)
		}, 0, 904},
		{"nothing", func() int { return 0 }, 0, 0},
	} {
		e.must("cuStreamBeginCapture_v2", e.stream, 1)
		if code := c.do(); code != c.code {
			t.Errorf("%s: code %d, want %d", c.name, code, c.code)
		}
		if code := e.call("cuStreamEndCapture", e.stream, at(make([]uintptr, 1))); code != c.end {
			t.Errorf("%s: capture ends with %d, want %d", c.name, code, c.end)
		}
	}
	if got := download[int32](e, x, 1)[0]; got != 1 {
		t.Errorf("captures changed memory: %d", got)
	}
}

func TestMatmul(t *testing.T) {
	e := start(t)
	lt := e.create("cublasLtCreate")
	const m, n, k = 70, 9, 33
	for _, c := range []struct {
		name             string
		transA, transB   int32
		compute, in, out int
		bias             bool
		alpha, beta      float32
		batches          int
	}{
		{"plain", 0, 0, 68, 0, 0, false, 1, 0, 1},
		{"transposed A, bias", 1, 0, 68, 14, 14, true, 1, 0, 1},
		{"transposed B, sum", 0, 1, 68, 14, 0, false, 0.5, 1, 1},
		{"both, float16, batches", 1, 1, 68, 2, 2, false, 1, 0, 3},
		{"TF32", 0, 0, 77, 0, 0, true, 1, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &emulator{t, e.handle, e.stream}
			size := func(kind int) int {
				if kind == 0 {
					return 4
				}
				return 2
			}
			encode := func(v []float32, kind int) []byte {
				var out []byte
				for _, x := range v {
					switch kind {
					case 0:
						out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
					case 2:
						out = binary.LittleEndian.AppendUint16(out, float16(x))
					case 14:
						out = binary.LittleEndian.AppendUint16(out, bfloat16(x))
					}
				}
				return out
			}
			fill := func(n int) []float32 {
				v := make([]float32, n)
				for i := range v {
					v[i] = float32(rand.Int32N(5) - 2) // sums stay exact
				}
				return v
			}
			const pad = 3 // rows of each matrix stand further apart than needed
			rowsA, columnsA, rowsB, columnsB := m, k, k, n
			if c.transA == 1 {
				rowsA, columnsA = k, m
			}
			if c.transB == 1 {
				rowsB, columnsB = n, k
			}
			a, b := fill((rowsA+pad)*columnsA*c.batches), fill((rowsB+pad)*columnsB*c.batches)
			d, bias := fill((m+pad)*n*c.batches), fill(m)
			pointers := []uintptr{upload(e, encode(a, c.in)), upload(e, encode(b, c.in)), upload(e, encode(d, c.out))}
			desc := e.create("cublasLtMatmulDescCreate", uintptr(c.compute), 0)
			set := func(attribute, size int, v uint64) {
				e.must("cublasLtMatmulDescSetAttribute", desc, uintptr(attribute), at([]uint64{v}), uintptr(size))
			}
			set(3, 4, uint64(c.transA))
			set(4, 4, uint64(c.transB))
			if c.bias {
				set(7, 4, 4)
				set(8, 8, uint64(upload(e, encode(bias, c.out))))
			}
			layout := func(kind, rows, columns int) uintptr {
				l := e.create("cublasLtMatrixLayoutCreate", uintptr(kind), uintptr(rows), uintptr(columns), uintptr(rows+pad))
				e.must("cublasLtMatrixLayoutSetAttribute", l, 5, at([]int32{int32(c.batches)}), 4)
				e.must("cublasLtMatrixLayoutSetAttribute", l, 6, at([]int64{int64((rows + pad) * columns)}), 8)
				return l
			}
			la, lb, ld := layout(c.in, rowsA, columnsA), layout(c.in, rowsB, columnsB), layout(c.out, m, n)
			preference := e.create("cublasLtMatmulPreferenceCreate")
			e.must("cublasLtMatmulPreferenceSetAttribute", preference, 1, at([]uint64{1 << 20}), 8)
			results, found := make([]byte, 96*2), make([]int32, 1)
			e.must("cublasLtMatmulAlgoGetHeuristic", lt, desc, la, lb, ld, ld, preference, 2, at(results), at(found))
			if found[0] != 2 {
				t.Fatalf("%d algorithms", found[0])
			}
			workspace := binary.LittleEndian.Uint64(results[96+64:])
			scale, scratch := []float32{c.alpha, c.beta}, e.alloc(max(int(workspace), 1))
			e.must("cuStreamBeginCapture_v2", e.stream, 1) // a product is captured with its scalars
			e.must("cublasLtMatmul", lt, desc, at(scale), pointers[0], la, pointers[1], lb, at(scale[1:]), pointers[2], ld, pointers[2], ld,
				at(results[96:]), scratch, uintptr(workspace), e.stream)
			graph := e.create2("cuStreamEndCapture", e.stream)
			scale[0], scale[1] = 100, 100
			e.must("cuGraphLaunch", e.create("cuGraphInstantiateWithFlags", graph, 0), e.stream)
			got := download[byte](e, pointers[2], len(d)*size(c.out))
			want := slices.Clone(d)
			for batch := range c.batches {
				for i := range m {
					for j := range n {
						var sum float32
						for l := range k {
							ia, ib := i+l*(rowsA+pad), l+j*(rowsB+pad)
							if c.transA == 1 {
								ia = l + i*(rowsA+pad)
							}
							if c.transB == 1 {
								ib = j + l*(rowsB+pad)
							}
							sum += a[batch*(rowsA+pad)*columnsA+ia] * b[batch*(rowsB+pad)*columnsB+ib]
						}
						to := &want[batch*(m+pad)*n+i+j*(m+pad)]
						*to = c.alpha*sum + c.beta**to
						if c.bias {
							*to += bias[i]
						}
					}
				}
			}
			if wantBytes := encode(want, c.out); string(got) != string(wantBytes) {
				t.Errorf("wrong product:\n%x\n%x", got[:40], wantBytes[:40])
			}
		})
	}
}

func BenchmarkLaunch(b *testing.B) {
	e := start(b)
	x := e.alloc(4 << 20)
	for _, c := range []struct {
		name            string
		blocks, threads int
	}{{"add_one", 1, 256}, {"add_one", 1024, 256}, {"shuffles", 128, 256}, {"reverse", 128, 256}} {
		b.Run(fmt.Sprintf("%s/%d", c.name, c.blocks), func(b *testing.B) {
			launch, err := purego.Dlsym(e.handle, "cuLaunchKernel")
			if err != nil {
				b.Fatal(err)
			}
			f, args := e.function("selftest."+c.name), []mapArgs{{x, x, 1 << 20, 0}}
			params := []uintptr{at(args)}
			for b.Loop() {
				if code, _, _ := purego.SyscallN(launch, f, uintptr(c.blocks), 1, 1, uintptr(c.threads), 1, 1, 1024, e.stream, at(params), 0); code != 0 {
					b.Fatal(code)
				}
			}
			runtime.KeepAlive(args)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.blocks*c.threads), "ns/thread")
		})
	}
}
