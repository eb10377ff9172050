//go:build !unix && !windows

package mapfile

import (
	"io"
	"os"
)

func mapFile(f *os.File, size int) (*Map, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(size)), b); err != nil {
		return nil, err
	}
	return &Map{bytes: b}, nil
}

func (m *Map) unmap() error { return nil }
