package arrow

import (
	"bytes"
	"io"
	"os"
	"testing"

	"ringtail/data/internal/columnartest"
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
		b = b[8:]
	}
	return bytes.NewReader(b)
}
