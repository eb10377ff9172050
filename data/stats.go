package data

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
)

// Stats says what became of every row. Its JSON form is what
// `ringtail data stats --json` prints.
type Stats struct {
	Sources []*SourceStats `json:"sources"`
	Total   *SourceStats   `json:"total"`
}

// SourceStats are the counts of one source, or of all.
type SourceStats struct {
	Name  string      `json:"name"`
	Eval  bool        `json:"eval_only,omitempty"` // a separate evaluation source
	Files []FileStats `json:"files,omitempty"`

	// Records is how many rows the files hold; Rows how many are used, which
	// differs from Records by the Skipped ones, and by formats of which one
	// record gives several rows (rankings, self_instruct).
	Records   int `json:"records"`
	Rows      int `json:"rows"`
	Sequences int `json:"sequences"` // what is trained on, after splitting
	HeldOut   int `json:"held_out"`  // sequences of these kept for evaluation

	Skipped    map[Reason]*Tally `json:"skipped,omitempty"`
	Notes      map[Note]int      `json:"notes,omitempty"`
	Duplicates int               `json:"duplicates"` // rows that equal an earlier one, dropped or not

	Tokens  int64 `json:"tokens"`  // of the sequences
	Trained int64 `json:"trained"` // targets among them
	// Lengths are of whole rows in tokens, before any cut, dropped ones included; of
	// a ranking it is the longest answer's with its prompt.
	Lengths Lengths `json:"lengths"`
	// TooLong counts rows above the limit, whatever was done with them; CutTokens
	// are the tokens lost by truncation.
	TooLong   int   `json:"too_long"`
	CutTokens int64 `json:"cut_tokens"`

	lengths []int32
}

// FileStats are the counts of one file.
type FileStats struct {
	Path    string `json:"path"`
	Format  Format `json:"format"`
	Records int    `json:"records"`
}

// Tally counts rows that aren't used for one reason; Examples tells of the
// first ones.
type Tally struct {
	Count    int      `json:"count"`
	Examples []string `json:"examples"`
}

// Lengths are percentiles of row lengths in tokens, by nearest rank, and where
// the longest row is.
type Lengths struct {
	Mean    float64 `json:"mean"`
	Min     int     `json:"min"`
	P50     int     `json:"p50"`
	P90     int     `json:"p90"`
	P99     int     `json:"p99"`
	Max     int     `json:"max"`
	Longest string  `json:"longest,omitempty"`
}

// maxExamples is how many rows a Tally tells of.
const maxExamples = 3

func newSourceStats(name string) *SourceStats {
	return &SourceStats{Name: name, Skipped: map[Reason]*Tally{}, Notes: map[Note]int{}}
}

// skip counts a row that isn't used.
func (s *SourceStats) skip(reason Reason, example string) {
	t := s.Skipped[reason]
	if t == nil {
		t = &Tally{}
		s.Skipped[reason] = t
	}
	t.Count++
	if len(t.Examples) < maxExamples {
		t.Examples = append(t.Examples, example)
	}
}

// length counts a row's length.
func (s *SourceStats) length(n int, where Location) {
	if len(s.lengths) == 0 || n > s.Lengths.Max {
		s.Lengths.Max = n
		s.Lengths.Longest = where.String()
	}
	s.lengths = append(s.lengths, int32(n))
}

// SkippedRows is how many rows aren't used, over all reasons.
func (s *SourceStats) SkippedRows() int {
	n := 0
	for _, t := range s.Skipped {
		n += t.Count
	}
	return n
}

// finish computes the percentiles and the total.
func (st *Stats) finish() {
	total := newSourceStats("total")
	for _, s := range st.Sources {
		total.merge(s)
		s.percentiles()
		s.lengths = nil
	}
	total.percentiles()
	total.lengths = nil
	st.Total = total
}

