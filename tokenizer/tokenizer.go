// Package tokenizer turns text into token ids and back, as the tokenizer.json
// of a Hugging Face model folder says, and trains a byte-level BPE on a
// person's own text.
//
// A tokenizer is a pipeline, and each stage is a component of tokenizer.json:
//
//	added tokens   cut out of the raw text                      added.go
//	normalizer     Unicode forms, prepended marks               normalize.go
//	pre-tokenizer  cuts the text into words                     pretokenize.go, split.go
//	model          words into token ids (BPE)                   bpe.go, merge.go
//	post-processor puts <s> and the like around                 postprocess.go
//	decoder        ids into text again                          decode.go
//
// The format is that of the tokenizers library (huggingface.co/docs/tokenizers,
// "Components"), and ids equal those of that library. Byte pair encoding is
// Sennrich et al., "Neural Machine Translation of Rare Words with Subword
// Units" (2016); its byte-level form is that of GPT-2 (Radford et al., 2019),
// its sentencepiece form that of Kudo and Richardson (2018).
//
// Text is taken as bytes. Where it is not valid UTF-8, a byte-level tokenizer
// keeps the bytes as they are.
package tokenizer

import "errors"

// ErrUnsupported is wrapped by errors about a component that tokenizer.json
// may hold but this package does not implement. The error names it.
var ErrUnsupported = errors.New("unsupported")

// Tokenizer maps text to token ids and back. It is safe for concurrent use
// once loaded, except for AddTokens.
type Tokenizer struct {
	config Config
}

// EncodeOptions says how a text is encoded.
type EncodeOptions struct {
	// AddSpecial puts the tokens around the text that the post-processor asks
	// for, such as <s> before it. A chat template usually writes them itself.
	AddSpecial bool
	// PlainSpecial takes special tokens that stand in the text for plain text,
	// so that what a user writes can't inject control tokens: no id for which
	// IsSpecial is true comes from the text, save the unknown token's.
	PlainSpecial bool
}
