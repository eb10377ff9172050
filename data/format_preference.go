package data

import (
	"encoding/json"
	"reflect"
	"sort"
	"strings"
)

// preferenceRow reads a pair in any form: the prompt apart (text or messages)
// or inside both answers; answers as text, one message, or messages.
func preferenceRow(o object) (Row, *RowError) {
	chosen, err := answerOf(o, "chosen", "response_j", "preferred_output")
	if err != nil {
		return Row{}, err
	}
	rejected, err := answerOf(o, "rejected", "response_k", "non_preferred_output")
	if err != nil {
		return Row{}, err
	}
	question := o // what holds the prompt, and the functions that may be called
	if raw, found := o.get("input"); kindOf(raw) == kindObject {
		if question, err = parseObject(raw, o.columns); err != nil {
			return Row{}, err
		}
		question.path = o.path + found + "."
	}
	margin, err := marginOf(o)
	if err != nil {
		return Row{}, err
	}
	var prompt []Message
	var notes []Note
	switch {
	case isWhole(chosen) && isWhole(rejected):
		// Whole dialogues; a prompt beside them only repeats their beginning.
	case question.has("instruction", "prompt", "question", "query", "messages", "conversations", "conversation", "context"):
		if prompt, notes, err = promptMessages(question, true); err != nil {
			return Row{}, err
		}
	default:
		return Row{}, question.missing("the question, as a string or a list of messages, or dialogues under chosen and rejected", "prompt",
			"question", "instruction", "conversations", "messages", "context")
	}
	r, err := pairRow(prompt, chosen, rejected, notes)
	if err != nil {
		return r, err
	}
	r.Margin = margin
	return withMeta(r, question)
}

// isWhole says whether an answer brings its question along.
func isWhole(answer []Message) bool {
	return len(answer) > 1 && (answer[0].Role == RoleUser || answer[0].Role == RoleSystem)
}

// pairRow joins prompt and answers, and takes as prompt all that the two
// dialogues share, up to a turn of the user (or a tool).
func pairRow(prompt, chosen, rejected []Message, notes []Note) (Row, *RowError) {
	a, more, err := tidy(join(prompt, chosen))
	if err != nil {
		return Row{}, err
	}
	b, _, err := tidy(join(prompt, rejected))
	if err != nil {
		return Row{}, err
	}
	notes = append(notes, more...)
	n := 0
	for n < len(a) && n < len(b) && reflect.DeepEqual(a[n], b[n]) {
		n++
	}
	if n == len(a) && n == len(b) && len(a) > 0 && a[n-1].Role == RoleAssistant {
		return Row{}, rowErr(ReasonIdenticalPair, "", "chosen and rejected are equal")
	}
	for n > 0 && (n >= len(a) || n >= len(b) || a[n].Role != RoleAssistant || b[n].Role != RoleAssistant) {
		n--
	}
	if n == 0 {
		return Row{}, rowErr(ReasonNoPrompt, "", "chosen and rejected don't answer one question")
	}
	r := Row{Messages: a[:n:n], Chosen: a[n:], Rejected: b[n:], Notes: notes}
	for _, side := range []struct {
		field    string
		messages *[]Message
	}{{"chosen", &r.Chosen}, {"rejected", &r.Rejected}} {
		if err := endWithAnswer(side.messages, side.field, &r.Notes); err != nil {
			return Row{}, err
		}
	}
	return r, nil
}

// join puts two lists of messages behind one another in a new list.
func join(a, b []Message) []Message {
	return append(append(make([]Message, 0, len(a)+len(b)), a...), b...)
}

// endWithAnswer cuts what follows the last answer and refuses an empty answer.
func endWithAnswer(messages *[]Message, field string, notes *[]Note) *RowError {
	list := *messages
	n := len(list)
	for n > 0 && list[n-1].Role != RoleAssistant {
		n--
	}
	if n == 0 {
		return rowErr(ReasonNoAnswer, field, "the assistant says nothing")
	}
	if n < len(list) {
		*notes = append(*notes, NoteTrailingUser)
	}
	if isEmptyAnswer(list[n-1]) {
		return rowErr(ReasonEmptyAnswer, field, "the answer is empty")
	}
	*messages = list[:n]
	return nil
}

// marginOf reads how much better the chosen answer is, if the row says so.
func marginOf(o object) (float64, *RowError) {
	m, ok, err := o.number("margin")
	if ok || err != nil {
		return m, err
	}
	c, okC, err := o.number("score_chosen", "chosen_score")
	if err != nil {
		return 0, err
	}
	r, okR, err := o.number("score_rejected", "rejected_score")
	if err != nil || !okC || !okR {
		return 0, err
	}
	return c - r, nil
}

