// Package golden finds, for tests, what reference implementations computed: the
// folder that RINGTAIL_GOLDEN names, by default ../shared/golden. Relative paths
// are seen from the repository's root, whichever package's test asks.
package golden

import (
	"os"
	"path/filepath"
	"testing"
)

// Find lists the files that match a pattern in the golden folder, and skips the
// test, saying so, where there are none.
func Find(t testing.TB, pattern string) []string {
	t.Helper()
	dir := Dir(t)
	files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pattern)))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no golden data %s in %s (set RINGTAIL_GOLDEN)", pattern, dir)
	}
	return files
}

// Dir is the golden folder, which may be absent.
func Dir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("RINGTAIL_GOLDEN")
	if filepath.IsAbs(dir) {
		return dir
	}
	if dir == "" {
		dir = filepath.Join("..", "shared", "golden")
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return filepath.Join(root, dir)
		}
		up := filepath.Dir(root)
		if up == root {
			t.Fatal("no go.mod above the test's folder")
		}
		root = up
	}
}
