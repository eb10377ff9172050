package safetensors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Names of a model folder's files.
const (
	SingleFile = "model.safetensors"
	IndexFile  = "model.safetensors.index.json"
)

// Folder is the open weights of a model folder: one file or shards.
type Folder struct {
	dir   string
	files []*File        // in the order of their names
	owner map[string]int // tensor -> index into files
}

// OpenFolder opens model.safetensors, or else the shards that
// model.safetensors.index.json lists. It checks that every listed shard is
// there and holds what the index says, and that no tensor stands in two.
func OpenFolder(dir string) (*Folder, error) {
	single := filepath.Join(dir, SingleFile)
	_, err := os.Stat(single)
	if err == nil {
		f, err := Open(single)
		if err != nil {
			return nil, err
		}
		return newFolder(dir, []*File{f})
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	index := filepath.Join(dir, IndexFile)
	weightMap, err := ReadIndex(index, ".safetensors")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noWeights(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return openShards(dir, weightMap)
}

func noWeights(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	hint := ""
	if old, _ := filepath.Glob(filepath.Join(dir, "pytorch_model*.bin")); len(old) > 0 {
		hint = fmt.Sprintf("; it holds %s, which has to be saved as safetensors first", filepath.Base(old[0]))
	}
	return fmt.Errorf("safetensors: %s: holds neither %s nor %s%s", dir, SingleFile, IndexFile, hint)
}

// ReadIndex reads the weight_map of a sharded checkpoint's index: tensor -> shard, a
// plain name with one of the extensions. An index, like a header, may not be absurdly long. A file
// that isn't there is fs.ErrNotExist.
func ReadIndex(path string, extensions ...string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxHeader+1))
	if err == nil && len(text) > MaxHeader {
		err = fmt.Errorf("%s: longer than %d bytes", path, MaxHeader)
	}
	if err != nil {
		return nil, err
	}
	weightMap, err := parseIndex(text, extensions)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return weightMap, nil
}

// parseIndex reads the weight_map of an index: tensor -> shard.
func parseIndex(text []byte, extensions []string) (map[string]string, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	var weightMap map[string]string
	d := newDecoder(text)
	err := d.object(func(key string) error {
		if key != "weight_map" {
			return d.skip()
		}
		if weightMap != nil {
			return errors.New("weight_map stands twice")
		}
		weightMap = map[string]string{}
		return d.object(func(tensor string) error {
			shard, err := d.str()
			if err != nil {
				return fmt.Errorf("weight_map: tensor %s: %w", quote(tensor), err)
			}
			if _, twice := weightMap[tensor]; twice {
				return fmt.Errorf("weight_map: tensor %s stands twice", quote(tensor))
			}
			if err := checkShardName(shard, extensions); err != nil {
				return fmt.Errorf("weight_map: tensor %s: %w", quote(tensor), err)
			}
			weightMap[tensor] = shard
			return nil
		})
	})
	if err == nil {
		err = d.end()
	}
	if err == nil && len(weightMap) == 0 {
		err = errors.New("weight_map is missing or empty")
	}
	return weightMap, err
}

// checkShardName keeps an index from naming files outside its folder.
func checkShardName(name string, extensions []string) error {
	if strings.ContainsAny(name, `/\:`) || strings.Contains(name, "..") || !filepath.IsLocal(name) || !slices.Contains(extensions, filepath.Ext(name)) {
		return fmt.Errorf("shard name %s is refused: want a plain NAME%s in the same folder", quote(name), extensions[0])
	}
	return nil
}

func openShards(dir string, weightMap map[string]string) (*Folder, error) {
	var shards []string
	example := map[string]string{} // shard -> a tensor in it, for messages
	for tensor, shard := range weightMap {
		if old, seen := example[shard]; !seen {
			shards = append(shards, shard)
			example[shard] = tensor
		} else if tensor < old {
			example[shard] = tensor
		}
	}
	slices.Sort(shards)
	var files []*File
	for _, shard := range shards {
		f, err := Open(filepath.Join(dir, shard))
		if err != nil {
			closeAll(files)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("safetensors: %s: shard %s is missing, which %s lists for %s: download or copy it again",
					dir, shard, IndexFile, quote(example[shard]))
			}
			return nil, err
		}
		files = append(files, f)
	}
	folder, err := newFolder(dir, files)
	if err != nil {
		return nil, err
	}
	for _, tensor := range slices.Sorted(maps.Keys(weightMap)) {
		shard := weightMap[tensor]
		i, ok := folder.owner[tensor]
		if !ok {
			folder.Close()
			return nil, fmt.Errorf("safetensors: %s: tensor %s is not in %s, where %s puts it",
				dir, quote(tensor), shard, IndexFile)
		}
		if got := filepath.Base(files[i].path); got != shard {
			folder.Close()
			return nil, fmt.Errorf("safetensors: %s: tensor %s is in %s, but %s puts it in %s",
				dir, quote(tensor), got, IndexFile, shard)
		}
	}
	return folder, nil
}

// newFolder takes the files over; it closes them on error.
func newFolder(dir string, files []*File) (*Folder, error) {
	folder := &Folder{dir: dir, files: files, owner: map[string]int{}}
	for i, f := range files {
		for _, e := range f.entries {
			if first, twice := folder.owner[e.name]; twice {
				closeAll(files)
				return nil, fmt.Errorf("safetensors: %s: tensor %s stands in two shards, %s and %s",
					dir, quote(e.name), filepath.Base(files[first].path), filepath.Base(f.path))
			}
			folder.owner[e.name] = i
		}
	}
	return folder, nil
}

func closeAll(files []*File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Dir is the folder that was opened.
func (f *Folder) Dir() string { return f.dir }

// Files lists the open files in the order of their names.
func (f *Folder) Files() []*File { return slices.Clone(f.files) }

// Names lists the tensors, shard by shard in the order of their data.
func (f *Folder) Names() []string {
	names := make([]string, 0, len(f.owner))
	for _, file := range f.files {
		names = append(names, file.Names()...)
	}
	return names
}

// Tensor finds a tensor by name; see File.Tensor.
func (f *Folder) Tensor(name string) (Tensor, bool) {
	i, ok := f.owner[name]
	if !ok {
		return Tensor{}, false
	}
	return f.files[i].Tensor(name)
}

// Metadata is the __metadata__ of the files taken together; of equal keys the
// first file's value stays.
func (f *Folder) Metadata() map[string]string {
	all := map[string]string{}
	for _, file := range f.files {
		for k, v := range file.metadata {
			if _, ok := all[k]; !ok {
				all[k] = v
			}
		}
	}
	return all
}

// Bytes is the size of all tensors' data.
func (f *Folder) Bytes() int64 {
	var n int64
	for _, file := range f.files {
		n += int64(len(file.data))
	}
	return n
}

// Close unmaps every file.
func (f *Folder) Close() error { return closeAll(f.files) }
