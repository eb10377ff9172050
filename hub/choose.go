package hub

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// filter is PullOptions with its patterns read.
type filter struct {
	include, exclude []*regexp.Regexp
}

func newFilter(opt PullOptions) (*filter, error) {
	f := &filter{}
	for _, p := range opt.Include {
		f.include = append(f.include, glob(p))
	}
	for _, p := range opt.Exclude {
		f.exclude = append(f.exclude, glob(p))
	}
	return f, nil
}

// glob reads a pattern of Python's fnmatch: *, ?, [abc], [!abc]; a folder's name with a slash
// at its end means all in it.
func glob(pattern string) *regexp.Regexp {
	if strings.HasSuffix(pattern, "/") {
		pattern += "*"
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			end := strings.IndexByte(pattern[i+1:], ']')
			if end == 0 { // ] as a member
				if more := strings.IndexByte(pattern[i+2:], ']'); more >= 0 {
					end = more + 1
				}
			}
			class := ""
			if end > 0 {
				class = pattern[i+1 : i+1+end]
				negate := ""
				if class[0] == '!' {
					negate, class = "^", class[1:]
				}
				class = "[" + negate + strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, "^", `\^`, "&", `\&`, "~", `\~`).Replace(class) + "]"
			}
			if re, err := regexp.Compile(class); class == "" || err != nil || re.NumSubexp() > 0 {
				b.WriteString(`\[`) // no class after all
				continue
			}
			b.WriteString(class)
			i += end + 1
		default:
			end := i + 1
			for end < len(pattern) && pattern[end] >= 0x80 { // the rest of a character
				end++
			}
			b.WriteString(regexp.QuoteMeta(pattern[i:end]))
			i = end - 1
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

func match(patterns []*regexp.Regexp, name string) bool {
	return slices.ContainsFunc(patterns, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}

// choose divides a repository's files into those to bring and those that nobody asked for.
func (f *filter) choose(repo Repo, all []RemoteFile) (files, leftOut []RemoteFile, err error) {
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%s: the repository is empty", repo)
	}
	wanted := func(name string) bool { return match(f.include, name) }
	if len(f.include) == 0 {
		wanted = func(string) bool { return true }
		if !repo.Dataset {
			if wanted, err = needed(repo, all); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, file := range all {
		switch {
		case match(f.exclude, file.Name):
		case wanted(file.Name):
			files = append(files, file)
		case len(f.include) == 0:
			leftOut = append(leftOut, file)
		}
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("%s: none of its %d files is asked for; it has %s", repo, len(all), some(all))
	}
	return files, leftOut, nil
}

// Files beside the weights that a model may need, by name or ending.
var companions = []string{".json", ".jinja", ".model", ".tiktoken", ".txt", ".md", ".safetensors.index.json"}

var notCompanions = []string{".index.json", "trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"}

// needed tells which files of a model Ringtail reads: configuration, tokenizer, template, licence
// and one set of weights. They lie at the top, unless no model does.
func needed(repo Repo, all []RemoteFile) (func(name string) bool, error) {
	has := func(name string) bool {
		return slices.ContainsFunc(all, func(f RemoteFile) bool { return f.Name == name })
	}
	top := func(name string) bool { return !strings.Contains(name, "/") }
	ggufs := 0
	for _, f := range all {
		if top(f.Name) && strings.HasSuffix(f.Name, ".gguf") {
			ggufs++
		}
	}
	ending := func(suffix string) func(string) bool {
		return func(name string) bool { return top(name) && strings.HasSuffix(name, suffix) }
	}
	weights, ok := weightsOf(all, top)
	switch {
	case ok:
	case slices.ContainsFunc(all, func(f RemoteFile) bool { return ending(".safetensors")(f.Name) }):
		weights = ending(".safetensors")
	case ggufs == 1 || ggufs > 1 && shardsOfOne(all):
		weights = ending(".gguf")
	case ggufs > 1:
		return nil, fmt.Errorf("%s holds %d GGUF files: name the one you want by --include, as in --include '*Q4_0*'; it has %s", repo, ggufs, someOf(all, ".gguf"))
	case has("config.json"):
		weights = func(string) bool { return false } // a tokenizer, a configuration
	default:
		return func(string) bool { return true }, nil // something else: everything
	}
	return func(name string) bool {
		if !top(name) {
			return false
		}
		return weights(name) || isCompanion(name)
	}, nil
}

func isCompanion(name string) bool {
	base := path.Base(name)
	for _, s := range notCompanions {
		if strings.HasSuffix(base, s) {
			return false
		}
	}
	if slices.Contains([]string{"license", "notice", "use_policy", "licence"}, strings.ToLower(base)) {
		return true
	}
	return slices.ContainsFunc(companions, func(s string) bool { return strings.HasSuffix(strings.ToLower(base), s) })
}

// weightSets are the forms in which a folder holds weights, the better ones first: an
// index with its shards, a file.
var weightSets = []struct {
	index  string
	shards *regexp.Regexp
	single string
}{
	{"model.safetensors.index.json", regexp.MustCompile(`^model-\d+(-of-\d+)?\.safetensors$`), "model.safetensors"},
	{"pytorch_model.bin.index.json", regexp.MustCompile(`^pytorch_model-\d+(-of-\d+)?\.bin$`), "pytorch_model.bin"},
	{"adapter_config.json", regexp.MustCompile(`^adapter_model\.safetensors$`), "adapter_model.safetensors"},
}

// weightsOf finds the best set of weights among files at the top.
func weightsOf(all []RemoteFile, top func(string) bool) (func(name string) bool, bool) {
	names := map[string]bool{}
	for _, f := range all {
		names[f.Name] = top(f.Name)
	}
	for _, set := range weightSets {
		if names[set.single] {
			return func(name string) bool { return name == set.single }, true
		}
		if names[set.index] && slices.ContainsFunc(all, func(f RemoteFile) bool { return set.shards.MatchString(f.Name) }) {
			return func(name string) bool { return name == set.index || set.shards.MatchString(name) }, true
		}
	}
	return nil, false
}

var ggufShard = regexp.MustCompile(`^(.*)-\d{5}-of-\d{5}\.gguf$`)

// shardsOfOne tells whether all GGUF files are pieces of one model.
func shardsOfOne(all []RemoteFile) bool {
	stem := ""
	for _, f := range all {
		if strings.Contains(f.Name, "/") || !strings.HasSuffix(f.Name, ".gguf") {
			continue
		}
		m := ggufShard.FindStringSubmatch(f.Name)
		if m == nil || stem != "" && stem != m[1] {
			return false
		}
		stem = m[1]
	}
	return true
}

// some names a few files for a message.
func some(files []RemoteFile) string { return someOf(files, "") }

func someOf(files []RemoteFile, suffix string) string {
	var names []string
	more := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name, suffix) {
			continue
		}
		if len(names) < 6 {
			names = append(names, f.Name)
		} else {
			more++
		}
	}
	s := strings.Join(names, ", ")
	if more > 0 {
		s += fmt.Sprintf(" and %d others", more)
	}
	return s
}
