package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ringtail/tensor"
)

// Config is a decoder's shape, as config.json of a Hugging Face folder gives it,
// in the terms in which this package builds decoders. Features, not families,
// drive the decoder: the zero value of each is LLaMA's, or none.
type Config struct {
	Architecture string // architectures[0]
	ModelType    string
	Vocab        int
	Hidden       int
	Layers       int
	MaxPositions int
	InitStd      float64
	Dtype        string // of the stored weights: "float32", "bfloat16", "float16"
	BOS, PAD     int    // -1 if absent
	EOS          []int

	// Embeddings.
	EmbedDim       int     // width of token embeddings; where it isn't Hidden, two projections go between (OPT-350M)
	EmbedScale     float64 // factor on embeddings, 0 for none
	EmbedNorm      bool    // a norm after them (BLOOM)
	Positions      Positions
	PositionOffset int  // Learned: rows of the table before that of position 0
	Tied           bool // the output projection is the embedding

	// Norms.
	NormEps    float64
	LayerNorm  bool    // else RMSNorm
	NormBias   bool    // LayerNorm: with bias
	NormOffset float64 // RMSNorm: added to the weights (Gemma: 1)
	Place      NormPlace
	// ResidualFromNorm takes the residual stream from a layer's norms, not from
	// what they normalise (BLOOM's apply_residual_connection_post_layernorm).
	ResidualFromNorm bool

	// Attention.
	Heads        int
	KVHeads      int
	HeadDim      int
	QKVBias      bool
	OutBias      bool // of the output projection
	QKNorm       bool // RMSNorm of each query and key head
	Scale        float64
	ScaleByLayer bool // scores of layer i (from 1) are divided by i too
	Window       int  // sliding attention window, 0 for none
	// Windowed tells which layers have the window; nil: all.
	Windowed []bool
	Rope     Rope
	// WindowedRope is that of windowed layers where they have their own (Gemma 3).
	WindowedRope *Rope
	AttentionCap float32 // soft cap of scores, 0 for none
	LogitCap     float32 // soft cap of logits, 0 for none

	// MLP.
	MLP        int // width of the middle
	Activation tensor.Activation
	Plain      bool // act(up) alone, no gate
	MLPBias    bool
	Experts    Experts

	// Reward is how the raw scores of a reward or value model are normalised.
	Reward Normalization

	raw map[string]any // the file's own fields, written back
	// generation is generation_config.json of the folder, written back.
	generation map[string]any
}

// Positions is how a decoder knows the order of its tokens.
type Positions uint8

// The kinds: rotated queries and keys (Su et al. 2021), a learned table added to the
// embeddings, a bias linear in the distance (Press et al. 2022).
const (
	Rotary Positions = iota
	Learned
	ALiBi
)

// NormPlace is where the norms of a layer stand, x being the residual stream and
// f attention, then the MLP.
type NormPlace uint8

// The places.
const (
	PreNorm      NormPlace = iota // x + f(norm(x))
	PostNorm                      // norm(x + f(x)), no norm at the end
	SandwichNorm                  // x + norm(f(norm(x)))
	ParallelNorm                  // x + attention(norm(x)) + mlp(norm'(x)), both from one x
)

// Experts says that layers have a mixture of experts for an MLP.
type Experts struct {
	Count     int // 0: none
	Used      int // of them for each token
	MLP       int // width of an expert's middle
	Normalize bool
	// Dense lists layers with an ordinary MLP; nil: none.
	Dense []bool
	// LossCoef is the usual weight of the load-balancing loss in training.
	LossCoef float64
}

// windowed tells whether a layer's attention has the window.
func (c *Config) windowed(layer int) bool {
	return c.Window > 0 && (c.Windowed == nil || c.Windowed[layer])
}

// sparse tells whether a layer's MLP is a mixture of experts.
func (c *Config) sparse(layer int) bool {
	return c.Experts.Count > 0 && (c.Experts.Dense == nil || !c.Experts.Dense[layer])
}

