package model

import (
	"fmt"

	"ringtail/gguf"
	"ringtail/safetensors"
	"ringtail/torchfile"
)

// Source is the stored weights of a model, in whatever format: tensors by the names
// that transformers gives them, in its layout.
type Source interface {
	Names() []string
	Find(name string) (Stored, bool)
	Close() error
}

// Stored is one tensor of a Source.
type Stored struct {
	Dtype string // as its format spells it
	Shape []int
	// Read fills dst with the elements from … from+len(dst)−1, row by row. Formats
	// that store blocks ask for whole ones; Load reads whole tensors, or pieces that fit
	// all of them (a multiple of 2^20 elements, and the rest). Nothing is read into an empty dst, but a
	// type that can't be read is an error. It may be called from several goroutines.
	Read func(dst []float32, from int) error
	// Bytes are the whole tensor in memory, row by row and little-endian, where its
	// format keeps it so; Dtype is then F32, F16 or BF16.
	Bytes []byte
	// Done, if not nil, tells that the tensor was read and its memory can go.
	Done func()
}

// Open finds the configuration and the weights at path: a Hugging Face folder
// (config.json with safetensors or PyTorch files) or a GGUF file.
func Open(path string) (*Config, Source, error) {
	if gguf.Is(path) {
		return openGGUF(path)
	}
	c, err := LoadConfig(path)
	if err != nil {
		return nil, nil, err
	}
	src, err := openWeights(path)
	return c, src, err
}

// openWeights opens a folder's weights: safetensors or, where there are none, PyTorch's files.
func openWeights(dir string) (Source, error) {
	if first(dir, safetensors.SingleFile, safetensors.IndexFile) == "" && torchfile.Holds(dir) {
		return openTorch(dir)
	}
	files, err := safetensors.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	src, err := unwrap(tensorFolder{files})
	if err != nil {
		files.Close()
		return nil, inFolder(dir, err)
	}
	return src, nil
}

// tensorFolder is a folder of safetensors as a Source.
type tensorFolder struct{ *safetensors.Folder }

// Find finds a tensor by name.
func (f tensorFolder) Find(name string) (Stored, bool) {
	t, ok := f.Folder.Tensor(name)
	if !ok {
		return Stored{}, false
	}
	s := Stored{Dtype: t.Dtype, Shape: t.Shape, Done: t.Release}
	bits, _ := safetensors.DtypeBits(t.Dtype)
	if _, ok := deviceDtypes[t.Dtype]; ok {
		s.Bytes = t.Data
	}
	s.Read = func(dst []float32, from int) error {
		if !isFloat(t.Dtype) {
			return notFloat(t.Dtype)
		}
		return safetensors.ToFloat32(dst, t.Dtype, t.Data[from*bits/8:(from+len(dst))*bits/8])
	}
	return s, true
}

// isFloat tells whether weights can be of a type.
func isFloat(dtype string) bool {
	switch dtype {
	case "F32", "F16", "BF16", "F64":
		return true
	}
	return false
}

// notFloat is the error of weights that are of another.
func notFloat(dtype string) error {
	return fmt.Errorf("it is %s; weights are read as F32, F16, BF16 or F64", dtype)
}
