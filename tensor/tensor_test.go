package tensor_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// counted is a [2 3 4] tensor of 0, 1, 2, …
func counted(t *testing.T) tensor.Tensor {
	t.Helper()
	x, b, err := tensor.New(ref.New(), tensor.F64, 2, 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	v := make([]float64, x.Len())
	for i := range v {
		v[i] = float64(i)
	}
	tensor.SetFloat64(x, v)
	return x
}

// elements reads a view by a dense copy of it.
func elements(t *testing.T, x tensor.Tensor) []float64 {
	t.Helper()
	y, b, err := tensor.New(x.Device, x.Dtype, x.Shape...)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	x.Device.Ops().Copy(y, x)
	return tensor.GetFloat64(y)
}

func TestViews(t *testing.T) {
	x := counted(t)
	for _, c := range []struct {
		name  string
		view  tensor.Tensor
		shape []int
		want  []float64
		dense bool
		bytes int
	}{
		{"whole", x, []int{2, 3, 4}, nil, true, 192},
		{"second of the first dimension", x.Slice(1, 1), []int{1, 3, 4}, []float64{12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}, true, 96},
		{"columns", x.Columns(1, 2), []int{2, 3, 2}, []float64{1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22}, false, 176},
		{"columns of a slice", x.Slice(1, 1).Columns(3, 1), []int{1, 3, 1}, []float64{15, 19, 23}, false, 72},
		{"slice of columns", x.Reshape(6, 4).Columns(2, 2).Slice(4, 2), []int{2, 2}, []float64{18, 19, 22, 23}, false, 48},
		{"a row's columns", x.Reshape(6, 4).Slice(2, 1).Columns(1, 2), []int{1, 2}, []float64{9, 10}, true, 16},
		{"of a vector", x.Reshape(24).Slice(5, 3), []int{3}, []float64{5, 6, 7}, true, 24},
		{"no rows", x.Slice(2, 0), []int{0, 3, 4}, []float64{}, true, 0},
		{"no columns", x.Columns(4, 0), []int{2, 3, 0}, []float64{}, false, 0},
		{"of one row, reshaped", x.Reshape(6, 4).Columns(0, 2).Slice(3, 1).Reshape(2, 1), []int{2, 1}, []float64{12, 13}, true, 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !slices.Equal(c.view.Shape, c.shape) || c.view.Dense() != c.dense || c.view.Bytes() != c.bytes {
				t.Errorf("shape %v, dense %v, %d bytes; want %v, %v, %d", c.view.Shape, c.view.Dense(), c.view.Bytes(), c.shape, c.dense, c.bytes)
			}
			if got := elements(t, c.view); c.want != nil && !slices.Equal(got, c.want) {
				t.Errorf("holds %v, want %v", got, c.want)
			}
		})
	}
	if !slices.Equal(x.Shape, []int{2, 3, 4}) {
		t.Errorf("views changed the shape of what they view to %v", x.Shape)
	}
}

func TestViewsRefuse(t *testing.T) {
	x := counted(t)
	buf, err := ref.New().Alloc(64)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Free()
	for want, f := range map[string]func(){
		"columns [3,5)":         func() { x.Columns(3, 2) },
		"columns [-1,1)":        func() { x.Columns(-1, 2) },
		"rows [1,3)":            func() { x.Slice(1, 2) },
		"reshape of [2 3 4]":    func() { x.Reshape(5, 5) },
		"(dense: false)":        func() { x.Columns(0, 2).Reshape(12) },
		"F64[2 3 4]":            func() { x.Float32() },
		"as a 16-bit float":     func() { x.Uint16() },
		"host pointer":          func() { (tensor.Tensor{Shape: []int{1}}).Pointer() },
		"at offset 32":          func() { buf.Tensor(32, tensor.F32, 9) },
		"at offset -4":          func() { buf.Tensor(-4, tensor.F32, 1) },
		"used as I32":           func() { tensor.GetInt32(x) },
		"write of 8 bytes into": func() { tensor.SetFloat64(x, []float64{1}) },
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				if msg, _ := recover().(string); !strings.Contains(msg, want) {
					t.Errorf("panic %q, want %q", msg, want)
				}
			}()
			f()
		})
	}
}

// TestZero: the absent tensor is told from one without elements or dimensions.
func TestZero(t *testing.T) {
	if !(tensor.Tensor{}).IsZero() {
		t.Error("the zero Tensor is not absent")
	}
	empty, b, err := tensor.New(ref.New(), tensor.F64, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	scalar := tensor.Tensor{Shape: []int{}, Dtype: tensor.F64, Addr: b.Addr}
	if empty.IsZero() || scalar.IsZero() {
		t.Error("a tensor without elements or without dimensions counts as absent")
	}
	if empty.Bytes() != 0 || empty.Len() != 0 || scalar.Len() != 1 || scalar.Rows() != 1 {
		t.Errorf("empty: %d elements, %d bytes; scalar: %d elements", empty.Len(), empty.Bytes(), scalar.Len())
	}
}

// TestConversions: numbers pass through F64 tensors as float32 and float64.
func TestConversions(t *testing.T) {
	x, b, err := tensor.New(ref.New(), tensor.F64, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	tensor.SetFloat32(x, []float32{1.5, -0.25, 3e-45, float32(math.Inf(1))})
	if got := tensor.GetFloat32(x); !slices.Equal(got, []float32{1.5, -0.25, 3e-45, float32(math.Inf(1))}) {
		t.Errorf("read back %v", got)
	}
	tensor.SetFloat64(x, []float64{0.1, 1, 2, 3})
	if got := tensor.GetFloat64(x); got[0] != 0.1 {
		t.Errorf("read back %v", got)
	}
}

// TestNarrowConversions: numbers pass through tensors of every float type, in more
// pieces than one.
func TestNarrowConversions(t *testing.T) {
	const n = 1<<18 + 5
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i%255-127) / 8 // whole numbers below 2^8 times a power of two
	}
	for _, d := range []tensor.Dtype{tensor.F32, tensor.F64, tensor.BF16, tensor.F16} {
		x, b, err := tensor.New(ref.New(), d, n)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Free()
		tensor.SetFloat64(x, v)
		if got := tensor.GetFloat64(x); !slices.Equal(got, v) {
			t.Errorf("%v: float64 differ when read back", d)
		}
		w := tensor.GetFloat32(x)
		for i := range w {
			if float64(w[i]) != v[i] {
				t.Fatalf("%v: element %d is %g as float32, want %g", d, i, w[i], v[i])
			}
			w[i] *= 2
		}
		tensor.SetFloat32(x, w)
		if got := tensor.GetFloat32(x); !slices.Equal(got, w) {
			t.Errorf("%v: float32 differ when read back", d)
		}
	}
}

func TestAlignUp(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 256, 255: 256, 256: 256, 257: 512} {
		if got := tensor.AlignUp(n); got != want {
			t.Errorf("AlignUp(%d) = %d, want %d", n, got, want)
		}
	}
}
