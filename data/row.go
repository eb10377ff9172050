package data

import (
	"encoding/json"
	"fmt"

	"ringtail/chat"
)

// The roles of a normalized Message. Every spelling that formats use (human,
// gpt, observation, ...) is mapped to one of these.
const (
	RoleSystem    = "system"
	RoleUser      = "user"
	RoleAssistant = "assistant"
	RoleTool      = "tool" // what a called function returned
)

// Message is one turn of a chat. Its Extra keeps the message's other fields as
// they stood in the file (tool_calls, name, reasoning_content, ...).
type Message = chat.Message

// Location says where a row came from.
type Location struct {
	File string `json:"file"`
	// Line is the line on which the record begins, from 1; 0 for Parquet and
	// Arrow, which have no lines.
	Line int `json:"line,omitempty"`
	// Element is the record's place in a JSON list, or the number of the row in
	// Parquet and Arrow, from 1; 0 for files that hold one record a line.
	Element int `json:"element,omitempty"`
}

// String is "file:line", or "file: element N (line L)" for a JSON list, or
// "file: row N".
func (l Location) String() string {
	switch {
	case l.Element > 0 && l.Line == 0:
		return fmt.Sprintf("%s: row %d", l.File, l.Element)
	case l.Element > 0:
		return fmt.Sprintf("%s: element %d (line %d)", l.File, l.Element, l.Line)
	case l.Line > 0:
		return fmt.Sprintf("%s:%d", l.File, l.Line)
	}
	return l.File
}

// Row is one example in normalized form. Which fields are set follows from the
// kind of example:
//
//	chat        Messages, ending with the assistant (a trailing user turn is
//	            possible; As deals with it)
//	prompt      Messages, ending with the user
//	text        Text
//	pair        Messages is the shared prompt; Chosen and Rejected continue it
//	ranking     Messages is the shared prompt; Ranked and Ranks
//	labelled    Messages, whose last answer is good or bad as Label says
//	prepared    Tokens: one sequence, or the better and the worse of a pair
type Row struct {
	Format   Format
	Where    Location
	Messages []Message
	Text     string

	Chosen, Rejected []Message

	// Ranked holds the K answers of a ranking, best first, each as the messages
	// that continue the prompt. Ranks[i] is the rank of Ranked[i], from 1;
	// equal ranks are ties. Scores[i] is its score where the file has scores.
	Ranked [][]Message
	Ranks  []int
	Scores []float64

	Label *bool

	// Margin is how much better Chosen is than Rejected, in the unit of the
	// file's scores; 0 where it isn't known.
	Margin float64

	// Tools is the list of functions that the chat may call, as JSON in OpenAI's
	// form, [{type, function: {name, ...}}]; nil where there is none.
	Tools json.RawMessage
	// Reference is the expected answer of a prompt, where the file has one
	// (gt_answer, reference, ...), for rewards by rule.
	Reference string
	// TestCases are the inputs and outputs by which an answer that is a program is
	// judged, as the file has them: {"inputs": [...], "outputs": [...]}.
	TestCases json.RawMessage
	// Category is the file's own grouping of rows, where it has one.
	Category string

	// Tokens are what a file holds that was tokenised by another program.
	Tokens []TokenSequence

	// Source is the name of the row's Source, and HeldOut says that it is kept for
	// evaluation; ReadRows sets both.
	Source  string
	HeldOut bool

	// Notes name what was repaired on the way (see the Note constants).
	Notes []Note
}

// Note names a repair that was made to a row that is used all the same. Notes
// are counted in Stats.
type Note string

// The notes.
const (
	NoteMergedTurns   Note = "merged_turns"        // neighbours of one role became one message
	NoteTrailingUser  Note = "trailing_turn_cut"   // turns after the last answer were dropped
	NoteEmptyUser     Note = "empty_user_turn"     // a user turn without text, kept as it is
	NoteBestAnswer    Note = "best_answer_used"    // a pair or ranking used as a chat
	NoteMiddleSystem  Note = "system_turn_inside"  // a system message after the first turn, kept
	NotePlaceholder   Note = "placeholder_left"    // {{name}} in the text and nothing to replace it
	NoteNotFunction   Note = "function_call_text"  // a function call that isn't JSON, kept as text
	NoteLeadingAnswer Note = "leading_answer_kept" // the chat begins with the assistant
	NoteTie           Note = "tied_pair_skipped"   // two answers of one rank make no pair
)
