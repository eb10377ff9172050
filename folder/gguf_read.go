package folder

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"ringtail/gguf"
	"ringtail/tokenizer"
)

// Keys of a tokenizer in GGUF's metadata.
const (
	keyModel       = "tokenizer.ggml.model"
	keyPre         = "tokenizer.ggml.pre"
	keyTokens      = "tokenizer.ggml.tokens"
	keyScores      = "tokenizer.ggml.scores"
	keyTypes       = "tokenizer.ggml.token_type"
	keyMerges      = "tokenizer.ggml.merges"
	keyBOS         = "tokenizer.ggml.bos_token_id"
	keyEOS         = "tokenizer.ggml.eos_token_id"
	keyUNK         = "tokenizer.ggml.unknown_token_id"
	keyPAD         = "tokenizer.ggml.padding_token_id"
	keyAddBOS      = "tokenizer.ggml.add_bos_token"
	keyAddEOS      = "tokenizer.ggml.add_eos_token"
	keySpacePrefix = "tokenizer.ggml.add_space_prefix"
	keyExtraSpaces = "tokenizer.ggml.remove_extra_whitespaces"
	keyCharsmap    = "tokenizer.ggml.precompiled_charsmap"
	keyJSON        = "tokenizer.huggingface.json"
	keyTemplate    = "tokenizer.chat_template"
	keyTemplates   = "tokenizer.chat_templates"
)

// Kinds of tokens, as sentencepiece numbers them.
const (
	tokenNormal      = 1
	tokenUnknown     = 2
	tokenControl     = 3
	tokenUserDefined = 4
	tokenUnused      = 5
	tokenByte        = 6
)

// ErrNoTokenizer is wrapped by the error about a GGUF file that holds a model alone.
var ErrNoTokenizer = errors.New("the file has no tokenizer")

const spaceMark = "\u2581" // sentencepiece's space

