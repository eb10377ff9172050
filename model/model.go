// Package model builds decoder-only transformers from config.json of Hugging
// Face folders: their weights in chunks (package shard), their forward pass on a
// tape (package autograd). One decoder, driven by features, serves all families;
// families.go is the table of what sets them apart.
package model

import (
	"fmt"
	"strings"

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
	// Train allocates gradients and optimizer moments; Grad and State are their types
	// (see shard.Options).
	Train       bool
	Grad, State tensor.Dtype
	// GradsInArena leaves gradients to the arena (see shard.Options).
	GradsInArena bool
	// Frozen, with Train, names tensors that aren't trained.
	Frozen func(name string) bool
	// Decay tells which tensors weight decay applies to; nil: all matrices, neither norms nor biases.
	Decay func(name string, shape []int) bool
	// ChunkLen is the size of chunks in elements; 0: shard.DefaultChunk.
	ChunkLen int
	// Eight has the layers' matrices, but for those of experts, multiplied as 8-bit floats (docs/fp8.md).
	Eight bool
	// FreshHead lets Load make a scalar head that the folder lacks; without it that is an error.
	FreshHead bool
	// Vocab, where it is more than the model's, lets Load add rows to the embedding
	// (and to the output projection): the mean of the others.
	Vocab int
	// Block, where it isn't absent, lets New copy weights on the device from these random
	// numbers of deviation 1, again and again: for benchmarks, where drawing billions on
	// the host would take minutes. Of the device's Wide() type.
	Block tensor.Tensor
	// Seed makes the weights that no file gives.
	Seed uint64
}

// Model is a decoder with its weights on a device.
type Model struct {
	Config *Config
	Store  *shard.Store
	Head   Head
	Notes  []string // what Load left out of the weights, to be told

	eight     bool // Options.Eight
	dev       tensor.Device
	embed     *autograd.Param
	position  *autograd.Param // learned positions, from that of position 0 on
	embedNorm *autograd.Norm
	in, out   *autograd.Param // projections between embeddings and layers, nil for none
	norm      *autograd.Norm  // nil with PostNorm
	head      *autograd.Param // lm_head, embedding or score
	block     []block

	ropes   map[ropeKey]*ropeTable
	retired []*ropeTable // replaced by longer ones
}

// block is one layer's parameters.
type block struct {
	attnNorm, mlpNorm autograd.Norm
	attnPost, mlpPost *autograd.Norm // SandwichNorm
	qkv, qkvBias      *autograd.Param
	qNorm, kNorm      *autograd.Param
	o, oBias          *autograd.Param
	up, upBias        *autograd.Param // gate and up; up alone in plain MLPs
	down, downBias    *autograd.Param
	router            *autograd.Param
	expertUp          *autograd.Param // [experts, 2·width, hidden], gates first
	expertDown        *autograd.Param // [experts, hidden, width]
}

// vocabStep is a number of rows that products with the vocabulary are rounded up to.
const vocabStep = 64

