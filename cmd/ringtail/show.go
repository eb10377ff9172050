package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"ringtail/folder"
	"ringtail/gguf"
	"ringtail/hub"
	"ringtail/model"
	"ringtail/safetensors"
	"ringtail/torchfile"
)

type showCmd struct {
	Model string `arg:"" placeholder:"ORG/NAME|DIR|FILE" help:"Name in the hub's cache, model folder or GGUF file"`
	JSON  bool   `help:"Print JSON"`
}

// card is what there is to say of a model; what its files don't say is empty.
type card struct {
	Path         string `json:"path"`
	Architecture string `json:"architecture,omitempty"`
	Parameters   int64  `json:"parameters,omitempty"`
	Dtype        string `json:"dtype,omitempty"`
	Format       string `json:"format,omitempty"`
	Context      int64  `json:"context,omitempty"`
	Vocabulary   int64  `json:"vocabulary,omitempty"`
	Layers       int64  `json:"layers,omitempty"`
	Template     string `json:"template,omitempty"`
	Licence      string `json:"licence,omitempty"`
	Bytes        int64  `json:"bytes"`
	Problem      string `json:"problem,omitempty"` // why Ringtail can't use it
}

func (c *showCmd) Run(e *env) error {
	run, err := e.findModel(c.Model)
	if err != nil {
		return err
	}
	info, err := os.Stat(run.Dir)
	if err != nil {
		return fmt.Errorf("%s: no such model folder or file; see: ringtail list", c.Model)
	}
	var k card
	if info.IsDir() {
		k, err = cardOfFolder(run)
	} else {
		k, err = cardOfGGUF(run.Dir)
	}
	if err != nil {
		return err
	}
	if c.JSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(k)
	}
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"path", k.Path}, {"architecture", k.Architecture}, {"parameters", count(k.Parameters)}, {"dtype", k.Dtype}, {"format", k.Format},
		{"size", hub.Bytes(k.Bytes)}, {"context", number(k.Context)}, {"vocabulary", number(k.Vocabulary)}, {"layers", number(k.Layers)},
		{"template", k.Template}, {"licence", cmp.Or(k.Licence, "not said")}, {"problem", k.Problem},
	} {
		if row[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
	}
	return w.Flush()
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// count writes a number of parameters as people do.
func count(n int64) string {
	switch {
	case n == 0:
		return ""
	case n >= 1e9:
		return fmt.Sprintf("%.3g billion", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.3g million", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}

// maxSmall is the longest file of text that is looked into here.
const maxSmall = 16 << 20

func readSmall(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall))
	if err != nil {
		return nil
	}
	return b
}

func cardOfFolder(run model.Run) (card, error) {
	k := card{Path: run.Dir, Licence: licence(readSmall(filepath.Join(run.Dir, "README.md")))}
	entries, err := os.ReadDir(run.Dir)
	if err != nil {
		return k, err
	}
	for _, f := range entries {
		if info, err := os.Stat(filepath.Join(run.Dir, f.Name())); err == nil && info.Mode().IsRegular() { // links count as what they lead to
			k.Bytes += info.Size()
		}
	}
	var config map[string]any
	if err := json.Unmarshal(readSmall(filepath.Join(run.Dir, "config.json")), &config); err != nil {
		return k, fmt.Errorf("%s: no config.json that can be read: this is not a Hugging Face model folder", run.Dir)
	}
	if names, ok := config["architectures"].([]any); ok && len(names) > 0 {
		k.Architecture, _ = names[0].(string)
	} else {
		k.Architecture, _ = config["model_type"].(string)
	}
	k.Context = field(config, "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_sequence_length")
	k.Vocabulary = field(config, "vocab_size")
	k.Layers = field(config, "num_hidden_layers", "n_layer", "num_layers")
	var problems []error
	if _, err := model.LoadConfig(run.Dir); err != nil {
		problems = append(problems, err)
	}
	types, format, err := weights(run.Dir)
	if err != nil {
		problems = append(problems, err)
	}
	k.Format = format
	k.Parameters, k.Dtype = types.sum()
	text, err := folder.Open(run.Dir, run.Tokenizer, "")
	if err != nil {
		problems = append(problems, err)
	} else {
		k.Template = text.Choice
	}
	if err := errors.Join(problems...); err != nil {
		k.Problem = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return k, nil
}

// field is the first of a config's numbers that is there; models of several parts have
// those of the language model in text_config.
func field(config map[string]any, names ...string) int64 {
	for _, n := range names {
		if v, ok := config[n].(float64); ok && v > 0 && v < 1<<53 {
			return int64(v)
		}
	}
	if inner, ok := config["text_config"].(map[string]any); ok {
		return field(inner, names...)
	}
	return 0
}

// elements counts a model's elements by their type.
type elements map[string]int64

func (e elements) sum() (n int64, dtype string) {
	var types []string
	for t, m := range e {
		n += m
		types = append(types, t)
	}
	slices.SortFunc(types, func(a, b string) int { return cmp.Or(cmp.Compare(e[b], e[a]), cmp.Compare(a, b)) })
	return n, strings.Join(types, ", ")
}

// weights counts what a folder's weights hold.
func weights(dir string) (types elements, format string, err error) {
	types = elements{}
	if torchfile.Holds(dir) && !holdsSafetensors(dir) {
		f, err := torchfile.OpenFolder(dir)
		if err != nil {
			return nil, "PyTorch", err
		}
		defer f.Close()
		for _, n := range f.Names() {
			t, _ := f.Tensor(n)
			types[t.Dtype] += int64(t.Len())
		}
		return types, "PyTorch", nil
	}
	f, err := safetensors.OpenFolder(dir)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	for _, n := range f.Names() {
		t, _ := f.Tensor(n)
		types[t.Dtype] += int64(t.Len())
	}
	return types, "safetensors", nil
}

func holdsSafetensors(dir string) bool {
	for _, name := range []string{safetensors.SingleFile, safetensors.IndexFile} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

func cardOfGGUF(path string) (card, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return card{}, err
	}
	defer f.Close()
	k := card{Path: path, Format: "GGUF"}
	if info, err := os.Stat(path); err == nil {
		k.Bytes = info.Size()
	}
	m := f.Metadata()
	k.Architecture, _, _ = m.Text("general.architecture")
	k.Licence, _, _ = m.Text("general.license")
	k.Context, _, _ = m.Int(k.Architecture + ".context_length")
	k.Layers, _, _ = m.Int(k.Architecture + ".block_count")
	if tokens, ok, _ := m.Texts("tokenizer.ggml.tokens"); ok {
		k.Vocabulary = int64(len(tokens))
	}
	types := elements{}
	for _, n := range f.Names() {
		t, _ := f.Tensor(n)
		types[t.Type.String()] += int64(t.Len())
	}
	k.Parameters, k.Dtype = types.sum()
	if text, err := folder.Open(path, "", ""); err == nil {
		k.Template = text.Choice
	} else {
		k.Problem = err.Error()
	}
	return k, nil
}

// licence is what a README's front matter names: license, or license_name where that is
// "other".
func licence(readme []byte) string {
	text, ok := strings.CutPrefix(strings.ReplaceAll(string(readme), "\r\n", "\n"), "---\n")
	if !ok {
		return ""
	}
	front, _, ok := strings.Cut(text, "\n---")
	if !ok {
		return ""
	}
	found := map[string]string{}
	lines := strings.Split(front, "\n")
	for i, line := range lines {
		key, value, ok := strings.Cut(line, ":")
		if !ok || key == "" || key[0] == ' ' || key[0] == '-' {
			continue
		}
		value = strings.TrimSpace(value)
		if value == "" && i+1 < len(lines) { // a list of one
			value = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[i+1]), "- "))
		}
		found[key] = strings.Trim(value, `"'`)
	}
	if name := found["license_name"]; name != "" && (found["license"] == "other" || found["license"] == "") {
		return name
	}
	return found["license"]
}