// hhRow reads two dialogues as text.
func hhRow(o object) (Row, *RowError) {
	var sides [2][]Message
	for i, field := range []string{"chosen", "rejected"} {
		text, err := o.needText(field)
		if err != nil {
			return Row{}, err
		}
		if sides[i], err = parseHH(text); err != nil {
			err.Field = o.name(field)
			return Row{}, err
		}
	}
	r, err := pairRow(nil, sides[0], sides[1], nil)
	if err != nil {
		return r, err
	}
	return withMeta(r, o)
}

// parseHH cuts "\n\nHuman: ...\n\nAssistant: ..." into messages. A label counts
// only after an empty line, so that a label quoted inside a turn stays text.
func parseHH(text string) ([]Message, *RowError) {
	labels := []struct{ text, role string }{{"\n\nHuman:", RoleUser}, {"\n\nAssistant:", RoleAssistant}}
	rest := "\n\n" + strings.TrimLeft(text, "\r\n \t")
	if strings.Contains(rest, "\r") {
		rest = strings.ReplaceAll(rest, "\r\n", "\n")
	}
	if !strings.HasPrefix(rest, labels[0].text) && !strings.HasPrefix(rest, labels[1].text) {
		return nil, rowErr(ReasonWrongType, "", `expected a dialogue that begins with "\n\nHuman:", found %q`, clip(text, 40))
	}
	var messages []Message
	for rest != "" {
		role := RoleUser
		body, isUser := strings.CutPrefix(rest, labels[0].text)
		if !isUser {
			role = RoleAssistant
			body = strings.TrimPrefix(rest, labels[1].text)
		}
		end := len(body)
		for _, l := range labels {
			if i := strings.Index(body, l.text); i >= 0 && i < end {
				end = i
			}
		}
		messages = append(messages, Message{Role: role, Content: strings.TrimSpace(body[:end])})
		rest = body[end:]
	}
	return messages, nil
}

// dialoguePrompt reads a prompt that is a dialogue in hh's form and ends with
// "Assistant:", for the answer to follow (Dahoas/rm-static and its kin).
func dialoguePrompt(text string) ([]Message, bool) {
	trimmed := strings.TrimSpace(text)
	if !strings.HasPrefix(trimmed, "Human:") || !strings.HasSuffix(trimmed, "\n\nAssistant:") {
		return nil, false
	}
	messages, err := parseHH(trimmed)
	if err != nil {
		return nil, false
	}
	return messages[:len(messages)-1], true
}

// rankingRow reads a prompt and K answers with ranks (1 is best) or scores
// (more is better); an answer may also be an object that carries its own.
func rankingRow(o object) (Row, *RowError) {
	prompt, notes, err := promptMessages(o, true)
	if err != nil {
		return Row{}, err
	}
	prompt, more, err := tidy(prompt)
	if err != nil {
		return Row{}, err
	}
	notes = append(notes, more...)
	if len(prompt) == 0 || prompt[len(prompt)-1].Role == RoleAssistant {
		return Row{}, rowErr(ReasonRoles, "", "the prompt of a ranking must end with the user")
	}
	items, path, err := o.list("answers", "responses", "completions")
	if err != nil {
		return Row{}, err
	}
	if len(items) < 2 {
		return Row{}, rowErr(ReasonNoAnswer, path, "expected at least 2 answers, found %d", len(items))
	}
	answers := make([]rankedAnswer, len(items))
	for i, item := range items {
		if answers[i], err = parseRanked(item, indexed(path, i), o.columns); err != nil {
			return Row{}, err
		}
	}
	byScore, err := rankValues(o, answers, path)
	if err != nil {
		return Row{}, err
	}
	sort.SliceStable(answers, func(i, j int) bool {
		if byScore {
			return answers[i].value > answers[j].value
		}
		return answers[i].value < answers[j].value
	})
	r := Row{Messages: prompt, Notes: notes}
	for i, a := range answers {
		if err := endWithAnswer(&a.messages, path, &r.Notes); err != nil {
			return Row{}, err
		}
		rank := i + 1
		if i > 0 && a.value == answers[i-1].value {
			rank = r.Ranks[i-1]
		}
		r.Ranked = append(r.Ranked, a.messages)
		r.Ranks = append(r.Ranks, rank)
		if byScore {
			r.Scores = append(r.Scores, a.value)
		}
	}
	if r.Ranks[len(r.Ranks)-1] == 1 {
		return Row{}, rowErr(ReasonAllTied, path, "all answers have one rank")
	}
	return withMeta(r, o)
}

