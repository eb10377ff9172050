package folder

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ringtail/gguf"
	"ringtail/tokenizer"
)

// GGUFMetadata describes the tokenizer and the chat templates of a folder, or of a
// GGUF file, for a model of rows tokens, as llama.cpp reads them: its lists, padded to
// rows, and the whole tokenizer.json, for readers that want it exactly. warning,
// if not empty, says what llama.cpp would do otherwise.
func GGUFMetadata(from string, rows int) (pairs []gguf.Pair, warning string, err error) {
	if gguf.Is(from) {
		pairs, err = copyMetadata(from)
		return pairs, "", err
	}
	t, err := OpenTokenizer(from)
	if err != nil {
		return nil, "", err
	}
	if t.Size() > rows {
		return nil, "", fmt.Errorf("%s: the tokenizer has %d tokens, the model only %d rows: they don't belong together", from, t.Size(), rows)
	}
	w := &metadataWriter{t: t, rows: rows}
	if err := w.write(); err != nil {
		return nil, "", fmt.Errorf("%s: %w", from, err)
	}
	if w.warning == "" {
		w.warning = w.compare()
	}
	if w.warning != "" {
		w.warning = fmt.Sprintf("%s: %s (Ringtail reads the whole tokenizer.json from the file)", from, w.warning)
	}
	return w.pairs, w.warning, nil
}

// copyMetadata takes the tokenizer of a GGUF file as it is.
func copyMetadata(path string) ([]gguf.Pair, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []gguf.Pair
	for _, p := range f.Metadata().Pairs {
		if strings.HasPrefix(p.Key, "tokenizer.") {
			out = append(out, p)
		}
	}
	return out, nil
}

// metadataWriter turns a tokenizer into metadata.
type metadataWriter struct {
	t       *tokenizer.Tokenizer
	rows    int
	doc     tokenizerJSON
	pairs   []gguf.Pair
	warning string
}

// tokenizerJSON are the parts of a tokenizer.json that matter here.
type tokenizerJSON struct {
	Normalizer   *stage `json:"normalizer"`
	PreTokenizer *stage `json:"pre_tokenizer"`
	Model        struct {
		Type         string            `json:"type"`
		UnkToken     *string           `json:"unk_token"`
		UnkID        *int              `json:"unk_id"`
		Fallback     bool              `json:"byte_fallback"`
		IgnoreMerges bool              `json:"ignore_merges"`
		Vocab        json.RawMessage   `json:"vocab"`
		Merges       []json.RawMessage `json:"merges"`
	} `json:"model"`
}

func (w *metadataWriter) add(key string, v any) {
	w.pairs = append(w.pairs, gguf.Pair{Key: key, Value: v})
}

func (w *metadataWriter) write() error {
	if err := json.Unmarshal(w.t.JSON(), &w.doc); err != nil {
		return fmt.Errorf("tokenizer.json: %w", err)
	}
	types := make([]int32, w.rows)
	tokens := w.tokens(types)
	unk := -1
	var err error
	m := w.doc.Model
	if m.UnkToken != nil {
		if id, ok := w.t.ID(*m.UnkToken); ok {
			unk = int(id)
		}
	}
	switch {
	case m.Type == "Unigram":
		if m.UnkID != nil {
			unk = *m.UnkID
		}
		err = w.unigram(tokens, types, unk)
	case m.Type == "BPE" || m.Type == "" && len(m.Merges) > 0:
		if isByteLevel(w.doc.PreTokenizer) {
			err = w.byteLevel(tokens, types)
		} else {
			err = w.sentencepiece(tokens, types, unk)
		}
	default:
		err = fmt.Errorf("a tokenizer of the kind %s has no form in GGUF", m.Type)
	}
	if err != nil {
		return err
	}
	c := w.t.Config()
	w.specials(c, unk)
	w.add(keyJSON, string(w.t.JSON()))
	if c.ChatTemplate != "" {
		w.add(keyTemplate, c.ChatTemplate)
	}
	if len(c.ChatTemplates) > 0 {
		names := slices.Sorted(maps.Keys(c.ChatTemplates))
		w.add(keyTemplates, names)
		for _, n := range names {
			w.add(keyTemplate+"."+n, c.ChatTemplates[n])
		}
	}
	return nil
}

