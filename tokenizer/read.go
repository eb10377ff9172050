package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	// maxFile is the largest tokenizer.json that is read; real ones stay below
	// 50 MiB.
	maxFile = 1 << 30
	// maxID is the highest id that is taken for one: real vocabularies end
	// below 2^20, and tables are as long as the highest id.
	maxID = 1<<24 - 1
	// maxNesting is how deep Sequences may be nested.
	maxNesting = 8
)

// Load reads a tokenizer.json file. Errors name the file and the field; those
// about a component that is not implemented wrap ErrUnsupported.
func Load(path string) (*Tokenizer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(data, path)
}

func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes are too many, at most %d are read", path, st.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// Parse reads the content of a tokenizer.json; name stands for the file in
// errors. The tokenizer keeps data, which must not be changed.
func Parse(data []byte, name string) (*Tokenizer, error) {
	doc, err := parseObject(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t := &Tokenizer{doc: doc, data: data}
	if err := t.build(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

// build makes the pipeline from the document.
func (t *Tokenizer) build() error {
	raw := t.doc.values
	if isNull(raw["model"]) {
		return errors.New("model: missing; is this a tokenizer.json?")
	}
	var err error
	if t.normalizer, err = readNormalizer(raw["normalizer"], "normalizer", 0); err != nil {
		return err
	}
	if t.pre, err = readPreTokenizers(nil, raw["pre_tokenizer"], "pre_tokenizer", 0); err != nil {
		return err
	}
	if t.decoders, err = readDecoders(nil, raw["decoder"], "decoder", 0); err != nil {
		return err
	}
	if len(t.decoders) == 0 && isNull(raw["decoder"]) {
		t.decoders = []decoder{joinDecoder{}}
	}
	if err := t.readModel(raw["model"]); err != nil {
		return err
	}
	if err := t.readAdded(raw["added_tokens"]); err != nil {
		return err
	}
	return t.readPostProcessor(&t.post, raw["post_processor"], "post_processor", 0)
}

// decodeField decodes a component's fields.
func decodeField(raw []byte, at string, v any) error {
	err := json.Unmarshal(raw, v)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field != "" {
			at += "." + wrong.Field
		}
		return fmt.Errorf("%s: is of type %s, expected %s", at, wrong.Value, jsonType(wrong.Type))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return nil
}

// jsonType names what JSON calls a value of a Go type.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Slice:
		return "array"
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.Float64:
		return "number"
	}
	return "integer"
}

// readType returns the type of a component.
func readType(raw []byte, at string) (string, error) {
	if k := kindOf(raw); k != "object" {
		return "", fmt.Errorf("%s: is of type %s, expected object", at, k)
	}
	var c struct {
		Type string `json:"type"`
	}
	return c.Type, decodeField(raw, at, &c)
}

func unsupported(at, kind string) error {
	if kind == "" {
		return fmt.Errorf("%s.type: missing", at)
	}
	return fmt.Errorf("%s.type: %q is %w", at, clip(kind), ErrUnsupported)
}

// readSequence calls read for each component of a Sequence's list.
func readSequence(raw []byte, at, field string, depth int, read func(raw []byte, at string) error) error {
	if depth >= maxNesting {
		return fmt.Errorf("%s: Sequences nest more than %d deep", at, maxNesting)
	}
	var list json.RawMessage
	err := eachMember(raw, at, func(key string, value []byte) error {
		if key == field {
			list = value
		}
		return nil
	})
	if err != nil {
		return err
	}
	at += "." + field
	if isNull(list) {
		return fmt.Errorf("%s: missing", at)
	}
	return eachElement(list, at, func(i int, value []byte) error {
		return read(value, fmt.Sprintf("%s[%d]", at, i))
	})
}

// readPattern reads {"String": s} or {"Regex": s}.
func readPattern(raw []byte, at string) (pattern, error) {
	at += ".pattern"
	if isNull(raw) {
		return pattern{}, fmt.Errorf("%s: missing", at)
	}
	if kindOf(raw) == "string" { // an old form
		s, err := stringValue(raw)
		if err != nil {
			return pattern{}, fmt.Errorf("%s: %w", at, err)
		}
		return newLiteral(s)
	}
	var c struct {
		String *string `json:"String"`
		Regex  *string `json:"Regex"`
	}
	if err := decodeField(raw, at, &c); err != nil {
		return pattern{}, err
	}
	var p pattern
	var err error
	switch {
	case c.Regex != nil && c.String == nil:
		p, err = newRegex(*c.Regex)
	case c.String != nil && c.Regex == nil:
		p, err = newLiteral(*c.String)
	default:
		err = errors.New(`expected one of "String" and "Regex"`)
	}
	if err != nil {
		return pattern{}, fmt.Errorf("%s: %w", at, err)
	}
	return p, nil
}

var normForms = map[string]norm.Form{"NFC": norm.NFC, "NFD": norm.NFD, "NFKC": norm.NFKC, "NFKD": norm.NFKD}

func readNormalizer(raw []byte, at string, depth int) (normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	kind, err := readType(raw, at)
	if err != nil {
		return nil, err
	}
	var c struct {
		Prepend    *string         `json:"prepend"`
		Pattern    json.RawMessage `json:"pattern"`
		Content    *string         `json:"content"`
		StripLeft  *bool           `json:"strip_left"`
		StripRight *bool           `json:"strip_right"`
	}
	if err := decodeField(raw, at, &c); err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		var list normalizerSequence
		err := readSequence(raw, at, "normalizers", depth, func(raw []byte, at string) error {
			n, err := readNormalizer(raw, at, depth+1)
			if n != nil {
				list = append(list, n)
			}
			return err
		})
		return list, err
	case "Prepend":
		if c.Prepend == nil {
			return nil, fmt.Errorf("%s.prepend: missing", at)
		}
		return prependNormalizer{*c.Prepend}, nil
	case "Replace":
		p, err := readPattern(c.Pattern, at)
		if err != nil {
			return nil, err
		}
		if c.Content == nil {
			return nil, fmt.Errorf("%s.content: missing", at)
		}
		return replaceNormalizer{p, *c.Content}, nil
	case "NFC", "NFD", "NFKC", "NFKD":
		return formNormalizer{normForms[kind]}, nil
	case "Lowercase":
		return lowercaseNormalizer{}, nil
	case "Strip":
		return stripNormalizer{left: c.StripLeft == nil || *c.StripLeft, right: c.StripRight == nil || *c.StripRight}, nil
	case "StripAccents":
		return stripAccentsNormalizer{}, nil
	case "ByteLevel":
		return byteLevelNormalizer{}, nil
	}
	return nil, unsupported(at, kind)
}

