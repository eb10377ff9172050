package safetensors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ringtail/golden"
)

// raw puts a file together from a header's text and data.
func raw(header string, data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	return append(b, data...)
}

func writeRaw(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen(t *testing.T) {
	// The data are out of the header's order, the header is padded, a scalar
	// and empty tensors are there, and a key from the future.
	header := `{"b":{"dtype":"F32","shape":[2],"data_offsets":[6,14]},` +
		`"__metadata__":{"format":"pt","k":"\u4e2d"},` +
		`"a":{"shape":[3,1],"data_offsets":[0,6],"dtype":"BF16","later":{"x":[1,{}]}},` +
		`"scalar":{"dtype":"U8","shape":[],"data_offsets":[14,15]},` +
		`"e":{"dtype":"I64","shape":[4,0],"data_offsets":[6,6]},` +
		`"packed":{"dtype":"F4","shape":[4],"data_offsets":[15,17]}}  `
	data := []byte("aabbccDDDDEEEEsPP")
	f, err := Open(writeRaw(t, raw(header, data)))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "e", "b", "scalar", "packed"}; !slices.Equal(f.Names(), want) {
		t.Errorf("names %q, want %q", f.Names(), want)
	}
	if want := map[string]string{"format": "pt", "k": "\u4e2d"}; !maps.Equal(f.Metadata(), want) {
		t.Errorf("metadata %q, want %q", f.Metadata(), want)
	}
	for _, want := range []Tensor{
		{"a", "BF16", []int{3, 1}, []byte("aabbcc")},
		{"b", "F32", []int{2}, []byte("DDDDEEEE")},
		{"scalar", "U8", []int{}, []byte("s")},
		{"e", "I64", []int{4, 0}, nil},
		{"packed", "F4", []int{4}, []byte("PP")},
	} {
		got, ok := f.Tensor(want.Name)
		if !ok || !sameTensor(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, ok, want)
		}
	}
	if _, ok := f.Tensor("nope"); ok {
		t.Error("found a tensor that is not there")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, ok := f.Tensor("a"); ok {
		t.Error("found a tensor after Close")
	}
}

func sameTensor(a, b Tensor) bool {
	return a.Name == b.Name && a.Dtype == b.Dtype && slices.Equal(a.Shape, b.Shape) && bytes.Equal(a.Data, b.Data)
}

