package model

import (
	"math"
	"strings"

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
		m.initTensor(e.Name, opt)
	}
	m.Store.MakeEights()
	if err := dev.Sync(); err != nil {
		m.Free()
		return nil, err
	}
	return m, nil
}

// initTensor gives one tensor the values that training starts from: norms 1 (with
// their offset), biases 0, matrices normal with deviation initializer_range, a
// scalar head with 1/√(hidden+1). Each tensor draws from a stream of its own name,
// so that its values depend on neither the order nor the layout of the others.
func (m *Model) initTensor(name string, opt Options) {
	fam, p := m.Config.fam(), m.Store.Param(name)
	std := m.Config.InitStd
	switch {
	case name == fam.names.score+".weight":
		std = 1 / math.Sqrt(float64(m.Config.EmbedDim+1))
	case len(p.Shape) == 1 && strings.HasSuffix(name, ".bias"):
		return // zeroed when allocated
	case len(p.Shape) == 1:
		_ = m.Store.SetTensor(name, func(dst []float32) error {
			for i := range dst {
				dst[i] = float32(1 - m.Config.NormOffset)
			}
			return nil
		})
		return
	case fam.residualInit && (isLayer(fam.names.o, name) || isLayer(fam.names.down, name)):
		std /= math.Sqrt(2 * float64(m.Config.Layers))
	}
	if !opt.Block.IsZero() {
		m.Store.Tile(name, opt.Block, float32(std))
		return
	}
	s := rng.New(opt.Seed, rng.Init+"/"+name, 0)
	_ = m.Store.SetTensor(name, func(dst []float32) error {
		s.FillNormal(dst, 0, std)
		return nil
	})
}

// isLayer tells whether name is the matrix that pattern names in some layer.
func isLayer(pattern, name string) bool {
	before, after, _ := strings.Cut(pattern, "%d")
	return strings.HasPrefix(name, before) && strings.HasSuffix(name, after+".weight")
}
