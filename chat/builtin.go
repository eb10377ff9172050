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

// builtin compiles the templates that the program carries. They are tested, so that none fails.
var builtin = sync.OnceValue(func() map[string]*Template {
	files, err := templateFiles.ReadDir("templates")
	if err != nil {
		panic("chat: embedded templates: " + err.Error())
	}
	all := map[string]*Template{}
	for _, f := range files {
		text, err := templateFiles.ReadFile("templates/" + f.Name())
		if err != nil {
			panic("chat: embedded template: " + err.Error())
		}
		name := strings.TrimSuffix(f.Name(), ".jinja")
		t, err := New(name, string(text))
		if err != nil {
			panic(err.Error())
		}
		all[name] = t
	}
	return all
})

// BuiltinNames lists the built-in templates.
func BuiltinNames() []string {
	var names []string
	for name := range builtin() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Builtin returns the built-in template of that name.
func Builtin(name string) (*Template, error) {
	if t, ok := builtin()[name]; ok {
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