// rankedAnswer is one answer with its rank or score.
type rankedAnswer struct {
	messages    []Message
	value       float64
	rank, score *float64 // what the answer itself carries
}

// parseRanked reads an answer of a ranking: anything parseAnswer reads, or
// {text|content|answer|response, rank|score}.
func parseRanked(raw json.RawMessage, path string, columns map[string]string) (rankedAnswer, *RowError) {
	var a rankedAnswer
	var err *RowError
	if kindOf(raw) == kindObject {
		o, err := parseObject(raw, columns)
		if err != nil {
			err.Field = path
			return a, err
		}
		o.path = path + "."
		if a.rank, err = optional(o, "rank", "ranks"); err != nil {
			return a, err
		}
		if a.score, err = optional(o, "score", "scores"); err != nil {
			return a, err
		}
		if !o.has("role", "from") {
			text, err := o.needText("text", "content", "answer", "response", "output", "completion")
			a.messages = []Message{{Role: RoleAssistant, Content: text}}
			return a, err
		}
	}
	a.messages, err = parseAnswer(raw, path, columns)
	return a, err
}

// optional reads a number that may be absent.
func optional(o object, fields ...string) (*float64, *RowError) {
	v, ok, err := o.number(fields...)
	if !ok {
		return nil, err
	}
	return &v, nil
}

// rankValues fills each answer's value from the row's ranks or scores, or from
// the answers' own, and says which of the two it is.
func rankValues(o object, answers []rankedAnswer, path string) (byScore bool, err *RowError) {
	for _, source := range []struct {
		fields []string
		score  bool
	}{{[]string{"ranks", "rankings", "ranking", "rank"}, false}, {[]string{"scores", "score"}, true}} {
		if !o.has(source.fields...) {
			continue
		}
		values, vpath, err := o.list(source.fields...)
		if err != nil {
			return false, err
		}
		if len(values) != len(answers) {
			return false, rowErr(ReasonWrongType, vpath, "expected %d values, one for each answer, found %d", len(answers), len(values))
		}
		for i, raw := range values {
			if json.Unmarshal(raw, &answers[i].value) != nil || kindOf(raw) != kindNumber {
				return false, wrongType(indexed(vpath, i), "a number", raw)
			}
		}
		return source.score, nil
	}
	ranks, scores := 0, 0
	for i := range answers {
		a := &answers[i]
		if a.score != nil {
			scores++
			a.value = *a.score
		}
		if a.rank != nil {
			ranks++
			a.value = *a.rank
		}
	}
	if ranks == len(answers) || scores == len(answers) && ranks == 0 {
		return ranks == 0, nil
	}
	return false, rowErr(ReasonMissingField, "ranks", "missing: expected ranks (1 is best) or scores (more is better), one for each of the %d answers in %q",
		len(answers), path)
}

// Pairs expands a ranking into all pairs of a better and a worse answer. ties
// counts the pairs of equal rank, which aren't made.
func (r Row) Pairs() (pairs []Row, ties int) {
	for i := range r.Ranked {
		for j := i + 1; j < len(r.Ranked); j++ {
			if r.Ranks[i] == r.Ranks[j] || reflect.DeepEqual(r.Ranked[i], r.Ranked[j]) {
				ties++
				continue
			}
			p := r
			p.Ranked, p.Ranks, p.Scores, p.Notes = nil, nil, nil, nil
			p.Chosen, p.Rejected = r.Ranked[i], r.Ranked[j]
			if r.Scores != nil {
				p.Margin = r.Scores[i] - r.Scores[j]
			}
			pairs = append(pairs, p)
		}
	}
	return pairs, ties
}

// ktoRow reads an answer that is labelled good or bad: a chat, or prompt and
// completion.
func ktoRow(o object) (Row, *RowError) {
	raw, found := o.get("label")
	if raw == nil {
		return Row{}, o.missing("true (good) or false (bad)", "label")
	}
	var label bool
	if json.Unmarshal(raw, &label) != nil {
		return Row{}, wrongType(o.path+found, "true or false", raw)
	}
	prompt, notes, err := promptMessages(o, true)
	if err != nil {
		return Row{}, err
	}
	if o.has("completion", "output", "response", "answer") {
		answer, err := answerOf(o, "completion", "output", "response", "answer")
		if err != nil {
			return Row{}, err
		}
		prompt = join(prompt, answer)
	}
	r, err := chatRow(prompt, notes)
	if err != nil {
		return r, err
	}
	if err := endWithAnswer(&r.Messages, "completion", &r.Notes); err != nil {
		return r, err
	}
	r.Label = &label
	return withMeta(r, o)
}
