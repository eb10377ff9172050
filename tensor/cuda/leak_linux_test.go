//go:build !nocuda

package cuda

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"ringtail/tensor"
)

// holdings is what a process holds: on the device, of handles, and of the system.
type holdings struct {
	emulator [7]int64 // bytes, allocations, host ranges, streams, events, contexts, other objects
	free     int      // of the GPU, in bytes
	resident int      // bytes
	files    int
	threads  int
}

func held(t *testing.T) holdings {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	var h holdings
	if onGPU() {
		d := open(t, Options{})
		h.free, _ = d.MemoryInfo()
		d.Close()
	} else {
		live, err := symbol(cu.handle, "ringtailEmulatorLive")
		if err != nil {
			t.Fatal(err)
		}
		call(live, address(&h.emulator[0]))
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			h.resident, _ = strconv.Atoi(f[1])
			h.resident <<= 10
		} else if f[0] == "Threads:" {
			h.threads, _ = strconv.Atoi(f[1])
		}
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	h.files = len(files)
	return h
}

// setUp opens a device, does what makes each of its kinds of handle, and closes it.
func setUp(t *testing.T, float tensor.Dtype) {
	t.Helper()
	d := open(t, Options{Float: float, Memory: 1 << 30})
	defer d.Close()
	ops := d.Ops()
	const n = 64
	var buffers []*tensor.Buffer
	matrix := func(dtype tensor.Dtype, shape ...int) tensor.Tensor {
		x, b, err := tensor.New(d, dtype, shape...)
		if err != nil {
			t.Fatal(err)
		}
		buffers = append(buffers, b)
		return x
	}
	a, b, c, y := matrix(float, n, n), matrix(float, n, n), matrix(float, n, n), matrix(float, n)
	one := make([]float32, n*n)
	for i := range one {
		one[i] = 1
	}
	tensor.SetFloat32(a, one)
	tensor.SetFloat32(b, one)
	work := func() {
		ops.Matmul(tensor.Matmul{C: c, A: a, B: b})
		ops.Zero(y)
		ops.SumRows(y, c) // with a workspace
	}
	work()
	g, err := d.Capture(work)
	if err != nil {
		t.Fatal(err)
	}
	g.Launch()
	d.StartProfile()
	work()
	if _, err := d.StopProfile(nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := tensor.GetFloat32(y)[n-1]; got != n*n {
		t.Fatalf("sum %v, want %d", got, n*n)
	}
	g.Free()
	for _, b := range buffers {
		b.Free()
	}
}

// TestSetUps: opening, working and closing again and again leaves nothing behind.
// RINGTAIL_TEST_SETUPS says how often; with the tag long it is 1,000 times.
func TestSetUps(t *testing.T) {
	n := setUps
	if s := os.Getenv("RINGTAIL_TEST_SETUPS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		n = min(n, 10)
	}
	for range 5 { // what is made once a process
		setUp(t, tensor.BF16)
	}
	before := held(t)
	for i := range n {
		setUp(t, []tensor.Dtype{tensor.BF16, tensor.F32}[i%2])
	}
	after := held(t)
	t.Logf("%d set-ups: %+v, then %+v", n, before, after)
	if before.emulator != after.emulator {
		t.Errorf("the emulator holds %v after %d set-ups, %v before", after.emulator, n, before.emulator)
	}
	if before.free-after.free > 1<<20 {
		t.Errorf("%d bytes of device memory are gone after %d set-ups", before.free-after.free, n)
	}
	if grown := after.resident - before.resident; grown > 16<<20 {
		t.Errorf("resident memory has grown by %.1f MiB in %d set-ups", float64(grown)/(1<<20), n)
	}
	if after.files > before.files || after.threads > before.threads+8 {
		t.Errorf("files %d, threads %d after %d set-ups, %d and %d before", after.files, after.threads, n, before.files, before.threads)
	}
}

// TestNoHoldings: closed, a device leaves nothing in the driver.
func TestNoHoldings(t *testing.T) {
	if onGPU() {
		t.Skip("the driver doesn't tell")
	}
	open(t, Options{}).Close()
	before := held(t)
	setUp(t, tensor.BF16)
	if after := held(t); after.emulator != before.emulator {
		t.Errorf("held %v, %v before", after.emulator, before.emulator)
	}
}

// TestTwoDevices: two at once on one GPU don't disturb each other, each on a goroutine of
// its own, and one device serves several goroutines one after the other.
func TestTwoDevices(t *testing.T) {
	devices := []*Device{open(t, Options{Float: tensor.BF16}), open(t, Options{})}
	var wait sync.WaitGroup
	errs := make([]error, len(devices))
	for i, d := range devices {
		wait.Go(func() {
			for round := range 20 {
				done := make(chan error)
				go func() { done <- roundOf(d, round) }()
				if errs[i] = <-done; errs[i] != nil {
					return
				}
			}
		})
	}
	wait.Wait()
	devices[0].Close()
	for i, err := range errs {
		if err != nil {
			t.Errorf("%v: %v", devices[i].Float(), err)
		}
	}
	if err := roundOf(devices[1], 0); err != nil { // the other one is closed
		t.Error(err)
	}
	devices[1].Close()
}

// roundOf does a product and checks it.
func roundOf(d *Device, round int) error {
	n := 16 + 8*(round%4)
	x, b, err := tensor.New(d, d.Float(), n, n)
	if err != nil {
		return err
	}
	defer b.Free()
	y, c, err := tensor.New(d, d.Float(), n, n)
	if err != nil {
		return err
	}
	defer c.Free()
	v := make([]float32, n*n)
	for i := range v {
		v[i] = float32(round)
	}
	tensor.SetFloat32(x, v)
	d.Ops().Matmul(tensor.Matmul{C: y, A: x, B: x})
	if err := d.Sync(); err != nil {
		return err
	}
	for i, got := range tensor.GetFloat32(y) {
		if want := float32(n * round * round); got < want*0.995 || got > want*1.005 {
			return fmt.Errorf("round %d: element %d is %v, want %v", round, i, got, want)
		}
	}
	return nil
}
