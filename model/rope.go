package model

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

// Rope says how rotary positions are made (Su et al. 2021) and stretched. Both
// spellings of config.json are read: rope_theta beside rope_scaling, and
// rope_parameters. Formulas are those of transformers' modeling_rope_utils.
type Rope struct {
	Type   string // default, linear, dynamic, yarn, longrope, llama3
	Theta  float64
	Dim    int // rotated columns of a head
	Factor float64
	// Original is the context that the model was first trained on.
	Original int
	// llama3
	LowFreq, HighFreq float64
	// yarn (Peng et al. 2023)
	BetaFast, BetaSlow, MScale, MScaleAllDim float64
	Truncate                                 bool
	// yarn and longrope: scale of cos and sin; 0 to derive it
	AttentionFactor float64
	// longrope (Ding et al. 2024)
	Short, Long []float64

	maxPositions int
}

func readRope(f *fields, c *Config) Rope { return readRopePart(f, c, 1) }

// readRopePart is readRope for a family that rotates a part of each head where
// config.json doesn't say which.
func readRopePart(f *fields, c *Config, part float64) Rope {
	scaling, key := map[string]any{}, "rope_parameters"
	theta := f.number("rope_theta", 10000)
	for _, k := range []string{"rope_scaling", "rope_parameters"} { // the first that says anything
		switch v := f.raw[k].(type) {
		case nil:
		case map[string]any:
			if len(scaling) == 0 && len(v) > 0 {
				scaling, key = v, k
			}
		default:
			f.fail(k, v, "an object")
		}
	}
	s := &fields{raw: scaling}
	r := Rope{Type: s.text("rope_type", s.text("type", "default")), maxPositions: c.MaxPositions}
	r.Theta = s.number("rope_theta", theta)
	partial := s.number("partial_rotary_factor", f.number("partial_rotary_factor", part))
	if !(partial > 0 && partial <= 1) {
		s.fail("partial_rotary_factor", partial, "a number above 0, at most 1")
		partial = 1
	}
	r.Dim = int(float64(c.HeadDim)*partial) / 2 * 2
	if r.Dim < 2 {
		s.fail("partial_rotary_factor", partial, fmt.Sprintf("a part of head_dim %d that is at least 2", c.HeadDim))
		r.Dim = 2
	}
	r.Factor = s.number("factor", 0)
	// Phi-3 keeps it outside, and there it counts more.
	original := s.size("original_max_position_embeddings", c.MaxPositions, maxPositions)
	hasOriginal := f.raw["original_max_position_embeddings"] != nil || scaling["original_max_position_embeddings"] != nil
	r.Original = f.size("original_max_position_embeddings", original, maxPositions)
	r.AttentionFactor = s.number("attention_factor", 0)
	need := func(ok bool, field string, v any, want string) {
		if !ok {
			s.fail(field, v, want)
		}
	}
	switch r.Type {
	case "default":
	case "linear", "dynamic":
		need(r.Factor >= 1, "factor", r.Factor, "a number of at least 1")
		need(r.Type == "linear" || r.Dim > 2, "rope_type", r.Type, "another type: dynamic needs heads of more than 2 columns")
	case "llama3":
		r.LowFreq, r.HighFreq = s.number("low_freq_factor", 0), s.number("high_freq_factor", 0)
		need(r.Factor >= 1, "factor", r.Factor, "a number of at least 1")
		need(r.LowFreq > 0, "low_freq_factor", r.LowFreq, "a number above 0")
		need(r.HighFreq > r.LowFreq, "high_freq_factor", r.HighFreq, "a number above low_freq_factor")
	case "yarn":
		r.BetaFast, r.BetaSlow = s.number("beta_fast", 32), s.number("beta_slow", 1)
		r.MScale, r.MScaleAllDim = s.number("mscale", 0), s.number("mscale_all_dim", 0)
		r.Truncate = s.flag("truncate", true)
		if r.Factor == 0 && hasOriginal {
			r.Factor = float64(c.MaxPositions) / float64(r.Original)
		}
		need(r.Factor >= 1, "factor", r.Factor, "a number of at least 1")
		need(r.BetaFast >= r.BetaSlow && r.BetaSlow > 0, "beta_fast", r.BetaFast, "a number of at least beta_slow")
		need(r.Theta > 1, "rope_theta", r.Theta, "a number above 1")
	case "longrope":
		r.Short, r.Long = s.numbers("short_factor"), s.numbers("long_factor")
		need(len(r.Short) == r.Dim/2, "short_factor", len(r.Short), fmt.Sprintf("a list of %d numbers", r.Dim/2))
		need(len(r.Long) == r.Dim/2, "long_factor", len(r.Long), fmt.Sprintf("a list of %d numbers", r.Dim/2))
		for key, list := range map[string][]float64{"short_factor": r.Short, "long_factor": r.Long} {
			for _, v := range list {
				need(v > 0, key, v, "a list of numbers above 0")
			}
		}
		if r.Factor == 0 && hasOriginal {
			r.Factor = float64(c.MaxPositions) / float64(r.Original)
		}
		need(r.Factor <= 1 || r.Original > 1, "original_max_position_embeddings", r.Original, "a number above 1")
	default:
		s.fail("rope_type", r.Type, "default, linear, dynamic, yarn, longrope or llama3")
	}
	need(r.Theta > 0, "rope_theta", r.Theta, "a number above 0")
	if s.err != nil && f.err == nil {
		f.err = fmt.Errorf("%s: %w", key, s.err)
	}
	return r
}