// Normalization turns a raw score into (raw − Mean)/Std: the scale on which the
// answers that a reward model was normalised on have mean 0 and deviation 1. It
// stands in config.json as "ringtail": {"reward_mean": m, "reward_std": s}.
type Normalization struct{ Mean, Std float64 }

// Apply normalises a raw score.
func (n Normalization) Apply(raw float64) float64 { return (raw - n.Mean) / n.Std }

// Sizes beyond which config.json is taken to be broken: several times the largest
// published models, and small enough that products of them can't overflow.
const (
	maxVocab     = 1 << 24
	maxHidden    = 1 << 18
	maxLayers    = 1 << 13
	maxHeads     = 1 << 14
	maxMLP       = 1 << 21
	maxPositions = 1 << 28
)

// LoadConfig reads config.json of a model folder.
func LoadConfig(dir string) (*Config, error) {
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Stat(dir); serr != nil {
			return nil, fmt.Errorf("%s: no such model folder; give a folder with config.json and model.safetensors", dir)
		}
		return nil, fmt.Errorf("%s: no config.json: this is not a Hugging Face model folder", dir)
	}
	if err != nil {
		return nil, err
	}
	c, err := ParseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, c.readGeneration(filepath.Join(dir, "generation_config.json"))
}

// readGeneration reads generation_config.json, where there is one: tokens that it
// ends answers with are added to those of config.json (chat models list their
// end-of-turn token there alone).
func (c *Config) readGeneration(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var raw map[string]any
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("%s: not a JSON object: %w", path, err)
	}
	f := &fields{raw: raw}
	for _, id := range f.ids("eos_token_id") {
		if id >= c.Vocab {
			return fmt.Errorf("%s: eos_token_id %d is not below vocab_size %d", path, id, c.Vocab)
		}
		if !slices.Contains(c.EOS, id) {
			c.EOS = append(c.EOS, id)
		}
	}
	if f.err != nil {
		return fmt.Errorf("%s: %w", path, f.err)
	}
	c.generation = raw
	return nil
}

// ParseConfig reads the text of a config.json.
func ParseConfig(text []byte) (*Config, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var raw map[string]any
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	raw = textConfig(raw)
	f := &fields{raw: raw}
	c := &Config{raw: raw}
	archs, _ := raw["architectures"].([]any)
	if len(archs) > 0 {
		c.Architecture, _ = archs[0].(string)
	}
	c.ModelType = f.text("model_type", "")
	if c.Architecture == "" && c.ModelType == "" {
		return nil, fmt.Errorf("neither architectures nor model_type: this is not a transformer's configuration")
	}
	fam, ok := families[c.family()]
	if !ok {
		name := c.Architecture
		if name == "" {
			name = c.ModelType
		}
		return nil, &UnknownArchitectureError{Name: name}
	}
	f.alias, f.usual = fam.keys, fam.defaults
	c.Vocab = f.size("vocab_size", 0, maxVocab)
	c.Hidden = f.size("hidden_size", 0, maxHidden)
	c.EmbedDim = c.Hidden
	c.Layers = f.size("num_hidden_layers", 0, maxLayers)
	c.Heads = f.size("num_attention_heads", 0, maxHeads)
	c.MaxPositions = f.size("max_position_embeddings", 2048, maxPositions)
	c.InitStd = f.number("initializer_range", 0.02)
	c.Tied = f.flag("tie_word_embeddings", fam.tied)
	c.Dtype = canonicalDtype(f.text("dtype", f.text("torch_dtype", "float32")))
	c.BOS = f.id("bos_token_id")
	c.PAD = f.id("pad_token_id")
	c.EOS = f.ids("eos_token_id")
	c.Reward = f.normalization("ringtail")
	c.HeadDim = 0
	if c.Heads > 0 && c.Hidden%c.Heads == 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	fam.read(c, f)
	if c.Scale == 0 {
		c.Scale = 1 / math.Sqrt(float64(c.HeadDim))
	}
	if f.err != nil {
		return nil, f.err
	}
	return c, c.check()
}

