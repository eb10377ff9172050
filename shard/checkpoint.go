package shard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ringtail/safetensors"
	"ringtail/tensor"
)

// manifest describes the chunks of a checkpoint, so that a reader can tell which
// tensor lies where, and whether it fits, before it reads any.
type manifest struct {
	Format  int              `json:"format"`
	Dtype   string           `json:"dtype"`
	Chunks  []manifestChunk  `json:"chunks"`
	Tensors []manifestTensor `json:"tensors"`
}

type manifestChunk struct {
	File   string `json:"file,omitempty"` // absent for frozen chunks: they are the base model's
	Len    int    `json:"len"`
	Frozen bool   `json:"frozen,omitempty"`
	Eight  bool   `json:"eight,omitempty"` // for products of 8-bit floats
}

type manifestTensor struct {
	Name   string `json:"name"`
	Shape  []int  `json:"shape"`
	Chunk  int    `json:"chunk"`
	Offset int    `json:"offset"`
}

const manifestFile = "manifest.json"

func (s *Store) manifest() manifest {
	m := manifest{Format: 1, Dtype: s.exactDtype().String()}
	for i, c := range s.Layout.Chunks {
		mc := manifestChunk{Len: c.Len, Frozen: c.Frozen, Eight: c.Eight}
		if !c.Frozen {
			mc.File = fmt.Sprintf("chunk-%05d.safetensors", i)
		}
		m.Chunks = append(m.Chunks, mc)
	}
	for _, e := range s.Layout.Entries {
		m.Tensors = append(m.Tensors, manifestTensor{e.Name, e.Shape, e.Chunk, e.Offset})
	}
	return m
}

// exactDtype is the type in which the trained weights are known most exactly.
func (s *Store) exactDtype() tensor.Dtype {
	for i, c := range s.chunks {
		if !s.Layout.Chunks[i].Frozen {
			return c.exact().Dtype
		}
	}
	return s.dev.Float()
}

// parts are the flat buffers of a chunk that a checkpoint holds. Weights are the
// master weights where there are any: checkpoints of a device with float32 weights
// and of one with bfloat16 weights are alike.
func (c *chunk) parts() []namedPart {
	p := []namedPart{{"value", c.exact()}}
	if !c.m.IsZero() {
		p = append(p, namedPart{"m", c.m}, namedPart{"v", c.v})
	}
	if !c.eights.scales.IsZero() {
		p = append(p, namedPart{"scale", c.eights.scales})
	}
	return p
}

type namedPart struct {
	name string
	t    tensor.Tensor
}

// pieceLen is the number of elements that pass through host memory at a time.
const pieceLen = 1 << 20

