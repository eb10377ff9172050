package model

import (
	"math"

	"ringtail/rng"
	"ringtail/tensor"
)

// New makes a model from its configuration, with random weights.
func New(c *Config, dev tensor.Device, opt Options) (*Model, error) {
	m, err := allocate(c, dev, opt)
	if err != nil {
		return nil, err
	}
	for _, e := range m.Store.Layout.Entries {
		m.initTensor(e.Name, opt.Seed)
	}
	if err := dev.Sync(); err != nil {
		m.Free()
		return nil, err
	}
	return m, nil
}

// initTensor gives one tensor the values that training starts from: norms 1,
// biases 0, matrices normal with deviation initializer_range, a scalar head with
// 1/√(hidden+1). Each tensor draws from a stream of its own name, so that its
// values depend on neither the order nor the layout of the others.
func (m *Model) initTensor(name string, seed uint64) {
	n := families[m.Config.family()].names
	p := m.Store.Param(name)
	std := m.Config.InitStd
	switch {
	case name == n.score:
		std = 1 / math.Sqrt(float64(m.Config.Hidden+1))
	case len(p.Shape) == 1 && name[len(name)-5:] == ".bias":
		return // zeroed when allocated
	case len(p.Shape) == 1:
		_ = m.Store.SetTensor(name, func(dst []float32) error {
			for i := range dst {
				dst[i] = 1
			}
			return nil
		})
		return
	}
	s := rng.New(seed, rng.Init+"/"+name, 0)
	_ = m.Store.SetTensor(name, func(dst []float32) error {
		s.FillNormal(dst, 0, std)
		return nil
	})
}
