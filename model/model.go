// Package model builds decoder-only transformers from config.json of Hugging
// Face folders: their weights in chunks (package shard), their forward pass on a
// tape (package autograd). One decoder, driven by features, serves all families;
// families.go is the table of what sets them apart.
package model

import (
	"fmt"

	"ringtail/autograd"
	"ringtail/optim"
	"ringtail/shard"
	"ringtail/tensor"
)

// Head is what stands on top of the decoder.
type Head uint8

// The heads: AutoHead takes what the folder holds.
const (
	AutoHead   Head = iota
	CausalLM        // output projection to the vocabulary
	ScalarHead      // score.weight [1, hidden]: reward and value models
)

// Options says how a model's weights are kept.
type Options struct {
	Head Head
	// Train allocates gradients and optimizer moments.
	Train bool
	// Frozen, with Train, names tensors that aren't trained.
	Frozen func(name string) bool
	// Decay tells which tensors weight decay applies to; nil: all matrices, neither norms nor biases.
	Decay func(name string, shape []int) bool
	// ChunkLen is the size of chunks in elements; 0: shard.DefaultChunk.
	ChunkLen int
	// FreshHead lets Load make a scalar head that the folder lacks; without it that is an error.
	FreshHead bool
	// Seed makes the weights that no file gives.
	Seed uint64
}

// Model is a decoder with its weights on a device.
type Model struct {
	Config *Config
	Store  *shard.Store
	Head   Head

	dev   tensor.Device
	embed *autograd.Param
	norm  *autograd.Param
	head  *autograd.Param // lm_head, embedding or score
	block []block

	ropes   map[int]*ropeTable // by length class
	retired []*ropeTable       // replaced by longer ones
}

// block is one layer's parameters.
type block struct {
	attnNorm, qkv, qkvBias, o, oBias *autograd.Param
	mlpNorm, gateUp, gateUpBias      *autograd.Param
	down, downBias                   *autograd.Param
}

// specs lists the tensors of a decoder in the order in which the forward pass
// uses them.
func (c *Config) specs(opt Options, head Head) []shard.Spec {
	n := families[c.family()].names
	decay := opt.Decay
	if decay == nil {
		decay = optim.Decays
	}
	var out []shard.Spec
	add := func(group, name string, shape ...int) {
		out = append(out, shard.Spec{Name: name, Shape: shape, Group: group, Decay: decay(name, shape),
			Frozen: !opt.Train || opt.Frozen != nil && opt.Frozen(name)})
	}
	add("", n.embed, c.Vocab, c.Hidden)
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	for i := range c.Layers {
		at := func(pattern, suffix string) string { return layerName(pattern, i) + suffix }
		group := func(g string) string { return fmt.Sprintf("%d.%s", i, g) }
		add("", layerName(n.attnNorm, i), c.Hidden)
		add(group("qkv"), at(n.q, ".weight"), q, c.Hidden)
		add(group("qkv"), at(n.k, ".weight"), kv, c.Hidden)
		add(group("qkv"), at(n.v, ".weight"), kv, c.Hidden)
		if c.QKVBias {
			add(group("qkv.bias"), at(n.q, ".bias"), q)
			add(group("qkv.bias"), at(n.k, ".bias"), kv)
			add(group("qkv.bias"), at(n.v, ".bias"), kv)
		}
		add("", at(n.o, ".weight"), c.Hidden, q)
		if c.OutBias {
			add("", at(n.o, ".bias"), c.Hidden)
		}
		add("", layerName(n.mlpNorm, i), c.Hidden)
		add(group("gateup"), at(n.gate, ".weight"), c.MLP, c.Hidden)
		add(group("gateup"), at(n.up, ".weight"), c.MLP, c.Hidden)
		if c.MLPBias {
			add(group("gateup.bias"), at(n.gate, ".bias"), c.MLP)
			add(group("gateup.bias"), at(n.up, ".bias"), c.MLP)
		}
		add("", at(n.down, ".weight"), c.Hidden, c.MLP)
		if c.MLPBias {
			add("", at(n.down, ".bias"), c.Hidden)
		}
	}
	add("", n.norm, c.Hidden)
	switch {
	case head == ScalarHead:
		add("", n.score, 1, c.Hidden)
	case !c.Tied:
		add("", n.head, c.Vocab, c.Hidden)
	}
	return out
}

// allocate makes a model whose weights are still zero.
func allocate(c *Config, dev tensor.Device, opt Options) (*Model, error) {
	head := opt.Head
	if head == AutoHead {
		head = CausalLM
		if c.Scalar() {
			head = ScalarHead
		}
	}
	chunkLen := opt.ChunkLen
	if chunkLen == 0 {
		chunkLen = shard.DefaultChunk
	}
	layout, err := shard.Plan(c.specs(opt, head), chunkLen)
	if err != nil {
		return nil, err
	}
	store, err := shard.NewStore(dev, layout, opt.Train)
	if err != nil {
		return nil, err
	}
	m := &Model{Config: c, Store: store, Head: head, dev: dev, ropes: map[int]*ropeTable{}}
	if err := m.wire(); err != nil {
		store.Free()
		return nil, err
	}
	return m, nil
}

// wire finds the parameters that the forward pass uses.
func (m *Model) wire() error {
	c, n := m.Config, families[m.Config.family()].names
	var err error
	merged := func(name string, parts ...string) *autograd.Param {
		p, e := m.Store.Merged(name, parts...)
		if err == nil {
			err = e
		}
		return p
	}
	m.embed = m.Store.Param(n.embed)
	m.norm = m.Store.Param(n.norm)
	switch {
	case m.Head == ScalarHead:
		m.head = m.Store.Param(n.score)
	case c.Tied:
		m.head = m.embed
	default:
		m.head = m.Store.Param(n.head)
	}
	m.block = make([]block, c.Layers)
	for i := range m.block {
		at := func(pattern, suffix string) string { return layerName(pattern, i) + suffix }
		b := &m.block[i]
		b.attnNorm = m.Store.Param(layerName(n.attnNorm, i))
		b.mlpNorm = m.Store.Param(layerName(n.mlpNorm, i))
		b.qkv = merged(fmt.Sprintf("layer %d qkv", i), at(n.q, ".weight"), at(n.k, ".weight"), at(n.v, ".weight"))
		if c.QKVBias {
			b.qkvBias = merged(fmt.Sprintf("layer %d qkv bias", i), at(n.q, ".bias"), at(n.k, ".bias"), at(n.v, ".bias"))
		}
		b.o = m.Store.Param(at(n.o, ".weight"))
		b.oBias = m.Store.Param(at(n.o, ".bias"))
		b.gateUp = merged(fmt.Sprintf("layer %d gate and up", i), at(n.gate, ".weight"), at(n.up, ".weight"))
		if c.MLPBias {
			b.gateUpBias = merged(fmt.Sprintf("layer %d gate and up bias", i), at(n.gate, ".bias"), at(n.up, ".bias"))
		}
		b.down = m.Store.Param(at(n.down, ".weight"))
		b.downBias = m.Store.Param(at(n.down, ".bias"))
	}
	return err
}

// Device is where the model lives.
func (m *Model) Device() tensor.Device { return m.dev }

// Free gives the model's memory back.
func (m *Model) Free() {
	m.Store.Free()
	for _, t := range m.ropes {
		t.free()
	}
	for _, t := range m.retired {
		t.free()
	}
}
