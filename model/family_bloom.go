package model

// BLOOM (Le Scao et al. 2022): ALiBi, and a norm after the embeddings.
var bloom = family{class: "Bloom", modelType: "bloom", tied: true, perHead: true,
	keys: map[string]string{"hidden_size": "n_embed", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "rms_norm_eps": "layer_norm_epsilon",
		"max_position_embeddings": "seq_length"},
	read: func(c *Config, f *fields) {
		f.readPlain(c, 4*c.Hidden, geluTanh)
		c.Positions = ALiBi
		c.EmbedNorm = true
		c.ResidualFromNorm = f.flag("apply_residual_connection_post_layernorm", false)
	},
	names: names{
		prefix: "transformer.",
		embed:  "transformer.word_embeddings", embedNorm: "transformer.word_embeddings_layernorm", norm: "transformer.ln_f",
		head: "lm_head", score: "score",
		attnNorm: "transformer.h.%d.input_layernorm", mlpNorm: "transformer.h.%d.post_attention_layernorm",
		qkv: "transformer.h.%d.self_attention.query_key_value", o: "transformer.h.%d.self_attention.dense",
		up: "transformer.h.%d.mlp.dense_h_to_4h", down: "transformer.h.%d.mlp.dense_4h_to_h",
	}}
