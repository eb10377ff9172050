package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// expandFiles replaces patterns (*, ?, [...]) by the files they match, and
// folders by the data files in them: those of the first of the splits that
// there is. A folder is, by what lies in it,
//
//   - a Dataset or DatasetDict that the Python package datasets saved
//     (state.json, dataset_dict.json), or folders of these, such as
//     ColossalChat's arrow/part-00000, arrow/part-00001, ...
//   - a data set of the Hugging Face hub whose README.md lists its files
//     (configs), or
//   - any folder of files of one kind, whose splits are told by their names as
//     datasets tells them: train-00000-of-00001.parquet, data/test.jsonl, ...
func expandFiles(files []string, splits []string) ([]string, error) {
	var out []string
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && info.IsDir() {
			found, err := folderFiles(f, splits)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
			continue
		} else if err == nil || !strings.ContainsAny(f, "*?[") {
			out = append(out, f)
			continue
		}
		found, err := filepath.Glob(f)
		if err != nil {
			return nil, fmt.Errorf("data file pattern %q: %w", f, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("data file pattern %q matches no file", f)
		}
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.IsDir() {
				more, err := folderFiles(f, splits)
				if err != nil {
					return nil, err
				}
				out = append(out, more...)
				continue
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// splitsOf are the splits of a folder that a source is for.
func (s Source) splitsOf(evaluation bool) []string {
	switch {
	case s.Split != "":
		return []string{s.Split}
	case evaluation:
		return []string{"validation", "test"}
	}
	return []string{"train"}
}

// The most that is read of a folder's own description, and how deep folders are
// searched.
const (
	maxDescription = 1 << 20
	maxFolderDepth = 8
)

// folderFiles finds a folder's data files.
func folderFiles(dir string, splits []string) ([]string, error) {
	if files, err := savedFiles(dir, splits); err != nil || files != nil {
		return files, err
	}
	if files, err := configuredFiles(dir, splits); err != nil || files != nil {
		return files, err
	}
	found, err := searchFolder(dir)
	if err != nil {
		return nil, err
	}
	return chooseFiles(dir, found, splits)
}

// description reads a small file of a folder; nil if there is none.
func description(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxDescription {
		err = fmt.Errorf("%s has %d bytes: expected at most %d", file, info.Size(), maxDescription)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// savedFiles lists the files of what datasets saved; nil if dir isn't that.
func savedFiles(dir string, splits []string) ([]string, error) {
	file := filepath.Join(dir, "dataset_dict.json")
	b, err := description(file)
	if err != nil {
		return nil, err
	}
	if b != nil {
		var dict struct {
			Splits []string `json:"splits"`
		}
		if err := json.Unmarshal(b, &dict); err != nil || len(dict.Splits) == 0 {
			return nil, fmt.Errorf("%s: expected {\"splits\": [names]}", file)
		}
		split, ok := pickSplit(dict.Splits, splits)
		if !ok {
			return nil, noSplit(dir, splits, dict.Splits)
		}
		if !filepath.IsLocal(filepath.FromSlash(split)) {
			return nil, fmt.Errorf("%s: splits: %q leads out of the folder", file, split)
		}
		dir = filepath.Join(dir, split)
	}
	file = filepath.Join(dir, "state.json")
	state, err := description(file)
	if err != nil {
		return nil, err
	}
	if state == nil {
		if b != nil {
			return nil, fmt.Errorf("%s: no such file: the data set was not saved or copied whole", file)
		}
		return nil, nil
	}
	var s struct {
		Files []struct {
			Name string `json:"filename"`
		} `json:"_data_files"`
		Indices []any `json:"_indices_data_files"`
	}
	if err := json.Unmarshal(state, &s); err != nil || len(s.Files) == 0 {
		return nil, fmt.Errorf("%s: _data_files: expected a list of files that datasets saved", file)
	}
	if len(s.Indices) > 0 {
		return nil, fmt.Errorf("%s: _indices_data_files: the data set was saved with a selection of its rows apart: save it again after flatten_indices()", file)
	}
	var out []string
	for _, f := range s.Files {
		if !filepath.IsLocal(filepath.FromSlash(f.Name)) {
			return nil, fmt.Errorf("%s: _data_files: %q leads out of the folder", file, f.Name)
		}
		out = append(out, filepath.Join(dir, filepath.FromSlash(f.Name)))
	}
	return out, nil
}

// splitNames are the names that files of a split have, by the split's own name.
var splitNames = map[string][]string{
	"train":      {"train", "training"},
	"validation": {"validation", "valid", "dev", "val"},
	"test":       {"test", "testing", "eval", "evaluation"},
}

// sameSplit says whether two names stand for one split.
func sameSplit(a, b string) bool {
	for name, others := range splitNames {
		if a == name && slices.Contains(others, b) || b == name && slices.Contains(others, a) {
			return true
		}
	}
	return a == b
}

// pickSplit is the first of the wanted splits that there is, by the name that it
// has there.
func pickSplit(have, want []string) (string, bool) {
	for _, w := range want {
		for _, h := range have {
			if sameSplit(w, h) {
				return h, true
			}
		}
	}
	return "", false
}

func noSplit(dir string, want, have []string) error {
	return fmt.Errorf("%s has no split %s: it has %s; name its files, or give split", dir, strings.Join(want, " or "), strings.Join(have, ", "))
}

// anchor finds YAML's anchors, which a data set's README has no use for and
// which can make few bytes stand for many.
var anchor = regexp.MustCompile(`(?m)(^|[\s:\[,-])&[\w-]+(\s|$)`)

// configuredFiles lists the files that README.md names; nil if it names none.
func configuredFiles(dir string, splits []string) ([]string, error) {
	file := filepath.Join(dir, "README.md")
	info, err := os.Stat(file)
	if err != nil || info.IsDir() {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDescription))
	if err != nil {
		return nil, err
	}
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	head, ok := bytes.CutPrefix(b, []byte("---\n"))
	if !ok {
		return nil, nil
	}
	head, _, ok = bytes.Cut(head, []byte("\n---"))
	if !ok || !bytes.Contains(head, []byte("configs:")) {
		return nil, nil
	}
	if anchor.Match(head) {
		return nil, fmt.Errorf("%s: its head uses YAML anchors: name the data files instead", file)
	}
	var card struct {
		Configs []struct {
			Name    string `yaml:"config_name"`
			Default bool   `yaml:"default"`
			Dir     string `yaml:"data_dir"`
			Files   any    `yaml:"data_files"`
		} `yaml:"configs"`
	}
	if err := yaml.Unmarshal(head, &card); err != nil {
		return nil, fmt.Errorf("%s: its head isn't YAML (%s): name the data files instead", file, strings.SplitN(err.Error(), "\n", 2)[0])
	}
	chosen := -1
	var names []string
	for i, c := range card.Configs {
		names = append(names, c.Name)
		if c.Default || c.Name == "default" && chosen < 0 || len(card.Configs) == 1 {
			chosen = i
		}
	}
	switch {
	case len(names) == 0:
		return nil, nil
	case chosen < 0:
		return nil, fmt.Errorf("%s: the data set has the configurations %s: name the files of one of them", file, strings.Join(names, ", "))
	}
	config := card.Configs[chosen]
	if !filepath.IsLocal(filepath.FromSlash("./" + config.Dir)) {
		return nil, fmt.Errorf("%s: data_dir: %q leads out of the folder", file, config.Dir)
	}
	base := filepath.Join(dir, filepath.FromSlash(config.Dir))
	if config.Files == nil {
		if config.Dir == "" {
			return nil, nil
		}
		found, err := searchFolder(base)
		if err != nil {
			return nil, err
		}
		return chooseFiles(base, found, splits)
	}
	patterns, err := splitPatterns(config.Files)
	if err != nil {
		return nil, fmt.Errorf("%s: data_files: %w", file, err)
	}
	var have []string
	for _, p := range patterns {
		have = append(have, p.split)
	}
	split, ok := pickSplit(have, splits)
	if !ok {
		return nil, noSplit(dir, splits, have)
	}
	var out []string
	for _, p := range patterns {
		if p.split != split {
			continue
		}
		for _, pattern := range p.patterns {
			found, err := matchFiles(base, pattern)
			if err != nil {
				return nil, fmt.Errorf("%s: data_files: %w", file, err)
			}
			out = append(out, found...)
		}
	}
	return out, nil
}

// splitFiles are the patterns of one split.
type splitFiles struct {
	split    string
	patterns []string
}

// splitPatterns reads data_files: a pattern, a list of them, or a list of
// {split, path}.
func splitPatterns(v any) ([]splitFiles, error) {
	texts := func(v any) ([]string, bool) {
		if s, ok := v.(string); ok {
			return []string{s}, true
		}
		list, ok := v.([]any)
		var out []string
		for _, item := range list {
			s, isText := item.(string)
			ok = ok && isText
			out = append(out, s)
		}
		return out, ok && len(out) > 0
	}
	if all, ok := texts(v); ok {
		return []splitFiles{{"train", all}}, nil
	}
	list, _ := v.([]any)
	var out []splitFiles
	for _, item := range list {
		m, _ := item.(map[string]any)
		split, _ := m["split"].(string)
		paths, ok := texts(m["path"])
		if split == "" || !ok {
			return nil, errors.New("expected a pattern, a list of patterns, or a list of {split, path}")
		}
		out = append(out, splitFiles{split, paths})
	}
	if len(out) == 0 {
		return nil, errors.New("expected a pattern, a list of patterns, or a list of {split, path}")
	}
	return out, nil
}

// matchFiles lists the files of a folder that match a pattern, in which ** stands
// for any folders.
func matchFiles(dir, pattern string) ([]string, error) {
	if strings.Contains(pattern, "://") {
		return nil, fmt.Errorf("%q lies elsewhere: download it, and name the file", pattern)
	}
	pattern = path.Clean(strings.TrimPrefix(pattern, "./"))
	if !filepath.IsLocal(filepath.FromSlash(pattern)) {
		return nil, fmt.Errorf("%q leads out of the folder", pattern)
	}
	re, err := globPattern(pattern)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", pattern, err)
	}
	var out []string
	err = walk(dir, "", 0, func(rel string) error {
		if re.MatchString(rel) {
			out = append(out, filepath.Join(dir, filepath.FromSlash(rel)))
		}
		return nil
	}, nil)
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%q matches no file", pattern)
	}
	return out, err
}

// globPattern makes a regular expression of a pattern.
func globPattern(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("^")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**/"):
			b.WriteString("(?:.*/)?")
			i += 2
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(".*")
			i++
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		case c == '[':
			end := strings.IndexByte(pattern[i+1:], ']')
			if end < 0 {
				return nil, errors.New("a [ without its ]")
			}
			class := pattern[i+1 : i+1+end]
			if rest, ok := strings.CutPrefix(class, "!"); ok {
				class = "^" + rest
			}
			b.WriteString("[" + strings.ReplaceAll(class, `\`, `\\`) + "]")
			i += end + 1
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return regexp.Compile(b.String() + "$")
}

// walk calls file for the files below a folder, in order of their names, with
// their paths from it, and folder, if it isn't nil, for the folders; folder says
// whether to go into it. Hidden ones are passed over.
func walk(dir, rel string, depth int, file func(rel string) error, folder func(rel string) (bool, error)) error {
	entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(rel)))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") || strings.HasPrefix(name, "__") {
			continue
		}
		below := path.Join(rel, e.Name())
		// The hub's cache holds links to the files.
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(below)))
		if err != nil {
			return err
		}
		switch {
		case !info.IsDir():
			err = file(below)
		case depth < maxFolderDepth:
			enter := true
			if folder != nil {
				enter, err = folder(below)
			}
			if enter && err == nil {
				err = walk(dir, below, depth+1, file, folder)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fileKinds groups the extensions of data files.
var fileKinds = map[string]string{
	".jsonl": "JSON", ".ndjson": "JSON", ".json": "JSON", ".csv": "CSV", ".tsv": "CSV",
	".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow", ".txt": "text",
}

// notData are files that lie beside data and models and aren't data.
var notData = []string{"dataset_info.json", "dataset_infos.json", "config.json", "generation_config.json", "tokenizer.json",
	"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "package.json", "model.safetensors.index.json",
	"license.txt", "requirements.txt"}

// foundFile is a data file below a folder, or several that were saved together.
type foundFile struct {
	rel   string
	kind  string
	files []string
}

// searchFolder finds everything below a folder that looks like data.
func searchFolder(dir string) ([]foundFile, error) {
	var out []foundFile
	err := walk(dir, "", 0, func(rel string) error {
		name := strings.ToLower(path.Base(rel))
		kind := fileKinds[extension(name)]
		if kind == "" || slices.Contains(notData, name) || strings.HasPrefix(name, "cache-") {
			return nil
		}
		out = append(out, foundFile{rel, kind, []string{filepath.Join(dir, filepath.FromSlash(rel))}})
		return nil
	}, func(rel string) (bool, error) {
		if b, err := description(filepath.Join(dir, filepath.FromSlash(rel), "state.json")); b == nil || err != nil {
			return true, err
		}
		files, err := savedFiles(filepath.Join(dir, filepath.FromSlash(rel)), nil)
		out = append(out, foundFile{rel, "Arrow", files})
		return false, err
	})
	return out, err
}

// chooseFiles picks the files of a split, and refuses a mixture of kinds.
func chooseFiles(dir string, found []foundFile, splits []string) ([]string, error) {
	bySplit := map[string][]foundFile{}
	texts := 0
	for _, f := range found {
		if f.kind == "text" {
			texts++
		}
	}
	for _, f := range found {
		if f.kind == "text" && texts < len(found) {
			continue // notes beside the data
		}
		bySplit[splitOf(f.rel)] = append(bySplit[splitOf(f.rel)], f)
	}
	if len(bySplit) == 0 {
		return nil, fmt.Errorf("%s holds no data file: expected .jsonl, .json, .csv, .parquet, .arrow or .txt files", dir)
	}
	have := sortedKeys(bySplit)
	split, ok := pickSplit(have, splits)
	if rest := bySplit[""]; !ok && rest != nil && (len(have) == 1 || slices.Contains(splits, "train")) {
		split, ok = "", true // no split is named, or only the others are
	}
	if !ok {
		return nil, noSplit(dir, splits, have)
	}
	var out, kinds []string
	for _, f := range bySplit[split] {
		out = append(out, f.files...)
		if !slices.Contains(kinds, f.kind) {
			kinds = append(kinds, f.kind)
		}
	}
	if len(kinds) > 1 {
		return nil, fmt.Errorf("%s holds data files of several kinds (%s), which may be the same rows: name those that are meant, such as %s",
			dir, strings.Join(kinds, ", "), filepath.Join(dir, "*"+filepath.Ext(out[0])))
	}
	return out, nil
}

// splitOf is the split that a file's path speaks of, "" if of none: one of the
// names as a word of its own.
func splitOf(rel string) string {
	words := strings.FieldsFunc(strings.ToLower(rel), func(r rune) bool {
		return strings.ContainsRune("-._ /", r) || r >= '0' && r <= '9'
	})
	for i := len(words) - 1; i >= 0; i-- { // the file's own name says more than the folder's
		for split, names := range splitNames {
			if slices.Contains(names, words[i]) {
				return split
			}
		}
	}
	return ""
}
