package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"

	"ringtail/gguf"
)

// ggufHFKey is Ringtail's own key: the transformers class of the model, for
// architectures that several share (llama: Llama, Mistral). Readers that don't know
// it lose nothing but the name.
const ggufHFKey = "ringtail.architecture"

// ggufConfig makes the config.json that transformers would have for a GGUF file, and
// reads it as any other.
func ggufConfig(file *gguf.File) (*Config, error) {
	m := file.Metadata()
	arch, ok, err := m.Text("general.architecture")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("metadata general.architecture is missing: this is no model")
	}
	r := &ggufReader{file: file, m: m, arch: arch, out: map[string]any{}}
	fam, err := r.family()
	if err != nil {
		return nil, err
	}
	r.fill(fam)
	if r.err != nil {
		return nil, r.err
	}
	text, err := json.Marshal(pythonFloats(r.out))
	if err != nil {
		return nil, err // a number that is not finite
	}
	c, err := ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("the metadata of %s give a model with %w", arch, err)
	}
	return c, nil
}

// pythonFloats writes numbers with a fraction, or an exponent, as Python does even where
// they are whole: transformers refuses 30 where it wants 30.0.
func pythonFloats(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, x := range v {
			out[key] = pythonFloats(x)
		}
		return out
	case []float64:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = pythonFloats(x)
		}
		return out
	case float64:
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(s, ".eIN") {
			s += ".0"
		}
		return json.Number(s)
	}
	return v
}

// ggufReader turns metadata into fields of config.json and remembers the first error.
type ggufReader struct {
	file *gguf.File
	m    *gguf.Metadata
	arch string
	out  map[string]any
	err  error
}

func (r *ggufReader) fail(err error) {
	if r.err == nil && err != nil {
		r.err = err
	}
}

// key puts the architecture before a key.
func (r *ggufReader) key(name string) string { return r.arch + "." + name }

// whole reads a whole number, or an array of equal ones, as layers have their own.
func (r *ggufReader) whole(name string) (int64, bool) {
	key := r.key(name)
	if v, ok := r.m.Get(key); ok {
		if _, is := v.(string); !is {
			if list, _, err := r.m.Ints(key); err == nil {
				if len(list) == 0 || slices.Min(list) != slices.Max(list) {
					r.fail(fmt.Errorf("metadata %s differs from layer to layer, which isn't supported", key))
					return 0, false
				}
				return list[0], true
			}
		}
	}
	n, ok, err := r.m.Int(key)
	r.fail(err)
	return n, ok
}

// number reads a number. A float32 stands for the shortest decimal that gives it:
// 1e-05, not 9.99999974e-06.
func (r *ggufReader) number(name string) (float64, bool) {
	x, ok, err := r.m.Float(r.key(name))
	r.fail(err)
	if v, _ := r.m.Get(r.key(name)); ok && err == nil {
		if _, single := v.(float32); single {
			x = decimal(x)
		}
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		r.fail(fmt.Errorf("metadata %s is %g, expected a finite number", r.key(name), x))
		return 0, false
	}
	return x, ok
}

// decimal is the float64 nearest to the shortest decimal of a float32.
func decimal(x float64) float64 {
	y, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', -1, 32), 64)
	return y
}

// size copies a whole number that must be there.
func (r *ggufReader) size(field, name string) int64 {
	n, ok := r.whole(name)
	if !ok {
		r.fail(fmt.Errorf("metadata %s is missing", r.key(name)))
	}
	r.out[field] = n
	return n
}

// optional copies a whole number where it is there.
func (r *ggufReader) optional(field, name string) {
	if n, ok := r.whole(name); ok {
		r.out[field] = n
	}
}

// float copies a number where it is there.
func (r *ggufReader) float(field, name string) {
	if x, ok := r.number(name); ok {
		r.out[field] = x
	}
}

func (r *ggufReader) has(tensor string) bool { _, ok := r.file.Tensor(tensor); return ok }

// rows is the number of a matrix's rows.
func (r *ggufReader) rows(tensor string) int {
	t, ok := r.file.Tensor(tensor)
	if !ok || len(t.Shape) != 2 {
		r.fail(fmt.Errorf("no matrix %s: this is no whole model", tensor))
		return 0
	}
	return t.Shape[0]
}

