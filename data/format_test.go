package data

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// brief writes messages as "u:hi a:hello" for comparison.
func brief(list []Message) string {
	var parts []string
	for _, m := range list {
		s := m.Role[:1] + ":" + m.Content
		for _, f := range m.Extra {
			s += fmt.Sprintf("{%s=%s}", f.Name, f.Value)
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

// briefRow writes what a row holds.
func briefRow(r Row) string {
	var b strings.Builder
	b.WriteString(brief(r.Messages))
	if r.Text != "" {
		b.WriteString("text:" + r.Text)
	}
	if r.Chosen != nil || r.Rejected != nil {
		fmt.Fprintf(&b, " | + %s | - %s", brief(r.Chosen), brief(r.Rejected))
	}
	for i, a := range r.Ranked {
		fmt.Fprintf(&b, " | %d %s", r.Ranks[i], brief(a))
	}
	if r.Label != nil {
		fmt.Fprintf(&b, " | %v", *r.Label)
	}
	if r.Margin != 0 {
		fmt.Fprintf(&b, " | margin %g", r.Margin)
	}
	if r.Tools != nil {
		fmt.Fprintf(&b, " | tools %s", r.Tools)
	}
	return b.String()
}

func jsonRecord(s string) Record {
	return Record{Where: Location{File: "f.jsonl", Line: 7}, JSON: []byte(s)}
}

func TestFormats(t *testing.T) {
	cases := []struct {
		name, json string
		format     Format
		want       string // rows joined by " ; "
		columns    map[string]string
	}{
		{"alpaca", `{"instruction":"add","input":"1 2","output":"3"}`, FormatAlpaca, "u:add\n1 2 a:3", nil},
		{"alpaca without input", `{"instruction":"hi","output":"yo","input":null}`, FormatAlpaca, "u:hi a:yo", nil},
		{"alpaca with history", `{"instruction":"c","output":"d","system":"S","history":[["a","b"]]}`, FormatAlpaca, "s:S u:a a:b u:c a:d", nil},
		{"dolly", `{"instruction":"q","context":"ctx","response":"r","category":"qa"}`, FormatAlpaca, "u:q\nctx a:r", nil},
		{"question and answer", `{"question":"q","answer":"r"}`, FormatAlpaca, "u:q a:r", nil},
		{"prompt and completion messages", `{"prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"r"}]}`, FormatAlpaca, "u:q a:r", nil},
		{"renamed", `{"ask":"q","say":"r"}`, FormatAlpaca, "u:q a:r", map[string]string{"instruction": "ask", "output": "say"}},
		{"sharegpt", `{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"r"}]}`, FormatShareGPT, "u:q a:r", nil},
		{"sharegpt with tools", `{"conversations":[{"from":"human","value":"q"},{"from":"function_call","value":"{\"name\": \"f\", \"arguments\": {\"b\":1,\"a\":2}}"},{"from":"observation","value":"9"},{"from":"gpt","value":"r"}],"tools":"[{\"name\":\"f\"}]"}`,
			FormatShareGPT, `u:q a:{tool_calls=[{"type":"function","function":{"name":"f","arguments":{"b":1,"a":2}}}]} t:9 a:r | tools [{"type":"function","function":{"name":"f"}}]`, nil},
		{"sharegpt system field", `{"system":"S","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"r"}]}`, FormatShareGPT, "s:S u:q a:r", nil},
		{"messages", `{"messages":[{"role":"system","content":"S"},{"role":"user","content":"q"},{"role":"assistant","content":"r"}]}`, FormatMessages, "s:S u:q a:r", nil},
		{"messages from and content", `{"messages":[{"from":"user","content":"q"},{"from":"assistant","content":"r"}]}`, FormatMessages, "u:q a:r", nil},
		{"messages in parts", `{"messages":[{"role":"user","content":[{"type":"text","text":"q"},{"type":"text","text":"2"}]},{"role":"assistant","content":"r","reasoning_content":"z"}]}`, FormatMessages, `u:q2 a:r{reasoning_content="z"}`, nil},
		{"messages with calls", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]}]}`,
			FormatMessages, `u:q a:{tool_calls=[{"id":"c","type":"function","function":{"name":"f","arguments":{"a":1}}}]}`, nil},
		{"one message", `{"messages":{"role":"user","content":"q"},"gt_answer":"3"}`, FormatMessages, "u:q", nil},
		{"bare list", `[{"role":"user","content":"q"},{"role":"assistant","content":"r"}]`, FormatMessages, "u:q a:r", nil},
		{"message fields renamed", `{"messages":[{"who":"user","what":"q"},{"who":"bot","what":"r"}]}`, FormatMessages, "u:q a:r", map[string]string{"role": "who", "content": "what"}},
		{"merged turns", `{"messages":[{"role":"user","content":"q"},{"role":"user","content":"q2"},{"role":"assistant","content":"r"}]}`, FormatMessages, "u:q\n\nq2 a:r", nil},
		{"self-instruct", `{"instruction":"i","instances":[{"input":"x","output":"1"},{"input":"","output":"2"}]}`, FormatSelfInstruct, "u:i\nx a:1 ; u:i a:2", nil},
		{"prompt", `{"instruction":"q"}`, FormatPrompts, "u:q", nil},
		{"prompt of question file", `{"question_id":1,"text":"q","category":"c"}`, FormatPrompts, "u:q", nil},
		{"text", `{"text":"t"}`, FormatText, "text:t", nil},
		{"text under content", `{"content":"t","url":"u"}`, FormatText, "text:t", nil},
		{"text as string", `"t"`, FormatText, "text:t", nil},
		{"hh", `{"chosen":"\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant: good","rejected":"\n\nHuman: q\n\nAssistant: a\n\nHuman: q2\n\nAssistant: bad"}`,
			FormatHH, "u:q a:a u:q2 | + a:good | - a:bad", nil},
		{"hh that parts early", `{"chosen":"\n\nHuman: q\n\nAssistant: a","rejected":"\n\nHuman: q\n\nAssistant: b\n\nHuman: q2\n\nAssistant: c"}`,
			FormatHH, "u:q | + a:a | - a:b u:q2 a:c", nil},
		{"hh label inside a turn", `{"chosen":"\n\nHuman: q Human: x\n\nAssistant: a","rejected":"\n\nHuman: q Human: x\n\nAssistant: b"}`,
			FormatHH, "u:q Human: x | + a:a | - a:b", nil},
		{"pair of message objects", `{"conversations":[{"from":"human","value":"q"}],"chosen":{"from":"gpt","value":"g"},"rejected":{"from":"gpt","value":"b"}}`,
			FormatPreference, "u:q | + a:g | - a:b", nil},
		{"pair of strings", `{"prompt":"q","chosen":"g","rejected":"b","system":"S"}`, FormatPreference, "s:S u:q | + a:g | - a:b", nil},
		{"pair of lists", `{"prompt":[{"role":"user","content":"q"}],"chosen":[{"role":"assistant","content":"g"}],"rejected":[{"role":"assistant","content":"b"}]}`,
			FormatPreference, "u:q | + a:g | - a:b", nil},
		{"pair of whole chats", `{"prompt":"q","chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"g"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}],"score_chosen":8.5,"score_rejected":6}`,
			FormatPreference, "u:q | + a:g | - a:b | margin 2.5", nil},
		{"whole chats alone", `{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"g"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}`,
			FormatPreference, "u:q | + a:g | - a:b", nil},
		{"colossalchat pair", `{"context":[{"from":"user","content":"q"}],"chosen":[{"from":"assistant","content":"g"}],"rejected":[{"from":"assistant","content":"b"}]}`,
			FormatPreference, "u:q | + a:g | - a:b", nil},
		{"response_j and response_k", `{"question":"q","response_j":"g","response_k":"b"}`, FormatPreference, "u:q | + a:g | - a:b", nil},
		{"prompt as dialogue", `{"prompt":"\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:","response":"g","chosen":" g","rejected":" b"}`, FormatPreference, "u:q a:a u:r | + a: g | - a: b", nil},
		{"ranks", `{"question":"q","answers":["c","a","b"],"ranks":[3,1,2]}`, FormatRanking, "u:q | 1 a:a | 2 a:b | 3 a:c", nil},
		{"scores with a tie", `{"question":"q","answers":["c","a","b"],"scores":[1,5,5]}`, FormatRanking, "u:q | 1 a:a | 1 a:b | 3 a:c", nil},
		{"answers with their scores", `{"prompt":"q","responses":[{"text":"b","score":0.5},{"text":"a","score":1}]}`, FormatRanking, "u:q | 1 a:a | 2 a:b", nil},
		{"kto", `{"prompt":"q","completion":"r","label":true}`, FormatKTO, "u:q a:r | true", nil},
		{"kto messages", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"r"}],"label":false}`, FormatKTO, "u:q a:r | false", nil},
		{"colossalchat kto", `{"prompt":[{"from":"user","content":"q"}],"completion":{"from":"assistant","content":"r"},"label":true}`, FormatKTO, "u:q a:r | true", nil},
		{"kto label renamed", `{"instruction":"q","output":"r","kto_tag":true}`, FormatKTO, "u:q a:r | true", map[string]string{"label": "kto_tag"}},
		{"vote", `{"id":"1","time":"t","source":"compare","prompt":[{"role":"user","content":"q"}],"chosen":[{"role":"assistant","content":"g"}],"rejected":[{"role":"assistant","content":"b"}],"models":{}}`,
			FormatVotes, "u:q | + a:g | - a:b", nil},
		{"thumb", `{"id":"2","time":"t","source":"chat","prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"r"}],"label":false}`,
			FormatVotes, "u:q a:r | false", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rec := jsonRecord(c.json)
			format, ok := Detect([]Record{rec}, c.columns)
			if !ok || format != c.format {
				t.Fatalf("detected %q (%v), want %q", format, ok, c.format)
			}
			rows, err := NewConverter(format, Source{Columns: c.columns}).Convert(rec)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range rows {
				got = append(got, briefRow(r))
			}
			if g := strings.Join(got, " ; "); g != c.want {
				t.Errorf("got  %s\nwant %s", g, c.want)
			}
		})
	}
}

