package data

import (
	"reflect"
	"strings"
)

// As returns the row in the shape that a use needs: one row mostly, several
// where a ranking becomes pairs or a pair becomes two labelled answers. ties
// counts pairs of equal rank that weren't made. The error, if any, is a
// *RowError that says why the row doesn't fit.
//
//	UseSFT       chats cut behind their last answer; the better answer of a pair
//	             or ranking; answers labelled good; text
//	UsePretrain  text; chats as for UseSFT, and prompts
//	UsePrompts   the turns before the last answer
//	UsePairs     pairs; rankings as all their pairs
//	UseRankings  rankings whole; a pair as a ranking of two
//	UseKTO       labelled answers; both sides of a pair, and of a ranking's pairs
//	             the best and the worst
func (r Row) As(use Use) (rows []Row, ties int, err error) {
	var e *RowError
	switch use {
	case UseSFT, UsePretrain:
		rows, e = r.asChat(use)
	case UsePrompts:
		rows, e = r.asPrompt()
	case UsePairs:
		rows, ties, e = r.asPairs()
	case UseRankings:
		r, ties, e = r.asRanking()
		rows = []Row{r}
	case UseKTO:
		rows, e = r.asLabelled()
	}
	if e != nil {
		e.Where = r.Where
		return nil, ties, e
	}
	return rows, ties, nil
}

func (r Row) asChat(use Use) ([]Row, *RowError) {
	switch {
	case r.Text != "":
		return []Row{r}, nil
	case len(r.Tokens) > 0:
		return r.tokensAsChat(use)
	case r.Label != nil && !*r.Label:
		return nil, rowErr(ReasonLabelledBad, "label", "the answer is labelled as bad")
	case r.Chosen != nil:
		r.Messages, r.Chosen, r.Rejected, r.Margin = join(r.Messages, r.Chosen), nil, nil, 0
		r.Notes = append(r.Notes[:len(r.Notes):len(r.Notes)], NoteBestAnswer)
	case r.Ranked != nil:
		r.Messages = join(r.Messages, r.Ranked[0])
		r.Ranked, r.Ranks, r.Scores = nil, nil, nil
		r.Notes = append(r.Notes[:len(r.Notes):len(r.Notes)], NoteBestAnswer)
	}
	if use == UsePretrain {
		return []Row{r}, nil
	}
	if r.Format == FormatPrompts {
		return nil, rowErr(ReasonMissingField, "output", "missing: expected an answer to train on; the row has only a question")
	}
	notes := append([]Note(nil), r.Notes...)
	if err := endWithAnswer(&r.Messages, "", &notes); err != nil {
		return nil, err
	}
	for i, m := range r.Messages {
		if m.Role == RoleAssistant && isEmptyAnswer(m) {
			return nil, rowErr(ReasonEmptyAnswer, indexed("messages", i), "the answer is empty")
		}
	}
	r.Notes = notes
	return []Row{r}, nil
}

// tokensAsChat is asChat for rows that hold tokens.
func (r Row) tokensAsChat(use Use) ([]Row, *RowError) {
	switch {
	case r.Label != nil && !*r.Label:
		return nil, rowErr(ReasonLabelledBad, "label", "the answer is labelled as bad")
	case len(r.Tokens) > 1:
		r.Tokens = r.Tokens[:1:1]
		r.Notes = append(r.Notes[:len(r.Notes):len(r.Notes)], NoteBestAnswer)
	}
	if r.Tokens[0].Trained == nil && use != UsePretrain {
		return nil, rowErr(ReasonMissingField, "labels", "missing: expected the labels of an answer to train on; the row has only a question")
	}
	return []Row{r}, nil
}

func (r Row) asPrompt() ([]Row, *RowError) {
	if len(r.Tokens) > 0 {
		r.Tokens, r.Label = []TokenSequence{r.Tokens[0].prompt()}, nil
		if len(r.Tokens[0].IDs) == 0 {
			return nil, rowErr(ReasonEmptyPrompt, "", "the row asks nothing")
		}
		return []Row{r}, nil
	}
	if r.Text != "" {
		return nil, rowErr(ReasonNotFit, "", "plain text is no prompt; name the format prompts if it is one")
	}
	n := len(r.Messages)
	for n > 0 && r.Messages[n-1].Role == RoleAssistant {
		n--
	}
	if r.Format == FormatSelfInstruct || r.Format == FormatAlpaca {
		if r.Reference == "" && n < len(r.Messages) {
			r.Reference = r.Messages[len(r.Messages)-1].Content
		}
	}
	r.Messages = r.Messages[:n:n]
	empty := true
	for _, m := range r.Messages {
		empty = empty && (m.Role != RoleUser || strings.TrimSpace(m.Content) == "")
	}
	if empty {
		return nil, rowErr(ReasonEmptyPrompt, "", "the row asks nothing")
	}
	r.Chosen, r.Rejected, r.Ranked, r.Ranks, r.Scores, r.Label = nil, nil, nil, nil, nil, nil
	return []Row{r}, nil
}

