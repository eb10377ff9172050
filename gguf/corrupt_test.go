package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// bin puts a file together: Go integers as they are, strings with their length,
// raw bytes without.
func bin(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = appendText(b, p)
		case []byte:
			b = append(b, p...)
		default:
			var err error
			if b, err = binary.Append(b, binary.LittleEndian, p); err != nil {
				panic(err)
			}
		}
	}
	return b
}

var magic = []byte("GGUF")

// head begins a file of version 3.
func head(tensors, pairs uint64) []byte { return bin(magic, uint32(3), tensors, pairs) }

// pad fills up to the alignment and appends n bytes of data.
func pad(b []byte, n int) []byte {
	return append(b, make([]byte, int(align(uint64(len(b)), 32))-len(b)+n)...)
}

func info(name string, kind Type, offset uint64, dims ...uint64) []byte {
	return bin(name, uint32(len(dims)), dims, uint32(kind), offset)
}

// TestCorrupt has one file at least for each class of fault that readers of GGUF
// have had: lengths and counts that are believed, products and sums that wrap
// around, data outside the file, kinds and types out of range, depth, names twice.
func TestCorrupt(t *testing.T) {
	const huge = math.MaxUint64
	good := pad(append(head(1, 0), info("x", F32, 0, 8)...), 32)
	if _, err := parseHeader(good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "0 bytes"},
		{"short", []byte("GGUF\x03\x00\x00\x00"), "too few"},
		{"another format", append([]byte("PK\x03\x04"), make([]byte, 40)...), "not a GGUF file"},
		{"version 1", bin(magic, uint32(1), uint64(0), uint64(0)), "version 1"},
		{"version 4", bin(magic, uint32(4), uint64(0), uint64(0)), "version 4"},
		{"big-endian", bin(magic, []byte{0, 0, 0, 3}, uint64(0), uint64(0)), "big-endian"},
		{"more tensors than bytes", head(huge, 0), "tensors"},
		{"a few more tensors than bytes", append(head(2, 0), make([]byte, 47)...), "2 tensors"},
		{"more pairs than bytes", head(0, 1<<40), "metadata pairs"},
		{"absurdly many pairs", append(head(0, maxPairs+1), make([]byte, 13*(maxPairs+1))...), "metadata pairs"},
		{"key longer than the file", bin(head(0, 1), uint64(1<<40), make([]byte, 16)), "a string of 1099511627776 bytes"},
		{"key of 2^64-1 bytes", bin(head(0, 1), uint64(huge), make([]byte, 16)), "a string of 18446744073709551615 bytes"},
		{"key longer than keys may be", bin(head(0, 1), strings.Repeat("k", 1<<16), uint32(4), uint32(1)), "at most 65535"},
		{"key that is not UTF-8", bin(head(0, 1), "k\xff", uint32(4), uint32(1)), "not UTF-8"},
		{"key twice", bin(head(0, 2), "k", uint32(4), uint32(1), "k", uint32(4), uint32(1)), "twice"},
		{"value cut off", bin(head(0, 1), "key.long", uint32(10), uint8(1)), `"key.long": needs 8 bytes`},
		{"kind cut off", bin(head(0, 1), "kkkkkkkk", uint8(4)), "needs 4 bytes"},
		{"kind 13", bin(head(0, 1), "k", uint32(13), uint64(0)), "kind 13"},
		{"kind 2^32-1", bin(head(0, 1), "k", uint32(math.MaxUint32), uint64(0)), "not known"},
		{"bool 2", bin(head(0, 1), "kkkkk", uint32(7), uint8(2)), "a bool is 2"},
		{"string value longer than the file", bin(head(0, 1), "k", uint32(8), uint64(1<<62), make([]byte, 8)), "a string of"},
		{"array of 2^61 u64", bin(head(0, 1), "k", uint32(9), uint32(10), uint64(1<<61), make([]byte, 8)), "an array of"},
		{"array of 2^64-1 strings", bin(head(0, 1), "k", uint32(9), uint32(8), uint64(huge), make([]byte, 8)), "an array of"},
		{"array of 2^63 bytes", bin(head(0, 1), "k", uint32(9), uint32(0), uint64(1<<63), make([]byte, 8)), "an array of"},
		{"array of two u64 in 8 bytes", bin(head(0, 1), "k", uint32(9), uint32(10), uint64(2), make([]byte, 8)), "an array of 2 × u64"},
		{"array of two strings in 8 bytes", bin(head(0, 1), "k", uint32(9), uint32(8), uint64(2), make([]byte, 8)), "an array of 2 × string"},
		{"array of kind 13", bin(head(0, 1), "k", uint32(9), uint32(13), uint64(1), make([]byte, 8)), "kind 13"},
		{"array cut off", bin(head(0, 1), "k", uint32(9), uint32(0)), "needs 12 bytes"},
		{"arrays in arrays in arrays", bin(head(0, 1), "k", uint32(9), uint32(9), uint64(1), uint32(9), uint64(1), uint32(0), uint64(1), uint8(0)), "deep"},
		{"string in an array cut off", bin(head(0, 1), "k", uint32(9), uint32(8), uint64(1), uint64(9), []byte("short")), "element 0"},
		{"bool in an array", bin(head(0, 1), "k", uint32(9), uint32(7), uint64(2), []byte{1, 7}), "a bool is 7"},
		{"alignment 0", bin(head(0, 1), alignmentKey, uint32(4), uint32(0)), "power of two"},
		{"alignment 48", bin(head(0, 1), alignmentKey, uint32(4), uint32(48)), "power of two"},
		{"alignment 2^31", bin(head(0, 1), alignmentKey, uint32(4), uint32(1<<31)), "power of two"},
		{"alignment negative", bin(head(0, 1), alignmentKey, uint32(5), int32(-32)), "power of two"},
		{"alignment a string", bin(head(0, 1), alignmentKey, uint32(8), "32"), "expected a whole number"},
		{"tensor name longer than the file", bin(head(1, 0), uint64(1<<33), make([]byte, 32)), "a string of"},
		{"tensor name of 65 bytes", pad(append(head(1, 0), info(strings.Repeat("n", 65), F32, 0, 8)...), 32), "at most 64"},
		{"tensor twice", pad(append(append(head(2, 0), info("x", F32, 0, 8)...), info("x", F32, 32, 8)...), 64), "twice"},
		{"5 dimensions", pad(append(head(1, 0), info("x", F32, 0, 1, 1, 1, 1, 1)...), 32), "5 dimensions"},
		{"2^32-1 dimensions", bin(head(1, 0), "x", uint32(math.MaxUint32), make([]byte, 64)), "dimensions"},
		{"dimensions cut off", bin(head(1, 0), "xxxxxxxxxxxxxxxxxxxx", uint32(4), make([]byte, 8)), "needs 44 bytes"},
		{"dimension 2^63", pad(append(head(1, 0), info("x", F32, 0, 1<<63)...), 32), "too large"},
		{"2^32 × 2^32 elements", pad(append(head(1, 0), info("x", F32, 0, 1<<32, 1<<32)...), 32), "more elements"},
		{"product that wraps to 16", pad(append(head(1, 0), info("x", F32, 0, 1<<33, 1<<33, 16, 1)...), 32), "more elements"},
		{"bytes that wrap around", pad(append(head(1, 0), info("x", F64, 0, 1<<31, 1<<30)...), 32), "more bytes"},
		{"data beyond the file", pad(append(head(1, 0), info("x", F32, 0, 16)...), 32), "cut off"},
		{"offset beyond the file", pad(append(head(1, 0), info("x", F32, 1<<40, 8)...), 32), "cut off"},
		{"offset that wraps around", pad(append(head(1, 0), info("x", F32, huge-31, 8)...), 32), "64 bits"},
		{"offset not aligned", pad(append(head(1, 0), info("x", F32, 16, 4)...), 32), "multiple of the alignment"},
		{"no room for the padding", append(head(1, 0), info("x", F32, 0, 0)...), "cut off"},
		{"type 5", pad(append(head(1, 0), info("x", 5, 0, 8)...), 32), "type 5 is not known"},
		{"type 2^32-1", pad(append(head(1, 0), info("x", math.MaxUint32, 0, 8)...), 32), "not known"},
		{"half a block", pad(append(head(1, 0), info("x", Q4_0, 0, 16)...), 32), "no whole blocks"},
		{"rows of half blocks", pad(append(head(1, 0), info("x", Q4_0, 0, 16, 2)...), 32), "no whole blocks"},
		{"one in another", pad(append(append(head(2, 0), info("x", F32, 0, 16)...), info("y", F32, 32, 8)...), 64), "inside those of"},
		{"both in one place", pad(append(append(head(2, 0), info("x", F32, 0, 8)...), info("y", F32, 0, 8)...), 64), "inside those of"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parseHeader(c.file)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.want)
		} else if strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
			t.Errorf("%s: not one line: %v", c.name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+8*uint64(len(c.file)) {
			t.Errorf("%s: allocated %d bytes for %d", c.name, n, len(c.file))
		}
	}
	// Cut anywhere, a file is refused.
	whole := pad(bin(head(1, 2), "a", uint32(8), "text", "b", uint32(9), uint32(8), uint64(2), "x", "yy", info("x", Q8_0, 0, 32)), 34)
	if _, err := parseHeader(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, err := parseHeader(whole[:n]); err == nil {
			t.Errorf("accepted %d of %d bytes", n, len(whole))
		}
	}
}