func TestFormatErrors(t *testing.T) {
	cases := []struct {
		format Format
		use    Use
		json   string
		reason Reason
		text   string // in the message
	}{
		{FormatAlpaca, UseSFT, `{"instruction":"q"}`, ReasonMissingField, `f.jsonl:7: field "output": missing`},
		{FormatAlpaca, UseSFT, `{"output":"q"}`, ReasonMissingField, `field "instruction"`},
		{FormatAlpaca, UseSFT, `{"instruction":5,"output":"q"}`, ReasonWrongType, `field "instruction": expected a string, found a number`},
		{FormatAlpaca, UseSFT, `{"instruction":"q","output":" "}`, ReasonEmptyAnswer, "empty"},
		{FormatAlpaca, UseSFT, `{"instruction":"","output":"a"}`, ReasonEmptyPrompt, "empty"},
		{FormatAlpaca, UseSFT, `{"instruction":"q","output":"a","history":[["x"]]}`, ReasonWrongType, "history[0]"},
		{FormatAlpaca, UseSFT, `{"instruction":"q",`, ReasonBadJSON, "broken JSON"},
		{FormatAlpaca, UseSFT, `nonsense`, ReasonBadJSON, "broken JSON at byte 2"},
		{FormatAlpaca, UseSFT, `[1]`, ReasonWrongType, "found a list"},
		{FormatMessages, UseSFT, `{"messages":[{"role":"wizard","content":"q"}]}`, ReasonUnknownRole, `messages[0].role": unknown role "wizard"`},
		{FormatMessages, UseSFT, `{"messages":[{"role":"user"}]}`, ReasonMissingField, "messages[0].content"},
		{FormatMessages, UseSFT, `{"messages":[{"content":"q"}]}`, ReasonMissingField, "messages[0].role"},
		{FormatMessages, UseSFT, `{"messages":"q"}`, ReasonWrongType, "list of messages"},
		{FormatMessages, UseSFT, `{"messages":[]}`, ReasonEmptyPrompt, "no message"},
		{FormatMessages, UseSFT, `{"messages":[{"role":"user","content":"q"}]}`, ReasonNoAnswer, "says nothing"},
		{FormatMessages, UseSFT, `{"messages":[{"role":"tool","content":"q"},{"role":"assistant","content":"q"}]}`, ReasonRoles, "tool"},
		{FormatMessages, UseSFT, `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, ReasonWrongType, "image_url"},
		{FormatShareGPT, UseSFT, `{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"r"}],"tools":"{"}`, ReasonWrongType, "tools"},
		{FormatPrompts, UseSFT, `{"instruction":"q"}`, ReasonMissingField, "output"},
		{FormatText, UsePretrain, `{"text":"  "}`, ReasonEmptyText, "empty"},
		{FormatText, UsePretrain, `{"txt":"a"}`, ReasonMissingField, `field "text"`},
		{FormatText, UsePrompts, `{"text":"a"}`, ReasonNotFit, "prompt"},
		{FormatAlpaca, UsePairs, `{"instruction":"q","output":"a"}`, ReasonNotFit, "chosen and rejected"},
		{FormatAlpaca, UseKTO, `{"instruction":"q","output":"a"}`, ReasonNotFit, "label"},
		{FormatPreference, UsePairs, `{"prompt":"q","chosen":"a","rejected":"a"}`, ReasonIdenticalPair, "equal"},
		{FormatPreference, UsePairs, `{"prompt":"q","chosen":"a"}`, ReasonMissingField, "rejected"},
		{FormatPreference, UsePairs, `{"chosen":"a","rejected":"b"}`, ReasonMissingField, "prompt"},
		{FormatPreference, UsePairs, `{"prompt":"q","chosen":"a","rejected":""}`, ReasonEmptyAnswer, "rejected"},
		{FormatPreference, UsePairs, `{"prompt":"q","chosen":3,"rejected":""}`, ReasonWrongType, "chosen"},
		{FormatHH, UsePairs, `{"chosen":"\n\nHuman: q\n\nAssistant: a","rejected":"\n\nHuman: z\n\nAssistant: b"}`, ReasonNoPrompt, "one question"},
		{FormatHH, UsePairs, `{"chosen":"hello","rejected":"\n\nHuman: z\n\nAssistant: b"}`, ReasonWrongType, `field "chosen"`},
		{FormatRanking, UsePairs, `{"prompt":"q","answers":["a","b"],"ranks":[1]}`, ReasonWrongType, "expected 2 values"},
		{FormatRanking, UsePairs, `{"prompt":"q","answers":["a","b"]}`, ReasonMissingField, "ranks"},
		{FormatRanking, UsePairs, `{"prompt":"q","answers":["a","b"],"ranks":[1,"x"]}`, ReasonWrongType, "ranks[1]"},
		{FormatRanking, UsePairs, `{"prompt":"q","answers":["a","b"],"scores":[2,2]}`, ReasonAllTied, "one rank"},
		{FormatRanking, UsePairs, `{"prompt":"q","answers":["a"],"scores":[2]}`, ReasonNoAnswer, "at least 2"},
		{FormatRanking, UseRankings, `{"prompt":"q","answers":["a","a"],"ranks":[1,2]}`, ReasonAllTied, "no answer is better"},
		{FormatRanking, UseRankings, `{"prompt":"q","answers":["a","b","a"],"ranks":[1,1,2]}`, ReasonAllTied, "no answer is better"},
		{FormatRanking, UseRankings, `{"prompt":"q","answers":["a","b"],"ranks":[2,2]}`, ReasonAllTied, "one rank"},
		{FormatRanking, UseRankings, `{"prompt":"q","answers":["a",""],"ranks":[1,2]}`, ReasonEmptyAnswer, "answers"},
		{FormatRanking, UseRankings, `{"prompt":"q","answers":["a"],"ranks":[1]}`, ReasonNoAnswer, "at least 2"},
		{FormatRanking, UseRankings, `{"prompt":"q","answers":["a",[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]],"ranks":[1,2]}`, ReasonRoles, "begins with a turn of the user"},
		{FormatPreference, UseRankings, `{"prompt":"q","chosen":"a","rejected":"a"}`, ReasonIdenticalPair, "equal"},
		{FormatPreference, UseRankings, `{"prompt":"q","chosen":"a","rejected":" "}`, ReasonEmptyAnswer, "rejected"},
		{FormatAlpaca, UseRankings, `{"instruction":"q","output":"a"}`, ReasonNotFit, "chosen and rejected"},
		{FormatKTO, UseRankings, `{"prompt":"q","completion":"a","label":true}`, ReasonNotFit, "kto"},
		{FormatVotes, UseRankings, `{"prompt":"q","completion":"a","label":false}`, ReasonOtherVote, "thumb"},
		{FormatText, UseRankings, `{"text":"a"}`, ReasonNotFit, "text"},
		{FormatKTO, UseKTO, `{"prompt":"q","completion":"a"}`, ReasonMissingField, "label"},
		{FormatKTO, UseKTO, `{"prompt":"q","completion":"a","label":"yes"}`, ReasonWrongType, "true or false"},
		{FormatKTO, UseSFT, `{"prompt":"q","completion":"a","label":false}`, ReasonLabelledBad, "bad"},
		{FormatVotes, UsePairs, `{"prompt":"q","completion":"a","label":false}`, ReasonOtherVote, "thumb"},
	}
	for _, c := range cases {
		t.Run(string(c.format)+" "+c.json, func(t *testing.T) {
			_, err := convertAs(c.format, c.use, c.json)
			var e *RowError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a RowError", err)
			}
			if e.Reason != c.reason || !strings.Contains(e.Error(), c.text) {
				t.Errorf("got %s %q, want %s with %q", e.Reason, e.Error(), c.reason, c.text)
			}
			if !strings.HasPrefix(e.Error(), "f.jsonl:7: ") {
				t.Errorf("%q doesn't say where", e.Error())
			}
		})
	}
}

func convertAs(format Format, use Use, json string) ([]Row, error) {
	rows, err := NewConverter(format, Source{}).Convert(jsonRecord(json))
	if err != nil {
		return nil, err
	}
	var out []Row
	for _, r := range rows {
		fit, _, err := r.As(use)
		if err != nil {
			return nil, err
		}
		out = append(out, fit...)
	}
	return out, nil
}

func TestUses(t *testing.T) {
	pair := `{"prompt":"q","chosen":"g","rejected":"b"}`
	ranking := `{"prompt":"q","answers":["c","a","b","b2"],"scores":[1,5,3,3]}`
	cases := []struct {
		format Format
		use    Use
		json   string
		want   string
	}{
		{FormatPreference, UseSFT, pair, "u:q a:g"},
		{FormatPreference, UsePrompts, pair, "u:q"},
		{FormatPreference, UseKTO, pair, "u:q a:g | true ; u:q a:b | false"},
		{FormatRanking, UseSFT, ranking, "u:q a:a"},
		{FormatRanking, UseKTO, ranking, "u:q a:a | true ; u:q a:c | false"},
		{FormatRanking, UsePairs, ranking, "u:q | + a:a | - a:b | margin 2 ; u:q | + a:a | - a:b2 | margin 2 ; u:q | + a:a | - a:c | margin 4 ; " +
			"u:q | + a:b | - a:c | margin 2 ; u:q | + a:b2 | - a:c | margin 2"},
		{FormatAlpaca, UsePrompts, `{"instruction":"q","output":"r"}`, "u:q"},
		{FormatMessages, UsePrompts, `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"r"},{"role":"user","content":"q2"},{"role":"assistant","content":"r2"}]}`, "u:q a:r u:q2"},
		{FormatMessages, UseSFT, `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"r"},{"role":"user","content":"q2"}]}`, "u:q a:r"},
		{FormatKTO, UseSFT, `{"prompt":"q","completion":"r","label":true}`, "u:q a:r | true"},
		{FormatText, UseSFT, `{"text":"t"}`, "text:t"},
	}
	for _, c := range cases {
		rows, err := convertAs(c.format, c.use, c.json)
		if err != nil {
			t.Errorf("%s as %s: %v", c.json, c.use, err)
			continue
		}
		var got []string
		for _, r := range rows {
			got = append(got, briefRow(r))
		}
		if g := strings.Join(got, " ; "); g != c.want {
			t.Errorf("%s as %s:\ngot  %s\nwant %s", c.json, c.use, g, c.want)
		}
	}
}

func TestReplaceAndSystem(t *testing.T) {
	src := Source{Replace: map[string]string{"{{name}}": "Ringtail", "{{author}}": "us"}, System: "Be kind."}
	rows, err := NewConverter(FormatAlpaca, src).Convert(jsonRecord(`{"instruction":"who are you, {{name}}?","output":"{{name}} by {{author}}"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := briefRow(rows[0]), "s:Be kind. u:who are you, Ringtail? a:Ringtail by us"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(rows[0].Notes) != 0 {
		t.Errorf("notes %v, want none", rows[0].Notes)
	}
	rows, err = NewConverter(FormatAlpaca, Source{}).Convert(jsonRecord(`{"instruction":"x {{ y }} {{}} {{1}}","output":"{{name}}"}`))
	if err != nil || len(rows[0].Notes) != 1 || rows[0].Notes[0] != NotePlaceholder {
		t.Errorf("notes %v (%v), want %s", rows[0].Notes, err, NotePlaceholder)
	}
}

