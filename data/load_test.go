package data

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// byteEncoder is a tokenizer whose tokens are bytes, and a template that puts
// 300 + role before each message and 310 behind it.
type byteEncoder struct{}

var roleToken = map[string]int32{RoleSystem: 300, RoleUser: 301, RoleAssistant: 302, RoleTool: 303}

const endToken, eosToken = 310, 311

func (byteEncoder) EncodeChat(messages []Message, tools []byte) (ids []int32, mask []bool, err error) {
	for _, m := range messages {
		if m.Content == "refuse" {
			return nil, nil, errors.New("raised by the template")
		}
		said := m.Role == RoleAssistant
		ids, mask = append(ids, roleToken[m.Role]), append(mask, false)
		for _, c := range []byte(m.Content) {
			ids, mask = append(ids, int32(c)), append(mask, said)
		}
		ids, mask = append(ids, endToken), append(mask, said)
	}
	return ids, mask, nil
}

func (e byteEncoder) EncodePrompt(messages []Message, tools []byte) ([]int32, error) {
	ids, _, err := e.EncodeChat(messages, tools)
	return append(ids, roleToken[RoleAssistant]), err
}

func (byteEncoder) EncodeText(text string) ([]int32, error) {
	var ids []int32
	for _, c := range []byte(text) {
		ids = append(ids, int32(c))
	}
	return ids, nil
}

func (byteEncoder) EOS() (int32, bool) { return eosToken, true }

func decodeBytes(ids []int32) (string, error) {
	var b strings.Builder
	for _, id := range ids {
		switch id {
		case 300, 301, 302, 303:
			b.WriteString("<" + map[int32]string{300: "system", 301: "user", 302: "assistant", 303: "tool"}[id] + ">")
		case endToken:
			b.WriteString("<end>")
		case eosToken:
			b.WriteString("<eos>")
		default:
			b.WriteByte(byte(id))
		}
	}
	return b.String(), nil
}

