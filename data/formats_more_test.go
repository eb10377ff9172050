package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"ringtail/chat"
)

// Every raw form of ColossalChat's table, and OpenAI's fine-tuning files, are detected and read.
func TestForeignForms(t *testing.T) {
	cases := []struct {
		about, json string
		format      Format
		want        string
	}{
		{"colossalchat sft", `{"messages":[{"from":"system","content":"s"},{"from":"user","content":"q"},{"from":"assistant","content":"r"}],"category":"c"}`, FormatMessages, "s:s u:q a:r"},
		{"colossalchat preference", `{"context":[{"from":"user","content":"q"}],"chosen":[{"from":"assistant","content":"g"},{"from":"user","content":"u"},{"from":"assistant","content":"h"}],"rejected":[{"from":"assistant","content":"b"}]}`,
			FormatPreference, "u:q | + a:g u:u a:h | - a:b"},
		{"one object of distributed reinforcement learning", `{"messages":{"role":"user","content":"q"},"gt_answer":"3"}`, FormatMessages, "u:q"},
		{"lora_finetune", `[{"role":"user","content":"q"},{"role":"assistant","content":"r"}]`, FormatMessages, "u:q a:r"},
		{"old Chat", `{"instruction":"q","input":"","output":"r","id":1}`, FormatAlpaca, "u:q a:r"},
		{"openai", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"r","weight":1}],"parallel_tool_calls":true}`, FormatMessages, "u:q a:r"},
		{"openai weight 0", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"r","weight":0}]}`, FormatMessages, "u:q a:r{weight=0}"},
		{"openai functions", `{"functions":[{"name":"f"}],"messages":[{"role":"user","content":"q"},{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{\"a\":1}"}},{"role":"function","name":"f","content":"9"},{"role":"assistant","content":"r"}]}`,
			FormatMessages, `u:q a:{tool_calls=[{"type":"function","function":{"name":"f","arguments":{"a":1}}}]} t:9{name="f"} a:r | tools [{"type":"function","function":{"name":"f"}}]`},
		{"arguments that aren't an object", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"oops {"}}]}]}`,
			FormatMessages, `u:q a:{tool_calls=[{"type":"function","function":{"name":"f","arguments":"oops {"}}]}`},
		{"an empty list of calls", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"r","tool_calls":[]}]}`, FormatMessages, "u:q a:r"},
		{"openai preference", `{"input":{"messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"f"}}]},"preferred_output":[{"role":"assistant","content":"g"}],"non_preferred_output":[{"role":"assistant","content":"b"}]}`,
			FormatPreference, `u:q | + a:g | - a:b | tools [{"type":"function","function":{"name":"f"}}]`},
		{"messages as a string", `{"conversations":"[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"gpt\",\"value\":\"r\"}]"}`, FormatShareGPT, "u:q a:r"},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			rec := jsonRecord(c.json)
			format, ok := Detect([]Record{rec}, nil)
			if !ok || format != c.format {
				t.Fatalf("detected %q, want %q", format, c.format)
			}
			rows, err := NewConverter(format, Source{}).Convert(rec)
			if err != nil {
				t.Fatal(err)
			}
			if got := briefRow(rows[0]); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestForeignFormErrors(t *testing.T) {
	cases := []struct {
		format Format
		json   string
		reason Reason
		text   string
	}{
		{FormatMessages, `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"r","weight":0.5}]}`, ReasonWrongType, "weight"},
		{FormatMessages, `{"messages":[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[1]}]}`, ReasonWrongType, "messages[1].tool_calls[0]"},
		{FormatMessages, `{"messages":[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[{"function":{"arguments":"{}"}}]}]}`, ReasonWrongType, "the name of a function"},
		{FormatMessages, `{"messages":[{"role":"user","content":"q"},{"role":"assistant","tool_calls":[{"id":"x"}]}]}`, ReasonMissingField, "function"},
		{FormatMessages, `{"messages":{"role":"user","content":"q"},"test_cases":"x"}`, ReasonWrongType, "test_cases"},
		{FormatPreference, `{"input":{"text":"q"},"preferred_output":[{"role":"assistant","content":"g"}],"non_preferred_output":[{"role":"assistant","content":"b"}]}`, ReasonMissingField, "input.prompt"},
		{FormatTokens, `{"input_ids":[1,"a"]}`, ReasonWrongType, "list of token ids"},
		{FormatTokens, `{"input_ids":[1,-2]}`, ReasonWrongType, "input_ids[1]"},
		{FormatTokens, `{"input_ids":[]}`, ReasonEmptyText, "empty"},
		{FormatTokens, `{"input_ids":[1,2],"labels":[-100]}`, ReasonWrongType, "2 whole numbers"},
		{FormatTokens, `{"input_ids":[1,2],"labels":[2,-100]}`, ReasonWrongType, "must not be shifted"},
		{FormatTokens, `{"chosen_input_ids":[1],"chosen_loss_mask":[2],"rejected_input_ids":[1],"rejected_loss_mask":[1]}`, ReasonWrongType, "chosen_loss_mask[0]"},
		{FormatTokens, `{"prompt":[1],"completion":[2]}`, ReasonMissingField, "label"},
	}
	for _, c := range cases {
		_, err := NewConverter(c.format, Source{}).Convert(jsonRecord(c.json))
		var e *RowError
		if !errors.As(err, &e) || e.Reason != c.reason || !strings.Contains(e.Error(), c.text) {
			t.Errorf("%s: got %v, want %s with %q", c.json, err, c.reason, c.text)
		}
	}
}

