package data

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ringtail/chat"
)

func TestAsRankings(t *testing.T) {
	cases := []struct {
		about  string
		format Format
		json   string
		want   string
		scores []float64
		ties   int
	}{
		{"a pair", FormatPreference, `{"prompt":"q","chosen":"g","rejected":"b"}`, "u:q | 1 a:g | 2 a:b", nil, 0},
		{"a pair with a margin", FormatPreference, `{"prompt":"q","chosen":"g","rejected":"b","score_chosen":8,"score_rejected":5.5}`,
			"u:q | 1 a:g | 2 a:b", []float64{2.5, 0}, 0},
		{"a vote", FormatVotes, `{"prompt":[{"role":"user","content":"q"}],"chosen":[{"role":"assistant","content":"g"}],"rejected":[{"role":"assistant","content":"b"}]}`,
			"u:q | 1 a:g | 2 a:b", nil, 0},
		{"ranks", FormatRanking, `{"prompt":"q","answers":["c","a","b"],"ranks":[3,1,2]}`, "u:q | 1 a:a | 2 a:b | 3 a:c", nil, 0},
		{"scores with a tie", FormatRanking, `{"prompt":"q","answers":["c","a","b","b2"],"scores":[1,5,3,3]}`,
			"u:q | 1 a:a | 2 a:b | 2 a:b2 | 4 a:c", []float64{5, 3, 3, 1}, 1},
		{"three of one rank", FormatRanking, `{"prompt":"q","answers":["a","b","c","d"],"ranks":[2,1,2,2]}`,
			"u:q | 1 a:b | 2 a:a | 2 a:c | 2 a:d", nil, 3},
		{"equal answers", FormatRanking, `{"prompt":"q","answers":["c","b","a","b"],"scores":[1,2,4,3]}`,
			"u:q | 1 a:a | 2 a:b | 4 a:c", []float64{4, 3, 1}, 1},
		{"equal answers of one rank", FormatRanking, `{"prompt":"q","answers":["a","a","b"],"ranks":[1,1,2]}`, "u:q | 1 a:a | 3 a:b", nil, 1},
		{"the same answer three times", FormatRanking, `{"prompt":"q","answers":["a","a","a","b"],"ranks":[1,2,3,4]}`, "u:q | 1 a:a | 4 a:b", nil, 3},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			rows, err := NewConverter(c.format, Source{}).Convert(jsonRecord(c.json))
			if err != nil {
				t.Fatal(err)
			}
			before := briefRow(rows[0])
			got, ties, err := rows[0].As(UseRankings)
			if err != nil || len(got) != 1 {
				t.Fatalf("%d rows, %v", len(got), err)
			}
			if briefRow(got[0]) != c.want || !reflect.DeepEqual(got[0].Scores, c.scores) || ties != c.ties {
				t.Errorf("got %s, scores %v, %d ties; want %s, %v, %d", briefRow(got[0]), got[0].Scores, ties, c.want, c.scores, c.ties)
			}
			if briefRow(rows[0]) != before {
				t.Errorf("the row itself became %s", briefRow(rows[0]))
			}
			// Pairs are those of the ranking, and count the same ties.
			want, _ := got[0].Pairs()
			pairs, pairTies, err := rows[0].As(UsePairs)
			if err != nil || !reflect.DeepEqual(pairs, want) || pairTies != ties {
				t.Errorf("as pairs: %v, %d ties, %v; want %v and %d", pairs, pairTies, err, want, ties)
			}
			if _, raw := rows[0].Pairs(); rows[0].Ranked != nil && raw != ties {
				t.Errorf("Pairs counts %d ties", raw)
			}
		})
	}
}

