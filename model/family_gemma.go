package model

import (
	"encoding/json"
	"math"

	"ringtail/tensor"
)

// Gemma (Mesnard et al. 2024): LLaMA with large heads, scaled embeddings, and norms
// whose stored weights are the distance from 1.
var gemma = family{class: "Gemma", modelType: "gemma", names: llamaNames, tied: true,
	keys: map[string]string{"hidden_act": "hidden_activation"}, read: func(c *Config, f *fields) {
		f.readGemma(c)
		f.readAttentionBias(c, false)
		c.Rope = readRope(f, c)
	}}

// Gemma 2 (Riviere et al. 2024): norms before and after attention and MLP, soft caps,
// and a window in every other layer.
var gemma2 = family{class: "Gemma2", modelType: "gemma2", names: gemma2Names, tied: true,
	keys: map[string]string{"hidden_act": "hidden_activation"}, read: func(c *Config, f *fields) {
		f.readGemma(c)
		f.readGemma2(c, 50, 30)
		f.readLayerTypes(c, func(layer int) bool { return layer%2 == 0 })
		c.Rope = readRope(f, c)
	}}

// Gemma 3, text (Kamath et al. 2025): norms of query and key heads in place of the caps; layers
// with the window have rotary positions of their own.
var gemma3 = family{class: "Gemma3", seq: "Gemma3TextForSequenceClassification", modelType: "gemma3_text", names: gemma2Names, tied: true,
	keys: map[string]string{"hidden_act": "hidden_activation"},
	defaults: map[string]any{"vocab_size": json.Number("262208"), "hidden_size": json.Number("2304"), "intermediate_size": json.Number("9216"),
		"num_hidden_layers": json.Number("26"), "num_attention_heads": json.Number("8"), "num_key_value_heads": json.Number("4"),
		"max_position_embeddings": json.Number("131072")}, read: func(c *Config, f *fields) {
		f.readGemma(c)
		f.readGemma2(c, 0, 0)
		c.AttentionCap = 0 // transformers and llama.cpp take no notice of attn_logit_softcapping here
		f.must("use_bidirectional_attention", false, false)
		c.QKNorm = true
		pattern := f.size("sliding_window_pattern", f.size("_sliding_window_pattern", 6, maxLayers), maxLayers)
		f.readLayerTypes(c, func(layer int) bool { return (layer+1)%pattern != 0 })
		full, sliding := f.gemma3Ropes()
		c.Rope = readRope(full, c)
		local := readRope(sliding, c)
		c.WindowedRope = &local
		for _, r := range []*fields{full, sliding} {
			if r.err != nil && f.err == nil {
				f.err = r.err
			}
		}
	}}

var gemma2Names = func() names {
	n := llamaNames
	n.attnPost = n.mlpNorm
	n.mlpNorm = "model.layers.%d.pre_feedforward_layernorm"
	n.mlpPost = "model.layers.%d.post_feedforward_layernorm"
	return n
}()

func (f *fields) readGemma(c *Config) {
	c.HeadDim = 256
	f.readHeads(c, c.HeadDim)
	c.MLP = f.size("intermediate_size", 0, maxMLP)
	c.NormEps = f.epsilon("rms_norm_eps", 1e-6)
	c.Activation = f.activation("hidden_act", geluTanh)
	if c.Activation == tensor.GELU { // of Gemma's first files, which meant the approximation
		c.Activation = tensor.GELUTanh
	}
	c.NormOffset = 1
	c.EmbedScale = math.Sqrt(float64(c.Hidden))
}

// readGemma2 reads what Gemma 2 and 3 share, with the caps that the family has by default.
func (f *fields) readGemma2(c *Config, attention, logits float64) {
	c.Place = SandwichNorm
	f.readAttentionBias(c, false)
	c.Scale = 1 / math.Sqrt(f.number("query_pre_attn_scalar", 256))
	if _, given := f.raw["attn_logit_softcapping"]; given {
		attention = 0
	}
	if _, given := f.raw["final_logit_softcapping"]; given {
		logits = 0
	}
	c.AttentionCap = float32(f.number("attn_logit_softcapping", attention))
	c.LogitCap = float32(f.number("final_logit_softcapping", logits))
	c.Window = f.size("sliding_window", 4096, maxPositions)
}

// gemma3Ropes are the fields of rotary positions of layers without and with the
// window: rope_parameters by kind of layer or, in older files, rope_theta with
// rope_scaling beside rope_local_base_freq.
func (f *fields) gemma3Ropes() (full, sliding *fields) {
	part := func(rope any, theta json.Number) *fields {
		raw := map[string]any{"rope_theta": theta}
		if rope != nil {
			raw["rope_parameters"] = rope
		}
		return &fields{raw: raw}
	}
	if both, ok := f.raw["rope_parameters"].(map[string]any); ok && (both["full_attention"] != nil || both["sliding_attention"] != nil) {
		return part(both["full_attention"], "1000000"), part(both["sliding_attention"], "10000")
	}
	theta := func(key string, def json.Number) json.Number {
		if n, ok := f.raw[key].(json.Number); ok {
			return n
		}
		return def
	}
	rope := f.raw["rope_scaling"]
	if rope == nil {
		rope = f.raw["rope_parameters"]
	}
	return part(rope, theta("rope_theta", "1000000")), part(nil, theta("rope_local_base_freq", "10000"))
}
