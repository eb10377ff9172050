package parquet

import (
	"bytes"
	"io"
	"os"
	"testing"

	"ringtail/data/internal/columnartest"
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