// What a row's text became on the way is judged as well.
func TestRankingsAfterReplacement(t *testing.T) {
	src := Source{Replace: map[string]string{"NIL": "", "ONE": "two"}}
	for _, c := range []struct {
		json   string
		reason Reason
	}{
		{`{"prompt":"q","answers":["a","NIL"],"ranks":[1,2]}`, ReasonEmptyAnswer},
		{`{"prompt":"q","answers":["ONE","two"],"ranks":[1,2]}`, ReasonAllTied},
	} {
		rows, err := NewConverter(FormatRanking, src).Convert(jsonRecord(c.json))
		if err != nil {
			t.Fatal(err)
		}
		for _, use := range []Use{UseRankings, UsePairs} {
			_, _, err = rows[0].As(use)
			var e *RowError
			if !errors.As(err, &e) || e.Reason != c.reason {
				t.Errorf("%s as %s: %v, want %s", c.json, use, err, c.reason)
			}
		}
	}
	if _, _, err := (Row{Messages: []Message{{Role: RoleUser, Content: "q"}}, Ranked: [][]Message{}}).As(UseRankings); err == nil {
		t.Error("a ranking of no answer was taken")
	}
}

func TestRankingsAreEncoded(t *testing.T) {
	for _, c := range []struct{ about, json, want string }{
		{"pair", `{"prompt":"q","chosen":"yes","rejected":"n"}`,
			"rank 1: 8 tokens\n<user>q<end><assistant>⟦yes<end>⟧\nrank 2: 6 tokens\n<user>q<end><assistant>⟦n<end>⟧"},
		{"scores", `{"prompt":"q","answers":["c","a","b"],"scores":[1.5,4,4]}`,
			"rank 1, score 4: 6 tokens\n<user>q<end><assistant>⟦a<end>⟧\nrank 1, score 4: 6 tokens\n<user>q<end><assistant>⟦b<end>⟧\n" +
				"rank 3, score 1.5: 6 tokens\n<user>q<end><assistant>⟦c<end>⟧"},
		{"only what was ranked is marked", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"w"},{"role":"user","content":"r"}],"chosen":"g","rejected":"b"}`,
			"rank 1: 12 tokens\n<user>q<end><assistant>w<end><user>r<end><assistant>⟦g<end>⟧\nrank 2: 12 tokens\n<user>q<end><assistant>w<end><user>r<end><assistant>⟦b<end>⟧"},
		{"dialogues that part early", `{"chosen":"\n\nHuman: q\n\nAssistant: a","rejected":"\n\nHuman: q\n\nAssistant: b\n\nHuman: r\n\nAssistant: c"}`,
			"rank 1: 6 tokens\n<user>q<end><assistant>⟦a<end>⟧\nrank 2: 12 tokens\n<user>q<end><assistant>b<end><user>r<end><assistant>⟦c<end>⟧"},
	} {
		t.Run(c.about, func(t *testing.T) {
			for _, on := range []TrainOn{"", TrainOnLast, TrainOnAssistant} {
				d := load(t, Options{Use: UseRankings, TrainOn: on}, Source{Files: []string{write(t, "a.jsonl", c.json)}})
				if got := shown(t, d); len(got) != 1 || got[0] != c.want {
					t.Errorf("train_on %q: got %q, want %q", on, got, c.want)
				}
			}
		})
	}
}

func TestPromptsAreEncoded(t *testing.T) {
	path := write(t, "a.jsonl", `{"instruction":"q","output":"r"}
{"instruction":"two"}
{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"},{"from":"human","value":"b"},{"from":"gpt","value":"c"}]}
{"instruction":" ","output":"r"}`)
	want := []string{"<user>q<end><assistant>", "<user>q<end><assistant>a<end><user>b<end><assistant>"}
	d := load(t, Options{Use: UsePrompts, BadRows: BadRowsSkip}, Source{Files: []string{write(t, "p.jsonl", `{"prompt":"two"}`)}}, Source{Files: []string{path}, Format: FormatAlpaca})
	if got := shown(t, d); !reflect.DeepEqual(got, []string{"<user>two<end><assistant>", want[0]}) {
		t.Errorf("got %q", got)
	}
	if st := d.Stats.Total; st.Records != 5 || st.Rows != 2 || st.Trained != 0 || st.Skipped[ReasonEmptyPrompt].Count != 1 || st.Skipped[ReasonMissingField].Count != 2 {
		t.Errorf("stats %+v", st)
	}
	d = load(t, Options{Use: UsePrompts, BadRows: BadRowsSkip}, Source{Files: []string{path}, Format: FormatShareGPT})
	if got := shown(t, d); !reflect.DeepEqual(got, want[1:]) {
		t.Errorf("got %q, want %q", got, want[1:])
	}
	l := newTestLoader(t, d, LoaderOptions{Batch: 1, Epochs: 1})
	var step Step
	if !l.Next(&step) || step.Sequences != 1 || step.Trained != 0 || step.Groups != 0 || step.Tokens != 10 || len(step.Micro[0].Groups) != 0 {
		t.Errorf("step %+v", step)
	}
}

// With a real template: a ranking's sequences are the prompt's tokens, those of the
// answer, and the token that ends the turn, without the line's end behind it.
func TestRankingsBeginWithTheirPrompts(t *testing.T) {
	template, err := chat.New("test", chatML)
	if err != nil {
		t.Fatal(err)
	}
	enc := &ChatEncoder{Tokenizer: charTokenizer{}, Template: template, EOSID: 310}
	path := write(t, "a.jsonl", `{"prompt":"q","answers":["first","2nd<|im_end|>","\nthird "],"ranks":[1,2,3]}
{"messages":[{"role":"system","content":"S"},{"role":"user","content":"q"},{"role":"assistant","content":"w"},{"role":"user","content":"r"}],"tools":[{"name":"f"}],"chosen":"g","rejected":"b"}
`)
	for _, format := range []Format{FormatRanking, FormatPreference} {
		src := []Source{{Files: []string{path}, Format: format}}
		opt := Options{Use: UseRankings, BadRows: BadRowsSkip}
		rankings, err := Load(context.Background(), src, opt, enc)
		if err != nil {
			t.Fatal(err)
		}
		opt.Use = UsePrompts
		prompts, err := Load(context.Background(), src, opt, enc)
		if err != nil {
			t.Fatal(err)
		}
		row, err := rankings.Row(0)
		if err != nil {
			t.Fatal(err)
		}
		rows, _, err := row.As(UseRankings)
		if err != nil {
			t.Fatal(err)
		}
		row = rows[0]
		want, err := chat.EncodePrompt(charTokenizer{}, template, FlattenTools(row.Messages, row.Tools), chat.RenderOptions{AddGenerationPrompt: true})
		if err != nil {
			t.Fatal(err)
		}
		prompt, _ := prompts.Sequence(0)
		if !slices.Equal(prompt.IDs, want) || slices.Contains(prompt.Trained, true) {
			t.Errorf("%s: the prompt is %v, want %v; trained %v", format, prompt.IDs, want, prompt.Trained)
		}
		ranking, _ := rankings.Sequence(0)
		if len(ranking.Answers) != len(row.Ranked) {
			t.Fatalf("%s: %d answers, want %d", format, len(ranking.Answers), len(row.Ranked))
		}
		at := 0
		for i, a := range ranking.Answers {
			want := slices.Clone(want)
			for _, c := range []byte(row.Ranked[i][0].Content) {
				want = append(want, int32(c))
			}
			want = append(want, 310)
			if a.From != at || !slices.Equal(ranking.IDs[a.From:a.To], want) {
				t.Errorf("%s: answer %d is %v, want %v", format, i, ranking.IDs[a.From:a.To], want)
			}
			for k, trained := range ranking.Trained[a.From:a.To] {
				if trained != (k >= len(prompt.IDs)) {
					t.Errorf("%s: answer %d: token %d trained: %v", format, i, k, trained)
				}
			}
			at = a.To
		}
		if at != len(ranking.IDs) {
			t.Errorf("%s: the answers end at %d of %d", format, at, len(ranking.IDs))
		}
	}
}

func TestRankingsTooLong(t *testing.T) {
	// Answers of the first row have 7 and 10 tokens with their prompt, 17 together;
	// those of the second 6 each. Prompts have 5 and 4.
	path := write(t, "a.jsonl", `{"prompt":"qq","chosen":"a","rejected":"abcd"}
{"prompt":"q","chosen":"a","rejected":"b"}`)
	src := Source{Files: []string{path}}
	for _, c := range []struct {
		use         Use
		limit, rows int
	}{{UseRankings, 10, 2}, {UseRankings, 9, 1}, {UseRankings, 6, 1}, {UsePrompts, 5, 2}, {UsePrompts, 4, 1}} {
		d := load(t, Options{Use: c.use, MaxTokens: c.limit}, src)
		st := d.Stats.Total
		if st.Rows != c.rows || c.rows < 2 && (st.Skipped[ReasonTooLong] == nil || st.Skipped[ReasonTooLong].Count != 1 || st.TooLong != 1) {
			t.Errorf("%s, limit %d: %+v", c.use, c.limit, st)
		}
		if longest := map[Use]int{UseRankings: 10, UsePrompts: 5}[c.use]; st.Lengths.Max != longest {
			t.Errorf("%s, limit %d: the longest is %d, want %d", c.use, c.limit, st.Lengths.Max, longest)
		}
	}
	for _, c := range []struct {
		use    Use
		policy TooLong
		want   string
	}{
		{UseRankings, TooLongError, "a.jsonl:1: the longest answer has 10 tokens with its prompt, the limit is 4"},
		{UsePrompts, TooLongError, "a.jsonl:1: the prompt has 5 tokens, the limit is 4"},
		{UseRankings, TooLongSplit, `too_long is "split", but a cut answer isn't the one that was ranked`},
		{UseRankings, TooLongTruncate, `too_long is "truncate", but a cut answer`},
		{UsePrompts, TooLongSplit, `too_long is "split", but a cut prompt asks something else`},
		{UsePrompts, TooLongTruncate, "too_long"},
	} {
		_, err := Load(context.Background(), []Source{src}, Options{Use: c.use, MaxTokens: 4, TooLong: c.policy}, byteEncoder{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: got %v, want %q", c.use, c.policy, err, c.want)
		}
	}
}

