package model

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"ringtail/gguf"
	"ringtail/tensor"
)

// GGUFOptions say how a GGUF file is written.
type GGUFOptions struct {
	// Type of matrices: F32, F16, BF16, Q8_0, Q4_0 in any case, or float32, float16,
	// bfloat16; "": that of the configuration.
	Type string
	Name string // general.name; "": that of the path
	// Metadata, if not nil, makes further pairs, such as the tokenizer's; of equal keys the model's count.
	Metadata func(c *Config) ([]gguf.Pair, error)
}

// ggufFileTypes number the types that a file is said to have mostly.
var ggufFileTypes = map[gguf.Type]uint32{gguf.F32: 0, gguf.F16: 1, gguf.Q4_0: 2, gguf.Q8_0: 7, gguf.BF16: 32}

// ggufTypeNamed finds the type of matrices, by GGUF's names or transformers'.
func ggufTypeNamed(name, dtype string) (gguf.Type, error) {
	if name == "" {
		name = dtype
	}
	if safe, err := storedDtype(canonicalDtype(name)); err == nil {
		name = safe
	}
	kind, ok := gguf.ParseType(name)
	if _, writable := ggufFileTypes[kind]; !ok || !writable {
		return 0, fmt.Errorf("type %q is not one of f32, f16, bf16, q8_0, q4_0, which GGUF files are written in", name)
	}
	return kind, nil
}

// WriteGGUF writes the model at path (a Hugging Face folder or a GGUF file) as a
// GGUF file out, as llama.cpp reads it, tensor by tensor: memory holds one at a
// time. The file is complete or absent. What GGUF can't say is an error.
func WriteGGUF(path, out string, o GGUFOptions) error {
	c, src, err := Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	w := &ggufWriter{path: path, c: c, load: &loader{path: path, c: c, src: src, head: CausalLM, stored: map[string]string{}}}
	kind, err := ggufTypeNamed(o.Type, c.Dtype)
	if err != nil {
		return fmt.Errorf("%s: %w", out, err)
	}
	pairs, vectors, err := c.ggufMetadata(kind)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	name := o.Name
	if name == "" {
		name = filepath.Base(filepath.Clean(path))
	}
	pairs = append(pairs, gguf.Pair{Key: "general.name", Value: name})
	pairs = append(pairs, c.ggufTokens()...)
	var more []gguf.Pair
	if o.Metadata != nil {
		if more, err = o.Metadata(c); err != nil {
			return err
		}
	}
	for _, p := range more {
		if !slices.ContainsFunc(pairs, func(q gguf.Pair) bool { return q.Key == p.Key }) {
			pairs = append(pairs, p)
		}
	}
	specs, err := w.plan(kind, vectors)
	if err != nil {
		return err
	}
	file, err := gguf.Create(out, pairs, specs)
	if err != nil {
		return err
	}
	defer file.Abort()
	for _, v := range vectors {
		if err := file.Write(v.name, v.values); err != nil {
			return err
		}
	}
	for _, t := range w.tensors {
		if err := w.write(file, t); err != nil {
			return err
		}
	}
	return file.Close()
}

// ggufWriter copies the tensors of a source.
type ggufWriter struct {
	path    string
	c       *Config
	load    *loader
	tensors []ggufTensor
}

// ggufTensor is one tensor of a folder on its way.
type ggufTensor struct {
	place ggufPlace
	name  string // in the folder
	shape []int  // in memory, and in GGUF
}

// plan checks that the source has every tensor, and lists GGUF's: those of an
// expert are parts of one.
func (w *ggufWriter) plan(kind gguf.Type, vectors []ggufVector) ([]gguf.Spec, error) {
	var specs []gguf.Spec
	for _, v := range vectors {
		specs = append(specs, gguf.Spec{Name: v.name, Type: gguf.F32, Shape: []int{len(v.values)}})
	}
	places := w.c.ggufPlaces()
	stacks := map[string]int{}
	for _, s := range w.c.specs(Options{}, CausalLM) {
		if err := w.load.check(s, false); err != nil {
			return nil, err
		}
		place, ok := places.find(s.Name)
		if !ok {
			return nil, fmt.Errorf("%s: tensor %s has no place in GGUF's architecture %s", w.path, s.Name, ggufArchitectures[w.c.family()])
		}
		w.tensors = append(w.tensors, ggufTensor{place, s.Name, s.Shape})
		shape := s.Shape
		if place.role.stacked {
			if place.expert != stacks[place.name] {
				return nil, fmt.Errorf("%s: tensor %s: experts are out of order", w.path, s.Name)
			}
			if stacks[place.name]++; stacks[place.name] > 1 {
				continue
			}
			shape = append([]int{w.c.Experts.Count}, shape...)
		}
		specs = append(specs, gguf.Spec{Name: place.name, Type: ggufType(kind, place.name, shape, w.c.Tied), Shape: shape})
	}
	return specs, nil
}

