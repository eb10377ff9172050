// Package docs holds no code: its tests check what the guides beside it say.
package docs

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ringtail/data"
	"ringtail/recipe"
	"ringtail/train"
)

// section is a part of a page under a heading of second level.
type section struct{ name, text string }

func sections(t *testing.T, page string) []section {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []section
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		out = append(out, section{strings.TrimSpace(name), body})
	}
	return out
}

// blocks are the fenced blocks of a language.
func blocks(text, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// Every example row is detected as the format under whose heading it stands, and read.
func TestDataFormats(t *testing.T) {
	seen := map[string]bool{}
	type example struct {
		rows string
		use  data.Use
	}
	for _, s := range sections(t, "data-formats.md") {
		var examples []example
		for _, rows := range blocks(s.text, "json") {
			examples = append(examples, example{rows, use(data.Format(s.name))})
		}
		for _, rows := range blocks(s.text, "json prompts") { // rows that have no answer
			examples = append(examples, example{rows, data.UsePrompts})
		}
		for _, e := range examples {
			rows := e.rows
			seen[s.name] = true
			t.Run(s.name, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "rows.jsonl")
				if err := os.WriteFile(file, []byte(rows), 0o666); err != nil {
					t.Fatal(err)
				}
				got, stats, err := data.ReadRows(context.Background(), []data.Source{{Files: []string{file}}},
					data.Options{Use: e.use, BadRows: data.BadRowsStrict})
				if err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(rows, "\n"); stats.Total.Records != n || stats.Total.SkippedRows() > 0 || len(got) < n {
					t.Errorf("%d records, %d skipped, %d rows of %d lines", stats.Total.Records, stats.Total.SkippedRows(), len(got), n)
				}
				for _, r := range got {
					if string(r.Format) != s.name {
						t.Errorf("%s: detected as %s", r.Where, r.Format)
					}
				}
			})
		}
	}
	for _, f := range data.Formats() {
		if !seen[string(f)] {
			t.Errorf("data-formats.md has no example of %s", f)
		}
	}
}

// use is what a format's examples are for.
func use(f data.Format) data.Use {
	switch f {
	case data.FormatPrompts:
		return data.UsePrompts
	case data.FormatHH, data.FormatPreference, data.FormatRanking, data.FormatVotes:
		return data.UsePairs
	case data.FormatKTO:
		return data.UseKTO
	case data.FormatText:
		return data.UsePretrain
	}
	return data.UseSFT
}

// Recipes and parts of recipes in the guides have known keys and fit values.
func TestRecipesInGuides(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, filepath.Join("..", "README.md"))
	objective := regexp.MustCompile(`^# train (reward|ppo)\b`) // the first line says so
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks(string(text), "yaml") {
			found++
			if !strings.Contains(block, "\ndata:") && !strings.HasPrefix(block, "data:") {
				block += "data: {train: [x.jsonl]}\n" // the one required key
			}
			rec := train.NewRecipe("sft")
			if m := objective.FindStringSubmatch(block); m != nil {
				rec = train.NewRecipe(m[1])
			}
			if err := recipe.Decode([]byte(block), page, nil, rec); err != nil {
				t.Errorf("%v in:\n%s", err, block)
			}
		}
	}
	if found == 0 {
		t.Error("no recipe in any guide")
	}
}

// Links between the project's pages lead somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#: ]+)(?:#[^)]*)?\)`)
	for _, pattern := range []string{"*.md", "../*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllStringSubmatch(string(text), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(page), filepath.FromSlash(m[1]))); err != nil {
					t.Errorf("%s links to %s, which isn't there", page, m[1])
				}
			}
		}
	}
}
