package model

import (
	"fmt"
	"math"

	"ringtail/gguf"
)

// How positions are stretched: GGUF has linear and yarn as metadata, and a factor of
// each frequency as a tensor, which stands for llama3 and longrope.

// scaling makes rope_scaling of config.json; dim is the number of rotated columns.
func (r *ggufReader) scaling(theta float64, dim int64) map[string]any {
	kind, _, err := r.m.Text(r.key("rope.scaling.type"))
	r.fail(err)
	factor, hasFactor := r.number("rope.scaling.factor")
	if old, ok := r.number("rope.scale_linear"); ok && !hasFactor { // files of 2023
		kind, factor, hasFactor = "linear", old, true
	}
	original, hasOriginal := r.whole("rope.scaling.original_context_length")
	if long, short := r.values("rope_factors_long.weight"), r.values("rope_factors_short.weight"); long != nil && short != nil {
		out := map[string]any{"type": "longrope", "rope_type": "longrope", "long_factor": long, "short_factor": short}
		if hasOriginal && r.arch != "phi3" { // whose config.json has it outside
			out["original_max_position_embeddings"] = original
		}
		if a, ok := r.number("rope.scaling.attn_factor"); ok {
			most, _ := r.whole("context_length")
			if usual := longropeScale(float64(most)/float64(original), float64(original)); !hasOriginal || math.Abs(a/usual-1) > 1e-6 {
				out["attention_factor"] = a
			}
		}
		return out
	}
	if factors := r.values("rope_freqs.weight"); factors != nil {
		if int64(len(factors)) != dim/2 || dim < 2 {
			r.fail(fmt.Errorf("tensor rope_freqs.weight has %d elements, expected half of the rotated columns, %d", len(factors), dim/2))
			return nil
		}
		return frequencyFactors(factors, theta, dim, original)
	}
	switch {
	case kind == "linear" && hasFactor && factor != 1:
		return map[string]any{"rope_type": "linear", "factor": factor}
	case kind == "yarn":
		out := map[string]any{"rope_type": "yarn", "factor": factor}
		if hasOriginal {
			out["original_max_position_embeddings"] = original
		}
		for field, name := range map[string]string{"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow", "attention_factor": "yarn_attn_factor"} {
			if x, ok := r.number("rope.scaling." + name); ok {
				out[field] = x
			}
		}
		return out
	case kind == "" || kind == "none" || kind == "linear" || kind == "longrope":
		return nil // longrope without factors is a context that isn't stretched
	}
	r.fail(fmt.Errorf("metadata %s is %.60q, expected none, linear, yarn or longrope", r.key("rope.scaling.type"), kind))
	return nil
}

// longropeScale is the factor on cos and sin where none is given.
func longropeScale(factor, original float64) float64 {
	if factor <= 1 {
		return 1
	}
	return math.Sqrt(1 + math.Log(factor)/math.Log(original))
}

// frequencyFactors says what factors of the frequencies mean in config.json: the
// parameters of llama3 that give them or, where none do, a longrope that is as
// long as it is short.
func frequencyFactors(factors []float64, theta float64, dim int64, original int64) map[string]any {
	plain := true
	for _, f := range factors {
		plain = plain && f == 1
	}
	if plain {
		return nil
	}
	if p, ok := fitLlama3(factors, theta, dim, original); ok {
		return map[string]any{"rope_type": "llama3", "factor": p.Factor, "low_freq_factor": p.LowFreq, "high_freq_factor": p.HighFreq,
			"original_max_position_embeddings": p.Original}
	}
	return map[string]any{"rope_type": "longrope", "type": "longrope", "long_factor": factors, "short_factor": factors, "attention_factor": 1.0}
}