// What rewards by rule need stays with a prompt.
func TestPromptKeepsAnswer(t *testing.T) {
	rows, err := convertAs(FormatMessages, UsePrompts, `{"messages":{"role":"user","content":"q"},"gt_answer":3,"test_cases":{"inputs":["1"],"outputs":["2"]}}`)
	if err != nil || len(rows) != 1 || rows[0].Reference != "3" || string(rows[0].TestCases) != `{"inputs":["1"],"outputs":["2"]}` {
		t.Fatalf("%+v, %v", rows, err)
	}
	b, err := json.Marshal(rows[0])
	if want := `{"where":{"file":"f.jsonl","line":7},"format":"messages","messages":[{"role":"user","content":"q"}],"reference":"3","test_cases":{"inputs":["1"],"outputs":["2"]}}`; err != nil || string(b) != want {
		t.Errorf("got  %s (%v)\nwant %s", b, err, want)
	}
}

// Answers of weight 0 are read, not learnt; the others are trained on exactly as without weights.
func TestWeights(t *testing.T) {
	template, err := chat.New("test", chatML)
	if err != nil {
		t.Fatal(err)
	}
	enc := &ChatEncoder{Tokenizer: charTokenizer{}, Template: template, EOSID: 310}
	row := func(first, second string) string {
		return fmt.Sprintf(`{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"one"%s},{"role":"user","content":"p"},{"role":"assistant","content":"two"%s}]}`, first, second)
	}
	load := func(r string, on TrainOn) (Sequence, error) {
		d, err := Load(t.Context(), []Source{{Files: []string{write(t, "a.jsonl", r+"\n")}}}, Options{TrainOn: on}, enc)
		if err != nil {
			return Sequence{}, err
		}
		seq, _ := d.Sequence(0)
		return seq, nil
	}
	trained := func(s Sequence) string {
		var b strings.Builder
		for i, id := range s.IDs {
			if s.Trained[i] && id < 300 {
				b.WriteRune(rune(id))
			}
		}
		return b.String()
	}
	plain, err := load(row("", ""), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		first, second string
		on            TrainOn
		want          string
	}{
		{"", "", "", trained(plain)},
		{`,"weight":1`, `,"weight":1`, "", trained(plain)},
		{`,"weight":0`, "", "", "two"},
		{"", `,"weight":0`, "", "one"},
		{"", `,"weight":0`, TrainOnLast, "one"},
	} {
		seq, err := load(row(c.first, c.second), c.on)
		if err != nil {
			t.Fatal(err)
		}
		if got := trained(seq); strings.TrimSpace(got) != strings.TrimSpace(c.want) {
			t.Errorf("weights %q %q %s train on %q, want %q", c.first, c.second, c.on, got, c.want)
		}
		if !reflect.DeepEqual(seq.IDs, plain.IDs) {
			t.Errorf("weights %q %q change the tokens", c.first, c.second)
		}
	}
	if _, err := load(row(`,"weight":0`, `,"weight":0`), ""); err == nil || !strings.Contains(err.Error(), string(ReasonNothingLeft)) {
		t.Errorf("no answer counts: %v", err)
	}
}

// tokenEncoder is a byteEncoder that can decode: ids are bytes, 1 is <s>, 2 is </s>.
type tokenEncoder struct{ byteEncoder }

