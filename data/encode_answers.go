package data

import "math"

// part is an answer's place in the sequence of its ranking.
type part struct {
	start  uint32 // where its prompt begins
	rank   int32
	score  float32
	scored bool
}

// encodeRanking makes one sequence of a ranking: the chat with the first answer,
// the chat with the second, and so on, end to end. Each ends as an answer does
// that a model gives, with the token that ends its turn; what the template puts
// behind that is left out.
func (e *rowEncoder) encodeRanking(r Row) (result, *RowError) {
	var all encoded
	var res result
	for i := range r.Ranks {
		seq, err := e.answer(r, i)
		if err != nil {
			return result{}, err
		}
		res.full = max(res.full, len(seq.ids))
		if e.limit > 0 && res.full > e.limit {
			res.tooLong = true
			continue // the row's full length is wanted, its tokens aren't
		}
		if len(seq.ids) > math.MaxInt32-len(all.ids) {
			return result{}, rowErr(ReasonTooLarge, "answers", "the answers have more than %d tokens together: set max_tokens", math.MaxInt32)
		}
		p := part{start: uint32(len(all.ids)), rank: int32(r.Ranks[i])}
		if r.Scores != nil {
			p.score, p.scored = float32(r.Scores[i]), true
			if math.IsInf(float64(p.score), 0) {
				return result{}, rowErr(ReasonWrongType, "scores", "expected numbers of at most 3.4e38, found %g", r.Scores[i])
			}
		}
		all.ids = append(all.ids, seq.ids...)
		all.trained = append(all.trained, seq.trained...)
		all.parts = append(all.parts, p)
	}
	if res.tooLong {
		return res, rowErr(ReasonTooLong, "", "the longest answer has %d tokens with its prompt, the limit is %d: raise the limit, or set too_long to drop",
			res.full, e.limit)
	}
	res.seqs = []encoded{all}
	return res, nil
}

// answer encodes the chat with one of a ranking's answers.
func (e *rowEncoder) answer(r Row, i int) (encoded, *RowError) {
	var seq encoded
	var err *RowError
	if len(r.Tokens) > 0 {
		seq, err = e.tokens(r.Tokens[i])
	} else {
		seq, err = e.chat(e.forTemplate(join(r.Messages, r.Ranked[i]), r.Tools))
	}
	if err != nil {
		return seq, err
	}
	n := len(seq.ids)
	for n > 0 && !seq.trained[n-1] {
		n--
	}
	if seq = seq.cut(n); seq.trainedCount() == 0 {
		return seq, rowErr(ReasonNothingLeft, "", "no token of an answer is trained on; check the chat template")
	}
	seq.trained[0] = false // nothing predicts it, and before it lies another answer
	return seq, nil
}

// encodePrompt makes a sequence of a prompt, for the model to answer.
func (e *rowEncoder) encodePrompt(r Row) (result, *RowError) {
	var ids []int32
	if len(r.Tokens) > 0 {
		seq, err := e.tokens(r.Tokens[0])
		if err != nil {
			return result{}, err
		}
		ids = seq.ids
	} else {
		messages, _ := withoutWeights(r.Messages)
		if messages == nil {
			messages = r.Messages
		}
		var err error
		if ids, err = e.enc.EncodePrompt(e.forTemplate(messages, r.Tools)); err != nil {
			return result{}, rowErr(ReasonTemplate, "", "the chat template refuses the prompt: %v", err)
		}
	}
	if len(ids) == 0 {
		return result{}, rowErr(ReasonEmptyPrompt, "", "the chat template makes no token of the prompt")
	}
	res := result{full: len(ids), tooLong: e.limit > 0 && len(ids) > e.limit}
	if res.tooLong {
		return res, rowErr(ReasonTooLong, "", "the prompt has %d tokens, the limit is %d: raise the limit, or set too_long to drop", res.full, e.limit)
	}
	res.seqs = []encoded{{ids: ids, trained: make([]bool, len(ids))}}
	return res, nil
}
