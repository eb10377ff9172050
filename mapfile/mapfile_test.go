package mapfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for _, content := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("0123456789abcdef"), 1000)} {
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Bytes(), content) {
			t.Errorf("%d bytes mapped, %d in the file, or others", len(m.Bytes()), len(content))
		}
		for range 2 {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		if m.Bytes() != nil {
			t.Error("bytes after Close")
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	_, err := Open(filepath.Join(dir, "none"))
	if !os.IsNotExist(err) && (err == nil || !strings.Contains(err.Error(), "no such file")) || strings.Contains(err.Error(), dir) {
		t.Errorf("nothing there: %v", err)
	}
}
