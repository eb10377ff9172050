package tokenizer

// Config is what a model folder says about its tokenizer outside of
// tokenizer.json: in tokenizer_config.json, special_tokens_map.json and
// chat_template.jinja. Token names are "" where the folder names none.
type Config struct {
	BOS, EOS, PAD, UNK string

	// AddBOS and AddEOS are add_bos_token and add_eos_token, nil where absent.
	// Encode follows tokenizer.json's post-processor, which is what counts.
	AddBOS, AddEOS *bool

	// ModelMaxLength is model_max_length in tokens, 0 where absent or unbounded.
	ModelMaxLength int

	// ChatTemplate is the default chat template's Jinja text, "" if none.
	ChatTemplate string
	// ChatTemplateSource names the file that ChatTemplate came from.
	ChatTemplateSource string
	// ChatTemplates holds the further named templates, such as "tool_use".
	ChatTemplates map[string]string
}
type folderFiles struct{}
