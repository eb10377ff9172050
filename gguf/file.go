package gguf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"ringtail/mapfile"
)

// Metadata of shards: u16 each, and i32 for the number of tensors in all of them.
const (
	splitNo      = "split.no"
	splitCount   = "split.count"
	splitTensors = "split.tensors.count"
)

// File is an open GGUF file, or all shards of one, mapped into memory. Its
// methods may be called from several goroutines, Close excepted.
type File struct {
	path     string
	metadata *Metadata
	shards   []shard
	names    []string
	where    map[string]place
}

type shard struct {
	path    string
	mapped  *mapfile.Map
	data    []byte // the part after the header
	entries []entry
}

type place struct{ shard, entry int }

// Open maps the file at path and checks its header. Of a model in shards
// (NAME-00001-of-0000N.gguf) any of them may be named; all are opened. The files
// must not be truncated while they are open: reading a page that is gone kills
// the process. Errors name the file and the tensor or key.
func Open(path string) (*File, error) {
	first, metadata, err := openShard(path)
	if err != nil {
		return nil, err
	}
	n, no, err := splitOf(metadata)
	if err != nil {
		first.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &File{path: path, metadata: metadata, shards: []shard{*first}, where: map[string]place{}}
	if n > 1 {
		err = f.openShards(n, no)
	}
	if err == nil {
		err = f.index()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func openShard(path string) (*shard, *Metadata, error) {
	m, err := mapfile.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	h, err := parseHeader(m.Bytes())
	if err != nil {
		m.Close()
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return &shard{path, m, m.Bytes()[h.start:], h.entries}, h.metadata, nil
}

func (s *shard) close() error {
	s.data = nil
	return s.mapped.Close()
}

// splitOf says of how many shards a file is one, and which, from 0.
func splitOf(m *Metadata) (n, no int64, err error) {
	n, ok, err := m.Int(splitCount)
	if err != nil || !ok {
		return 1, 0, err
	}
	if no, _, err = m.Int(splitNo); err != nil {
		return 0, 0, err
	}
	if n < 0 || n > maxShards || no < 0 || no >= max(n, 1) {
		return 0, 0, fmt.Errorf("metadata %s is %d and %s %d, expected a number below the count of at most %d", splitCount, n, splitNo, no, maxShards)
	}
	return n, no, nil
}

var shardName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// openShards opens the shards beside the one that is open, number no of n, and
// puts all in order. The first one's metadata are the model's.
func (f *File) openShards(n, no int64) error {
	dir, base := filepath.Split(f.path)
	m := shardName.FindStringSubmatch(base)
	if m == nil {
		return fmt.Errorf("%s: is part %d of %d, but isn't named NAME-%05d-of-%05d.gguf, so that the others can't be found", f.path, no+1, n, no+1, n)
	}
	if count, _ := strconv.ParseInt(m[3], 10, 64); count != n {
		return fmt.Errorf("%s: its name says %d parts, its metadata (%s) %d", f.path, count, splitCount, n)
	}
	if number, _ := strconv.ParseInt(m[2], 10, 64); number != no+1 {
		return fmt.Errorf("%s: its name says part %d, its metadata (%s, from 0) %d", f.path, number, splitNo, no)
	}
	own := f.shards[0]
	f.shards = nil
	for i := range n {
		if i == no {
			f.shards = append(f.shards, own)
			continue
		}
		path := filepath.Join(dir, fmt.Sprintf("%s-%05d-of-%05d.gguf", m[1], i+1, n))
		s, metadata, err := openShard(path)
		if err == nil {
			f.shards = append(f.shards, *s)
			var count, number int64
			if count, number, err = splitOf(metadata); err != nil || count != n || number != i {
				err = fmt.Errorf("%s: its metadata say part %d of %d (%v), expected part %d of %d", path, number+1, count, err, i+1, n)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: part %d of %d is missing: download or copy it again", path, i+1, n)
		}
		if err != nil {
			if i < no {
				own.close()
			}
			return err
		}
		if i == 0 {
			f.metadata = metadata
		}
	}
	return nil
}

// index finds every tensor's place.
func (f *File) index() error {
	for i, s := range f.shards {
		for j, e := range s.entries {
			if first, twice := f.where[e.name]; twice {
				return fmt.Errorf("%s: tensor %s stands in %s too", s.path, quote(e.name), filepath.Base(f.shards[first.shard].path))
			}
			f.where[e.name] = place{i, j}
			f.names = append(f.names, e.name)
		}
	}
	if len(f.shards) > 1 {
		want, ok, err := f.metadata.Int(splitTensors)
		if err == nil && ok && want != int64(len(f.names)) {
			err = fmt.Errorf("metadata %s is %d, but the parts hold %d tensors", splitTensors, want, len(f.names))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.shards[0].path, err)
		}
	}
	return nil
}

// Is tells whether path is a GGUF file, by its name or else by its first bytes.
// A name that ends in .gguf counts even where there is no such file.
func Is(path string) bool {
	info, err := os.Stat(path)
	if strings.HasSuffix(path, ".gguf") {
		return err != nil || !info.IsDir()
	}
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "GGUF"
}

// Path is the path that the file was opened by.
func (f *File) Path() string { return f.path }

// Metadata are the file's pairs; of shards, the first one's.
func (f *File) Metadata() *Metadata { return f.metadata }

// Names lists the tensors in the file's order.
func (f *File) Names() []string { return append([]string(nil), f.names...) }

// Tensor finds a tensor. Its Data view the map: they must not be written to, nor
// used after Close, after which no tensor is found.
func (f *File) Tensor(name string) (Tensor, bool) {
	p, ok := f.where[name]
	if !ok || f.shards == nil {
		return Tensor{}, false
	}
	s := f.shards[p.shard]
	e := s.entries[p.entry]
	return Tensor{Name: e.name, Type: e.typ, Shape: append([]int(nil), e.shape...), Data: s.data[e.begin:e.end:e.end]}, true
}

// Close unmaps the files; every Data obtained from them becomes invalid.
func (f *File) Close() error {
	var errs []error
	for i := range f.shards {
		if err := f.shards[i].close(); err != nil {
			errs = append(errs, fmt.Errorf("closing %s: %w", filepath.Base(f.shards[i].path), err))
		}
	}
	f.shards = nil
	return errors.Join(errs...)
}