func (s *SourceStats) merge(o *SourceStats) {
	s.Records += o.Records
	s.Rows += o.Rows
	s.Sequences += o.Sequences
	s.HeldOut += o.HeldOut
	s.Duplicates += o.Duplicates
	s.Tokens += o.Tokens
	s.Trained += o.Trained
	s.TooLong += o.TooLong
	s.CutTokens += o.CutTokens
	for reason, t := range o.Skipped {
		if s.Skipped[reason] == nil {
			s.Skipped[reason] = &Tally{}
		}
		mine := s.Skipped[reason]
		mine.Count += t.Count
		mine.Examples = append(mine.Examples, t.Examples[:min(len(t.Examples), maxExamples-len(mine.Examples))]...)
	}
	for note, n := range o.Notes {
		s.Notes[note] += n
	}
	if len(o.lengths) > 0 && (len(s.lengths) == 0 || o.Lengths.Max > s.Lengths.Max) {
		s.Lengths.Max, s.Lengths.Longest = o.Lengths.Max, o.Lengths.Longest
	}
	s.lengths = append(s.lengths, o.lengths...)
}

func (s *SourceStats) percentiles() {
	n := len(s.lengths)
	if n == 0 {
		return
	}
	slices.Sort(s.lengths)
	sum := 0.0
	for _, l := range s.lengths {
		sum += float64(l)
	}
	rank := func(percent int) int { return int(s.lengths[(n*percent+99)/100-1]) }
	l := &s.Lengths
	l.Mean, l.Min, l.P50, l.P90, l.P99 = sum/float64(n), int(s.lengths[0]), rank(50), rank(90), rank(99)
}

// WriteText prints the counts for people.
func (st *Stats) WriteText(w io.Writer) error {
	var b strings.Builder
	list := st.Sources
	if len(list) != 1 {
		list = append(list[:len(list):len(list)], st.Total)
	}
	for i, s := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		s.writeText(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *SourceStats) writeText(b *strings.Builder) {
	title := s.Name
	if s.Eval {
		title += " (evaluation only)"
	}
	fmt.Fprintf(b, "%s\n", title)
	for _, f := range s.Files {
		fmt.Fprintf(b, "  %-10s %7d rows  %s\n", f.Format, f.Records, f.Path)
	}
	fmt.Fprintf(b, "  read       %7d rows\n  used       %7d rows", s.Records, s.Rows)
	if s.Sequences > 0 {
		fmt.Fprintf(b, " in %d sequences, %d of them held out", s.Sequences, s.HeldOut)
	}
	b.WriteByte('\n')
	reasons := sortedKeys(s.Skipped)
	sort.SliceStable(reasons, func(i, j int) bool { return s.Skipped[reasons[i]].Count > s.Skipped[reasons[j]].Count })
	for _, r := range reasons {
		fmt.Fprintf(b, "  not used   %7d rows  %s\n", s.Skipped[r].Count, r)
		for _, example := range s.Skipped[r].Examples {
			fmt.Fprintf(b, "                             %s\n", printable(example))
		}
	}
	for _, n := range sortedKeys(s.Notes) {
		fmt.Fprintf(b, "  note       %7d rows  %s\n", s.Notes[n], n)
	}
	if s.Duplicates > 0 {
		fmt.Fprintf(b, "  duplicates %7d rows\n", s.Duplicates)
	}
	if s.Tokens > 0 {
		fmt.Fprintf(b, "  tokens     %7d, of which %d are trained on (%.1f%%)\n", s.Tokens, s.Trained, 100*float64(s.Trained)/float64(s.Tokens))
	}
	if l := s.Lengths; l.Max > 0 {
		fmt.Fprintf(b, "  length     %7.0f tokens on average; least %d, median %d, 90%% %d, 99%% %d, most %d (%s)\n",
			l.Mean, l.Min, l.P50, l.P90, l.P99, l.Max, printable(l.Longest))
	}
	if s.TooLong > 0 {
		fmt.Fprintf(b, "  too long   %7d rows; %d tokens cut off\n", s.TooLong, s.CutTokens)
	}
}
