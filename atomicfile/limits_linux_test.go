package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// child runs one test of this binary again as another process, with an
// environment variable that tells it to play the victim.
func child(t *testing.T, test, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), "ATOMICFILE_VICTIM="+dir)
	return cmd
}

// TestDiskFull writes past a file size limit in a child process: the write
// fails half-way, as on a full disk, with real half-written bytes around.
func TestDiskFull(t *testing.T) {
	if dir := os.Getenv("ATOMICFILE_VICTIM"); dir != "" {
		signal.Ignore(unix.SIGXFSZ) // write then fails with EFBIG
		limit := unix.Rlimit{Cur: 4096, Max: 4096}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		err := WriteFile(filepath.Join(dir, "big"), 0o644, func(w io.Writer) error {
			for range 100 {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return err
				}
			}
			return nil
		})
		fmt.Printf("error: %v\n", err)
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "big")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := child(t, "TestDiskFull", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "error: write "+path+": file too large") {
		t.Errorf("want an error naming %s, got\n%s", path, out)
	}
	if read(t, path) != "old" {
		t.Error("the old file was touched")
	}
	wantNames(t, dir, "big")
}

func TestDiskFullMessage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	err := WriteFile(path, 0o644, func(io.Writer) error {
		return &os.PathError{Op: "write", Path: "/elsewhere/.tmp-1-2-3", Err: unix.ENOSPC}
	})
	if !errors.Is(err, unix.ENOSPC) || !strings.HasPrefix(err.Error(), "write "+path+": no space left on device (free some space") {
		t.Errorf("got %v", err)
	}
}

// TestKilled kills a process in the middle of a file and a folder.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("ATOMICFILE_VICTIM"); dir != "" {
		f, err := Create(filepath.Join(dir, "file"), 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.Write([]byte("half"))
		d, err := NewDir(filepath.Join(dir, "folder"))
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(d.Path(), "half"), []byte("half"), 0o644)
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	dir := t.TempDir()
	var out bytes.Buffer
	cmd := child(t, "TestKilled", dir)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the victim was not killed: %v\n%s", err, out.String())
	}
	left := names(t, dir)
	if len(left) != 2 || !IsTemp(left[0]) || !IsTemp(left[1]) {
		t.Fatalf("a killed process left %q, want two temporaries", left)
	}
	if err := Clean(dir); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir)
}
