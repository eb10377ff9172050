package model

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/cpu"

	"ringtail/shard"
	"ringtail/tensor"
)

// Load reads a model: a Hugging Face folder or a GGUF file (see Open).
func Load(path string, dev tensor.Device, opt Options) (*Model, error) {
	c, src, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if opt.Vocab > c.Vocab {
		src = growVocab(c, src, opt.Vocab)
	}
	head := opt.Head
	if head == AutoHead && c.Scalar() {
		head = ScalarHead
	}
	// Everything is checked before any large allocation.
	l := &loader{path: path, c: c, src: src, head: head, stored: map[string]string{}}
	specs := c.specs(opt, head)
	for _, s := range specs {
		if err := l.check(s, opt.FreshHead); err != nil {
			return nil, err
		}
	}
	m, err := allocate(c, dev, opt)
	if err != nil {
		return nil, err
	}
	if s, ok := src.(interface{ Notes() []string }); ok {
		m.Notes = s.Notes()
	}
	for _, s := range specs {
		if s.Name == l.fresh {
			m.initTensor(l.fresh, opt)
			continue
		}
		if err := l.read(m, s); err != nil {
			m.Free()
			return nil, fmt.Errorf("%s: tensor %s: %w", path, s.Name, err)
		}
	}
	m.Store.MakeEights()
	if err := dev.Sync(); err != nil {
		m.Free()
		return nil, err
	}
	return m, nil
}

// loader matches a model's tensors with those of a source.
type loader struct {
	path   string
	c      *Config
	src    Source
	head   Head
	stored map[string]string // our name → the source's
	fresh  string            // the scalar head, where it is to be made
}

// check finds a tensor and compares its shape.
func (l *loader) check(s shard.Spec, freshHead bool) error {
	t, name, ok := l.find(s.Name)
	isHead := l.head == ScalarHead && s.Name == l.c.fam().names.score+".weight"
	if !ok {
		if isHead && freshHead {
			l.fresh = s.Name
			return nil
		}
		if isHead {
			return fmt.Errorf("%s: no tensor %s: this is no reward or value model (config.json says %s); train one with: ringtail train reward",
				l.path, s.Name, l.c.Architecture)
		}
		return fmt.Errorf("%s: no tensor %s, which config.json (%s) asks for; it has %s", l.path, s.Name, l.c.Architecture, sample(l.src.Names()))
	}
	labels := l.c.labels()
	if len(t.Shape) == 2 {
		labels = max(labels, t.Shape[0])
	}
	if isHead && labels > 1 {
		return fmt.Errorf("%s: this is a classifier of %d labels (num_labels of config.json; %s has the shape %v); a reward or value model has one label and the shape %v",
			l.path, labels, s.Name, t.Shape, s.Shape)
	}
	if want := l.c.storage(s.Name, s.Shape).shape; !slices.Equal(t.Shape, want) {
		return fmt.Errorf("%s: tensor %s has shape %v, config.json asks for %v", l.path, s.Name, t.Shape, want)
	}
	if err := t.Read(nil, 0); err != nil { // whether the type is one that can be read
		return fmt.Errorf("%s: tensor %s: %w", l.path, s.Name, err)
	}
	l.stored[s.Name] = name
	return nil
}

// read fills a tensor of the model.
func (l *loader) read(m *Model, s shard.Spec) error {
	t, _ := l.src.Find(l.stored[s.Name])
	if t.Done != nil {
		defer t.Done()
	}
	at := 0
	if store := l.c.storage(s.Name, s.Shape); store.differs() {
		all, moved := make([]float32, s.Len()), make([]float32, s.Len())
		if err := t.Read(all, 0); err != nil {
			return err
		}
		fromStored(store, moved, all)
		return m.Store.SetTensor(s.Name, func(dst []float32) error {
			at += copy(dst, moved[at:])
			return nil
		})
	}
	if m.copyBytes(s.Name, t) {
		return m.dev.Sync() // before the source is closed
	}
	return m.Store.SetTensor(s.Name, func(dst []float32) error {
		err := readParts(t, dst, at)
		at += len(dst)
		return err
	})
}

// deviceDtypes are stored types that devices convert from.
var deviceDtypes = map[string]tensor.Dtype{"F32": tensor.F32, "F16": tensor.F16, "BF16": tensor.BF16}

// copyBytes lets a host device convert a tensor where it lies, and tells whether it could.
func (m *Model) copyBytes(name string, t Stored) bool {
	d, ok := deviceDtypes[t.Dtype]
	dst := m.Store.Param(name).Value
	if !ok || len(t.Bytes) == 0 || len(t.Bytes) != dst.Len()*d.Size() || !m.dev.Host() || m.dev.Float() != tensor.F32 || cpu.IsBigEndian {
		return false
	}
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(t.Bytes)))
	if addr%uintptr(d.Size()) != 0 { // a header of odd length
		return false
	}
	src := tensor.Tensor{Device: m.dev, Dtype: d, Shape: dst.Shape, Stride: dst.Cols(), Addr: addr}
	m.dev.Ops().Copy(dst, src)
	runtime.KeepAlive(t.Bytes)
	return true
}

// readParts reads a piece of a tensor on all processors: converting numbers, and
// touching memory for the first time, is slower than a disk or a page cache gives them.
func readParts(t Stored, dst []float32, from int) error {
	const least = 1 << 16 // of any format's blocks a multiple
	n := runtime.GOMAXPROCS(0)
	size := max(least, (len(dst)/n+least-1)/least*least)
	errs := make([]error, (len(dst)+size-1)/size)
	var all sync.WaitGroup
	for i := range errs {
		part := dst[i*size : min((i+1)*size, len(dst))]
		all.Go(func() { errs[i] = t.Read(part, from+i*size) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// find looks a tensor up by the names that it may have.
func (l *loader) find(name string) (Stored, string, bool) {
	for _, s := range l.c.fam().names.spellings(name) {
		if t, ok := l.src.Find(s); ok {
			return t, s, true
		}
	}
	return Stored{}, name, false
}

// sample names a few of many.
func sample(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}
