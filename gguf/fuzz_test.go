package gguf

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// FuzzHeader: no file makes the reader panic or allocate much more than the file
// is long, and what it accepts lies within the file.
func FuzzHeader(f *testing.F) {
	f.Add(pad(bin(head(2, 3), "a", uint32(8), "text", "b", uint32(9), uint32(8), uint64(2), "x", "yy", alignmentKey, uint32(4), uint32(32),
		info("x", Q8_0, 0, 32), info("y", F32, 64, 2, 2)), 96))
	f.Add(bin(head(0, 1), "k", uint32(9), uint32(9), uint64(1), uint32(9), uint64(1), uint32(0), uint64(1), uint8(0)))
	f.Add(pad(append(head(1, 0), info("x", F32, 0, 1<<33, 1<<33, 16, 1)...), 32))
	if b, err := os.ReadFile(filepath.Join("testdata", "types.gguf")); err == nil {
		f.Add(b[:4096]) // cut off; the whole would be slow to mutate
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		h, err := parseHeader(file)
		if err != nil {
			if len(err.Error()) > 500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		for _, e := range h.entries {
			data := file[h.start:][e.begin:e.end]
			x := Tensor{Name: e.name, Type: e.typ, Shape: e.shape, Data: data}
			if n := x.Len(); n > 0 && n < 1<<16 && e.typ.Readable() {
				if err := x.Read(make([]float32, n), 0); err != nil {
					t.Error(err)
				}
				if err := x.Read(make([]float32, 1), n-1); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// FuzzDequantize: any bytes are read without a panic, and in parts as in whole;
// what has been read and can be written gives itself again where the type is exact.
func FuzzDequantize(f *testing.F) {
	f.Add(uint32(Q4_K), make([]byte, 288), 100)
	f.Add(uint32(Q6_K), []byte{1, 2, 3}, 0)
	f.Add(uint32(BF16), []byte{0x80, 0x7f, 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, kind uint32, data []byte, from int) {
		k := Type(kind)
		l, ok := layouts[k]
		if !ok || l.read == nil || len(data) > 1<<16 {
			return
		}
		n := len(data) / l.bytes * l.elements
		x := Tensor{Name: "x", Type: k, Shape: []int{n}, Data: data[:n/l.elements*l.bytes]}
		whole := make([]float32, n)
		if err := Dequantize(whole, k, x.Data); err != nil {
			t.Fatal(err)
		}
		if from < 0 || from > n {
			return
		}
		part := make([]float32, n-from)
		if err := x.Read(part, from); err != nil {
			t.Fatal(err)
		}
		for i, v := range part {
			if !same(v, whole[from+i]) {
				t.Fatalf("element %d is %g in part, %g in whole", from+i, v, whole[from+i])
			}
		}
		if l.write == nil || l.elements > 1 {
			return
		}
		back := make([]byte, len(x.Data))
		if err := Quantize(back, k, whole); err != nil {
			t.Fatal(err)
		}
		for i, v := range whole {
			got := make([]float32, 1)
			if err := Dequantize(got, k, back[i*l.bytes:(i+1)*l.bytes]); err != nil || !same(got[0], v) {
				t.Fatalf("element %d: %g (%08x) came back as %g", i, v, math.Float32bits(v), got[0])
			}
		}
	})
}