// tokens lists the spelling of every row, and their types.
func (w *metadataWriter) tokens(types []int32) []string {
	out := make([]string, w.rows)
	used := map[string]bool{}
	added := map[int32]tokenizer.AddedToken{}
	ids, list := w.t.AddedTokens()
	for i, id := range ids {
		added[id] = list[i]
	}
	for id := range out {
		s, ok := w.t.Token(int32(id))
		if !ok || s == "" {
			continue
		}
		types[id] = tokenNormal
		if a, is := added[int32(id)]; is {
			types[id] = tokenUserDefined
			if a.Special {
				types[id] = tokenControl
			}
		}
		out[id], used[s] = s, true
	}
	for id := range out {
		if out[id] == "" {
			out[id], types[id] = fmt.Sprintf("[PAD%d]", id), tokenUnused
			for used[out[id]] {
				out[id] = "[" + out[id] + "]"
			}
			used[out[id]] = true
		}
	}
	return out
}

// specials writes the ids of special tokens, and which of them the post-processor
// puts around a text: GGUF has one before and one behind it.
func (w *metadataWriter) specials(c *tokenizer.Config, unk int) {
	id := func(token string) int {
		if n, ok := w.t.ID(token); ok && token != "" {
			return int(n)
		}
		return -1
	}
	bos, eos := id(c.BOS), id(c.EOS)
	const text = "a"
	plain, whole := w.t.Encode(text, tokenizer.EncodeOptions{}), w.t.Encode(text, tokenizer.EncodeOptions{AddSpecial: true})
	before, after := -1, -1
	if n := len(whole) - len(plain); n > 0 {
		if !slices.Equal(whole[:len(plain)], plain) {
			before = int(whole[0])
		}
		if !slices.Equal(whole[n:], plain) {
			after = int(whole[len(whole)-1])
		}
	}
	if bos < 0 { // a tokenizer.json alone gives tokens no names
		bos = before
	}
	if eos < 0 {
		eos = after
	}
	if n := id(c.UNK); n >= 0 {
		unk = n
	}
	for _, s := range []struct {
		key string
		id  int
	}{{keyBOS, bos}, {keyEOS, eos}, {keyUNK, unk}, {keyPAD, id(c.PAD)}} {
		if s.id >= 0 {
			w.add(s.key, uint32(s.id))
		}
	}
	w.add(keyAddBOS, before >= 0 && before == bos)
	w.add(keyAddEOS, after >= 0 && after == eos)
}

func (w *metadataWriter) byteLevel(tokens []string, types []int32) error {
	splits, prefix, ok := splitsOf(w.doc.PreTokenizer)
	nfc := hasStep(w.doc.Normalizer, "NFC")
	name := defaultPre
	if ok {
		name, ok = preTokenizerOf(splits, nfc, w.doc.Model.IgnoreMerges)
	}
	if !ok {
		w.warning = "llama.cpp has no pre-tokenizer like this tokenizer's; it will cut text into words its default way, and make other tokens"
	}
	merges := make([]string, len(w.doc.Model.Merges))
	for i, raw := range w.doc.Model.Merges {
		var pair [2]string
		if json.Unmarshal(raw, &merges[i]) == nil {
			continue
		}
		if err := json.Unmarshal(raw, &pair); err != nil {
			return fmt.Errorf("tokenizer.json: model.merges[%d]: %w", i, err)
		}
		for j := range pair {
			pair[j] = strings.ReplaceAll(pair[j], " ", "Ġ") // as llama.cpp's converter writes them
		}
		merges[i] = pair[0] + " " + pair[1]
	}
	w.add(keyModel, "gpt2")
	w.add(keyPre, name)
	w.add(keyTokens, tokens)
	w.add(keyTypes, types)
	w.add(keyMerges, merges)
	if prefix {
		w.add(keySpacePrefix, true)
	}
	return nil
}

func (w *metadataWriter) sentencepiece(tokens []string, types []int32, unk int) error {
	mark := slices.ContainsFunc(w.doc.Normalizer.flat(), func(s stage) bool { return s.Type == "Replace" && s.Content == spaceMark }) ||
		hasStep(w.doc.PreTokenizer, "Metaspace")
	if !mark {
		return fmt.Errorf("a BPE tokenizer that neither works on bytes nor writes %s for spaces has no form in GGUF", spaceMark)
	}
	w.marks(tokens, types, unk)
	scores := make([]float32, len(tokens))
	rank := map[string]int{}
	for i, raw := range w.doc.Model.Merges {
		var pair [2]string
		if json.Unmarshal(raw, &pair) != nil {
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return fmt.Errorf("tokenizer.json: model.merges[%d]: %w", i, err)
			}
			pair[0], pair[1], _ = strings.Cut(s, " ")
		}
		if _, seen := rank[pair[0]+pair[1]]; !seen {
			rank[pair[0]+pair[1]] = len(rank) + 1
		}
	}
	for id, s := range tokens {
		if n, ok := rank[s]; ok {
			scores[id] = -float32(n) // whole numbers are exact up to 2^24
		} else if types[id] == tokenNormal {
			scores[id] = -float32(len(rank) + 1) // characters: no merge makes them
		}
	}
	w.add(keyModel, "llama")
	w.add(keyPre, defaultPre)
	w.add(keyTokens, tokens)
	w.add(keyScores, scores)
	w.add(keyTypes, types)
	w.add(keySpacePrefix, w.prefixed())
	return nil
}