// values reads a whole vector.
func (r *ggufReader) values(tensor string) []float64 {
	t, ok := r.file.Tensor(tensor)
	if !ok {
		return nil
	}
	if t.Len() > maxHidden {
		r.fail(fmt.Errorf("tensor %s has %d elements, expected half a head's", tensor, t.Len()))
		return nil
	}
	v := make([]float32, t.Len())
	r.fail(t.Read(v, 0))
	out := make([]float64, len(v))
	for i, x := range v {
		if out[i] = decimal(float64(x)); math.IsNaN(out[i]) || math.IsInf(out[i], 0) {
			r.fail(fmt.Errorf("tensor %s: element %d is %g, expected a finite number", tensor, i, x))
		}
	}
	return out
}

// family chooses among the families that share an architecture.
func (r *ggufReader) family() (string, error) {
	if name, ok, err := r.m.Text(ggufHFKey); err != nil {
		return "", err
	} else if ok {
		fam := (&Config{Architecture: name}).family()
		if f := families[fam]; f != nil && ggufArchitectures[fam] == r.arch && name == f.architecture(CausalLM) {
			return fam, nil
		}
		return "", fmt.Errorf("metadata %s is %.60q, which is no class of architecture %s", ggufHFKey, name, r.arch)
	}
	if r.arch == "llama" {
		if n, ok := r.whole("expert_count"); ok && n > 0 {
			return "mixtral", r.err
		}
		if r.m.Has(r.key("attention.sliding_window")) {
			return "mistral", nil
		}
		return "llama", nil
	}
	var known []string
	for fam, arch := range ggufArchitectures {
		if arch == r.arch {
			return fam, nil
		}
		known = append(known, arch)
	}
	sort.Strings(known)
	return "", fmt.Errorf("metadata general.architecture is %.60q, which is not known to this version; known: %s", r.arch, strings.Join(slices.Compact(known), ", "))
}

// fill writes the fields of a family.
func (r *ggufReader) fill(fam string) {
	f := families[fam]
	r.out["architectures"] = []string{f.architecture(CausalLM)}
	r.out["model_type"] = f.modelType
	r.out["vocab_size"] = r.rows("token_embd.weight")
	r.out["tie_word_embeddings"] = !r.has("output.weight")
	r.out["dtype"] = r.dtype()
	r.tokens()
	switch fam {
	case "gpt2":
		r.gpt2()
	case "bloom":
		r.size("hidden_size", "embedding_length")
		r.size("n_layer", "block_count")
		r.size("n_head", "attention.head_count")
		r.float("layer_norm_epsilon", "attention.layer_norm_epsilon")
		r.optional("seq_length", "context_length")
	case "gptneox":
		r.gptNeoX()
	default:
		r.gated(fam)
	}
}

// dtype is the type that a folder of these weights would have: F16 or BF16 where
// the matrices have it, else float32.
func (r *ggufReader) dtype() string {
	count := map[gguf.Type]int{}
	for _, name := range r.file.Names() {
		if t, _ := r.file.Tensor(name); len(t.Shape) > 1 && t.Type != gguf.F32 {
			count[t.Type]++
		}
	}
	switch {
	case len(count) == 1 && count[gguf.F16] > 0:
		return "float16"
	case len(count) == 1 && count[gguf.BF16] > 0:
		return "bfloat16"
	}
	return "float32"
}

// tokens copies the ids of special tokens.
func (r *ggufReader) tokens() {
	id := func(name string) (int64, bool) {
		n, ok, err := r.m.Int("tokenizer.ggml." + name)
		r.fail(err)
		vocab, _ := r.out["vocab_size"].(int)
		return n, ok && n >= 0 && n < int64(vocab) // some files have 2^32-1 for none
	}
	if n, ok := id("bos_token_id"); ok {
		r.out["bos_token_id"] = n
	}
	if n, ok := id("padding_token_id"); ok {
		r.out["pad_token_id"] = n
	}
	var ends []int64
	for _, name := range []string{"eos_token_id", "eot_token_id", "eom_token_id"} {
		if n, ok := id(name); ok && !slices.Contains(ends, n) {
			ends = append(ends, n)
		}
	}
	switch len(ends) {
	case 0:
	case 1:
		r.out["eos_token_id"] = ends[0]
	default:
		r.out["eos_token_id"] = ends
	}
}

