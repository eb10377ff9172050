package folder

import (
	"encoding/json"
	"slices"
	"strings"

	"ringtail/tokenizer"
)

// preTokenizer is one of llama.cpp's ways to cut text into words, which GGUF files
// name in tokenizer.ggml.pre: expressions, each of which cuts what the one before
// left. Source: llama.cpp, llama-vocab.cpp, and the tokenizer.json of the models
// that the names come from.
type preTokenizer struct {
	names        []string // the first is written
	splits       []string
	nfc          bool // the models' tokenizers normalise to NFC, which GGUF can't say
	ignoreMerges bool // words that are tokens are taken whole
	bos          bool // a text begins with BOS unless the file says otherwise
}

const (
	letterDigit   = `\p{N}`
	patternBloom  = ` ?[^(\s|.,!?…。，、।۔،)]+`
	patternBloom2 = ` ?[^(\s|[.,!?…。，、।۔،])]+` // the same set, as BLOOM's tokenizer.json spells it
	patternTekken = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternGPT4o  = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen35 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternSeed   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternDS3    = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)

var preTokenizers = []preTokenizer{
	{names: []string{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
		splits: []string{tokenizer.PatternLlama3}, ignoreMerges: true, bos: true},
	{names: []string{"smaug-bpe", "dbrx", "chatglm-bpe", "glm4"}, splits: []string{tokenizer.PatternLlama3}},
	{names: []string{"qwen2", "stablelm2"}, splits: []string{tokenizer.PatternQwen2}, nfc: true},
	{names: []string{"deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan", "solar-open", "grok-2"}, splits: []string{tokenizer.PatternQwen2}},
	{names: []string{"qwen35"}, splits: []string{patternQwen35}, nfc: true},
	{names: []string{"gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "jais", "trillion", "granite-docling", "roberta-bpe",
		"jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code"}, splits: []string{tokenizer.PatternGPT2}},
	{names: []string{"olmo", "mpt"}, splits: []string{tokenizer.PatternGPT2}, nfc: true},
	{names: []string{"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"}, splits: []string{letterDigit, tokenizer.PatternGPT2}},
	{names: []string{"command-r"}, splits: []string{letterDigit, tokenizer.PatternGPT2}, nfc: true},
	{names: []string{"bloom", "poro-chat", "gpt3-finnish"}, splits: []string{patternBloom}},
	{names: []string{"viking"}, splits: []string{patternBloom, letterDigit}},
	{names: []string{"tekken"}, splits: []string{patternTekken}, ignoreMerges: true, bos: true},
	{names: []string{"gpt-4o", "llama4", "kanana2", "minimax-m2"}, splits: []string{patternGPT4o}},
	{names: []string{"seed-coder"}, splits: []string{patternSeed}},
	{names: []string{"deepseek-coder"}, splits: []string{"[\r\n]", `\s?\p{L}+`, `\s?\p{P}+`, "[一-龥ࠀ-一가-퟿]+", letterDigit}},
	{names: []string{"deepseek-v3", "hunyuan-dense", "joyai-llm"}, splits: []string{`\p{N}{1,3}`, "[一-龥぀-ゟ゠-ヿ]+", patternDS3}},
	{names: []string{"falcon"}, splits: []string{"[\\p{P}\\$\\+<=>\\^~\\|`]+", tokenizer.PatternGPT2, "[0-9][0-9][0-9]"}},
	{names: []string{defaultPre, ""}, splits: []string{`[\p{P}\$\+<=>\^~\|]+`, tokenizer.PatternGPT2, `\p{N}+`, "[0-9][0-9][0-9]"}},
}

// defaultPre is what llama.cpp takes where it doesn't know better.
const defaultPre = "default"

// preTokenizerNamed finds one by the name that a file gives.
func preTokenizerNamed(name string) (preTokenizer, bool) {
	for _, p := range preTokenizers {
		if slices.Contains(p.names, name) {
			return p, true
		}
	}
	return preTokenizer{}, false
}

// preTokenizerOf finds the one that a tokenizer.json describes. The name is
// defaultPre, and ok false, where llama.cpp has none like it.
func preTokenizerOf(splits []string, nfc, ignoreMerges bool) (name string, ok bool) {
	for i, s := range splits {
		if s == patternBloom2 {
			splits[i] = patternBloom
		}
	}
	for _, strict := range []bool{true, false} { // NFC makes no difference to llama.cpp
		for _, p := range preTokenizers {
			if slices.Equal(p.splits, splits) && p.ignoreMerges == ignoreMerges && (p.nfc == nfc || !strict) {
				return p.names[0], true
			}
		}
	}
	return defaultPre, false
}

// component is a stage of a tokenizer.json.
type component map[string]any

// json writes the pre-tokenizer of a tokenizer.json.
func (p preTokenizer) json(prefixSpace bool) component {
	if len(p.splits) == 1 && p.splits[0] == tokenizer.PatternGPT2 {
		return component{"type": "ByteLevel", "add_prefix_space": prefixSpace, "trim_offsets": true, "use_regex": true}
	}
	var steps []component
	for _, s := range p.splits {
		steps = append(steps, component{"type": "Split", "pattern": component{"Regex": s}, "behavior": "Isolated", "invert": false})
	}
	steps = append(steps, component{"type": "ByteLevel", "add_prefix_space": prefixSpace, "trim_offsets": true, "use_regex": false})
	return component{"type": "Sequence", "pretokenizers": steps}
}

// stage is a component of a tokenizer.json as far as GGUF can express it.
type stage struct {
	Type             string          `json:"type"`
	Pretokenizers    []stage         `json:"pretokenizers"`
	Normalizers      []stage         `json:"normalizers"`
	Pattern          map[string]any  `json:"pattern"`
	Behavior         string          `json:"behavior"`
	Invert           bool            `json:"invert"`
	AddPrefixSpace   *bool           `json:"add_prefix_space"`
	UseRegex         *bool           `json:"use_regex"`
	IndividualDigits bool            `json:"individual_digits"`
	PrependScheme    string          `json:"prepend_scheme"`
	Prepend          string          `json:"prepend"`
	Content          string          `json:"content"`
	Charsmap         json.RawMessage `json:"precompiled_charsmap"`
}

// flat lists a stage's steps without the sequences around them.
func (s *stage) flat() []stage {
	if s == nil || s.Type == "" {
		return nil
	}
	if s.Type != "Sequence" {
		return []stage{*s}
	}
	var out []stage
	for _, inner := range append(s.Pretokenizers, s.Normalizers...) {
		out = append(out, inner.flat()...)
	}
	return out
}

// splitsOf reads a pre-tokenizer that ends in bytes as the expressions of
// preTokenizer; ok tells whether that is all it does.
func splitsOf(pre *stage) (splits []string, prefixSpace, ok bool) {
	ok = true
	for _, s := range pre.flat() {
		switch s.Type {
		case "ByteLevel":
			prefixSpace = prefixSpace || s.AddPrefixSpace == nil || *s.AddPrefixSpace
			if s.UseRegex == nil || *s.UseRegex {
				splits = append(splits, tokenizer.PatternGPT2)
			}
		case "Digits":
			splits = append(splits, map[bool]string{true: letterDigit, false: `\p{N}+`}[s.IndividualDigits])
		case "Split":
			expr, is := s.Pattern["Regex"].(string)
			// A word that matches stands alone; what doesn't match is another.
			alone := s.Behavior == "Isolated" || s.Behavior == "Removed" && s.Invert
			ok = ok && is && alone
			splits = append(splits, expr)
		default:
			ok = false
		}
	}
	return splits, prefixSpace, ok
}

// isByteLevel tells whether a pre-tokenizer turns text into the byte alphabet.
func isByteLevel(pre *stage) bool {
	return slices.ContainsFunc(pre.flat(), func(s stage) bool { return s.Type == "ByteLevel" })
}

// hasStep tells whether a stage of a kind is among the steps.
func hasStep(s *stage, kind string) bool {
	return slices.ContainsFunc(s.flat(), func(s stage) bool { return strings.EqualFold(s.Type, kind) })
}
