package model

import (
	"fmt"
	"sort"
)

// family is what sets a family of models apart from the decoder that all share:
// how config.json spells its features and how its tensors are named.
type family struct {
	class string // of the architecture, without its head
	read  func(c *Config, f *fields)
	names names
}

// names are the stored names of tensors; %d is the layer.
type names struct {
	embed, norm, head, score   string
	attnNorm, mlpNorm          string
	q, k, v, o, gate, up, down string // without ".weight" and ".bias"
}

var llamaNames = names{
	embed: "model.embed_tokens.weight", norm: "model.norm.weight", head: "lm_head.weight", score: "score.weight",
	attnNorm: "model.layers.%d.input_layernorm.weight", mlpNorm: "model.layers.%d.post_attention_layernorm.weight",
	q: "model.layers.%d.self_attn.q_proj", k: "model.layers.%d.self_attn.k_proj", v: "model.layers.%d.self_attn.v_proj",
	o: "model.layers.%d.self_attn.o_proj", gate: "model.layers.%d.mlp.gate_proj", up: "model.layers.%d.mlp.up_proj",
	down: "model.layers.%d.mlp.down_proj",
}

// families by lower-case architecture without its head.
var families = map[string]family{
	// LLaMA 1, 2, 3 (Touvron et al. 2023; Grattafiori et al. 2024).
	"llama": {class: "Llama", names: llamaNames, read: func(c *Config, f *fields) {
		c.QKVBias = f.flag("attention_bias", false)
		c.OutBias = c.QKVBias
		c.MLPBias = f.flag("mlp_bias", false)
	}},
	// Mistral 7B (Jiang et al. 2023): LLaMA with a sliding window.
	"mistral": {class: "Mistral", names: llamaNames, read: func(c *Config, f *fields) {
		if v, ok := f.raw["sliding_window"]; ok && v != nil {
			c.Window = f.size("sliding_window", 0, maxPositions)
		}
	}},
}

func familyNames() []string {
	var out []string
	for name := range families {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func layerName(pattern string, layer int) string { return fmt.Sprintf(pattern, layer) }