// openGGUFTokenizer reads the tokenizer and the chat templates of a GGUF file: the
// tokenizer.json that the file holds whole, or else one made of llama.cpp's lists.
func openGGUFTokenizer(path string) (*tokenizer.Tokenizer, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := ggufTokenizer(f.Metadata(), path, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// ggufTokenizer makes the tokenizer of metadata; whole takes tokenizer.huggingface.json,
// where there is one, for the rest.
func ggufTokenizer(m *gguf.Metadata, name string, whole bool) (*tokenizer.Tokenizer, error) {
	v, err := readVocabulary(m)
	if err != nil {
		return nil, err
	}
	text, has, err := m.Text(keyJSON)
	if err != nil {
		return nil, err
	}
	if !has || !whole {
		doc, err := v.document()
		if err != nil {
			return nil, err
		}
		b, err := json.Marshal(doc)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	t, err := tokenizer.Parse([]byte(text), "tokenizer")
	if err != nil {
		return nil, err
	}
	if n := len(v.tokens); t.Size() > n {
		return nil, fmt.Errorf("metadata %s has %d tokens, but %s lists %d", keyJSON, t.Size(), keyTokens, n)
	}
	c := t.Config()
	for to, id := range map[*string]int{&c.BOS: v.bos, &c.EOS: v.eos, &c.UNK: v.unk, &c.PAD: v.pad} {
		if id >= 0 {
			*to, _ = t.Token(int32(id))
		}
	}
	if m.Has(keyAddBOS) {
		c.AddBOS = &v.addBOS
	}
	if m.Has(keyAddEOS) {
		c.AddEOS = &v.addEOS
	}
	if c.ChatTemplate, _, err = m.Text(keyTemplate); err != nil {
		return nil, err
	}
	if c.ChatTemplate != "" {
		c.ChatTemplateSource = name + ", " + keyTemplate
	}
	names, _, err := m.Texts(keyTemplates)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		text, ok, err := m.Text(keyTemplate + "." + n)
		if err != nil {
			return nil, err
		}
		if ok && n != "" && n != "default" {
			if c.ChatTemplates == nil {
				c.ChatTemplates = map[string]string{}
			}
			c.ChatTemplates[n] = text
		}
	}
	return t, nil
}

// vocabulary is what metadata say of a tokenizer.
type vocabulary struct {
	model, pre         string
	arch               string
	tokens             []string
	types              []int64
	scores             []float64
	merges             []string
	bos, eos, unk, pad int // -1: none
	addBOS, addEOS     bool
	spacePrefix        bool
	extraSpaces        bool // runs of spaces become one
	charsmap           []byte
}

// readVocabulary reads and checks the lists, with llama.cpp's defaults.
func readVocabulary(m *gguf.Metadata) (*vocabulary, error) {
	v := &vocabulary{bos: -1, eos: -1, unk: -1, pad: -1}
	var ok bool
	var err error
	if v.model, ok, err = m.Text(keyModel); err != nil {
		return nil, err
	}
	if !ok || v.model == "none" || v.model == "no_vocab" {
		return nil, fmt.Errorf("%w (metadata %s): give a folder or tokenizer.json that fits the model", ErrNoTokenizer, keyModel)
	}
	if v.tokens, ok, err = m.Texts(keyTokens); err != nil || !ok || len(v.tokens) == 0 {
		if err == nil {
			err = fmt.Errorf("metadata %s is missing or empty", keyTokens)
		}
		return nil, err
	}
	n := len(v.tokens)
	if v.types, ok, err = m.Ints(keyTypes); err == nil && ok && len(v.types) < n {
		err = fmt.Errorf("metadata %s has %d elements, expected one a token, %d", keyTypes, len(v.types), n)
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		v.types = make([]int64, n)
	}
	if v.scores, ok, err = m.Floats(keyScores); err == nil && ok && len(v.scores) < n {
		err = fmt.Errorf("metadata %s has %d elements, expected one a token, %d", keyScores, len(v.scores), n)
	}
	if err != nil {
		return nil, err
	}
	if v.merges, _, err = m.Texts(keyMerges); err != nil {
		return nil, err
	}
	if v.pre, _, err = m.Text(keyPre); err != nil {
		return nil, err
	}
	v.arch, _, _ = m.Text("general.architecture")
	switch v.model {
	case "llama":
		v.bos, v.eos, v.unk = 1, 2, 0
		v.addBOS, v.spacePrefix = true, true
	case "t5":
		v.eos, v.unk, v.pad = 1, 2, 0
		v.addEOS, v.spacePrefix, v.extraSpaces = true, true, true
	case "gpt2":
		p, known := preTokenizerNamed(v.pre)
		if !known {
			return nil, fmt.Errorf("metadata %s is %.60q, which is not known to this version; give the model's own tokenizer.json", keyPre, v.pre)
		}
		v.addBOS = p.bos
	default:
		return nil, fmt.Errorf("metadata %s is %.60q, expected gpt2, llama or t5", keyModel, v.model)
	}
	for key, to := range map[string]*int{keyBOS: &v.bos, keyEOS: &v.eos, keyUNK: &v.unk, keyPAD: &v.pad} {
		id, ok, err := m.Int(key)
		if err != nil {
			return nil, err
		}
		if ok {
			*to = int(max(-1, min(id, math.MaxInt32)))
		}
		if *to >= n || id == math.MaxUint32 { // some files write 2^32-1 for none
			*to = -1
		}
	}
	for key, to := range map[string]*bool{keyAddBOS: &v.addBOS, keyAddEOS: &v.addEOS, keySpacePrefix: &v.spacePrefix, keyExtraSpaces: &v.extraSpaces} {
		b, ok, err := m.Bool(key)
		if err != nil {
			return nil, err
		}
		if ok {
			*to = b
		}
	}
	bytes, ok, err := m.Ints(keyCharsmap)
	if err != nil {
		return nil, err
	}
	if ok {
		v.charsmap = make([]byte, len(bytes))
		for i, b := range bytes {
			v.charsmap[i] = byte(b)
		}
	}
	return v, nil
}

// document is the tokenizer as a tokenizer.json.
func (v *vocabulary) document() (component, error) {
	doc := component{"version": "1.0", "truncation": nil, "padding": nil, "normalizer": nil, "pre_tokenizer": nil,
		"added_tokens": v.added(), "post_processor": v.around()}
	switch v.model {
	case "gpt2":
		return doc, v.byteLevel(doc)
	case "llama":
		return doc, v.sentencepiece(doc)
	}
	return doc, v.unigram(doc)
}

// added lists control and user-defined tokens.
func (v *vocabulary) added() []component {
	list := []component{}
	for id, text := range v.tokens {
		kind := v.types[id]
		special := kind == tokenControl || kind == tokenUnknown && v.model != "gpt2"
		if !special && kind != tokenUserDefined || text == "" {
			continue
		}
		// llama.cpp, too, takes away spaces behind Phi-3's tokens, of which its files say nothing.
		strip := v.arch == "phi3" && !slices.Contains([]string{"<unk>", "<s>", "<|endoftext|>"}, text)
		list = append(list, component{"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": strip,
			"normalized": false, "special": special})
	}
	return list
}

// around is the post-processor.
func (v *vocabulary) around() any {
	single, pair := []component{}, []component{}
	special := component{}
	token := func(list []component, id, part int) []component {
		s := v.tokens[id]
		special[s] = component{"id": s, "ids": []int{id}, "tokens": []string{s}}
		return append(list, component{"SpecialToken": component{"id": s, "type_id": part}})
	}
	for part, name := range []string{"A", "B"} {
		if v.addBOS && v.bos >= 0 {
			pair = token(pair, v.bos, part)
		}
		pair = append(pair, component{"Sequence": component{"id": name, "type_id": part}})
		if v.addEOS && v.eos >= 0 {
			pair = token(pair, v.eos, part)
		}
		if part == 0 {
			single = slices.Clone(pair)
		}
	}
	if len(special) == 0 {
		return nil
	}
	return component{"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
}

// ids is the vocabulary without the tokens of some kinds, unless needed says that
// merges make them. A token that stands twice is refused: no id would be its own.
func (v *vocabulary) ids(without []int64, needed map[string]bool) (map[string]int, error) {
	out := make(map[string]int, len(v.tokens))
	for id, s := range v.tokens {
		if slices.Contains(without, v.types[id]) && !needed[s] || s == "" {
			continue
		}
		if old, twice := out[s]; twice {
			return nil, fmt.Errorf("metadata %s has %.60q twice, as %d and %d", keyTokens, s, old, id)
		}
		out[s] = id
	}
	return out, nil
}

// byteLevel is GPT-2's kind of tokenizer: bytes joined by merges.
func (v *vocabulary) byteLevel(doc component) error {
	p, _ := preTokenizerNamed(v.pre)
	merges := make([][2]string, 0, len(v.merges))
	needed := map[string]bool{}
	for i, line := range v.merges {
		at := -1
		for j := 1; j < len(line); j++ { // a part may begin with a space
			if line[j] == ' ' {
				at = j
				break
			}
		}
		if at < 0 || at == len(line)-1 {
			return fmt.Errorf("metadata %s[%d] is %.60q, expected two tokens with a space between", keyMerges, i, line)
		}
		left, right := line[:at], line[at+1:]
		merges = append(merges, [2]string{left, right})
		needed[left], needed[right], needed[left+right] = true, true, true
	}
	vocab, err := v.ids([]int64{tokenControl, tokenUserDefined, tokenUnused}, needed)
	if err != nil {
		return err
	}
	if p.nfc {
		doc["normalizer"] = component{"type": "NFC"}
	}
	doc["pre_tokenizer"] = p.json(v.spacePrefix)
	doc["decoder"] = component{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}
	doc["model"] = component{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
		"fuse_unk": false, "byte_fallback": false, "ignore_merges": p.ignoreMerges, "vocab": vocab, "merges": merges}
	return nil
}

// sentencepiece is LLaMA's kind: characters joined to the token of highest score.
func (v *vocabulary) sentencepiece(doc component) error {
	if v.scores == nil {
		return fmt.Errorf("metadata %s is missing: without it tokens of %s %q can't be joined", keyScores, keyModel, v.model)
	}
	vocab, err := v.ids([]int64{tokenUserDefined, tokenUnused}, nil)
	if err != nil {
		return err
	}
	steps := []component{}
	decoders := []component{replace(spaceMark, " "), {"type": "ByteFallback"}, {"type": "Fuse"}}
	if v.spacePrefix {
		steps = append(steps, component{"type": "Prepend", "prepend": spaceMark})
		decoders = append(decoders, component{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	steps = append(steps, replace(" ", spaceMark))
	doc["normalizer"] = component{"type": "Sequence", "normalizers": steps}
	doc["decoder"] = component{"type": "Sequence", "decoders": decoders}
	var unk any
	if v.unk >= 0 {
		unk = v.tokens[v.unk]
		vocab[v.tokens[v.unk]] = v.unk
	}
	doc["model"] = component{"type": "BPE", "dropout": nil, "unk_token": unk, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
		"fuse_unk": true, "byte_fallback": v.hasBytes(), "ignore_merges": false, "vocab": vocab, "merges": v.scoredMerges()}
	return nil
}

func replace(what, by string) component {
	return component{"type": "Replace", "pattern": component{"String": what}, "content": by}
}

func (v *vocabulary) hasBytes() bool { return slices.Contains(v.types, tokenByte) }

// scoredMerges lists the pairs that spell a token, in the order in which they are to
// be joined: by score, then by length as transformers does.
func (v *vocabulary) scoredMerges() [][2]string {
	type merge struct {
		parts       [2]string
		score       float64
		left, right int
	}
	joins := func(id int) bool { return v.types[id] == tokenNormal || v.types[id] == 0 }
	pieces := make(map[string]bool, len(v.tokens))
	for id, s := range v.tokens {
		if joins(id) {
			pieces[s] = true
		}
	}
	const longest = 1 << 10 // bytes: splits of a token are tried at each of its characters
	var list []merge
	for id, s := range v.tokens {
		if !joins(id) || len(s) > longest {
			continue
		}
		for i := 1; i < len(s); i++ {
			if left, right := s[:i], s[i:]; utf8.RuneStart(s[i]) && pieces[left] && pieces[right] {
				list = append(list, merge{[2]string{left, right}, v.scores[id], utf8.RuneCountInString(left), utf8.RuneCountInString(right)})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b merge) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.left, a.left), cmp.Compare(b.right, a.right))
	})
	out := make([][2]string, len(list))
	for i, p := range list {
		out[i] = p.parts
	}
	return out
}

// unigram is T5's kind: the likeliest way to spell a text.
func (v *vocabulary) unigram(doc component) error {
	if v.scores == nil {
		return fmt.Errorf("metadata %s is missing: tokens of %s %q are chosen by it", keyScores, keyModel, v.model)
	}
	if v.unk < 0 {
		return fmt.Errorf("metadata %s is missing: a tokenizer of %s %q needs one", keyUNK, keyModel, v.model)
	}
	vocab := make([][2]any, len(v.tokens))
	for id, s := range v.tokens {
		vocab[id] = [2]any{s, v.scores[id]}
	}
	steps := []component{}
	if len(v.charsmap) > 0 {
		steps = append(steps, component{"type": "Precompiled", "precompiled_charsmap": base64.StdEncoding.EncodeToString(v.charsmap)})
	}
	if v.extraSpaces {
		steps = append(steps, component{"type": "Strip", "strip_left": false, "strip_right": true},
			component{"type": "Replace", "pattern": component{"Regex": " {2,}"}, "content": spaceMark})
	}
	if len(steps) > 0 {
		doc["normalizer"] = component{"type": "Sequence", "normalizers": steps}
	}
	scheme := "never"
	if v.spacePrefix {
		scheme = "always"
	}
	mark := component{"type": "Metaspace", "replacement": spaceMark, "prepend_scheme": scheme, "split": true}
	doc["pre_tokenizer"] = mark
	doc["decoder"] = mark
	if v.hasBytes() {
		doc["decoder"] = component{"type": "Sequence", "decoders": []component{{"type": "ByteFallback"}, mark}}
	}
	doc["model"] = component{"type": "Unigram", "unk_id": v.unk, "byte_fallback": v.hasBytes(), "vocab": vocab}
	return nil
}
