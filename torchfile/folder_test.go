package torchfile

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// folderOf makes a folder of files of testdata, under other names, and of an index.
func folderOf(t *testing.T, index string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, from := range files {
		b, err := os.ReadFile(filepath.Join("testdata", from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if index != "" {
		if err := os.WriteFile(filepath.Join(dir, IndexFile), []byte(index), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenFolder(t *testing.T) {
	// "w" and "b" stand in both shards, as tied weights may; the index says which counts.
	dir := folderOf(t, `{"metadata": {}, "weight_map": {"w": "a.bin", "b": "b.bin", "weight": "c.pt"}}`,
		map[string]string{"a.bin": "zip-protocol3.bin", "b.bin": "legacy-protocol4.bin", "c.pt": "linear.pt"})
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"w", "b", "weight"}; !slices.Equal(f.Names(), want) || f.Dir() != dir {
		t.Errorf("%q in %s, want %q", f.Names(), f.Dir(), want)
	}
	for name, want := range map[string][]float32{"w": {0, 1, 2, 3, 4, 5}, "b": {1, 1}} {
		x, ok := f.Tensor(name)
		got := make([]float32, len(want))
		if !ok || x.Read(got, 0) != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
	if _, ok := f.Tensor("bias"); ok {
		t.Error("a tensor that the index doesn't list")
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	// One file goes before an index.
	dir = folderOf(t, "{", map[string]string{SingleFile: "linear.pt"})
	f, err = OpenFolder(dir)
	if err != nil || !Holds(dir) {
		t.Fatal(err)
	}
	f.Close()
}

func TestOpenFolderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		index string
		want  string
	}{
		"no index":    {"", "holds neither pytorch_model.bin nor pytorch_model.bin.index.json"},
		"not JSON":    {"{", "index.json"},
		"no map":      {"{}", "weight_map is missing"},
		"empty map":   {`{"weight_map": {}}`, "weight_map is missing"},
		"above":       {`{"weight_map": {"w": "../a.bin"}}`, "refused"},
		"elsewhere":   {`{"weight_map": {"w": "/a.bin"}}`, "refused"},
		"subfolder":   {`{"weight_map": {"w": "x/a.bin"}}`, "refused"},
		"backslash":   {`{"weight_map": {"w": "..\\a.bin"}}`, "refused"},
		"drive":       {`{"weight_map": {"w": "C:a.bin"}}`, "refused"},
		"other kind":  {`{"weight_map": {"w": "a.safetensors"}}`, "refused"},
		"no name":     {`{"weight_map": {"w": ""}}`, "refused"},
		"no shard":    {`{"weight_map": {"w": "a.bin", "x": "z.bin"}}`, `shard z.bin is missing, which pytorch_model.bin.index.json lists for "x"`},
		"no tensor":   {`{"weight_map": {"w": "a.bin", "x": "a.bin"}}`, `tensor "x" is not in a.bin`},
		"not a shard": {`{"weight_map": {"w": "broken.bin"}}`, "broken.bin: not a PyTorch file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folderOf(t, c.index, map[string]string{"a.bin": "zip-protocol3.bin", "broken.bin": "expected.json"})
			f, err := OpenFolder(dir)
			if err == nil {
				f.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v doesn't say %q", err, c.want)
			}
		})
	}
	if _, err := OpenFolder(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no folder: %v", err)
	}
}

// Files of a big-endian machine are refused: their bytes would be read backwards.
func TestByteOrder(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "linear.pt"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("little"))
	if at < 0 {
		t.Fatal("no byteorder in the file")
	}
	copy(b[at:], "biggie")
	if _, err := read(b); err == nil || !strings.Contains(err.Error(), `byteorder is "biggie"`) {
		t.Errorf("error %v", err)
	}
	b, err = os.ReadFile(filepath.Join("testdata", "legacy-protocol4.bin"))
	if err != nil {
		t.Fatal(err)
	}
	at = bytes.Index(b, []byte("little_endian"))
	if at < 0 || b[at+len("little_endian")+1] != 0x88 { // MEMOIZE, NEWTRUE
		t.Fatalf("no little_endian: %x", b[at:at+20])
	}
	b[at+len("little_endian")+1] = 0x89
	if _, err := read(b); err == nil || !strings.Contains(err.Error(), "little_endian") {
		t.Errorf("error %v", err)
	}
}
