package data

import (
	"encoding/json"
	"strings"
)

// chatRow makes a chat of messages after putting them in order.
func chatRow(messages []Message, notes []Note) (Row, *RowError) {
	messages, more, err := tidy(messages)
	if err != nil {
		return Row{}, err
	}
	if len(messages) == 0 {
		return Row{}, rowErr(ReasonEmptyPrompt, "", "the chat holds no message")
	}
	return Row{Messages: messages, Notes: append(notes, more...)}, nil
}

// textRow makes a document.
func textRow(text string) (Row, *RowError) {
	if strings.TrimSpace(text) == "" {
		return Row{}, rowErr(ReasonEmptyText, "", "the text is empty")
	}
	return Row{Text: text}, nil
}

// messagesRow reads ShareGPT's and OpenAI's chats; lists names the fields that
// may hold the messages.
func messagesRow(o object, lists ...string) (Row, *RowError) {
	raw, found := o.get(lists...)
	if raw == nil {
		return Row{}, o.missing("a list of messages", lists...)
	}
	messages, notes, err := parseMessages(raw, found, o.columns)
	if err != nil {
		return Row{}, err
	}
	system, err := o.text("system", "system_prompt")
	if err != nil {
		return Row{}, err
	}
	r, err := chatRow(withSystem(messages, system), notes)
	if err != nil {
		return r, err
	}
	return withMeta(r, o)
}

// withSystem puts a system message first, unless the chat has its own.
func withSystem(messages []Message, system string) []Message {
	if strings.TrimSpace(system) == "" || len(messages) > 0 && messages[0].Role == RoleSystem {
		return messages
	}
	return append([]Message{{Role: RoleSystem, Content: system}}, messages...)
}

// withMeta adds what any chat or prompt may carry besides its messages.
func withMeta(r Row, o object) (Row, *RowError) {
	var err *RowError
	if r.Tools, err = toolsOf(o); err != nil {
		return r, err
	}
	if r.Reference, err = infoOf(o, "gt_answer", "reference", "ground_truth"); err != nil {
		return r, err
	}
	if r.Category, err = infoOf(o, "category"); err != nil {
		return r, err
	}
	if raw, found := o.get("test_cases"); raw != nil {
		if k := kindOf(raw); k != kindObject && k != kindList {
			return r, wrongType(o.path+found, "an object with inputs and outputs", raw)
		}
		r.TestCases = raw
	}
	return r, nil
}

// infoOf reads a string, or a number as text, that only informs; a value of
// another type is somebody else's field.
func infoOf(o object, fields ...string) (string, *RowError) {
	switch raw, _ := o.get(fields...); kindOf(raw) {
	case kindString:
		return o.text(fields...)
	case kindNumber:
		return string(raw), nil
	}
	return "", nil
}

// promptMessages reads what a row asks: [system], [history], instruction and
// [input] as messages that end with the user. The question may also be a list
// of messages (TRL). With chat, messages and conversations count too.
func promptMessages(o object, chat bool) ([]Message, []Note, *RowError) {
	fields := []string{"instruction", "prompt", "question", "query"}
	if chat {
		fields = append([]string{"messages", "conversations", "conversation"}, fields...)
	}
	raw, found := o.get(fields...)
	if raw == nil && o.kind("context") == kindList {
		raw, found = o.get("context") // ColossalChat's preference sets
	}
	if raw == nil {
		return nil, nil, o.missing("the question, as a string or a list of messages", fields...)
	}
	system, err := o.text("system", "system_prompt")
	if err != nil {
		return nil, nil, err
	}
	if k := kindOf(raw); k == kindList || k == kindObject {
		messages, notes, err := parseMessages(raw, o.path+found, o.columns)
		return withSystem(messages, system), notes, err
	}
	question, err := stringOf(raw, o.path+found)
	if err != nil {
		return nil, nil, err
	}
	input, err := inputOf(o)
	if err != nil {
		return nil, nil, err
	}
	if strings.TrimSpace(question) == "" && strings.TrimSpace(input) == "" {
		return nil, nil, rowErr(ReasonEmptyPrompt, o.path+found, "the question is empty")
	}
	messages, err := historyOf(o)
	if err != nil {
		return nil, nil, err
	}
	if dialogue, ok := dialoguePrompt(question); ok {
		return withSystem(join(messages, dialogue), system), nil, nil
	}
	messages = append(messages, Message{Role: RoleUser, Content: withInput(question, input)})
	return withSystem(messages, system), nil, nil
}

