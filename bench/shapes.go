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
}

var shapes = map[string]shape{
	"15m":  {288, 6, 6, 6, 768, 32000, true, 8, 256},
	"1.1b": {2048, 22, 32, 4, 5632, 32000, false, 8, 2048},
	"3b":   {3200, 26, 32, 32, 8640, 32000, false, 4, 2048},
	"7b":   {4096, 32, 32, 32, 11008, 32000, false, 4, 2048},
	"8b":   {4096, 32, 32, 8, 14336, 128256, false, 4, 2048},
	"13b":  {5120, 40, 40, 40, 13824, 32000, false, 4, 2048},
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

// config is the shape as a LLaMA's configuration.
func (s shape) config(context int) (*model.Config, error) {
	text, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": s.vocab, "hidden_size": s.hidden,
		"num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kvHeads,
		"intermediate_size": s.mlp, "max_position_embeddings": context, "tie_word_embeddings": s.tied})
	if err != nil {
		return nil, err
	}
	return model.ParseConfig(text)
}
