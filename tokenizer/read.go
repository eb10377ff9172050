package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
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

// Load reads a tokenizer.json file, a sentencepiece model (.model) or a tiktoken
// file. Errors name the file and the field; those about a component that is not
// implemented wrap ErrUnsupported.
func Load(path string) (*Tokenizer, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	switch ext := filepath.Ext(path); {
	case ext == ".tiktoken" || ext == ".model" && isTiktoken(data):
		return parseTiktokenFile(data, path, "")
	case ext == ".model":
		return ParseSentencepiece(data, path)
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
		Clean      *bool           `json:"clean_text"`
		Chinese    *bool           `json:"handle_chinese_chars"`
		Accents    *bool           `json:"strip_accents"`
		Lower      *bool           `json:"lowercase"`
		Charsmap   json.RawMessage `json:"precompiled_charsmap"`
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
	case "Nmt":
		return nmtNormalizer{}, nil
	case "BertNormalizer":
		n := bertNormalizer{clean: c.Clean == nil || *c.Clean, chinese: c.Chinese == nil || *c.Chinese, lower: c.Lower == nil || *c.Lower}
		if n.accents = n.lower; c.Accents != nil {
			n.accents = *c.Accents
		}
		return n, nil
	case "ByteLevel":
		return byteLevelNormalizer{}, nil
	case "Precompiled":
		return readPrecompiled(c.Charsmap, at)
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
		Length           *int            `json:"length"`
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
		return append(steps, runePreTokenizer{numericTable(), b}), nil
	case "Punctuation":
		return append(steps, runePreTokenizer{punctuationTable(), b}), nil
	case "Whitespace":
		return append(steps, whitespacePreTokenizer{}), nil
	case "WhitespaceSplit":
		return append(steps, runePreTokenizer{spaceTable(), behaviorRemoved}), nil
	case "BertPreTokenizer":
		return append(steps, bertPreTokenizer{}), nil
	case "UnicodeScripts":
		return append(steps, scriptsPreTokenizer{}), nil
	case "FixedLength":
		length := 5
		if c.Length != nil {
			length = *c.Length
		}
		if length < 1 {
			return nil, fmt.Errorf("%s.length: is %d, expected at least 1", at, length)
		}
		return append(steps, fixedLengthPreTokenizer{length}), nil
	case "CharDelimiterSplit", "Delimiter":
		if utf8.RuneCountInString(c.Delimiter) != 1 {
			return nil, fmt.Errorf("%s.delimiter: %q is not one character", at, clip(c.Delimiter))
		}
		return append(steps, splitPreTokenizer{pattern: pattern{literal: c.Delimiter}, behavior: behaviorRemoved}), nil
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
		Prefix  *string         `json:"prefix"`
		Cleanup *bool           `json:"cleanup"`
		Pad     *string         `json:"pad_token"`
		Word    *string         `json:"word_delimiter_token"`
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
	case "WordPiece":
		d := wordPieceDecoder{prefix: "##", cleanup: c.Cleanup == nil || *c.Cleanup}
		if c.Prefix != nil {
			d.prefix = *c.Prefix
		}
		return append(list, d), nil
	case "CTC":
		d := ctcDecoder{pad: "<pad>", delimiter: "|", cleanup: c.Cleanup == nil || *c.Cleanup}
		if c.Pad != nil {
			d.pad = *c.Pad
		}
		if c.Word != nil {
			d.delimiter = *c.Word
		}
		return append(list, d), nil
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
