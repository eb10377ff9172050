package data

import (
	"encoding/json"
	"strings"
)

// Converter turns records into rows by one format.
type Converter struct {
	Format  Format
	columns map[string]string
	system  string
	replace *strings.Replacer
}

// NewConverter makes the converter of a source's records. format is what Detect
// found, or what the user named.
func NewConverter(format Format, src Source) *Converter {
	c := &Converter{Format: format, columns: src.Columns, system: src.System}
	if len(src.Replace) > 0 {
		var pairs []string
		for _, from := range sortedKeys(src.Replace) {
			pairs = append(pairs, from, src.Replace[from])
		}
		c.replace = strings.NewReplacer(pairs...)
	}
	return c
}

// Convert reads one record; most formats make one row of it. The error, if any,
// is a *RowError with its place filled in.
func (c *Converter) Convert(rec Record) ([]Row, error) {
	rows, err := c.convert(rec)
	if err != nil {
		err.Where = rec.Where
		return nil, err
	}
	for i := range rows {
		r := &rows[i]
		r.Format, r.Where = c.Format, rec.Where
		if c.system != "" && len(r.Messages) > 0 && r.Messages[0].Role != RoleSystem {
			r.Messages = append([]Message{{Role: RoleSystem, Content: c.system}}, r.Messages...)
		}
		c.substitute(r)
	}
	return rows, nil
}

func (c *Converter) convert(rec Record) ([]Row, *RowError) {
	if rec.IsText {
		if c.Format != FormatText {
			return nil, rowErr(ReasonWrongType, "", "a plain text file can't be read as %s", c.Format)
		}
		return one(textRow(rec.Text))
	}
	if kindOf(rec.JSON) == kindList && (c.Format == FormatMessages || c.Format == FormatPrompts) {
		// A row that is the bare list of messages.
		messages, notes, err := parseMessages(rec.JSON, "messages", c.columns)
		if err != nil {
			return nil, err
		}
		return one(chatRow(messages, notes))
	}
	if kindOf(rec.JSON) == kindString && c.Format == FormatText {
		s, err := stringOf(rec.JSON, "")
		if err != nil {
			return nil, err
		}
		return one(textRow(s))
	}
	o, err := parseObject(rec.JSON, c.columns)
	if err != nil {
		return nil, err
	}
	o.cells = rec.Cells
	switch c.Format {
	case FormatTokens:
		return one(tokensRow(o))
	case FormatAlpaca:
		return one(alpacaRow(o))
	case FormatSelfInstruct:
		return selfInstructRows(o)
	case FormatShareGPT:
		return one(messagesRow(o, "conversations", "conversation", "messages"))
	case FormatMessages:
		return one(messagesRow(o, "messages", "conversations", "conversation"))
	case FormatPrompts:
		return one(promptRow(o))
	case FormatText:
		text, err := o.needText("text", "content")
		if err != nil {
			return nil, err
		}
		return one(textRow(text))
	case FormatHH:
		return one(hhRow(o))
	case FormatPreference:
		return one(preferenceRow(o))
	case FormatRanking:
		return one(rankingRow(o))
	case FormatKTO:
		return one(ktoRow(o))
	case FormatVotes:
		if o.has("label") {
			return one(ktoRow(o))
		}
		return one(preferenceRow(o))
	}
	return nil, rowErr(ReasonUnknown, "", "no format %q", c.Format)
}

func one(r Row, err *RowError) ([]Row, *RowError) {
	if err != nil {
		return nil, err
	}
	return []Row{r}, nil
}

// substitute applies the source's replacements to every text of a row, and
// notes placeholders that nothing replaces.
func (c *Converter) substitute(r *Row) {
	left := false
	fix := func(s string) string {
		if c.replace != nil {
			s = c.replace.Replace(s)
		}
		left = left || hasPlaceholder(s)
		return s
	}
	fixAll := func(list []Message) {
		for i := range list {
			list[i].Content = fix(list[i].Content)
		}
	}
	fixAll(r.Messages)
	fixAll(r.Chosen)
	fixAll(r.Rejected)
	for _, answer := range r.Ranked {
		fixAll(answer)
	}
	if left {
		r.Notes = append(r.Notes, NotePlaceholder)
	}
	if c.replace != nil {
		r.Text = c.replace.Replace(r.Text)
		r.Reference = c.replace.Replace(r.Reference)
	}
}

// hasPlaceholder looks for {{word}}, which stands for something that the user
// was to fill in (identity sets have {{name}} and {{author}}).
func hasPlaceholder(s string) bool {
	for {
		i := strings.Index(s, "{{")
		if i < 0 {
			return false
		}
		s = s[i+2:]
		n := 0
		for n < len(s) && (s[n] == '_' || 'a' <= s[n]|0x20 && s[n]|0x20 <= 'z') {
			n++
		}
		if n > 0 && strings.HasPrefix(s[n:], "}}") {
			return true
		}
	}
}

// detectRows is how many records Detect wants to see.
const detectRows = 32

// Detect names the format that most of the records have, and in a tie the one
// whose row comes first. ok is false if no record looks like any format.
func Detect(records []Record, columns map[string]string) (format Format, ok bool) {
	count := map[Format]int{}
	for _, rec := range records {
		f, known := detectOne(rec, columns)
		if !known {
			continue
		}
		count[f]++
		if !ok || count[f] > count[format] {
			format, ok = f, true
		}
	}
	return format, ok
}

// detectOne tells a record's format by the names and types of its fields. The
// order of the tests matters: fields of a more special format come first.
func detectOne(rec Record, columns map[string]string) (Format, bool) {
	if rec.IsText {
		return FormatText, true
	}
	switch kindOf(rec.JSON) {
	case kindList:
		var items []json.RawMessage
		if json.Unmarshal(rec.JSON, &items) != nil || len(items) == 0 || kindOf(items[0]) != kindObject {
			return "", false
		}
		return FormatMessages, true
	case kindString:
		return FormatText, true
	}
	o, err := parseObject(rec.JSON, columns)
	if err != nil {
		return "", false
	}
	o.cells = rec.Cells
	pair := o.has("chosen", "response_j", "preferred_output") && o.has("rejected", "response_k", "non_preferred_output")
	labelled := o.kind("label") == kindBool
	chat := o.has("messages") || o.has("conversations", "conversation")
	question := o.has("instruction", "prompt", "question", "query")
	switch {
	case isTokens(o):
		return FormatTokens, true
	case o.kind("prompt") == kindList && (pair || labelled) && (o.has("time") || o.has("models")):
		return FormatVotes, true
	case pair && !question && !chat && isHH(o):
		return FormatHH, true
	case pair:
		return FormatPreference, true
	case o.kind("answers", "responses", "completions") == kindList && (question || chat || o.has("context")):
		return FormatRanking, true
	case labelled && (chat || question):
		return FormatKTO, true
	case o.kind("instances") == kindList && question:
		return FormatSelfInstruct, true
	case o.has("conversations", "conversation"):
		return FormatShareGPT, true
	case o.has("messages"):
		return FormatMessages, true
	case question && o.has("output", "response", "answer", "completion"):
		return FormatAlpaca, true
	case question, o.kind("text") == kindString && o.has("question_id"):
		return FormatPrompts, true
	case o.kind("text", "content") == kindString:
		return FormatText, true
	}
	return "", false
}

// isHH says whether chosen or rejected is a whole dialogue as text.
func isHH(o object) bool {
	for _, field := range []string{"chosen", "rejected"} {
		s, err := o.text(field)
		if err == nil && strings.HasPrefix(strings.TrimSpace(s), "Human:") {
			return true
		}
	}
	return false
}
