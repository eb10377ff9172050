package chat

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

func mustNew(t testing.TB, name, text string) *Template {
	t.Helper()
	tmpl, err := New(name, text)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func mustBuiltin(t testing.TB, name string) *Template {
	t.Helper()
	tmpl, err := Builtin(name)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func texts(r Rendering, spans []Span) []string {
	var list []string
	for _, s := range spans {
		list = append(list, r.Text[s.Start:s.End])
	}
	return list
}

// Templates in the style of published models. What matters here is what they do to the history.
const (
	// GLM 4: nothing ends a turn but the token that opens the next one.
	glm = `[gMASK]<sop>{% for m in messages %}{{ '<|' ~ (m.role if m.role != 'tool' else 'observation') ~ '|>\n' ~ m.content }}
{%- for call in m.tool_calls or [] %}{{ '\n<tool_call>' ~ call.function.name ~ call.function.arguments | tojson ~ '</tool_call>' }}{% endfor %}
{%- endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
	// gpt-oss: the last answer ends otherwise than those before it.
	gptOSS = `{% for m in messages %}{{ '<|start|>' ~ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}{{ '<|message|>' ~ m.content }}
{%- if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}<|call|>{% elif m.role == 'assistant' and loop.last %}<|return|>{% else %}<|end|>{% endif %}
{%- endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}`
	// Command R7B: two tokens end a turn.
	commandR7B = `{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}{% if m.role == 'assistant' %}<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>{% else %}<|USER_TOKEN|>{{ m.content }}{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}
{%- if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>{% endif %}`
	// Gemma 4: a result repeats the name of the function, which came with the assistant's message.
	gemma4 = `{% for m in messages %}{% if m.role != 'tool' %}{{ '<|turn>' ~ m.role ~ '\n' }}{% endif %}
{%- for call in m.tool_calls or [] %}{{ '<|tool_call>call:' ~ call.function.name ~ call.function.arguments | tojson ~ '<tool_call|><|tool_response>' }}{% endfor %}
{%- if m.role == 'tool' %}{{ 'response:' ~ messages[loop.index0 - 1].tool_calls[0].function.name ~ '{' ~ m.content ~ '}<tool_response|>' }}{% elif not m.tool_calls %}{{ m.content ~ '<turn|>\n' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<|turn>assistant\n' }}{% endif %}`
	// Mistral with the system message in the last question: every prefix of a chat is written otherwise.
	systemLast = `{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' ~ (messages[0].content ~ '\n' if loop.index0 == messages | length - 1 or loop.index0 == messages | length - 2) ~ m.content ~ '[/INST]' }}
{%- elif m.role == 'assistant' %}{{ m.content ~ '</s>' }}{% endif %}{% endfor %}`
	// Qwen 3: thinking is shown for answers after the last question only, and those always get a thinking block.
	qwen3 = `{%- set ns = namespace(last=0) -%}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor -%}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
    {%- set content = m.content -%}
    {%- set thought = '' -%}
    {%- if m.reasoning_content is string -%}
        {%- set thought = m.reasoning_content -%}
    {%- elif '</think>' in content -%}
        {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
        {%- set content = content.split('</think>')[-1].lstrip('\n') -%}
    {%- endif -%}
    {%- if loop.index0 > ns.last -%}
        {{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') -}}
    {%- else -%}
        {{- '<|im_start|>assistant\n' + content -}}
    {%- endif -%}
    {%- for call in m.tool_calls or [] -%}
        {{- '\n<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\n' -}}
{%- else -%}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}`
	// DeepSeek R1: the prompt opens the thinking block, the history drops it.
	deepseekR1 = `{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}` +
		`{% elif m.role == 'assistant' %}{% set content = m.content %}{% if '</think>' in content %}` +
		`{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}` +
		`{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}`
	// Mistral v3: the tools stand before the last question only, so that no prefix stays as it was.
	mistralV3 = `{{ bos_token }}{% set users = messages | selectattr('role', 'equalto', 'user') | list %}` +
		`{% for m in messages %}{% if m.role == 'user' %}{% if m == users[-1] and tools %}` +
		`{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}{{ '[INST] ' + m.content + '[/INST]' }}` +
		`{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}`
	// A form without any special token.
	plainForm = `{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}{{ '\n' }}{% else %}A: {{ m.content }}{{ '\n\n' }}{% endif %}{% endfor %}` +
		`{% if add_generation_prompt %}A:{% endif %}`
	// Phi 3 and kin end a complete chat with EOS, which the middle of a chat doesn't have.
	zephyr = `{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}`
	// Titles the chat with its first answer before it begins.
	titled = `Topic: {{ messages[1].content[:6] }}{% for m in messages %}<|im_start|>{{ m.role }}{{ '\n' }}{{ m.content }}<|im_end|>{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}`
	// The old ChatML that knows no generation prompt.
	headless = `{% for m in messages %}<|im_start|>{{ m.role }}{{ '\n' ~ m.content }}<|im_end|>{{ '\n' }}{% endfor %}`
)

var (
	user = func(s string) Message { return Message{Role: "user", Content: s} }
	bot  = func(s string) Message { return Message{Role: "assistant", Content: s} }
	sys  = func(s string) Message { return Message{Role: "system", Content: s} }
)

func TestTrainedSpans(t *testing.T) {
	multi := []Message{sys("Be kind."), user(" Hi! "), bot("Hello. "), user("1+1?\nSay it."), bot("2")}
	noSystem := multi[1:]
	s := RenderOptions{BOS: "<s>", EOS: "</s>"}
	im := RenderOptions{EOS: "<|im_end|>"}
	call := Message{Role: "assistant", Extra: []Field{{"tool_calls", json.RawMessage(`[{"function":{"name":"add","arguments":{"a":1,"b":[2,"x"]}}}]`)}}}
	cases := []struct {
		name     string
		template *Template
		messages []Message
		opts     RenderOptions
		want     []string
	}{
		{"chatml", mustBuiltin(t, "chatml"), multi, RenderOptions{}, []string{"Hello. <|im_end|>", "2<|im_end|>"}},
		{"colossalchat", mustBuiltin(t, "colossalchat"), multi, s, []string{"Hello. </s>", "2</s>"}},
		{"colossalchat with one token for both", mustBuiltin(t, "colossalchat"), multi,
			RenderOptions{BOS: "<|endoftext|>", EOS: "<|endoftext|>"}, []string{"Hello. <|endoftext|>", "2<|endoftext|>"}},
		{"llama2", mustBuiltin(t, "llama2"), multi, s, []string{" Hello. </s>", " 2 </s>"}},
		{"llama3", mustBuiltin(t, "llama3"), multi, RenderOptions{BOS: "<|begin_of_text|>", EOS: "<|end_of_text|>"},
			[]string{"Hello.<|eot_id|>", "2<|eot_id|>"}},
		{"alpaca", mustBuiltin(t, "alpaca"), multi, s, []string{"Hello. </s>", "2</s>"}},
		{"vicuna", mustBuiltin(t, "vicuna"), multi, s, []string{" Hello. </s>", " 2</s>"}},
		{"mistral", mustBuiltin(t, "mistral"), multi, s, []string{" Hello. </s>", " 2</s>"}},
		{"gemma", mustBuiltin(t, "gemma"), multi, RenderOptions{BOS: "<bos>", EOS: "<eos>"},
			[]string{"Hello.<end_of_turn>", "2<end_of_turn>"}},
		{"phi", mustBuiltin(t, "phi"), multi, RenderOptions{EOS: "<|endoftext|>"}, []string{"Hello. <|end|>", "2<|end|>"}},
		{"zephyr", mustNew(t, "zephyr", zephyr), multi, s, []string{"Hello. </s>", "2</s>"}},
		{"qwen3, no thinking", mustNew(t, "qwen3", qwen3), multi, im,
			[]string{"Hello. <|im_end|>", "<think>\n\n</think>\n\n2<|im_end|>"}},
		{"qwen3, thinking inside of the content", mustNew(t, "qwen3", qwen3),
			[]Message{user("a"), bot("<think>\nold\n</think>\n\nb"), user("c"), bot("<think>\nnew\n</think>\n\nd")}, im,
			[]string{"b<|im_end|>", "<think>\nnew\n</think>\n\nd<|im_end|>"}},
		{"qwen3, tool call", mustNew(t, "qwen3", qwen3), []Message{user("a"), call}, im,
			[]string{"<think>\n\n</think>\n\n\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [2, \"x\"]}}\n</tool_call><|im_end|>"}},
		{"deepseek r1", mustNew(t, "r1", deepseekR1),
			[]Message{user("a"), bot("<think>\nx\n</think>\n\nb"), user("c"), bot("d")},
			RenderOptions{BOS: "<｜begin▁of▁sentence｜>", EOS: "<｜end▁of▁sentence｜>"},
			[]string{"\n\nb<｜end▁of▁sentence｜>", "d<｜end▁of▁sentence｜>"}},
		{"mistral v3 with tools", mustNew(t, "v3", mistralV3), noSystem,
			RenderOptions{BOS: "<s>", EOS: "</s>", Tools: json.RawMessage(`[{"name":"f"}]`)}, []string{" Hello. </s>", " 2</s>"}},
		{"no special token", mustNew(t, "plain", plainForm), noSystem, RenderOptions{}, []string{" Hello. \n\n", " 2\n\n"}},
		{"content before its turn", mustNew(t, "titled", titled), []Message{user("a"), bot("longer answer"), user("c"), bot("d")}, im,
			[]string{"longer answer<|im_end|>", "d<|im_end|>"}},
		{"no generation prompt", mustNew(t, "headless", headless), noSystem, im,
			[]string{"<|im_start|>assistant\nHello. <|im_end|>", "<|im_start|>assistant\n2<|im_end|>"}},
		{"empty answer", mustNew(t, "zephyr", zephyr), []Message{user("a"), bot(""), user("b"), bot("c")}, s, []string{"</s>", "c</s>"}},
		{"equal messages", mustNew(t, "zephyr", zephyr), []Message{user("a"), bot("a"), user("a"), bot("a")}, s, []string{"a</s>", "a</s>"}},
		{"answer like the marker", mustNew(t, "zephyr", zephyr), []Message{user("</s>"), bot("</s>\n<|user|>\nx"), user("a"), bot("b")}, s,
			[]string{"</s>\n<|user|>\nx</s>", "b</s>"}},
		{"two answers in a row", mustNew(t, "zephyr", zephyr), []Message{user("a"), bot("b"), bot("c"), user("d")}, s, []string{"b</s>", "c</s>"}},
		{"assistant first", mustNew(t, "zephyr", zephyr), []Message{bot("b"), user("c"), bot("d")}, s, []string{"<|assistant|>\nb</s>", "d</s>"}},
		{"opened by the next turn", mustNew(t, "glm", glm), multi, RenderOptions{}, []string{"\nHello. <|user|>", "\n2"}},
		{"the last turn ends otherwise", mustNew(t, "gpt-oss", gptOSS), noSystem, RenderOptions{},
			[]string{"<|channel|>final<|message|>Hello. ", "<|channel|>final<|message|>2<|return|>"}},
		{"two tokens end a turn", mustNew(t, "r7b", commandR7B), noSystem, RenderOptions{},
			[]string{"Hello. <|END_RESPONSE|><|END_OF_TURN_TOKEN|>", "2<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"}},
		{"the call's name in the result", mustNew(t, "gemma 4", gemma4), []Message{user("a"), call, {Role: "tool", Content: "3"}, bot("b")}, RenderOptions{},
			[]string{"<|tool_call>call:add{\"a\": 1, \"b\": [2, \"x\"]}<tool_call|><|tool_response>", "b<turn|>"}},
		{"an empty answer in a text that no prefix has", mustNew(t, "system last", systemLast),
			[]Message{sys("s"), user("a"), bot(""), user("b"), bot("c")}, s, []string{"</s>", "c</s>"}},
		{"nobody answers", mustNew(t, "zephyr", zephyr), []Message{user("a")}, s, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, prompt := range []bool{false, true} {
				c.opts.AddGenerationPrompt = prompt
				r, err := c.template.RenderSpans(c.messages, c.opts)
				if err != nil {
					t.Fatal(err)
				}
				if got := texts(r, r.Trained); !slices.Equal(got, c.want) {
					t.Errorf("generation prompt %t: trained %q, want %q, in %q", prompt, got, c.want, r.Text)
				}
				plain, err := c.template.Render(c.messages, c.opts)
				if err != nil || plain != r.Text {
					t.Errorf("Render gave %q and error %v, RenderSpans %q", plain, err, r.Text)
				}
				for _, s := range r.Trained {
					if s.Message < 0 || c.messages[s.Message].Role != "assistant" {
						t.Errorf("span %v belongs to no assistant's message", s)
					}
				}
			}
		})
	}
}

// A template with generation blocks and the same one without must train on the same bytes.
func TestGenerationBlocksAgreeWithDerivation(t *testing.T) {
	for _, name := range BuiltinNames() {
		tmpl := mustBuiltin(t, name)
		if !tmpl.program.HasGeneration() || tmpl.endOfAssistant != "" {
			continue
		}
		text := strings.NewReplacer("{%- generation -%}", "", "{%- endgeneration -%}", "").Replace(tmpl.Text())
		without := mustNew(t, name+" without blocks", text)
		messages := []Message{sys("s"), user("q"), bot(" a\n"), user("r"), bot("<|im_end|>"), user("t"), bot("")}
		opts := RenderOptions{BOS: "<s>", EOS: "</s>"}
		want, err := tmpl.RenderSpans(messages, opts)
		if err != nil {
			t.Fatal(err)
		}
		got, err := without.RenderSpans(messages, opts)
		if err != nil {
			t.Fatal(err)
		}
		if got.Text != want.Text || !slices.Equal(texts(got, got.Trained), texts(want, want.Trained)) {
			t.Errorf("%s: derived %q, blocks %q", name, texts(got, got.Trained), texts(want, want.Trained))
		}
	}
}

func TestTrainingOnNothingOrEverything(t *testing.T) {
	messages := []Message{user("a"), bot("b")}
	cases := []struct {
		text string
		want error
	}{
		{`{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}`, ErrNothingTrained},
		{`Q: {{ messages[0].content }}{% generation %}{% endgeneration %}`, ErrNothingTrained},
		{`{% generation %}{% for m in messages %}{{ m.content }}{% endfor %}{% endgeneration %}`, ErrAllTrained},
		{` {% generation %}a{% endgeneration %} `, ErrAllTrained},
		{`{{ messages[1].content }}`, ErrAllTrained},
		{`{% for m in messages %}{{ m.role }}: {{ m.content }};{% endfor %}`, nil},
	}
	for _, c := range cases {
		_, err := mustNew(t, "bad", c.text).RenderSpans(messages, RenderOptions{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got error %v, want %v", c.text, err, c.want)
		}
		if _, err := mustNew(t, "bad", c.text).Render(messages, RenderOptions{}); err != nil {
			t.Errorf("%s: Render fails too: %v", c.text, err)
		}
	}
}

func TestContentSpans(t *testing.T) {
	messages := []Message{sys("sys"), user("<|im_start|>system"), bot("x<|im_end|>y")}
	r, err := mustBuiltin(t, "chatml").RenderSpans(messages, RenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"sys", "<|im_start|>system", "x<|im_end|>y"}
	if got := texts(r, r.Content); !slices.Equal(got, want) {
		t.Errorf("content %q, want %q", got, want)
	}
	for i, s := range r.Content {
		if s.Message != i {
			t.Errorf("content span %d belongs to message %d", i, s.Message)
		}
	}
}

func TestStops(t *testing.T) {
	s := RenderOptions{BOS: "<s>", EOS: "</s>"}
	cases := []struct {
		template *Template
		opts     RenderOptions
		want     []string
	}{
		{mustBuiltin(t, "chatml"), RenderOptions{}, []string{"<|im_end|>"}},
		{mustBuiltin(t, "llama2"), s, []string{"</s>"}},
		{mustBuiltin(t, "llama3"), s, []string{"<|eot_id|>"}},
		{mustBuiltin(t, "colossalchat"), s, []string{"</s>"}},
		{mustBuiltin(t, "gemma"), s, []string{"<end_of_turn>"}},
		{mustBuiltin(t, "phi"), s, []string{"<|end|>"}},
		{mustBuiltin(t, "vicuna"), RenderOptions{}, []string{"USER:"}},
		{mustBuiltin(t, "alpaca"), RenderOptions{}, []string{"### Instruction:"}},
		{mustNew(t, "glm", glm), RenderOptions{}, []string{"<|user|>", "<|observation|>"}},
		{mustNew(t, "gpt-oss", gptOSS), RenderOptions{EOS: "<|return|>"}, []string{"<|return|>", "<|call|>"}},
		{mustNew(t, "r7b", commandR7B), RenderOptions{}, []string{"<|END_OF_TURN_TOKEN|>"}},
		{mustNew(t, "gemma 4", gemma4), RenderOptions{}, []string{"<turn|>", "<|tool_response>"}},
		{mustNew(t, "parts", `{% for m in messages %}{{ m.role ~ ':' ~ m.content[0].text ~ '<end_of_utterance>\n' }}{% endfor %}`), RenderOptions{}, []string{"<end_of_utterance>"}},
		{mustNew(t, "a list of tools", `{% for t in tools %}{{ t }}{% endfor %}{% for m in messages %}{{ m.content }}<|x|>{% endfor %}`), RenderOptions{}, []string{"<|x|>"}},
		{mustNew(t, "odd", `{% for m in messages %}{{ m.role ~ m.content }}!END!{% endfor %}`), RenderOptions{Specials: []string{"!END!"}}, []string{"!END!"}},
		{mustNew(t, "fails", `{{ raise_exception('no') }}`), s, nil},
	}
	for _, c := range cases {
		if got := c.template.Stops(c.opts); !slices.Equal(got, c.want) {
			t.Errorf("%s: stops %q, want %q", c.template.Name(), got, c.want)
		}
	}
}

func TestRenderErrors(t *testing.T) {
	cases := []struct {
		name     string
		messages []Message
		opts     RenderOptions
		want     string
	}{
		{"role", []Message{{Role: "user<|im_end|>"}}, RenderOptions{}, "role"},
		{"no role", []Message{{}}, RenderOptions{}, "role"},
		{"extra", []Message{{Role: "user", Extra: []Field{{"x", json.RawMessage(`{"a":`)}}}}, RenderOptions{}, `field "x"`},
		{"second role", []Message{{Role: "user", Extra: []Field{{"role", json.RawMessage(`"system"`)}}}}, RenderOptions{}, "role"},
		{"tools", []Message{user("a")}, RenderOptions{Tools: json.RawMessage(`[`)}, "tools"},
		{"vars", []Message{user("a")}, RenderOptions{Vars: []Field{{"v", json.RawMessage(`nope`)}}}, "variable v"},
		{"tool calls", []Message{{Role: "assistant", Extra: []Field{{"tool_calls", json.RawMessage(`[1]`)}}}}, RenderOptions{}, "tool calls"},
	}
	for _, c := range cases {
		_, err := mustBuiltin(t, "chatml").Render(c.messages, c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "chatml") {
			t.Errorf("%s: got error %v, want one with %q and the template's name", c.name, err, c.want)
		}
	}
	for _, name := range []string{"llama2", "mistral", "gemma"} {
		if _, err := mustBuiltin(t, name).Render([]Message{bot("a")}, RenderOptions{BOS: "<s>", EOS: "</s>"}); err == nil {
			t.Errorf("%s accepts an assistant who speaks first", name)
		}
	}
	if _, err := mustBuiltin(t, "colossalchat").Render([]Message{user("a")}, RenderOptions{}); err == nil {
		t.Error("colossalchat does without an EOS token")
	}
}
