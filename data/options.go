package data

import (
	"fmt"
	"strings"
)

// Format names a row format. The empty Format means: detect it.
type Format string

// The row formats. Each lists the fields it reads; [x] is optional.
const (
	FormatAuto Format = ""
	// FormatAlpaca: instruction, output, [input], [system], [history]. Also
	// question/answer, prompt/completion, query/response (Stanford Alpaca,
	// Dolly and their kin).
	FormatAlpaca Format = "alpaca"
	// FormatShareGPT: conversations: [{from, value}], [system], [tools].
	FormatShareGPT Format = "sharegpt"
	// FormatMessages: messages: [{role, content}] (OpenAI; ColossalChat's
	// {from, content} too), [system], [tools]. A row may be the bare list.
	FormatMessages Format = "messages"
	// FormatSelfInstruct: instruction, instances: [{input, output}]; a row for
	// each instance.
	FormatSelfInstruct Format = "self_instruct"
	// FormatHH: chosen and rejected as whole "\n\nHuman: ...\n\nAssistant: ..."
	// dialogues (Anthropic's hh-rlhf).
	FormatHH Format = "hh"
	// FormatPreference: chosen and rejected as text, a message or messages,
	// with the prompt as text or messages, or inside both (DPO sets of
	// LLaMA-Factory, TRL, ColossalChat; response_j and response_k); OpenAI's input,
	// preferred_output and non_preferred_output.
	FormatPreference Format = "preference"
	// FormatRanking: a prompt, K answers, and their ranks or scores.
	FormatRanking Format = "ranking"
	// FormatKTO: messages, or prompt and completion, with a boolean label.
	FormatKTO Format = "kto"
	// FormatVotes: Ringtail's own votes, as `ringtail serve --votes` writes them.
	FormatVotes Format = "votes"
	// FormatPrompts: instruction, prompt, question or text alone, or messages
	// ending with the user.
	FormatPrompts Format = "prompts"
	// FormatText: text or content, or a plain text file.
	FormatText Format = "text"
	// FormatTokens: token ids that another program made (ColossalChat's prepared
	// sets): input_ids, [labels]; chosen_input_ids and rejected_input_ids with
	// loss masks; or prompt and completion as ids with a label.
	FormatTokens Format = "tokens"
)

// Formats lists the formats that can be named, in the order of detection.
func Formats() []Format {
	return []Format{FormatTokens, FormatVotes, FormatHH, FormatRanking, FormatPreference, FormatKTO, FormatSelfInstruct,
		FormatShareGPT, FormatMessages, FormatAlpaca, FormatPrompts, FormatText}
}

// Use is what rows are wanted for; it decides which rows fit (see Row.As).
type Use string

// The uses.
const (
	UseSFT      Use = "sft"      // chats that end with an answer, and text
	UsePretrain Use = "pretrain" // text; chats count as text through their template
	UsePrompts  Use = "prompts"  // chats that end with the user
	UsePairs    Use = "pairs"    // a prompt, a better and a worse answer
	UseRankings Use = "rankings" // a prompt and two or more answers with ranks
	UseKTO      Use = "kto"      // a prompt, an answer, good or bad
)

// TrainOn says which tokens of a chat count in the loss.
type TrainOn string

// The choices for TrainOn.
const (
	TrainOnAssistant TrainOn = "assistant" // all that the assistant says, with its end-of-turn token (default, but for UsePretrain)
	TrainOnLast      TrainOn = "last"      // the assistant's last answer only
	TrainOnAll       TrainOn = "all"       // every token, the template's included (default for UsePretrain)
)

// TooLong says what happens to a row of more than Options.MaxTokens tokens.
// Plain text is cut into windows under every policy but TooLongError.
type TooLong string

// The policies for rows that are too long.
const (
	TooLongDrop     TooLong = "drop"     // left out and counted (default)
	TooLongError    TooLong = "error"    // ends the load
	TooLongSplit    TooLong = "split"    // cut at turn borders into several rows, each with the system message
	TooLongTruncate TooLong = "truncate" // the end is cut off; dropped if no trained token is left
)

// BadRows says what happens to a row that can't be used. Two classes are told
// apart: mistakes (broken JSON, a missing field, a wrong type, an unknown role)
// and rows that are well formed but hold nothing to learn (an empty answer,
// equal answers in a pair).
type BadRows string

