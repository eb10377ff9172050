package model

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// configWith is a tiny LLaMA's configuration with further fields; nil takes one away.
func configWith(t testing.TB, fields map[string]any) string {
	t.Helper()
	c := map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": 20, "hidden_size": 16,
		"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 256}
	for k, v := range fields {
		c[k] = v
		if v == nil {
			delete(c, k)
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func mustParse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := ParseConfig([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// TestRopeAsTransformers: values that transformers 5.17 computes.
func TestRopeAsTransformers(t *testing.T) {
	for _, c := range []struct {
		name, scaling string
		length        int
		inv           [4]float64
		scale         float64
	}{
		{"default", `null`, 5, [4]float64{1, 0.1189207136631012, 0.014142136089503765, 0.0016817927826195955}, 1},
		{"linear", `{"type": "linear", "factor": 2.5}`, 5, [4]float64{0.4000000059604645, 0.04756828397512436, 0.005656854249536991, 0.0006727171130478382}, 1},
		{"dynamic", `{"type": "dynamic", "factor": 2.0}`, 600, [4]float64{1, 0.07697448879480362, 0.005925071891397238, 0.00045607940410263836}, 1},
		{"yarn", `{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}`, 5, [4]float64{1, 0.07432544231414795, 0.0035355340223759413, 0.0004204481956548989}, 1.138629436111989},
		{"longrope, short", `{"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2, 3, 4, 5], "original_max_position_embeddings": 64}`, 64,
			[4]float64{1, 0.07928047329187393, 0.0070710680447518826, 0.0006727171130478382}, 1.1547005383792517},
		{"longrope, long", `{"rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2, 3, 4, 5], "original_max_position_embeddings": 64}`, 65,
			[4]float64{0.5, 0.039640236645936966, 0.0035355340223759413, 0.0003363585565239191}, 1.1547005383792517},
		{"llama3", `{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}`, 5,
			[4]float64{1, 0.02219463884830475, 0.0017677670111879706, 0.00021022409782744944}, 1},
	} {
		for _, key := range []string{"rope_scaling", "rope_parameters"} {
			fields := map[string]any{"rope_theta": 5000, key: json.RawMessage(c.scaling)}
			if key == "rope_parameters" && c.scaling != "null" { // theta stands inside
				fields = map[string]any{key: json.RawMessage(strings.Replace(c.scaling, "{", `{"rope_theta": 5000, `, 1))}
			}
			inv, scale := mustParse(t, configWith(t, fields)).Rope.frequencies(c.length)
			for i, want := range c.inv {
				if math.Abs(float64(inv[i])-want) > 1e-6*want {
					t.Errorf("%s in %s: frequency %d is %.9g, want %.9g", c.name, key, i, inv[i], want)
				}
			}
			if math.Abs(scale-c.scale) > 1e-9 {
				t.Errorf("%s in %s: scale %.12g, want %.12g", c.name, key, scale, c.scale)
			}
		}
	}
}

// TestRopeFormulas compares with the papers' formulas in float64, over random
// settings.
func TestRopeFormulas(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 7))
	for range 300 {
		half := 2 + r.IntN(62)
		dim := float64(2 * half)
		theta := math.Exp(r.Float64()*8 + 6)
		positions := 64 << r.IntN(8)
		old := float64(positions) / float64(int(1)<<r.IntN(5))
		factor := 1 + r.Float64()*20
		length := 1 + r.IntN(3*positions)
		freq := func(base float64, i int) float64 { return math.Pow(base, -2*float64(i)/dim) }
		short, long := make([]float64, half), make([]float64, half)
		for i := range short {
			short[i], long[i] = 1+r.Float64(), 2+8*r.Float64()
		}
		kinds := map[string]struct {
			fields map[string]any
			inv    func(i int) float64
			scale  float64
		}{
			// Su et al. 2021, eq. 15.
			"default": {nil, func(i int) float64 { return freq(theta, i) }, 1},
			// Positions divided by a factor: Chen et al. 2023, "Extending context window", eq. 5.
			"linear": {map[string]any{"factor": factor}, func(i int) float64 { return freq(theta, i) / factor }, 1},
			// The base grows with the sequence: "NTK-aware" scaling, Peng et al. 2023, app. B.
			"dynamic": {map[string]any{"factor": factor}, func(i int) float64 {
				s := max(1, factor*float64(length)/float64(positions)-(factor-1))
				return freq(theta*math.Pow(s, dim/(dim-2)), i)
			}, 1},
			// Wavelengths above old/low are divided, those below old/high stay, a
			// line in between: Llama 3.1.
			"llama3": {map[string]any{"factor": factor, "low_freq_factor": 1.5, "high_freq_factor": 5, "original_max_position_embeddings": int(old)}, func(i int) float64 {
				f := freq(theta, i)
				turns := old * f / (2 * math.Pi)
				part := min(max((turns-1.5)/(5-1.5), 0), 1)
				return f/factor*(1-part) + f*part
			}, 1},
			// NTK by parts, Peng et al. 2023, eq. 17-19 and 22.
			"yarn": {map[string]any{"factor": factor, "truncate": false, "original_max_position_embeddings": int(old)}, func(i int) float64 {
				at := func(turns float64) float64 {
					return dim * math.Log(old/(2*math.Pi*turns)) / (2 * math.Log(theta))
				}
				low, high := max(at(32), 0), min(at(1), dim-1)
				if low == high {
					high += 0.001
				}
				part := min(max((float64(i)-low)/(high-low), 0), 1)
				f := freq(theta, i)
				return f*(1-part) + f/factor*part
			}, 0.1*math.Log(factor) + 1},
			// A factor for each column, Ding et al. 2024; scale √(1 + ln s / ln L).
			"longrope": {map[string]any{"short_factor": short, "long_factor": long, "original_max_position_embeddings": int(old)}, func(i int) float64 {
				if float64(length) > old {
					return freq(theta, i) / long[i]
				}
				return freq(theta, i) / short[i]
			}, math.Sqrt(1 + math.Log(float64(positions)/old)/math.Log(old))},
		}
		for kind, k := range kinds {
			scaling := map[string]any{"rope_type": kind, "rope_theta": theta}
			for name, v := range k.fields {
				scaling[name] = v
			}
			c := mustParse(t, configWith(t, map[string]any{"head_dim": 2 * half, "max_position_embeddings": positions, "rope_parameters": scaling}))
			inv, scale := c.Rope.frequencies(length)
			for i := range inv {
				// theta and the exponent are rounded to float32, as the reference does.
				if want := k.inv(i); math.Abs(float64(inv[i])-want) > 5e-6*want {
					t.Fatalf("%s, length %d: frequency %d of %d is %.9g, want %.9g\n%v", kind, length, i, half, inv[i], want, scaling)
				}
			}
			if math.Abs(scale-k.scale) > 1e-9 {
				t.Fatalf("%s: scale %g, want %g", kind, scale, k.scale)
			}
		}
	}
}

// TestRopePrecedence: which of two places counts, as in transformers.
func TestRopePrecedence(t *testing.T) {
	for _, c := range []struct {
		fields map[string]any
		check  func(Rope) bool
	}{
		{map[string]any{}, func(r Rope) bool { return r.Type == "default" && r.Theta == 10000 }},
		{map[string]any{"rope_theta": 7, "rope_scaling": nil}, func(r Rope) bool { return r.Theta == 7 }},
		{map[string]any{"rope_theta": 7, "rope_scaling": map[string]any{}}, func(r Rope) bool { return r.Type == "default" && r.Theta == 7 }},
		{map[string]any{"rope_theta": 7, "rope_parameters": map[string]any{"rope_theta": 9, "rope_type": "default"}}, func(r Rope) bool { return r.Theta == 9 }},
		{map[string]any{"rope_scaling": map[string]any{"type": "linear", "factor": 3}, "rope_parameters": map[string]any{"rope_type": "linear", "factor": 5}},
			func(r Rope) bool { return r.Type == "linear" && r.Factor == 3 }},
		{map[string]any{"rope_scaling": map[string]any{}, "rope_parameters": map[string]any{"rope_type": "linear", "factor": 5}},
			func(r Rope) bool { return r.Factor == 5 }},
		{map[string]any{"rope_scaling": map[string]any{"type": "dynamic", "rope_type": "linear", "factor": 3}}, func(r Rope) bool { return r.Type == "linear" }},
		{map[string]any{"original_max_position_embeddings": 32, "rope_scaling": map[string]any{"type": "yarn", "factor": 3, "original_max_position_embeddings": 64}},
			func(r Rope) bool { return r.Original == 32 }},
		{map[string]any{"rope_scaling": map[string]any{"type": "yarn", "factor": 3}}, func(r Rope) bool { return r.Original == 256 }},
	} {
		if r := mustParse(t, configWith(t, c.fields)).Rope; !c.check(r) {
			t.Errorf("%v is read as %+v", c.fields, r)
		}
	}
}

func TestRopeRefuses(t *testing.T) {
	for word, scaling := range map[string]string{
		"factor":                           `{"type": "linear"}`,
		"factor is 0.5":                    `{"type": "dynamic", "factor": 0.5}`,
		"low_freq_factor":                  `{"type": "llama3", "factor": 8, "high_freq_factor": 4}`,
		"high_freq_factor":                 `{"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}`,
		"beta_fast":                        `{"type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 2}`,
		"short_factor":                     `{"type": "longrope", "long_factor": [1, 1, 1, 1]}`,
		"long_factor":                      `{"type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 0, 1]}`,
		"partial_rotary_factor":            `{"partial_rotary_factor": 0.1}`,
		"original_max_position_embeddings": `{"type": "longrope", "original_max_position_embeddings": 1, "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1]}`,
		"rope_theta":                       `{"rope_theta": -1}`,
		"a number":                         `{"rope_theta": "big"}`,
		"spiral":                           `{"rope_type": "spiral"}`,
		"an object":                        `[1]`,
	} {
		_, err := ParseConfig([]byte(configWith(t, map[string]any{"rope_scaling": json.RawMessage(scaling)})))
		if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), "rope_scaling") {
			t.Errorf("%s: %v, want %q", scaling, err, word)
		}
	}
}

// TestRopeTable: rows are cos and sin of position times frequency, and a table
// serves all lengths of its class, also once a longer one was made.
func TestRopeTable(t *testing.T) {
	for kind, scaling := range map[string]string{"default": `null`, "dynamic": `{"type": "dynamic", "factor": 2}`,
		"longrope": `{"type": "longrope", "original_max_position_embeddings": 64, "short_factor": [1, 1.5, 2, 3], "long_factor": [2, 3, 4, 8]}`} {
		t.Run(kind, func(t *testing.T) {
			c := mustParse(t, configWith(t, map[string]any{"rope_scaling": json.RawMessage(scaling)}))
			m, err := New(c, cpu.New(), Options{Head: CausalLM})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Free()
			for _, length := range []int{10, 64, 65, 200, 257, 300, 5000, 20} {
				table, err := m.rope(0, length)
				if err != nil {
					t.Fatal(err)
				}
				inv, scale := c.Rope.frequencies(length)
				cos, sin := tensor.GetFloat64(table.cos), tensor.GetFloat64(table.sin)
				if table.cos.Shape[0] < length {
					t.Fatalf("length %d: %d rows", length, table.cos.Shape[0])
				}
				for _, p := range []int{0, 1, length / 2, length - 1} {
					for i, f := range inv {
						a := float64(float32(p) * f)
						if d := math.Abs(cos[p*len(inv)+i]-scale*math.Cos(a)) + math.Abs(sin[p*len(inv)+i]-scale*math.Sin(a)); d > 1e-6 {
							t.Fatalf("length %d, position %d, column %d: off by %g", length, p, i, d)
						}
					}
				}
			}
		})
	}
}
