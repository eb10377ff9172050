package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// names lists a folder.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("folder holds %q, want %q", got, want)
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	for _, content := range []string{"first", "", "second, longer than the first"} {
		err := WriteFile(path, 0o644, func(w io.Writer) error {
			wantHidden(t, path, dir)
			_, err := io.WriteString(w, content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != content {
			t.Errorf("got %q, want %q", got, content)
		}
		wantNames(t, dir, "a.txt")
	}
}

// wantHidden checks that while a file is written the folder shows it only as
// a temporary.
func wantHidden(t *testing.T, path, dir string) {
	t.Helper()
	temps := 0
	for _, name := range names(t, dir) {
		if IsTemp(name) {
			temps++
		} else if name != filepath.Base(path) {
			t.Errorf("unexpected %q", name)
		}
	}
	if temps != 1 {
		t.Errorf("%d temporaries while writing, want 1", temps)
	}
}

func TestWriteFilePermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	path := filepath.Join(t.TempDir(), "secret")
	if err := WriteBytes(path, 0o600, []byte("x")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	if err := WriteBytes(path, 0o644, []byte("old")); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the model has no such tensor")
	err := WriteFile(path, 0o644, func(w io.Writer) error {
		io.WriteString(w, "half of the new cont")
		return fmt.Errorf("converting: %w", cause)
	})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v: want it to wrap the cause and name %s", err, path)
	}
	if got := read(t, path); got != "old" {
		t.Errorf("content %q, want the old one", got)
	}
	wantNames(t, dir, "a.txt")
}

func TestErrorsNameTheFinalPath(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "no", "such", "file")
	err := WriteBytes(missing, 0o644, nil)
	if err == nil || !strings.Contains(err.Error(), missing) || strings.Contains(err.Error(), tempPrefix) {
		t.Errorf("got %v, want an error naming %s and no temporary", err, missing)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v does not wrap fs.ErrNotExist", err)
	}
	folder := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(folder, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	err = WriteBytes(folder, 0o644, []byte("x"))
	if err == nil || !strings.Contains(err.Error(), folder) || strings.Contains(err.Error(), tempPrefix) {
		t.Errorf("got %v, want an error naming %s and no temporary", err, folder)
	}
	wantNames(t, dir, "folder")
	for _, bad := range []string{"", ".", "..", string(filepath.Separator)} {
		if err := WriteBytes(bad, 0o644, nil); err == nil {
			t.Errorf("WriteBytes(%q) succeeded", bad)
		}
	}
}

func TestLongNames(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("\u4e2d", 80) // 240 bytes
	if err := WriteBytes(filepath.Join(dir, name), 0o644, []byte("x")); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, name)
}

func TestFileAfterCommitAndAbort(t *testing.T) {
	dir := t.TempDir()
	for _, end := range []func(*File){func(f *File) { f.Commit() }, (*File).Abort} {
		f, err := Create(filepath.Join(dir, "x"), 0o644)
		if err != nil {
			t.Fatal(err)
		}
		end(f)
		if _, err := f.Write([]byte("late")); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Write: %v, want os.ErrClosed", err)
		}
		if _, err := f.WriteAt([]byte("late"), 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("WriteAt: %v, want os.ErrClosed", err)
		}
		if err := f.Commit(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Commit: %v, want os.ErrClosed", err)
		}
		f.Abort()
	}
	wantNames(t, dir, "x")
}

