package recipes

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ringtail/chat"
	"ringtail/data"
	"ringtail/folder"
	"ringtail/recipe"
	"ringtail/tokenizer"
	"ringtail/train"
)

// objectiveOf is what a recipe is for, by its name: reward-….yaml, ppo-….yaml; others train language.
func objectiveOf(path string) string {
	for _, o := range []string{"reward", "ppo", "pretrain"} {
		if strings.HasPrefix(filepath.Base(path), o) {
			return o
		}
	}
	return "sft"
}

// language is a recipe of pretraining or fine-tuning.
func language(t *testing.T, path string) *train.LanguageRecipe {
	t.Helper()
	return read(t, path).(*train.LanguageRecipe)
}

// read decodes and checks a recipe as the command line does.
func read(t *testing.T, path string) train.Recipe {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := train.NewRecipe(objectiveOf(path))
	if err := recipe.Decode(text, path, nil, r); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	base, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	r.Resolve(base)
	return r
}

// all lists the recipes, from this folder.
func all(t *testing.T) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".yaml" {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(list, "quickstart.yaml") {
		t.Fatalf("no quickstart.yaml among %q", list)
	}
	return list
}

func TestRecipesDecode(t *testing.T) {
	for _, path := range all(t) {
		t.Run(filepath.ToSlash(path), func(t *testing.T) { read(t, path) })
	}
}

// A mistyped key must not pass: the test above means something only then.
func TestUnknownKeyFails(t *testing.T) {
	text, err := os.ReadFile("quickstart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Replace(text, []byte("epochs:"), []byte("epoch:"), 1)
	if bytes.Equal(text, broken) {
		t.Fatal("quickstart.yaml has no epochs: to mistype")
	}
	err = recipe.Decode(broken, "quickstart.yaml", nil, &train.LanguageRecipe{})
	if err == nil || !strings.Contains(err.Error(), "epochs") {
		t.Fatalf("error %v: expected one that names epochs", err)
	}
}

// The head of each recipe says how to run it; the command there must name it.
func TestHeadsNameTheirRecipe(t *testing.T) {
	command := regexp.MustCompile(`(?m)^#\s+ringtail train (?:sft|pretrain|reward|ppo) (\S+)`)
	for _, path := range all(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var named []string
		for _, m := range command.FindAllSubmatch(text, -1) {
			named = append(named, string(m[1]))
		}
		want := "recipes/" + filepath.ToSlash(path)
		if name, ok := strings.CutPrefix(want, "recipes/demo/"); ok {
			want = "DIR/recipes/" + name // the demo puts them beside its data
		}
		if !slices.Contains(named, want) {
			t.Errorf("%s: the commands in its head run %q, not %s", path, named, want)
		}
	}
}

// Recipes for this repository's own files find them, and use every row of them.
func TestExamplesLoad(t *testing.T) {
	text := exampleText(t)
	for _, tc := range []struct {
		path string
		use  data.Use
	}{{"quickstart.yaml", data.UseSFT}, {"sft-from-pretrained.yaml", data.UseSFT}, {"pretrain-text.yaml", data.UsePretrain}} {
		t.Run(tc.path, func(t *testing.T) {
			r := language(t, tc.path)
			var sources []data.Source
			for _, s := range r.Data.Train {
				sources = append(sources, data.Source{Name: s.Name, Files: s.Files})
			}
			set, err := data.Load(context.Background(), sources, data.Options{Use: tc.use, MaxTokens: r.Data.MaxTokens,
				TooLong: data.TooLong(r.Data.TooLong), Eval: data.EvalSplit{Fraction: r.Data.HeldOut}}, text.Encoder())
			if err != nil {
				t.Fatal(err)
			}
			s := set.Stats.Total
			if s.SkippedRows() > 0 || s.Duplicates > 0 || s.Rows < 20 {
				t.Errorf("%d rows used, %d skipped (%v), %d duplicates: expected all to be used once", s.Rows, s.SkippedRows(), s.Skipped, s.Duplicates)
			}
			if s.Trained == 0 || tc.use == data.UseSFT && s.Trained >= s.Tokens {
				t.Errorf("%d of %d tokens are trained", s.Trained, s.Tokens)
			}
			train, eval := set.Sequences()
			if train == 0 || (eval > 0) != (r.Data.HeldOut > 0) {
				t.Errorf("%d sequences to train on, %d held out, with held_out %g", train, eval, r.Data.HeldOut)
			}
			if m := r.Model.New; m != nil && set.MaxLength() > m.Context {
				t.Errorf("the longest row has %d tokens, the model's context %d", set.MaxLength(), m.Context)
			}
		})
	}
}

// exampleText trains the tokenizer of the README's quick start.
func exampleText(t *testing.T) *folder.Text {
	t.Helper()
	rows, _, err := data.ReadRows(context.Background(), []data.Source{
		{Files: []string{"../examples/quickstart/chat.jsonl", "../examples/quickstart/conversations.jsonl"}},
		{Files: []string{"../examples/quickstart/text.txt"}},
	}, data.Options{})
	if err != nil {
		t.Fatal(err)
	}
	template, err := chat.Builtin("chatml")
	if err != nil {
		t.Fatal(err)
	}
	texts := func(yield func(string) bool) {
		for _, r := range rows {
			for _, s := range r.Texts() {
				if !yield(s) {
					return
				}
			}
		}
	}
	tok, err := tokenizer.Train(context.Background(), texts, tokenizer.TrainOptions{VocabSize: 1200, MinFrequency: 2,
		SpecialTokens: []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, EOS: "<|endoftext|>", PAD: "<|endoftext|>", ChatTemplate: template.Text()})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := tok.SaveFolder(dir); err != nil {
		t.Fatal(err)
	}
	text, err := folder.Open(dir, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return text
}
