package model

// GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023): attention and MLP
// side by side, a part of each head rotated.
var gptNeoX = family{class: "GPTNeoX", modelType: "gpt_neox", perHead: true,
	keys: map[string]string{"rms_norm_eps": "layer_norm_eps", "partial_rotary_factor": "rotary_pct", "rope_theta": "rotary_emb_base"},
	read: func(c *Config, f *fields) {
		f.readPlain(c, 4*c.Hidden, "gelu")
		f.readAttentionBias(c, true)
		if f.flag("use_parallel_residual", true) {
			c.Place = ParallelNorm
		}
		c.Rope = readRopePart(f, c, 0.25)
	},
	names: names{
		prefix: "gpt_neox.",
		embed:  "gpt_neox.embed_in", norm: "gpt_neox.final_layer_norm", head: "embed_out", score: "score",
		attnNorm: "gpt_neox.layers.%d.input_layernorm", mlpNorm: "gpt_neox.layers.%d.post_attention_layernorm",
		qkv: "gpt_neox.layers.%d.attention.query_key_value", o: "gpt_neox.layers.%d.attention.dense",
		up: "gpt_neox.layers.%d.mlp.dense_h_to_4h", down: "gpt_neox.layers.%d.mlp.dense_4h_to_h",
	}}
