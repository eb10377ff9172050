package chat

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"sync"
)

//go:embed templates/*.jinja
var templateFiles embed.FS

// Info describes a built-in template.
type Info struct {
	// Name is what a recipe or --template calls it. Case, dashes, dots and underscores don't count: qwen-2.5 is qwen25.
	Name    string
	Aliases []string
	About   string // what it is for, in a few words
	// Stop is the text that ends an answer, usually a token of the model; "" for the tokenizer's EOS token.
	Stop string
	// System is the system message that a chat without one gets, "" for none.
	System string

	file string // templates/FILE.jinja
	// conversation says that it is one of ColossalChat's: System is put before the chat, and an answer is trained on through
	// the next Stop.
	conversation bool
}

const (
	colossalSystem = "A chat between a curious human and an artificial intelligence assistant. " +
		"The assistant gives helpful, detailed, and polite answers to the human's questions.\n\n"
	colossalThink = "You are a helpful assistant. The assistant first thinks about the reasoning process in the mind and then provides " +
		"the user with the answer. The reasoning process and answer are enclosed within <think> </think> and<answer> </answer> tags, " +
		"respectively, i.e., <think> reasoning process here </think><answer> answer here </answer>. Now the user asks you to solve a " +
		"math problem that involves reasoning. After thinking, when you finally reach a conclusion, clearly output the final answer " +
		"without explanation within the <answer> </answer> tags, your final answer should be a integer without unit, currency mark, " +
		"thousands separator or other text. i.e., <answer> 123 </answer>.\n"
)

