package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ringtail/recipe"
	"ringtail/train"
)

// testsInSource are the names of all tests in the repository.
func testsInSource(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && path != "..":
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// The table of details is whole, and what it refers to is there: files, functions in them, tests.
func TestDetailsOfPPO(t *testing.T) {
	page, err := os.ReadFile("ppo.md")
	if err != nil {
		t.Fatal(err)
	}
	exists := testsInSource(t)
	_, table, found := strings.Cut(string(page), "## The 37 details")
	if !found || len(exists) < 100 {
		t.Fatalf("no table, or only %d tests", len(exists))
	}
	for _, name := range regexp.MustCompile(`Test[A-Z]\w+`).FindAllString(string(page), -1) {
		if !exists[name] {
			t.Errorf("ppo.md names %s, which isn't there", name)
		}
	}
	next := 1
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		var number int
		if _, err := fmt.Sscan(cells[0], &number); err != nil || !strings.HasPrefix(line, "| ") {
			continue
		}
		if number != next || len(cells) != 4 {
			t.Fatalf("detail %d with %d cells, expected detail %d with 4", number, len(cells), next)
		}
		next++
		if !strings.Contains(cells[3], "Test") {
			t.Errorf("detail %d has no test", number)
		}
		// `path.go` name, `path.go` name
		for _, m := range regexp.MustCompile("`([^`]+\\.go)`(?: (\\w+))?").FindAllStringSubmatch(cells[2], -1) {
			text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(m[1])))
			if err != nil {
				t.Errorf("detail %d: %v", number, err)
			} else if m[2] != "" && !regexp.MustCompile(`(?m)^(func|type) (\([^)]*\) )?`+m[2]+`\b`).Match(text) {
				t.Errorf("detail %d: %s has no %s", number, m[1], m[2])
			}
		}
	}
	if next != 38 {
		t.Errorf("%d details", next-1)
	}
}

// Keys and metrics that the page names are those of the program.
func TestNamesInPPO(t *testing.T) {
	page, err := os.ReadFile("ppo.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := filepath.Glob("../train/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, path := range source {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	found := 0
	for _, m := range regexp.MustCompile("`((?:ppo|eval|reward)/[a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		found++
		if !strings.Contains(code.String(), `"`+m[1]+`"`) {
			t.Errorf("ppo.md tells of the metric %s, which no step has", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`((?:ppo|train|reward|eval|checkpoint|data|model|optimizer)\\.[a-z_]+)[:`]").FindAllStringSubmatch(string(page), -1) {
		block, key, _ := strings.Cut(m[1], ".")
		if !strings.Contains(explained(t, "ppo")+explained(t, "reward"), key+":") {
			t.Errorf("ppo.md tells of the key %s.%s, which no recipe has", block, key)
		}
		found++
	}
	if found < 60 {
		t.Errorf("%d names were found", found)
	}
}

func explained(t *testing.T, objective string) string {
	t.Helper()
	var b strings.Builder
	if err := recipe.Explain(&b, train.NewRecipe(objective)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
