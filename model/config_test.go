package model

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"ringtail/tensor"
)

func TestConfigSpellings(t *testing.T) {
	for name, c := range map[string]struct {
		fields map[string]any
		check  func(*Config) bool
	}{
		"defaults": {map[string]any{}, func(c *Config) bool {
			return c.KVHeads == 2 && c.HeadDim == 8 && c.NormEps == 1e-6 && c.Activation == tensor.SiLU && !c.Tied && !c.QKVBias && !c.OutBias && !c.MLPBias &&
				c.Dtype == "float32" && c.BOS == -1 && c.PAD == -1 && c.EOS == nil && c.Window == 0 && c.InitStd == 0.02
		}},
		"nulls": {map[string]any{"num_key_value_heads": json.RawMessage("null"), "head_dim": json.RawMessage("null"), "pad_token_id": json.RawMessage("null"), "rope_scaling": json.RawMessage("null")},
			func(c *Config) bool { return c.KVHeads == 2 && c.HeadDim == 8 && c.PAD == -1 }},
		"biases":          {map[string]any{"attention_bias": true, "mlp_bias": true}, func(c *Config) bool { return c.QKVBias && c.OutBias && c.MLPBias }},
		"head_dim":        {map[string]any{"head_dim": 32}, func(c *Config) bool { return c.HeadDim == 32 }},
		"dtype":           {map[string]any{"dtype": "bfloat16"}, func(c *Config) bool { return c.Dtype == "bfloat16" }},
		"torch_dtype":     {map[string]any{"torch_dtype": "torch.float16"}, func(c *Config) bool { return c.Dtype == "float16" }},
		"dtype counts":    {map[string]any{"torch_dtype": "float16", "dtype": "half"}, func(c *Config) bool { return c.Dtype == "float16" }},
		"one end":         {map[string]any{"eos_token_id": 3}, func(c *Config) bool { return slices.Equal(c.EOS, []int{3}) }},
		"several ends":    {map[string]any{"eos_token_id": []int{3, 4}}, func(c *Config) bool { return slices.Equal(c.EOS, []int{3, 4}) }},
		"no pad":          {map[string]any{"pad_token_id": -1}, func(c *Config) bool { return c.PAD == -1 }},
		"model_type only": {map[string]any{"architectures": nil}, func(c *Config) bool { return c.family() == "llama" && !c.Scalar() }},
		"bare decoder":    {map[string]any{"architectures": []string{"LlamaModel"}}, func(c *Config) bool { return c.family() == "llama" }},
		"reward model":    {map[string]any{"architectures": []string{"LlamaForSequenceClassification"}}, func(c *Config) bool { return c.Scalar() }},
		"window": {map[string]any{"architectures": []string{"MistralForCausalLM"}, "sliding_window": 77}, func(c *Config) bool {
			return c.Window == 77 && c.Attention(0).Window == 77
		}},
		"no window":  {map[string]any{"architectures": []string{"MistralForCausalLM"}, "sliding_window": json.RawMessage("null")}, func(c *Config) bool { return c.Window == 0 }},
		"activation": {map[string]any{"hidden_act": "gelu_pytorch_tanh"}, func(c *Config) bool { return c.Activation == tensor.GELUTanh }},
		"scale":      {map[string]any{"head_dim": 16}, func(c *Config) bool { return math.Abs(float64(c.Attention(0).Scale)-0.25) < 1e-9 }},
		"exponent":   {map[string]any{"rms_norm_eps": json.RawMessage("1e-05")}, func(c *Config) bool { return c.NormEps == 1e-5 }},
	} {
		c0 := mustParse(t, configWith(t, c.fields))
		if !c.check(c0) {
			t.Errorf("%s: read as %+v", name, c0)
		}
		// What is written back reads the same.
		text, err := c0.JSON()
		if err != nil {
			t.Fatal(err)
		}
		c1 := mustParse(t, string(text))
		c0.raw, c1.raw = nil, nil
		a, b := *c0, *c1
		if a.Architecture == "" {
			b.Architecture = ""
		}
		if x, y := toJSON(t, a), toJSON(t, b); x != y {
			t.Errorf("%s: written and read again\n%s\nwas\n%s", name, y, x)
		}
	}
}

