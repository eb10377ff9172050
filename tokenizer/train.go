package tokenizer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// TrainOptions says what tokenizer Train makes.
type TrainOptions struct {
	// VocabSize is how many tokens there are to be: special tokens, the 256
	// bytes, and merges. A text that has too few pairs to merge gives fewer.
	VocabSize int
	// MinFrequency is how often a pair must occur to be merged, at least 1.
	MinFrequency int
	// MaxTokenLength is the longest token in bytes that merging makes; 0 is no
	// limit. Pairs of single bytes are always allowed.
	MaxTokenLength int

	// SpecialTokens are control tokens such as <|im_start|>. They get the ids
	// from 0 on, in this order. Where they stand in the text they are left out.
	SpecialTokens []string
	// BOS, EOS, PAD and UNK name control tokens; they are appended to
	// SpecialTokens where these lack them.
	BOS, EOS, PAD, UNK string
	// AddBOS puts BOS before a text that is encoded with AddSpecial.
	AddBOS bool

	// Pattern cuts the text into words: gpt2, llama3 (the default) or qwen2.
	Pattern string
	// NFC and Lowercase normalize text before it is cut. What they change can't
	// be decoded again.
	NFC, Lowercase bool

	// ChatTemplate is the Jinja text that goes into the tokenizer's folder.
	ChatTemplate string

	// Progress is called now and then, if it isn't nil.
	Progress func(TrainProgress)
}

// TrainProgress is how far training has got.
type TrainProgress struct {
	// Phase is "read" while words are counted and "merge" afterwards.
	Phase string
	// Done is the bytes of text read, or the tokens of the vocabulary so far.
	Done int64
	// Total is the VocabSize of phase merge; while reading it is unknown, 0.
	Total int64
}

// trainPatterns are the pre-tokenizers by name, as tokenizer.json has them.
var trainPatterns = map[string]string{
	"gpt2":   `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}`,
	"llama3": splitThenBytes(PatternLlama3),
	"qwen2":  splitThenBytes(PatternQwen2),
}

func splitThenBytes(pattern string) string {
	return `{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":` + string(marshal(pattern, "")) +
		`},"behavior":"Isolated","invert":false},` +
		`{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]}`
}

// Train makes a byte-level BPE tokenizer from texts: starting with the 256
// bytes, it joins the pair of tokens that occurs most often within words, again
// and again, until there are VocabSize tokens (Sennrich et al., 2016). Of pairs
// that occur equally often it takes the one of the lower ids. Vocabulary and
// merges are those that BpeTrainer of the tokenizers library makes of the same
// text with the bytes as its initial alphabet.
//
// Memory grows with the number of different words. Training ends with ctx's
// error when ctx is done.
func Train(ctx context.Context, texts iter.Seq[string], o TrainOptions) (*Tokenizer, error) {
	special, err := o.specials()
	if err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(TrainProgress) {}
	}
	tr := newTrainer(special, o)
	base, err := o.tokenizer(tr)
	if err != nil {
		return nil, err
	}
	words, err := countWords(ctx, texts, base, o)
	if err != nil {
		return nil, err
	}
	if len(words.count) == 0 {
		return nil, errors.New("the texts to train a tokenizer on are empty")
	}
	if err := tr.train(ctx, words); err != nil {
		return nil, err
	}
	return o.tokenizer(tr)
}

// specials checks the options and returns all special tokens.
func (o *TrainOptions) specials() ([]string, error) {
	special := slices.Clone(o.SpecialTokens)
	for _, name := range []string{o.UNK, o.BOS, o.EOS, o.PAD} {
		if name != "" && !slices.Contains(special, name) {
			special = append(special, name)
		}
	}
	for i, s := range special {
		switch {
		case s == "" || !utf8.ValidString(s):
			return nil, fmt.Errorf("special token %d: %q is empty or not UTF-8", i, clip(s))
		case slices.Contains(special[:i], s):
			return nil, fmt.Errorf("special token %q is named twice", clip(s))
		case utf8.RuneCountInString(s) == 1:
			if _, ok := fromByteAlphabet(s); ok {
				return nil, fmt.Errorf("special token %q is also the spelling of a byte; use a longer one", s)
			}
		}
	}
	if o.Pattern == "" {
		o.Pattern = "llama3"
	}
	if _, ok := trainPatterns[o.Pattern]; !ok {
		return nil, fmt.Errorf("pattern %q is none of gpt2, llama3, qwen2", clip(o.Pattern))
	}
	if least := len(special) + 256; o.VocabSize < least || o.VocabSize > maxID {
		return nil, fmt.Errorf("a vocabulary of %d is out of range: it takes %d special tokens and 256 bytes, and at most %d in all",
			o.VocabSize, len(special), maxID)
	}
	if o.MinFrequency < 0 || o.MaxTokenLength < 0 {
		return nil, errors.New("the least frequency and the longest token must not be negative")
	}
	if o.AddBOS && o.BOS == "" {
		return nil, errors.New("AddBOS needs the name of the BOS token")
	}
	return special, nil
}

