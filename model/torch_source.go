package model

import "ringtail/torchfile"

// openTorch opens a folder's weights in PyTorch's files (pytorch_model.bin or shards).
func openTorch(dir string) (Source, error) {
	files, err := torchfile.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	src, err := unwrap(torchFolder{files})
	if err != nil {
		files.Close()
		return nil, inFolder(dir, err)
	}
	return src, nil
}

// torchFolder is a folder of PyTorch's files as a Source.
type torchFolder struct{ *torchfile.Folder }

// Find finds a tensor by name.
func (f torchFolder) Find(name string) (Stored, bool) {
	t, ok := f.Folder.Tensor(name)
	if !ok {
		return Stored{}, false
	}
	s := Stored{Dtype: t.Dtype, Shape: t.Shape, Read: t.Read, Done: t.Release}
	if !isFloat(t.Dtype) {
		s.Read = func([]float32, int) error { return notFloat(t.Dtype) }
	}
	return s, true
}
