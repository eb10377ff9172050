package tokenizer

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// folder writes files into a new folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// content reads all files of a folder.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestLoadFolder(t *testing.T) {
	yes := true
	for name, c := range map[string]struct {
		files map[string]string
		want  Config
	}{
		"nothing else": {nil, Config{}},
		"names and a template": {map[string]string{"tokenizer_config.json": `{"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": false},
			"pad_token": null, "add_bos_token": true, "model_max_length": 4096, "chat_template": "{{ a }}"}`},
			Config{BOS: "<s>", EOS: "</s>", AddBOS: &yes, ModelMaxLength: 4096, ChatTemplate: "{{ a }}", ChatTemplateSource: "tokenizer_config.json"}},
		"no bound": {map[string]string{"tokenizer_config.json": `{"model_max_length": 1000000000000000019884624838656}`}, Config{}},
		"map fills in": {map[string]string{"tokenizer_config.json": `{"bos_token": "<s>"}`,
			"special_tokens_map.json": `{"bos_token": "<x>", "unk_token": {"content": "<unk>"}}`}, Config{BOS: "<s>", UNK: "<unk>"}},
		"named templates": {map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}`},
			Config{ChatTemplate: "d", ChatTemplateSource: "tokenizer_config.json", ChatTemplates: map[string]string{"tool_use": "t"}}},
		"template files first": {map[string]string{"tokenizer_config.json": `{"chat_template": "old"}`, "chat_template.jinja": "new",
			"additional_chat_templates/rag.jinja": "r"},
			Config{ChatTemplate: "new", ChatTemplateSource: "chat_template.jinja", ChatTemplates: map[string]string{"rag": "r"}}},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"tokenizer.json": string(spm(t).JSON())}
			maps.Copy(files, c.files)
			dir := folder(t, files)
			tok, err := LoadFolder(dir)
			if err != nil {
				t.Fatal(err)
			}
			got := *tok.Config()
			if (got.AddBOS == nil) != (c.want.AddBOS == nil) || got.AddBOS != nil && *got.AddBOS != *c.want.AddBOS {
				t.Errorf("AddBOS is %v", got.AddBOS)
			}
			if !maps.Equal(got.ChatTemplates, c.want.ChatTemplates) {
				t.Errorf("templates are %q, want %q", got.ChatTemplates, c.want.ChatTemplates)
			}
			if got.BOS != c.want.BOS || got.EOS != c.want.EOS || got.PAD != c.want.PAD || got.UNK != c.want.UNK || got.ModelMaxLength != c.want.ModelMaxLength ||
				got.ChatTemplate != c.want.ChatTemplate || got.ChatTemplateSource != c.want.ChatTemplateSource {
				t.Errorf("configuration is %+v, want %+v", got, c.want)
			}

			// What was not changed is written as it was.
			out := filepath.Join(t.TempDir(), "new", "folder")
			if err := tok.SaveFolder(out); err != nil {
				t.Fatal(err)
			}
			saved := content(t, out)
			for name, text := range files {
				if saved[name] != text {
					t.Errorf("%s is saved as %q, was %q", name, saved[name], text)
				}
			}
			if _, ok := files["chat_template.jinja"]; !ok && saved["chat_template.jinja"] != "" {
				t.Error("chat_template.jinja is saved, which was not there")
			}
		})
	}
}

func TestNamedTokens(t *testing.T) {
	tok := spm(t)
	tok.Config().BOS, tok.Config().PAD = "<s>", "<pad>"
	if id, ok := tok.BOS(); !ok || id != 1 {
		t.Errorf("BOS is %d, %v", id, ok)
	}
	if id, ok := tok.PAD(); ok {
		t.Errorf("PAD is %d, but the vocabulary lacks it", id)
	}
	if id, ok := tok.EOS(); ok {
		t.Errorf("EOS is %d, but has no name", id)
	}
}

func TestSaveChanges(t *testing.T) {
	dir := folder(t, map[string]string{
		"tokenizer.json":        string(spm(t).JSON()),
		"tokenizer_config.json": `{"z": [1,  2], "bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "old", "added_tokens_decoder": {"0": {"content": "<unk>"}}}`,
		"model.safetensors":     "weights",
	})
	tok, err := LoadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	c := tok.Config()
	c.BOS, c.PAD, c.AddBOS, c.ModelMaxLength, c.ChatTemplate = "", "<pad>", &no, 77, "{# <new> #}\n"
	c.ChatTemplates = map[string]string{"tool_use": "tools"}
	if _, err := tok.AddTokens(AddedToken{Content: "<pad>", Special: true}); err != nil {
		t.Fatal(err)
	}
	if err := tok.SaveFolder(dir); err != nil {
		t.Fatal(err)
	}
	again, err := LoadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := again.Config()
	if got.BOS != "" || got.EOS != "</s>" || got.PAD != "<pad>" || *got.AddBOS || got.ModelMaxLength != 77 ||
		got.ChatTemplate != "{# <new> #}\n" || got.ChatTemplateSource != "chat_template.jinja" || got.ChatTemplates["tool_use"] != "tools" {
		t.Errorf("configuration is %+v", got)
	}
	if id, ok := again.PAD(); !ok || int(id) != tok.Size()-1 || !again.IsSpecial(id) {
		t.Errorf("PAD is %d, %v", id, ok)
	}
	files := content(t, dir)
	config := files["tokenizer_config.json"]
	for _, part := range []string{`"z": [1,  2]`, `"eos_token": {"content": "</s>"}`, `"274": {`} {
		if !strings.Contains(config, part) {
			t.Errorf("tokenizer_config.json lacks %s: %s", part, config)
		}
	}
	if strings.Contains(config, "chat_template") {
		t.Errorf("tokenizer_config.json keeps the old template: %s", config)
	}
	if files["model.safetensors"] != "weights" {
		t.Error("another file was changed")
	}

	// A template that is no more must not be found again.
	again.Config().ChatTemplate, again.Config().ChatTemplates = "", nil
	if err := again.SaveFolder(dir); err != nil {
		t.Fatal(err)
	}
	last, err := LoadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c := last.Config(); c.ChatTemplate != "" || len(c.ChatTemplates) != 0 {
		t.Errorf("templates are %q, %q", c.ChatTemplate, c.ChatTemplates)
	}
}