func TestRankingLoadErrors(t *testing.T) {
	thumb := `{"time":"t","prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"r"}],"label":false}`
	cases := []struct {
		about, rows string
		opt         Options
		want        string
	}{
		{"thumbs only", thumb + "\n" + thumb, Options{Use: UseRankings}, "no row is left of the 2 in "},
		{"why", thumb, Options{Use: UseRankings}, "1 other_vote ("},
		{"chats", `{"instruction":"q","output":"a"}`, Options{Use: UseRankings}, "found the format alpaca"},
		{"text", `{"text":"q"}`, Options{Use: UseRankings}, "found the format text"},
		{"all tied", `{"prompt":"q","answers":["a","b"],"ranks":[1,1]}`, Options{Use: UseRankings}, "all_tied"},
		{"an empty answer", `{"prompt":"q","answers":["a"," "],"ranks":[1,2]}`, Options{Use: UseRankings}, "empty_answer"},
		{"a template that refuses one answer", `{"prompt":"q","chosen":"a","rejected":"refuse"}`, Options{Use: UseRankings}, "raised by the template"},
		{"a template that refuses the prompt", `{"prompt":"refuse"}`, Options{Use: UsePrompts}, "raised by the template"},
		{"too large a score", `{"prompt":"q","answers":["a","b"],"scores":[1e300,1]}`, Options{Use: UseRankings}, `field "scores": expected numbers of at most 3.4e38`},
		{"train on all", `{"prompt":"q","chosen":"a","rejected":"b"}`, Options{Use: UseRankings, TrainOn: TrainOnAll}, "train_on"},
		{"train on prompts", `{"prompt":"q"}`, Options{Use: UsePrompts, TrainOn: TrainOnAll}, "train_on"},
		{"one prompt held out", `{"prompt":"q","chosen":"a","rejected":"b"}` + "\n" + `{"prompt":"q","chosen":"a","rejected":"c"}`,
			Options{Use: UseRankings, Eval: EvalSplit{Count: 1}}, "answers to one prompt, go together"},
	}
	for _, c := range cases {
		_, err := Load(context.Background(), []Source{{Files: []string{write(t, "a.jsonl", c.rows)}}}, c.opt, byteEncoder{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 1 {
			t.Errorf("%s: got %v, want an error with %q", c.about, err, c.want)
		}
	}
	path := write(t, "a.jsonl", `{"prompt":"q","chosen":"a","rejected":"b"}`)
	for use, want := range map[Use]string{UseRankings: "1 nothing_trained (", UsePrompts: "1 empty_prompt ("} {
		_, err := Load(context.Background(), []Source{{Files: []string{path}}}, Options{Use: use}, muteEncoder{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s with an encoder that shows nothing: %v, want %q", use, err, want)
		}
	}
}

// muteEncoder marks no token as the assistant's, and shows no prompt.
type muteEncoder struct{ byteEncoder }

func (e muteEncoder) EncodeChat(messages []Message, tools []byte) ([]int32, []bool, error) {
	ids, mask, err := e.byteEncoder.EncodeChat(messages, tools)
	clear(mask)
	return ids, mask, err
}

func (muteEncoder) EncodePrompt([]Message, []byte) ([]int32, error) { return nil, nil }

// All answers to a prompt lie on one side, whatever the rows' form and use.
func TestHeldOutByPrompt(t *testing.T) {
	var pairs, rankings, chats strings.Builder
	for i := range 300 {
		q := i % 60
		fmt.Fprintf(&pairs, "{\"prompt\":\"q%d\",\"chosen\":\"g%d\",\"rejected\":\"b\"}\n", q, i)
		fmt.Fprintf(&rankings, "{\"prompt\":\"q%d\",\"answers\":[\"x\",\"y%d\",\"z\"],\"ranks\":[3,1,2]}\n", q, i)
		fmt.Fprintf(&chats, "{\"instruction\":\"q%d\",\"output\":\"o%d\"}\n", q, i)
	}
	prefer := []Source{{Files: []string{write(t, "p.jsonl", pairs.String())}}, {Files: []string{write(t, "r.jsonl", rankings.String())}}}
	for _, split := range []EvalSplit{{Fraction: 0.2}, {Count: 90}} {
		var first map[string]bool
		for _, c := range []struct {
			use     Use
			sources []Source
		}{{UseRankings, prefer}, {UsePairs, prefer}, {UsePrompts, []Source{{Files: []string{write(t, "c.jsonl", chats.String())}}}}, {UsePrompts, prefer}} {
			rows, _, err := ReadRows(context.Background(), c.sources, Options{Use: c.use, Eval: split})
			if err != nil {
				t.Fatal(err)
			}
			side := map[string]bool{}
			held := 0
			for _, r := range rows {
				q := r.Messages[0].Content
				if before, ok := side[q]; ok && before != r.HeldOut {
					t.Fatalf("%s, %v: the prompt %s lies on both sides", c.use, split, q)
				}
				if side[q] = r.HeldOut; r.HeldOut {
					held++
				}
			}
			if len(side) != 60 || held == 0 || held == len(rows) || split.Count > 0 && held < split.Count {
				t.Errorf("%s, %v: %d rows of %d held out, %d prompts", c.use, split, held, len(rows), len(side))
			}
			if first == nil {
				first = side
			}
			if split.Fraction > 0 && !reflect.DeepEqual(side, first) {
				t.Errorf("%s, %v: other prompts are held out than as rankings", c.use, split)
			}
			if c.use == UsePairs {
				continue
			}
			d := load(t, Options{Use: c.use, Eval: split}, c.sources...)
			for i, r := range rows {
				if seq, _ := d.Sequence(i); seq.HeldOut != r.HeldOut {
					t.Fatalf("%s, %v: Load and ReadRows hold out different rows", c.use, split)
				}
			}
			if _, eval := d.Sequences(); eval != held {
				t.Errorf("%s, %v: %d sequences held out, want %d", c.use, split, eval, held)
			}
		}
	}
}

func TestRankingRowAgain(t *testing.T) {
	text := `{"prompt":"one","answers":["a","b","a"],"ranks":[2,1,3]}
{"prompt":"two","answers":["a","b"],"ranks":[1,2]}
`
	path := write(t, "a.jsonl", text)
	d := load(t, Options{Use: UseRankings}, Source{Files: []string{path}})
	for i, want := range []string{"u:one | 1 a:b | 2 a:a | 3 a:a", "u:two | 1 a:a | 2 a:b"} {
		if row, err := d.Row(i); err != nil || briefRow(row) != want {
			t.Errorf("row %d is %s (%v), want %s", i, briefRow(row), err, want)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Replace(text, "[1,2]", "[2,1]", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Row(1); err == nil || !strings.Contains(err.Error(), "a.jsonl:2: ") || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("a row that has changed: %v", err)
	}
	path = write(t, "s.jsonl", `{"instruction":"i","instances":[{"input":"x","output":"1"},{"input":"y","output":"2"}]}`)
	for _, use := range []Use{UsePrompts, UseSFT} {
		d = load(t, Options{Use: use}, Source{Files: []string{path}})
		for i, want := range []string{"u:i\nx a:1", "u:i\ny a:2"} {
			if row, err := d.Row(i); err != nil || briefRow(row) != want {
				t.Errorf("%s: row %d is %s (%v), want %s", use, i, briefRow(row), err, want)
			}
		}
	}
}

func TestRankingStats(t *testing.T) {
	path := write(t, "a.jsonl", `{"prompt":"q","answers":["c","a","b"],"ranks":[2,1,2]}
{"prompt":"q","answers":["c","a","a","x"],"ranks":[1,2,3,4]}
{"prompt":"q","answers":["c","a","a","x"],"ranks":[1,2,3,4]}
{"prompt":"q","answers":["c","c"],"ranks":[1,2]}
`)
	d := load(t, Options{Use: UseRankings, Dedup: true}, Source{Files: []string{path}})
	st := d.Stats.Total
	if st.Records != 4 || st.Rows != 2 || st.Sequences != 2 || st.Notes[NoteTie] != 3 || st.Tokens != 36 || st.Trained != 12 ||
		st.Skipped[ReasonDuplicate].Count != 1 || st.Skipped[ReasonAllTied].Count != 1 {
		t.Errorf("stats %+v", st)
	}
	if d.MaxLength() != 6 || d.MaxGroup() != 18 {
		t.Errorf("the longest answer has %d tokens, the longest ranking %d; want 6 and 18", d.MaxLength(), d.MaxGroup())
	}
	path = write(t, "b.jsonl", `{"prompt":"q","answers":["a","abcd","ab"],"ranks":[1,2,3]}
{"prompt":"q","answers":["abc","ab"],"ranks":[1,2]}`)
	d = load(t, Options{Use: UseRankings}, Source{Files: []string{path}})
	if d.MaxLength() != 9 || d.MaxGroup() != 22 {
		t.Errorf("the longest answer has %d tokens, the longest ranking %d; want 9 and 22", d.MaxLength(), d.MaxGroup())
	}
}
