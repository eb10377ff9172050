package safetensors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
)

// File is an open safetensors file, mapped into memory: opening reads the
// header only, and pages are read when they are touched. Its methods may be
// called from several goroutines, Close excepted.
type File struct {
	path     string
	mapped   *mapping
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
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	defer f.Close() // the map outlives the descriptor
	file, err := open(f, path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	return file, nil
}

func open(f *os.File, path string) (*File, error) {
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
	headerLen, err := readHeaderLen(f, uint64(size))
	if err != nil {
		return nil, err
	}
	m, err := mapFile(f, int(size))
	if err != nil {
		return nil, fmt.Errorf("mapping into memory: %w", bare(err))
	}
	start := 8 + headerLen
	h, err := parseHeader(m.bytes[8:start:start], uint64(size)-start)
	if err != nil {
		m.close()
		return nil, err
	}
	byName := make(map[string]int, len(h.entries))
	for i, e := range h.entries {
		byName[e.name] = i
	}
	return &File{
		path: path, mapped: m, data: m.bytes[start:],
		entries: h.entries, byName: byName, metadata: h.metadata,
	}, nil
}

// readHeaderLen reads and checks the first 8 bytes of a file of size bytes.
func readHeaderLen(r io.ReaderAt, size uint64) (uint64, error) {
	if size < 8 {
		return 0, fmt.Errorf("file has %d bytes, too few for a header: cut off or not a safetensors file", size)
	}
	var word [8]byte
	if _, err := r.ReadAt(word[:], 0); err != nil {
		return 0, bare(err)
	}
	n := binary.LittleEndian.Uint64(word[:])
	if n > MaxHeader {
		return 0, fmt.Errorf("header length %d is above %d: not a safetensors file", n, MaxHeader)
	}
	if n > size-8 {
		return 0, fmt.Errorf("header length %d, but only %d bytes follow: the file is cut off (download or copy it again)", n, size-8)
	}
	return n, nil
}

// bare takes the path off an error of package os, since the caller names it.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
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
	if err := m.close(); err != nil {
		return fmt.Errorf("safetensors: closing %s: %w", filepath.Base(f.path), err)
	}
	return nil
}
