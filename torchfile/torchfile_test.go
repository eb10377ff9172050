package torchfile

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// expected is what torch.load read: oracle/torch_files.py wrote both.
type expected struct {
	Name   string    `json:"name"`
	Dtype  string    `json:"dtype"`
	Shape  []int     `json:"shape"`
	Values []float32 `json:"values"`
}

func expectations(t testing.TB) map[string][]expected {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var files map[string][]expected
	if err := json.Unmarshal(text, &files); err != nil {
		t.Fatal(err)
	}
	return files
}

// Files of torch.save in each form hold the tensors that torch reads from them.
func TestOpen(t *testing.T) {
	files := expectations(t)
	if len(files) < 10 {
		t.Fatalf("only %d files are expected", len(files))
	}
	for file, want := range files {
		t.Run(file, func(t *testing.T) {
			f, err := Open(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var names []string
			for _, w := range want {
				names = append(names, w.Name)
				got, ok := f.Tensor(w.Name)
				if !ok {
					t.Fatalf("no tensor %s; there are %q", w.Name, f.Names())
				}
				if got.Dtype != w.Dtype || !slices.Equal(got.Shape, w.Shape) || got.Len() != len(w.Values) {
					t.Errorf("%s: %s %v, %d elements; want %s %v, %d", w.Name, got.Dtype, got.Shape, got.Len(), w.Dtype, w.Shape, len(w.Values))
					continue
				}
				// In pieces of every size, from every place.
				for size := 1; size <= len(w.Values); size++ {
					for from := 0; from+size <= len(w.Values); from++ {
						dst := make([]float32, size)
						if err := got.Read(dst, from); err != nil {
							t.Fatal(err)
						}
						if !slices.Equal(dst, w.Values[from:from+size]) {
							t.Fatalf("%s: elements from %d: %v, want %v", w.Name, from, dst, w.Values[from:from+size])
						}
					}
				}
			}
			if !slices.Equal(f.Names(), names) {
				t.Errorf("names %q, want %q", f.Names(), names)
			}
		})
	}
}

func TestContiguous(t *testing.T) {
	f, err := Open(filepath.Join("testdata", "zip.bin"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"f32": 96, "rows": 48, "transposed": -1, "column": -1, "block": -1, "expanded": -1, "bf16": 8, "scalar": 4, "empty": 0} {
		tensor, _ := f.Tensor(name)
		b, ok := tensor.Contiguous()
		if ok != (want >= 0) || ok && len(b) != want {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(b), ok, want)
		}
	}
	rows, _ := f.Tensor("rows")
	b, _ := rows.Contiguous()
	if got := math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24); got != 6.0/8-1 {
		t.Errorf("rows begin with %v", got)
	}
	a, _ := f.Tensor("parameter")
	c, _ := f.Tensor("tied")
	x, _ := a.Contiguous()
	y, _ := c.Contiguous()
	if &x[0] != &y[0] {
		t.Error("tied tensors have bytes of their own")
	}
	if err := rows.Read(make([]float32, 2), 11); err == nil || !strings.Contains(err.Error(), "of 12") {
		t.Errorf("read beyond the end: %v", err)
	}
	if err := rows.Read(make([]float32, 1), -1); err == nil {
		t.Error("read before the start")
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, ok := f.Tensor("f32"); ok || len(f.Names()) > 0 {
		t.Error("tensors after Close")
	}
}

// Files that would run code, or hold no state dict, are refused in one line that says what they hold.
func TestOpenRefuses(t *testing.T) {
	for file, want := range map[string][]string{
		"evil.pt":        {`"posix.system"`, "run code", "refused"},
		"evil-legacy.pt": {`"posix.system"`, "run code", "refused"},
		"module.pt":      {`"torch.nn.modules.linear.Linear"`, "state_dict()"},
		"tensor.pt":      {"a single tensor", "expected a dict"},
		"float8.pt":      {"torch.float8_e4m3fn"},
		"complex.pt":     {"torch.ComplexFloatStorage"},
		"no-tensors.pt":  {"no tensors", `"step"`, `"lr"`},
		"script.pt":      {"TorchScript"},
		"plain.pkl":      {"a pickle of a dict"},
		"compressed.pt":  {"compressed", "zip -0"},
		"expected.json":  {"not a PyTorch file"},
		"none":           {"no such file"},
		".":              {"not a regular file"},
	} {
		path := filepath.Join("testdata", file)
		f, err := Open(path)
		if err == nil {
			f.Close()
			t.Errorf("%s: opened", file)
			continue
		}
		for _, part := range append(want, path) {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %q does not say %q", file, err, part)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: several lines: %q", file, err)
		}
	}
}

// Every cut of a file is an error or leaves the same tensors; nothing panics.
func TestOpenCut(t *testing.T) {
	for _, file := range []string{"legacy.bin", "linear.pt", "legacy-protocol4.bin"} {
		content, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		for n := range content {
			if f, err := read(content[:n:n]); err == nil {
				t.Errorf("%s: %d of %d bytes were read: %q", file, n, len(content), f.names)
			}
		}
	}
}