func (r *ggufReader) gpt2() {
	hidden := r.size("n_embd", "embedding_length")
	r.size("n_layer", "block_count")
	r.size("n_head", "attention.head_count")
	r.out["n_positions"] = r.rows("position_embd.weight")
	if n, ok := r.whole("feed_forward_length"); ok && n != 4*hidden {
		r.out["n_inner"] = n
	}
	r.float("layer_norm_epsilon", "attention.layer_norm_epsilon")
	r.out["activation_function"] = "gelu_new"
}

func (r *ggufReader) gptNeoX() {
	hidden := r.size("hidden_size", "embedding_length")
	r.size("num_hidden_layers", "block_count")
	heads := r.size("num_attention_heads", "attention.head_count")
	r.size("intermediate_size", "feed_forward_length")
	r.optional("max_position_embeddings", "context_length")
	r.float("layer_norm_eps", "attention.layer_norm_epsilon")
	parallel, ok, err := r.m.Bool(r.key("use_parallel_residual"))
	r.fail(err)
	r.out["use_parallel_residual"] = parallel || !ok
	r.out["hidden_act"] = "gelu"
	part, rotated := 0.25, int64(0)
	if heads > 0 && hidden >= heads {
		dim := hidden / heads
		rotated = dim / 4
		if n, ok := r.whole("rope.dimension_count"); ok {
			rotated, part = n, float64(n)/float64(dim)
		}
	}
	theta, ok := r.number("rope.freq_base")
	if !ok {
		theta = 10000
	}
	r.out["rotary_pct"], r.out["rotary_emb_base"] = part, theta
	if scaling := r.scaling(theta, rotated); scaling != nil {
		r.out["rope_scaling"] = scaling
	}
}

// gated fills the fields of decoders like LLaMA.
func (r *ggufReader) gated(fam string) {
	hidden := r.size("hidden_size", "embedding_length")
	layers := r.size("num_hidden_layers", "block_count")
	heads := r.size("num_attention_heads", "attention.head_count")
	r.out["num_key_value_heads"] = heads
	r.optional("num_key_value_heads", "attention.head_count_kv")
	r.optional("max_position_embeddings", "context_length")
	r.float("rms_norm_eps", "attention.layer_norm_rms_epsilon")
	dim := int64(0)
	if heads > 0 {
		dim = hidden / heads
	}
	rotated, hasRotated := r.whole("rope.dimension_count")
	if n, ok := r.whole("attention.key_length"); ok {
		dim = n
	} else if hasRotated && fam != "phi3" {
		dim = rotated
	}
	r.out["head_dim"] = dim
	theta, ok := r.number("rope.freq_base")
	if !ok {
		theta = 10000
	}
	r.out["rope_theta"] = theta
	switch {
	case !hasRotated:
		rotated = dim
	case rotated < dim && dim > 0:
		r.out["partial_rotary_factor"] = float64(rotated) / float64(dim)
	}
	if scaling := r.scaling(theta, rotated); scaling != nil {
		r.out["rope_scaling"] = scaling
	}
	r.out["hidden_act"] = "silu"
	bias := r.has("blk.0.attn_q.bias") || r.has("blk.0.attn_qkv.bias")
	switch fam {
	case "llama":
		r.size("intermediate_size", "feed_forward_length")
		r.out["attention_bias"], r.out["mlp_bias"] = bias, r.has("blk.0.ffn_up.bias")
	case "mistral":
		r.size("intermediate_size", "feed_forward_length")
		r.out["sliding_window"] = nil
		r.optional("sliding_window", "attention.sliding_window")
	case "mixtral":
		r.size("intermediate_size", "feed_forward_length")
		r.out["sliding_window"] = nil
		r.optional("sliding_window", "attention.sliding_window")
		r.size("num_local_experts", "expert_count")
		r.size("num_experts_per_tok", "expert_used_count")
	case "qwen2":
		r.size("intermediate_size", "feed_forward_length")
		r.out["use_sliding_window"], r.out["sliding_window"] = false, nil
	case "qwen3":
		r.size("intermediate_size", "feed_forward_length")
		r.out["attention_bias"], r.out["use_sliding_window"], r.out["sliding_window"] = bias, false, nil
	case "qwen3moe":
		r.size("moe_intermediate_size", "expert_feed_forward_length")
		r.out["intermediate_size"] = r.out["moe_intermediate_size"]
		r.optional("intermediate_size", "feed_forward_length")
		r.size("num_experts", "expert_count")
		r.size("num_experts_per_tok", "expert_used_count")
		r.out["attention_bias"], r.out["use_sliding_window"], r.out["sliding_window"] = bias, false, nil
		r.out["norm_topk_prob"], r.out["decoder_sparse_step"], r.out["mlp_only_layers"] = true, 1, []int{}
	case "phi3":
		r.size("intermediate_size", "feed_forward_length")
		r.out["attention_bias"], r.out["sliding_window"] = bias, nil
		delete(r.out, "head_dim") // Phi-3 has none
		if n, ok := r.whole("attention.sliding_window"); ok && n > 0 {
			r.out["sliding_window"] = n
		}
		r.optional("original_max_position_embeddings", "rope.scaling.original_context_length")
	case "gemma", "gemma2", "gemma3":
		r.size("intermediate_size", "feed_forward_length")
		r.gemma(fam, hidden, layers, heads, dim)
	}
}