// The policies for bad rows.
const (
	BadRowsError  BadRows = "error"  // a mistake ends the load; a useless row is skipped and counted (default)
	BadRowsSkip   BadRows = "skip"   // both are skipped and counted
	BadRowsStrict BadRows = "strict" // both end the load
)

// TextMode says where a document of a plain text file ends.
type TextMode string

// The text modes.
const (
	// TextAuto (default): blank lines end a document if a blank line stands
	// between two lines of text in the file's first MiB; else each line is a
	// document.
	TextAuto       TextMode = "auto"
	TextLines      TextMode = "lines"
	TextParagraphs TextMode = "paragraphs" // documents are separated by blank lines
	TextFile       TextMode = "file"       // the whole file is one document
)

// Source names files that are mixed as one.
type Source struct {
	// Name shows in statistics and metrics and keys the source's shuffle. Empty:
	// the first file's name without directory and extensions.
	Name string
	// Files are files, patterns, or folders (see expandFiles).
	Files []string
	// Split is the split of a folder that is taken. Empty: train, and of a source
	// for evaluation validation, else test.
	Split  string
	Format Format // FormatAuto: detected for each file from its first rows
	// Columns maps a format's field to the file's: {prompt: question}.
	Columns map[string]string
	// Replace maps text to what takes its place in every message:
	// {"{{name}}": "Ringtail"}.
	Replace map[string]string
	// System is put before chats that have no system message.
	System string
	Text   TextMode
	// Weight is the source's share of the mixture relative to the others'
	// weights. 0 in every source: rows count alike, and an epoch takes each row
	// once. Either all sources of a mixture have a weight or none.
	Weight float64
	// MaxRows stops reading after so many rows; 0 reads all.
	MaxRows int
}

// byPrompt says whether rows are held out by their prompts, so that none of the
// answers to a held-out prompt is trained on.
func (u Use) byPrompt() bool { return u == UseRankings || u == UsePairs || u == UsePrompts }

// EvalSplit says which rows are held out. The choice hangs on each row's
// content alone, so it doesn't change with the seed or the order of files, and
// equal rows never lie on both sides. Of pairs, rankings and prompts it hangs on
// the prompt's messages: rows that ask the same lie on one side.
type EvalSplit struct {
	Fraction float64  // of all rows, in [0, 1)
	Count    int      // at least so many rows (those of one side go together)
	Sources  []Source // separate files; all of their rows
}

// Options govern Load.
type Options struct {
	Use     Use
	TrainOn TrainOn
	// MaxTokens is the longest row that training takes; 0 means no limit. Of a
	// ranking it is the longest answer with its prompt; for UsePrompts, the
	// longest prompt.
	MaxTokens int
	TooLong   TooLong
	BadRows   BadRows
	// Dedup drops rows whose content equals an earlier row's.
	Dedup bool
	Eval  EvalSplit
	// MaxRowBytes bounds one raw row, so that a broken file or a decompression
	// bomb can't take all memory; 0 means DefaultMaxRowBytes.
	MaxRowBytes int
	// Workers is how many goroutines convert and encode; 0 means GOMAXPROCS.
	// The result doesn't depend on it.
	Workers int
	// Progress, if set, is called now and then, from one goroutine, with the
	// rows and compressed bytes read so far and the bytes of all files.
	Progress func(rows int, bytes, total int64)
}

// DefaultMaxRowBytes is the longest raw row that is read by default: 64 MiB.
const DefaultMaxRowBytes = 64 << 20

