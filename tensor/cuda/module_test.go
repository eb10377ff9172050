package cuda

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ringtail/tensor"
	"ringtail/tensor/cuda/kernels"
)

func TestArchitecture(t *testing.T) {
	for _, c := range []struct {
		capability int
		forced     string
		want       string
		err        string
	}{
		{80, "", kernels.Portable, ""},
		{89, "", kernels.Portable, ""},
		{90, "", kernels.Hopper, ""},
		{90, "80", kernels.Portable, ""},
		{90, "90a", kernels.Hopper, ""},
		{100, "", kernels.Portable, ""},
		{120, "80", kernels.Portable, ""},
		{75, "", "", "compute capability 8.0 or more (Ampere, 2020); Some GPU has 7.5"},
		{75, "80", "", "has 7.5"},
		{100, "90a", "", "compute capability 9.0 alone; Some GPU has 10.0"},
		{90, "sm_80", "", "RINGTAIL_CUDA_ARCH=sm_80: unknown"},
	} {
		got, err := architecture(Info{Name: "Some GPU", Capability: c.capability}, c.forced)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("capability %d, RINGTAIL_CUDA_ARCH=%s: %q, %v; want %q, %q", c.capability, c.forced, got, err, c.want, c.err)
		}
	}
}

func TestCubinCache(t *testing.T) {
	c := cubinCache(filepath.Join(t.TempDir(), "not", "yet"))
	const name = "norm-sm90-cuda12040-00.cubin"
	if c.get(name) != nil {
		t.Fatal("found in an empty cache")
	}
	cubin := bytes.Repeat([]byte("machine code"), 100)
	c.put(name, cubin)
	if got := c.get(name); !bytes.Equal(got, cubin) {
		t.Fatalf("%d bytes came back, want %d", len(got), len(cubin))
	}
	path := filepath.Join(string(c), name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	flipped[len(flipped)/2] ^= 4
	for what, damaged := range map[string][]byte{"empty": nil, "cut off": whole[:len(whole)-1], "one bit": flipped, "sum alone": whole[:32]} {
		if err := os.WriteFile(path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if c.get(name) != nil {
			t.Errorf("damaged (%s), but taken", what)
		}
		c.put(name, cubin)
		if !bytes.Equal(c.get(name), cubin) {
			t.Errorf("damaged (%s), and not replaced", what)
		}
	}
}

// Without a folder to write to, nothing is kept and nothing fails.
func TestNoCubinCache(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []cubinCache{"", cubinCache(filepath.Join(file, "below"))} {
		c.put("norm.cubin", []byte("code"))
		if c.get("norm.cubin") != nil {
			t.Errorf("%q keeps something", string(c))
		}
	}
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("LocalAppData", "")
	t.Setenv("home", "")
	if c := cubins(); c != "" {
		t.Errorf("cache %q without a home", string(c))
	}
}

// Every kernel of every family loads, by the driver's compiler and then from the cache.
func TestModules(t *testing.T) {
	if _, err := Devices(); err != nil {
		t.Skip(err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	families := map[string]bool{}
	for output := range kernels.Sums() {
		family, _, _ := strings.Cut(output, ".")
		families[family] = true
	}
	// The compiler alone, on one thread, for what a training step needs.
	if d, err := Open(Options{Float: tensor.BF16}); err == nil && !d.emulated() {
		start := time.Now()
		for _, name := range d.firstKernels() {
			one := time.Now()
			d.enter()
			if _, err := d.module(name); err != nil {
				t.Errorf("a training step's %s: %v", name, err)
			}
			d.leave()
			t.Logf("%6.0f ms  %s", float64(time.Since(one).Microseconds())/1000, name)
		}
		t.Logf("%d kernels of a training step one after the other in %v", len(d.firstKernels()), time.Since(start))
		d.Close()
		t.Setenv("XDG_CACHE_HOME", t.TempDir())
	}
	for _, round := range []string{"compiled", "cached", "damaged"} {
		if round == "damaged" {
			for _, f := range cachedFiles(t) {
				if err := os.WriteFile(f, []byte("nonsense"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		d, err := Open(Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d.emulated() {
			d.Close()
			t.Skip("the emulator has its kernels in itself")
		}
		arch, err := architecture(d.gpu, os.Getenv("RINGTAIL_CUDA_ARCH"))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for family := range families {
			ptx, err := kernels.PTX(family, arch)
			if err != nil {
				t.Fatal(err)
			}
			for entry := range kernels.Split(ptx) {
				all = append(all, family+"."+entry)
			}
		}
		start := time.Now()
		first := d.firstKernels()
		d.preload(first...)
		d.modules.loading.Wait()
		t.Logf("%s: %d kernels of a training step in %v", round, len(first), time.Since(start))
		d.preload(all...)
		d.modules.loading.Wait()
		t.Logf("%s: %d kernels of compute_%s in %v on %s", round, len(all), arch, time.Since(start), d.gpu.Name)
		d.enter()
		for _, kernel := range all {
			if _, err := d.function(kernel, 0); err != nil {
				t.Error(err)
			}
		}
		d.leave()
		d.Close()
		if n := len(cachedFiles(t)); n != len(all) {
			t.Errorf("%d files are cached, want %d", n, len(all))
		}
	}
}

func cachedFiles(t *testing.T) []string {
	files, err := filepath.Glob(filepath.Join(string(cubins()), "*.cubin"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// What is preloaded exists.
func TestFirstKernels(t *testing.T) {
	for _, d := range []*Device{{opt: Options{Float: tensor.F32}}, {opt: Options{Float: tensor.BF16}}, {opt: Options{Float: tensor.BF16, Fast: true}, dnn: dnn{handle: 1}}} {
		seen := map[string]bool{}
		for _, name := range d.firstKernels() {
			family, entry, _ := strings.Cut(name, ".")
			if _, err := d.modules.source(family, kernels.Portable, entry); err != nil {
				t.Errorf("%v: %v", d.opt.Float, err)
			}
			if seen[name] {
				t.Errorf("%s twice", name)
			}
			seen[name] = true
		}
		if own := seen["attention.forward_64_bf16"]; own != (d.opt.Float == tensor.BF16 && d.dnn.handle == 0) {
			t.Errorf("%v: our own attention %v", d.opt.Float, own)
		}
	}
}
