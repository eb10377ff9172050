package data

import (
	"errors"
	"slices"
)

// encoded is one sequence to train on.
type encoded struct {
	ids     []int32
	trained []bool
	parts   []part // the answers of a ranking, of which the sequence is made
	verdict int8   // of a labelled answer: 1 good, -1 bad
}

// trainedCount is how many targets a sequence gives: its first token has none
// before it that could predict it.
func (e encoded) trainedCount() int {
	n := 0
	for i := 1; i < len(e.trained); i++ {
		if e.trained[i] {
			n++
		}
	}
	return n
}

// cut shortens a sequence.
func (e encoded) cut(n int) encoded {
	return encoded{ids: e.ids[:n:n], trained: e.trained[:n:n]}
}

// rowEncoder makes the sequences of a row under the limits of Options.
type rowEncoder struct {
	enc     Encoder
	use     Use
	trainOn TrainOn
	limit   int // 0: none
	policy  TooLong
	// flatten says that the template knows nothing of tools.
	flatten bool
}

// ToolAware is implemented by an Encoder whose template shows functions and
// calls. Chats for any other Encoder go through FlattenTools.
type ToolAware interface{ UnderstandsTools() bool }

func newRowEncoder(enc Encoder, opt Options) *rowEncoder {
	aware, ok := enc.(ToolAware)
	e := &rowEncoder{enc: enc, use: opt.Use, trainOn: opt.TrainOn, limit: opt.MaxTokens, policy: opt.TooLong,
		flatten: !ok || !aware.UnderstandsTools()}
	if opt.Use == UseRankings || opt.Use == UseKTO {
		e.trainOn = TrainOnLast // what was ranked or judged
	}
	return e
}

// result is what became of a row.
type result struct {
	seqs []encoded
	full int // the row's length in tokens before any cut; of a ranking, its longest answer's
	cut  int // tokens that were cut off
	// tooLong says that the row was above the limit, whatever was done then.
	tooLong bool
}

// encode makes a row's sequences. An error is a *RowError without its place.
func (e *rowEncoder) encode(r Row) (result, *RowError) {
	switch {
	case e.use == UseRankings:
		return e.encodeRanking(r)
	case e.use == UsePrompts:
		return e.encodePrompt(r)
	case r.Text != "":
		return e.encodeText(r.Text)
	}
	messages, tools := e.forTemplate(r.Messages, r.Tools)
	var seq encoded
	var err *RowError
	if len(r.Tokens) > 0 {
		seq, err = e.tokens(r.Tokens[0])
	} else {
		seq, err = e.chat(messages, tools)
	}
	if err != nil {
		return result{}, err
	}
	res := result{full: len(seq.ids), tooLong: e.limit > 0 && len(seq.ids) > e.limit}
	if !res.tooLong {
		if seq.trainedCount() == 0 {
			return res, rowErr(ReasonNothingLeft, "", "no token of the row is trained on; check the chat template")
		}
		if r.Label != nil && e.use == UseKTO {
			if seq.verdict = -1; *r.Label {
				seq.verdict = 1
			}
		}
		res.seqs = []encoded{seq}
		return res, nil
	}
	switch {
	case e.policy == TooLongTruncate:
		res.seqs = append(res.seqs, seq.cut(e.limit))
		res.cut = res.full - e.limit
	case e.policy == TooLongSplit && len(r.Tokens) == 0: // where turns end in tokens isn't known
		if err := e.split(messages, tools, &res); err != nil {
			return res, err
		}
	default:
		return res, rowErr(ReasonTooLong, "", "the row has %d tokens, the limit is %d: raise the limit, or set too_long to drop, split or truncate",
			res.full, e.limit)
	}
	kept := res.seqs[:0]
	for _, s := range res.seqs {
		if s.trainedCount() > 0 {
			kept = append(kept, s)
		}
	}
	if res.seqs = kept; len(kept) == 0 {
		return res, rowErr(ReasonNothingLeft, "", "of the row's %d tokens, none of the first %d is trained on", res.full, e.limit)
	}
	return res, nil
}

// forTemplate puts messages into a form that the template shows.
func (e *rowEncoder) forTemplate(messages []Message, tools []byte) ([]Message, []byte) {
	if e.flatten {
		return FlattenTools(messages, tools), nil
	}
	return messages, tools
}

// chat encodes messages and settles which tokens are trained on.
func (e *rowEncoder) chat(messages []Message, tools []byte) (encoded, *RowError) {
	ids, mask, err := e.encodeWeighted(messages, tools)
	if err != nil {
		return encoded{}, rowErr(ReasonTemplate, "", "the chat template refuses the row: %v", err)
	}
	if len(ids) != len(mask) {
		return encoded{}, rowErr(ReasonTemplate, "", "the encoder returned %d tokens and a mask of %d", len(ids), len(mask))
	}
	e.narrow(mask)
	return encoded{ids: ids, trained: mask}, nil
}

