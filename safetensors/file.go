package safetensors

import (
	"encoding/binary"
	"fmt"
	"path/filepath"

	"ringtail/mapfile"
)

// File is an open safetensors file, mapped into memory: opening reads the
// header only, and pages are read when they are touched. Its methods may be
// called from several goroutines, Close excepted.
type File struct {
	path     string
	mapped   *mapfile.Map
	data     []byte // the part of the map after the header
	entries  []entry
	byName   map[string]int
	metadata map[string]string
}

// Open maps the file at path and checks its header. The file must not be
// truncated while it is open: reading a page that is gone kills the process
// (replace files by renaming, as package atomicfile does). Errors name the
// file and the tensor.
func Open(path string) (*File, error) {
	file, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	return file, nil
}

func open(path string) (*File, error) {
	m, err := mapfile.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := fromBytes(m.Bytes())
	if err != nil {
		m.Close()
		return nil, err
	}
	f.path, f.mapped = path, m
	return f, nil
}

// fromBytes reads the header of a file's content.
func fromBytes(b []byte) (*File, error) {
	headerLen, err := readHeaderLen(b)
	if err != nil {
		return nil, err
	}
	start := 8 + headerLen
	h, err := parseHeader(b[8:start:start], uint64(len(b))-start)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]int, len(h.entries))
	for i, e := range h.entries {
		byName[e.name] = i
	}
	return &File{data: b[start:], entries: h.entries, byName: byName, metadata: h.metadata}, nil
}

// readHeaderLen reads and checks the first 8 bytes of a file.
func readHeaderLen(b []byte) (uint64, error) {
	size := uint64(len(b))
	if size < 8 {
		return 0, fmt.Errorf("file has %d bytes, too few for a header: cut off or not a safetensors file", size)
	}
	n := binary.LittleEndian.Uint64(b)
	if n > MaxHeader {
		return 0, fmt.Errorf("header length %d is above %d: not a safetensors file", n, MaxHeader)
	}
	if n > size-8 {
		return 0, fmt.Errorf("header length %d, but only %d bytes follow: the file is cut off (download or copy it again)", n, size-8)
	}
	return n, nil
}

// Path is the path that the file was opened by.
func (f *File) Path() string { return f.path }

// Names lists the tensors in the order of their data.
func (f *File) Names() []string {
	names := make([]string, len(f.entries))
	for i, e := range f.entries {
		names[i] = e.name
	}
	return names
}

// Tensor finds a tensor by name. Data views the map: it must not be written
// to, nor used after Close. After Close no tensor is found.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok || f.mapped == nil {
		return Tensor{}, false
	}
	e := f.entries[i]
	return Tensor{
		Name:  e.name,
		Dtype: e.dtype,
		Shape: append([]int(nil), e.shape...),
		Data:  f.data[e.begin:e.end:e.end],
	}, true
}

// Metadata is the header's __metadata__, nil if it has none.
func (f *File) Metadata() map[string]string { return f.metadata }

// Close unmaps the file; every Data obtained from it becomes invalid.
func (f *File) Close() error {
	if f.mapped == nil {
		return nil
	}
	m := f.mapped
	f.mapped, f.data = nil, nil
	if err := m.Close(); err != nil {
		return fmt.Errorf("safetensors: closing %s: %w", filepath.Base(f.path), err)
	}
	return nil
}