// readPreTokenizers appends the steps of a pre-tokenizer to steps.
func readPreTokenizers(steps []preTokenizer, raw []byte, at string, depth int) ([]preTokenizer, error) {
	if isNull(raw) {
		return steps, nil
	}
	kind, err := readType(raw, at)
	if err != nil {
		return nil, err
	}
	var c struct {
		AddPrefixSpace   *bool           `json:"add_prefix_space"`
		UseRegex         *bool           `json:"use_regex"`
		Pattern          json.RawMessage `json:"pattern"`
		Behavior         *string         `json:"behavior"`
		Invert           bool            `json:"invert"`
		IndividualDigits bool            `json:"individual_digits"`
		Delimiter        string          `json:"delimiter"`
	}
	if err := decodeField(raw, at, &c); err != nil {
		return nil, err
	}
	b := behaviorIsolated
	if c.Behavior != nil {
		var ok bool
		if b, ok = behaviors[*c.Behavior]; !ok {
			return nil, fmt.Errorf("%s.behavior: %q is unknown", at, clip(*c.Behavior))
		}
	}
	switch kind {
	case "Sequence":
		err := readSequence(raw, at, "pretokenizers", depth, func(raw []byte, at string) error {
			steps, err = readPreTokenizers(steps, raw, at, depth+1)
			return err
		})
		return steps, err
	case "ByteLevel":
		if c.AddPrefixSpace == nil || *c.AddPrefixSpace {
			steps = append(steps, prefixSpacePreTokenizer{})
		}
		if c.UseRegex == nil || *c.UseRegex {
			p, err := newRegex(PatternGPT2)
			if err != nil {
				return nil, err
			}
			steps = append(steps, splitPreTokenizer{pattern: p})
		}
		return append(steps, bytesPreTokenizer{}), nil
	case "Split":
		p, err := readPattern(c.Pattern, at)
		if err != nil {
			return nil, err
		}
		if c.Behavior == nil {
			return nil, fmt.Errorf("%s.behavior: missing", at)
		}
		return append(steps, splitPreTokenizer{pattern: p, behavior: b, invert: c.Invert}), nil
	case "Metaspace":
		mark, scheme, cut, err := readMetaspace(raw, at)
		return append(steps, metaspacePreTokenizer{mark, scheme, cut}), err
	case "Digits":
		b = behaviorContiguous
		if c.IndividualDigits {
			b = behaviorIsolated
		}
		return append(steps, runePreTokenizer{isNumeric, b}), nil
	case "Punctuation":
		return append(steps, runePreTokenizer{isPunctuation, b}), nil
	case "Whitespace":
		return append(steps, whitespacePreTokenizer{}), nil
	case "WhitespaceSplit":
		return append(steps, runePreTokenizer{unicode.IsSpace, behaviorRemoved}), nil
	case "CharDelimiterSplit":
		delimiter, n := utf8.DecodeRuneInString(c.Delimiter)
		if n == 0 || n != len(c.Delimiter) {
			return nil, fmt.Errorf("%s.delimiter: %q is not one character", at, clip(c.Delimiter))
		}
		is := func(r rune) bool { return r == delimiter }
		return append(steps, runePreTokenizer{is, behaviorRemoved}), nil
	}
	return nil, unsupported(at, kind)
}

