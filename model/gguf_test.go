package model

import (
	"encoding/json"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ringtail/safetensors"
)

// noGGUF are families that GGUF has no architecture for.
func noGGUF(c *Config) bool { return ggufArchitectures[c.family()] == "" }

// convert writes the model at path as GGUF.
func convert(t *testing.T, path string, kind string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "model.gguf")
	if err := WriteGGUF(path, out, GGUFOptions{Type: kind}); err != nil {
		t.Fatal(err)
	}
	return out
}

func back(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	if err := WriteFolder(path, dir, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestGoldenGGUFRoundTrip: a folder, as GGUF and as a folder again, has the same
// configuration in the terms of this package, and the same bytes in every tensor;
// where a norm's weights had 1 added, the nearest float32.
func TestGoldenGGUFRoundTrip(t *testing.T) {
	for _, dir := range goldenModels(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c, err := LoadConfig(dir)
			if err != nil {
				t.Fatal(err)
			}
			if noGGUF(c) {
				err := WriteGGUF(dir, filepath.Join(t.TempDir(), "x.gguf"), GGUFOptions{})
				if err == nil || !strings.Contains(err.Error(), "no architecture in GGUF") {
					t.Errorf("written in spite of that: %v", err)
				}
				return
			}
			again := back(t, convert(t, dir, "f32"))
			sameConfig(t, c, again)
			was, err := safetensors.OpenFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer was.Close()
			is, err := safetensors.OpenFolder(again)
			if err != nil {
				t.Fatal(err)
			}
			defer is.Close()
			a, b := was.Names(), is.Names()
			slices.Sort(a)
			slices.Sort(b)
			if !slices.Equal(a, b) {
				t.Fatalf("tensors %v, were %v", b, a)
			}
			for _, name := range a {
				x, _ := was.Tensor(name)
				y, _ := is.Tensor(name)
				if !slices.Equal(x.Shape, y.Shape) || x.Dtype != y.Dtype {
					t.Errorf("%s: %s %v, was %s %v", name, y.Dtype, y.Shape, x.Dtype, x.Shape)
				} else if c.NormOffset != 0 && strings.HasSuffix(name, "norm.weight") {
					sameWithin(t, name, x, y, 0x1p-23)
				} else if !slices.Equal(x.Data, y.Data) {
					t.Errorf("%s: other bytes", name)
				}
			}
		})
	}
}

// sameConfig compares what this package makes of config.json.
func sameConfig(t *testing.T, c *Config, dir string) {
	t.Helper()
	d, err := LoadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b := *c, *d
	for _, x := range []*Config{&a, &b} {
		x.raw, x.generation, x.InitStd = nil, nil, 0 // training's business
		x.Experts.LossCoef = 0
		x.Architecture, x.ModelType = x.fam().architecture(CausalLM), x.fam().modelType
		if x.Window == 0 {
			x.Windowed = nil
		}
		if x.Experts.Dense != nil && allSparse(x) {
			x.Experts.Dense = nil
		}
		if x.Rope.Type == "default" || x.Rope.Type == "linear" {
			x.Rope.Original = 0
		}
		x.Rope.Truncate = false // of yarn, where it is refused otherwise
		if x.Rope.Type == "longrope" {
			_, x.Rope.AttentionFactor = x.Rope.frequencies(1)
			x.Rope.Factor = 0
		}
		x.Scale = float64(float32(x.Scale))
		if x.WindowedRope != nil {
			r := *x.WindowedRope
			r.Original = 0
			x.WindowedRope = &r
		}
	}
	if !reflect.DeepEqual(a, b) {
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		t.Errorf("configuration\n%s, was\n%s", y, x)
	}
}

func sameWithin(t *testing.T, name string, x, y safetensors.Tensor, most float64) {
	t.Helper()
	a, b := make([]float32, x.Len()), make([]float32, y.Len())
	if err := x.ToFloat32(a); err != nil {
		t.Fatal(err)
	}
	if err := y.ToFloat32(b); err != nil {
		t.Fatal(err)
	}
	for i := range a {
		if math.Abs(float64(a[i]-b[i])) > most {
			t.Errorf("%s[%d] is %g, was %g", name, i, b[i], a[i])
			return
		}
	}
}