func (tokenEncoder) DecodeTokens(ids []int32) (string, error) {
	var b strings.Builder
	for _, id := range ids {
		switch {
		case id == 1:
			b.WriteString("<s>")
		case id == 2:
			b.WriteString("</s>")
		case id < 256:
			b.WriteByte(byte(id))
		default:
			return "", fmt.Errorf("the tokenizer has no token %d", id)
		}
	}
	return b.String(), nil
}

// Tokens of ColossalChat's prepared sets are used as they are, if they are the model's.
func TestPreparedTokens(t *testing.T) {
	sft := `{"messages":[{"from":"user","content":"raw"}],"input_ids":[1,104,105,33,2],"labels":[-100,-100,-100,33,2],"inputs_decode":"<s> hi ! </s>","labels_decode":["</s>"],"seq_category":"None"}`
	prompt := `{"input_ids":[1,104,105],"inputs_decode":"hi","gt_answer":"7"}`
	pair := `{"chosen_input_ids":[1,97,33,2],"chosen_loss_mask":[0,0,1,1],"chosen_label_decode":["!</s>"],"rejected_input_ids":[1,97,63],"rejected_loss_mask":[0,0,1],"rejected_label_decode":["?"]}`
	kto := `{"prompt":[1,97],"completion":[33,2],"label":false,"input_id_decode":"a!</s>","completion_decode":"!</s>"}`
	cases := []struct {
		about, row string
		opt        Options
		want       string // ids, those trained on with *, or part of the error
	}{
		{"sft", sft, Options{}, "1 104 105 33* 2*"},
		{"sft as text", sft, Options{Use: UsePretrain}, "1* 104* 105* 33* 2*"},
		{"sft, cut", sft, Options{MaxTokens: 4, TooLong: TooLongTruncate}, "1 104 105 33*"},
		{"sft, too long to split", sft, Options{MaxTokens: 4, TooLong: TooLongSplit}, "too_long"},
		{"sft as prompt", sft, Options{Use: UsePrompts}, "1 104 105"},
		{"prompt", prompt, Options{Use: UsePrompts}, "1 104 105"},
		{"prompt for sft", prompt, Options{BadRows: BadRowsSkip}, "only a question"},
		{"pair", pair, Options{Use: UseRankings}, "1 97 33* 2* 1 97 63*"},
		{"pair for sft", pair, Options{}, "1 97 33* 2*"},
		{"labelled", kto, Options{Use: UseKTO}, "1 97 33* 2* bad"},
		{"labelled bad for sft", kto, Options{}, "labelled_bad"},
		{"another tokenizer", strings.Replace(sft, "hi", "ho", 1), Options{}, `its tokens read "<s>hi!</s>", the file says "<s> ho ! </s>"; these`},
		{"another tokenizer in the answer", strings.Replace(pair, `"?"`, `"."`, 1), Options{Use: UseRankings}, "other_tokenizer"},
		{"a greater vocabulary", `{"input_ids":[1,300],"labels":[-100,300]}`, Options{}, "has no token 300"},
	}
	for _, c := range cases {
		t.Run(c.about, func(t *testing.T) {
			c.opt.BadRows = BadRowsSkip
			d, err := Load(t.Context(), []Source{{Files: []string{write(t, "part-00000.jsonl", c.row+"\n")}}}, c.opt, tokenEncoder{})
			var got string
			if err != nil {
				got = err.Error()
			} else {
				seq, _ := d.Sequence(0)
				var parts []string
				for i, id := range seq.IDs {
					s := fmt.Sprint(id)
					if seq.Trained[i] {
						s += "*"
					}
					parts = append(parts, s)
				}
				if seq.Label != nil {
					parts = append(parts, map[bool]string{true: "good", false: "bad"}[*seq.Label])
				}
				got = strings.Join(parts, " ")
			}
			if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	// Without the means to compare them, tokens aren't trusted.
	if _, err := Load(t.Context(), []Source{{Files: []string{write(t, "a.jsonl", sft+"\n")}}}, Options{}, byteEncoder{}); err == nil || !strings.Contains(err.Error(), "no tokenizer") {
		t.Errorf("an encoder that can't decode: %v", err)
	}
	// The raw columns beside the tokens can be asked for.
	rows, _, err := ReadRows(t.Context(), []Source{{Files: []string{write(t, "b.jsonl", sft+"\n")}, Format: FormatMessages}}, Options{Use: UsePrompts})
	if err != nil || briefRow(rows[0]) != "u:raw" {
		t.Errorf("%v, %v", rows, err)
	}
}

// Rows of Parquet are found again for their text, and named by their number.
func TestTableRows(t *testing.T) {
	d, err := Load(t.Context(), []Source{{Files: []string{filepath.Join("testdata", "containers", "chats.snappy.parquet")}}}, Options{}, byteWeights{})
	if err != nil {
		t.Fatal(err)
	}
	seq, ok := d.Sequence(4) // row 5 has one answer, of weight 0
	if !ok || seq.Where != (Location{File: d.files[0], Element: 6}) || !strings.HasSuffix(seq.Where.String(), "chats.snappy.parquet: row 6") {
		t.Errorf("sequence 4 stands at %s", seq.Where)
	}
	r, err := d.Row(4)
	if err != nil || r.Where != seq.Where || r.Messages[0].Content != "What is 3 plus 3?" {
		t.Errorf("%+v, %v", r, err)
	}
}

// byteWeights is a byteEncoder that tells answers apart.
type byteWeights struct{ byteEncoder }

func (e byteWeights) EncodeTurns(messages []Message, tools []byte) (ids []int32, turns []int, err error) {
	for i, m := range messages {
		part, mask, err := e.EncodeChat([]Message{m}, nil)
		if err != nil {
			return nil, nil, err
		}
		for k := range part {
			turn := -1
			if mask[k] {
				turn = i
			}
			turns = append(turns, turn)
		}
		ids = append(ids, part...)
	}
	return ids, turns, nil
}

// Functions and calls reach the template, and calls are trained on as answers are, whichever form the file has.
func TestToolsReachTheTemplate(t *testing.T) {
	const aware = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}" +
		"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}" +
		"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
	openai := `{"tools":[{"type":"function","function":{"name":"weather"}}],"messages":[{"role":"user","content":"Rain?"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"weather","arguments":"{\"city\": \"Oslo\"}"}}]},{"role":"tool","tool_call_id":"c","content":"dry"},{"role":"assistant","content":"No."}]}`
	sharegpt := `{"tools":"[{\"name\":\"weather\"}]","conversations":[{"from":"human","value":"Rain?"},{"from":"function_call","value":"{\"name\":\"weather\",\"arguments\":{\"city\":\"Oslo\"}}"},{"from":"observation","value":"dry"},{"from":"gpt","value":"No."}]}`
	for _, c := range []struct{ about, template, text, trained string }{
		{"a template that knows tools", aware,
			"<|im_start|>system\n[{\"type\": \"function\", \"function\": {\"name\": \"weather\"}}]<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n" +
				"<|im_start|>assistant\n<call>weather {\"city\": \"Oslo\"}</call><|im_end|>\n<|im_start|>tool\ndry<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n",
			"<call>weather {\"city\": \"Oslo\"}</call><|im_end|>No.<|im_end|>"},
		{"one that doesn't", chatML,
			"<|im_start|>system\nFunctions that can be called, as JSON:\n[{\"type\":\"function\",\"function\":{\"name\":\"weather\"}}]<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n" +
				"<|im_start|>assistant\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Oslo\"}}<|im_end|>\n<|im_start|>user\ndry<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n",
			"{\"name\":\"weather\",\"arguments\":{\"city\":\"Oslo\"}}<|im_end|>No.<|im_end|>"},
	} {
		template, err := chat.New("test", c.template)
		if err != nil {
			t.Fatal(err)
		}
		enc := &ChatEncoder{Tokenizer: charTokenizer{}, Template: template, EOSID: 310}
		for name, row := range map[string]string{"openai": openai, "sharegpt": sharegpt} {
			d, err := Load(t.Context(), []Source{{Files: []string{write(t, "a.jsonl", row+"\n")}}}, Options{}, enc)
			if err != nil {
				t.Fatal(err)
			}
			seq, _ := d.Sequence(0)
			text, trained := "", ""
			for i, id := range seq.IDs[1:] { // behind the BOS
				s := string(rune(id))
				for special, sid := range charSpecials {
					if id == sid {
						s = special
					}
				}
				text += s
				if seq.Trained[i+1] {
					trained += s
				}
			}
			if text != c.text {
				t.Errorf("%s, %s: the text is\n%s\nwant\n%s", c.about, name, text, c.text)
			}
			if strings.TrimSuffix(trained, "\n") != c.trained {
				t.Errorf("%s, %s: trained on %q, want %q", c.about, name, trained, c.trained)
			}
		}
	}
}