// family is the key of the families table: the architecture without its head.
func (c *Config) family() string {
	name := c.Architecture
	if name == "" {
		name = c.ModelType
	}
	for _, head := range []string{"LMHeadModel", "ForCausalLM", "TextForSequenceClassification", "ForSequenceClassification", "TextModel", "Model"} {
		if s, ok := strings.CutSuffix(name, head); ok {
			name = s
			break
		}
	}
	return strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(name, "_text"), "_", ""))
}

// Scalar tells whether the folder holds a scalar (reward or value) head.
func (c *Config) Scalar() bool { return strings.HasSuffix(c.Architecture, "ForSequenceClassification") }

// labels is the number of a classifier's labels, 0 where the file doesn't say.
func (c *Config) labels() int {
	if n, ok := c.raw["num_labels"].(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return int(i)
		}
	}
	if names, ok := c.raw["id2label"].(map[string]any); ok {
		return len(names)
	}
	return 0
}

// UnknownArchitectureError tells that no family of this version fits.
type UnknownArchitectureError struct{ Name string }

func (e *UnknownArchitectureError) Error() string {
	name := e.Name
	if len(name) > 60 {
		name = strings.ToValidUTF8(name[:60], "") + "…"
	}
	return fmt.Sprintf("architectures: %q is not known to this version; known: %s", name, strings.Join(familyNames(), ", "))
}

func (c *Config) check() error {
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.HeadDim*c.Heads > maxHidden:
		return fmt.Errorf("head_dim %d × num_attention_heads %d is absurd (more than %d)", c.HeadDim, c.Heads, maxHidden)
	case c.Positions == Rotary && c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim %d is odd; rotary positions need an even one", c.HeadDim)
	case !(c.Scale > 0) || math.IsInf(c.Scale, 0):
		return fmt.Errorf("attention scores are scaled by %g; that must be a number above 0", c.Scale)
	case c.Layers*c.Experts.Count > maxAllExperts:
		return fmt.Errorf("%d layers of %d experts are absurd (more than %d in all)", c.Layers, c.Experts.Count, maxAllExperts)
	case c.Experts.Used > c.Experts.Count:
		return fmt.Errorf("num_experts_per_tok %d is more than the number of experts, %d", c.Experts.Used, c.Experts.Count)
	case !(c.InitStd >= 0 && c.InitStd < 10):
		return fmt.Errorf("initializer_range %g is not between 0 and 10", c.InitStd)
	}
	for _, id := range append([]int{c.BOS, c.PAD}, c.EOS...) {
		if id >= c.Vocab {
			return fmt.Errorf("token id %d (bos, eos or pad_token_id) is not below vocab_size %d", id, c.Vocab)
		}
	}
	if _, err := storedDtype(c.Dtype); err != nil {
		return err
	}
	return nil
}

// Attention is the shape that the attention operations of a layer take.
func (c *Config) Attention(layer int) tensor.AttentionShape {
	a := tensor.AttentionShape{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, Scale: float32(c.Scale),
		SoftCap: c.AttentionCap, ALiBi: c.Positions == ALiBi}
	if c.ScaleByLayer {
		a.Scale = float32(c.Scale / float64(layer+1))
	}
	if c.windowed(layer) {
		a.Window = c.Window
	}
	return a
}

// canonicalDtype spells a dtype as transformers writes it: some configurations
// have torch.bfloat16 or half.
func canonicalDtype(name string) string {
	switch name = strings.TrimPrefix(name, "torch."); name {
	case "float":
		return "float32"
	case "half":
		return "float16"
	case "double":
		return "float64"
	}
	return name
}

// storedDtype is the safetensors name of a canonical dtype.
func storedDtype(name string) (string, error) {
	switch name {
	case "float32":
		return "F32", nil
	case "bfloat16":
		return "BF16", nil
	case "float16":
		return "F16", nil
	case "float64":
		return "F64", nil
	}
	return "", fmt.Errorf("dtype %q is not one of float32, bfloat16, float16", name)
}