func TestOpenRefuses(t *testing.T) {
	const ok = `"dtype":"F32","shape":[1],"data_offsets":[0,4]`
	four := make([]byte, 4)
	eight := make([]byte, 8)
	for name, c := range map[string]struct {
		content []byte
		want    []string // parts of the error
	}{
		"empty":               {nil, []string{"0 bytes"}},
		"short":               {make([]byte, 7), []string{"7 bytes"}},
		"length above cap":    {append(binary.LittleEndian.AppendUint64(nil, MaxHeader+1), "{}"...), []string{"100000001", "100000000"}},
		"length 2^64-1":       {append(binary.LittleEndian.AppendUint64(nil, 1<<64-1), "{}"...), []string{"header length"}},
		"length beyond end":   {append(binary.LittleEndian.AppendUint64(nil, 3), "{}"...), []string{"header length 3", "only 2", "cut off"}},
		"no header":           {raw("", nil), []string{"'{'"}},
		"not JSON":            {raw("PK\x03\x04", nil), []string{"'{'"}},
		"leading space":       {raw(" {}", nil), []string{"'{'"}},
		"not UTF-8":           {raw("{\"\xff\":1}", nil), []string{"UTF-8"}},
		"header cut":          {raw(`{"a":{"dtype":"F32"`, nil), []string{`"a"`, "JSON"}},
		"text after":          {raw(`{} {}`, nil), []string{"after the closing brace"}},
		"garbage after":       {raw(`{} x`, nil), []string{"after the closing brace"}},
		"a list":              {raw(`{"a":[]}`, nil), []string{`"a"`, "object"}},
		"bad dtype":           {raw(`{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`, four), []string{`"a"`, `"F31"`}},
		"dtype number":        {raw(`{"a":{"dtype":5,"shape":[1],"data_offsets":[0,4]}}`, four), []string{`"a"`, "dtype", `"5"`}},
		"no dtype":            {raw(`{"a":{"shape":[1],"data_offsets":[0,4]}}`, four), []string{`"a"`, "no dtype"}},
		"no shape":            {raw(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, four), []string{`"a"`, "no shape"}},
		"no offsets":          {raw(`{"a":{"dtype":"F32","shape":[1]}}`, four), []string{`"a"`, "no data_offsets"}},
		"null shape":          {raw(`{"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}}`, four), []string{`"a"`, "shape", "null"}},
		"negative dim":        {raw(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, four), []string{`"a"`, "shape", "-1"}},
		"fractional dim":      {raw(`{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}`, four), []string{`"a"`, "1.0"}},
		"exponent dim":        {raw(`{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}`, four), []string{`"a"`, "1e0"}},
		"dim above 2^64":      {raw(`{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}}`, four), []string{`"a"`, "18446744073709551616"}},
		"dim above int":       {raw(`{"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}}`, four), []string{`"a"`, "too large"}},
		"elements overflow":   {raw(`{"a":{"dtype":"U8","shape":[4294967296,4294967297],"data_offsets":[0,4]}}`, four), []string{`"a"`, "64 bits"}},
		"bits overflow":       {raw(`{"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}}`, four), []string{`"a"`, "64 bits"}},
		"half a byte":         {raw(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}`, four[:2]), []string{`"a"`, "byte"}},
		"one offset":          {raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, four), []string{`"a"`, "data_offsets"}},
		"three offsets":       {raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, four), []string{`"a"`, "data_offsets"}},
		"backwards":           {raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, four), []string{`"a"`, "[4, 0]"}},
		"size differs":        {raw(`{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,4]}}`, four), []string{`"a"`, "4 bytes", "[2 3]", "24"}},
		"data cut":            {raw(`{"a":{`+ok+`}}`, four[:3]), []string{`"a"`, "cut off"}},
		"offsets past end":    {raw(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[18446744073709551611,18446744073709551615]}}`, four), []string{`"a"`}},
		"data left over":      {raw(`{"a":{`+ok+`}}`, eight), []string{"4 bytes after"}},
		"data but no tensors": {raw(`{}`, four), []string{"4 bytes after"}},
		"hole at start":       {raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, eight), []string{`"a"`, "hole"}},
		"overlap":             {raw(`{"a":{`+ok+`},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}`, eight[:6]), []string{`"b"`, `"a"`, "inside"}},
		"same range":          {raw(`{"a":{`+ok+`},"b":{`+ok+`}}`, four), []string{`"b"`, `"a"`, "inside"}},
		"same name":           {raw(`{"a":{`+ok+`},"a":{`+ok+`}}`, four), []string{`"a"`, "twice"}},
		"same name, escaped":  {raw(`{"a":{`+ok+`},"\u0061":{`+ok+`}}`, four), []string{`"a"`, "twice"}},
		"same key":            {raw(`{"a":{"dtype":"F32",`+ok+`}}`, four), []string{`"a"`, `"dtype"`, "twice"}},
		"same metadata key":   {raw(`{"__metadata__":{"k":"1","k":"2"}}`, nil), []string{"__metadata__", `"k"`, "twice"}},
		"metadata twice":      {raw(`{"__metadata__":{},"__metadata__":{}}`, nil), []string{"__metadata__", "twice"}},
		"metadata number":     {raw(`{"__metadata__":{"k":1}}`, nil), []string{"__metadata__", `"k"`}},
		"deep nesting":        {raw(`{"a":{"x":`+strings.Repeat("[", 1<<20), nil), []string{`"a"`}},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeRaw(t, c.content)
			f, err := Open(path)
			if err == nil {
				f.Close()
				t.Fatal("opened")
			}
			msg := err.Error()
			for _, part := range append(c.want, path) {
				if !strings.Contains(msg, part) {
					t.Errorf("error %q does not say %q", msg, part)
				}
			}
			if len(msg) > 700 || strings.Count(msg, "\n") > 1 {
				t.Errorf("error of %d bytes: %.300q", len(msg), msg)
			}
		})
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("opening a folder: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("opened an absent file")
	}
}

// Every prefix of a good file, and every file with one byte changed, either
// opens with consistent tensors or is refused.
func TestTruncatedAndFlipped(t *testing.T) {
	good := raw(`{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[2],"data_offsets":[8,10]}} `,
		[]byte("0123456789"))
	for n := range good {
		if _, err := parse(good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(good))
		}
	}
	for i := range good {
		for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			checkParse(t, bad)
		}
	}
}

// parse is Open on bytes in memory.
func parse(content []byte) (*header, error) {
	f, err := fromBytes(content)
	if err != nil {
		return nil, err
	}
	return &header{entries: f.entries, metadata: f.metadata}, nil
}

