package safetensors

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriterBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	w, err := Create(path, nil, []Spec{
		{"mask", "BOOL", []int{3}},
		{"w<\u4e2d>", "F32", []int{1, 2}},
		{"h", "BF16", nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct{ name, data string }{ // pieces, and out of order
		{"h", "hh"}, {"mask", "m"}, {"w<\u4e2d>", "wwww"}, {"mask", "mm"}, {"w<\u4e2d>", "WWWW"}, {"mask", ""},
	} {
		if err := w.Write(part.name, []byte(part.data)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Fatal("the file is visible before Close")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"format":"pt"},"w<` + "\u4e2d" + `>":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},` +
		`"h":{"dtype":"BF16","shape":[],"data_offsets":[8,10]},"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[10,13]}}`
	header += strings.Repeat(" ", (8-len(header)%8)%8)
	if want := raw(header, []byte("wwwwWWWWhhmmm")); !bytes.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if n := binary.LittleEndian.Uint64(got); n%8 != 0 {
		t.Errorf("header of %d bytes: the data are not aligned", n)
	}
	if err := w.Write("h", nil); err == nil {
		t.Error("Write after Close succeeded")
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		specs []Spec
		want  string
	}{
		"twice":        {[]Spec{{"a", "U8", nil}, {"a", "F32", nil}}, "twice"},
		"metadata":     {[]Spec{{"__metadata__", "U8", nil}}, "__metadata__"},
		"name":         {[]Spec{{"\xff", "U8", nil}}, "name"},
		"dtype":        {[]Spec{{"a", "float32", nil}}, "float32"},
		"negative":     {[]Spec{{"a", "U8", []int{-2}}}, "negative"},
		"half a byte":  {[]Spec{{"a", "F4", []int{1}}}, "byte"},
		"overflow":     {[]Spec{{"a", "U8", []int{1 << 31, 1 << 31, 1 << 31}}}, "64 bits"},
		"2^63 in sum":  {[]Spec{{"a", "U8", []int{1 << 31, 1 << 31}}, {"b", "U8", []int{1 << 31, 1 << 31}}}, "2^63"},
		"above 2^63 B": {[]Spec{{"a", "F64", []int{1 << 30, 1 << 30}}}, "2^63"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x.safetensors")
			_, err := Create(path, nil, c.specs)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want an error with %q and %s", err, c.want, path)
			}
			if left := fileNames(t, dir); len(left) != 0 {
				t.Errorf("left %q", left)
			}
		})
	}
	if _, err := Create(filepath.Join(t.TempDir(), "x"), map[string]string{"k": "\xff"}, nil); err == nil {
		t.Error("accepted metadata that is not UTF-8")
	}
}

func TestWriterMistakes(t *testing.T) {
	specs := []Spec{{"a", "F32", []int{2}}, {"b", "F32", []int{1}}}
	for name, c := range map[string]struct {
		use  func(w *Writer) error
		want []string
	}{
		"missing":      {func(w *Writer) error { w.Write("a", make([]byte, 8)); return w.Close() }, []string{`"b"`, "0 bytes", "takes 4"}},
		"short":        {func(w *Writer) error { w.Write("a", make([]byte, 5)); return w.Close() }, []string{`"a"`, "5 bytes", "takes 8"}},
		"long":         {func(w *Writer) error { return w.Write("b", make([]byte, 5)) }, []string{`"b"`, "5 bytes", "takes 4"}},
		"unknown":      {func(w *Writer) error { return w.Write("c", nil) }, []string{`"c"`}},
		"kept for end": {func(w *Writer) error { w.Write("c", nil); w.Write("a", nil); return w.Close() }, []string{`"c"`}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x.safetensors")
			w, err := Create(path, nil, specs)
			if err != nil {
				t.Fatal(err)
			}
			err = c.use(w)
			for _, part := range append(c.want, path) {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("error %v does not say %q", err, part)
				}
			}
			w.Abort()
			if left := fileNames(t, dir); len(left) != 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}