// TestOpenErrors: the message names the file.
func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.gguf")
	if err := os.WriteFile(bad, head(9, 9), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{bad, dir, filepath.Join(dir, "absent.gguf")} {
		if _, err := Open(path); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%v, want an error that begins with %s", err, path)
		}
	}
	if _, err := Open(filepath.Join(dir, "absent.gguf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func TestUnreadableType(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := os.WriteFile(path, pad(append(head(1, 0), info("blk.0.w", 17, 0, 256)...), 74), 0o666); err != nil {
		t.Fatal(err)
	}
	x := tensor(t, mustOpen(t, path), "blk.0.w")
	err := x.Read(make([]float32, 256), 0)
	if err == nil || !strings.Contains(err.Error(), "IQ2_XS") || !strings.Contains(err.Error(), "blk.0.w") {
		t.Error(err)
	}
	if err := Dequantize(make([]float32, 256), 17, x.Data); err == nil {
		t.Error("read IQ2_XS")
	}
}

// writeAll writes a file of the given values.
func writeAll(t *testing.T, path string, pairs []Pair, specs []Spec, v []float32) {
	t.Helper()
	w, err := Create(path, pairs, specs)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		if err := w.Write(s.Name, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWriter: what was written is read, values of all kinds and tensors of all
// types, at the alignment asked for.
func TestWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gguf")
	pairs := []Pair{{alignmentKey, uint32(64)}, {"a", uint8(1)}, {"b", int8(-1)}, {"c", uint16(2)}, {"d", int16(-2)}, {"e", uint32(3)}, {"f", int32(-3)},
		{"g", float32(0.5)}, {"h", true}, {"i", "text"}, {"j", uint64(4)}, {"k", int64(-4)}, {"l", 0.25},
		{"m", []uint8{1, 2}}, {"n", []int8{-1}}, {"o", []uint16{1}}, {"p", []int16{-1}}, {"q", []uint32{1}}, {"r", []int32{-1}}, {"s", []float32{1}},
		{"t", []bool{true, false}}, {"u", []string{"", "x\xff"}}, {"v", []uint64{1}}, {"w", []int64{-1}}, {"x", []float64{1}}, {"y", []any{[]string{"z"}, []int8{}}}}
	var specs []Spec
	for kind, l := range layouts {
		if l.write != nil {
			specs = append(specs, Spec{l.name, kind, []int{3, 64}})
		}
	}
	v := make([]float32, 192)
	for i := range v {
		v[i] = float32(i%16) - 8
	}
	writeAll(t, path, pairs, specs, v)
	f := mustOpen(t, path)
	if !reflect.DeepEqual(f.Metadata().Pairs, pairs) {
		t.Errorf("metadata %#v, want %#v", f.Metadata().Pairs, pairs)
	}
	for _, s := range specs {
		x := tensor(t, f, s.Name)
		if x.Type != s.Type || !reflect.DeepEqual(x.Shape, s.Shape) || f.shards[0].entries[f.where[s.Name].entry].begin%64 != 0 {
			t.Errorf("%s: %v %v", s.Name, x.Type, x.Shape)
		}
		for i, got := range values(t, x) {
			if math.Abs(float64(got-v[i])) > 0.04 {
				t.Errorf("%s[%d] is %g, want %g", s.Name, i, got, v[i])
			}
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size()%64 != 0 {
		t.Errorf("size %d: the last tensor isn't padded (%v)", info.Size(), err)
	}
}

func TestWriterRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gguf")
	for want, c := range map[string]struct {
		pairs []Pair
		specs []Spec
	}{
		"stands twice":    {pairs: []Pair{{"a", true}, {"a", true}}},
		"type int":        {pairs: []Pair{{"a", 1}}},
		"power of two":    {pairs: []Pair{{alignmentKey, uint32(7)}}},
		"deep":            {pairs: []Pair{{"a", []any{[]any{[]any{}}}}}},
		"among arrays":    {pairs: []Pair{{"a", []any{"x"}}}},
		"announced twice": {specs: []Spec{{"x", F32, []int{1}}, {"x", F32, []int{1}}}},
		"can't be":        {specs: []Spec{{"x", Q4_K, []int{256}}}},
		"whole blocks":    {specs: []Spec{{"x", Q4_0, []int{31}}}},
		"dimensions":      {specs: []Spec{{"x", F32, []int{1, 1, 1, 1, 1}}}},
		"negative":        {specs: []Spec{{"x", F32, []int{-1}}}},
		"63 bytes":        {specs: []Spec{{strings.Repeat("n", 64), F32, []int{1}}}},
	} {
		if _, err := Create(path, c.pairs, c.specs); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
	spec := []Spec{{"x", Q8_0, []int{64}}}
	for want, write := range map[string]func(w *Writer) error{
		"not announced": func(w *Writer) error { return w.Write("y", make([]float32, 32)) },
		"whole blocks":  func(w *Writer) error { return w.Write("x", make([]float32, 31)) },
		"more values":   func(w *Writer) error { return w.Write("x", make([]float32, 96)) },
		"can't hold":    func(w *Writer) error { return w.Write("x", append(make([]float32, 31), float32(math.NaN()))) },
		"34 bytes":      func(w *Writer) error { w.Write("x", make([]float32, 32)); return w.Close() },
	} {
		w, err := Create(path, nil, spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := write(w); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
		if err := w.Close(); err == nil && want != "34 bytes" {
			t.Errorf("%s: Close found nothing wrong", want)
		}
		if err := w.Write("x", nil); err == nil {
			t.Errorf("%s: wrote after Close", want)
		}
		if list, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(list) != 0 {
			t.Errorf("%s: left %v", want, list)
		}
	}
}

// TestShards: a model in parts is opened by any of them; parts that are missing
// or don't belong are named.
func TestShards(t *testing.T) {
	dir := t.TempDir()
	name := func(i int) string { return filepath.Join(dir, fmt.Sprintf("m-%05d-of-00003.gguf", i+1)) }
	write := func(i int, no, count uint16, tensors int32, names ...string) {
		var specs []Spec
		for _, n := range names {
			specs = append(specs, Spec{n, F32, []int{2}})
		}
		pairs := []Pair{{splitNo, no}, {splitCount, count}, {splitTensors, tensors}}
		if i == 0 {
			pairs = append(pairs, Pair{"general.name", "first"})
		}
		writeAll(t, name(i), pairs, specs, []float32{float32(i), 7})
	}
	write(0, 0, 3, 4)
	write(1, 1, 3, 4, "a", "b")
	write(2, 2, 3, 4, "c", "d")
	for i := range 3 {
		f := mustOpen(t, name(i))
		if !reflect.DeepEqual(f.Names(), []string{"a", "b", "c", "d"}) || !f.Metadata().Has("general.name") {
			t.Errorf("by part %d: %v, %v", i, f.Names(), f.Metadata().Pairs)
		}
		if v := values(t, tensor(t, f, "d")); v[0] != 2 {
			t.Errorf("by part %d: d is %v", i, v)
		}
	}
	refused := func(want string) {
		t.Helper()
		for i := range 3 {
			if _, err := Open(name(i)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("by part %d: %v, want an error with %q", i, err, want)
			}
		}
	}
	write(2, 2, 3, 4, "c", "a")
	refused(`tensor "a" stands in`)
	write(2, 2, 3, 4, "c")
	refused("hold 3 tensors")
	write(2, 1, 3, 4, "c", "d")
	refused("part")
	write(2, 2, 3, 4, "c", "d")
	if err := os.Remove(name(1)); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		if _, err := Open(name(i)); err == nil || !strings.Contains(err.Error(), "part 2 of 3 is missing") {
			t.Errorf("by part %d: %v", i, err)
		}
	}
	odd := filepath.Join(dir, "odd.gguf")
	writeAll(t, odd, []Pair{{splitNo, uint16(0)}, {splitCount, uint16(2)}}, nil, nil)
	if _, err := Open(odd); err == nil || !strings.Contains(err.Error(), "isn't named") {
		t.Error(err)
	}
	writeAll(t, odd, []Pair{{splitNo, uint16(5)}, {splitCount, uint16(2)}}, nil, nil)
	if _, err := Open(odd); err == nil || !strings.Contains(err.Error(), "split.no 5") {
		t.Error(err)
	}
}
