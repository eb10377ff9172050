package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"ringtail/atomicfile"
)

// Files of a model folder that belong to its tokenizer, as transformers names
// them.
const (
	tokenizerFile   = "tokenizer.json"
	configFile      = "tokenizer_config.json"
	specialMapFile  = "special_tokens_map.json"
	templateFile    = "chat_template.jinja"
	templatesFolder = "additional_chat_templates" // of NAME.jinja
	defaultTemplate = "default"
)

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

// folderFiles is a folder as it was read, so that what was not changed is
// written as it was.
type folderFiles struct {
	config                Config
	tokens                int  // size of the vocabulary
	converted             bool // there was no tokenizer.json
	configDoc, mapDoc     *object
	configBytes, mapBytes []byte
	configTemplates       map[string]string // those of tokenizer_config.json, by name
}

// tokenNames are the members of both files that name a token, and where they
// are kept.
func (c *Config) tokenNames() []struct {
	key  string
	name *string
} {
	return []struct {
		key  string
		name *string
	}{{"bos_token", &c.BOS}, {"eos_token", &c.EOS}, {"pad_token", &c.PAD}, {"unk_token", &c.UNK}}
}

// clone copies what c points to as well.
func (c *Config) clone() Config {
	d := *c
	d.ChatTemplates = maps.Clone(c.ChatTemplates)
	for _, b := range []**bool{&d.AddBOS, &d.AddEOS} {
		if *b != nil {
			v := **b
			*b = &v
		}
	}
	return d
}

// LoadFolder reads the tokenizer of a model folder: tokenizer.json and, where
// they are, tokenizer_config.json, special_tokens_map.json (for names that the
// former lacks) and chat templates: chat_template.jinja counts before those in
// tokenizer_config.json. Without tokenizer.json it takes a sentencepiece model, a
// tiktoken file, vocab.json with merges.txt, or vocab.txt, the first of these
// that there is (vocabfiles.go). Errors name the file and the field.
func LoadFolder(dir string) (*Tokenizer, error) {
	f := &folderFiles{}
	c := &Config{}
	var err error
	if f.configDoc, f.configBytes, err = readObject(dir, configFile); err != nil {
		return nil, err
	}
	if f.mapDoc, f.mapBytes, err = readObject(dir, specialMapFile); err != nil {
		return nil, err
	}
	if f.configDoc != nil {
		if err := c.readConfig(f.configDoc); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, configFile), err)
		}
	}
	if f.mapDoc != nil {
		if err := c.readNames(f.mapDoc); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, specialMapFile), err)
		}
	}
	f.configTemplates = maps.Clone(c.ChatTemplates)
	if err := c.readTemplateFiles(dir); err != nil {
		return nil, err
	}
	f.config = c.clone()
	t, err := Load(filepath.Join(dir, tokenizerFile))
	if errors.Is(err, fs.ErrNotExist) {
		t, err = loadVocabulary(dir, c, f.configDoc, f.mapDoc)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s has no %s: %w", dir, tokenizerFile, err)
		}
		f.converted = true
	}
	if err != nil {
		return nil, err
	}
	t.config, t.folder, f.tokens = *c, f, t.Size()
	return t, nil
}