// write puts a file into the test's folder.
func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, opt Options, sources ...Source) *Dataset {
	t.Helper()
	d, err := Load(context.Background(), sources, opt, byteEncoder{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// shown lists all sequences with their trained parts marked.
func shown(t testing.TB, d *Dataset) []string {
	t.Helper()
	var out []string
	for i := 0; ; i++ {
		seq, ok := d.Sequence(i)
		if !ok {
			return out
		}
		var b strings.Builder
		if err := Show(&b, seq, decodeBytes, ShowOptions{}); err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(b.String(), "\n")
		out = append(out, strings.TrimSuffix(text, "\n"))
	}
}

func TestLoadMarksWhatIsTrained(t *testing.T) {
	chat := `{"messages":[{"role":"system","content":"S"},{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"r"},{"role":"assistant","content":"b"}]}`
	path := write(t, "c.jsonl", chat)
	for on, want := range map[TrainOn]string{
		TrainOnAssistant: "<system>S<end><user>q<end><assistant>⟦a<end>⟧<user>r<end><assistant>⟦b<end>⟧",
		TrainOnLast:      "<system>S<end><user>q<end><assistant>a<end><user>r<end><assistant>⟦b<end>⟧",
		TrainOnAll:       "⟦<system>S<end><user>q<end><assistant>a<end><user>r<end><assistant>b<end>⟧",
	} {
		d := load(t, Options{TrainOn: on}, Source{Files: []string{path}})
		if got := shown(t, d); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", on, got, want)
		}
	}
	d := load(t, Options{}, Source{Files: []string{path}})
	seq, _ := d.Sequence(0)
	var b strings.Builder
	Show(&b, seq, func([]int32) (string, error) { return "a\x1b]0;x\nb", nil }, ShowOptions{Colour: true})
	if got := b.String(); strings.Contains(got, "\x1b]") || !strings.Contains(got, "\x1b[32ma␛]0;x\x1b[0m\n\x1b[32mb\x1b[0m") {
		t.Errorf("colours: %q", got)
	}
}

func TestTooLong(t *testing.T) {
	// Tokens of a message are its length + 2. The first row has 3+3+5 = 11 and 8
	// for the second exchange.
	rows := `{"messages":[{"role":"system","content":"S"},{"role":"user","content":"q"},{"role":"assistant","content":"abc"},{"role":"user","content":"r"},{"role":"assistant","content":"def"}]}
{"messages":[{"role":"user","content":"0123456789abcdef"},{"role":"assistant","content":"x"}]}
{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"x"}]}
`
	path := write(t, "c.jsonl", rows)
	short := "<user>q<end><assistant>⟦x<end>⟧"
	for _, c := range []struct {
		policy  TooLong
		limit   int
		want    []string
		skipped map[Reason]int
	}{
		{TooLongDrop, 12, []string{short}, map[Reason]int{ReasonTooLong: 2}},
		{TooLongTruncate, 12, []string{"<system>S<end><user>q<end><assistant>⟦abc<end>⟧<user>", short}, map[Reason]int{ReasonNothingLeft: 1}},
		{TooLongSplit, 12, []string{"<system>S<end><user>q<end><assistant>⟦abc<end>⟧", "<system>S<end><user>r<end><assistant>⟦def<end>⟧", short},
			map[Reason]int{ReasonNothingLeft: 1}},
		{TooLongSplit, 9, []string{"<system>S<end><user>q<end><assistant>⟦ab⟧", "<system>S<end><user>r<end><assistant>⟦de⟧", short}, map[Reason]int{ReasonNothingLeft: 1}},
	} {
		d := load(t, Options{MaxTokens: c.limit, TooLong: c.policy}, Source{Files: []string{path}})
		if got := shown(t, d); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %d:\ngot  %q\nwant %q", c.policy, c.limit, got, c.want)
		}
		st := d.Stats.Total
		for reason, n := range c.skipped {
			if st.Skipped[reason] == nil || st.Skipped[reason].Count != n {
				t.Errorf("%s: skipped %v, want %d %s", c.policy, st.Skipped, n, reason)
			}
		}
		if st.TooLong != 2 || st.Lengths.Max != 21 || !strings.HasSuffix(st.Lengths.Longest, ":2") || st.Rows+st.SkippedRows() != st.Records {
			t.Errorf("%s: stats %+v", c.policy, st)
		}
	}
	_, err := Load(context.Background(), []Source{{Files: []string{path}}}, Options{MaxTokens: 12, TooLong: TooLongError}, byteEncoder{})
	if err == nil || !strings.Contains(err.Error(), ":1: the row has 19 tokens, the limit is 12") {
		t.Errorf("error policy: %v", err)
	}
}

// Every token of a document but its first is a target once, and in order.
func TestTextWindows(t *testing.T) {
	text := "The quick brown fox jumps over the lazy dog."
	path := write(t, "a.txt", text)
	for limit := 2; limit < len(text)+3; limit++ {
		d := load(t, Options{Use: UsePretrain, MaxTokens: limit}, Source{Files: []string{path}})
		l, err := NewLoader(d, TrainPart, LoaderOptions{Sequential: true, Epochs: 1, Batch: 1})
		if err != nil {
			t.Fatal(err)
		}
		var got []int32
		for step := (Step{}); l.Next(&step); {
			for i, target := range step.Micro[0].Targets {
				if i == len(step.Micro[0].Targets)-1 {
					if target != IgnoreTarget {
						t.Fatalf("limit %d: the last token of a window has a target", limit)
					}
				} else {
					got = append(got, target)
				}
			}
			if len(step.Micro[0].IDs) > limit {
				t.Fatalf("limit %d: a window of %d tokens", limit, len(step.Micro[0].IDs))
			}
		}
		want := []int32(nil)
		for _, c := range []byte(text[1:]) {
			want = append(want, int32(c))
		}
		want = append(want, eosToken)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("limit %d: targets %v, want %v", limit, got, want)
		}
	}
}