func (r Row) asPairs() ([]Row, int, *RowError) {
	r, ties, err := r.asRanking()
	if err != nil || len(r.Tokens) > 0 {
		return []Row{r}, ties, err
	}
	pairs, _ := r.Pairs()
	pairs[0].Notes = r.Notes
	return pairs, ties, nil
}

// asRanking makes a ranking of two of a pair. Of equal answers it leaves the best
// one, with its rank, so that none is said to be better than itself. ties counts
// the pairs of answers of which none is better, as Pairs does.
func (r Row) asRanking() (ranking Row, ties int, err *RowError) {
	fields := []string{"answers"}
	switch {
	case len(r.Tokens) == 2:
		if reflect.DeepEqual(r.Tokens[0].IDs, r.Tokens[1].IDs) {
			return r, 1, rowErr(ReasonAllTied, "", "no answer is better than another")
		}
		r.Ranks = []int{1, 2}
		return r, 0, nil
	case r.Chosen != nil:
		fields = []string{"chosen", "rejected"}
		r.Ranked, r.Ranks, r.Scores = [][]Message{r.Chosen, r.Rejected}, []int{1, 2}, nil
		if r.Margin != 0 {
			r.Scores = []float64{r.Margin, 0}
		}
		r.Chosen, r.Rejected, r.Margin = nil, nil, 0
	case r.Ranked != nil:
	case r.Format == FormatVotes:
		return r, 0, rowErr(ReasonOtherVote, "label", "a thumb compares nothing")
	default:
		return r, 0, rowErr(ReasonNotFit, "", "expected pairs (chosen and rejected, or ranked answers), found the format %s", r.Format)
	}
	ranking = r
	ranking.Ranked, ranking.Ranks, ranking.Scores = nil, nil, nil
	ranking.Notes = append([]Note(nil), r.Notes...)
	for j, answer := range r.Ranked {
		field := fields[min(j, len(fields)-1)]
		if err := endWithAnswer(&answer, field, &ranking.Notes); err != nil {
			return r, 0, err
		}
		if answer[0].Role != RoleAssistant {
			return r, 0, rowErr(ReasonRoles, field, "the answer begins with a turn of the %s; the question belongs in the prompt", answer[0].Role)
		}
		again := false
		for i := range j {
			equal := reflect.DeepEqual(r.Ranked[i], r.Ranked[j])
			if equal || r.Ranks[i] == r.Ranks[j] {
				ties++
			}
			again = again || equal
		}
		if again {
			continue
		}
		ranking.Ranked = append(ranking.Ranked, answer)
		ranking.Ranks = append(ranking.Ranks, r.Ranks[j])
		if r.Scores != nil {
			ranking.Scores = append(ranking.Scores, r.Scores[j])
		}
	}
	if last := len(ranking.Ranks) - 1; last < 0 || ranking.Ranks[last] == ranking.Ranks[0] {
		return r, ties, rowErr(ReasonAllTied, "", "no answer is better than another")
	}
	return ranking, ties, nil
}

func (r Row) asLabelled() ([]Row, *RowError) {
	good, bad := true, false
	better, worse := r.Chosen, r.Rejected
	switch {
	case r.Label != nil:
		return []Row{r}, nil
	case len(r.Tokens) == 2:
		a, b := r, r
		a.Tokens, a.Label = r.Tokens[:1:1], &good
		b.Tokens, b.Label = r.Tokens[1:], &bad
		return []Row{a, b}, nil
	case r.Ranked != nil:
		better, worse = r.Ranked[0], r.Ranked[len(r.Ranked)-1]
	case r.Chosen == nil:
		return nil, rowErr(ReasonNotFit, "", "expected labelled answers (label: true or false) or pairs, found the format %s", r.Format)
	}
	a, b := r, r
	a.Messages, a.Label = join(r.Messages, better), &good
	b.Messages, b.Label, b.Notes = join(r.Messages, worse), &bad, nil
	for _, p := range []*Row{&a, &b} {
		p.Chosen, p.Rejected, p.Ranked, p.Ranks, p.Scores, p.Margin = nil, nil, nil, nil, nil, 0
	}
	return []Row{a, b}, nil
}