// readObject reads a file that may be absent.
func readObject(dir, name string) (*object, []byte, error) {
	path := filepath.Join(dir, name)
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	o, err := parseObject(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return o, data, nil
}

func (c *Config) readConfig(o *object) error {
	if err := c.readNames(o); err != nil {
		return err
	}
	for key, to := range map[string]**bool{"add_bos_token": &c.AddBOS, "add_eos_token": &c.AddEOS} {
		if raw := o.values[key]; !isNull(raw) {
			if err := decodeField(raw, key, to); err != nil {
				return err
			}
		}
	}
	if raw := o.values["model_max_length"]; !isNull(raw) {
		// transformers writes 10^30 where there is no bound.
		var n float64
		if err := decodeField(raw, "model_max_length", &n); err != nil {
			return err
		}
		if n > 0 && n < math.MaxInt32 {
			c.ModelMaxLength = int(n)
		}
	}
	return c.readConfigTemplates(o.values["chat_template"])
}

// readNames reads names of tokens that are not known yet. A name is a string or
// an object with its content.
func (c *Config) readNames(o *object) error {
	for _, n := range c.tokenNames() {
		raw := o.values[n.key]
		if isNull(raw) || *n.name != "" {
			continue
		}
		if kindOf(raw) == "object" {
			var token struct {
				Content *string `json:"content"`
			}
			if err := decodeField(raw, n.key, &token); err != nil {
				return err
			}
			if token.Content == nil {
				return fmt.Errorf("%s.content: missing", n.key)
			}
			*n.name = *token.Content
		} else if err := decodeField(raw, n.key, n.name); err != nil {
			return err
		}
	}
	return nil
}

// readConfigTemplates reads chat_template of tokenizer_config.json: one text, or
// a list of {"name", "template"}.
func (c *Config) readConfigTemplates(raw []byte) error {
	const at = "chat_template"
	if isNull(raw) {
		return nil
	}
	if kindOf(raw) == "string" {
		c.ChatTemplateSource = configFile
		return decodeField(raw, at, &c.ChatTemplate)
	}
	var list []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if err := decodeField(raw, at, &list); err != nil {
		return err
	}
	for i, e := range list {
		if e.Name == "" {
			return fmt.Errorf("%s[%d].name: missing", at, i)
		}
		c.setTemplate(e.Name, e.Template, configFile)
	}
	return nil
}

func (c *Config) setTemplate(name, text, source string) {
	if name == defaultTemplate {
		c.ChatTemplate, c.ChatTemplateSource = text, source
		return
	}
	if c.ChatTemplates == nil {
		c.ChatTemplates = map[string]string{}
	}
	c.ChatTemplates[name] = text
}

func (c *Config) readTemplateFiles(dir string) error {
	data, err := readFile(filepath.Join(dir, templateFile))
	if err == nil {
		c.setTemplate(defaultTemplate, string(data), templateFile)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(dir, templatesFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".jinja")
		if !ok || name == "" || name == defaultTemplate {
			continue
		}
		data, err := readFile(filepath.Join(dir, templatesFolder, e.Name()))
		if err != nil {
			return err
		}
		c.setTemplate(name, string(data), "")
	}
	return nil
}

// BOS returns the id of the token that a text begins with, false if the folder
// names none or the vocabulary lacks it.
func (t *Tokenizer) BOS() (int32, bool) { return t.named(t.config.BOS) }

// EOS returns the id of the token that ends a text.
func (t *Tokenizer) EOS() (int32, bool) { return t.named(t.config.EOS) }

// PAD returns the id of the token that fills up rows.
func (t *Tokenizer) PAD() (int32, bool) { return t.named(t.config.PAD) }

// UNK returns the id of the token for what has no other.
func (t *Tokenizer) UNK() (int32, bool) { return t.named(t.config.UNK) }

func (t *Tokenizer) named(token string) (int32, bool) {
	if token == "" {
		return 0, false
	}
	return t.ID(token)
}

// SaveFolder writes the tokenizer into a folder, which transformers loads as a
// PreTrainedTokenizerFast: tokenizer.json, tokenizer_config.json,
// special_tokens_map.json and, where there are any, the chat templates. Files
// that were read and whose content was not changed are written as they were. It
// makes the folder where it is absent, and leaves other files alone.
func (t *Tokenizer) SaveFolder(dir string) error {
	for name := range t.config.ChatTemplates {
		if name == "" || name == defaultTemplate || name != filepath.Base(name) || strings.ContainsAny(name, `/\`) {
			return fmt.Errorf("chat template %q: the name must be that of a file", clip(name))
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := t.saveTemplates(dir); err != nil {
		return err
	}
	config, special := t.configFiles()
	for _, f := range []struct {
		name    string
		content []byte
	}{{tokenizerFile, t.JSON()}, {configFile, config}, {specialMapFile, special}} {
		if err := atomicfile.WriteBytes(filepath.Join(dir, f.name), 0o644, f.content); err != nil {
			return err
		}
	}
	return nil
}

// templatesChanged says whether the templates are not those of the folder read.
func (t *Tokenizer) templatesChanged() bool {
	if t.folder == nil {
		return true
	}
	old := &t.folder.config
	return t.config.ChatTemplate != old.ChatTemplate || !maps.Equal(t.config.ChatTemplates, old.ChatTemplates)
}

// saveTemplates writes the templates' files, and removes those of templates
// that are no more: left there they would count.
func (t *Tokenizer) saveTemplates(dir string) error {
	files := map[string]string{}
	changed := t.templatesChanged()
	for name, text := range t.config.ChatTemplates {
		if changed || t.folder.configTemplates[name] != text {
			files[filepath.Join(templatesFolder, name+".jinja")] = text
		}
	}
	if t.config.ChatTemplate != "" && (changed || t.folder.config.ChatTemplateSource != configFile) {
		files[templateFile] = t.config.ChatTemplate
	}
	old, err := filepath.Glob(filepath.Join(dir, templatesFolder, "*.jinja"))
	if err != nil {
		return err
	}
	for _, path := range append(old, filepath.Join(dir, templateFile)) {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if _, keep := files[name]; keep {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := atomicfile.WriteBytes(path, 0o644, []byte(files[name])); err != nil {
			return err
		}
	}
	return nil
}

// configFiles returns tokenizer_config.json and special_tokens_map.json.
func (t *Tokenizer) configFiles() (config, special []byte) {
	f := t.folder
	if f == nil {
		f = &folderFiles{}
	}
	same := t.folder != nil && reflect.DeepEqual(f.config, t.config) && f.tokens == t.Size() && len(t.fresh) == 0 && !f.converted
	config, special = f.configBytes, f.mapBytes
	if !same || config == nil {
		config = t.writeConfig(f)
	}
	if !same || special == nil {
		special = t.writeSpecialMap(f)
	}
	return config, special
}

func (t *Tokenizer) writeConfig(f *folderFiles) []byte {
	o := copyObject(f.configDoc)
	c := &t.config
	if f.configDoc == nil {
		o.set("tokenizer_class", "PreTrainedTokenizerFast")
		o.set("clean_up_tokenization_spaces", false)
		if c.ModelMaxLength == 0 {
			o.setRaw("model_max_length", []byte("1000000000000000019884624838656"))
		}
		if extra := t.extraSpecial(); len(extra) > 0 {
			o.set("additional_special_tokens", extra)
		}
	}
	if f.converted {
		// The class that it names may make its own of the vocabulary.
		o.set("tokenizer_class", "PreTrainedTokenizerFast")
		o.remove("auto_map")
	}
	for i, n := range c.tokenNames() {
		setChanged(o, n.key, *n.name, *f.config.tokenNames()[i].name)
	}
	setPointer(o, "add_bos_token", c.AddBOS, f.config.AddBOS)
	setPointer(o, "add_eos_token", c.AddEOS, f.config.AddEOS)
	setChanged(o, "model_max_length", c.ModelMaxLength, f.config.ModelMaxLength)
	if t.templatesChanged() {
		o.remove("chat_template")
	}
	if raw := o.values["added_tokens_decoder"]; kindOf(raw) == "object" {
		o.setRaw("added_tokens_decoder", t.addedDecoder(raw))
	}
	if f.configDoc != nil {
		t.addExtraSpecial(o)
	}
	return o.bytes()
}

func copyObject(o *object) *object {
	c := newObject()
	if o != nil {
		c.keys = slices.Clone(o.keys)
		maps.Copy(c.values, o.values)
	}
	return c
}

// setChanged writes a value that is no longer what was read.
func setChanged[T comparable](o *object, key string, v, old T) {
	var zero T
	switch {
	case v == old:
	case v == zero:
		o.remove(key)
	default:
		o.set(key, v)
	}
}

func setPointer(o *object, key string, v, old *bool) {
	switch {
	case v == nil && old != nil:
		o.remove(key)
	case v != nil && (old == nil || *old != *v):
		o.set(key, *v)
	}
}

// extraSpecial lists the special tokens without a name in the configuration.
func (t *Tokenizer) extraSpecial() []string {
	var extra []string
	_, tokens := t.AddedTokens()
	for _, a := range tokens {
		c := &t.config
		if a.Special && !slices.Contains([]string{c.BOS, c.EOS, c.PAD, c.UNK}, a.Content) {
			extra = append(extra, a.Content)
		}
	}
	return extra
}

// addExtraSpecial adds the control tokens that are new to the list of those
// without a role. transformers 5 calls it extra_special_tokens.
func (t *Tokenizer) addExtraSpecial(o *object) {
	key := "additional_special_tokens"
	if kindOf(o.values["extra_special_tokens"]) == "array" {
		key = "extra_special_tokens"
	}
	var list []json.RawMessage
	known := []string{t.config.BOS, t.config.EOS, t.config.PAD, t.config.UNK}
	if raw := o.values[key]; kindOf(raw) == "array" {
		// It was well-formed when it was read.
		_ = eachElement(raw, key, func(_ int, value []byte) error {
			list = append(list, value)
			if a, err := readFolderToken(value, key); err == nil {
				known = append(known, a.Content)
			}
			return nil
		})
	}
	before := len(list)
	for _, s := range t.fresh {
		if !slices.Contains(known, s) {
			known = append(known, s)
			list = append(list, quoteJSON(s))
		}
	}
	if len(list) > before {
		o.set(key, list)
	}
}

// addedDecoder returns the configuration's list of added tokens with those that
// it lacks.
func (t *Tokenizer) addedDecoder(raw []byte) []byte {
	o := newObject()
	// It was well-formed when it was read.
	_ = eachMember(raw, "added_tokens_decoder", func(key string, value []byte) error {
		o.setRaw(key, value)
		return nil
	})
	ids, tokens := t.AddedTokens()
	missing := false
	for i, id := range ids {
		key := fmt.Sprint(id)
		a := tokens[i]
		if _, ok := o.values[key]; ok && !slices.Contains(t.fresh, a.Content) {
			continue
		}
		missing = true
		o.set(key, struct {
			Content    string `json:"content"`
			LStrip     bool   `json:"lstrip"`
			Normalized bool   `json:"normalized"`
			RStrip     bool   `json:"rstrip"`
			SingleWord bool   `json:"single_word"`
			Special    bool   `json:"special"`
		}{a.Content, a.LStrip, a.Normalized, a.RStrip, a.SingleWord, a.Special})
	}
	if !missing {
		return raw
	}
	return bytes.ReplaceAll(bytes.TrimSuffix(o.bytes(), []byte{'\n'}), []byte{'\n'}, []byte("\n  "))
}

func (t *Tokenizer) writeSpecialMap(f *folderFiles) []byte {
	o := copyObject(f.mapDoc)
	// The names as this file had them, which may be fewer than the folder's.
	var had Config
	if f.mapDoc != nil {
		_ = had.readNames(f.mapDoc)
	}
	for i, n := range t.config.tokenNames() {
		setChanged(o, n.key, *n.name, *had.tokenNames()[i].name)
	}
	if f.mapDoc != nil {
		t.addExtraSpecial(o)
	} else {
		if extra := t.extraSpecial(); len(extra) > 0 {
			o.set("additional_special_tokens", extra)
		}
	}
	return o.bytes()
}
