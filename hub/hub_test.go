package hub

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/hub/hubtest"
)

func TestParseRepo(t *testing.T) {
	for name, want := range map[string]Repo{
		"acme/tiny":            {ID: "acme/tiny", Revision: "main"},
		"gpt2":                 {ID: "gpt2", Revision: "main"},
		"a/b@v1.0":             {ID: "a/b", Revision: "v1.0"},
		"a/b@refs/pr/1":        {ID: "a/b", Revision: "refs/pr/1"},
		"Foo-BAR_foo.bar123/x": {ID: "Foo-BAR_foo.bar123/x", Revision: "main"},
	} {
		got, err := ParseRepo(name, false)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"", "/", "a/", "/b", "a/b/c", "a--b/c", "a..b", "../x", "a/..", "a/.x", "-a/b", "a/b-", "a b", "a/b.git", "a\\b", "a:b", "a/b@", "a/b@../x",
		"a/b@/x", "a/b@x//y", "a/b@x/../y", "a/b@x/", "a/b@-x", "a/b@x.lock", "ä/b", strings.Repeat("a", 97)} {
		if r, err := ParseRepo(name, false); err == nil {
			t.Errorf("%q: %+v", name, r)
		} else if !strings.Contains(err.Error(), "expected ORG/NAME") && !strings.Contains(err.Error(), "revision") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// What a pattern matches, as Python's fnmatch says.
func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.json", "a.json", true}, {"*.json", "a/b.json", true}, {"*.json", "a.jsonl", false}, {"a/", "a/b/c", true}, {"a/", "b", false},
		{"?.txt", "a.txt", true}, {"?.txt", "ab.txt", false}, {"?.txt", "ä.txt", true}, {"[ab].txt", "b.txt", true}, {"[!ab].txt", "b.txt", false}, {"[!ab].txt", "c.txt", true},
		{"[a-c]x", "bx", true}, {"[", "[", true}, {"[]]", "]", true}, {"[a", "[a", true}, {"a.b", "axb", false}, {"a+", "aa", false}, {"*", "", true}, {"[^a]", "^", true}, {"ä*", "äb", true},
		{"*Q4_0*", "x-Q4_0.gguf", true}, {"A", "a", false}, {"[z-a]", "[z-a]", true}, {"a\nb", "a\nb", true}, {"(a|b)", "(a|b)", true}, {"[\\]", "\\", true},
	} {
		if got := glob(c.pattern).MatchString(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
}

// Which files a pull takes by itself.
func TestChoose(t *testing.T) {
	for name, c := range map[string]struct {
		files   string
		opt     PullOptions
		want    string
		err     string
		dataset bool
	}{
		"llama": {files: "config.json generation_config.json LICENSE README.md model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json original/consolidated.00.pth " +
			"tokenizer.json tokenizer_config.json USE_POLICY.md .gitattributes special_tokens_map.json",
			want: "config.json generation_config.json LICENSE README.md model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json tokenizer.json tokenizer_config.json USE_POLICY.md special_tokens_map.json"},
		"gpt2": {files: "64.tflite config.json flax_model.msgpack merges.txt model.safetensors onnx/decoder_model.onnx pytorch_model.bin rust_model.ot tf_model.h5 tokenizer.json vocab.json",
			want: "config.json merges.txt model.safetensors tokenizer.json vocab.json"},
		"bin":            {files: "config.json pytorch_model.bin pytorch_model.fp16.bin training_args.bin optimizer.pt trainer_state.json spiece.model", want: "config.json pytorch_model.bin spiece.model"},
		"bin shards":     {files: "config.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin pytorch_model.bin.index.json tf_model.h5", want: "config.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin pytorch_model.bin.index.json"},
		"colossal":       {files: "config.json pytorch_model-00001.bin pytorch_model.bin.index.json", want: "config.json pytorch_model-00001.bin pytorch_model.bin.index.json"},
		"mistral":        {files: "config.json consolidated.safetensors model-00001-of-00001.safetensors model.safetensors.index.json tokenizer.model.v3 params.json", want: "config.json model-00001-of-00001.safetensors model.safetensors.index.json params.json"},
		"both":           {files: "config.json model.safetensors model.gguf pytorch_model.bin pytorch_model.bin.index.json", want: "config.json model.safetensors"},
		"another name":   {files: "config.json weights.safetensors x.bin", want: "config.json weights.safetensors"},
		"one gguf":       {files: "README.md tiny.gguf", want: "README.md tiny.gguf"},
		"gguf shards":    {files: "x-00001-of-00002.gguf x-00002-of-00002.gguf", want: "x-00001-of-00002.gguf x-00002-of-00002.gguf"},
		"many gguf":      {files: "a-Q4_0.gguf a-Q8_0.gguf config.json", err: "--include"},
		"one of many":    {files: "a-Q4_0.gguf a-Q8_0.gguf README.md", opt: PullOptions{Include: []string{"*Q4_0*"}}, want: "a-Q4_0.gguf"},
		"adapter":        {files: "adapter_config.json adapter_model.safetensors adapter_model.bin README.md", want: "adapter_config.json adapter_model.safetensors README.md"},
		"no model":       {files: "a.txt sub/b.bin", want: "a.txt sub/b.bin"},
		"data set":       {files: "data/train.parquet README.md x.h5", dataset: true, want: "data/train.parquet README.md x.h5"},
		"include":        {files: "config.json model.safetensors onnx/a.onnx", opt: PullOptions{Include: []string{"onnx/*"}}, want: "onnx/a.onnx"},
		"exclude":        {files: "config.json model.safetensors README.md", opt: PullOptions{Exclude: []string{"*.md"}}, want: "config.json model.safetensors"},
		"both patterns":  {files: "a.json b.json", opt: PullOptions{Include: []string{"*.json"}, Exclude: []string{"b*"}}, want: "a.json"},
		"none match":     {files: "a.json b.json", opt: PullOptions{Include: []string{"*.txt"}}, err: "none of its 2 files"},
		"nothing there":  {files: "", err: "empty"},
		"tokenizer only": {files: "config.json tokenizer.json", want: "config.json tokenizer.json"},
	} {
		t.Run(name, func(t *testing.T) {
			var all []RemoteFile
			for _, f := range strings.Fields(c.files) {
				all = append(all, RemoteFile{Name: f})
			}
			filter, err := newFilter(c.opt)
			if err != nil {
				t.Fatal(err)
			}
			files, left, err := filter.choose(Repo{ID: "a/b", Dataset: c.dataset, Revision: "main"}, all)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				got = append(got, f.Name)
			}
			if !slices.Equal(got, strings.Fields(c.want)) {
				t.Errorf("%q\nwant %q", got, strings.Fields(c.want))
			}
			if len(c.opt.Include)+len(c.opt.Exclude) == 0 && len(files)+len(left) != len(all) {
				t.Errorf("%d files, %d left out, of %d", len(files), len(left), len(all))
			}
		})
	}
}

// clearEnv forgets the variables of whoever runs the test.
func clearEnv(t *testing.T) {
	for _, name := range []string{"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME",
		"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"} {
		t.Setenv(name, "")
	}
}

func TestFromEnv(t *testing.T) {
	clearEnv(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home)
	c, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if c.Endpoint != DefaultEndpoint || c.Token != "" || c.Offline || c.Cache != filepath.Join(home, ".cache", "huggingface", "hub") {
		t.Errorf("%s, %q, %v, %s", c.Endpoint, c.Token, c.Offline, c.Cache)
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "xdg"))
	if dir, _ := CacheDir(); dir != filepath.Join(home, "xdg", "huggingface", "hub") {
		t.Errorf("cache %s", dir)
	}
	hf := filepath.Join(home, "hf")
	t.Setenv("HF_HOME", "~/hf")
	os.MkdirAll(hf, 0o777)
	os.WriteFile(filepath.Join(hf, "token"), []byte(" hf_file\n"), 0o600)
	t.Setenv("HF_ENDPOINT", "https://mirror.example/")
	t.Setenv("HF_HUB_OFFLINE", "yes")
	c, err = FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if c.Endpoint != "https://mirror.example" || c.Token != "hf_file" || !c.Offline || c.Cache != filepath.Join(hf, "hub") {
		t.Errorf("%s, %q, %v, %s", c.Endpoint, c.Token, c.Offline, c.Cache)
	}
	t.Setenv("HF_TOKEN", "hf_env")
	t.Setenv("HF_HUB_CACHE", filepath.Join(home, "elsewhere"))
	if c, err = FromEnv(); err != nil || c.Token != "hf_env" || c.Cache != filepath.Join(home, "elsewhere") {
		t.Errorf("%+v, %v", c, err)
	}
	t.Setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
	if c, err = FromEnv(); err != nil || c.Token != "" {
		t.Errorf("%q, %v", c.Token, err)
	}
	t.Setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "")
	t.Setenv("HF_TOKEN", "hf_a\nX-Evil: 1")
	if _, err = FromEnv(); err == nil || strings.Contains(err.Error(), "hf_a") {
		t.Errorf("a token of two lines: %v", err)
	}
	t.Setenv("HF_TOKEN", "")
	for _, bad := range []string{"http://mirror.example", "mirror.example", "ftp://x", "https://user:pw@x", "https://x?y", "http://10.0.0.1", ":"} {
		t.Setenv("HF_ENDPOINT", bad)
		if _, err = FromEnv(); err == nil || !strings.Contains(err.Error(), "HF_ENDPOINT") || strings.Contains(err.Error(), "pw@") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, good := range []string{"http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:80", "https://x/y"} {
		t.Setenv("HF_ENDPOINT", good)
		if _, err = FromEnv(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestResolve(t *testing.T) {
	clearEnv(t)
	w := newWorld(t)
	dir := w.pull(t).Dir
	t.Setenv("HF_HUB_CACHE", w.client.Cache)
	t.Chdir(t.TempDir())
	for name, want := range map[string]string{
		"acme/tiny":                       dir,
		"acme/tiny@main":                  dir,
		"acme/tiny@" + w.repo.Commit:      dir,
		"./acme/tiny":                     "./acme/tiny",
		"/acme/tiny":                      "/acme/tiny",
		"a/b/c":                           "a/b/c",
		"x.gguf":                          "x.gguf",
		"models/x.gguf":                   "models/x.gguf",
		"acme/tiny/":                      "acme/tiny/",
		"none":                            "none",
		"":                                "",
		"../x":                            "../x",
		"-x/y":                            "-x/y",
		"acme/a--b":                       "acme/a--b",
		filepath.Join("a", "b", "c", "d"): filepath.Join("a", "b", "c", "d"),
	} {
		got, err := Resolve(name)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string][]string{
		"acme/none":    {"acme/none: no such file or folder", "ringtail pull acme/none"},
		"acme/tiny@v2": {"at revision v2", "ringtail pull acme/tiny@v2", w.repo.Commit},
	} {
		_, err := Resolve(name)
		if !errors.Is(err, ErrNotFound) {
			t.Fatalf("%s: %v", name, err)
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
	}
	// What is on the disk wins.
	os.MkdirAll("acme/tiny", 0o777)
	if got, err := Resolve("acme/tiny"); err != nil || got != "acme/tiny" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestResolveData: a data set in the cache is found by its name; anything else is a path.
func TestResolveData(t *testing.T) {
	clearEnv(t)
	cache, commit := t.TempDir(), strings.Repeat("ab", 20)
	t.Setenv("HF_HUB_CACHE", cache)
	t.Chdir(t.TempDir())
	set := filepath.Join(cache, "datasets--acme--chats")
	dir := filepath.Join(set, "snapshots", commit)
	if err := errors.Join(os.MkdirAll(dir, 0o777), os.MkdirAll(filepath.Join(set, "refs"), 0o777),
		os.WriteFile(filepath.Join(set, "refs", "main"), []byte(commit), 0o666)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"acme/chats": dir, "acme/chats@main": dir, "acme/chats@v2": "acme/chats@v2", "acme/none": "acme/none",
		"chats": "chats", "data/chats.jsonl": "data/chats.jsonl", "./acme/chats": "./acme/chats", "": ""} {
		if got := ResolveData(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	os.MkdirAll("acme/chats", 0o777)
	if got := ResolveData("acme/chats"); got != "acme/chats" {
		t.Errorf("what is on the disk doesn't win: %q", got)
	}
}

func TestScanAndRemove(t *testing.T) {
	w := newWorld(t)
	cache := w.client.Cache
	if all, err := Scan(filepath.Join(cache, "none")); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
	w.pull(t)
	old := w.repo.Commit
	size := w.status.Bytes
	// A new commit: one file differs.
	files := map[string][]byte{}
	for k, v := range w.repo.Files {
		files[k] = v
	}
	files["config.json"] = []byte(`{"model_type": "llama", "x": 1}`)
	w.repo = w.Add("models/acme/tiny", files)
	w.pull(t)
	if _, err := w.client.Pull(t.Context(), Repo{ID: "acme/tiny", Revision: w.repo.Commit}, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(filepath.Join(cache, "spaces--x--y", "snapshots"), 0o777)
	os.WriteFile(filepath.Join(cache, "version.txt"), nil, 0o666)

	all, err := Scan(cache)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	c := all[0]
	if c.ID != "acme/tiny" || c.Dataset || len(c.Snapshots) != 2 || c.Size != size+int64(len(files["config.json"])) || c.Incomplete != 0 {
		t.Errorf("%+v", c)
	}
	for _, s := range c.Snapshots {
		refs := 0
		if s.Commit == w.repo.Commit {
			refs = 1
		}
		if s.Files != 4 || len(s.Refs) != refs || s.Time.IsZero() {
			t.Errorf("%+v", s)
		}
	}
	// While one downloads it, it stays.
	lock := filepath.Join(cache, ".locks", "models--acme--tiny", hubtest.Hash(files["config.json"])+".lock")
	unlock, err := w.client.lock(t.Context(), lock, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Remove(cache, Repo{ID: "acme/tiny"}); err == nil || !strings.Contains(err.Error(), "downloading") {
		t.Errorf("removed: %v", err)
	}
	unlock()
	// The old snapshot: only its own config goes.
	freed, err := Remove(cache, Repo{ID: "acme/tiny", Revision: old})
	if err != nil || freed != size-c.Size+int64(len(files["config.json"]))+int64(len(`{"model_type": "llama"}`)) {
		t.Errorf("freed %d, %v", freed, err)
	}
	dir, err := w.client.Find(tiny)
	if err != nil {
		t.Fatal(err)
	}
	w.whole(t, dir)
	for _, r := range []Repo{{ID: "acme/tiny", Revision: old}, {ID: "acme/tiny", Revision: "v9"}, {ID: "acme/none"}} {
		if _, err := Remove(cache, r); !errors.Is(err, ErrNotFound) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	// The last one: all of it.
	if _, err := Remove(cache, tiny); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(cache, "models--acme--tiny")); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
}

// Notes of a partial file that no run of ours wrote are worth nothing, and harm nothing.
func FuzzPartial(f *testing.F) {
	f.Add([]byte{}, int64(100), int64(40))
	f.Add([]byte(partialMagic), int64(1), int64(1))
	for _, size := range []int64{1, 100, 1000} {
		file, err := os.CreateTemp(f.TempDir(), "")
		if err != nil {
			f.Fatal(err)
		}
		p := newPartial(file, size, 40)
		p.adopt(60)
		p.flush()
		b, err := os.ReadFile(file.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, size, int64(40))
	}
	f.Fuzz(func(t *testing.T, content []byte, size, part int64) {
		if size < 0 || size > 1<<40 || part < 1<<10 || part > 1<<40 {
			size, part = 100, 40
		}
		file, err := os.Create(filepath.Join(t.TempDir(), "x"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		file.Write(content)
		p := newPartial(file, size, part)
		sum := int64(0)
		for i := range p.done {
			from, to := p.next(i)
			first, _ := p.bounds(i)
			if from < first || from > to || to > size {
				t.Fatalf("part %d: %d to %d of %d", i, from, to, size)
			}
			sum += to - first
		}
		if sum != size {
			t.Fatalf("parts of %d bytes in all, of %d", sum, size)
		}
	})
}
