package model

// Phi-3 and Phi-4 (Abdin et al. 2024): LLaMA whose q, k and v, and gate and up, are
// stored as one matrix each; long contexts by LongRoPE.
var phi3 = family{class: "Phi3", modelType: "phi3", names: phi3Names, read: func(c *Config, f *fields) {
	f.readGated(c, 1e-5)
	c.QKVBias = f.flag("attention_bias", false)
	f.readWindow(c)
	c.Rope = readRope(f, c)
}}

var phi3Names = func() names {
	n := llamaNames
	n.q, n.k, n.v, n.qkv = "", "", "", "model.layers.%d.self_attn.qkv_proj"
	n.gate, n.up, n.gateUp = "", "", "model.layers.%d.mlp.gate_up_proj"
	return n
}()
