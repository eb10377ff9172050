package folder

import (
	"fmt"

	"ringtail/chat"
	"ringtail/tokenizer"
)

// adapter shows a tokenizer to package chat.
type adapter struct {
	tok      *tokenizer.Tokenizer
	specials []string

	protected func(text string, plain [][2]int) ([]int32, [][2]int, error)
}

func newAdapter(tok *tokenizer.Tokenizer) *adapter {
	a := &adapter{tok: tok}
	_, tokens := tok.AddedTokens()
	for _, t := range tokens {
		if t.Special {
			a.specials = append(a.specials, t.Content)
		}
	}
	a.protected = chat.ProtectedEncoder(a.specials, func(text string, plain bool) ([]int32, [][2]int) {
		return tok.EncodeOffsets(text, tokenizer.EncodeOptions{PlainSpecial: plain})
	})
	return a
}

// EncodeProtected implements chat.Tokenizer.
func (a *adapter) EncodeProtected(text string, plain [][2]int) ([]int32, [][2]int, error) {
	return a.protected(text, plain)
}

// LeadingBOS is the token that the tokenizer puts before every text, if any.
func (a *adapter) LeadingBOS() (int32, bool) {
	ids := a.tok.Encode("", tokenizer.EncodeOptions{AddSpecial: true})
	bos, ok := a.tok.BOS()
	if ok && len(ids) > 0 && ids[0] == bos {
		return bos, true
	}
	return 0, false
}

func (a *adapter) SpecialTokens() []string { return a.specials }
func (a *adapter) BOS() string             { return a.tok.Config().BOS }
func (a *adapter) EOS() string             { return a.tok.Config().EOS }
func (a *adapter) PAD() string             { return a.tok.Config().PAD }
func (a *adapter) UNK() string             { return a.tok.Config().UNK }

// DecodeTokens is the text of tokens that another program made; the error names an id that the vocabulary lacks.
func (a *adapter) DecodeTokens(ids []int32) (string, error) {
	for _, id := range ids {
		if _, ok := a.tok.Token(id); !ok {
			return "", fmt.Errorf("the tokenizer has no token %d", id)
		}
	}
	return a.tok.Decode(ids, false), nil
}
