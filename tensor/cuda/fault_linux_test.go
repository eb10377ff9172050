//go:build !nocuda

package cuda

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ringtail/tensor"
)

// TestShortage: too little memory is an error that lists what took it and what to change,
// and a smaller allocation works.
func TestShortage(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16, Memory: 100 << 20})
	defer d.Close()
	hold := func(part string, n int) *tensor.Buffer {
		t.Helper()
		restore := d.Label(part)
		defer restore()
		b, err := d.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, x := range []struct {
		part string
		mib  int
	}{{"weights", 16}, {"gradients", 12}, {"moments", 30}, {"moments", 2}, {"master weights", 20}, {"", 3}} {
		defer hold(x.part, x.mib<<20).Free()
	}
	restore := d.Label("activations")
	_, err := d.Alloc(40 << 20)
	restore()
	if err == nil {
		t.Fatal("40 MiB beside 83 of 100")
	}
	for _, want := range []string{"40.0 MiB wanted for activations on cuda:0",
		"held: moments 32.0 MiB, master weights 20.0 MiB, weights 16.0 MiB, gradients 12.0 MiB, other tensors 3.0 MiB;", "--gpu-memory allows 100.0 MiB",
		"to make room, lower train.micro_tokens or set train.recompute: selective or full, or set optimizer.state: bf16"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q doesn't say %q", err, want)
		}
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != errOutOfMemory || strings.Contains(err.Error(), "\n") || Sticky(err) {
		t.Errorf("%#v", err)
	}
	hold("activations", 10<<20).Free()
	if err := d.Sync(); err != nil {
		t.Error(err)
	}
	if parts := d.MemoryParts(); parts["activations"] != 0 || parts["moments"] != 32<<20 {
		t.Errorf("parts %v", parts)
	}
}

// TestWorkspaceShortage: an operation that finds no workspace does nothing, and neither
// does what follows it, until Sync has said why; then the device works on.
func TestWorkspaceShortage(t *testing.T) {
	d := open(t, Options{Memory: 64 << 20})
	defer d.Close()
	const rows, cols = 300, 1 << 12
	x, xb, err := tensor.New(d, tensor.F32, rows, cols)
	if err != nil {
		t.Fatal(err)
	}
	defer xb.Free()
	sum, sb, err := tensor.New(d, tensor.F32, cols)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Free()
	ones := make([]float32, rows*cols)
	for i := range ones {
		ones[i] = 1
	}
	tensor.SetFloat32(x, ones)
	free := 64<<20 - d.memory.live - 1<<10
	fill, err := d.Alloc(free)
	if err != nil {
		t.Fatal(err)
	}
	work := func() {
		d.Ops().SumRows(sum, x)
		d.Ops().Scale(x, 2)
	}
	work()
	if d.memory.space != 0 {
		t.Fatal("this operation needs no workspace: the test tests nothing")
	}
	if err := d.Sync(); err == nil || !strings.Contains(err.Error(), "workspace: ") || !strings.Contains(err.Error(), "CUDA_ERROR_OUT_OF_MEMORY") {
		t.Fatalf("error %v", err)
	}
	if g, err := d.Capture(work); err == nil || !strings.Contains(err.Error(), "CUDA_ERROR_OUT_OF_MEMORY") {
		t.Errorf("captured %v, %v", g, err)
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	fill.Free()
	d.Ops().SumRows(sum, x)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := tensor.GetFloat32(sum)[cols-1]; got != rows {
		t.Errorf("sum %v, want %d: what followed the failed operation was done", got, rows)
	}
}

const faultVar = "RINGTAIL_TEST_FAULT"

// child runs TestFaultChild in a process with these variables and gives what it printed.
func child(t *testing.T, what string, variables ...string) string {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestFaultChild$", "-test.v")
	c.Env = append(os.Environ(), faultVar+"="+what)
	if !onGPU() {
		library := emulated(t)
		c.Env = append(append(c.Env, "RINGTAIL_LIBCUDA="+library, "RINGTAIL_LIBCUBLASLT="+library, "RINGTAIL_LIBCUDNN=off"), variables...)
	}
	late := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
	defer late.Stop()
	text, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return string(text)
}

// TestFaultChild is what TestDeviceShortage and TestStickyError do in processes of their own.
func TestFaultChild(t *testing.T) {
	what := os.Getenv(faultVar)
	if what == "" {
		t.Skip("run by other tests")
	}
	d, err := Open(Options{})
	if err != nil {
		t.Fatal(err)
	}
	x, xb, err := tensor.New(d, tensor.F32, 100)
	if err != nil {
		t.Fatal(err)
	}
	switch what {
	case "memory":
		_, err := d.Alloc(100 << 20)
		fmt.Println("said", err)
		b, err := d.Alloc(10 << 20)
		if err != nil {
			t.Fatal(err)
		}
		b.Free()
		d.Ops().Scale(x, 2)
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
	case "sticky":
		g, err := d.Capture(func() { d.Ops().Scale(x, 2) })
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			d.Ops().Scale(x, 2)
		}
		g.Launch()
		if onGPU() {
			nowhere := x
			nowhere.Addr = 256
			d.Ops().Scale(nowhere, 2)
		}
		for range 3 {
			err := d.Sync()
			if !Sticky(err) {
				t.Fatalf("error %v", err)
			}
			fmt.Println("said", err)
			d.Ops().Scale(x, 2)
			g.Launch()
			tensor.SetFloat32(x, make([]float32, 100))
			tensor.GetFloat32(x)
			if b, err := d.Alloc(1 << 10); err == nil {
				b.Free()
			}
			if _, err := d.Capture(func() { d.Ops().Scale(x, 2) }); !Sticky(err) {
				t.Errorf("captured, %v", err)
			}
		}
		g.Free()
	}
	xb.Free()
	d.Close()
	xb.Free()
}

// TestDeviceShortage: the GPU's own memory ends.
func TestDeviceShortage(t *testing.T) {
	if onGPU() {
		t.Skip("the GPU's is large")
	}
	text := child(t, "memory", "RINGTAIL_EMULATOR_MEMORY=67108864")
	if !strings.Contains(text, "said cuMemAllocAsync: CUDA_ERROR_OUT_OF_MEMORY (2): 100.0 MiB wanted on cuda:0") || !strings.Contains(text, "the GPU has 64.0 MiB") {
		t.Error(text)
	}
}

// TestStickyError: an error that ends the context is what every Sync returns from then on;
// nothing hangs or crashes.
func TestStickyError(t *testing.T) {
	faults := []string{"cuLaunchKernel=700@4", "cuStreamSynchronize=719@2", "cuGraphLaunch=715@1"}
	if onGPU() {
		faults = []string{"a kernel at an address that isn't there=700"}
	}
	for _, fault := range faults {
		text := child(t, "sticky", "RINGTAIL_EMULATOR_FAIL="+fault)
		if n := strings.Count(text, "said cuda:0 has stopped; the fault may be an earlier kernel's, which CUDA_LAUNCH_BLOCKING=1 finds: cu"); n != 3 {
			t.Errorf("%s: said %d times\n%s", fault, n, text)
		}
		_, code, _ := strings.Cut(fault, "=")
		if code, _, _ = strings.Cut(code, "@"); !strings.Contains(text, "("+code+")") {
			t.Errorf("%s: %s", fault, text)
		}
	}
}
