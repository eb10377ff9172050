package model

import "encoding/json"

// Qwen2 and Qwen2.5 (Yang et al. 2024): LLaMA with biases of q, k and v, and,
// where asked for, a window in the upper layers.
var qwen2 = family{class: "Qwen2", modelType: "qwen2", names: llamaNames, read: func(c *Config, f *fields) {
	f.readGated(c, 1e-6)
	c.QKVBias = true
	f.readQwenWindow(c)
	c.Rope = readRope(f, c)
}}

// Qwen3 (Yang et al. 2025): norms of query and key heads in place of the biases.
var qwen3 = family{class: "Qwen3", modelType: "qwen3", names: llamaNames, read: func(c *Config, f *fields) {
	c.HeadDim = 128 // where head_dim isn't given
	f.readGated(c, 1e-6)
	c.QKNorm = true
	f.readAttentionBias(c, false)
	f.readQwenWindow(c)
	c.Rope = readRope(f, c)
}}

// Qwen3-MoE: Qwen3 with mixtures of experts in most layers.
var qwen3MoE = family{class: "Qwen3Moe", modelType: "qwen3_moe", names: qwen3MoENames, read: func(c *Config, f *fields) {
	f.readGated(c, 1e-6)
	c.QKNorm = true
	f.readAttentionBias(c, false)
	if f.flag("use_sliding_window", false) {
		f.readWindow(c)
	}
	f.readExperts(c, []string{"num_experts", "num_local_experts"}, 8)
	c.Experts.MLP = f.size("moe_intermediate_size", 768, maxMLP)
	c.Experts.Normalize = f.flag("norm_topk_prob", false)
	step := f.size("decoder_sparse_step", 1, maxLayers)
	c.Experts.Dense = make([]bool, c.Layers)
	for i := range c.Experts.Dense {
		c.Experts.Dense[i] = (i+1)%step != 0
	}
	if v, key := f.get("mlp_only_layers"); v != nil {
		list, ok := v.([]any)
		if !ok {
			f.fail(key, v, "a list of layers")
		}
		for _, e := range list {
			n, _ := e.(json.Number)
			if i, err := n.Int64(); err == nil && i >= 0 && int(i) < c.Layers {
				c.Experts.Dense[i] = true
			} else {
				f.fail(key, e, "a list of layers")
			}
		}
	}
	c.Rope = readRope(f, c)
}}

var qwen3MoENames = func() names {
	n := llamaNames
	n.router = "model.layers.%d.mlp.gate"
	n.expertGate = "model.layers.%d.mlp.experts.%d.gate_proj"
	n.expertUp = "model.layers.%d.mlp.experts.%d.up_proj"
	n.expertDown = "model.layers.%d.mlp.experts.%d.down_proj"
	return n
}()

// readQwenWindow reads the window of layers from max_window_layers on.
func (f *fields) readQwenWindow(c *Config) {
	if !f.flag("use_sliding_window", false) {
		return
	}
	c.Window = f.size("sliding_window", 4096, maxPositions)
	from := f.size("max_window_layers", 28, maxLayers)
	f.readLayerTypes(c, func(layer int) bool { return layer >= from })
}
