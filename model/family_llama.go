package model

// LLaMA 1, 2, 3 (Touvron et al. 2023; Grattafiori et al. 2024).
var llama = family{class: "Llama", modelType: "llama", names: llamaNames, read: func(c *Config, f *fields) {
	f.readGated(c, 1e-6)
	f.readAttentionBias(c, false)
	c.MLPBias = f.flag("mlp_bias", false)
	c.Rope = readRope(f, c)
}}

// Mistral 7B (Jiang et al. 2023): LLaMA with a sliding window.
var mistral = family{class: "Mistral", modelType: "mistral", names: llamaNames, read: func(c *Config, f *fields) {
	f.readGated(c, 1e-6)
	f.readWindow(c)
	c.Rope = readRope(f, c)
}}

// Mixtral (Jiang et al. 2024): Mistral whose MLPs are mixtures of experts.
var mixtral = family{class: "Mixtral", modelType: "mixtral", names: mixtralNames, read: func(c *Config, f *fields) {
	f.readGated(c, 1e-5)
	f.readWindow(c)
	f.readExperts(c, []string{"num_local_experts", "num_experts"}, 2)
	c.Experts.MLP, c.Experts.Normalize = c.MLP, true
	c.Rope = readRope(f, c)
}}

var mixtralNames = func() names {
	n := llamaNames
	n.router = "model.layers.%d.block_sparse_moe.gate"
	n.expertGate = "model.layers.%d.block_sparse_moe.experts.%d.w1"
	n.expertDown = "model.layers.%d.block_sparse_moe.experts.%d.w2"
	n.expertUp = "model.layers.%d.block_sparse_moe.experts.%d.w3"
	return n
}()
