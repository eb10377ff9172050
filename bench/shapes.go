// Package bench measures this program's side of every comparison with its peers:
// named model shapes with random weights, random tokens, and results with the keys that the
// peers' scripts print. Each measurement warms up first and reports the median of several rounds.
package bench

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"ringtail/model"
)

// shape is a named model with the batch that its peers are measured with.
type shape struct {
	hidden, layers, heads, kvHeads, mlp, vocab int
	tied                                       bool
	batch, seq                                 int
	gpt2                                       bool // else LLaMA
}

var shapes = map[string]shape{
	"15m":  {hidden: 288, layers: 6, heads: 6, kvHeads: 6, mlp: 768, vocab: 32000, tied: true, batch: 8, seq: 256},
	"125m": {hidden: 768, layers: 12, heads: 12, kvHeads: 12, mlp: 3072, vocab: 50257, tied: true, batch: 16, seq: 1024, gpt2: true},
	"1.1b": {hidden: 2048, layers: 22, heads: 32, kvHeads: 4, mlp: 5632, vocab: 32000, batch: 8, seq: 2048},
	"3b":   {hidden: 3200, layers: 26, heads: 32, kvHeads: 32, mlp: 8640, vocab: 32000, batch: 4, seq: 2048},
	"7b":   {hidden: 4096, layers: 32, heads: 32, kvHeads: 32, mlp: 11008, vocab: 32000, batch: 4, seq: 2048},
	"8b":   {hidden: 4096, layers: 32, heads: 32, kvHeads: 8, mlp: 14336, vocab: 128256, batch: 4, seq: 2048},
	"13b":  {hidden: 5120, layers: 40, heads: 40, kvHeads: 40, mlp: 13824, vocab: 32000, batch: 4, seq: 2048},
}

// Shapes names the model shapes.
func Shapes() []string {
	var out []string
	for name := range shapes {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func findShape(name string) (shape, error) {
	s, ok := shapes[name]
	if !ok {
		return s, fmt.Errorf("no shape %q; there are %s", name, strings.Join(Shapes(), ", "))
	}
	return s, nil
}

// config is the shape as a configuration.
func (s shape) config(context int) (*model.Config, error) {
	if s.gpt2 {
		text, err := json.Marshal(map[string]any{
			"architectures": []string{"GPT2LMHeadModel"}, "model_type": "gpt2", "vocab_size": s.vocab, "n_embd": s.hidden, "n_layer": s.layers,
			"n_head": s.heads, "n_inner": s.mlp, "n_positions": context, "n_ctx": context, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5})
		if err != nil {
			return nil, err
		}
		return model.ParseConfig(text)
	}
	text, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": s.vocab, "hidden_size": s.hidden,
		"num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kvHeads,
		"intermediate_size": s.mlp, "max_position_embeddings": context, "tie_word_embeddings": s.tied})
	if err != nil {
		return nil, err
	}
	return model.ParseConfig(text)
}
