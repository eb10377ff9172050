package model

// GPT-2 (Radford et al. 2019).
var gpt2 = family{class: "GPT2", lm: "GPT2LMHeadModel", modelType: "gpt2", tied: true, conv1D: true, residualInit: true,
	keys: map[string]string{"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
		"max_position_embeddings": "n_positions", "intermediate_size": "n_inner", "rms_norm_eps": "layer_norm_epsilon",
		"hidden_act": "activation_function"},
	read: func(c *Config, f *fields) {
		f.readPlain(c, 4*c.Hidden, "gelu_new")
		c.Positions = Learned
		f.must("add_cross_attention", false, false)
		if !f.flag("scale_attn_weights", true) {
			c.Scale = 1
		}
		c.ScaleByLayer = f.flag("scale_attn_by_inverse_layer_idx", false)
	},
	names: names{
		prefix: "transformer.",
		embed:  "transformer.wte", position: "transformer.wpe", norm: "transformer.ln_f", head: "lm_head", score: "score",
		attnNorm: "transformer.h.%d.ln_1", mlpNorm: "transformer.h.%d.ln_2",
		qkv: "transformer.h.%d.attn.c_attn", o: "transformer.h.%d.attn.c_proj",
		up: "transformer.h.%d.mlp.c_fc", down: "transformer.h.%d.mlp.c_proj",
	}}