// readMetaspace reads the fields that the pre-tokenizer and the decoder share,
// with those of older files: str_rep, and add_prefix_space before it became
// prepend_scheme.
func readMetaspace(raw []byte, at string) (mark string, scheme prependScheme, cut bool, err error) {
	var c struct {
		Replacement    string  `json:"replacement"`
		PrependScheme  *string `json:"prepend_scheme"`
		AddPrefixSpace *bool   `json:"add_prefix_space"`
		Split          *bool   `json:"split"`
	}
	if err := decodeField(raw, at, &c); err != nil {
		return "", 0, false, err
	}
	if utf8.RuneCountInString(c.Replacement) != 1 {
		return "", 0, false, fmt.Errorf("%s.replacement: %q is not one character", at, clip(c.Replacement))
	}
	switch {
	case c.PrependScheme != nil:
		var ok bool
		if scheme, ok = prependSchemes[*c.PrependScheme]; !ok {
			return "", 0, false, fmt.Errorf("%s.prepend_scheme: %q is none of always, first, never", at, clip(*c.PrependScheme))
		}
	case c.AddPrefixSpace != nil && !*c.AddPrefixSpace:
		scheme = prependNever
	}
	return c.Replacement, scheme, c.Split == nil || *c.Split, nil
}

// readDecoders appends the steps of a decoder to list.
func readDecoders(list []decoder, raw []byte, at string, depth int) ([]decoder, error) {
	if isNull(raw) {
		return list, nil
	}
	kind, err := readType(raw, at)
	if err != nil {
		return nil, err
	}
	var c struct {
		Pattern json.RawMessage `json:"pattern"`
		Content *string         `json:"content"`
		Start   int             `json:"start"`
		Stop    int             `json:"stop"`
		Suffix  *string         `json:"suffix"`
	}
	if err := decodeField(raw, at, &c); err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		err := readSequence(raw, at, "decoders", depth, func(raw []byte, at string) error {
			list, err = readDecoders(list, raw, at, depth+1)
			return err
		})
		return list, err
	case "ByteLevel":
		return append(list, byteLevelDecoder{}), nil
	case "ByteFallback":
		return append(list, byteFallbackDecoder{}), nil
	case "Fuse":
		return append(list, fuseDecoder{}), nil
	case "Replace":
		p, err := readPattern(c.Pattern, at)
		if err != nil {
			return nil, err
		}
		if c.Content == nil {
			return nil, fmt.Errorf("%s.content: missing", at)
		}
		return append(list, replaceDecoder{p, *c.Content}), nil
	case "Strip":
		if c.Content == nil || utf8.RuneCountInString(*c.Content) != 1 {
			return nil, fmt.Errorf("%s.content: expected one character", at)
		}
		if c.Start < 0 || c.Stop < 0 {
			return nil, fmt.Errorf("%s: start %d and stop %d must not be negative", at, c.Start, c.Stop)
		}
		return append(list, stripDecoder{*c.Content, c.Start, c.Stop}), nil
	case "Metaspace":
		mark, scheme, _, err := readMetaspace(raw, at)
		return append(list, metaspaceDecoder{mark, scheme}), err
	case "BPEDecoder":
		suffix := "</w>"
		if c.Suffix != nil {
			suffix = *c.Suffix
		}
		if suffix == "" {
			return nil, fmt.Errorf("%s.suffix: is empty", at)
		}
		return append(list, bpeDecoder{suffix}), nil
	}
	return nil, unsupported(at, kind)
}