// TurnEncoder is implemented by an Encoder that can tell a chat's answers apart.
// Chats in which some answers have the weight 0 need it.
type TurnEncoder interface {
	// EncodeTurns is EncodeChat, but for each token says which message's answer it
	// is a part of, as an index; -1 for those of no answer.
	EncodeTurns(messages []Message, tools []byte) (ids []int32, turns []int, err error)
}

// encodeWeighted encodes a chat in which answers of weight 0 aren't trained on.
func (e *rowEncoder) encodeWeighted(messages []Message, tools []byte) (ids []int32, mask []bool, err error) {
	plain, zero := withoutWeights(messages)
	if zero == nil {
		return e.enc.EncodeChat(messages, tools)
	}
	enc, ok := e.enc.(TurnEncoder)
	if !ok {
		return nil, nil, errors.New("the encoder can't leave out answers of weight 0")
	}
	ids, turns, err := enc.EncodeTurns(plain, tools)
	mask = make([]bool, len(turns))
	for i, m := range turns {
		mask[i] = m >= 0 && !zero[m]
	}
	return ids, mask, err
}

// withoutWeights takes the weights off messages, which no template is to see, and
// says which of them are 0; nil if none is.
func withoutWeights(messages []Message) (plain []Message, zero []bool) {
	for i, m := range messages {
		if !hasField(m, "weight") {
			continue
		}
		if zero == nil {
			plain, zero = slices.Clone(messages), make([]bool, len(messages))
		}
		plain[i].Extra, zero[i] = without(m.Extra, "weight"), true
	}
	return plain, zero
}

// narrow settles which of the tokens that the assistant says are trained on.
func (e *rowEncoder) narrow(mask []bool) {
	switch e.trainOn {
	case TrainOnAll:
		for i := range mask {
			mask[i] = true
		}
	case TrainOnLast:
		end := len(mask)
		for end > 0 && !mask[end-1] {
			end--
		}
		for end > 0 && mask[end-1] {
			end--
		}
		clear(mask[:end])
	}
}

// split cuts a chat at the borders between exchanges (a user turn and all that
// answers it) into as few sequences as the limit allows, each of which begins
// with the system message. An exchange that is too long by itself is truncated.
func (e *rowEncoder) split(messages []Message, tools []byte, res *result) *RowError {
	head := 0
	for head < len(messages) && messages[head].Role == RoleSystem {
		head++
	}
	system, rest := messages[:head:head], messages[head:]
	var borders []int // where exchanges begin in rest, and its end
	for i, m := range rest {
		if i == 0 || m.Role == RoleUser {
			borders = append(borders, i)
		}
	}
	borders = append(borders, len(rest))
	for at := 0; at < len(borders)-1; {
		// The longest run of exchanges that fits, by bisection: a run's length
		// grows with its exchanges.
		take := 1
		fit, err := e.chat(join(system, rest[borders[at]:borders[at+1]]), tools)
		if err != nil {
			return err
		}
		if over := len(fit.ids) - e.limit; over > 0 {
			fit = fit.cut(e.limit)
			res.cut += over
		} else {
			low, high := 1, len(borders)-at // low fits, high doesn't or isn't there
			for high-low > 1 {
				mid := (low + high) / 2
				try, err := e.chat(join(system, rest[borders[at]:borders[at+mid]]), tools)
				if err != nil {
					return err
				}
				if len(try.ids) <= e.limit {
					low, fit = mid, try
				} else {
					high = mid
				}
			}
			take = low
		}
		res.seqs = append(res.seqs, fit)
		at += take
	}
	if e.trainOn == TrainOnLast {
		res.seqs = res.seqs[len(res.seqs)-1:] // the row's last answer, not each piece's
	}
	return nil
}

// encodeText makes a document's windows. The end-of-text token follows the
// document. A window begins with the last token of the one before it, as
// context that isn't trained on, so that every token of the document but the
// first is a target exactly once.
func (e *rowEncoder) encodeText(text string) (result, *RowError) {
	ids, err := e.enc.EncodeText(text)
	if err != nil {
		return result{}, rowErr(ReasonTemplate, "", "the tokenizer refuses the text: %v", err)
	}
	if eos, ok := e.enc.EOS(); ok {
		ids = append(ids[:len(ids):len(ids)], eos)
	}
	res := result{full: len(ids), tooLong: e.limit > 0 && len(ids) > e.limit}
	if len(ids) < 2 {
		return res, rowErr(ReasonNothingLeft, "", "the text has %d token: nothing predicts it", len(ids))
	}
	window := len(ids)
	if res.tooLong {
		if e.policy == TooLongError {
			return res, rowErr(ReasonTooLong, "", "the text has %d tokens, the limit is %d: set too_long to split to cut it into windows", res.full, e.limit)
		}
		window = e.limit
	}
	for start := 0; start+1 < len(ids); start += window - 1 {
		end := min(start+window, len(ids))
		trained := make([]bool, end-start)
		for i := 1; i < len(trained); i++ {
			trained[i] = true
		}
		res.seqs = append(res.seqs, encoded{ids: ids[start:end:end], trained: trained})
	}
	return res, nil
}
