package data

// Encoder turns a chat or a document into token ids. It is what this package
// needs of a tokenizer and a chat template. Load calls it from several
// goroutines at once.
type Encoder interface {
	// EncodeChat renders messages (never empty) with the model's template and
	// returns the tokens, special tokens included, and for each whether it is
	// part of what the assistant says, its end-of-turn token included. tools is
	// a row's list of functions as JSON, or nil. The two slices are of equal
	// length and may be kept by the caller.
	EncodeChat(messages []Message, tools []byte) (ids []int32, assistant []bool, err error)
	// EncodePrompt renders messages up to where the assistant begins to answer: the
	// tokens that a model is given to answer them.
	EncodePrompt(messages []Message, tools []byte) ([]int32, error)
	// EncodeText returns a document's tokens: with what the model wants in front
	// (a BOS token), without anything behind.
	EncodeText(text string) ([]int32, error)
	// EOS is the token that ends a document; ok is false if the model has none.
	EOS() (id int32, ok bool)
}
