package data

import (
	"errors"
	"ringtail/chat"
)

// ChatEncoder is the Encoder of a tokenizer and a chat template.
type ChatEncoder struct {
	Tokenizer chat.Tokenizer
	Template  *chat.Template
	// Render holds the template's further variables. Its Tools are replaced by
	// each row's.
	Render chat.RenderOptions
	// EOSID ends documents; NoEOS says that there is no such token.
	EOSID int32
	NoEOS bool
}

// EncodeChat renders and encodes a chat.
func (e *ChatEncoder) EncodeChat(messages []Message, tools []byte) ([]int32, []bool, error) {
	opts := e.Render
	opts.Tools = tools
	return chat.Encode(e.Tokenizer, e.Template, messages, opts)
}

// EncodeTurns renders and encodes a chat and tells its answers apart.
func (e *ChatEncoder) EncodeTurns(messages []Message, tools []byte) ([]int32, []int, error) {
	opts := e.Render
	opts.Tools = tools
	return chat.EncodeTurns(e.Tokenizer, e.Template, messages, opts)
}

// DecodeTokens is the text of tokens, where the tokenizer can decode.
func (e *ChatEncoder) DecodeTokens(ids []int32) (string, error) {
	d, ok := e.Tokenizer.(TokenDecoder)
	if !ok {
		return "", errors.New("the tokenizer can't decode")
	}
	return d.DecodeTokens(ids)
}

// EncodePrompt renders and encodes a chat for the assistant to answer.
func (e *ChatEncoder) EncodePrompt(messages []Message, tools []byte) ([]int32, error) {
	opts := e.Render
	opts.Tools = tools
	return chat.EncodePrompt(e.Tokenizer, e.Template, messages, opts)
}

// EncodeText encodes a document. A special token's text in it is ordinary text:
// a web page about ChatML must not end a turn.
func (e *ChatEncoder) EncodeText(text string) ([]int32, error) {
	ids, _, err := e.Tokenizer.EncodeProtected(text, [][2]int{{0, len(text)}})
	if err != nil {
		return nil, err
	}
	if bos, ok := e.Tokenizer.LeadingBOS(); ok {
		ids = append([]int32{bos}, ids...)
	}
	return ids, nil
}

// EOS is the token that ends documents.
func (e *ChatEncoder) EOS() (int32, bool) { return e.EOSID, !e.NoEOS }

// UnderstandsTools says whether the template shows calls of functions.
func (e *ChatEncoder) UnderstandsTools() bool {
	return e.Template != nil && e.Template.ShowsTools()
}