func TestColumnsAreChecked(t *testing.T) {
	if err := checkColumns(map[string]string{"promt": "q"}); err == nil || !strings.Contains(err.Error(), `"promt"`) {
		t.Errorf("got %v, want an error naming promt", err)
	}
	// A field that stands for another one is not read under its own name.
	cols := map[string]string{"output": "input"}
	rows, err := NewConverter(FormatAlpaca, Source{Columns: cols}).Convert(jsonRecord(`{"instruction":"q","input":"r"}`))
	if err != nil || briefRow(rows[0]) != "u:q a:r" {
		t.Errorf("got %v, %v", rows, err)
	}
}

func TestDetectTakesTheMajority(t *testing.T) {
	records := []Record{jsonRecord(`{"instruction":"q"}`), jsonRecord(`{"instruction":"q","output":"a"}`), jsonRecord(`{"x":1}`), jsonRecord(`{"instruction":"q","output":"b"}`)}
	if f, ok := Detect(records, nil); !ok || f != FormatAlpaca {
		t.Errorf("got %s %v, want alpaca", f, ok)
	}
	if f, ok := Detect(records[2:3], nil); ok {
		t.Errorf("detected %s in a row without known fields", f)
	}
}

func TestFlattenTools(t *testing.T) {
	rows, err := NewConverter(FormatShareGPT, Source{}).Convert(jsonRecord(`{"conversations":[{"from":"human","value":"q"},{"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{\"x\":\"<\"}}"},{"from":"observation","value":"9"},{"from":"gpt","value":"r"}],"tools":"[1]"}`))
	if err != nil {
		t.Fatal(err)
	}
	got := brief(FlattenTools(rows[0].Messages, rows[0].Tools))
	want := "s:Functions that can be called, as JSON:\n[1] u:q a:{\"name\":\"f\",\"arguments\":{\"x\":\"<\"}} u:9 a:r"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func FuzzConvert(f *testing.F) {
	for _, s := range []string{`{"instruction":"q","output":"a"}`, `{"chosen":"\n\nHuman: a\n\nAssistant: b","rejected":"\n\nHuman: a\n\nAssistant: c"}`,
		`{"conversations":[{"from":"human","value":"q"}],"chosen":{"from":"gpt","value":"g"},"rejected":{"from":"gpt","value":"b"}}`,
		`{"prompt":"q","answers":["a","b"],"ranks":[2,1]}`, `[{"role":"user","content":"q"}]`, `{"messages":[{"role":"tool","content":null}]}`, `{"label":true,"messages":[]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rec := jsonRecord(s)
		formats := Formats()
		if got, ok := Detect([]Record{rec}, nil); ok {
			formats = append(formats, got)
		}
		for _, format := range formats {
			rows, err := NewConverter(format, Source{Replace: map[string]string{"a": "b"}}).Convert(rec)
			var e *RowError
			if err != nil && !errors.As(err, &e) {
				t.Fatalf("%s: %v isn't a RowError", format, err)
			}
			for _, r := range rows {
				for _, use := range []Use{UseSFT, UsePretrain, UsePrompts, UsePairs, UseRankings, UseKTO} {
					fit, _, err := r.As(use)
					if err != nil && !errors.As(err, &e) {
						t.Fatalf("%s as %s: %v isn't a RowError", format, use, err)
					}
					for _, q := range fit {
						rowHash(q)
						if use == UsePairs && (isEmptyAnswer(q.Chosen[len(q.Chosen)-1]) || q.Messages[len(q.Messages)-1].Role == RoleAssistant) {
							t.Fatalf("%s: unusable pair %s", format, briefRow(q))
						}
						if last := len(q.Ranks) - 1; use == UseRankings && (len(fit) != 1 || len(q.Ranked) != last+1 || q.Ranks[0] >= q.Ranks[last]) {
							t.Fatalf("%s: unusable ranking %s", format, briefRow(q))
						}
						FlattenTools(q.Messages, q.Tools)
					}
				}
			}
		}
	})
}
