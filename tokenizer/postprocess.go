package tokenizer

import (
	"encoding/json"
	"fmt"
)

// postProcessor puts tokens before and after a text: what is left of
// TemplateProcessing, BertProcessing and RobertaProcessing for a single text.
type postProcessor struct{ before, after []int32 }

// wrap makes p the inner one of two.
func (p *postProcessor) wrap(outer postProcessor) {
	p.before = append(append([]int32(nil), outer.before...), p.before...)
	p.after = append(p.after, outer.after...)
}

// begin adds the tokens before a text to out.
func (p *postProcessor) begin(out *sink) {
	for _, id := range p.before {
		out.add(id, span{0, 0})
	}
}

// end adds the tokens after a text of n bytes.
func (p *postProcessor) end(out *sink, n int) {
	for _, id := range p.after {
		out.add(id, span{n, n})
	}
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
