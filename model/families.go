package model

import (
	"fmt"
	"sort"
	"strings"
)

// family is what sets a family of models apart from the decoder that all share:
// how config.json spells its features and how its tensors are named and laid out.
// A new one is a file family_NAME.go and a line below.
type family struct {
	class     string // of the architecture, without its head
	lm        string // of the causal model, where it isn't class + "ForCausalLM"
	seq       string // of the scalar model, where it isn't class + "ForSequenceClassification"
	modelType string
	keys      map[string]string // LLaMA's name of a field → this family's
	tied      bool              // tie_word_embeddings, where config.json doesn't say
	defaults  map[string]any    // of fields, where config.json leaves them out: transformers'
	read      func(c *Config, f *fields)
	names     names
	// conv1D: matrices are stored [in, out] (GPT-2).
	conv1D bool
	// perHead: the rows of qkv are stored head by head, q, k and v of each (BLOOM, GPT-NeoX).
	perHead bool
	// residualInit: projections into the residual stream begin smaller by √(2·layers) (Radford et al. 2019).
	residualInit bool
}

// names are the stored names of tensors, without ".weight" and ".bias"; the first
// %d is the layer, the second the expert. prefix is what folders of bare decoders leave out.
type names struct {
	prefix                           string
	embed, position, embedNorm       string
	projectIn, projectOut            string
	norm, head, score                string
	attnNorm, mlpNorm                string
	attnPost, mlpPost                string // SandwichNorm: after attention and MLP
	q, k, v                          string // or, where they are stored as one:
	qkv                              string
	qNorm, kNorm                     string
	o                                string
	gate, up                         string // or, where they are stored as one:
	gateUp                           string
	down                             string
	router                           string
	expertGate, expertUp, expertDown string
}

// spellings are the names that a tensor may have in a folder: its own; that without
// the decoder's prefix, in folders of bare decoders; those beside a vision tower.
func (n *names) spellings(name string) []string {
	short := strings.TrimPrefix(name, n.prefix)
	return []string{name, short, "language_model." + name, "model.language_model." + short}
}

// llamaNames are the names that most families share.
var llamaNames = names{
	prefix: "model.",
	embed:  "model.embed_tokens", norm: "model.norm", head: "lm_head", score: "score",
	attnNorm: "model.layers.%d.input_layernorm", mlpNorm: "model.layers.%d.post_attention_layernorm",
	q: "model.layers.%d.self_attn.q_proj", k: "model.layers.%d.self_attn.k_proj", v: "model.layers.%d.self_attn.v_proj",
	qNorm: "model.layers.%d.self_attn.q_norm", kNorm: "model.layers.%d.self_attn.k_norm",
	o: "model.layers.%d.self_attn.o_proj", gate: "model.layers.%d.mlp.gate_proj", up: "model.layers.%d.mlp.up_proj",
	down: "model.layers.%d.mlp.down_proj",
}

// families by family().
var families = map[string]*family{
	"llama":    &llama,
	"mistral":  &mistral,
	"mixtral":  &mixtral,
	"qwen2":    &qwen2,
	"qwen3":    &qwen3,
	"qwen3moe": &qwen3MoE,
	"gemma":    &gemma,
	"gemma2":   &gemma2,
	"gemma3":   &gemma3,
	"phi3":     &phi3,
	"gpt2":     &gpt2,
	"gptneox":  &gptNeoX,
	"opt":      &opt,
	"bloom":    &bloom,
}