// readModel reads the model. Old files leave its type out; what has merges is
// BPE then. Most of a file is here, so that each field is decoded by itself:
// decoding into a struct would go over all of it several times.
func (t *Tokenizer) readModel(raw []byte) error {
	fields := map[string][]byte{}
	err := eachMember(raw, "model", func(key string, value []byte) error {
		fields[key] = value
		return nil
	})
	if err != nil {
		return err
	}
	var kind string
	var o bpeOptions
	for _, f := range []struct {
		key string
		to  any
	}{
		{"type", &kind}, {"unk_token", &o.unk}, {"continuing_subword_prefix", &o.prefix}, {"end_of_word_suffix", &o.suffix},
		{"fuse_unk", &o.fuseUnk}, {"byte_fallback", &o.byteFallback}, {"ignore_merges", &o.ignoreMerges},
	} {
		if isNull(fields[f.key]) {
			continue
		}
		if err := decodeField(fields[f.key], "model."+f.key, f.to); err != nil {
			return err
		}
		if f.key == "type" && kind != "BPE" {
			return unsupported("model", kind) // other models' fields mean other things
		}
	}
	if kind == "" && isNull(fields["merges"]) {
		return unsupported("model", kind)
	}
	vocab, err := readVocab(fields["vocab"])
	if err != nil {
		return err
	}
	merges, err := readMerges(fields["merges"])
	if err != nil {
		return err
	}
	if n := len(t.pre); n > 0 {
		_, o.endsInBytes = t.pre[n-1].(bytesPreTokenizer)
	}
	m, err := newBPE(vocab, merges, o)
	if err != nil {
		return err
	}
	if m.byteMode {
		t.pre = t.pre[:len(t.pre)-1]
	}
	t.model = m
	return nil
}

// checkID refuses ids that no vocabulary of n entries has. Files with gaps
// exist, but the tables would be as long as the highest id.
func checkID(id int64, n int) error {
	if most := min(maxID, 16*int64(n)+1<<16); id < 0 || id > most {
		return fmt.Errorf("id %d is out of range (0 to %d for %d entries)", id, most, n)
	}
	return nil
}

