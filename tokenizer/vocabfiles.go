package tokenizer

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Folders without tokenizer.json: those that transformers' Python tokenizers
// wrote. The vocabulary is in a file of the kind's own, everything else in
// tokenizer_config.json, special_tokens_map.json and added_tokens.json, and
// partly in the Python class that tokenizer_config.json names.

// Names under which a folder has its vocabulary, in the order in which they
// count.
var sentencepieceFiles = []string{"tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "sentencepiece.model"}

const (
	vocabFile     = "vocab.json"
	mergesFile    = "merges.txt"
	wordPieceFile = "vocab.txt"
	addedFile     = "added_tokens.json"
)

// tokenizerClass is what a class of transformers does by itself.
type tokenizerClass struct {
	bos, eos bool // put around a text, where the configuration does not say
	pattern  string
	nfc      bool
	fairseq  bool // XLM-R's ids: its own control tokens, then the model's pieces from the fourth on
	extra    int  // T5's <extra_id_N>, from the end of the vocabulary downwards
	names    Config
}

var tokenizerClasses = map[string]tokenizerClass{
	"LlamaTokenizer":      {bos: true},
	"CodeLlamaTokenizer":  {bos: true},
	"GemmaTokenizer":      {bos: true},
	"T5Tokenizer":         {eos: true, extra: 100, names: Config{PAD: "<pad>"}},
	"XLMRobertaTokenizer": {bos: true, eos: true, fairseq: true, names: Config{BOS: "<s>", EOS: "</s>", PAD: "<pad>", UNK: "<unk>"}},
	"GPT2Tokenizer":       {names: Config{BOS: "<|endoftext|>", EOS: "<|endoftext|>", UNK: "<|endoftext|>"}},
	"RobertaTokenizer":    {bos: true, eos: true, names: Config{BOS: "<s>", EOS: "</s>", PAD: "<pad>", UNK: "<unk>"}},
	"Qwen2Tokenizer":      {pattern: PatternQwen2, nfc: true, names: Config{EOS: "<|endoftext|>", PAD: "<|endoftext|>"}},
}

// modelClasses names the class of a model whose folder names none, by
// config.json's model_type.
var modelClasses = map[string]string{
	"llama": "LlamaTokenizer", "mistral": "LlamaTokenizer", "mixtral": "LlamaTokenizer", "gemma": "GemmaTokenizer", "gemma2": "GemmaTokenizer",
	"gemma3_text": "GemmaTokenizer", "gpt2": "GPT2Tokenizer", "opt": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer", "t5": "T5Tokenizer",
	"xlm-roberta": "XLMRobertaTokenizer", "roberta": "RobertaTokenizer",
}

// vocabFolder is such a folder.
type vocabFolder struct {
	dir     string
	config  *Config // names as the folder gives them
	docs    []*object
	class   tokenizerClass
	options struct {
		Class          *string `json:"tokenizer_class"`
		AddPrefixSpace *bool   `json:"add_prefix_space"`
		Legacy         *bool   `json:"legacy"`
		ExtraIDs       *int    `json:"extra_ids"`
		Pattern        *string `json:"pat_str"`
		Lower          *bool   `json:"do_lower_case"`
		StripAccents   *bool   `json:"strip_accents"`
		Chinese        *bool   `json:"tokenize_chinese_chars"`
	}
}

// loadVocabulary reads the tokenizer of a folder that has no tokenizer.json.
// config has the names in docs (tokenizer_config.json and
// special_tokens_map.json, nil where absent), which it completes. The error is
// fs.ErrNotExist where there is no vocabulary either.
func loadVocabulary(dir string, config *Config, docs ...*object) (*Tokenizer, error) {
	f := &vocabFolder{dir: dir, config: config, docs: docs}
	if err := f.readOptions(); err != nil {
		return nil, err
	}
	path, read := f.find()
	if read == nil {
		return nil, fs.ErrNotExist
	}
	t, err := read(path)
	if err != nil {
		return nil, err
	}
	t.config = *config
	if err := f.addTokens(t); err != nil {
		return nil, err
	}
	f.setPost(t)
	*config = t.config
	return t, nil
}

func (f *vocabFolder) readOptions() error {
	if doc := f.docs[0]; doc != nil {
		if err := decodeField(doc.bytes(), "", &f.options); err != nil {
			return fmt.Errorf("%s%w", filepath.Join(f.dir, configFile), err)
		}
	}
	name := ""
	if f.options.Class != nil {
		name = strings.TrimSuffix(*f.options.Class, "Fast")
	} else if doc, _, err := readObject(f.dir, "config.json"); err == nil && doc != nil {
		if kind, err := stringValue(doc.values["model_type"]); err == nil {
			name = modelClasses[kind]
		}
	}
	f.class = tokenizerClasses[name]
	if n := f.options.ExtraIDs; n != nil && f.class.extra > 0 {
		if *n < 0 || *n > 1<<16 {
			return fmt.Errorf("%s: extra_ids is %d, expected 0 to %d", filepath.Join(f.dir, configFile), *n, 1<<16)
		}
		f.class.extra = *n
	}
	return nil
}

// find returns the file that holds the vocabulary, and what reads it.
func (f *vocabFolder) find() (path string, read func(path string) (*Tokenizer, error)) {
	exists := func(name string) bool {
		st, err := os.Stat(filepath.Join(f.dir, name))
		return err == nil && st.Mode().IsRegular()
	}
	for _, name := range sentencepieceFiles {
		if exists(name) {
			return filepath.Join(f.dir, name), f.readModelFile
		}
	}
	ranks, _ := filepath.Glob(filepath.Join(f.dir, "*.tiktoken")) // the only error is about the pattern
	if len(ranks) > 0 {
		return ranks[0], f.readModelFile
	}
	switch {
	case exists("tiktoken.model"):
		return filepath.Join(f.dir, "tiktoken.model"), f.readModelFile
	case exists(vocabFile) && exists(mergesFile):
		return filepath.Join(f.dir, vocabFile), f.readGPT2
	case exists(wordPieceFile):
		return filepath.Join(f.dir, wordPieceFile), f.readBERT
	}
	return "", nil
}

// readModelFile reads a sentencepiece or a tiktoken file.
func (f *vocabFolder) readModelFile(path string) (*Tokenizer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if isTiktoken(data) {
		pattern := ""
		if f.options.Pattern != nil {
			pattern = *f.options.Pattern
		}
		return parseTiktokenFile(data, path, pattern)
	}
	m, err := readSentencepiece(data, path)
	if err != nil {
		return nil, err
	}
	if f.class.fairseq {
		m.toFairseq()
	}
	if f.options.AddPrefixSpace != nil {
		m.dummy = *f.options.AddPrefixSpace
	}
	t, err := m.folderTokenizer(f.options.Legacy != nil && !*f.options.Legacy)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.nameControls(m)
	return t, nil
}

// toFairseq renumbers the pieces as XLM-R has them: the model's own <unk>, <s>
// and </s> give way to four control tokens, and <mask> comes last.
func (m *spModel) toFairseq() {
	pieces := []spPiece{{"<s>", 0, pieceControl}, {"<pad>", 0, pieceControl}, {"</s>", 0, pieceControl}, {"<unk>", 0, pieceUnknown}}
	own := []string{"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
	for _, p := range m.pieces[min(3, len(m.pieces)):] {
		if !slices.Contains(own, p.text) && p.kind != pieceUnknown {
			pieces = append(pieces, p)
		}
	}
	m.pieces = append(pieces, spPiece{"<mask>", 0, pieceControl})
	m.unk, m.bosID, m.eosID, m.padID = 3, 0, 2, 1
	m.bosName, m.padName, m.eosName = "<s>", "<pad>", "</s>"
}

// folderTokenizer is tokenizer for a model folder: there control pieces are read
// in a text and shown, and with first a mark stands only before what the text
// begins with.
func (m *spModel) folderTokenizer(first bool) (*Tokenizer, error) {
	t, err := m.tokenizer()
	if err != nil {
		return nil, err
	}
	t.normalizer.(*spNormalizer).first = first
	d := t.decoders[0].(*spDecoder)
	d.hidden, d.asIs = nil, map[string]bool{}
	for i, p := range m.pieces {
		if p.kind == pieceControl || p.kind == pieceUnknown {
			t.added.tokens[int32(i)] = AddedToken{Content: p.text, Special: true}
			t.added.ids[p.text] = int32(i)
			d.asIs[p.text] = true
		}
	}
	t.control = nil
	t.rebuildAdded()
	t.compose = func() *object { return m.document(t, t.addedJSON(), first) }
	return t, nil
}

// nameControls takes names that the folder does not give from the model.
func (f *vocabFolder) nameControls(m *spModel) {
	name := func(to *string, id int32, s string) {
		if *to == "" && id >= 0 && int(id) < len(m.pieces) && m.pieces[id].text == s {
			*to = s
		}
	}
	name(&f.config.BOS, m.bosID, m.bosName)
	name(&f.config.EOS, m.eosID, m.eosName)
	name(&f.config.PAD, m.padID, m.padName)
	name(&f.config.UNK, m.unk, m.unkText())
}

// readGPT2 reads vocab.json and merges.txt: GPT-2's byte-level BPE, and what
// others have made of it.
func (f *vocabFolder) readGPT2(path string) (*Tokenizer, error) {
	vocab, _, err := readObject(f.dir, vocabFile)
	if err != nil {
		return nil, err
	}
	mergesPath := filepath.Join(f.dir, mergesFile)
	merges, err := readFile(mergesPath)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("{\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n    \"continuing_subword_prefix\": \"\",\n" +
		"    \"end_of_word_suffix\": \"\",\n    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"vocab\": ")
	b.Write(vocab.bytes())
	b.WriteString(",\n    \"merges\": [")
	first := true
	for n, line := range strings.Split(string(merges), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || n == 0 && strings.HasPrefix(line, "#version") {
			continue
		}
		left, right, ok := strings.Cut(line, " ")
		if !ok || strings.Contains(right, " ") {
			return nil, fmt.Errorf("%s: line %d: %q is not two tokens with a space between", mergesPath, n+1, clip(line))
		}
		b.WriteString(commaLine[b2i(first)] + "[" + string(quoteJSON(left)) + ", " + string(quoteJSON(right)) + "]")
		first = false
	}
	b.WriteString("\n    ]\n  }")

	space := f.options.AddPrefixSpace != nil && *f.options.AddPrefixSpace
	pre := component{"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": f.class.pattern == ""}
	d := newDocument(nil)
	d.setRaw("normalizer", []byte("null"))
	if f.class.nfc {
		d.setText("normalizer", `{"type": "NFC"}`)
	}
	if f.class.pattern == "" {
		d.set("pre_tokenizer", pre)
	} else {
		split := component{"type": "Split", "pattern": component{"Regex": f.class.pattern}, "behavior": "Isolated", "invert": false}
		d.set("pre_tokenizer", component{"type": "Sequence", "pretokenizers": []component{split, pre}})
	}
	d.set("post_processor", component{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true})
	d.set("decoder", byteLevelJSON)
	d.setRaw("model", b.Bytes())
	return f.parse(d, path)
}

// readBERT reads vocab.txt, WordPiece's vocabulary: a token a line.
func (f *vocabFolder) readBERT(path string) (*Tokenizer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for _, n := range []struct {
		to   *string
		name string
	}{{&f.config.UNK, "[UNK]"}, {&f.config.PAD, "[PAD]"}} {
		*n.to = cmp.Or(*n.to, n.name)
	}
	tokens := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	ids := map[string]int{}
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n    \"type\": \"WordPiece\",\n    \"unk_token\": %s,\n    \"continuing_subword_prefix\": \"##\",\n"+
		"    \"max_input_chars_per_word\": 100,\n    \"vocab\": {", quoteJSON(f.config.UNK))
	for id, s := range tokens {
		s = strings.TrimSuffix(s, "\r")
		if old, ok := ids[s]; ok {
			return nil, fmt.Errorf("%s: line %d: %q is in line %d already", path, id+1, clip(s), old+1)
		}
		ids[s] = id
		b.WriteString(commaLine[b2i(id == 0)] + string(quoteJSON(s)) + fmt.Sprintf(": %d", id))
	}
	b.WriteString("\n    }\n  }")
	var added []addedTokenJSON
	special := map[string]component{}
	for _, s := range []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} {
		if id, ok := ids[s]; ok {
			number := int64(id)
			added = append(added, addedTokenJSON{ID: &number, Content: s, Special: true})
			special[s] = component{"id": s, "ids": []int{id}, "tokens": []string{s}}
		}
	}
	slices.SortFunc(added, func(a, b addedTokenJSON) int { return cmp.Compare(*a.ID, *b.ID) })
	lower := f.options.Lower == nil || *f.options.Lower
	d := newDocument(added)
	d.set("normalizer", component{"type": "BertNormalizer", "clean_text": true, "lowercase": lower, "strip_accents": f.options.StripAccents,
		"handle_chinese_chars": f.options.Chinese == nil || *f.options.Chinese})
	d.setText("pre_tokenizer", `{"type": "BertPreTokenizer"}`)
	d.setRaw("post_processor", []byte("null"))
	if special["[CLS]"] != nil && special["[SEP]"] != nil {
		token := func(s string, typeID int) component {
			return component{"SpecialToken": component{"id": s, "type_id": typeID}}
		}
		text := func(s string, typeID int) component {
			return component{"Sequence": component{"id": s, "type_id": typeID}}
		}
		d.set("post_processor", component{"type": "TemplateProcessing",
			"single":         []component{token("[CLS]", 0), text("A", 0), token("[SEP]", 0)},
			"pair":           []component{token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)},
			"special_tokens": component{"[CLS]": special["[CLS]"], "[SEP]": special["[SEP]"]}})
	}
	d.setText("decoder", `{"type": "WordPiece", "prefix": "##", "cleanup": true}`)
	d.setRaw("model", b.Bytes())
	return f.parse(d, path)
}