// fitLlama3 finds the parameters behind factors. Between the two bounds 1/factor
// is linear in the frequency: two points give two of the three unknowns, and the files of
// all published models have low_freq_factor 1. One point alone leaves a choice.
func fitLlama3(factors []float64, theta float64, dim int64, original int64) (Rope, bool) {
	r := Rope{Type: "llama3", Theta: theta, Dim: int(dim), LowFreq: 1, HighFreq: 4}
	wave := make([]float64, len(factors)) // 1/wavelength of each frequency
	var mid []int                         // between the bounds
	for i, f := range factors {
		r.Factor = max(r.Factor, f)
		wave[i] = math.Pow(theta, -float64(2*i)/float64(dim)) / (2 * math.Pi)
	}
	r.Factor = nearWhole(r.Factor)
	smooth := func(i int) float64 { return (1/factors[i] - 1/r.Factor) / (1 - 1/r.Factor) }
	for i := range factors {
		if s := smooth(i); s > 1e-4 && s < 1-1e-4 {
			mid = append(mid, i)
		}
	}
	try := func(high float64, old int) bool {
		if old < 1 || old > maxPositions || !(high > r.LowFreq) {
			return false
		}
		r.HighFreq, r.Original = high, old
		want := llama3Factors(r)
		for i, f := range factors {
			if math.Abs(f-want[i]) > 2e-5*f {
				return false
			}
		}
		return true
	}
	if original > 0 && original <= maxPositions { // Ringtail's own files say it
		if try(4, int(original)) {
			return r, true
		}
	}
	if len(mid) > 0 {
		first, last := mid[0], mid[len(mid)-1]
		highs := []float64{4, 8, 2}
		if first != last {
			slope := (smooth(first) - smooth(last)) / (wave[first] - wave[last]) // original/(high − 1)
			offset := smooth(first) - slope*wave[first]                          // −1/(high − 1)
			highs = append([]float64{nearWhole(1 - 1/offset)}, highs...)
		}
		for _, high := range highs {
			if try(high, int(math.Round((smooth(first)*(high-1)+1)/wave[first]))) {
				return r, true
			}
		}
	}
	for _, old := range []int{8192, 4096, 2048} {
		if try(4, old) {
			return r, true
		}
	}
	return r, false
}

// nearWhole rounds what is a whole number but for float32's rounding.
func nearWhole(x float64) float64 {
	if n := math.Round(x); math.Abs(x-n) < 1e-3*n {
		return n
	}
	return x
}

// llama3Factors are what frequencies are divided by.
func llama3Factors(r Rope) []float64 {
	out := make([]float64, r.Dim/2)
	old := float64(r.Original)
	for i := range out {
		wave := 2 * math.Pi * math.Pow(r.Theta, float64(2*i)/float64(r.Dim))
		switch {
		case wave < old/r.HighFreq:
			out[i] = 1
		case wave > old/r.LowFreq:
			out[i] = r.Factor
		default:
			smooth := (old/wave - r.LowFreq) / (r.HighFreq - r.LowFreq)
			out[i] = 1 / ((1-smooth)/r.Factor + smooth)
		}
	}
	return out
}

// ggufVector is a tensor that metadata can't hold.
type ggufVector struct {
	name   string
	values []float32
}

// ggufRope writes how positions are made: metadata, and vectors of factors.
func (c *Config) ggufRope(arch string) (pairs []gguf.Pair, vectors []ggufVector, err error) {
	r := c.Rope
	add := func(name string, v any) { pairs = append(pairs, gguf.Pair{Key: arch + ".rope." + name, Value: v}) }
	add("dimension_count", uint32(r.Dim))
	add("freq_base", float32(r.Theta))
	if c.WindowedRope != nil {
		if c.WindowedRope.Type != "default" {
			return nil, nil, fmt.Errorf("positions of windowed layers are stretched (%s), which GGUF can't say", c.WindowedRope.Type)
		}
		add("freq_base_swa", float32(c.WindowedRope.Theta))
	}
	vector := func(name string, list []float64) {
		v := make([]float32, len(list))
		for i, x := range list {
			v[i] = float32(x)
		}
		vectors = append(vectors, ggufVector{name, v})
	}
	switch r.Type {
	case "default":
		if arch == "phi3" {
			add("scaling.original_context_length", uint32(r.Original))
		}
	case "linear":
		add("scaling.type", "linear")
		add("scaling.factor", float32(r.Factor))
	case "yarn":
		if r.MScale != 0 || r.MScaleAllDim != 0 || !r.Truncate {
			return nil, nil, fmt.Errorf("rope_parameters: yarn with mscale or without truncate has no form in GGUF")
		}
		add("scaling.type", "yarn")
		add("scaling.factor", float32(r.Factor))
		add("scaling.original_context_length", uint32(r.Original))
		add("scaling.yarn_beta_fast", float32(r.BetaFast))
		add("scaling.yarn_beta_slow", float32(r.BetaSlow))
		if r.AttentionFactor != 0 {
			add("scaling.yarn_attn_factor", float32(r.AttentionFactor))
		}
	case "llama3":
		add("scaling.original_context_length", uint32(r.Original))
		vector("rope_freqs.weight", llama3Factors(r))
	case "longrope":
		_, scale := r.frequencies(1)
		add("scaling.type", "longrope")
		add("scaling.original_context_length", uint32(r.Original))
		add("scaling.attn_factor", float32(scale))
		vector("rope_factors_long.weight", r.Long)
		vector("rope_factors_short.weight", r.Short)
	default:
		return nil, nil, fmt.Errorf("rope_type %s has no form in GGUF; it can say none, linear, yarn, llama3, longrope", r.Type)
	}
	return pairs, vectors, nil
}