// WriteChunks writes the trained chunks (values and moments) and their manifest
// into dir. It works chunk by chunk and never holds a second copy of the model.
// Completeness of the folder as a whole is the caller's (package atomicfile).
func (s *Store) WriteChunks(dir string) error {
	// A device that failed on the way must not leave its remains as a checkpoint.
	if err := s.dev.Sync(); err != nil {
		return err
	}
	m := s.manifest()
	buf := make([]byte, pieceLen*8) // of the widest type
	for i, c := range s.chunks {
		if m.Chunks[i].File == "" {
			continue
		}
		var specs []safetensors.Spec
		for _, p := range c.parts() {
			specs = append(specs, safetensors.Spec{Name: p.name, Dtype: p.t.Dtype.String(), Shape: []int{p.t.Len()}})
		}
		w, err := safetensors.Create(filepath.Join(dir, m.Chunks[i].File), nil, specs)
		if err != nil {
			return err
		}
		for _, p := range c.parts() {
			for at := 0; at < p.t.Len(); at += pieceLen {
				piece := p.t.Slice(at, min(pieceLen, p.t.Len()-at))
				b := buf[:piece.Bytes()]
				s.dev.Read(b, piece)
				if err := w.Write(p.name, b); err != nil {
					w.Abort()
					return err
				}
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestFile), append(b, '\n'), 0o666)
}

// ReadChunks reads what WriteChunks wrote. The manifest must describe exactly
// this store's layout; nothing is changed otherwise.
func (s *Store) ReadChunks(dir string) error {
	path := filepath.Join(dir, manifestFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: no %s: this is not a complete checkpoint", dir, manifestFile)
	}
	if err != nil {
		return err
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := s.fits(path, m); err != nil {
		return err
	}
	files := make([]*safetensors.File, len(m.Chunks))
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
	for i, c := range s.chunks {
		if m.Chunks[i].File == "" {
			continue
		}
		f, err := safetensors.Open(filepath.Join(dir, m.Chunks[i].File))
		if err != nil {
			return err
		}
		files[i] = f
		for _, p := range c.parts() {
			t, ok := f.Tensor(p.name)
			if !ok {
				return fmt.Errorf("%s: no tensor %s: the checkpoint was written without optimizer state", f.Path(), p.name)
			}
			if want := p.t.Dtype.String(); t.Dtype != want || len(t.Data) != p.t.Bytes() {
				return fmt.Errorf("%s: tensor %s is %s %v, expected %s [%d]", f.Path(), p.name, t.Dtype, t.Shape, want, p.t.Len())
			}
		}
	}
	for i, c := range s.chunks {
		if files[i] == nil {
			continue
		}
		for _, p := range c.parts() {
			t, _ := files[i].Tensor(p.name)
			size := p.t.Dtype.Size()
			for at := 0; at < p.t.Len(); at += pieceLen {
				piece := p.t.Slice(at, min(pieceLen, p.t.Len()-at))
				s.dev.Write(piece, t.Data[at*size:at*size+piece.Bytes()])
			}
		}
		c.round()
	}
	return s.dev.Sync()
}

// round sets the weights that the device computes with from the master weights, or from
// those and the scales.
func (c *chunk) round() {
	c.eights.restore()
	if !c.master.IsZero() {
		c.value.Device.Ops().Copy(c.value, c.master)
	}
}

// fits checks that a checkpoint's manifest is this store's.
func (s *Store) fits(path string, m manifest) error {
	want := s.manifest()
	if m.Format != want.Format {
		return fmt.Errorf("%s: format %d, this version reads %d", path, m.Format, want.Format)
	}
	if m.Dtype != want.Dtype {
		return fmt.Errorf("%s: weights are %s, this run keeps them as %s (device, optimizer.state)", path, m.Dtype, want.Dtype)
	}
	if len(m.Tensors) != len(want.Tensors) || len(m.Chunks) != len(want.Chunks) {
		return fmt.Errorf("%s: %d tensors in %d chunks, the model of this run has %d in %d: it is another model's checkpoint",
			path, len(m.Tensors), len(m.Chunks), len(want.Tensors), len(want.Chunks))
	}
	for i, t := range m.Tensors {
		w := want.Tensors[i]
		if t.Name != w.Name || fmt.Sprint(t.Shape) != fmt.Sprint(w.Shape) || t.Chunk != w.Chunk || t.Offset != w.Offset {
			return fmt.Errorf("%s: tensor %s %v where this run has %s %v: it is another model's checkpoint", path, t.Name, t.Shape, w.Name, w.Shape)
		}
	}
	for i, c := range m.Chunks {
		if c != want.Chunks[i] {
			return fmt.Errorf("%s: chunk %d is %+v where this run has %+v: other parameters were trained", path, i, c, want.Chunks[i])
		}
	}
	return nil
}

// exact is the flat tensor that holds a stored tensor most exactly.
func (s *Store) exact(name string) tensor.Tensor {
	e := s.entries[name]
	return s.chunks[e.Chunk].exact().Slice(e.Offset, e.Len())
}

// SetTensor writes float32 values into a stored tensor, n elements at a time:
// next is called with a scratch slice to fill until all are written.
func (s *Store) SetTensor(name string, next func(dst []float32) error) error {
	p := s.params[name]
	if p == nil {
		panic("shard: no tensor " + name)
	}
	flat, exact := p.Value.Reshape(p.Value.Len()), s.exact(name)
	host := s.dev.Host() && s.dev.Float() == tensor.F32
	var scratch []float32
	for at := 0; at < flat.Len(); at += pieceLen {
		piece := flat.Slice(at, min(pieceLen, flat.Len()-at))
		if host {
			if err := next(piece.Float32()); err != nil {
				return err
			}
			continue
		}
		if scratch == nil {
			scratch = make([]float32, pieceLen)
		}
		if err := next(scratch[:piece.Len()]); err != nil {
			return err
		}
		tensor.SetFloat32(exact.Slice(at, piece.Len()), scratch[:piece.Len()])
		if exact.Addr != flat.Addr {
			s.dev.Ops().Copy(piece, exact.Slice(at, piece.Len()))
		}
	}
	return nil
}

// Tile fills a stored tensor with the numbers of block, on the device, times factor,
// as often as it takes.
func (s *Store) Tile(name string, block tensor.Tensor, factor float32) {
	exact := s.exact(name)
	ops := s.dev.Ops()
	for at := 0; at < exact.Len(); at += block.Len() {
		n := min(block.Len(), exact.Len()-at)
		ops.Copy(exact.Slice(at, n), block.Slice(0, n))
	}
	ops.Scale(exact, factor)
	if value := s.params[name].Value; value.Addr != exact.Addr {
		ops.Copy(value.Reshape(value.Len()), exact)
	}
}

// Tensor reads a stored tensor in pieces of float32.
func (s *Store) Tensor(name string, next func(src []float32) error) error {
	p := s.params[name]
	if p == nil {
		panic("shard: no tensor " + name)
	}
	flat := s.exact(name)
	for at := 0; at < flat.Len(); at += pieceLen {
		piece := flat.Slice(at, min(pieceLen, flat.Len()-at))
		if s.dev.Host() && piece.Dtype == tensor.F32 {
			if err := s.dev.Sync(); err != nil {
				return err
			}
			if err := next(piece.Float32()); err != nil {
				return err
			}
			continue
		}
		if err := next(tensor.GetFloat32(piece)); err != nil {
			return err
		}
	}
	return nil
}
