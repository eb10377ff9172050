package data

import (
	"fmt"
)

// Reason says in one word why a row isn't used. Stats counts rows by it.
type Reason string

// Mistakes: the row isn't what its format says.
const (
	ReasonBadJSON        Reason = "bad_json"
	ReasonBadCSV         Reason = "bad_csv"
	ReasonInvalidUTF8    Reason = "invalid_utf8"
	ReasonTooLarge       Reason = "row_too_large"
	ReasonMissingField   Reason = "missing_field"
	ReasonWrongType      Reason = "wrong_type"
	ReasonUnknownRole    Reason = "unknown_role"
	ReasonUnknown        Reason = "unknown_format"
	ReasonTemplate       Reason = "template_refused" // the chat template or tokenizer can't take the row
	ReasonOtherTokenizer Reason = "other_tokenizer"  // the row holds tokens of another tokenizer
	ReasonNotFit         Reason = "not_for_this_use" // e.g. a chat where pairs are wanted
)

// Well-formed rows with nothing to learn from.
const (
	ReasonEmptyText     Reason = "empty_text"
	ReasonEmptyPrompt   Reason = "empty_prompt"
	ReasonEmptyAnswer   Reason = "empty_answer"
	ReasonNoAnswer      Reason = "no_answer"        // nobody answers the chat's only question
	ReasonRoles         Reason = "roles"            // turns in an order that makes no sense
	ReasonIdenticalPair Reason = "identical_pair"   // chosen equals rejected
	ReasonNoPrompt      Reason = "no_shared_prompt" // chosen and rejected begin differently
	ReasonAllTied       Reason = "all_tied"         // a ranking in which all answers are equal
	ReasonLabelledBad   Reason = "labelled_bad"     // a chat that is labelled as bad, where good ones are wanted
	ReasonOtherVote     Reason = "other_vote"       // a thumb where pairs are wanted
	ReasonDuplicate     Reason = "duplicate"
	ReasonHeldOut       Reason = "equals_held_out" // the row is also in the separate evaluation files
	ReasonTooLong       Reason = "too_long"
	ReasonNothingLeft   Reason = "nothing_trained" // no trained token, or none left after the cut
)

// mistake says whether a row is wrong, rather than useless.
func (r Reason) mistake() bool {
	switch r {
	case ReasonBadJSON, ReasonBadCSV, ReasonInvalidUTF8, ReasonTooLarge, ReasonMissingField, ReasonWrongType,
		ReasonUnknownRole, ReasonUnknown, ReasonTemplate, ReasonOtherTokenizer, ReasonNotFit:
		return true
	}
	return false
}

// filtered says whether a row is left out because the user's settings ask for
// it; that is never an error.
func (r Reason) filtered() bool {
	switch r {
	case ReasonLabelledBad, ReasonOtherVote, ReasonDuplicate, ReasonHeldOut, ReasonTooLong:
		return true
	}
	return false
}

// RowError says what is wrong with one row: where it stands, which field, what
// was expected.
type RowError struct {
	Where  Location
	Field  string // "" where the whole row is meant; "messages[2].role" inside a list
	Reason Reason
	Msg    string
}

// Error is `file:line: field "output": expected a string, found a number`.
func (e *RowError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", e.Where, e.Msg)
	}
	return fmt.Sprintf("%s: field %q: %s", e.Where, e.Field, e.Msg)
}

// rowErr makes a RowError whose place is filled in later, by whoever knows it.
func rowErr(reason Reason, field, format string, args ...any) *RowError {
	return &RowError{Field: field, Reason: reason, Msg: fmt.Sprintf(format, args...)}
}