// readVocab reads {"token": id, ...}.
func readVocab(raw []byte) (vocabulary, error) {
	const at = "model.vocab"
	v := vocabulary{ids: map[string]int32{}}
	if isNull(raw) {
		return v, fmt.Errorf("%s: missing", at)
	}
	n := strings.Count(string(raw[:min(len(raw), 1<<16)]), ":") // a first guess at the size
	v.ids = make(map[string]int32, n*len(raw)/(min(len(raw), 1<<16)+1))
	highest := int32(-1)
	err := eachMember(raw, at, func(key string, value []byte) error {
		id, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return fmt.Errorf("%s[%q]: %s is not an id", at, clip(key), clip(string(value)))
		}
		if id < 0 || id > maxID {
			return fmt.Errorf("%s[%q]: %w", at, clip(key), checkID(id, 1<<24))
		}
		v.ids[key] = int32(id)
		highest = max(highest, int32(id))
		return nil
	})
	if err != nil {
		return v, err
	}
	if highest >= 0 {
		if err := checkID(int64(highest), len(v.ids)); err != nil {
			return v, fmt.Errorf("%s: %w", at, err)
		}
	}
	v.tokens = make([]string, highest+1)
	seen := idSet{}
	for s, id := range v.ids {
		if seen.has(id) {
			return v, fmt.Errorf("%s: %q and another token both have the id %d", at, clip(s), id)
		}
		seen.add(id)
		v.tokens[id] = s
	}
	return v, nil
}

// readMerges reads pairs, spelled "a b" or ["a", "b"].
func readMerges(raw []byte) ([][2]string, error) {
	const at = "model.merges"
	if isNull(raw) {
		return nil, fmt.Errorf("%s: missing", at)
	}
	var list [][2]string
	err := eachElement(raw, at, func(i int, value []byte) error {
		pair, err := readMerge(value)
		if err != nil {
			return fmt.Errorf("%s[%d]: %w", at, i, err)
		}
		list = append(list, pair)
		return nil
	})
	return list, err
}

func readMerge(raw []byte) (pair [2]string, err error) {
	switch kind := kindOf(raw); kind {
	case "string":
		s, err := stringValue(raw)
		left, right, ok := strings.Cut(s, " ")
		if err == nil && (!ok || strings.Contains(right, " ")) {
			err = fmt.Errorf("%q is not two tokens with a space between", clip(s))
		}
		return [2]string{left, right}, err
	case "array":
		n := 0
		err = eachElement(raw, "", func(i int, value []byte) error {
			n++
			s, err := stringValue(value)
			if i < 2 {
				pair[i] = s
			}
			return err
		})
		if err == nil && n != 2 {
			err = fmt.Errorf("has %d tokens, expected 2", n)
		}
		return pair, err
	default:
		return pair, fmt.Errorf("is of type %s, expected string or array", kind)
	}
}