func TestBrokenFolders(t *testing.T) {
	good := string(spm(t).JSON())
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing":           {nil, []string{"no tokenizer.json"}},
		"sentencepiece":     {map[string]string{"tokenizer.model": "x"}, []string{"tokenizer.model", "cut off"}},
		"config":            {map[string]string{"tokenizer_config.json": "{"}, []string{"tokenizer_config.json", "JSON"}},
		"config's type":     {map[string]string{"tokenizer_config.json": "[]"}, []string{"tokenizer_config.json", "array"}},
		"name's type":       {map[string]string{"tokenizer_config.json": `{"bos_token": 3}`}, []string{"tokenizer_config.json", "bos_token", "number"}},
		"name without text": {map[string]string{"special_tokens_map.json": `{"pad_token": {}}`}, []string{"special_tokens_map.json", "pad_token.content"}},
		"template's type":   {map[string]string{"tokenizer_config.json": `{"chat_template": 1}`}, []string{"tokenizer_config.json", "chat_template"}},
		"template's name":   {map[string]string{"tokenizer_config.json": `{"chat_template": [{"template": "x"}]}`}, []string{"chat_template[0].name"}},
		"length":            {map[string]string{"tokenizer_config.json": `{"model_max_length": "x"}`}, []string{"model_max_length", "string"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			if c.files != nil && c.files["tokenizer.model"] == "" {
				files["tokenizer.json"] = good
			}
			maps.Copy(files, c.files)
			_, err := LoadFolder(folder(t, files))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
		})
	}
	if _, err := LoadFolder(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of an absent folder: %v", err)
	}
}

func TestTemplateNamesStayInTheFolder(t *testing.T) {
	for _, name := range []string{"", "default", "../x", "a/b", `a\b`} {
		tok := spm(t)
		tok.Config().ChatTemplates = map[string]string{name: "x"}
		dir := t.TempDir()
		if err := tok.SaveFolder(filepath.Join(dir, "model")); err == nil {
			t.Errorf("a template named %q is saved", name)
		}
		if files := content(t, dir); len(files) > 0 {
			t.Errorf("files were written: %q", slices.Sorted(maps.Keys(files)))
		}
	}
}

func TestSaveTrained(t *testing.T) {
	tok := trained(t, TrainOptions{PAD: "<pad>", SpecialTokens: []string{"<|im_start|>"}, BOS: "<s>", ChatTemplate: "{{ x }}"})
	dir := t.TempDir()
	if err := tok.SaveFolder(dir); err != nil {
		t.Fatal(err)
	}
	again, err := LoadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := again.Config()
	if c.PAD != "<pad>" || c.BOS != "<s>" || c.EOS != "" || c.ChatTemplate != "{{ x }}" {
		t.Errorf("configuration is %+v", c)
	}
	if got, want := again.Encode(sample, EncodeOptions{}), tok.Encode(sample, EncodeOptions{}); !slices.Equal(got, want) {
		t.Error("ids differ after loading")
	}
}