// SetDtype chooses the type in which weights are stored: float32, bfloat16 or float16.
func (c *Config) SetDtype(name string) error {
	name = canonicalDtype(name)
	if _, err := storedDtype(name); err != nil {
		return err
	}
	c.Dtype = name
	return nil
}

// SetTokens records the special tokens of the model's tokenizer; ids below 0 are absent.
func (c *Config) SetTokens(bos, pad int, eos []int) {
	c.BOS, c.PAD, c.EOS = bos, pad, eos
}

// JSON is the text of config.json for this configuration: the fields that it was
// read from, with those that changed.
func (c *Config) JSON() ([]byte, error) {
	out := map[string]any{}
	for k, v := range c.raw {
		out[k] = v
	}
	out["architectures"] = []string{c.Architecture}
	out["vocab_size"] = c.Vocab
	out["dtype"] = c.Dtype
	delete(out, "torch_dtype")
	setID := func(key string, id int) {
		if id >= 0 {
			out[key] = id
		} else {
			out[key] = nil
		}
	}
	setID("bos_token_id", c.BOS)
	setID("pad_token_id", c.PAD)
	switch len(c.EOS) {
	case 0:
		out["eos_token_id"] = nil
	case 1:
		out["eos_token_id"] = c.EOS[0]
	default:
		out["eos_token_id"] = c.EOS
	}
	if c.Reward != (Normalization{Std: 1}) || out["ringtail"] != nil {
		own := map[string]any{}
		if was, ok := out["ringtail"].(map[string]any); ok {
			own = maps.Clone(was)
		}
		own["reward_mean"], own["reward_std"] = c.Reward.Mean, c.Reward.Std
		out["ringtail"] = own
	}
	b, err := json.MarshalIndent(out, "", "  ")
	return append(b, '\n'), err
}

// Clone is a copy that can be changed on its own.
func (c *Config) Clone() *Config {
	d := *c
	d.raw = map[string]any{}
	for k, v := range c.raw {
		d.raw[k] = v
	}
	d.EOS = append([]int(nil), c.EOS...)
	d.generation = maps.Clone(c.generation)
	return &d
}

// textConfig is the configuration of the text model within that of one that sees
// pictures too, for the families whose text model is known alone: Gemma 3's.
func textConfig(raw map[string]any) map[string]any {
	inner, ok := raw["text_config"].(map[string]any)
	archs, _ := raw["architectures"].([]any)
	if !ok || len(archs) == 0 || archs[0] != "Gemma3ForConditionalGeneration" {
		return raw
	}
	out := maps.Clone(inner)
	out["architectures"], out["model_type"] = []any{"Gemma3ForCausalLM"}, gemma3.modelType
	for _, key := range []string{"bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype", "tie_word_embeddings"} {
		if v := raw[key]; v != nil && out[key] == nil {
			out[key] = v
		}
	}
	return out
}

// fields reads typed fields and remembers the first that is wrong. Fields are
// asked for by LLaMA's names; alias has those of families that spell them otherwise,
// usual what they mean where config.json leaves them out.
type fields struct {
	raw   map[string]any
	alias map[string]string
	usual map[string]any
	err   error
}

// get is a field's value, and the name that the file has for it.
func (f *fields) get(key string) (v any, name string) {
	if other, ok := f.alias[key]; ok {
		if v, ok := f.raw[other]; ok {
			return v, other
		}
		if _, ok := f.raw[key]; !ok {
			return f.usual[key], other
		}
	}
	if v, ok := f.raw[key]; ok {
		return v, key
	}
	return f.usual[key], key
}

// has tells whether the file says anything of a field.
func (f *fields) has(key string) bool {
	v, _ := f.get(key)
	return v != nil
}

func (f *fields) fail(key string, v any, want string) {
	if f.err == nil {
		s := fmt.Sprintf("%v", v)
		if len(s) > 60 {
			s = s[:60] + "…"
		}
		f.err = fmt.Errorf("%s is %s, expected %s", key, s, want)
	}
}

