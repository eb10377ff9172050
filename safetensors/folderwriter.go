package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"ringtail/atomicfile"
)

// DefaultShardBytes is the size above which a model is split, as in transformers.
const DefaultShardBytes = 5_000_000_000

// FolderWriter writes a model's weights as one file or as shards with an index.
type FolderWriter struct {
	dir      string
	metadata map[string]string
	shards   []shard
	owner    map[string]int // tensor -> index into shards
	total    uint64         // bytes of all tensors
	open     int            // the shard being written
	current  *Writer        // its writer
	done     bool
	err      error // the first failure; Close repeats it
}

type shard struct {
	file  string
	specs []Spec
}

// CreateFolder begins the weights of a model in dir, which must exist. A model
// of at most maxShardBytes (0: DefaultShardBytes) is model.safetensors; a
// larger one is cut, between tensors and in the announced order, into
// model-00001-of-0000N.safetensors and so on. Each file appears complete, and
// the index after all shards; for a folder that is complete or absent as a
// whole, write into an atomicfile.Dir. metadata as for Create.
func CreateFolder(dir string, metadata map[string]string, specs []Spec, maxShardBytes int64) (*FolderWriter, error) {
	if maxShardBytes < 0 {
		return nil, fmt.Errorf("safetensors: %s: shard size %d is negative", dir, maxShardBytes)
	}
	if maxShardBytes == 0 {
		maxShardBytes = DefaultShardBytes
	}
	w := &FolderWriter{dir: dir, metadata: metadata, owner: map[string]int{}, open: -1}
	if err := w.split(specs, uint64(maxShardBytes)); err != nil {
		return nil, fmt.Errorf("safetensors: %s: %w", dir, err)
	}
	if err := w.next(); err != nil {
		return nil, err
	}
	return w, nil
}

// split deals the tensors out to shards and names these.
func (w *FolderWriter) split(specs []Spec, most uint64) error {
	w.shards = []shard{{}}
	room := most
	for _, s := range specs {
		size, err := byteSize(s.Dtype, s.Shape)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(s.Name), err)
		}
		last := &w.shards[len(w.shards)-1]
		if size > room && len(last.specs) > 0 {
			w.shards = append(w.shards, shard{})
			last, room = &w.shards[len(w.shards)-1], most
		}
		last.specs = append(last.specs, s)
		room -= min(size, room)
		if _, twice := w.owner[s.Name]; twice {
			return fmt.Errorf("tensor %s: announced twice", quote(s.Name))
		}
		w.owner[s.Name] = len(w.shards) - 1
		if w.total+size < w.total {
			return errors.New("the tensors' sizes add up to more than 64 bits count")
		}
		w.total += size
	}
	for i := range w.shards {
		w.shards[i].file = SingleFile
		if len(w.shards) > 1 {
			w.shards[i].file = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(w.shards))
		}
	}
	return nil
}

// next completes the open shard and begins the one after it.
func (w *FolderWriter) next() error {
	if w.current != nil {
		if err := w.current.Close(); err != nil {
			return err
		}
	}
	w.open++
	s := w.shards[w.open]
	var err error
	w.current, err = Create(filepath.Join(w.dir, s.file), w.metadata, s.specs)
	return err
}

// Write writes data of a tensor, whole or in pieces as Writer.Write. Tensors
// of one shard may come in any order, shards in theirs: writing in the
// announced order is always right.
func (w *FolderWriter) Write(name string, data []byte) error {
	if w.err != nil {
		return w.err
	}
	if w.done {
		return errClosed
	}
	i, ok := w.owner[name]
	switch {
	case !ok:
		w.err = fmt.Errorf("safetensors: %s: tensor %s was not announced", w.dir, quote(name))
		return w.err
	case i < w.open:
		w.err = fmt.Errorf("safetensors: %s: tensor %s belongs to %s, which is closed: write tensors in the announced order",
			w.dir, quote(name), w.shards[i].file)
		return w.err
	}
	for w.open < i {
		if w.err = w.next(); w.err != nil {
			return w.err
		}
	}
	w.err = w.current.Write(name, data)
	return w.err
}

// Close completes the last shard, writes the index, and removes weights of an
// earlier save that are not part of this one (a stale model.safetensors would
// be read in place of the new shards).
func (w *FolderWriter) Close() error {
	if w.done {
		return nil
	}
	defer w.Abort()
	if w.err != nil {
		return w.err
	}
	for w.open < len(w.shards)-1 { // the tensors left are empty ones, or an error follows
		if w.err = w.next(); w.err != nil {
			return w.err
		}
	}
	if w.err = w.current.Close(); w.err != nil {
		return w.err
	}
	if len(w.shards) > 1 {
		if w.err = w.writeIndex(); w.err != nil {
			return w.err
		}
	}
	w.err = w.removeStale()
	return w.err
}

func (w *FolderWriter) writeIndex() error {
	var index struct {
		Metadata struct {
			TotalSize uint64 `json:"total_size"`
		} `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}
	index.Metadata.TotalSize = w.total
	index.WeightMap = map[string]string{}
	for tensor, i := range w.owner {
		index.WeightMap[tensor] = w.shards[i].file
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(index); err != nil {
		return fmt.Errorf("safetensors: %s: %w", IndexFile, err)
	}
	if err := atomicfile.WriteBytes(filepath.Join(w.dir, IndexFile), 0o666, text.Bytes()); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

var shardName = regexp.MustCompile(`^model-\d{5}-of-\d{5}\.safetensors$`)

func (w *FolderWriter) removeStale() error {
	keep := map[string]bool{IndexFile: len(w.shards) > 1}
	for _, s := range w.shards {
		keep[s.file] = true
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		ours := name == SingleFile || name == IndexFile || shardName.MatchString(name)
		if !ours || keep[name] {
			continue
		}
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("safetensors: removing weights of an earlier save: %w", err)
		}
	}
	return nil
}

// Abort drops the shard that is being written and stops. Shards that were
// complete stay, without an index. After Close it does nothing.
func (w *FolderWriter) Abort() {
	if w.current != nil {
		w.current.Abort()
	}
	w.done = true
}

// WriteFolder writes tensors that are at hand; see CreateFolder.
func WriteFolder(dir string, tensors []Tensor, maxShardBytes int64) error {
	specs := make([]Spec, len(tensors))
	for i, t := range tensors {
		specs[i] = Spec{t.Name, t.Dtype, t.Shape}
	}
	w, err := CreateFolder(dir, nil, specs, maxShardBytes)
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, t := range tensors {
		if err := w.Write(t.Name, t.Data); err != nil {
			return err
		}
	}
	return w.Close()
}

// WriteFile writes tensors that are at hand to one file; see Create.
func WriteFile(path string, metadata map[string]string, tensors []Tensor) error {
	specs := make([]Spec, len(tensors))
	for i, t := range tensors {
		specs[i] = Spec{t.Name, t.Dtype, t.Shape}
	}
	w, err := Create(path, metadata, specs)
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, t := range tensors {
		if err := w.Write(t.Name, t.Data); err != nil {
			return err
		}
	}
	return w.Close()
}
