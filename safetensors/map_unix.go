//go:build unix

package safetensors

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapping is a file's content in memory.
type mapping struct{ bytes []byte }

// mapFile maps size > 0 bytes of f for reading.
func mapFile(f *os.File, size int) (*mapping, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &mapping{b}, nil
}

func (m *mapping) close() error { return unix.Munmap(m.bytes) }
