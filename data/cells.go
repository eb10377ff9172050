package data

import (
	"encoding/json"
	"strings"
)

// What the cells of a CSV file stand for, where it isn't text, by the fields that formats read.
var (
	numberCells = fieldSet("margin", "score", "rank", "score_chosen", "chosen_score", "score_rejected", "rejected_score", "weight")
	listCells   = fieldSet("conversations", "conversation", "messages", "history", "instances", "answers", "responses", "completions",
		"ranks", "rankings", "ranking", "scores", "test_cases", "input_ids", "labels", "chosen_input_ids", "chosen_loss_mask",
		"rejected_input_ids", "rejected_loss_mask")
	// messageCells are text, or messages written as JSON.
	messageCells = fieldSet("prompt", "context", "completion", "chosen", "rejected", "response_j", "response_k", "input",
		"preferred_output", "non_preferred_output")
	// writtenLists are lists that some files hold as JSON in a string, whatever kind of file they are.
	writtenLists = fieldSet("conversations", "conversation", "messages")
)

func fieldSet(names ...string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return set
}

// uncell is the value that a string stands for under a field: a number, a truth value or a list where the field wants
// one, and nil where a cell is empty that can't be. Anything else comes back as it is, for whoever reads it to judge.
func uncell(raw json.RawMessage, field string, cell bool) json.RawMessage {
	if !cell && !writtenLists[field] {
		return raw
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return raw
	}
	s = strings.TrimSpace(s)
	value := json.RawMessage(s)
	switch {
	case field == "label":
		switch strings.ToLower(s) {
		case "true", "1":
			return json.RawMessage("true")
		case "false", "0":
			return json.RawMessage("false")
		}
	case numberCells[field] && s != "":
		if kindOf(value) == kindNumber && json.Valid(value) {
			return value
		}
	case listCells[field] && s != "":
		if k := kindOf(value); (k == kindList || k == kindObject) && json.Valid(value) {
			return value
		}
	case messageCells[field]:
		if isMessages(value) {
			return value
		}
		return raw
	}
	if s == "" && (field == "label" || numberCells[field] || listCells[field]) {
		return nil
	}
	return raw
}

// isMessages says whether JSON is a message or a list of messages, rather than text that happens to be JSON.
func isMessages(raw json.RawMessage) bool {
	list := []json.RawMessage{raw}
	switch kindOf(raw) {
	case kindList:
		if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
			return false
		}
	case kindObject:
	default:
		return false
	}
	var m struct {
		Role, From *string
		Messages   []json.RawMessage
	}
	return json.Unmarshal(list[0], &m) == nil && (m.Role != nil || m.From != nil || m.Messages != nil)
}
