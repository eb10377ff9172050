// Package chat turns conversations into the text, and the tokens, that a model is trained on and prompted with.
//
// A model's chat template is a Jinja program (package chat/jinja runs it the way Hugging Face transformers
// configures Jinja). Besides the text, rendering yields two lists of byte ranges:
//
//   - Trained: what the assistant says, up to and including the marker that ends its turn. The loss covers these
//     bytes and no others. They are the template's {% generation %} blocks where it has any, and are otherwise
//     derived from renderings of the chat's prefixes (see spans.go).
//   - Content: what came from the messages rather than from the template. A special token's text in there is
//     ordinary text, so that nobody can forge a turn by typing <|im_start|>.
//
// The package knows no tokenizer; Encode works on any that satisfies the small interface Tokenizer.
package chat

import (
	"encoding/json"
	"time"

	"ringtail/chat/jinja"
)

// Field is a named JSON value. Lists of fields keep their order, which templates can observe (tojson, items).
type Field struct {
	Name  string
	Value json.RawMessage
}

// Message is one turn of a conversation.
//
// The roles that templates know are "system", "user", "assistant" and "tool". A role may hold letters, digits,
// '_', '-', '.' and spaces; anything else is refused when rendering, for the role is written between control tokens.
type Message struct {
	Role    string
	Content string
	// Extra holds what else a template may look at, in order: tool_calls, name, reasoning_content, tool_call_id, ...
	// A field called "content" takes the place of Content, for a null content or a list of parts.
	Extra []Field
}

// RenderOptions are the variables of a template besides the messages.
type RenderOptions struct {
	// AddGenerationPrompt ends the text with the header of an assistant's turn, for the model to continue.
	AddGenerationPrompt bool
	// BOS, EOS, PAD and UNK become bos_token, eos_token, pad_token and unk_token. An empty one stays undefined, as
	// for a tokenizer without that token.
	BOS, EOS, PAD, UNK string
	// Specials lists the texts of the tokenizer's special tokens. It is optional: it helps to find the marker that
	// ends a turn where the marker looks like ordinary text.
	Specials []string
	// Tools is a JSON array of function schemas, or nil for none.
	Tools json.RawMessage
	// Documents is a JSON array of documents ({"title", "text"} by convention) that the answer may draw on, or nil for none.
	Documents json.RawMessage
	// Vars are further template variables, such as enable_thinking or date_string.
	Vars []Field
	// Now is what strftime_now formats; the zero value stands for the time of rendering.
	Now time.Time
	// Limits bound what one run of the template may use; the zero value stands for the defaults.
	Limits jinja.Limits
}

// Span is the range of bytes [Start, End) of a rendered text.
type Span struct {
	Start, End int
	// Message is the index of the message that the bytes belong to, or -1 where they belong to none or it is unknown.
	Message int
}

// Rendering is a rendered conversation.
type Rendering struct {
	Text string
	// Trained are the bytes that the assistant produces and the model is trained on: ascending and disjoint.
	Trained []Span
	// Content are the bytes that came from messages, tools and variables, and not from the template:
	// ascending and disjoint.
	Content []Span
}

// Tokenizer is what Encode needs of a tokenizer.
type Tokenizer interface {
	// EncodeProtected encodes text without putting special tokens around it. Special tokens written in the text
	// become their ids, except where their own text overlaps one of the plain ranges (ascending, disjoint): there
	// the characters are encoded as ordinary text. Ranges that touch no special token must not change the result.
	// offsets[i] is the byte range [start, end) of text that ids[i] stands for.
	EncodeProtected(text string, plain [][2]int) (ids []int32, offsets [][2]int, err error)
	// LeadingBOS is the id that the tokenizer puts before every text when it adds special tokens; ok is false
	// where it adds none.
	LeadingBOS() (id int32, ok bool)
	// SpecialTokens lists the texts of the special tokens (those that are control, not merely added words).
	SpecialTokens() []string
	// BOS, EOS, PAD and UNK are the texts of these tokens, "" where the tokenizer has none.
	BOS() string
	EOS() string
	PAD() string
	UNK() string
}
