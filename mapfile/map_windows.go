package mapfile

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

func mapFile(f *os.File, size int) (*Map, error) {
	n := uint64(size)
	section, err := windows.CreateFileMapping(windows.Handle(f.Fd()), nil, windows.PAGE_READONLY, uint32(n>>32), uint32(n), nil)
	if err != nil {
		return nil, err
	}
	defer windows.CloseHandle(section) // the view keeps the section alive
	addr, err := windows.MapViewOfFile(section, windows.FILE_MAP_READ, 0, 0, uintptr(size))
	if err != nil {
		return nil, err
	}
	// The address comes from the system, not from Go's heap, so the garbage
	// collector need not know it; reading it through a pointer says so to vet.
	p := *(*unsafe.Pointer)(unsafe.Pointer(&addr))
	return &Map{bytes: unsafe.Slice((*byte)(p), size)}, nil
}

func (m *Map) unmap() error {
	return windows.UnmapViewOfFile(uintptr(unsafe.Pointer(unsafe.SliceData(m.bytes))))
}
