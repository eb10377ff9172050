package chat

import (
	"fmt"
	"sort"
)

// EncodeTurns is Encode, but tells the answers apart: turns[i] is the index of the message whose answer ids[i] is a part
// of, or -1 where the loss doesn't cover the token. It is for chats of which some answers aren't to be trained on.
func EncodeTurns(tok Tokenizer, t *Template, messages []Message, opts RenderOptions) (ids []int32, turns []int, err error) {
	r, err := t.RenderSpans(messages, withTokens(opts, tok))
	if err != nil {
		return nil, nil, err
	}
	owners, err := spanOwners(r.Trained, messages)
	if err != nil {
		return nil, nil, fmt.Errorf("chat template %s: %w", t.name, err)
	}
	ids, offsets, err := encodeRendering(tok, r)
	if err != nil {
		return nil, nil, fmt.Errorf("chat template %s: %w", t.name, err)
	}
	turns = make([]int, len(ids))
	for i, o := range offsets {
		turns[i] = -1
		k := sort.Search(len(r.Trained), func(k int) bool { return r.Trained[k].End > o[0] })
		if k < len(r.Trained) && o[0] >= r.Trained[k].Start && o[1] <= r.Trained[k].End {
			turns[i] = owners[k]
		}
	}
	if with, _ := addBOS(tok, ids, nil); len(with) > len(ids) {
		ids, turns = with, append([]int{-1}, turns...)
	}
	return ids, turns, nil
}

// spanOwners finds the message of each trained span. A generation block in which nothing of a message shows belongs to
// the answer in its place, if there are as many blocks as answers.
func spanOwners(spans []Span, messages []Message) ([]int, error) {
	var answers []int
	for i, m := range messages {
		if m.Role == "assistant" {
			answers = append(answers, i)
		}
	}
	owners := make([]int, len(spans))
	for k, s := range spans {
		switch {
		case s.Message >= 0:
			owners[k] = s.Message
		case len(spans) == len(answers):
			owners[k] = answers[k]
		default:
			return nil, fmt.Errorf("which answer the text from byte %d to %d belongs to can't be told", s.Start, s.End)
		}
	}
	return owners, nil
}