// withDefaults fills what is empty and checks what isn't.
func (o Options) withDefaults() (Options, error) {
	if o.Use == "" {
		o.Use = UseSFT
	}
	if o.TrainOn == "" {
		o.TrainOn = TrainOnAssistant
		if o.Use == UsePretrain {
			o.TrainOn = TrainOnAll
		}
	}
	if o.TooLong == "" {
		o.TooLong = TooLongDrop
	}
	if o.BadRows == "" {
		o.BadRows = BadRowsError
	}
	if o.MaxRowBytes == 0 {
		o.MaxRowBytes = DefaultMaxRowBytes
	}
	for _, err := range []error{
		oneOf("use", o.Use, UseSFT, UsePretrain, UsePrompts, UsePairs, UseRankings, UseKTO),
		oneOf("train_on", o.TrainOn, TrainOnAssistant, TrainOnLast, TrainOnAll),
		oneOf("too_long", o.TooLong, TooLongDrop, TooLongError, TooLongSplit, TooLongTruncate),
		oneOf("bad_rows", o.BadRows, BadRowsError, BadRowsSkip, BadRowsStrict),
	} {
		if err != nil {
			return o, err
		}
	}
	if o.MaxTokens < 0 || o.MaxTokens == 1 {
		return o, fmt.Errorf("max_tokens is %d: expected 0 (no limit) or at least 2", o.MaxTokens)
	}
	if o.MaxRowBytes < 0 {
		return o, fmt.Errorf("max_row_bytes is %d: expected a positive number of bytes", o.MaxRowBytes)
	}
	if f := o.Eval.Fraction; !(f >= 0 && f < 1) {
		return o, fmt.Errorf("eval fraction is %v: expected a number from 0 up to, not including, 1", f)
	}
	if o.Eval.Count < 0 {
		return o, fmt.Errorf("eval count is %d: expected 0 or more", o.Eval.Count)
	}
	if o.Eval.Fraction > 0 && o.Eval.Count > 0 {
		return o, fmt.Errorf("eval has both a fraction (%v) and a count (%d): give one", o.Eval.Fraction, o.Eval.Count)
	}
	return o, nil
}

// checkEncoding refuses what Load can't do for a use.
func (o Options) checkEncoding() error {
	var cut string
	switch o.Use {
	case UseSFT, UsePretrain:
		return nil
	case UseRankings:
		cut = "a cut answer isn't the one that was ranked"
	case UsePrompts:
		cut = "a cut prompt asks something else"
	case UseKTO:
		cut = "a cut answer isn't the one that was judged"
	default:
		return fmt.Errorf("data for %q isn't encoded as single sequences: read its rows with ReadRows", o.Use)
	}
	if o.TrainOn == TrainOnAll {
		return fmt.Errorf("train_on is %q, but of %s only answers can count: leave it out", o.TrainOn, o.Use)
	}
	if o.TooLong != TooLongDrop && o.TooLong != TooLongError {
		return fmt.Errorf("too_long is %q, but %s: expected %s or %s for %s", o.TooLong, cut, TooLongDrop, TooLongError, o.Use)
	}
	return nil
}

// withDefaults names the source and checks its settings.
func (s Source) withDefaults() (Source, error) {
	if len(s.Files) == 0 {
		return s, fmt.Errorf("data source %q names no file", s.Name)
	}
	if s.Name == "" {
		s.Name = baseName(s.Files[0])
	}
	if s.Text == "" {
		s.Text = TextAuto
	}
	if s.Format != FormatAuto {
		if err := oneOf("format", s.Format, Formats()...); err != nil {
			return s, fmt.Errorf("data source %q: %w", s.Name, err)
		}
	}
	if err := oneOf("text", s.Text, TextAuto, TextLines, TextParagraphs, TextFile); err != nil {
		return s, fmt.Errorf("data source %q: %w", s.Name, err)
	}
	if err := checkColumns(s.Columns); err != nil {
		return s, fmt.Errorf("data source %q: %w", s.Name, err)
	}
	if !(s.Weight >= 0 && s.Weight <= 1e6) {
		return s, fmt.Errorf("data source %q: weight is %v: expected a number from 0 to 1e6", s.Name, s.Weight)
	}
	if s.MaxRows < 0 {
		return s, fmt.Errorf("data source %q: max_rows is %d: expected 0 (all) or more", s.Name, s.MaxRows)
	}
	for from := range s.Replace {
		if from == "" {
			return s, fmt.Errorf("data source %q: replace has an empty key", s.Name)
		}
	}
	return s, nil
}

// oneOf reports a setting that is none of its allowed values.
func oneOf[T ~string](key string, got T, allowed ...T) error {
	names := make([]string, len(allowed))
	for i, a := range allowed {
		if got == a {
			return nil
		}
		names[i] = string(a)
	}
	return fmt.Errorf("%s is %q: expected one of %s", key, string(got), strings.Join(names, ", "))
}

// baseName is a file's name without directory and without its last extensions
// (also the one below .gz or .zst).
func baseName(path string) string {
	path = strings.TrimRight(path, `/\`)
	name := path[strings.LastIndexAny(path, `/\`)+1:]
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".gz"), ".zst")
	if dot := strings.LastIndexByte(name, '.'); dot > 0 {
		name = name[:dot]
	}
	return name
}
