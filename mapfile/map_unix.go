//go:build unix

package mapfile

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, size int) (*Map, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &Map{bytes: b}, nil
}

func (m *Map) unmap() error { return unix.Munmap(m.bytes) }
