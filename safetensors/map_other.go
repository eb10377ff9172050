//go:build !unix && !windows

package safetensors

import (
	"io"
	"os"
)

// mapping is a file's content in memory; where files cannot be mapped it is read.
type mapping struct{ bytes []byte }

func mapFile(f *os.File, size int) (*mapping, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(size)), b); err != nil {
		return nil, err
	}
	return &mapping{b}, nil
}

func (m *mapping) close() error { return nil }