// write copies one tensor, changing its layout as the architecture asks.
func (w *ggufWriter) write(file *gguf.Writer, t ggufTensor) error {
	stored, _ := w.load.src.Find(w.load.stored[t.name])
	if stored.Done != nil {
		defer stored.Done()
	}
	store, role := w.c.storage(t.name, t.shape), t.place.role
	n := 1
	for _, d := range t.shape {
		n *= d
	}
	wrong := func(err error) error { return fmt.Errorf("%s: tensor %s: %w", w.path, t.name, err) }
	if store.differs() || role.rotated != nil {
		all := make([]float32, n)
		if err := stored.Read(all, 0); err != nil {
			return wrong(err)
		}
		moved := make([]float32, n)
		if store.differs() {
			fromStored(store, moved, all)
		} else {
			dim, width := t.shape[0]/role.rotated(w.c), n/t.shape[0]
			for r := range t.shape[0] {
				from := ggufRow(r, dim)
				copy(moved[r*width:(r+1)*width], all[from*width:(from+1)*width])
			}
		}
		return w.put(file, t, moved)
	}
	const piece = 1 << 20
	buf := make([]float32, min(n, piece))
	for at := 0; at < n; at += piece {
		part := buf[:min(n-at, piece)]
		if err := stored.Read(part, at); err != nil {
			return wrong(err)
		}
		if role.norm && w.c.NormOffset != 0 && !t.place.bias {
			for i := range part {
				part[i] += float32(w.c.NormOffset)
			}
		}
		if err := w.put(file, t, part); err != nil {
			return err
		}
	}
	return nil
}

// put writes values; its error names the folder's tensor too.
func (w *ggufWriter) put(file *gguf.Writer, t ggufTensor, v []float32) error {
	if err := file.Write(t.place.name, v); err != nil {
		return fmt.Errorf("%s: tensor %s: %w", w.path, t.name, err)
	}
	return nil
}

// ggufMetadata describes the model, or says what GGUF can't express.
func (c *Config) ggufMetadata(kind gguf.Type) ([]gguf.Pair, []ggufVector, error) {
	fam := c.family()
	arch, ok := ggufArchitectures[fam]
	if !ok {
		return nil, nil, fmt.Errorf("%s has no architecture in GGUF", c.Architecture)
	}
	if err := c.ggufCheck(fam); err != nil {
		return nil, nil, err
	}
	pairs := []gguf.Pair{{Key: "general.architecture", Value: arch}, {Key: "general.type", Value: "model"},
		{Key: "general.file_type", Value: ggufFileTypes[kind]}, {Key: "general.quantization_version", Value: uint32(2)},
		{Key: ggufHFKey, Value: c.fam().architecture(CausalLM)}}
	add := func(name string, v any) { pairs = append(pairs, gguf.Pair{Key: arch + "." + name, Value: v}) }
	size := func(name string, n int) { add(name, uint32(n)) }
	size("vocab_size", c.Vocab)
	size("context_length", c.MaxPositions)
	size("embedding_length", c.Hidden)
	size("block_count", c.Layers)
	size("feed_forward_length", c.MLP)
	size("attention.head_count", c.Heads)
	size("attention.head_count_kv", c.KVHeads)
	if c.LayerNorm {
		add("attention.layer_norm_epsilon", float32(c.NormEps))
	} else {
		add("attention.layer_norm_rms_epsilon", float32(c.NormEps))
		size("attention.key_length", c.HeadDim)
		size("attention.value_length", c.HeadDim)
	}
	if fam == "gptneox" {
		add("use_parallel_residual", c.Place == ParallelNorm)
	}
	if e := c.Experts; e.Count > 0 {
		size("expert_count", e.Count)
		size("expert_used_count", e.Used)
		if fam == "qwen3moe" {
			size("expert_feed_forward_length", e.MLP)
		}
	}
	if c.Window > 0 || fam == "phi3" { // 0 tells llama.cpp that this is no Phi-3 with a window
		size("attention.sliding_window", c.Window)
	}
	if c.Windowed != nil && fam == "gemma3" {
		period, ok := windowPeriod(c.Windowed)
		if !ok {
			return nil, nil, fmt.Errorf("layer_types: full attention is not in every n-th layer, which GGUF can't say")
		}
		size("attention.sliding_window_pattern", period)
	}
	if c.AttentionCap != 0 {
		add("attn_logit_softcapping", c.AttentionCap)
	}
	if c.LogitCap != 0 {
		add("final_logit_softcapping", c.LogitCap)
	}
	if usual := 1 / math.Sqrt(float64(ggufScoreScalar(fam, int64(c.Hidden), int64(c.Layers), int64(c.Heads), int64(c.HeadDim)))); math.Abs(c.Scale/usual-1) > 1e-6 {
		add("attention.scale", float32(c.Scale))
	}
	var vectors []ggufVector
	if c.Positions == Rotary {
		rope, list, err := c.ggufRope(arch)
		if err != nil {
			return nil, nil, err
		}
		pairs, vectors = append(pairs, rope...), list
	}
	return pairs, vectors, nil
}