func toJSON(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		fields map[string]any
		word   string
	}{
		"no vocabulary":      {map[string]any{"vocab_size": nil}, "vocab_size is missing"},
		"zero layers":        {map[string]any{"num_hidden_layers": 0}, "num_hidden_layers"},
		"huge layers":        {map[string]any{"num_hidden_layers": 1 << 40}, "num_hidden_layers"},
		"beyond int64":       {map[string]any{"hidden_size": json.RawMessage("1e30")}, "hidden_size"},
		"beyond float64":     {map[string]any{"rms_norm_eps": json.RawMessage("1e999")}, "rms_norm_eps"},
		"fraction":           {map[string]any{"hidden_size": 16.5}, "hidden_size"},
		"text":               {map[string]any{"intermediate_size": "24"}, "intermediate_size"},
		"heads don't divide": {map[string]any{"num_key_value_heads": 3, "num_attention_heads": 4}, "num_key_value_heads"},
		"width of heads":     {map[string]any{"num_attention_heads": 3}, "head_dim"},
		"odd head":           {map[string]any{"head_dim": 7}, "odd"},
		"absurd head":        {map[string]any{"head_dim": 1 << 18}, "absurd"},
		"eps":                {map[string]any{"rms_norm_eps": 0}, "rms_norm_eps"},
		"dtype":              {map[string]any{"dtype": "int8"}, "int8"},
		"dtype is a number":  {map[string]any{"dtype": 3}, "dtype"},
		"tie":                {map[string]any{"tie_word_embeddings": "yes"}, "tie_word_embeddings"},
		"end beyond":         {map[string]any{"eos_token_id": 20}, "20"},
		"end is text":        {map[string]any{"eos_token_id": "</s>"}, "eos_token_id"},
		"ends are mixed":     {map[string]any{"eos_token_id": []any{1, "x"}}, "eos_token_id"},
		"bos below":          {map[string]any{"bos_token_id": -2}, "bos_token_id"},
		"unknown family":     {map[string]any{"architectures": []string{"T5ForConditionalGeneration"}}, "T5ForConditionalGeneration"},
		"nothing":            {map[string]any{"architectures": nil, "model_type": nil}, "architectures"},
		"archs are a number": {map[string]any{"architectures": 5, "model_type": "mamba"}, "mamba"},
		"positions":          {map[string]any{"max_position_embeddings": 0}, "max_position_embeddings"},
		"activation":         {map[string]any{"hidden_act": "mish"}, "mish"},
		"long value":         {map[string]any{"hidden_act": strings.Repeat("x", 5000)}, "hidden_act"},
	} {
		_, err := ParseConfig([]byte(configWith(t, c.fields)))
		if err == nil || !strings.Contains(err.Error(), c.word) || len(err.Error()) > 300 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{"", "null", "[]", "3", "{", "\xff", `{"architectures": ["LlamaForCausalLM"]}`} {
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// TestTextOfPictures: of a Gemma 3 that sees pictures the text model is read, what its
// configuration leaves out being as in transformers; what is written is a text model's.
func TestTextOfPictures(t *testing.T) {
	c := mustParse(t, `{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 106], "torch_dtype": "bfloat16",
		"vision_config": {"hidden_size": 1152}, "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
		"num_hidden_layers": 34, "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}}`)
	for range 2 {
		if c.Vocab != 262208 || c.Heads != 8 || c.KVHeads != 4 || c.HeadDim != 256 || c.Window != 1024 || c.windowed(5) || !c.windowed(6) || !c.Tied ||
			c.Rope.Factor != 8 || c.Rope.Theta != 1e6 || c.WindowedRope.Theta != 1e4 || len(c.EOS) != 2 || c.Dtype != "bfloat16" ||
			c.Architecture != "Gemma3ForCausalLM" || c.ModelType != "gemma3_text" {
			t.Fatalf("read as %+v", c)
		}
		text, err := c.JSON()
		if err != nil {
			t.Fatal(err)
		}
		c = mustParse(t, string(text))
	}
}

// FuzzConfig: any text is refused or gives a configuration that can be planned,
// written and read again, without large allocations.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(configWith(f, nil)))
	f.Add([]byte(configWith(f, map[string]any{"attention_bias": true, "rope_scaling": map[string]any{"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}})))
	f.Add([]byte(configWith(f, map[string]any{"rope_parameters": map[string]any{"rope_type": "yarn", "factor": 8, "rope_theta": 5e5, "partial_rotary_factor": 0.5}})))
	f.Add([]byte(configWith(f, map[string]any{"max_position_embeddings": 16, "rope_scaling": map[string]any{"type": "dynamic", "factor": 2}, "eos_token_id": []int{1, 2}})))
	f.Add([]byte(configWith(f, map[string]any{"architectures": []string{"MistralForSequenceClassification"}, "sliding_window": 4,
		"rope_scaling": map[string]any{"type": "longrope", "short_factor": []int{1, 1, 1, 1}, "long_factor": []int{1, 2, 3, 4}}})))
	for _, fields := range shapesOfModels {
		f.Add([]byte(configWith(f, fields)))
	}
	f.Add([]byte(`{"architectures":["Gemma3ForConditionalGeneration"],"text_config":{"num_hidden_layers":2,"rope_parameters":{"full_attention":{"rope_theta":1e6}}}}`))
	f.Add([]byte(`{"architectures":["LlamaForCausalLM"],"vocab_size":16777216,"hidden_size":262144,"num_hidden_layers":8192,"num_attention_heads":16384,"intermediate_size":2097152}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseConfig(text)
		if err != nil {
			if strings.Count(err.Error(), "\n") > 1 || len(err.Error()) > 600 {
				t.Errorf("an error of %d bytes: %.100s", len(err.Error()), err)
			}
			return
		}
		if c.Layers*max(c.Experts.Count, 1) < 64 { // sizes alone: nothing is allocated
			for _, head := range []Head{CausalLM, ScalarHead} {
				total := 0
				for _, s := range c.specs(Options{}, head) {
					if s.Len() <= 0 {
						t.Errorf("%s %v has %d elements", s.Name, s.Shape, s.Len())
					}
					total += s.Len()
				}
				if total <= 0 {
					t.Errorf("%d parameters", total)
				}
			}
		}
		if c.Positions == Rotary && c.HeadDim < 1024 {
			for _, length := range []int{1, 100, c.MaxPositions, c.MaxPositions + 1} {
				inv, _ := c.Rope.frequencies(length)
				if len(inv) == 0 || 2*len(inv) > c.HeadDim {
					t.Errorf("%d frequencies for heads of %d", len(inv), c.HeadDim)
				}
			}
		}
		out, err := c.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseConfig(out); err != nil && c.Architecture != "" {
			t.Errorf("what was written isn't read: %v\n%s", err, out)
		}
	})
}