// marks tells byte tokens and the unknown one, and writes spaces in user-defined
// tokens as they stand in text.
func (w *metadataWriter) marks(tokens []string, types []int32, unk int) {
	for id, s := range tokens {
		switch {
		case id == unk:
			types[id] = tokenUnknown
		case types[id] == tokenUserDefined:
			tokens[id] = strings.ReplaceAll(s, spaceMark, " ")
		case w.doc.Model.Fallback && types[id] == tokenNormal && isByteToken(s):
			types[id] = tokenByte
		}
	}
}

func isByteToken(s string) bool {
	var b byte
	n, err := fmt.Sscanf(s, "<0x%02X>", &b)
	return err == nil && n == 1 && len(s) == 6
}

// prefixed tells whether a space is put before a text.
func (w *metadataWriter) prefixed() bool {
	for _, s := range append(w.doc.Normalizer.flat(), w.doc.PreTokenizer.flat()...) {
		switch {
		case s.Type == "Prepend", s.Type == "Replace" && s.Content == spaceMark && s.Pattern["Regex"] != nil:
			return true
		case s.Type == "Metaspace":
			if s.PrependScheme != "" {
				return s.PrependScheme != "never"
			}
			return s.AddPrefixSpace == nil || *s.AddPrefixSpace
		}
	}
	return false
}

func (w *metadataWriter) unigram(tokens []string, types []int32, unk int) error {
	var vocab [][2]json.RawMessage
	if err := json.Unmarshal(w.doc.Model.Vocab, &vocab); err != nil {
		return fmt.Errorf("tokenizer.json: model.vocab: %w", err)
	}
	scores := make([]float32, len(tokens))
	for id := range min(len(vocab), len(scores)) {
		if err := json.Unmarshal(vocab[id][1], &scores[id]); err != nil {
			return fmt.Errorf("tokenizer.json: model.vocab[%d]: %w", id, err)
		}
	}
	w.marks(tokens, types, unk)
	w.add(keyModel, "t5")
	w.add(keyPre, defaultPre)
	w.add(keyTokens, tokens)
	w.add(keyScores, scores)
	w.add(keyTypes, types)
	w.add(keySpacePrefix, w.prefixed())
	extra := false
	for _, s := range w.doc.Normalizer.flat() {
		if expr, _ := s.Pattern["Regex"].(string); s.Type == "Replace" && strings.HasPrefix(expr, " {2,}") {
			extra = true
		}
		if s.Type == "Precompiled" {
			var text string
			if err := json.Unmarshal(s.Charsmap, &text); err != nil {
				return fmt.Errorf("tokenizer.json: normalizer.precompiled_charsmap: %w", err)
			}
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return fmt.Errorf("tokenizer.json: normalizer.precompiled_charsmap: %w", err)
			}
			w.add(keyCharsmap, b)
		}
	}
	w.add(keyExtraSpaces, extra)
	return nil
}

// probes are texts on which tokenizers tend to differ.
var probes = []string{"", " ", "  two  spaces ", "Hello, world! It's 2024: 1234567 + 3.14", "I'M SURE we'Ll\n\n\n go\r\n\thome  ",
	"你好，世界！我在Apple工作1314年", "नमस्ते दुनिया", "Привет ~~~ ``` ''' --- ///", "emoji 🚀👩‍👩‍👧 é e\u0301 ﬁ Å", "<|endoftext|> [INST]", "\x00\x7f\u200b\ufeff"}

// compare says where the tokenizer that llama.cpp's lists describe makes other
// tokens than the one that they were made of.
func (w *metadataWriter) compare() string {
	t, err := ggufTokenizer(gguf.NewMetadata(w.pairs), "", false)
	if err != nil {
		return fmt.Sprintf("llama.cpp's form of this tokenizer can't be read: %v", err)
	}
	for _, text := range probes {
		for _, special := range []bool{false, true} {
			o := tokenizer.EncodeOptions{AddSpecial: special, PlainSpecial: true} // sentencepiece knows no others
			if a, b := w.t.Encode(text, o), t.Encode(text, o); !slices.Equal(a, b) {
				return fmt.Sprintf("llama.cpp's form of this tokenizer makes other tokens of some texts, such as %q", text)
			}
		}
	}
	return ""
}