// tokenizer makes the tokenizer of the vocabulary so far.
func (o *TrainOptions) tokenizer(tr *trainer) (*Tokenizer, error) {
	t, err := Parse(o.json(tr), "trained tokenizer")
	if err != nil {
		return nil, err
	}
	t.config = Config{BOS: o.BOS, EOS: o.EOS, PAD: o.PAD, UNK: o.UNK, ChatTemplate: o.ChatTemplate}
	return t, nil
}

// json writes the tokenizer.json.
func (o *TrainOptions) json(tr *trainer) []byte {
	doc := newObject()
	doc.setText("version", `"1.0"`)
	doc.setText("truncation", "null")
	doc.setText("padding", "null")
	added := make([]addedTokenJSON, tr.special)
	for i := range added {
		id := int64(i)
		added[i] = addedTokenJSON{ID: &id, Content: tr.tokens[i], Special: true}
	}
	doc.set("added_tokens", added)
	doc.setText("normalizer", o.normalizerJSON())
	doc.setText("pre_tokenizer", trainPatterns[o.Pattern])
	post := "null"
	if o.AddBOS {
		bos := string(marshal(o.BOS, ""))
		text := func(id string, kind int) string {
			return fmt.Sprintf(`{"SpecialToken":{"id":%s,"type_id":%d}},{"Sequence":{"id":%q,"type_id":%d}}`, bos, kind, id, kind)
		}
		post = fmt.Sprintf(`{"type":"TemplateProcessing","single":[%s],"pair":[%s,%s],"special_tokens":{%s:{"id":%s,"ids":[%d],"tokens":[%s]}}}`,
			text("A", 0), text("A", 0), text("B", 1), bos, bos, slices.Index(tr.tokens, o.BOS), bos)
	}
	doc.setText("post_processor", post)
	doc.setText("decoder", `{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}`)
	doc.setRaw("model", modelJSON(tr.tokens, tr.merges))
	return doc.bytes()
}

func (o *TrainOptions) normalizerJSON() string {
	var list []string
	if o.NFC {
		list = append(list, `{"type":"NFC"}`)
	}
	if o.Lowercase {
		list = append(list, `{"type":"Lowercase"}`)
	}
	switch len(list) {
	case 0:
		return "null"
	case 1:
		return list[0]
	}
	return `{"type":"Sequence","normalizers":[` + strings.Join(list, ",") + `]}`
}

// modelJSON writes a byte-level BPE model, tokens by id, merges by rank.
func modelJSON(tokens []string, merges [][2]int32) []byte {
	var b bytes.Buffer
	b.WriteString(`{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {`)
	quoted := make([][]byte, len(tokens))
	for id, s := range tokens {
		quoted[id] = marshal(s, "")
		if id > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n      %s: %d", quoted[id], id)
	}
	b.WriteString("\n    },\n    \"merges\": [")
	for i, m := range merges {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n      [%s, %s]", quoted[m[0]], quoted[m[1]])
	}
	b.WriteString("\n    ]\n  }")
	return b.Bytes()
}

// wordCounts is the different words of the texts, as bytes, and how often each
// occurs. It stands in for a model, so that words are cut in training as they
// will be in encoding.
type wordCounts struct {
	model
	index map[string]int
	text  []string
	count []int64
}

func (w *wordCounts) encode(_ *sink, p piece) {
	i, ok := w.index[p.text]
	if !ok {
		i = len(w.text)
		s := strings.Clone(p.text)
		w.index[s] = i
		w.text = append(w.text, s)
		w.count = append(w.count, 0)
	}
	w.count[i]++
}

// countWords counts the words of texts as the tokenizer base cuts them.
func countWords(ctx context.Context, texts iter.Seq[string], base *Tokenizer, o TrainOptions) (*wordCounts, error) {
	words := &wordCounts{model: base.model, index: map[string]int{}}
	base.model = words
	var read, reported int64
	for text := range texts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		base.Encode(text, EncodeOptions{})
		read += int64(len(text))
		if read-reported >= 1<<20 {
			reported = read
			o.Progress(TrainProgress{Phase: "read", Done: read})
		}
	}
	o.Progress(TrainProgress{Phase: "read", Done: read})
	return words, ctx.Err()
}