// frequencies gives the angle per position of each rotated pair and the factor
// on cos and sin, for sequences of up to length tokens. Like the reference it
// rounds to float32, so that angles at far positions agree.
func (r Rope) frequencies(length int) (inv []float32, scale float64) {
	half := r.Dim / 2
	inv = make([]float32, half)
	base := r.Theta
	if r.Type == "dynamic" && length > r.maxPositions {
		n := float64(length) / float64(r.maxPositions)
		base *= math.Pow(r.Factor*n-(r.Factor-1), float64(r.Dim)/float64(r.Dim-2))
	}
	power := func(i int) float32 { return float32(math.Pow(base, float64(float32(2*i)/float32(r.Dim)))) }
	for i := range inv {
		inv[i] = 1 / power(i)
	}
	scale = 1
	switch r.Type {
	case "linear":
		for i := range inv {
			inv[i] /= float32(r.Factor)
		}
	case "llama3":
		old := float64(r.Original)
		for i, f := range inv {
			wave := 2 * math.Pi / float64(f)
			switch {
			case wave > old/r.LowFreq:
				inv[i] = f / float32(r.Factor)
			case wave >= old/r.HighFreq:
				smooth := (old/wave - r.LowFreq) / (r.HighFreq - r.LowFreq)
				inv[i] = float32((1-smooth)*float64(f)/r.Factor + smooth*float64(f))
			}
		}
	case "yarn":
		scale = r.yarnScale()
		bound := func(rotations float64) float64 {
			return float64(r.Dim) * math.Log(float64(r.Original)/(rotations*2*math.Pi)) / (2 * math.Log(base))
		}
		low, high := bound(r.BetaFast), bound(r.BetaSlow)
		if r.Truncate {
			low, high = math.Floor(low), math.Ceil(high)
		}
		low, high = max(low, 0), min(high, float64(r.Dim-1))
		if low == high {
			high += 0.001
		}
		for i := range inv {
			ramp := float32(min(max((float64(i)-low)/(high-low), 0), 1))
			inter := 1 / (float32(r.Factor) * power(i))
			inv[i] = inter*ramp + inv[i]*(1-ramp)
		}
	case "longrope":
		ext := r.Short
		if length > r.Original {
			ext = r.Long
		}
		for i := range inv {
			inv[i] = 1 / (float32(ext[i]) * power(i))
		}
		scale = r.AttentionFactor
		if scale == 0 {
			scale = 1
			if r.Factor > 1 {
				scale = math.Sqrt(1 + math.Log(r.Factor)/math.Log(float64(r.Original)))
			}
		}
	}
	return inv, scale
}

func (r Rope) yarnScale() float64 {
	if r.AttentionFactor != 0 {
		return r.AttentionFactor
	}
	m := func(mscale float64) float64 {
		if r.Factor <= 1 {
			return 1
		}
		return 0.1*mscale*math.Log(r.Factor) + 1
	}
	if r.MScale != 0 && r.MScaleAllDim != 0 {
		return m(r.MScale) / m(r.MScaleAllDim)
	}
	return m(1)
}

// lengthClass maps lengths with equal frequencies to one key.
func (r Rope) lengthClass(length int) int {
	switch {
	case r.Type == "dynamic" && length > r.maxPositions:
		return length
	case r.Type == "longrope" && length > r.Original:
		return 1
	}
	return 0
}

// ropeTable is cos and sin on a device, [positions, Dim/2] each.
type ropeTable struct {
	cos, sin tensor.Tensor
	buffers  []*tensor.Buffer
}

func (t *ropeTable) free() {
	for _, b := range t.buffers {
		b.Free()
	}
}

// newRopeTable makes the table for sequences of up to length tokens; it has rows
// for positions, at least as many.
func newRopeTable(dev tensor.Device, r Rope, length, positions int) (*ropeTable, error) {
	inv, scale := r.frequencies(length)
	half := len(inv)
	c, s := make([]float64, positions*half), make([]float64, positions*half)
	for p := range positions {
		for i, f := range inv {
			angle := float64(float32(p) * f)
			sin, cos := math.Sincos(angle)
			c[p*half+i], s[p*half+i] = cos*scale, sin*scale
		}
	}
	t := &ropeTable{}
	for _, x := range []struct {
		dst *tensor.Tensor
		v   []float64
	}{{&t.cos, c}, {&t.sin, s}} {
		y, b, err := tensor.New(dev, dev.Float().Wide(), positions, half)
		if err != nil {
			t.free()
			return nil, err
		}
		t.buffers = append(t.buffers, b)
		tensor.SetFloat64(y, x.v)
		*x.dst = y
	}
	return t, nil
}
