// Package mapfile maps a file into memory for reading: opening costs nothing,
// and pages are read when they are touched. Where files can't be mapped they are
// read as a whole.
//
// A file must not be truncated while it is mapped: reading a page that is gone
// kills the process. Replace files by renaming, as package atomicfile does.
package mapfile

import (
	"errors"
	"fmt"
	"math"
	"os"
)

// Map is a file's content in memory.
type Map struct{ bytes []byte }

// Open maps the regular file at path. Errors name no path, as the caller does.
func Open(path string) (*Map, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close() // the map outlives the descriptor
	info, err := f.Stat()
	if err != nil {
		return nil, bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	size := info.Size()
	if size > math.MaxInt {
		return nil, fmt.Errorf("%d bytes are more than this system can map", size)
	}
	if size == 0 {
		return &Map{}, nil // no system maps nothing
	}
	m, err := mapFile(f, int(size))
	if err != nil {
		return nil, fmt.Errorf("mapping into memory: %w", bare(err))
	}
	return m, nil
}

// bare takes the path off an error of package os.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Bytes is the whole file; it must not be written to, nor used after Close.
func (m *Map) Bytes() []byte { return m.bytes }

// Close takes the map away. A second Close does nothing.
func (m *Map) Close() error {
	if m.bytes == nil {
		return nil
	}
	err := m.unmap()
	m.bytes = nil
	return err
}