// specs lists the tensors of a decoder in the order in which the forward pass
// uses them, by their stored names.
func (c *Config) specs(opt Options, head Head) []shard.Spec {
	n := c.fam().names
	decay := opt.Decay
	if decay == nil {
		decay = optim.Decays
	}
	var list []shard.Spec
	add := func(group, name string, shape ...int) {
		pad := 0
		if name == n.embed+".weight" || name == n.head+".weight" {
			pad = -shape[0] & (vocabStep - 1)
		}
		list = append(list, shard.Spec{Name: name, Pad: pad, Shape: shape, Group: group, Decay: decay(name, shape),
			Frozen: !opt.Train || opt.Frozen != nil && opt.Frozen(name)})
	}
	norm := func(name string) {
		add("", name+".weight", c.Hidden)
		if c.LayerNorm && c.NormBias {
			add("", name+".bias", c.Hidden)
		}
	}
	// linear adds matrices of one input, and their biases, each kind adjacent.
	linear := func(group string, bias bool, in int, names []string, out ...int) {
		for i, name := range names {
			add(group, name+".weight", out[i], in)
			list[len(list)-1].Eight = opt.Eight
		}
		for i, name := range names {
			if bias {
				add(group+".bias", name+".bias", out[i])
			}
		}
	}
	add("", n.embed+".weight", c.Vocab, c.EmbedDim)
	if c.EmbedDim != c.Hidden {
		add("", n.projectIn+".weight", c.Hidden, c.EmbedDim)
	}
	if c.Positions == Learned {
		add("", n.position+".weight", c.MaxPositions+c.PositionOffset, c.Hidden)
	}
	if c.EmbedNorm {
		norm(n.embedNorm)
	}
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	for i := range c.Layers {
		at := func(pattern string) string { return layerName(pattern, i) }
		group := func(g string) string { return fmt.Sprintf("%d.%s", i, g) }
		norm(at(n.attnNorm))
		if n.qkv != "" {
			linear("", c.QKVBias, c.Hidden, []string{at(n.qkv)}, q+2*kv)
		} else {
			linear(group("qkv"), c.QKVBias, c.Hidden, []string{at(n.q), at(n.k), at(n.v)}, q, kv, kv)
		}
		if c.QKNorm {
			add("", at(n.qNorm)+".weight", c.HeadDim)
			add("", at(n.kNorm)+".weight", c.HeadDim)
		}
		linear("", c.OutBias, q, []string{at(n.o)}, c.Hidden)
		if c.Place == SandwichNorm {
			norm(at(n.attnPost))
		}
		norm(at(n.mlpNorm))
		switch e := c.Experts; {
		case c.sparse(i):
			add("", at(n.router)+".weight", e.Count, c.Hidden)
			for x := range e.Count {
				add(group("experts.up"), expertName(n.expertGate, i, x)+".weight", e.MLP, c.Hidden)
				add(group("experts.up"), expertName(n.expertUp, i, x)+".weight", e.MLP, c.Hidden)
			}
			for x := range e.Count {
				add(group("experts.down"), expertName(n.expertDown, i, x)+".weight", c.Hidden, e.MLP)
			}
		case c.Plain:
			linear("", c.MLPBias, c.Hidden, []string{at(n.up)}, c.MLP)
		case n.gateUp != "":
			linear("", c.MLPBias, c.Hidden, []string{at(n.gateUp)}, 2*c.MLP)
		default:
			linear(group("gateup"), c.MLPBias, c.Hidden, []string{at(n.gate), at(n.up)}, c.MLP, c.MLP)
		}
		if !c.sparse(i) {
			linear("", c.MLPBias, c.MLP, []string{at(n.down)}, c.Hidden)
		}
		if c.Place == SandwichNorm {
			norm(at(n.mlpPost))
		}
	}
	if c.Place != PostNorm {
		norm(n.norm)
	}
	if c.EmbedDim != c.Hidden {
		add("", n.projectOut+".weight", c.EmbedDim, c.Hidden)
	}
	switch {
	case head == ScalarHead:
		add("", n.score+".weight", 1, c.EmbedDim)
	case !c.Tied:
		add("", n.head+".weight", c.Vocab, c.EmbedDim)
	}
	return list
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
	store, err := shard.NewStore(dev, layout, shard.Options{Train: opt.Train, Grad: opt.Grad, State: opt.State, Seed: opt.Seed,
		GradsInArena: opt.GradsInArena})
	if err != nil {
		return nil, err
	}
	m := &Model{Config: c, Store: store, Head: head, eight: opt.Eight, dev: dev, ropes: map[ropeKey]*ropeTable{}}
	if err := m.wire(); err != nil {
		store.Free()
		return nil, err
	}
	return m, nil
}