// parse reads a document that was made of the file at path.
func (f *vocabFolder) parse(d *object, path string) (*Tokenizer, error) {
	t, err := Parse(d.bytes(), path)
	if err == nil {
		t.data = nil // the form is ours
	}
	return t, err
}

// folderToken is a token that the folder's files name. id is -1 where they do
// not say.
type folderToken struct {
	AddedToken
	id int64
}

// addTokens gives t the added tokens that the folder's files list: with ids in
// added_tokens_decoder and added_tokens.json; control tokens by their roles; the
// rest behind the vocabulary, in this order.
func (f *vocabFolder) addTokens(t *Tokenizer) error {
	t.config.BOS = cmp.Or(t.config.BOS, f.knownName(t, f.class.names.BOS))
	t.config.EOS = cmp.Or(t.config.EOS, f.knownName(t, f.class.names.EOS))
	t.config.PAD = cmp.Or(t.config.PAD, f.knownName(t, f.class.names.PAD))
	t.config.UNK = cmp.Or(t.config.UNK, f.knownName(t, f.class.names.UNK))
	tokens, err := f.listed()
	if err != nil {
		return err
	}
	if f.class.extra > 0 && !slices.ContainsFunc(tokens, func(a folderToken) bool { return a.id >= 0 && a.Content == "<extra_id_0>" }) {
		for i := f.class.extra - 1; i >= 0; i-- {
			tokens = append(tokens, folderToken{AddedToken{Content: fmt.Sprintf("<extra_id_%d>", i), Special: true}, -1})
		}
	}
	for _, n := range t.config.tokenNames() {
		if *n.name != "" {
			tokens = append(tokens, folderToken{AddedToken{Content: *n.name, Special: true}, -1})
		}
	}
	more, err := f.unnumbered()
	if err != nil {
		return err
	}
	tokens = append(tokens, more...)
	for _, a := range tokens {
		if a.id >= 0 {
			if err := checkID(a.id, t.model.size()+len(tokens)); err != nil {
				return fmt.Errorf("%s: added token %q: %w", f.dir, clip(a.Content), err)
			}
		}
	}
	done := map[string]bool{}
	for _, numbered := range []bool{true, false} {
		for _, a := range tokens {
			if a.Content == "" || done[a.Content] || numbered != (a.id >= 0) {
				continue
			}
			done[a.Content] = true
			id, known := t.ID(a.Content)
			switch {
			case numbered:
				id = int32(a.id)
				if old, ok := t.added.tokens[id]; ok {
					delete(t.added.ids, old.Content)
				}
			case !known:
				id = int32(t.Size())
			case t.added.tokens[id].Content == a.Content && !numbered:
				continue // with the flags that it has
			}
			t.added.tokens[id], t.added.ids[a.Content] = a.AddedToken, id
			if d, ok := t.decoders[0].(*spDecoder); ok && a.Special {
				d.asIs[a.Content] = true
			}
		}
	}
	t.rebuildAdded()
	t.writeAdded()
	return nil
}