func TestBadRows(t *testing.T) {
	path := write(t, "a.jsonl", `{"instruction":"q","output":"a"}
{"instruction":"q","output":""}
{"instruction":"q"}
{"instruction":"q","output":
{"instruction":"refuse","output":"b"}
{"instruction":"q","output":"c"}`)
	for policy, want := range map[BadRows]string{BadRowsError: `a.jsonl:3: field "output": missing`, BadRowsStrict: `a.jsonl:2: the answer is empty`} {
		_, err := Load(context.Background(), []Source{{Files: []string{path}}}, Options{BadRows: policy}, byteEncoder{})
		var e *RowError
		if !errors.As(err, &e) || !strings.Contains(strings.ReplaceAll(err.Error(), ` field "messages[1]":`, ""), want) {
			t.Errorf("%s: got %v, want %s", policy, err, want)
		}
	}
	d := load(t, Options{BadRows: BadRowsSkip}, Source{Files: []string{path}})
	st := d.Stats.Total
	if st.Records != 6 || st.Rows != 2 || st.SkippedRows() != 4 {
		t.Errorf("stats %+v", st)
	}
	for _, reason := range []Reason{ReasonEmptyAnswer, ReasonMissingField, ReasonBadJSON, ReasonTemplate} {
		tally := st.Skipped[reason]
		if tally == nil || tally.Count != 1 || len(tally.Examples) != 1 || !strings.Contains(tally.Examples[0], "a.jsonl:") {
			t.Errorf("%s: %+v", reason, tally)
		}
	}
	var b strings.Builder
	d.Stats.WriteText(&b)
	for _, want := range []string{"6 rows", "used             2 rows in 2 sequences", "missing_field"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if _, err := json.Marshal(d.Stats); err != nil {
		t.Error(err)
	}
}

func TestLoadErrors(t *testing.T) {
	good := write(t, "good.jsonl", `{"instruction":"q","output":"a"}`)
	cases := []struct {
		about   string
		sources []Source
		opt     Options
		want    string
	}{
		{"no source", nil, Options{}, "no data"},
		{"no file", []Source{{}}, Options{}, "names no file"},
		{"absent file", []Source{{Files: []string{"absent.jsonl"}}}, Options{}, "absent.jsonl"},
		{"folder", []Source{{Files: []string{t.TempDir()}}}, Options{}, "holds no data file"},
		{"pattern", []Source{{Files: []string{"absent*.jsonl"}}}, Options{}, "matches no file"},
		{"empty file", []Source{{Files: []string{write(t, "e.json", "")}}}, Options{}, "holds no rows"},
		{"empty list", []Source{{Files: []string{write(t, "e.json", "[]")}}}, Options{}, "holds no rows"},
		{"unknown fields", []Source{{Files: []string{write(t, "u.jsonl", `{"foo":1,"bar":2}`)}}}, Options{}, "bar, foo"},
		{"unknown format", []Source{{Files: []string{good}, Format: "alpacca"}}, Options{}, `format is "alpacca"`},
		{"unknown policy", []Source{{Files: []string{good}}}, Options{TooLong: "cut"}, `too_long is "cut"`},
		{"cut off file", []Source{{Files: []string{write(t, "c.json", `[{"instruction":"q","output":"a"},{"instr`)}}}, Options{BadRows: BadRowsSkip}, "cut off"},
		{"all dropped", []Source{{Files: []string{good}}}, Options{MaxTokens: 3}, "no row is left of the 1"},
		{"one weight", []Source{{Files: []string{good}, Weight: 1}, {Files: []string{good}}}, Options{}, "1 of 2"},
		{"all held out", []Source{{Files: []string{good}}}, Options{Eval: EvalSplit{Count: 1}}, "nothing would be left"},
		{"both splits", []Source{{Files: []string{good}}}, Options{Eval: EvalSplit{Count: 1, Fraction: 0.5}}, "give one"},
		{"fraction", []Source{{Files: []string{good}}}, Options{Eval: EvalSplit{Fraction: 1}}, "fraction is 1"},
		{"pairs", []Source{{Files: []string{good}}}, Options{Use: UsePairs}, "ReadRows"},
	}
	for _, c := range cases {
		_, err := Load(context.Background(), c.sources, c.opt, byteEncoder{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 1 {
			t.Errorf("%s: got %v, want an error with %q", c.about, err, c.want)
		}
	}
}

func TestLoadStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	path := write(t, "a.jsonl", manyRows(5000, "x"))
	opt := Options{Progress: func(int, int64, int64) { cancel() }}
	if _, err := Load(ctx, []Source{{Files: []string{path}}}, opt, byteEncoder{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// manyRows makes n Alpaca rows whose answers differ in length and content.
func manyRows(n int, tag string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"instruction\":\"%s\",\"output\":\"%d%s\"}\n", tag, i, strings.Repeat("y", i*7%23))
	}
	return b.String()
}

func TestLoadIsTheSameOnAnyNumberOfWorkers(t *testing.T) {
	path := write(t, "a.jsonl", manyRows(700, "x"))
	var want []string
	for _, workers := range []int{1, 2, 7} {
		d := load(t, Options{Workers: workers, Eval: EvalSplit{Fraction: 0.1}}, Source{Files: []string{path}})
		got := shown(t, d)
		if want == nil {
			want = got
		}
		if len(got) != 700 || !reflect.DeepEqual(got, want) {
			t.Errorf("%d workers give other rows", workers)
		}
	}
}

func TestHeldOutSplit(t *testing.T) {
	rows := manyRows(400, "x")
	// Each row twice, the second time in another order and format.
	var again strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(rows), "\n") {
		var o struct{ Instruction, Output string }
		json.Unmarshal([]byte(line), &o)
		s := fmt.Sprintf("{\"conversations\":[{\"from\":\"human\",\"value\":%q},{\"from\":\"gpt\",\"value\":%q}]}\n", o.Instruction, o.Output)
		again.WriteString(s)
	}
	a, b := write(t, "a.jsonl", rows), write(t, "b.jsonl", again.String())
	for _, split := range []EvalSplit{{Fraction: 0.1}, {Count: 50}, {Fraction: 1e-9}} {
		d := load(t, Options{Eval: split}, Source{Files: []string{a}}, Source{Files: []string{b}})
		side := map[string]bool{}
		held := 0
		for i, text := range shown(t, d) {
			seq, _ := d.Sequence(i)
			if before, ok := side[text]; ok && before != seq.HeldOut {
				t.Fatalf("%v: %q lies on both sides", split, text)
			}
			side[text] = seq.HeldOut
			if seq.HeldOut {
				held++
			}
		}
		train, eval := d.Sequences()
		if eval != held || train+eval != 800 || d.Stats.Total.HeldOut != held || d.Stats.Total.Duplicates != 400 {
			t.Errorf("%v: %d and %d sequences, %d held out, stats %+v", split, train, eval, held, d.Stats.Total)
		}
		low, high := 40, 120 // 10% of 800, by hash
		if split.Count > 0 {
			low, high = 50, 51
		} else if split.Fraction < 0.01 {
			low, high = 2, 2
		}
		if held < low || held > high {
			t.Errorf("%v: %d rows held out, want %d to %d", split, held, low, high)
		}
		// The sides don't hang on the order of files.
		e := load(t, Options{Eval: split}, Source{Files: []string{b}}, Source{Files: []string{a}})
		for i, text := range shown(t, e) {
			if seq, _ := e.Sequence(i); seq.HeldOut != side[text] {
				t.Fatalf("%v: %q changed sides with the order of files", split, text)
			}
		}
	}
	d := load(t, Options{Dedup: true}, Source{Files: []string{a}}, Source{Files: []string{b}})
	if train, _ := d.Sequences(); train != 400 || d.Stats.Total.Skipped[ReasonDuplicate].Count != 400 {
		t.Errorf("dedup leaves %d rows: %+v", train, d.Stats.Total)
	}
}

func TestSeparateEvaluationFiles(t *testing.T) {
	a, b := write(t, "a.jsonl", manyRows(30, "x")), write(t, "b.jsonl", manyRows(5, "x")+manyRows(5, "z"))
	d := load(t, Options{Eval: EvalSplit{Sources: []Source{{Files: []string{b}}}}}, Source{Files: []string{a}})
	train, eval := d.Sequences()
	if train != 25 || eval != 10 || d.Stats.Total.Skipped[ReasonHeldOut].Count != 5 {
		t.Errorf("%d and %d sequences, stats %+v", train, eval, d.Stats.Total)
	}
	l, err := NewLoader(d, EvalPart, LoaderOptions{Sequential: true, Epochs: 1, BatchTokens: 64})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for step := (Step{}); l.Next(&step); n += step.Sequences {
	}
	if n != 10 {
		t.Errorf("evaluation sees %d sequences, want 10", n)
	}
}

func TestMaxRowsAndNames(t *testing.T) {
	a, b := write(t, "a.jsonl", manyRows(30, "x")), write(t, "a.jsonl", manyRows(30, "z"))
	d := load(t, Options{}, Source{Files: []string{a, b}, MaxRows: 40}, Source{Files: []string{b}})
	if got := d.Sources(); !reflect.DeepEqual(got, []string{"a", "a-2"}) {
		t.Errorf("names %v", got)
	}
	if s := d.Stats.Sources[0]; s.Records != 40 || s.Files[0].Records != 30 || s.Files[1].Records != 10 {
		t.Errorf("stats %+v", s)
	}
}

func TestReadRows(t *testing.T) {
	path := write(t, "p.jsonl", `{"prompt":"q","answers":["c","a","b"],"ranks":[2,1,2]}
{"prompt":"q2","chosen":"g","rejected":"g"}
{"prompt":"q","answers":["c","a","b"],"ranks":[3,1,2]}
{"prompt":"other","answers":["1","2","3"],"ranks":[3,1,2]}`)
	rows, st, err := ReadRows(context.Background(), []Source{{Files: []string{path}, Format: FormatRanking}}, Options{Use: UsePairs, BadRows: BadRowsSkip})
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := ReadRows(context.Background(), []Source{{Name: "p", Files: []string{path}, Format: FormatRanking}},
		Options{Use: UsePairs, BadRows: BadRowsSkip, Eval: EvalSplit{Count: 2}})
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	side := map[int]bool{}
	for _, r := range again {
		if before, ok := side[r.Where.Line]; ok && before != r.HeldOut {
			t.Errorf("the pairs of line %d lie on both sides", r.Where.Line)
		}
		side[r.Where.Line] = r.HeldOut
		if r.Source != "p" {
			t.Errorf("source %q", r.Source)
		}
		if r.HeldOut {
			held++
		}
	}
	if held < 2 || held == len(again) {
		t.Errorf("%d rows held out, want 2 and those that equal them", held)
	}
	if len(rows) != 8 || st.Total.Notes[NoteTie] != 1 || st.Total.SkippedRows() != 1 {
		t.Errorf("%d rows, stats %+v", len(rows), st.Total)
	}
}

func TestRowAgain(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "a.json")
	lines := filepath.Join(dir, "b.jsonl")
	for path, text := range map[string]string{
		list:  `[{"instruction":"one","output":"1"},{"instruction":"two","output":"2"}]`,
		lines: "{\"messages\":[{\"role\":\"user\",\"content\":\"three\"},{\"role\":\"assistant\",\"content\":\"3\"}]}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Load(context.Background(), []Source{{Files: []string{list}}, {Files: []string{lines}}}, Options{Use: UseSFT}, byteEncoder{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"one", "two", "three"} {
		row, err := d.Row(i)
		if err != nil || row.Messages[0].Content != want {
			t.Errorf("row %d is %v (%v), want %q", i, row.Messages, err, want)
		}
	}
	if _, err := d.Row(3); err == nil {
		t.Error("a row behind the last was found")
	}
	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Row(0); err == nil {
		t.Error("a row of a removed file was found")
	}
}
