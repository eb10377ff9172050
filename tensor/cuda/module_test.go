package cuda

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
		start := time.Now()
		for family := range families {
			d.preload(family)
		}
		d.modules.loading.Wait()
		t.Logf("%s: %d families of compute_%s in %v on %s", round, len(families), arch, time.Since(start), d.gpu.Name)
		d.enter()
		for family := range families {
			ptx, err := kernels.PTX(family, arch)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(ptx)) {
				if rest, ok := strings.CutPrefix(line, ".visible .entry "); ok {
					kernel, _, _ := strings.Cut(rest, "(")
					if _, err := d.function(family+"."+kernel, 0); err != nil {
						t.Error(err)
					}
				}
			}
		}
		d.leave()
		d.Close()
		if n := len(cachedFiles(t)); n != len(families) {
			t.Errorf("%d files are cached, want %d", n, len(families))
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