// knownName returns a class's name for a token if the vocabulary has it.
func (f *vocabFolder) knownName(t *Tokenizer, name string) string {
	if _, ok := t.ID(name); !ok {
		return ""
	}
	return name
}

// listed reads the tokens that come with ids.
func (f *vocabFolder) listed() ([]folderToken, error) {
	var list []folderToken
	seen := map[int64]bool{}
	if doc := f.docs[0]; doc != nil && !isNull(doc.values["added_tokens_decoder"]) {
		const at = "added_tokens_decoder"
		err := eachMember(doc.values[at], at, func(key string, value []byte) error {
			var id int64
			if err := decodeField([]byte(key), at+"'s key", &id); err != nil {
				return err
			}
			a, err := readFolderToken(value, fmt.Sprintf("%s.%d", at, id))
			seen[id] = true
			list = append(list, folderToken{a, id})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, configFile), err)
		}
	}
	doc, _, err := readObject(f.dir, addedFile)
	if err != nil || doc == nil {
		return list, err
	}
	special := map[string]bool{}
	more, err := f.unnumbered()
	if err != nil {
		return nil, err
	}
	for _, a := range more {
		special[a.Content] = a.Special
	}
	for _, n := range f.config.tokenNames() {
		special[*n.name] = true
	}
	for _, content := range doc.keys {
		var id int64
		if err := decodeField(doc.values[content], clip(content), &id); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, addedFile), err)
		}
		if !seen[id] {
			list = append(list, folderToken{AddedToken{Content: content, Special: special[content]}, id})
		}
	}
	return list, nil
}