// infos lists the built-in templates. Those of ColossalChat are its conversation_template/*.json, whose file names are
// their aliases.
var infos = []Info{
	{Name: "alpaca", About: "### Instruction: and ### Response:",
		System: "Below is an instruction that describes a task. Write a response that appropriately completes the request."},
	{Name: "chatml", About: "ChatML: <|im_start|> and <|im_end|>, without a system message of its own", Stop: "<|im_end|>"},
	{Name: "colossalchat", About: "Human: and Assistant:, between BOS and EOS"},
	{Name: "deepseek", Aliases: []string{"deepseek-v3"}, About: "DeepSeek V3", Stop: "<｜end▁of▁sentence｜>"},
	{Name: "gemma", Aliases: []string{"gemma-2", "gemma-3"}, About: "Gemma 1 to 3", Stop: "<end_of_turn>"},
	{Name: "llama2", About: "Llama 2 chat"},
	{Name: "llama3", Aliases: []string{"llama-3.1", "llama-3.2", "llama-3.3"}, About: "Llama 3 instruct, without tools", Stop: "<|eot_id|>"},
	{Name: "mistral", About: "Mistral Instruct"},
	{Name: "phi", Aliases: []string{"phi-3", "phi-3.5"}, About: "Phi 3", Stop: "<|end|>"},
	{Name: "phi4", About: "Phi 4", Stop: "<|im_end|>"},
	{Name: "qwen25", Aliases: []string{"qwen", "qwen-2"}, About: "Qwen 2 and 2.5 instruct, with tools", Stop: "<|im_end|>",
		System: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
	{Name: "qwen3", About: "Qwen 3, with tools and thinking (enable_thinking)", Stop: "<|im_end|>"},
	{Name: "vicuna", About: "Vicuna 1.1: USER: and ASSISTANT:",
		System: "A chat between a curious user and an artificial intelligence assistant. " +
			"The assistant gives helpful, detailed, and polite answers to the user's questions."},
	{Name: "zephyr", About: "Zephyr"},

	{Name: "colossalchat-baichuan2", Aliases: []string{"baichuan-inc_Baichuan2-13B-Chat"}, About: "ChatML for Baichuan 2",
		Stop: "<|im_end|>", System: colossalSystem, file: "chatml", conversation: true},
	{Name: "colossalchat-chatglm2", Aliases: []string{"THUDM_chatglm2-6b"}, About: "ChatML for ChatGLM 2",
		Stop: "<|im_end|>", System: colossalSystem, file: "chatml", conversation: true},
	{Name: "colossalchat-chatglm3", Aliases: []string{"THUDM_chatglm3-6b"}, About: "ChatGLM 3",
		Stop: "<|user|>", System: colossalSystem, conversation: true},
	{Name: "colossalchat-colossal-llama2", Aliases: []string{"colossal-llama2"}, About: "Colossal-LLaMA-2",
		Stop: "</s>", System: colossalSystem, conversation: true},
	{Name: "colossalchat-deepseek-v2-lite", Aliases: []string{"deepseek-ai_DeepSeek-V2-Lite"}, About: "DeepSeek-V2-Lite",
		Stop: "<｜end▁of▁sentence｜>", System: colossalSystem, conversation: true},
	{Name: "colossalchat-llama2", About: "Llama 2 with a system message", // its file is called llama2.json
		Stop: "</s>", System: colossalSystem, file: "llama2", conversation: true},
	{Name: "colossalchat-minicpm", Aliases: []string{"MiniCPM-2b"}, About: "ChatML for MiniCPM",
		Stop: "<|im_end|>", System: colossalSystem, file: "chatml", conversation: true},
	{Name: "colossalchat-mixtral", Aliases: []string{"mistralai_Mixtral-8x7B-Instruct-v0.1"}, About: "Mixtral 8x7B Instruct",
		Stop: "</s>", conversation: true},
	{Name: "colossalchat-phi2", Aliases: []string{"microsoft_phi-2"}, About: "ChatML for Phi 2",
		Stop: "<|im_end|>", System: colossalSystem, file: "chatml", conversation: true},
	{Name: "colossalchat-qwen15-110b", Aliases: []string{"Qwen_Qwen1.5-110B-Chat"}, About: "ChatML for Qwen 1.5",
		Stop: "<|im_end|>", System: colossalSystem, file: "chatml", conversation: true},
	{Name: "colossalchat-qwen15-32b", Aliases: []string{"Qwen_Qwen1.5-32B-Chat"}, About: "ChatML for Qwen 1.5",
		Stop: "<|im_end|>", System: colossalSystem, file: "chatml", conversation: true},
	{Name: "colossalchat-qwen25-3b", Aliases: []string{"Qwen_Qwen2.5-3B"}, About: "ChatML for Qwen 2.5 base, reasoning in tags; no end of an answer is trained",
		Stop: "<|endoftext|>", System: colossalThink, file: "chatml", conversation: true},
	{Name: "colossalchat-tinyllama", Aliases: []string{"tiny-llama"}, About: "TinyLlama chat",
		Stop: "</s>", System: colossalSystem, conversation: true},
	{Name: "colossalchat-yi", Aliases: []string{"01-ai_Yi-1.5-9B-Chat"}, About: "Yi 1.5 chat",
		Stop: "<|im_end|>", System: colossalSystem, conversation: true},
}

// builtin compiles the templates that the program carries. They are tested, so that none fails.
var builtin = sync.OnceValue(func() map[string]*Template {
	all := map[string]*Template{}
	for _, info := range infos {
		file := info.file
		if file == "" {
			file = info.Name
		}
		text, err := templateFiles.ReadFile("templates/" + file + ".jinja")
		if err != nil {
			panic("chat: embedded template: " + err.Error())
		}
		var t *Template
		if info.conversation {
			t, err = newConversation(info.Name, string(text), info.System, info.Stop)
		} else {
			t, err = New(info.Name, string(text))
		}
		if err != nil {
			panic(err.Error())
		}
		for _, name := range append([]string{info.Name}, info.Aliases...) {
			all[plainName(name)] = t
		}
	}
	return all
})

// plainName is a name without what doesn't count in it.
func plainName(name string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(strings.ToLower(name))
}

// Builtins describes the built-in templates, in the order of their names.
func Builtins() []Info {
	list := slices.Clone(infos)
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// BuiltinNames lists the built-in templates.
func BuiltinNames() []string {
	var names []string
	for _, info := range Builtins() {
		names = append(names, info.Name)
	}
	return names
}

// IsBuiltin tells whether there is a built-in template of that name.
func IsBuiltin(name string) bool { return builtin()[plainName(name)] != nil }

// Builtin returns the built-in template of that name.
func Builtin(name string) (*Template, error) {
	if t, ok := builtin()[plainName(name)]; ok {
		return t, nil
	}
	return nil, fmt.Errorf("chat template %q: there is no built-in template of that name; there are %s", name, strings.Join(BuiltinNames(), ", "))
}

// Pick chooses a model's template: the one that the model is configured with (its text, "" for none, and the file
// that it is from); else ChatML if its tokens are in the vocabulary; else ColossalChat's Human/Assistant form. why
// explains the choice in a line for the user.
func Pick(configured, source string, hasToken func(token string) bool) (t *Template, why string, err error) {
	if strings.TrimSpace(configured) != "" {
		if source == "" {
			source = "the model"
		}
		if t, err = New(source, configured); err != nil {
			return nil, "", err
		}
		return t, "chat template from " + source, nil
	}
	name, reason := "chatml", "<|im_start|> and <|im_end|> are in the vocabulary"
	if !hasToken("<|im_start|>") || !hasToken("<|im_end|>") {
		name, reason = "colossalchat", "<|im_start|> and <|im_end|> are not in the vocabulary"
	}
	if t, err = Builtin(name); err != nil {
		return nil, "", err
	}
	return t, fmt.Sprintf("built-in chat template %s: the model has none, and %s", name, reason), nil
}
