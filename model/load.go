package model

import (
	"fmt"
	"slices"
	"strings"

	"ringtail/safetensors"
	"ringtail/tensor"
)

// Load reads a model folder: config.json and safetensors.
func Load(dir string, dev tensor.Device, opt Options) (*Model, error) {
	c, err := LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	files, err := safetensors.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	head := opt.Head
	if head == AutoHead && c.Scalar() {
		head = ScalarHead
	}
	// Everything is checked before any large allocation.
	specs := c.specs(opt, head)
	fresh := ""
	stored := map[string]string{} // our name → the file's
	for _, s := range specs {
		t, name, ok := find(files, s.Name)
		isHead := head == ScalarHead && s.Name == families[c.family()].names.score
		if !ok {
			if isHead {
				if !opt.FreshHead {
					return nil, fmt.Errorf("%s: no tensor %s: this is no reward or value model (config.json says %s); train one with: ringtail train reward",
						dir, s.Name, c.Architecture)
				}
				fresh = s.Name
				continue
			}
			return nil, fmt.Errorf("%s: no tensor %s, which config.json (%s) asks for; it has %s", dir, s.Name, c.Architecture, sample(files.Names()))
		}
		labels := c.labels()
		if len(t.Shape) == 2 {
			labels = max(labels, t.Shape[0])
		}
		if isHead && labels > 1 {
			return nil, fmt.Errorf("%s: this is a classifier of %d labels (num_labels of config.json; %s has the shape %v); a reward or value model has one label and the shape %v",
				dir, labels, s.Name, t.Shape, s.Shape)
		}
		if !slices.Equal(t.Shape, s.Shape) {
			return nil, fmt.Errorf("%s: tensor %s has shape %v, config.json asks for %v", dir, s.Name, t.Shape, s.Shape)
		}
		switch t.Dtype {
		case "F32", "F16", "BF16", "F64":
		default:
			return nil, fmt.Errorf("%s: tensor %s is %s; weights are read as F32, F16, BF16 or F64", dir, s.Name, t.Dtype)
		}
		stored[s.Name] = name
	}
	m, err := allocate(c, dev, opt)
	if err != nil {
		return nil, err
	}
	for _, s := range specs {
		if s.Name == fresh {
			continue
		}
		t, _ := files.Tensor(stored[s.Name])
		size := len(t.Data) / max(s.Len(), 1)
		at := 0
		err := m.Store.SetTensor(s.Name, func(dst []float32) error {
			n := len(dst) * size
			err := safetensors.ToFloat32(dst, t.Dtype, t.Data[at:at+n])
			at += n
			return err
		})
		if err != nil {
			m.Free()
			return nil, fmt.Errorf("%s: tensor %s: %w", dir, s.Name, err)
		}
	}
	if fresh != "" {
		m.initTensor(fresh, opt.Seed)
	}
	if err := dev.Sync(); err != nil {
		m.Free()
		return nil, err
	}
	return m, nil
}

// find looks a tensor up by its name, or by that name without the leading
// "model.", as folders of bare decoders spell it.
func find(files *safetensors.Folder, name string) (safetensors.Tensor, string, bool) {
	if t, ok := files.Tensor(name); ok {
		return t, name, true
	}
	short := strings.TrimPrefix(name, "model.")
	t, ok := files.Tensor(short)
	return t, short, ok
}

// sample names a few of many.
func sample(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}