// wire finds the parameters that the forward pass uses.
func (m *Model) wire() error {
	c, n := m.Config, m.Config.fam().names
	var err error
	check := func(p *autograd.Param, e error) *autograd.Param {
		if err == nil {
			err = e
		}
		return p
	}
	param := func(name string) *autograd.Param { return m.Store.Param(name) }
	// merged is the matrices, or biases, of the names as one.
	merged := func(suffix string, names ...string) *autograd.Param {
		if len(names) == 1 || param(names[0]+suffix) == nil {
			return param(names[0] + suffix)
		}
		parts := make([]string, len(names))
		for i, name := range names {
			parts[i] = name + suffix
		}
		return check(m.Store.Merged(strings.Join(names, "+")+suffix, nil, parts...))
	}
	norm := func(name string) autograd.Norm {
		return autograd.Norm{W: param(name + ".weight"), Bias: param(name + ".bias"), Layer: c.LayerNorm,
			Eps: float32(c.NormEps), WOffset: float32(c.NormOffset)}
	}
	optional := func(name string, there bool) *autograd.Norm {
		if !there {
			return nil
		}
		x := norm(name)
		return &x
	}
	m.embed = param(n.embed + ".weight")
	m.in, m.out = param(n.projectIn+".weight"), param(n.projectOut+".weight")
	if c.Positions == Learned {
		m.position = check(m.Store.Rows(n.position+".weight", c.PositionOffset))
	}
	m.embedNorm = optional(n.embedNorm, c.EmbedNorm)
	m.norm = optional(n.norm, c.Place != PostNorm)
	switch {
	case m.Head == ScalarHead:
		m.head = param(n.score + ".weight")
	case c.Tied:
		m.head = m.embed
	default:
		m.head = param(n.head + ".weight")
	}
	m.block = make([]block, c.Layers)
	for i := range m.block {
		at := func(pattern string) string { return layerName(pattern, i) }
		b := &m.block[i]
		b.attnNorm, b.mlpNorm = norm(at(n.attnNorm)), norm(at(n.mlpNorm))
		if c.Place == SandwichNorm {
			b.attnPost, b.mlpPost = optional(at(n.attnPost), true), optional(at(n.mlpPost), true)
		}
		qkv := []string{at(n.q), at(n.k), at(n.v)}
		if n.qkv != "" {
			qkv = []string{at(n.qkv)}
		}
		b.qkv, b.qkvBias = merged(".weight", qkv...), merged(".bias", qkv...)
		if c.QKNorm {
			b.qNorm, b.kNorm = param(at(n.qNorm)+".weight"), param(at(n.kNorm)+".weight")
		}
		b.o, b.oBias = param(at(n.o)+".weight"), param(at(n.o)+".bias")
		if c.sparse(i) {
			e := c.Experts
			b.router = param(at(n.router) + ".weight")
			var up, down []string
			for x := range e.Count {
				up = append(up, expertName(n.expertGate, i, x)+".weight", expertName(n.expertUp, i, x)+".weight")
				down = append(down, expertName(n.expertDown, i, x)+".weight")
			}
			b.expertUp = check(m.Store.Merged(fmt.Sprintf("layer %d experts' gates and ups", i), []int{e.Count, 2 * e.MLP, c.Hidden}, up...))
			b.expertDown = check(m.Store.Merged(fmt.Sprintf("layer %d experts' downs", i), []int{e.Count, c.Hidden, e.MLP}, down...))
			continue
		}
		up := []string{at(n.gate), at(n.up)}
		switch {
		case c.Plain:
			up = up[1:]
		case n.gateUp != "":
			up = []string{at(n.gateUp)}
		}
		b.up, b.upBias = merged(".weight", up...), merged(".bias", up...)
		b.down, b.downBias = param(at(n.down)+".weight"), param(at(n.down)+".bias")
	}
	if m.eight && err == nil {
		for _, b := range m.block {
			for _, p := range []*autograd.Param{b.qkv, b.o, b.up, b.down} {
				if p != nil && err == nil { // of experts there are neither up nor down
					err = m.Store.Eight(p)
				}
			}
		}
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