// fill writes a small tree below root and returns its files.
func fill(t *testing.T, root, mark string) map[string]string {
	t.Helper()
	tree := map[string]string{"config.json": "{}" + mark, "sub/weights": "www" + mark, "sub/deep/er": mark}
	for name, content := range tree {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tree
}

func wantTree(t *testing.T, root string, tree map[string]string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return nil
		}
		seen++
		rel, _ := filepath.Rel(root, path)
		if want, ok := tree[filepath.ToSlash(rel)]; !ok || read(t, path) != want {
			t.Errorf("%s: %q, want %q", rel, read(t, path), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(tree) {
		t.Errorf("%s holds %d files, want %d", root, seen, len(tree))
	}
}

func TestDir(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "made", "too")
	final := filepath.Join(parent, "step-10")
	d, err := NewDir(final)
	if err != nil {
		t.Fatal(err)
	}
	first := fill(t, d.Path(), "1")
	if _, err := os.Stat(final); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the final folder is there before Commit: %v", err)
	}
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	wantTree(t, final, first)
	wantNames(t, parent, "step-10")
	if err := d.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Commit: %v, want os.ErrClosed", err)
	}
	d.Abort()
	wantTree(t, final, first)

	// A taken name is refused and its content kept.
	d, err = NewDir(final)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d.Path(), "2")
	if err := d.Commit(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), final) {
		t.Errorf("Commit over a folder: %v, want fs.ErrExist naming %s", err, final)
	}
	wantTree(t, final, first)
	wantNames(t, parent, "step-10")

	// Asked to replace, it does, and removes the old content.
	d, err = NewDir(final)
	if err != nil {
		t.Fatal(err)
	}
	third := fill(t, d.Path(), "3")
	if err := d.CommitReplace(); err != nil {
		t.Fatal(err)
	}
	wantTree(t, final, third)
	wantNames(t, parent, "step-10")

	// Abort leaves no trace.
	d, err = NewDir(final)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d.Path(), "4")
	d.Abort()
	wantTree(t, final, third)
	wantNames(t, parent, "step-10")
}

func TestDirOverEmptyFolder(t *testing.T) {
	final := filepath.Join(t.TempDir(), "out")
	if err := os.Mkdir(final, 0o755); err != nil {
		t.Fatal(err)
	}
	d, err := NewDir(final)
	if err != nil {
		t.Fatal(err)
	}
	tree := fill(t, d.Path(), "")
	if err := d.Commit(); err != nil {
		t.Fatal(err)
	}
	wantTree(t, final, tree)
}

func TestReplaceInTwoSteps(t *testing.T) {
	parent := t.TempDir()
	final := filepath.Join(parent, "model")
	fill(t, final, "old")
	d, err := NewDir(final)
	if err != nil {
		t.Fatal(err)
	}
	tree := fill(t, d.Path(), "new")
	if err := replaceInTwoSteps(d.Path(), final); err != nil {
		t.Fatal(err)
	}
	d.Abort()
	wantTree(t, final, tree)
	wantNames(t, parent, "model")
}

// deadPid is a pid that no process has: the largest Linux gives is 2^22.
const deadPid = 1 << 30

func TestClean(t *testing.T) {
	parent := t.TempDir()
	temp := func(prefix string, pid int, base string) string {
		return filepath.Join(parent, fmt.Sprintf("%s%d-0123456789ab-%s", prefix, pid, base))
	}
	keep := map[string]string{
		filepath.Join(parent, ".tmp-notes"):                "a user's file",
		filepath.Join(parent, ".tmp-12-zzzzzzzzzzzz-x"):    "not our random part",
		filepath.Join(parent, ".tmp-12-0123456789ab-"):     "no base",
		filepath.Join(parent, "x.tmp-12-0123456789ab-x"):   "prefix not first",
		filepath.Join(parent, ".tmp-+-0123456789ab-x.txt"): "no pid",
		temp(tempPrefix, os.Getppid(), "of a living one"):  "the go tool, which waits for us",
	}
	for path, content := range keep {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fill(t, temp(tempPrefix, deadPid, "step-20"), "half")
	os.WriteFile(temp(tempPrefix, deadPid, "a.txt"), []byte("half"), 0o644)
	// Same pid, but not ours: the program was restarted in its container.
	os.WriteFile(temp(tempPrefix, os.Getpid(), "b-with-dashes.txt"), []byte("half"), 0o644)
	// Killed between the two renames, and after them.
	old := fill(t, temp(oldPrefix, deadPid, "model"), "old")
	fill(t, temp(oldPrefix, deadPid, "critic"), "old")
	critic := fill(t, filepath.Join(parent, "critic"), "new")
	// What this process is writing stays.
	f, err := Create(filepath.Join(parent, "mine"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := Clean(parent); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	for path, content := range keep {
		if read(t, path) != content {
			t.Errorf("%s changed", path)
		}
	}
	wantTree(t, filepath.Join(parent, "model"), old)
	wantTree(t, filepath.Join(parent, "critic"), critic)
	if got, want := len(names(t, parent)), len(keep)+3; got != want {
		t.Errorf("%d names left, want %d: %q", got, want, names(t, parent))
	}
	if err := Clean(filepath.Join(parent, "absent")); err != nil {
		t.Errorf("Clean of an absent folder: %v", err)
	}
}