// addedTokenJSON is one entry of added_tokens, in the order of its fields.
type addedTokenJSON struct {
	ID         *int64 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

func (t *Tokenizer) readAdded(raw []byte) error {
	const at = "added_tokens"
	t.added = addedVocabulary{tokens: map[int32]AddedToken{}, ids: map[string]int32{}}
	if !isNull(raw) {
		var list []addedTokenJSON
		if err := decodeField(raw, at, &list); err != nil {
			return err
		}
		for i, c := range list {
			if err := t.readAddedToken(c, len(list)); err != nil {
				return fmt.Errorf("%s[%d]: %w", at, i, err)
			}
		}
	}
	t.rebuildAdded()
	return nil
}

func (t *Tokenizer) readAddedToken(c addedTokenJSON, n int) error {
	if c.ID == nil {
		return errors.New("id: missing")
	}
	if err := checkID(*c.ID, t.model.size()+n); err != nil {
		return err
	}
	if c.Content == "" {
		return nil // the tokenizers library leaves these out
	}
	id := int32(*c.ID)
	if old, ok := t.Token(id); ok && old != c.Content {
		return fmt.Errorf("id %d of %q is that of %q", id, clip(c.Content), clip(old))
	}
	if old, ok := t.ID(c.Content); ok && old != id {
		return fmt.Errorf("%q has the id %d, but also the id %d", clip(c.Content), id, old)
	}
	t.added.tokens[id] = AddedToken{
		Content: c.Content, Special: c.Special, LStrip: c.LStrip, RStrip: c.RStrip,
		SingleWord: c.SingleWord, Normalized: c.Normalized,
	}
	t.added.ids[c.Content] = id
	return nil
}

// readPostProcessor wraps what a post-processor adds around p.
func (t *Tokenizer) readPostProcessor(p *postProcessor, raw []byte, at string, depth int) error {
	if isNull(raw) {
		return nil
	}
	kind, err := readType(raw, at)
	if err != nil {
		return err
	}
	switch kind {
	case "Sequence":
		return readSequence(raw, at, "processors", depth, func(raw []byte, at string) error {
			return t.readPostProcessor(p, raw, at, depth+1)
		})
	case "ByteLevel":
		return nil // it only trims offsets, which here cover all of the text
	case "TemplateProcessing":
		outer, err := t.readTemplate(raw, at)
		p.wrap(outer)
		return err
	case "BertProcessing", "RobertaProcessing":
		var c struct {
			Sep, Cls []json.RawMessage
		}
		if err := decodeField(raw, at, &c); err != nil {
			return err
		}
		sep, err := t.readTokenPair(c.Sep, at+".sep")
		if err != nil {
			return err
		}
		cls, err := t.readTokenPair(c.Cls, at+".cls")
		p.wrap(postProcessor{before: []int32{cls}, after: []int32{sep}})
		return err
	}
	return unsupported(at, kind)
}

// readTokenPair reads ["token", id].
func (t *Tokenizer) readTokenPair(pair []json.RawMessage, at string) (int32, error) {
	if len(pair) != 2 {
		return 0, fmt.Errorf("%s: expected [token, id]", at)
	}
	var id int64
	if err := decodeField(pair[1], at+"[1]", &id); err != nil {
		return 0, err
	}
	return t.checkToken(id, at+"[1]")
}

func (t *Tokenizer) checkToken(id int64, at string) (int32, error) {
	if id < 0 || id > maxID {
		return 0, fmt.Errorf("%s: id %d is out of range", at, id)
	}
	if _, ok := t.Token(int32(id)); !ok {
		return 0, fmt.Errorf("%s: no token has the id %d", at, id)
	}
	return int32(id), nil
}

// readTemplate reads what TemplateProcessing puts around a single text: its
// list of pieces, each a token or the text (sequence A).
func (t *Tokenizer) readTemplate(raw []byte, at string) (p postProcessor, err error) {
	type templatePiece struct {
		SpecialToken *struct {
			ID string `json:"id"`
		}
		Sequence *struct {
			ID string `json:"id"`
		}
	}
	var c struct {
		Single        []templatePiece `json:"single"`
		SpecialTokens map[string]struct {
			IDs []int64 `json:"ids"`
		} `json:"special_tokens"`
	}
	if err := decodeField(raw, at, &c); err != nil {
		return p, err
	}
	texts := 0
	for i, e := range c.Single {
		at := fmt.Sprintf("%s.single[%d]", at, i)
		switch {
		case e.Sequence != nil && e.Sequence.ID == "A":
			texts++
		case e.SpecialToken != nil:
			token, ok := c.SpecialTokens[e.SpecialToken.ID]
			if !ok {
				return p, fmt.Errorf("%s: %q is not in special_tokens", at, clip(e.SpecialToken.ID))
			}
			for _, id := range token.IDs {
				id, err := t.checkToken(id, at)
				if err != nil {
					return p, err
				}
				if texts == 0 {
					p.before = append(p.before, id)
				} else {
					p.after = append(p.after, id)
				}
			}
		default:
			return p, fmt.Errorf("%s: expected a SpecialToken or the Sequence A", at)
		}
	}
	if texts != 1 {
		return p, fmt.Errorf("%s.single: has the Sequence A %d times, expected once", at, texts)
	}
	return p, nil
}
