package tokenizer

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A tiktoken file holds a byte-level BPE as a line for each token: its bytes in
// base64, a space, its rank, which is its id. Two neighbours are joined if their
// bytes are a token, the one of the least rank first. The file says neither how
// text is cut into words nor which control tokens there are: that depends on the
// encoding (tiktoken_ext/openai_public.py of github.com/openai/tiktoken, and the
// models' own code).

// PatternO200K is that of OpenAI's o200k_base.
const PatternO200K = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?` +
	`|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?` +
	`|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`

// tiktokenEncoding is what is known of an encoding besides its ranks.
type tiktokenEncoding struct {
	name    string
	pattern string
	nfc     bool // text is brought into NFC
	ranks   int  // of the genuine file; only that has the control tokens
	special map[string]int32
}

// tiktokenEncodings are looked for by name in this order, and by their number of
// ranks.
var tiktokenEncodings = []tiktokenEncoding{
	{name: "r50k_base", pattern: PatternGPT2, ranks: 50256, special: map[string]int32{"<|endoftext|>": 50256}},
	{name: "gpt2", pattern: PatternGPT2, ranks: 50256, special: map[string]int32{"<|endoftext|>": 50256}},
	{name: "p50k_edit", pattern: PatternGPT2, ranks: 50280, special: map[string]int32{
		"<|endoftext|>": 50256, "<|fim_prefix|>": 50281, "<|fim_middle|>": 50282, "<|fim_suffix|>": 50283}},
	{name: "p50k_base", pattern: PatternGPT2, ranks: 50280, special: map[string]int32{"<|endoftext|>": 50256}},
	{name: "cl100k_base", pattern: PatternLlama3, ranks: 100256, special: map[string]int32{
		"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276}},
	{name: "o200k_harmony", pattern: PatternO200K, ranks: 199998, special: harmonySpecial()},
	{name: "o200k_base", pattern: PatternO200K, ranks: 199998, special: map[string]int32{"<|endoftext|>": 199999, "<|endofprompt|>": 200018}},
	{name: "qwen", pattern: PatternQwen2, nfc: true, ranks: 151643, special: numbered(151643, "<|endoftext|>", "<|im_start|>", "<|im_end|>").
		then("<|extra_%d|>", 205)},
	{name: "llama3", pattern: PatternLlama3, ranks: 128000, special: numbered(128000, "<|begin_of_text|>", "<|end_of_text|>",
		"<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
		"<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>").thenFrom("<|reserved_special_token_%d|>", 2, 245)},
}

// tokenNumbers maps control tokens to ids.
type tokenNumbers map[string]int32

// numbered gives tokens ids from first on.
func numbered(first int32, tokens ...string) tokenNumbers {
	n := tokenNumbers{}
	for i, t := range tokens {
		n[t] = first + int32(i)
	}
	return n
}

// then adds count tokens that follow, numbered from 0 on in their spelling.
func (n tokenNumbers) then(format string, count int) tokenNumbers {
	return n.thenFrom(format, 0, count)
}

func (n tokenNumbers) thenFrom(format string, from, count int) tokenNumbers {
	next := int32(0)
	for _, id := range n {
		next = max(next, id+1)
	}
	for i := range count {
		n[fmt.Sprintf(format, from+i)] = next + int32(i)
	}
	return n
}

func harmonySpecial() tokenNumbers {
	n := numbered(199998, "<|startoftext|>", "<|endoftext|>", "<|reserved_200000|>", "<|reserved_200001|>", "<|return|>", "<|constrain|>",
		"<|reserved_200004|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|reserved_200009|>", "<|reserved_200010|>",
		"<|reserved_200011|>", "<|call|>").thenFrom("<|reserved_%d|>", 200013, 1075)
	n["<|endofprompt|>"] = 200018 // beside <|reserved_200018|>, as there
	return n
}

// tiktokenRanks is what a file says: the bytes of each token by rank, "" where
// there is none.
type tiktokenRanks struct {
	tokens []string
	ranks  map[string]int32
}

// parseTiktoken reads a file. Errors name the line.
func parseTiktoken(data []byte) (*tiktokenRanks, error) {
	lines := bytes.Count(data, []byte{'\n'}) + 1
	r := &tiktokenRanks{ranks: make(map[string]int32, lines)}
	byRank := make(map[int32]string, lines)
	highest := int64(-1)
	for n := 1; len(data) > 0; n++ {
		line, rest, _ := bytes.Cut(data, []byte{'\n'})
		data = rest
		if line = bytes.TrimSuffix(line, []byte{'\r'}); len(line) == 0 {
			continue
		}
		text, number, ok := bytes.Cut(line, []byte{' '})
		if !ok {
			return nil, fmt.Errorf("line %d: %q is not a token in base64, a space and a rank", n, clip(string(line)))
		}
		token := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		size, err := base64.StdEncoding.Decode(token, text)
		if err != nil {
			return nil, fmt.Errorf("line %d: token %q: %w", n, clip(string(text)), err)
		}
		token = token[:size]
		rank, err := strconv.ParseInt(string(number), 10, 64)
		switch {
		case err != nil || rank < 0 || rank > maxID:
			return nil, fmt.Errorf("line %d: rank %q is not a number from 0 to %d", n, clip(string(number)), maxID)
		case size == 0 || size > maxPiece:
			return nil, fmt.Errorf("line %d: a token of %d bytes, expected 1 to %d", n, size, maxPiece)
		}
		if old, ok := r.ranks[string(token)]; ok {
			return nil, fmt.Errorf("line %d: token %q has the rank %d already", n, clip(string(token)), old)
		}
		if _, ok := byRank[int32(rank)]; ok {
			return nil, fmt.Errorf("line %d: rank %d occurs twice", n, rank)
		}
		r.ranks[string(token)], byRank[int32(rank)] = int32(rank), string(token)
		highest = max(highest, rank)
	}
	for b := range 256 {
		if _, ok := r.ranks[string([]byte{byte(b)})]; !ok {
			return nil, fmt.Errorf("no token for the byte 0x%02X; is this a tiktoken file?", b)
		}
	}
	if err := checkID(highest, len(byRank)); err != nil {
		return nil, err
	}
	r.tokens = make([]string, highest+1)
	for rank, token := range byRank {
		r.tokens[rank] = token
	}
	return r, nil
}

// pairs calls f for the ways to make a token of two others, by rank.
func (r *tiktokenRanks) pairs(f func(left, right, joined int32)) {
	for rank, token := range r.tokens {
		for i := 1; i < len(token); i++ {
			if left, ok := r.ranks[token[:i]]; ok {
				if right, ok := r.ranks[token[i:]]; ok {
					f(left, right, int32(rank))
				}
			}
		}
	}
}

// model makes the BPE. Its ranks are those of the tokens, so that of two ways to
// make a token the left one in the text counts.
func (r *tiktokenRanks) model() (*bpe, error) {
	v := vocabulary{tokens: make([]string, len(r.tokens)), ids: make(map[string]int32, len(r.tokens))}
	for token, rank := range r.ranks {
		s := toByteAlphabet(token)
		v.tokens[rank], v.ids[s] = s, rank
	}
	m, err := newBPE(v, nil, bpeOptions{ignoreMerges: true, endsInBytes: true})
	if err != nil {
		return nil, err
	}
	n := 0
	if r.pairs(func(_, _, _ int32) { n++ }); n > maxMerges {
		return nil, fmt.Errorf("the tokens have more than %d ways to be joined, which is too many", maxMerges)
	}
	m.merges = newMergeTable(n)
	r.pairs(func(left, right, joined int32) { m.merges.set(left, right, uint32(joined), joined) })
	return m, nil
}

// modelJSON writes the model as transformers does.
func (r *tiktokenRanks) modelJSON() []byte {
	var b bytes.Buffer
	b.WriteString("{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n" +
		"    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": true,\n    \"vocab\": {")
	names := make([]string, len(r.tokens))
	first := true
	for rank, token := range r.tokens {
		if token == "" {
			continue
		}
		names[rank] = string(quoteJSON(toByteAlphabet(token)))
		b.WriteString(commaLine[b2i(first)] + names[rank] + ": " + strconv.Itoa(rank))
		first = false
	}
	b.WriteString("\n    },\n    \"merges\": [")
	var list [][3]int32
	r.pairs(func(left, right, joined int32) { list = append(list, [3]int32{joined, left, right}) })
	slices.SortFunc(list, func(a, b [3]int32) int { return slices.Compare(a[:], b[:]) })
	for i, p := range list {
		b.WriteString(commaLine[b2i(i == 0)] + "[" + names[p[1]] + ", " + names[p[2]] + "]")
	}
	b.WriteString("\n    ]\n  }")
	return b.Bytes()
}

// tokenizer makes the pipeline.
func (r *tiktokenRanks) tokenizer(e tiktokenEncoding) (*Tokenizer, error) {
	t := &Tokenizer{decoders: []decoder{byteLevelDecoder{}}}
	p, err := newRegex(e.pattern)
	if err != nil {
		return nil, err
	}
	split := component{"type": "Split", "pattern": component{"Regex": e.pattern}, "behavior": "Isolated", "invert": false}
	t.pre = []preTokenizer{splitPreTokenizer{pattern: p}}
	var normalizers []component
	if e.nfc {
		n, err := readNormalizer([]byte(`{"type": "NFC"}`), "normalizer", 0)
		if err != nil {
			return nil, err
		}
		t.normalizer, normalizers = n, []component{{"type": "NFC"}}
	}
	if t.model, err = r.model(); err != nil {
		return nil, err
	}
	t.added = addedVocabulary{tokens: map[int32]AddedToken{}, ids: map[string]int32{}}
	if e.ranks == len(r.ranks) {
		for token, id := range e.special {
			t.added.tokens[id] = AddedToken{Content: token, Special: true}
			t.added.ids[token] = id
		}
	}
	t.rebuildAdded()
	t.compose = func() *object {
		d := newDocument(t.addedJSON())
		d.setComponent("normalizer", normalizers)
		d.set("pre_tokenizer", component{"type": "Sequence", "pretokenizers": []component{split, byteLevelJSON}})
		d.setPost(t)
		d.set("decoder", byteLevelJSON)
		d.setRaw("model", r.modelJSON())
		return d
	}
	return t, nil
}

var byteLevelJSON = component{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}

// isTiktoken says whether a file looks like one of tiktoken: Llama 3 has one
// under the name tokenizer.model, as others have sentencepiece's.
func isTiktoken(data []byte) bool {
	line, _, _ := bytes.Cut(data[:min(len(data), 4*maxPiece)], []byte{'\n'})
	text, number, ok := bytes.Cut(bytes.TrimSuffix(line, []byte{'\r'}), []byte{' '})
	if !ok {
		return false
	}
	_, err := base64.StdEncoding.DecodeString(string(text))
	_, err2 := strconv.ParseUint(string(number), 10, 32)
	return err == nil && err2 == nil
}

var errNoPattern = errors.New("its pattern is unknown: a tiktoken file says not how text is cut; name the file after its encoding " +
	`(r50k_base, p50k_base, cl100k_base, o200k_base, qwen or llama3), or give "pat_str" in tokenizer_config.json`)

// parseTiktokenFile reads the content of a tiktoken file. pattern is that of the
// folder's configuration; where it is empty, the file's name or its number of
// ranks says which encoding it is.
func parseTiktokenFile(data []byte, path, pattern string) (*Tokenizer, error) {
	if len(data) > maxModelFile {
		return nil, fmt.Errorf("%s: %d bytes are too many, at most %d are read", path, len(data), maxModelFile)
	}
	r, err := parseTiktoken(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	e, ok := findEncoding(filepath.Base(path), len(r.ranks))
	if pattern != "" {
		e.pattern, ok = pattern, true
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, errNoPattern)
	}
	t, err := r.tokenizer(e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func findEncoding(file string, ranks int) (tiktokenEncoding, bool) {
	for _, e := range tiktokenEncodings {
		if strings.Contains(strings.ToLower(file), e.name) {
			return e, true
		}
	}
	for _, name := range []string{"llama3", "qwen"} { // whose files have no telling name
		for _, e := range tiktokenEncodings {
			if e.name == name && e.ranks == ranks {
				return e, true
			}
		}
	}
	return tiktokenEncoding{}, false
}
