package gguf

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"ringtail/safetensors"
)

// samples are the committed file of oracle/gguf_check.py, and more of its making
// in the folder that RINGTAIL_GGUF names.
func samples(t *testing.T) []string {
	list := []string{filepath.Join("testdata", "types.gguf")}
	if dir := os.Getenv("RINGTAIL_GGUF"); dir != "" {
		more, err := filepath.Glob(filepath.Join(dir, "*.gguf"))
		if err != nil || len(more) == 0 {
			t.Fatalf("RINGTAIL_GGUF=%s: no *.gguf there (%v)", dir, err)
		}
		list = append(list, more...)
	}
	return list
}

func mustOpen(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func tensor(t testing.TB, f *File, name string) Tensor {
	t.Helper()
	x, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("%s: no tensor %s", f.Path(), name)
	}
	return x
}

func values(t testing.TB, x Tensor) []float32 {
	t.Helper()
	v := make([]float32, x.Len())
	if err := x.Read(v, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

// same tells whether two floats are equal bit by bit; one NaN is as good as another.
func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// TestReadsAsPython: every type gives the float32 that Python's gguf gives.
func TestReadsAsPython(t *testing.T) {
	types := map[string]bool{}
	for _, path := range samples(t) {
		f := mustOpen(t, path)
		for _, name := range f.Names() {
			kind, isData := strings.CutSuffix(name, ".data")
			if !isData {
				continue
			}
			x, want := tensor(t, f, name), values(t, tensor(t, f, kind+".f32"))
			if x.Type.String() != kind {
				t.Errorf("%s is of type %v", name, x.Type)
			}
			for i, v := range values(t, x) {
				if !same(v, want[i]) {
					t.Errorf("%s: %s[%d] is %g (%08x), want %g (%08x)", path, name, i, v, math.Float32bits(v), want[i], math.Float32bits(want[i]))
					break
				}
			}
			types[kind] = true
		}
	}
	for _, l := range layouts {
		if l.read != nil && !types[l.name] && l.name != "Q8_K" { // Python doesn't read Q8_K
			t.Errorf("no sample of %s", l.name)
		}
	}
}

// TestWritesAsPython: quantised blocks equal those that Python's gguf makes.
func TestWritesAsPython(t *testing.T) {
	for _, path := range samples(t) {
		f := mustOpen(t, path)
		source := values(t, tensor(t, f, "source.f32"))
		count := 0
		for kind, l := range layouts {
			want, ok := f.Tensor("source." + l.name)
			if !ok || l.write == nil {
				continue
			}
			got := make([]byte, len(want.Data))
			if err := Quantize(got, kind, source); err != nil {
				t.Errorf("%s: %v", l.name, err)
				continue
			}
			if !bytes.Equal(got, want.Data) {
				for i := 0; i < len(got); i += l.bytes {
					if !bytes.Equal(got[i:i+l.bytes], want.Data[i:i+l.bytes]) {
						n := i / l.bytes * l.elements
						t.Errorf("%s: %s: block %d is % x, want % x, of %v", path, l.name, i/l.bytes, got[i:i+l.bytes], want.Data[i:i+l.bytes], source[n:n+l.elements])
						break
					}
				}
			}
			count++
		}
		if count != 4 {
			t.Errorf("%s: %d types were compared", path, count)
		}
	}
}

// TestQ8K: w = d·q by definition, as Python doesn't read the type.
func TestQ8K(t *testing.T) {
	src := make([]byte, 292)
	copy(src, []byte{0, 0, 0x80, 0x3e}) // 0.25
	for i := range 256 {
		src[4+i] = byte(i)
	}
	dst := make([]float32, 256)
	if err := Dequantize(dst, Q8_K, src); err != nil {
		t.Fatal(err)
	}
	for i, v := range dst {
		if v != 0.25*float32(int8(i)) {
			t.Fatalf("element %d is %g", i, v)
		}
	}
}

// TestMetadata: values of all kinds, as Python wrote them.
func TestMetadata(t *testing.T) {
	m := mustOpen(t, filepath.Join("testdata", "types.gguf")).Metadata()
	for key, want := range map[string]any{
		"general.architecture": "test",
		"kind.u8":              uint8(200), "kind.i8": int8(-100), "kind.u16": uint16(60000), "kind.i16": int16(-30000),
		"kind.u32": uint32(4000000000), "kind.i32": int32(-2000000000), "kind.f32": float32(0.1), "kind.bool": true,
		"kind.string": "é 你好 🙂", "kind.u64": uint64(1 << 63), "kind.i64": int64(-1 << 62), "kind.f64": 0.1,
		"array.string": []string{"a", "", "你好"}, "array.i32": []int32{1, -2, 3}, "array.f32": []float32{0.5, -1.25},
		"array.bool": []bool{true, false, true}, "array.array": []any{[]int32{1, 2}, []int32{3}},
	} {
		got, ok := m.Get(key)
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v (%v), want %#v", key, got, ok, want)
		}
	}
	if n, ok, err := m.Int("kind.u8"); n != 200 || !ok || err != nil {
		t.Errorf("Int: %d, %v, %v", n, ok, err)
	}
	if x, ok, err := m.Float("kind.i16"); x != -30000 || !ok || err != nil {
		t.Errorf("Float: %g, %v, %v", x, ok, err)
	}
	if list, ok, err := m.Ints("array.i32"); !reflect.DeepEqual(list, []int64{1, -2, 3}) || !ok || err != nil {
		t.Errorf("Ints: %v, %v, %v", list, ok, err)
	}
	if list, ok, err := m.Floats("array.f32"); !reflect.DeepEqual(list, []float64{0.5, -1.25}) || !ok || err != nil {
		t.Errorf("Floats: %v, %v, %v", list, ok, err)
	}
	if _, ok, err := m.Text("absent"); ok || err != nil {
		t.Errorf("an absent key: %v, %v", ok, err)
	}
	for what, err := range map[string]error{
		"kind.string is the string": second(m.Int("kind.string")), "kind.u64 is": second(m.Int("kind.u64")), "kind.f32 is 0.1": second(m.Int("kind.f32")),
		"kind.bool is": second(m.Float("kind.bool")), "kind.u8 is 200": second(m.Bool("kind.u8")), "array.i32 is an array": second(m.Text("array.i32")),
		"kind.string is": second(m.Texts("kind.string")), "array.string is": second(m.Ints("array.string")), "array.i32 is": second(m.Floats("array.i32")),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want an error with %q", err, what)
		}
	}
}