// checkParse checks what must hold of any input that is accepted.
func checkParse(t *testing.T, content []byte) {
	t.Helper()
	h, err := parse(content)
	if err != nil {
		return
	}
	n := binary.LittleEndian.Uint64(content)
	end := uint64(0)
	seen := map[string]bool{}
	for _, e := range h.entries {
		size, err := byteSize(e.dtype, e.shape)
		if err != nil || seen[e.name] || e.begin != end || e.end-e.begin != size {
			t.Fatalf("accepted entry %+v after byte %d (%v)", e, end, err)
		}
		end = e.end
		seen[e.name] = true
	}
	if end != uint64(len(content))-8-n {
		t.Fatalf("accepted data of %d bytes for tensors of %d", uint64(len(content))-8-n, end)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(raw(`{}`, nil))
	f.Add(raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}}   `, make([]byte, 4)))
	f.Add(raw(`{"a":{"dtype":"F4","shape":[2,0,9],"data_offsets":[0,0],"x":[{"y":null}]},"b":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}`, make([]byte, 8)))
	f.Add(raw(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[18446744073709551615,0]}}`, nil))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 1<<63), "{}"...))
	f.Fuzz(func(t *testing.T, content []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		checkParse(t, content)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20+1000*uint64(len(content)) {
			t.Fatalf("%d bytes allocated for an input of %d", used, len(content))
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":8},"weight_map":{"a":"model-00001-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../x.safetensors"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseIndex(text, []string{".safetensors"})
		if err != nil {
			return
		}
		for tensor, shard := range m {
			if filepath.Base(shard) != shard || strings.Contains(shard, "..") || !filepath.IsLocal(shard) {
				t.Fatalf("tensor %q: shard %q accepted", tensor, shard)
			}
		}
	})
}

// Every golden file opens, and what we write from it is read back the same.
func TestGoldenFiles(t *testing.T) {
	root := golden.Dir(t)
	var files []string
	filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".safetensors") {
			files = append(files, path)
		}
		return nil
	})
	if len(files) == 0 {
		t.Skipf("no safetensors files under %s", root)
	}
	for _, path := range files {
		rel, _ := filepath.Rel(root, path)
		t.Run(filepath.ToSlash(rel), func(t *testing.T) {
			f, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var tensors []Tensor
			for _, name := range f.Names() {
				x, ok := f.Tensor(name)
				if !ok {
					t.Fatalf("tensor %s is listed but not found", name)
				}
				if size, _ := DtypeBits(x.Dtype); len(x.Data)*8 != x.Len()*size {
					t.Errorf("%s: %d bytes for %v %s", name, len(x.Data), x.Shape, x.Dtype)
				}
				tensors = append(tensors, x)
			}
			ours := filepath.Join(t.TempDir(), "ours.safetensors")
			if err := WriteFile(ours, f.Metadata(), tensors); err != nil {
				t.Fatal(err)
			}
			g, err := Open(ours)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if len(g.Names()) != len(tensors) {
				t.Errorf("%d tensors read back, want %d", len(g.Names()), len(tensors))
			}
			for _, want := range tensors {
				if got, ok := g.Tensor(want.Name); !ok || !sameTensor(got, want) {
					t.Errorf("tensor %s differs after a round trip", want.Name)
				}
			}
		})
	}
}

func TestGoldenFolders(t *testing.T) {
	root := filepath.Join(golden.Dir(t), "models")
	models, err := os.ReadDir(root)
	if err != nil {
		t.Skipf("no golden models: %v", err)
	}
	for _, m := range models {
		t.Run(m.Name(), func(t *testing.T) {
			folder, err := OpenFolder(filepath.Join(root, m.Name()))
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			if len(folder.Names()) == 0 || folder.Bytes() == 0 {
				t.Error("no tensors")
			}
			for _, name := range folder.Names() {
				if x, ok := folder.Tensor(name); !ok || x.Name != name || len(x.Data) == 0 {
					t.Errorf("tensor %s: %v, %d bytes", name, ok, len(x.Data))
				}
			}
		})
	}
}

func ExampleOpen() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "x.safetensors")
	WriteFile(path, nil, []Tensor{{"w", "F32", []int{2}, []byte{0, 0, 128, 63, 0, 0, 0, 64}}})

	f, err := Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	w, _ := f.Tensor("w")
	values := make([]float32, w.Len())
	err = w.ToFloat32(values)
	fmt.Println(w.Dtype, w.Shape, values, err)
	// Output: F32 [2] [1 2] <nil>
}
