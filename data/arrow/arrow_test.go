package arrow

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

// All types of pyarrow give the values that Python has, as files and as streams.
func TestOracleTypes(t *testing.T) {
	for name, reader := range map[string]func(b []byte) (*Reader, error){
		"file":   open,
		"stream": func(b []byte) (*Reader, error) { return NewReader(skipMagic(b), testRow) },
	} {
		t.Run(name, func(t *testing.T) {
			columnartest.Types(t, ".arrow", func(file string) (func() ([]byte, error), error) {
				b, err := os.ReadFile(file)
				if err != nil {
					return nil, err
				}
				r, err := reader(b)
				if err != nil {
					return nil, err
				}
				return func() ([]byte, error) {
					row, _, err := r.Next()
					return row, err
				}, nil
			})
		})
	}
}

// skipMagic is the stream inside of a file.
func skipMagic(b []byte) io.Reader {
	if bytes.HasPrefix(b, []byte(Magic)) {
		b = b[min(8, len(b)):]
	}
	return bytes.NewReader(b)
}

// drain reads all rows that can be read.
func drain(r *Reader, err error) error {
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

func drainFile(b []byte) error   { return drain(open(b)) }
func drainStream(b []byte) error { return drain(NewReader(skipMagic(b), testRow)) }

// seeds are small files of the kinds that pyarrow writes.
func seeds(tb testing.TB) [][]byte {
	files, err := filepath.Glob(filepath.Join("testdata", "*.arrow"))
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

// Whatever is cut off or changed, reading ends, in an error or in rows.
func TestDamage(t *testing.T) {
	for _, b := range seeds(t) {
		for i, read := range []func([]byte) error{drainFile, drainStream} {
			if err := read(b); err != nil && i == 0 { // a file needn't hold a stream, as Polars' don't
				t.Fatal(err)
			}
			columnartest.Damage(t, b, read)
		}
	}
}

func FuzzArrow(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		columnartest.Bounded(t, len(b), func() {
			drainFile(b)
			drainStream(b)
		})
	})
}

// Polars puts a schema without its length into a file; what counts is the footer.
func TestPolars(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "polars.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	row, _, err := r.Next()
	want := `{"messages":[{"role":"user","content":"A question of more than twelve bytes?"},{"role":"assistant","content":"No."}],"n":1,"c":"a"}`
	if err != nil || string(row) != want {
		t.Errorf("got %s (%v), want %s", row, err, want)
	}
}