// inputOf reads Alpaca's input, or Dolly's context.
func inputOf(o object) (string, *RowError) {
	if o.has("input") {
		return o.text("input")
	}
	if o.kind("context") == kindString {
		return o.text("context")
	}
	return "", nil
}

// withInput appends the input to the instruction, on a line of its own.
func withInput(instruction, input string) string {
	if strings.TrimSpace(input) == "" {
		return instruction
	}
	if strings.TrimSpace(instruction) == "" {
		return input
	}
	return instruction + "\n" + input
}

// historyOf reads earlier turns: [[question, answer], ...].
func historyOf(o object) ([]Message, *RowError) {
	if !o.has("history") {
		return nil, nil
	}
	turns, path, err := o.list("history")
	if err != nil {
		return nil, err
	}
	var messages []Message
	for i, turn := range turns {
		pair, err := listOf(turn, indexed(path, i))
		if err != nil || len(pair) != 2 {
			return nil, rowErr(ReasonWrongType, indexed(path, i), "expected [question, answer]")
		}
		q, err := stringOf(pair[0], indexed(path, i)+"[0]")
		if err != nil {
			return nil, err
		}
		a, err := stringOf(pair[1], indexed(path, i)+"[1]")
		if err != nil {
			return nil, err
		}
		messages = append(messages, Message{Role: RoleUser, Content: q}, Message{Role: RoleAssistant, Content: a})
	}
	return messages, nil
}

// alpacaRow reads instruction, input, output.
func alpacaRow(o object) (Row, *RowError) {
	prompt, notes, err := promptMessages(o, false)
	if err != nil {
		return Row{}, err
	}
	answer, err := answerOf(o, "output", "response", "answer", "completion")
	if err != nil {
		return Row{}, err
	}
	r, err := chatRow(append(prompt, answer...), notes)
	if err != nil {
		return r, err
	}
	return withMeta(r, o)
}

// answerOf reads an answer that must be there: text, a message, or messages.
func answerOf(o object, fields ...string) ([]Message, *RowError) {
	raw, found := o.get(fields...)
	if raw == nil {
		return nil, o.missing("the answer", fields...)
	}
	return parseAnswer(raw, o.path+found, o.columns)
}

// parseAnswer reads an answer in any form. Empty text is an answer that says
// nothing; who uses it decides.
func parseAnswer(raw json.RawMessage, path string, columns map[string]string) ([]Message, *RowError) {
	switch kindOf(raw) {
	case kindString:
		s, err := stringOf(raw, path)
		return []Message{{Role: RoleAssistant, Content: s}}, err
	case kindList, kindObject:
		messages, _, err := parseMessages(raw, path, columns)
		return messages, err
	}
	return nil, wrongType(path, "text, a message or a list of messages", raw)
}

// selfInstructRows reads one instruction with several instances.
func selfInstructRows(o object) ([]Row, *RowError) {
	instruction, err := o.needText("instruction", "prompt", "question", "query")
	if err != nil {
		return nil, err
	}
	items, path, err := o.list("instances")
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, rowErr(ReasonNoAnswer, path, "the list of instances is empty")
	}
	var rows []Row
	for i, item := range items {
		inst, err := parseObject(item, o.columns)
		if err != nil {
			err.Field = indexed(path, i)
			return nil, err
		}
		inst.path = indexed(path, i) + "."
		input, err := inst.text("input")
		if err != nil {
			return nil, err
		}
		output, err := inst.needText("output")
		if err != nil {
			return nil, err
		}
		question := withInput(instruction, input)
		if strings.TrimSpace(question) == "" {
			return nil, rowErr(ReasonEmptyPrompt, o.name("instruction"), "the instruction is empty")
		}
		r := Row{Messages: []Message{{Role: RoleUser, Content: question}, {Role: RoleAssistant, Content: output}}}
		if r, err = withMeta(r, o); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// promptRow reads a question without an answer.
func promptRow(o object) (Row, *RowError) {
	if o.kind("text") == kindString && !o.has("instruction", "prompt", "question", "query", "messages", "conversations") {
		// FastChat's question files.
		text, err := o.text("text")
		if err != nil {
			return Row{}, err
		}
		if strings.TrimSpace(text) == "" {
			return Row{}, rowErr(ReasonEmptyPrompt, o.name("text"), "the question is empty")
		}
		return withMeta(Row{Messages: []Message{{Role: RoleUser, Content: text}}}, o)
	}
	messages, notes, err := promptMessages(o, true)
	if err != nil {
		return Row{}, err
	}
	r, err := chatRow(messages, notes)
	if err != nil {
		return r, err
	}
	return withMeta(r, o)
}