// gemma fills what Gemma's families have of their own.
func (r *ggufReader) gemma(fam string, hidden, layers, heads, dim int64) {
	delete(r.out, "hidden_act")
	r.out["hidden_activation"] = geluTanh
	if fam == "gemma" {
		return
	}
	r.float("attn_logit_softcapping", "attn_logit_softcapping")
	r.float("final_logit_softcapping", "final_logit_softcapping")
	for _, key := range []string{"attn_logit_softcapping", "final_logit_softcapping"} {
		if r.out[key] == nil {
			r.out[key] = nil // none, where an absent field would be the family's default
		}
	}
	r.out["query_pre_attn_scalar"] = ggufScoreScalar(fam, hidden, layers, heads, dim)
	if scale, ok := r.number("attention.scale"); ok && scale > 0 {
		scalar := 1 / (scale * scale)
		if n := math.Round(scalar); math.Abs(scalar-n) < 1e-5*n {
			r.out["query_pre_attn_scalar"] = int64(n)
		} else {
			r.out["query_pre_attn_scalar"] = decimal(scalar)
		}
	}
	r.optional("sliding_window", "attention.sliding_window")
	kinds := make([]string, max(0, min(layers, maxLayers)))
	sliding := r.slidingLayers(fam, len(kinds))
	for i := range kinds {
		kinds[i] = "full_attention"
		if sliding(i) {
			kinds[i] = "sliding_attention"
		}
	}
	r.out["layer_types"] = kinds
	if fam == "gemma3" {
		local, ok := r.number("rope.freq_base_swa")
		if !ok {
			local = 10000
		}
		r.out["rope_local_base_freq"] = local
		if !r.m.Has(r.key("rope.freq_base")) {
			r.out["rope_theta"] = 1e6
		}
	}
}

// ggufScoreScalar is the number whose root divides attention scores: llama.cpp knows
// it by the size of the model.
func ggufScoreScalar(fam string, hidden, layers, heads, dim int64) int64 {
	if (fam == "gemma2" && layers == 46 || fam == "gemma3" && layers == 62) && heads > 0 { // the 27B models
		return hidden / heads
	}
	return dim
}

// slidingLayers tells which layers have the window: by a period, by a list, or as
// the family's models do.
func (r *ggufReader) slidingLayers(fam string, layers int) func(int) bool {
	key := r.key("attention.sliding_window_pattern")
	if v, ok := r.m.Get(key); ok {
		if list, is := v.([]bool); is {
			if len(list) != layers {
				r.fail(fmt.Errorf("metadata %s has %d elements, expected one a layer, %d", key, len(list), layers))
				return func(int) bool { return false }
			}
			return func(i int) bool { return list[i] }
		}
		n, _, err := r.m.Int(key)
		if err == nil && n < 1 {
			err = fmt.Errorf("metadata %s is %d, expected a period of layers", key, n)
		}
		r.fail(err)
		return func(i int) bool { return err == nil && int64(i+1)%n != 0 }
	}
	return slidingByDefault(fam)
}

func slidingByDefault(fam string) func(int) bool {
	period := 6
	if fam == "gemma2" {
		period = 2
	}
	return func(i int) bool { return (i+1)%period != 0 }
}
