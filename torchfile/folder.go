package torchfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"ringtail/safetensors"
)

// Names of a model folder's files.
const (
	SingleFile = "pytorch_model.bin"
	IndexFile  = "pytorch_model.bin.index.json"
)

// Folder is the open weights of a model folder: one file or shards.
type Folder struct {
	dir   string
	files []*File
	names []string
	owner map[string]int // tensor -> index into files
}

// Holds tells whether a folder has weights of PyTorch's, by their names.
func Holds(dir string) bool {
	for _, name := range []string{SingleFile, IndexFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// OpenFolder opens pytorch_model.bin, or else the shards that
// pytorch_model.bin.index.json lists. It checks that every listed shard is there
// and holds what the index says.
func OpenFolder(dir string) (*Folder, error) {
	single := filepath.Join(dir, SingleFile)
	_, err := os.Stat(single)
	if err == nil {
		f, err := Open(single)
		if err != nil {
			return nil, err
		}
		folder := &Folder{dir: dir, files: []*File{f}, names: f.names, owner: map[string]int{}}
		for _, n := range f.names {
			folder.owner[n] = 0
		}
		return folder, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("torchfile: %w", err)
	}
	index := filepath.Join(dir, IndexFile)
	weightMap, err := safetensors.ReadIndex(index, ".bin", ".pt", ".pth")
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("torchfile: %w", err)
		}
		return nil, fmt.Errorf("torchfile: %s: holds neither %s nor %s", dir, SingleFile, IndexFile)
	}
	if err != nil {
		return nil, fmt.Errorf("torchfile: %w", err)
	}
	return openShards(dir, weightMap)
}

func openShards(dir string, weightMap map[string]string) (*Folder, error) {
	first := map[string]string{} // shard -> the first tensor in it, for messages
	for tensor, shard := range weightMap {
		if old, ok := first[shard]; !ok || tensor < old {
			first[shard] = tensor
		}
	}
	folder := &Folder{dir: dir, owner: map[string]int{}}
	for i, shard := range slices.Sorted(maps.Keys(first)) {
		f, err := Open(filepath.Join(dir, shard))
		if err != nil {
			folder.Close()
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("torchfile: %s: shard %s is missing, which %s lists for %s: download or copy it again",
					dir, shard, IndexFile, quote(first[shard]))
			}
			return nil, err
		}
		folder.files = append(folder.files, f)
		for _, n := range f.names {
			if weightMap[n] == shard { // a tied weight may stand in several shards
				folder.names = append(folder.names, n)
				folder.owner[n] = i
			}
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(weightMap)) {
		if _, ok := folder.owner[tensor]; !ok {
			folder.Close()
			return nil, fmt.Errorf("torchfile: %s: tensor %s is not in %s, where %s puts it", dir, quote(tensor), weightMap[tensor], IndexFile)
		}
	}
	return folder, nil
}

// Dir is the folder that was opened.
func (f *Folder) Dir() string { return f.dir }

// Names lists the tensors, shard by shard in the order in which they were saved.
func (f *Folder) Names() []string { return slices.Clone(f.names) }

// Tensor finds a tensor by name; see File.Tensor.
func (f *Folder) Tensor(name string) (Tensor, bool) {
	i, ok := f.owner[name]
	if !ok {
		return Tensor{}, false
	}
	return f.files[i].Tensor(name)
}

// Close unmaps every file.
func (f *Folder) Close() error {
	var errs []error
	for _, file := range f.files {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
