// Package torchfile reads the tensors of files that PyTorch's torch.save wrote
// (pytorch_model.bin, .pt, .pth) without running anything in them.
//
// Such a file is a pickle: a program for a stack machine that may call any
// function of Python by name. Reading one with Python runs it. The machine here
// knows the instructions that torch.save emits, and of functions those in a short
// list that make tensors and plain containers; any other name is an error
// that says it. Nothing is looked up, imported or called.
//
// Two containers are read:
//
//	torch ≥ 1.6   a zip archive of stored (uncompressed) entries: NAME/data.pkl, the
//	              pickle; NAME/data/KEY, one a storage; NAME/byteorder
//	torch < 1.6   pickles in a row: a magic number, a version, facts about the machine,
//	              the object, the list of storage keys; then each storage's length and bytes
//
// A tensor is a view of a storage: an offset, sizes and strides in elements.
// Views may overlap (tied weights) and run in any order (transposed). Files are
// mapped into memory and elements converted as they are read.
//
// Sources: CPython's Lib/pickletools.py for the instructions; torch/serialization.py
// and torch/_utils.py (v2.11) for the containers and for what the functions make.
package torchfile

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"ringtail/mapfile"
)

// File is an open file. Its methods may be called from several goroutines, Close excepted.
type File struct {
	path    string
	mapped  *mapfile.Map
	names   []string
	tensors map[string]*tensor
}

// Tensor is one named array of a File, valid until its Close.
type Tensor struct {
	Name  string
	Dtype string // as safetensors spells it: "F32", "F16", "BF16", "F64", "I64", ..., "BOOL"
	Shape []int  // empty for a scalar
	view  *tensor
}

// Open maps the file at path and finds its tensors: the state dict, which may
// stand inside a checkpoint under "state_dict", "model", "module" or
// "model_state_dict". What parallel and compiled modules put before every name
// ("module.", "_orig_mod.") is taken off. Errors name the file and what is
// wrong in it.
func Open(path string) (*File, error) {
	m, err := mapfile.Open(path)
	if err != nil {
		return nil, fmt.Errorf("torchfile: %s: %w", path, err)
	}
	f, err := read(m.Bytes())
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("torchfile: %s: %w", path, err)
	}
	f.path, f.mapped = path, m
	return f, nil
}

// read finds the tensors in a file's bytes, which they will view.
func read(b []byte) (*File, error) {
	root, err := load(b)
	if err != nil {
		return nil, err
	}
	return stateDict(root)
}

// load runs the pickle of either container.
func load(b []byte) (any, error) {
	switch {
	case isZip(b):
		return loadZip(b)
	case len(b) > 262 && string(b[257:262]) == "ustar":
		return nil, errors.New("a tar file, as PyTorch wrote before 0.2; load and save it again with a newer PyTorch")
	case len(b) > 4 && b[0] == 0x80 && b[1] >= 2 && b[1] <= maxProtocol:
		return loadLegacy(b)
	}
	return nil, errors.New("not a PyTorch file: it begins with neither a zip archive nor a pickle (cut off, or a Git LFS pointer?)")
}

// wrappers are the keys under which checkpoints keep a model's state dict.
var wrappers = []string{"state_dict", "model", "module", "model_state_dict"}

// stateDict finds the dict of tensors in what a file holds.
func stateDict(root any) (*File, error) {
	d, ok := root.(*dict)
	if !ok {
		return nil, fmt.Errorf("holds %s, expected a dict of tensors: save model.state_dict()", kindOf(root))
	}
	for range 8 { // a dict may hold itself
		inner := (*dict)(nil)
		for _, key := range wrappers {
			if in, ok := d.get(key).(*dict); ok && (in.hasTensor() || in.wraps()) {
				inner = in
				break
			}
		}
		if inner == nil {
			break
		}
		d = inner
	}
	f := &File{tensors: map[string]*tensor{}}
	for i, k := range d.keys {
		name, ok := k.(string)
		if !ok {
			continue
		}
		if t, ok := d.values[i].(*tensor); ok {
			f.names = append(f.names, name)
			f.tensors[name] = t
		}
	}
	if len(f.names) == 0 {
		return nil, fmt.Errorf("holds no tensors, neither directly nor under %s; its keys: %s", strings.Join(wrappers, ", "), d.sample())
	}
	f.strip()
	return f, nil
}

// strip takes off what DataParallel and torch.compile put before every name.
func (f *File) strip() {
	for _, prefix := range []string{"_orig_mod.", "module.", "_orig_mod."} {
		if slices.ContainsFunc(f.names, func(n string) bool { return len(n) <= len(prefix) || !strings.HasPrefix(n, prefix) }) {
			continue
		}
		tensors := make(map[string]*tensor, len(f.names))
		for i, n := range f.names {
			f.names[i] = n[len(prefix):]
			tensors[f.names[i]] = f.tensors[n]
		}
		f.tensors = tensors
	}
}

// Path is the path that the file was opened by.
func (f *File) Path() string { return f.path }

// Names lists the tensors in the order in which they were saved.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Tensor finds a tensor by name. After Close none is found.
func (f *File) Tensor(name string) (Tensor, bool) {
	t, ok := f.tensors[name]
	if !ok {
		return Tensor{}, false
	}
	return Tensor{Name: name, Dtype: t.dtype, Shape: slices.Clone(t.shape), view: t}, true
}

// Close unmaps the file; tensors obtained from it must not be read any more.
func (f *File) Close() error {
	if f.mapped == nil {
		return nil
	}
	m := f.mapped
	f.mapped, f.tensors, f.names = nil, nil, nil
	if err := m.Close(); err != nil {
		return fmt.Errorf("torchfile: closing %s: %w", f.path, err)
	}
	return nil
}

// Len is the number of elements.
func (t Tensor) Len() int { return t.view.len() }

// Contiguous is the tensor's bytes in the file, little-endian and row-major,
// where they lie so; otherwise ok is false, and Read gathers them.
func (t Tensor) Contiguous() (bytes []byte, ok bool) {
	v := t.view
	n := v.len()
	if n > 0 && v.run() != n {
		return nil, false
	}
	size := dtypeSize[v.dtype]
	if n == 0 {
		return nil, true
	}
	return v.bytes[v.offset*size : (v.offset+n)*size], true
}

// Read converts elements into dst, in row-major order, beginning with element
// from. Floats round to nearest even, whole numbers likewise; false is 0 and true 1.
func (t Tensor) Read(dst []float32, from int) error {
	if n := t.view.len(); from < 0 || from > n || len(dst) > n-from {
		return fmt.Errorf("tensor %s: elements %d to %d of %d", quote(t.Name), from, uint64(from)+uint64(len(dst)), n)
	}
	t.view.read(dst, from)
	return nil
}

// Release tells that the tensor won't be read soon, so that it need not stay in this
// process's memory. Where tensors share a storage it comes back from the file.
func (t Tensor) Release() {
	if b, ok := t.Contiguous(); ok {
		mapfile.Release(b)
	}
}

// quote shortens a name from a file for an error message.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "..."
	}
	return fmt.Sprintf("%q", name)
}

// maxElements keeps a tensor's length an int; a view with stride 0 may have any shape.
const maxElements = math.MaxInt