func second[T any](_ T, _ bool, err error) error { return err }

// TestReadParts: any part of a tensor equals that part of the whole.
func TestReadParts(t *testing.T) {
	f := mustOpen(t, filepath.Join("testdata", "types.gguf"))
	for _, name := range []string{"F16.data", "Q4_0.data", "Q8_0.data", "Q6_K.data"} {
		x := tensor(t, f, name)
		whole := values(t, x)
		for from := 0; from < len(whole); from += 37 {
			for _, n := range []int{0, 1, 2, 31, 32, 33, 64, 100, 255, 256, 257, 300} {
				if n > len(whole)-from {
					continue
				}
				part := make([]float32, n)
				if err := x.Read(part, from); err != nil {
					t.Fatal(err)
				}
				for i, v := range part {
					if !same(v, whole[from+i]) {
						t.Fatalf("%s: element %d of [%d, %d) is %g, want %g", name, from+i, from, from+n, v, whole[from+i])
					}
				}
			}
		}
		x.Release(0, x.Len())
		x.Release(32, 64)
		x.Release(x.Len(), 1)
		for i, v := range values(t, x) {
			if !same(v, whole[i]) {
				t.Fatalf("%s: element %d is %g once released, was %g", name, i, v, whole[i])
			}
		}
		for _, c := range [][2]int{{-1, 1}, {len(whole), 1}, {len(whole) - 1, 2}, {math.MaxInt, 1}} {
			if err := x.Read(make([]float32, c[1]), c[0]); err == nil {
				t.Errorf("%s: read %d from %d", name, c[1], c[0])
			}
		}
	}
}

func TestQuantizeRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, v := range []float32{nan, inf, -inf, 1e6} {
		for _, kind := range []Type{Q8_0, Q4_0} {
			src := make([]float32, 64)
			src[40] = v
			err := Quantize(make([]byte, 2*layouts[kind].bytes), kind, src)
			if err == nil || !strings.Contains(err.Error(), "element 40") {
				t.Errorf("%v of %g: %v", kind, v, err)
			}
		}
	}
	if err := Quantize(make([]byte, 84), Q2_K, make([]float32, 256)); err == nil {
		t.Error("wrote Q2_K")
	}
	for _, c := range []struct{ bytes, values int }{{17, 32}, {18, 31}, {36, 32}, {0, 32}} {
		if err := Quantize(make([]byte, c.bytes), Q4_0, make([]float32, c.values)); err == nil {
			t.Errorf("wrote %d values in %d bytes", c.values, c.bytes)
		}
		if err := Dequantize(make([]float32, c.values), Q4_0, make([]byte, c.bytes)); err == nil {
			t.Errorf("read %d values from %d bytes", c.values, c.bytes)
		}
	}
	// The smallest magnitudes have no inverse in float32.
	src := make([]float32, 32)
	src[3] = math.SmallestNonzeroFloat32
	for _, kind := range []Type{Q8_0, Q4_0} {
		b := make([]byte, layouts[kind].bytes)
		if err := Quantize(b, kind, src); err != nil {
			t.Fatal(err)
		}
		back := make([]float32, 32)
		if err := Dequantize(back, kind, b); err != nil {
			t.Fatal(err)
		}
		for i, v := range back {
			if v != 0 {
				t.Errorf("%v: element %d became %g", kind, i, v)
			}
		}
	}
}

// TestHalves: every binary16 becomes a float32 and itself again.
func TestHalves(t *testing.T) {
	for i := range 1 << 16 {
		b := []byte{byte(i), byte(i >> 8)}
		v := half(b)
		if back := safetensors.Float32ToF16(v); v == v && back != uint16(i) {
			t.Fatalf("%04x became %g and %04x", i, v, back)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	f := mustOpen(b, filepath.Join("testdata", "types.gguf"))
	for _, name := range f.Names() {
		kind, isData := strings.CutSuffix(name, ".data")
		x := tensor(b, f, name)
		if l := layouts[x.Type]; !isData || x.Len() < l.elements {
			continue
		}
		b.Run(kind, func(b *testing.B) {
			data := bytes.Repeat(x.Data, 1<<20/x.Len())
			dst := make([]float32, len(data)/layouts[x.Type].bytes*layouts[x.Type].elements)
			b.SetBytes(int64(4 * len(dst)))
			for b.Loop() {
				if err := Dequantize(dst, x.Type, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkQuantize(b *testing.B) {
	f := mustOpen(b, filepath.Join("testdata", "types.gguf"))
	src := values(b, tensor(b, f, "source.f32"))
	for kind, l := range layouts {
		if l.write == nil {
			continue
		}
		b.Run(l.name, func(b *testing.B) {
			dst := make([]byte, len(src)/l.elements*l.bytes)
			b.SetBytes(int64(4 * len(src)))
			for b.Loop() {
				if err := Quantize(dst, kind, src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
