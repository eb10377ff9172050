package data

import (
	"encoding/json"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// IgnoreLabel marks a token that isn't trained on in a file's labels.
const IgnoreLabel = -100

// TokenSequence is a sequence that another program tokenised.
type TokenSequence struct {
	IDs []int32
	// Trained says which tokens are trained on; nil for a prompt. [len(IDs)]
	Trained []bool
	// Text is what the file says that the tokens are, and TrainedText what those
	// that are trained on are; "" where it doesn't say.
	Text, TrainedText string
}

// prompt is the sequence up to its first trained token.
func (t TokenSequence) prompt() TokenSequence {
	for i, trained := range t.Trained {
		if trained {
			return TokenSequence{IDs: t.IDs[:i:i]}
		}
	}
	return TokenSequence{IDs: t.IDs, Text: t.Text}
}

// isTokens says whether a row holds tokens rather than text.
func isTokens(o object) bool {
	if o.kind("input_ids") == kindList || o.kind("chosen_input_ids") == kindList && o.kind("rejected_input_ids") == kindList {
		return true
	}
	return o.isIDs("prompt") && o.isIDs("completion")
}

// isIDs says whether a field is a list that begins with a number.
func (o object) isIDs(field string) bool {
	raw, _ := o.get(field)
	rest, ok := strings.CutPrefix(strings.TrimLeft(string(raw[:min(len(raw), 64)]), " \t\r\n"), "[")
	return ok && kindOf([]byte(rest)) == kindNumber
}

// tokensRow reads what ColossalChat's prepare_dataset.py writes:
//
//	sft         input_ids, labels, inputs_decode
//	prompt      input_ids, inputs_decode, [gt_answer]
//	preference  chosen_input_ids, chosen_loss_mask, chosen_label_decode, and the same for rejected
//	kto         prompt and completion as ids, label, input_id_decode, completion_decode
//
// Its files keep the raw columns beside these; they aren't looked at.
func tokensRow(o object) (Row, *RowError) {
	var r Row
	var err *RowError
	switch {
	case o.has("input_ids"):
		var t TokenSequence
		if t.IDs, err = o.ids("input_ids"); err != nil {
			return r, err
		}
		if t.Text, err = infoOf(o, "inputs_decode"); err != nil {
			return r, err
		}
		if o.has("labels") {
			if t.Trained, err = o.labelMask("labels", t.IDs); err != nil {
				return r, err
			}
		}
		r.Tokens = []TokenSequence{t}
	case o.has("chosen_input_ids"):
		for _, side := range []string{"chosen", "rejected"} {
			var t TokenSequence
			if t.IDs, err = o.ids(side + "_input_ids"); err != nil {
				return r, err
			}
			if t.Trained, err = o.lossMask(side+"_loss_mask", len(t.IDs)); err != nil {
				return r, err
			}
			t.TrainedText = o.firstText(side + "_label_decode")
			r.Tokens = append(r.Tokens, t)
		}
	default:
		prompt, err := o.ids("prompt")
		if err != nil {
			return r, err
		}
		completion, err := o.ids("completion")
		if err != nil {
			return r, err
		}
		raw, found := o.get("label")
		var label bool
		if raw == nil {
			return r, o.missing("true (good) or false (bad)", "label")
		}
		if json.Unmarshal(raw, &label) != nil {
			return r, wrongType(found, "true or false", raw)
		}
		t := TokenSequence{IDs: append(prompt[:len(prompt):len(prompt)], completion...)}
		t.Trained = make([]bool, len(t.IDs))
		for i := len(prompt); i < len(t.IDs); i++ {
			t.Trained[i] = true
		}
		if t.Text, err = infoOf(o, "input_id_decode"); err != nil {
			return r, err
		}
		if t.TrainedText, err = infoOf(o, "completion_decode"); err != nil {
			return r, err
		}
		r.Tokens, r.Label = []TokenSequence{t}, &label
	}
	if r.Reference, err = infoOf(o, "gt_answer", "reference", "ground_truth"); err != nil {
		return r, err
	}
	if r.Category, err = infoOf(o, "seq_category", "category"); err != nil {
		return r, err
	}
	if r.Category == "None" { // how ColossalChat writes that there is none
		r.Category = ""
	}
	return r, nil
}

// ids reads a list of token ids.
func (o object) ids(field string) ([]int32, *RowError) {
	if !o.has(field) {
		return nil, o.missing("a list of token ids", field)
	}
	raw, found := o.get(field)
	var ids []int32
	if kindOf(raw) != kindList || json.Unmarshal(raw, &ids) != nil {
		return nil, rowErr(ReasonWrongType, o.path+found, "expected a list of token ids, whole numbers from 0 to %d", math.MaxInt32)
	}
	for i, id := range ids {
		if id < 0 {
			return nil, rowErr(ReasonWrongType, indexed(o.path+found, i), "expected a token id, found %d", id)
		}
	}
	if len(ids) == 0 {
		return nil, rowErr(ReasonEmptyText, o.path+found, "the list of token ids is empty")
	}
	return ids, nil
}

// labelMask reads labels: the id itself where it is trained on, else IgnoreLabel.
func (o object) labelMask(field string, ids []int32) ([]bool, *RowError) {
	raw, found := o.get(field)
	var labels []int32
	if kindOf(raw) != kindList || json.Unmarshal(raw, &labels) != nil || len(labels) != len(ids) {
		return nil, rowErr(ReasonWrongType, o.path+found, "expected a list of %d whole numbers, one for each token", len(ids))
	}
	mask := make([]bool, len(ids))
	for i, l := range labels {
		if mask[i] = l != IgnoreLabel; mask[i] && l != ids[i] {
			return nil, rowErr(ReasonWrongType, indexed(o.path+found, i), "expected %d, or the token's own id %d, found %d: labels must not be shifted",
				IgnoreLabel, ids[i], l)
		}
	}
	return mask, nil
}

// lossMask reads a list of 0 and 1.
func (o object) lossMask(field string, n int) ([]bool, *RowError) {
	raw, found := o.get(field)
	var list []int32
	if raw == nil {
		return nil, o.missing("a list of 0 and 1", field)
	}
	if kindOf(raw) != kindList || json.Unmarshal(raw, &list) != nil || len(list) != n {
		return nil, rowErr(ReasonWrongType, o.path+found, "expected a list of %d numbers 0 or 1, one for each token", n)
	}
	mask := make([]bool, n)
	for i, v := range list {
		if v != 0 && v != 1 {
			return nil, rowErr(ReasonWrongType, indexed(o.path+found, i), "expected 0 or 1, found %d", v)
		}
		mask[i] = v == 1
	}
	return mask, nil
}

// firstText is a string, or the only one of a list; "" for anything else.
func (o object) firstText(field string) string {
	raw, _ := o.get(field)
	var list []string
	if json.Unmarshal(raw, &list) == nil && len(list) == 1 {
		return list[0]
	}
	s, _ := infoOf(o, field)
	return s
}

// TokenDecoder is implemented by an Encoder that knows what tokens stand for.
// Rows of FormatTokens need it.
type TokenDecoder interface {
	// DecodeTokens is the text of tokens, special ones included. The error says
	// which id the vocabulary doesn't have.
	DecodeTokens(ids []int32) (string, error)
}

// checkTokens makes sure that tokens are of the tokenizer that the model has, as
// far as the file tells what they stand for.
func (e *rowEncoder) checkTokens(t TokenSequence) *RowError {
	decoder, ok := e.enc.(TokenDecoder)
	if !ok {
		return rowErr(ReasonOtherTokenizer, "", "the row holds tokens, but there is no tokenizer that they could be compared with")
	}
	refuse := func(err error, found, expected string) *RowError {
		const cure = "these are tokens of another tokenizer: name the raw files instead"
		if err != nil {
			return rowErr(ReasonOtherTokenizer, "", "%v; %s", err, cure)
		}
		return rowErr(ReasonOtherTokenizer, "", "its tokens read %q, the file says %q; %s", clip(found, 40), clip(expected, 40), cure)
	}
	text, err := decoder.DecodeTokens(t.IDs)
	if err != nil {
		return refuse(err, "", "")
	}
	if t.Text != "" && !sameText(text, t.Text) {
		// The text was decoded before ColossalChat put a BOS in front.
		if rest, err := decoder.DecodeTokens(t.IDs[1:]); err != nil || !sameText(rest, t.Text) {
			return refuse(nil, text, t.Text)
		}
	}
	if t.TrainedText != "" {
		var trained []int32
		for i, id := range t.IDs {
			if t.Trained[i] {
				trained = append(trained, id)
			}
		}
		if text, err := decoder.DecodeTokens(trained); err != nil || !sameText(text, t.TrainedText) {
			return refuse(err, text, t.TrainedText)
		}
	}
	return nil
}

// sameText compares texts but for white space, which decoders tidy up, and for
// what stands for half a character.
func sameText(a, b string) bool {
	next := func(s string) (rune, string) {
		for s != "" {
			c, n := utf8.DecodeRuneInString(s)
			s = s[n:]
			if !unicode.IsSpace(c) && c != utf8.RuneError {
				return c, s
			}
		}
		return -1, ""
	}
	for {
		var x, y rune
		x, a = next(a)
		y, b = next(b)
		if x != y {
			return false
		}
		if x < 0 {
			return true
		}
	}
}

// tokens makes the sequence of what another program tokenised.
func (e *rowEncoder) tokens(t TokenSequence) (encoded, *RowError) {
	if err := e.checkTokens(t); err != nil {
		return encoded{}, err
	}
	seq := encoded{ids: append([]int32(nil), t.IDs...), trained: make([]bool, len(t.IDs))}
	copy(seq.trained, t.Trained)
	e.narrow(seq.trained)
	return seq, nil
}