// readFolderToken reads a token that is a string or an object with its flags.
func readFolderToken(raw []byte, at string) (AddedToken, error) {
	if kindOf(raw) == "string" {
		s, err := stringValue(raw)
		return AddedToken{Content: s, Special: true}, err
	}
	var c addedTokenJSON
	err := decodeField(raw, at, &c)
	return AddedToken{Content: c.Content, Special: c.Special, LStrip: c.LStrip, RStrip: c.RStrip, SingleWord: c.SingleWord, Normalized: c.Normalized}, err
}

// unnumbered reads the special tokens that come without ids.
func (f *vocabFolder) unnumbered() ([]folderToken, error) {
	var list []folderToken
	for i, doc := range f.docs {
		if doc == nil {
			continue
		}
		file := filepath.Join(f.dir, []string{configFile, specialMapFile}[i])
		for _, key := range []string{"sep_token", "cls_token", "mask_token", "additional_special_tokens", "extra_special_tokens"} {
			raw := doc.values[key]
			add := func(value []byte, at string) error {
				a, err := readFolderToken(value, at)
				a.Special = true
				list = append(list, folderToken{a, -1})
				return err
			}
			var err error
			switch {
			case isNull(raw):
			case kindOf(raw) == "array":
				err = eachElement(raw, key, func(i int, value []byte) error { return add(value, fmt.Sprintf("%s[%d]", key, i)) })
			case key == "extra_special_tokens" && kindOf(raw) == "object":
				err = eachMember(raw, key, func(name string, value []byte) error { return add(value, key+"."+clip(name)) })
			default:
				err = add(raw, key)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return list, nil
}

// setPost makes the post-processor that the configuration or the class asks for.
func (f *vocabFolder) setPost(t *Tokenizer) {
	bos, eos := f.class.bos, f.class.eos
	if b := t.config.AddBOS; b != nil {
		bos = *b
	}
	if b := t.config.AddEOS; b != nil {
		eos = *b
	}
	var p postProcessor
	if id, ok := t.BOS(); ok && bos {
		p.before = []int32{id}
	}
	if id, ok := t.EOS(); ok && eos {
		p.after = []int32{id}
	}
	if len(p.before)+len(p.after) == 0 {
		return
	}
	t.post = p
	if t.doc != nil {
		t.doc.setPost(t)
	}
}
