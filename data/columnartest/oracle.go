// Package columnartest compares readers of columns with what Python reads; see oracle/data_formats.py.
package columnartest

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// Folder is the folder that oracle/data_formats.py wrote; the test is skipped where there is none.
func Folder(t *testing.T) string {
	dir := os.Getenv("RINGTAIL_DATA_ORACLE")
	if dir == "" {
		t.Skip("RINGTAIL_DATA_ORACLE names no folder of oracle/data_formats.py")
	}
	return dir
}

// Types compares every file of an extension under types/ with the JSON of its name.
func Types(t *testing.T, ext string, open func(file string) (next func() ([]byte, error), err error)) {
	files, err := filepath.Glob(filepath.Join(Folder(t), "types", "*"+ext))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s files: %v", ext, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			name, _, _ := strings.Cut(filepath.Base(file), ".")
			raw, err := os.ReadFile(filepath.Join(filepath.Dir(file), name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var want []json.RawMessage
			if err := json.Unmarshal(raw, &want); err != nil {
				t.Fatal(err)
			}
			next, err := open(file)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				row, err := next()
				if err == io.EOF {
					if i != len(want) {
						t.Fatalf("%d rows, expected %d", i, len(want))
					}
					break
				}
				if err != nil {
					t.Fatalf("row %d: %v", i+1, err)
				}
				if i == len(want) {
					t.Fatalf("more than %d rows", i)
				}
				got, err := canonical(row)
				if err != nil {
					t.Fatalf("row %d: %v in %s", i+1, err, row)
				}
				if exp, _ := canonical(want[i]); got != exp {
					t.Fatalf("row %d is\n%s\nexpected\n%s", i+1, got, exp)
				}
			}
		})
	}
}

// canonical writes JSON with sorted keys and numbers in one form. Python's side writes decimals as "decimal:1.50".
func canonical(raw []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	out, err := json.Marshal(normal(v))
	return string(out), err
}

func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = normal(v[k])
		}
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
	case json.Number:
		if _, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return "number " + string(v)
		}
		if _, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return "number " + string(v)
		}
		f, err := v.Float64()
		if err != nil || strings.Count(string(v), "")-1 > 30 && !strings.ContainsAny(string(v), "eE") {
			return "number " + string(v)
		}
		return "number " + strconv.FormatFloat(f, 'g', -1, 64)
	case string:
		if d, ok := strings.CutPrefix(v, "decimal:"); ok {
			return normal(json.Number(d))
		}
	}
	return v
}

// Damage calls read with damaged forms of a file: cut off at every place of a grid, and with single bytes changed. read
// must return, and without more memory than fits a small file.
func Damage(t *testing.T, whole []byte, read func(b []byte) error) {
	failed := 0
	for n := 0; n < len(whole); n += 1 + len(whole)/300 {
		if read(whole[:n]) != nil {
			failed++
		}
	}
	for i := range whole {
		for _, x := range []byte{0x01, 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= x
			if read(b) != nil {
				failed++
			}
		}
	}
	if failed == 0 {
		t.Error("no damage was noticed")
	}
	t.Logf("%d damaged files were refused", failed)
}

// Bounded checks that reading a file of so many bytes allocates no more than a fixed amount and a multiple of its size:
// what unpacks to more must be bounded by the row limit.
func Bounded(t *testing.T, size int, read func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	// The largest window of zstd, twice, for what reads both as a file and as a stream; and blocks that unpack 1000-fold.
	if n := after.TotalAlloc - before.TotalAlloc; n > 320<<20+2000*uint64(size) {
		t.Errorf("reading %d bytes allocated %d MiB", size, n>>20)
	}
}
