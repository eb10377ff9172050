//go:build linux || darwin

package runs

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Another process holds the lock, is named, and its death frees the lock.
func TestLockOfAKilledProcess(t *testing.T) {
	if dir := os.Getenv("RUNS_VICTIM"); dir != "" {
		r, err := Create(dir)
		if err != nil {
			fmt.Println(err)
			return
		}
		r.Log(1, step(1))
		fmt.Println("ready")
		select {}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run")
	cmd := exec.Command(exe, "-test.run=^TestLockOfAKilledProcess$")
	cmd.Env = append(os.Environ(), "RUNS_VICTIM="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	_, err = Open(dir)
	if want := fmt.Sprintf("process %d, since ", cmd.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
	cmd.Process.Kill()
	cmd.Wait()
	r, err := Open(dir)
	if err != nil {
		t.Fatalf("the lock outlived its holder: %v", err)
	}
	r.Close()
}