// size reads a positive whole number of at most most; def 0 makes it required.
func (f *fields) size(key string, def, most int) int {
	v, key := f.get(key)
	if v == nil {
		if def == 0 {
			if f.err == nil {
				f.err = fmt.Errorf("%s is missing", key)
			}
			return 1
		}
		return def
	}
	n, ok := v.(json.Number)
	if ok {
		if i, err := n.Int64(); err == nil && i >= 1 && i <= int64(most) {
			return int(i)
		}
	}
	f.fail(key, v, fmt.Sprintf("a whole number from 1 to %d", most))
	return 1
}

func (f *fields) number(key string, def float64) float64 {
	v, key := f.get(key)
	if v == nil {
		return def
	}
	if n, ok := v.(json.Number); ok {
		if x, err := n.Float64(); err == nil {
			return x
		}
	}
	f.fail(key, v, "a number")
	return def
}

// epsilon reads what norms add to a variance.
func (f *fields) epsilon(key string, def float64) float64 {
	eps := f.number(key, def)
	if !(eps > 0 && eps < 1) {
		_, name := f.get(key)
		f.fail(name, eps, "a number between 0 and 1")
		return def
	}
	return eps
}

func (f *fields) numbers(key string) []float64 {
	v, key := f.get(key)
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		f.fail(key, v, "a list of numbers")
		return nil
	}
	out := make([]float64, len(list))
	for i, e := range list {
		n, ok := e.(json.Number)
		if !ok {
			f.fail(key, v, "a list of numbers")
			return nil
		}
		out[i], _ = n.Float64()
	}
	return out
}

func (f *fields) text(key, def string) string {
	v, key := f.get(key)
	if v == nil {
		return def
	}
	s, ok := v.(string)
	if !ok {
		f.fail(key, v, "a string")
		return def
	}
	return s
}

func (f *fields) flag(key string, def bool) bool {
	v, key := f.get(key)
	if v == nil {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		f.fail(key, v, "true or false")
		return def
	}
	return b
}

func (f *fields) ids(key string) []int {
	v, key := f.get(key)
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []int
	for _, e := range list {
		n, ok := e.(json.Number)
		i, err := n.Int64()
		if !ok || err != nil || i < -1 || i >= maxVocab {
			f.fail(key, v, "a token id or a list of them")
			return nil
		}
		if i >= 0 { // some configurations write -1 for "none"
			out = append(out, int(i))
		}
	}
	return out
}

func (f *fields) id(key string) int {
	ids := f.ids(key)
	if len(ids) == 0 {
		return -1
	}
	return ids[0]
}

// normalization reads Ringtail's own object of a reward model; absent, scores stay as they are.
func (f *fields) normalization(key string) Normalization {
	n := Normalization{Std: 1}
	v, key := f.get(key)
	if v == nil {
		return n
	}
	own, ok := v.(map[string]any)
	if !ok {
		f.fail(key, v, "an object")
		return n
	}
	inner := &fields{raw: own}
	n.Mean, n.Std = inner.number("reward_mean", 0), inner.number("reward_std", 1)
	if inner.err != nil && f.err == nil {
		f.err = fmt.Errorf("%s.%w", key, inner.err)
	}
	if !(n.Std > 0) || math.IsInf(n.Std, 0) || math.IsNaN(n.Mean) || math.IsInf(n.Mean, 0) {
		f.fail(key+".reward_std", n.Std, "above 0, beside a finite reward_mean")
		return Normalization{Std: 1}
	}
	return n
}

func (f *fields) activation(key, def string) tensor.Activation {
	switch name := f.text(key, def); name {
	case "silu", "swish":
		return tensor.SiLU
	case "gelu":
		return tensor.GELU
	case "gelu_new", "gelu_pytorch_tanh", "gelu_fast":
		return tensor.GELUTanh
	case "relu":
		return tensor.ReLU
	default:
		f.fail(key, name, "silu, gelu, gelu_new, gelu_pytorch_tanh or relu")
		return 0
	}
}