func familyNames() []string {
	var out []string
	for name := range families {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}

func (c *Config) fam() *family { return families[c.family()] }

// architecture is the class that transformers gives the family with a head.
func (f *family) architecture(head Head) string {
	switch {
	case head == ScalarHead && f.seq != "":
		return f.seq
	case head == ScalarHead:
		return f.class + "ForSequenceClassification"
	case f.lm != "":
		return f.lm
	}
	return f.class + "ForCausalLM"
}

func layerName(pattern string, layer int) string { return fmt.Sprintf(pattern, layer) }

func expertName(pattern string, layer, expert int) string { return fmt.Sprintf(pattern, layer, expert) }

// Fields that several families share.

// readHeads reads grouped-query heads of a size of their own.
func (f *fields) readHeads(c *Config, headDim int) {
	c.KVHeads = f.size("num_key_value_heads", c.Heads, maxHeads)
	c.HeadDim = f.size("head_dim", headDim, maxHidden)
}

// readGated reads an RMSNorm decoder with a gated MLP.
func (f *fields) readGated(c *Config, eps float64) {
	f.readHeads(c, c.HeadDim)
	c.MLP = f.size("intermediate_size", 0, maxMLP)
	c.NormEps = f.epsilon("rms_norm_eps", eps)
	c.Activation = f.activation("hidden_act", "silu")
}

// readPlain reads a LayerNorm decoder with biases, a plain MLP and as many keys as queries.
func (f *fields) readPlain(c *Config, mlp int, act string) {
	c.KVHeads = c.Heads
	if c.HeadDim == 0 && f.err == nil {
		f.err = fmt.Errorf("hidden_size %d is not a multiple of the number of heads, %d", c.Hidden, c.Heads)
	}
	c.MLP = f.size("intermediate_size", mlp, maxMLP)
	c.NormEps = f.epsilon("rms_norm_eps", 1e-5)
	c.LayerNorm, c.NormBias = true, true
	c.QKVBias, c.OutBias, c.MLPBias = true, true, true
	c.Plain = true
	c.Activation = f.activation("hidden_act", act)
}

// readAttentionBias reads whether attention's four matrices have biases.
func (f *fields) readAttentionBias(c *Config, def bool) {
	c.QKVBias = f.flag("attention_bias", def)
	c.OutBias = c.QKVBias
}

// readWindow reads sliding_window, null for none.
func (f *fields) readWindow(c *Config) {
	if f.has("sliding_window") {
		c.Window = f.size("sliding_window", 0, maxPositions)
	}
}

// readLayerTypes reads which layers have the window: layer_types, or else the rule.
func (f *fields) readLayerTypes(c *Config, rule func(layer int) bool) {
	c.Windowed = make([]bool, c.Layers)
	for i := range c.Windowed {
		c.Windowed[i] = rule(i)
	}
	v, key := f.get("layer_types")
	if v == nil {
		return
	}
	list, ok := v.([]any)
	if !ok || len(list) != c.Layers {
		f.fail(key, v, fmt.Sprintf("a list of %d, one a layer", c.Layers))
		return
	}
	for i, e := range list {
		switch e {
		case "sliding_attention":
			c.Windowed[i] = true
		case "full_attention":
			c.Windowed[i] = false
		default:
			f.fail(fmt.Sprintf("%s[%d]", key, i), e, "sliding_attention or full_attention")
		}
	}
}

// must refuses a feature that isn't built, told by a flag that is set otherwise.
func (f *fields) must(key string, want, def bool) {
	if got := f.flag(key, def); got != want {
		f.fail(key, got, fmt.Sprintf("%v: the other isn't supported", want))
	}
}

// readExperts reads a mixture of experts.
func (f *fields) readExperts(c *Config, countKeys []string, used int) {
	e := &c.Experts
	for _, key := range countKeys {
		if f.has(key) {
			e.Count = f.size(key, 0, maxExperts)
			break
		}
	}
	if e.Count == 0 && f.err == nil {
		f.err = fmt.Errorf("%s is missing", countKeys[0])
	}
	e.Used = f.size("num_experts_per_tok", used, maxExperts)
	e.LossCoef = f.number("router_aux_loss_coef", 0.001)
}

// maxExperts of a layer, and maxAllExperts of a model: beyond them config.json is
// taken to be broken.
const (
	maxExperts    = 1 << 12
	maxAllExperts = 1 << 18
)

// geluTanh is what several families call by names of their own.
const geluTanh = "gelu_pytorch_tanh"
