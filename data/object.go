package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// object is one JSON object of a row, its values still raw. It looks fields up
// under the user's names (Source.Columns).
type object struct {
	fields  map[string]json.RawMessage
	columns map[string]string
	path    string // "messages[2]." inside a list, for errors
	cells   bool   // the values are the texts of a CSV record's cells
}

// columnNames are the fields that formats read and Columns can map. The first
// of each line is the field's main name, the rest are other spellings that are
// understood without mapping.
var columnNames = [][]string{
	{"instruction", "prompt", "question", "query"},
	{"input", "context"},
	{"output", "response", "answer", "completion"},
	{"system", "system_prompt"},
	{"history"},
	{"conversations", "conversation"},
	{"messages"},
	{"tools", "functions"},
	{"instances"},
	{"chosen", "response_j", "preferred_output"},
	{"rejected", "response_k", "non_preferred_output"},
	{"answers", "responses", "completions"},
	{"ranks", "rankings", "ranking", "rank"},
	{"scores", "score"},
	{"label"},
	{"margin"},
	{"score_chosen", "chosen_score"},
	{"score_rejected", "rejected_score"},
	{"text", "content"},
	{"gt_answer", "reference", "ground_truth"},
	{"test_cases"},
	{"category"},
	{"input_ids"},
	{"labels"},
	{"inputs_decode"},
	{"from", "role"},
	{"value"},
}

// checkColumns refuses a mapping of fields that no format reads.
func checkColumns(columns map[string]string) error {
	known := map[string]bool{}
	var names []string
	for _, group := range columnNames {
		names = append(names, group[0])
		for _, n := range group {
			known[n] = true
		}
	}
	for _, k := range sortedKeys(columns) {
		if !known[k] {
			return fmt.Errorf("columns: no format has a field %q; fields are %s", k, strings.Join(names, ", "))
		}
		if columns[k] == "" {
			return fmt.Errorf("columns: %q is mapped to an empty name", k)
		}
	}
	return nil
}

// parseObject reads a JSON object. The bytes must be valid UTF-8.
func parseObject(raw []byte, columns map[string]string) (object, *RowError) {
	o := object{columns: columns}
	k := kindOf(raw)
	if k != kindObject && k != kindBroken {
		return o, rowErr(ReasonWrongType, "", "expected a JSON object, found %s", k)
	}
	if err := json.Unmarshal(raw, &o.fields); err != nil {
		return o, brokenJSON(err)
	}
	return o, nil
}

// brokenJSON explains what encoding/json found.
func brokenJSON(err error) *RowError {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return rowErr(ReasonBadJSON, "", "broken JSON at byte %d of the row: %v", syntax.Offset, err)
	}
	return rowErr(ReasonBadJSON, "", "broken JSON: %v", err)
}

// kind is the type of a JSON value, as an error message names it.
type kind string

const (
	kindNone   kind = "nothing"
	kindNull   kind = "null"
	kindBool   kind = "a boolean"
	kindNumber kind = "a number"
	kindString kind = "a string"
	kindList   kind = "a list"
	kindObject kind = "an object"
	kindBroken kind = "something that isn't JSON"
)

// kindOf tells a value's type by its beginning.
func kindOf(raw []byte) kind {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 {
		return kindNone
	}
	switch raw[0] {
	case '{':
		return kindObject
	case '[':
		return kindList
	case '"':
		return kindString
	case 't', 'f', 'n':
		switch string(bytes.TrimRight(raw, " \t\r\n")) {
		case "true", "false":
			return kindBool
		case "null":
			return kindNull
		}
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return kindNumber
	}
	return kindBroken
}

// name is what the file calls a field.
func (o object) name(field string) string {
	if mapped, ok := o.columns[field]; ok {
		return mapped
	}
	return field
}

// get finds a field under its name, or under one of its other spellings; null
// counts as absent. found is the file's name of what was found.
func (o object) get(fields ...string) (raw json.RawMessage, found string) {
	for _, f := range fields {
		n := o.name(f)
		// A field that Columns maps to something else is read only there.
		if n == f && o.taken(f) {
			continue
		}
		raw, ok := o.fields[n]
		if ok && kindOf(raw) == kindString {
			raw = uncell(raw, f, o.cells)
		}
		if ok && raw != nil && kindOf(raw) != kindNull {
			return raw, n
		}
	}
	return nil, ""
}

// taken says that the file's field f stands for another field by Columns.
func (o object) taken(f string) bool {
	for field, mapped := range o.columns {
		if mapped == f && field != f {
			return true
		}
	}
	return false
}

// has says whether one of the fields is there.
func (o object) has(fields ...string) bool {
	raw, _ := o.get(fields...)
	return raw != nil
}

// kind is the type of a field, kindNone where it is absent.
func (o object) kind(fields ...string) kind {
	raw, _ := o.get(fields...)
	return kindOf(raw)
}

// missing is the error for a field that must be there.
func (o object) missing(expected string, fields ...string) *RowError {
	name := o.name(fields[0])
	other := ""
	if len(fields) > 1 {
		others := make([]string, len(fields)-1)
		for i, f := range fields[1:] {
			others[i] = o.name(f)
		}
		other = " (or " + strings.Join(others, ", ") + ")"
	}
	have := o.keys()
	if len(have) > 8 {
		have = append(have[:8], "...")
	}
	return rowErr(ReasonMissingField, o.path+name, "missing%s: expected %s; the row has %s",
		other, expected, strings.Join(have, ", "))
}

// keys lists the file's field names in sorted order.
func (o object) keys() []string {
	return sortedKeys(o.fields)
}

// text reads an optional string field; absent gives "".
func (o object) text(fields ...string) (string, *RowError) {
	raw, found := o.get(fields...)
	if raw == nil {
		return "", nil
	}
	return stringOf(raw, o.path+found)
}

// needText reads a string field that must be there (it may be empty).
func (o object) needText(fields ...string) (string, *RowError) {
	if !o.has(fields...) {
		return "", o.missing("a string", fields...)
	}
	return o.text(fields...)
}

// number reads an optional number; ok says whether it is there.
func (o object) number(fields ...string) (value float64, ok bool, err *RowError) {
	raw, found := o.get(fields...)
	if raw == nil {
		return 0, false, nil
	}
	if json.Unmarshal(raw, &value) != nil {
		return 0, false, wrongType(o.path+found, "a number", raw)
	}
	return value, true, nil
}

// list reads a list field that must be there.
func (o object) list(fields ...string) ([]json.RawMessage, string, *RowError) {
	raw, found := o.get(fields...)
	if raw == nil {
		return nil, "", o.missing("a list", fields...)
	}
	items, err := listOf(raw, o.path+found)
	return items, o.path + found, err
}

// stringOf reads a JSON string.
func stringOf(raw json.RawMessage, path string) (string, *RowError) {
	var s string
	if kindOf(raw) != kindString || json.Unmarshal(raw, &s) != nil {
		return "", wrongType(path, "a string", raw)
	}
	return s, nil
}

// listOf reads a JSON list.
func listOf(raw json.RawMessage, path string) ([]json.RawMessage, *RowError) {
	var items []json.RawMessage
	if kindOf(raw) != kindList || json.Unmarshal(raw, &items) != nil {
		return nil, wrongType(path, "a list", raw)
	}
	return items, nil
}

func wrongType(path, expected string, raw []byte) *RowError {
	return rowErr(ReasonWrongType, path, "expected %s, found %s", expected, kindOf(raw))
}
