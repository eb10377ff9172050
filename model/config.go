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
	"strings"

	"ringtail/tensor"
)

// Config is a decoder's shape, as config.json of a Hugging Face folder gives it,
// in the terms in which this package builds decoders. Features, not families,
// drive the decoder.
type Config struct {
	Architecture string // architectures[0]
	ModelType    string
	Vocab        int
	Hidden       int
	Layers       int
	Heads        int
	KVHeads      int
	HeadDim      int
	MLP          int // width of the MLP's middle
	Activation   tensor.Activation
	NormEps      float64
	MaxPositions int
	Window       int // sliding attention window, 0 for none
	QKVBias      bool
	OutBias      bool // bias of the attention's output projection
	MLPBias      bool
	Tied         bool // the output projection is the embedding
	InitStd      float64
	Rope         Rope
	Dtype        string // of the stored weights: "float32", "bfloat16", "float16"
	BOS, PAD     int    // -1 if absent
	EOS          []int
	// Reward is how the raw scores of a reward or value model are normalised.
	Reward Normalization

	raw map[string]any // the file's own fields, written back
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
	return c, nil
}

// ParseConfig reads the text of a config.json.
func ParseConfig(text []byte) (*Config, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var raw map[string]any
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
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
	c.Vocab = f.size("vocab_size", 0, maxVocab)
	c.Hidden = f.size("hidden_size", 0, maxHidden)
	c.Layers = f.size("num_hidden_layers", 0, maxLayers)
	c.Heads = f.size("num_attention_heads", 0, maxHeads)
	c.KVHeads = f.size("num_key_value_heads", c.Heads, maxHeads)
	c.MLP = f.size("intermediate_size", 0, maxMLP)
	c.MaxPositions = f.size("max_position_embeddings", 2048, maxPositions)
	headDim := 0
	if c.Heads > 0 && c.Hidden%c.Heads == 0 {
		headDim = c.Hidden / c.Heads
	}
	c.HeadDim = f.size("head_dim", headDim, maxHidden)
	c.NormEps = f.number("rms_norm_eps", 1e-6)
	c.InitStd = f.number("initializer_range", 0.02)
	c.Tied = f.flag("tie_word_embeddings", false)
	c.Dtype = canonicalDtype(f.text("dtype", f.text("torch_dtype", "float32")))
	c.BOS = f.id("bos_token_id")
	c.PAD = f.id("pad_token_id")
	c.EOS = f.ids("eos_token_id")
	c.Activation = f.activation("hidden_act", "silu")
	c.Reward = f.normalization("ringtail")
	fam.read(c, f)
	c.Rope = readRope(f, c)
	if f.err != nil {
		return nil, f.err
	}
	return c, c.check()
}

// family is the key of the families table: the architecture without its head.
func (c *Config) family() string {
	if c.Architecture == "" {
		return c.ModelType
	}
	for _, head := range []string{"ForCausalLM", "ForSequenceClassification", "Model"} {
		if s, ok := strings.CutSuffix(c.Architecture, head); ok {
			return strings.ToLower(s)
		}
	}
	return c.Architecture
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
	return fmt.Sprintf("architectures: %q is not known to this version; known: %s", e.Name, strings.Join(familyNames(), ", "))
}

func (c *Config) check() error {
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.HeadDim*c.Heads > maxHidden:
		return fmt.Errorf("head_dim %d × num_attention_heads %d is absurd (more than %d)", c.HeadDim, c.Heads, maxHidden)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim %d is odd; rotary positions need an even one", c.HeadDim)
	case !(c.NormEps > 0 && c.NormEps < 1):
		return fmt.Errorf("rms_norm_eps %g is not between 0 and 1", c.NormEps)
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

// Attention is the shape that the attention operations take.
func (c *Config) Attention() tensor.AttentionShape {
	return tensor.AttentionShape{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim,
		Scale: float32(1 / math.Sqrt(float64(c.HeadDim))), Window: c.Window}
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
	return &d
}

// fields reads typed fields and remembers the first that is wrong.
type fields struct {
	raw map[string]any
	err error
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
	v, ok := f.raw[key]
	if !ok || v == nil {
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
	v, ok := f.raw[key]
	if !ok || v == nil {
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

func (f *fields) numbers(key string) []float64 {
	v, ok := f.raw[key]
	if !ok || v == nil {
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
	v, ok := f.raw[key]
	if !ok || v == nil {
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
	v, ok := f.raw[key]
	if !ok || v == nil {
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
	v, ok := f.raw[key]
	if !ok || v == nil {
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
	v, ok := f.raw[key]
	if !ok || v == nil {
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