// ggufTokens are the ids of special tokens. GGUF has three keys for tokens that end
// an answer: of the text, of a turn, of a message.
func (c *Config) ggufTokens() (pairs []gguf.Pair) {
	add := func(name string, id int) {
		if id >= 0 {
			pairs = append(pairs, gguf.Pair{Key: "tokenizer.ggml." + name + "_token_id", Value: uint32(id)})
		}
	}
	add("bos", c.BOS)
	add("padding", c.PAD)
	for i, id := range c.EOS[:min(len(c.EOS), 3)] {
		add([]string{"eos", "eot", "eom"}[i], id)
	}
	return pairs
}

// windowPeriod is n where every n-th layer, and no other, is without window.
func windowPeriod(windowed []bool) (int, bool) {
	n := len(windowed) + 1
	for i, w := range windowed {
		if !w {
			n = i + 1
			break
		}
	}
	for i, w := range windowed {
		if w != ((i+1)%n != 0) {
			return 0, false
		}
	}
	return n, true
}

// ggufCheck refuses what llama.cpp would compute otherwise than this model does,
// since its architecture takes it as given.
func (c *Config) ggufCheck(fam string) error {
	windowed := c.Window > 0
	for _, f := range []struct {
		there bool
		what  string
	}{
		{c.Scalar(), "a reward or value model"},
		{fam == "gpt2" && (c.ScaleByLayer || c.Scale != 1/math.Sqrt(float64(c.HeadDim))), "scores that aren't scaled by the root of head_dim"},
		{(fam == "gpt2" || fam == "bloom") && c.Activation != tensor.GELUTanh, "an activation other than gelu_new"},
		{fam == "gptneox" && c.Activation != tensor.GELU, "an activation other than gelu"},
		{fam == "gptneox" && !c.QKVBias, "attention without biases"},
		{fam == "bloom" && c.ResidualFromNorm, "apply_residual_connection_post_layernorm"},
		{!c.Plain && c.NormOffset == 0 && c.Activation != tensor.SiLU, "an activation other than silu"},
		{c.NormOffset != 0 && c.Activation != tensor.GELUTanh, "an activation other than " + geluTanh},
		{c.QKVBias && (fam == "qwen3" || fam == "qwen3moe" || fam == "phi3" || c.NormOffset != 0), "attention_bias"},
		{windowed && (fam == "qwen2" || fam == "qwen3" || fam == "qwen3moe"), "use_sliding_window"},
		{c.Experts.Count > 0 && !c.Experts.Normalize, "norm_topk_prob false"},
		{c.Experts.Count > 0 && !allSparse(c), "layers without experts among others (mlp_only_layers, decoder_sparse_step)"},
		{fam == "gemma2" && !sameLayers(c, slidingByDefault(fam)), "layer_types other than the window in every other layer"},
	} {
		if f.there {
			return fmt.Errorf("this %s has %s, which GGUF's architecture %s can't say", c.fam().class, f.what, ggufArchitectures[fam])
		}
	}
	return nil
}

func allSparse(c *Config) bool {
	for i := range c.Layers {
		if !c.sparse(i) {
			return false
		}
	}
	return true
}

func sameLayers(c *Config, sliding func(int) bool) bool {
	for i := range c.Layers {
		if c.windowed(i) != sliding(i) {
			return false
		}
	}
	return true
}
