package parquet

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"ringtail/data/columnartest"
)

const testRow = 1 << 20

func open(b []byte) (*Reader, error) { return Open(bytes.NewReader(b), int64(len(b)), testRow) }

// All types, codecs, encodings and page versions of pyarrow give the values that Python has.
func TestOracleTypes(t *testing.T) {
	columnartest.Types(t, ".parquet", func(file string) (func() ([]byte, error), error) {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		r, err := open(b)
		if err != nil {
			return nil, err
		}
		return func() ([]byte, error) {
			row, _, err := r.Next()
			return row, err
		}, nil
	})
}

// drain reads all rows that can be read.
func drain(b []byte) error {
	r, err := open(b)
	if err != nil {
		return err
	}
	for range 10000 {
		_, _, err := r.Next()
		if _, bad := err.(*BadRow); bad {
			continue
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// seeds are small files of the kinds that pyarrow writes, and what fuzzing found.
func seeds(tb testing.TB) [][]byte {
	files, err := filepath.Glob(filepath.Join("testdata", "*.parquet"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no seeds: %v", err)
	}
	var out [][]byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// Whatever is cut off or changed, reading ends, in an error or in rows, and allocates little.
func TestDamage(t *testing.T) {
	for _, b := range seeds(t) {
		if err := drain(b); err != nil {
			t.Fatal(err)
		}
		columnartest.Damage(t, b, drain)
	}
}

func FuzzParquet(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		columnartest.Bounded(t, len(b), func() { drain(b) })
	})
}
