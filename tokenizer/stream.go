package tokenizer

import "strings"

// Stream decodes a text token by token, for text that is shown while it is
// made. All that Push and Flush return, put together, is what Decode returns
// for the same ids, and no part of it ends within a character. It is not safe
// for concurrent use.
type Stream struct {
	t           *Tokenizer
	skipSpecial bool
	stages      []decoding
	outs        []func(text string, end bool) // what stage i gives out goes to outs[i]
	text        strings.Builder
}

// NewStream begins a text. With skipSpecial special tokens are left out.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	s := &Stream{t: t, skipSpecial: skipSpecial}
	for _, d := range t.decoders {
		s.stages = append(s.stages, d.start())
	}
	s.outs = make([]func(string, bool), len(s.stages)+1)
	s.outs[len(s.stages)] = func(text string, _ bool) { s.text.WriteString(text) }
	for i := len(s.stages) - 1; i >= 0; i-- {
		stage, out := s.stages[i], s.outs[i+1]
		s.outs[i] = func(text string, end bool) { stage.push(text, end, out) }
	}
	return s
}

// Push takes the next token and returns the text that is certain by it, which
// may be empty. Ids that are no tokens are left out.
func (s *Stream) Push(id int32) string {
	s.push(id)
	return s.take()
}

func (s *Stream) push(id int32) {
	if s.skipSpecial && s.t.special.has(id) {
		return
	}
	if token, ok := s.t.added.spelled[id]; ok {
		s.outs[0](token, true)
	} else if token, ok := s.t.Token(id); ok {
		s.outs[0](token, true)
	}
}

// Flush ends the text and returns what was held back: the beginning of a
// character that never became whole shows as U+FFFD.
func (s *Stream) Flush() string {
	for i, stage := range s.stages {
		stage.flush(s.outs[i+1])
	}
	s.stages = nil
	return s.take()
}

func (s *Stream) take() string {
	text := s.text.String()
	s.text.Reset()
	return text
}

// Decode returns the text of ids. With skipSpecial special tokens are left
// out; ids that are no tokens always are.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	s := t.NewStream(skipSpecial)
	for _, id := range ids {
		s.push(id)
	}
	return s.Flush()
}
