package model

// OPT (Zhang et al. 2022). The 350M model normalises after the residual sum, and
// its embeddings are narrower than its layers.
var opt = family{class: "OPT", modelType: "opt", tied: true,
	keys: map[string]string{"intermediate_size": "ffn_dim", "initializer_range": "init_std", "hidden_act": "activation_function"},
	read: func(c *Config, f *fields) {
		f.readPlain(c, 4*c.Hidden, "relu")
		c.Positions, c.PositionOffset = Learned, 2
		bias := f.flag("enable_bias", true)
		c.QKVBias, c.OutBias, c.MLPBias = bias, bias, bias
		f.must("layer_norm_elementwise_affine", true, true)
		f.must("_remove_final_layer_norm", false, false)
		if !f.flag("do_layer_norm_before", true) {
			c.Place = PostNorm
		}
		c.EmbedDim = f.size("word_embed_proj_dim", c.Hidden, maxHidden)
	},
	names: names{
		prefix: "model.",
		embed:  "model.decoder.embed_tokens", position: "model.decoder.embed_positions", projectIn: "model.decoder.project_in",
		projectOut: "model.decoder.project_out", norm: "model.decoder.final_layer_norm", head: "lm_head", score: "score",
		attnNorm: "model.decoder.layers.%d.self_attn_layer_norm", mlpNorm: "model.decoder.layers.%d.final_layer_norm",
		q: "model.decoder.layers.%d.self_attn.q_proj", k: "model.decoder.layers.%d.self_attn.k_proj",
		v: "model.decoder.layers.%d.self_attn.v_proj", o: "model.decoder.layers.%d.self_attn.out_proj",
		up: "model.decoder.layers.%d.fc1", down: "model.decoder.layers.%d.fc2",
	}}
