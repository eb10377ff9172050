//go:build unix

package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process starts a command as a process of its own.
func process(t *testing.T, dir string, args ...string) (c *exec.Cmd, stdin io.WriteCloser, stdout *bufio.Reader, stderr *bytes.Buffer) {
	t.Helper()
	c = exec.Command(os.Args[0], args...)
	c.Dir = dir
	c.Env = append(os.Environ(), cliVar+"=1")
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr = &bytes.Buffer{}
	c.Stderr = stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return c, stdin, bufio.NewReader(out), stderr
}

// wait waits for a process and gives its exit code.
func wait(t *testing.T, c *exec.Cmd) int {
	t.Helper()
	late := time.AfterFunc(30*time.Second, func() { c.Process.Kill() })
	defer late.Stop()
	c.Wait()
	return c.ProcessState.ExitCode()
}

// timeless is a file of a run without what hangs on the clock.
func timeless(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"(time_s|tok_per_s)":[^,}]*,?`).ReplaceAllString(string(b), "")
}

// TestInterruptedTraining: Ctrl-C and SIGTERM save, exit with code 1 and name the
// command that goes on; that command ends at the bytes of a run that went through.
func TestInterruptedTraining(t *testing.T) {
	dir := fixture(t)
	args := []string{"train", "sft", filepath.Join(dir, "recipe.yaml"), "--seed", "5", "--set", "train.steps=300", "--set", "checkpoint.every=100", "--quiet"}
	whole := filepath.Join(t.TempDir(), "whole")
	ok(t, "", append(args, "--dir", whole)...)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			place := t.TempDir()
			c, _, _, errs := process(t, place, append(args, "--dir", "my run")...)
			metrics := filepath.Join(place, "my run", "metrics.jsonl")
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				if b, _ := os.ReadFile(metrics); bytes.Count(b, []byte("\n")) > 5 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("no step was made")
				}
			}
			c.Process.Signal(sig)
			if code := wait(t, c); code != exitFailed {
				t.Fatalf("exit code %d\n%s", code, errs)
			}
			lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
			if len(lines) != 2 || !strings.Contains(lines[0], "interrupted") || !strings.HasPrefix(lines[1], "  ringtail train sft --resume ") {
				t.Fatalf("said %q", errs)
			}
			// What was printed is for a shell.
			line := strings.Replace(strings.TrimSpace(lines[1]), "ringtail", `"$RINGTAIL"`, 1)
			sh := exec.Command("/bin/sh", "-c", line)
			sh.Dir = place
			sh.Env = append(os.Environ(), cliVar+"=1", "RINGTAIL="+os.Args[0])
			if out, err := sh.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
			for _, name := range []string{"metrics.jsonl", "samples.jsonl", "model/model.safetensors", "recipe.yaml"} {
				if timeless(t, filepath.Join(place, "my run", name)) != timeless(t, filepath.Join(whole, name)) {
					t.Errorf("%s differs from that of a run that went through", name)
				}
			}
		})
	}
}

// TestInterruptWhileReading: Ctrl-C before the first step leaves nothing.
func TestInterruptWhileReading(t *testing.T) {
	place := t.TempDir()
	fifo := filepath.Join(place, "data.jsonl") // whose end never comes
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Skip(err)
	}
	w := make(chan *os.File, 1)
	go func() {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err == nil {
			f.WriteString(`{"instruction": "say cat", "output": "cat."}` + "\n")
		}
		w <- f
	}()
	c, _, _, errs := process(t, place, "train", "sft", filepath.Join(fixture(t), "recipe.yaml"), "--dir", "run", "--set", "data.train=["+fifo+"]")
	var f *os.File
	select {
	case f = <-w:
	case <-time.After(20 * time.Second):
		t.Fatal("the file wasn't opened")
	}
	c.Process.Signal(os.Interrupt)
	time.Sleep(50 * time.Millisecond)
	f.Close() // a read that waits for a pipe can't be taken back
	if code := wait(t, c); code != exitFailed || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	absent(t, filepath.Join(place, "run"))
}

// TestInterruptedAnswer: in a chat Ctrl-C stops the answer, not the chat; at the
// prompt it does nothing.
func TestInterruptedAnswer(t *testing.T) {
	dir := constantModel(t, tokenID(t, "a"))
	c, in, out, errs := process(t, t.TempDir(), "chat", "--model", dir, "--max-tokens", "60000", "--context", "65536", "--temperature", "0")
	for range 2 {
		io.WriteString(in, "hello\n")
		for range 20 { // the answer has begun
			if b, err := out.ReadByte(); err != nil || b != 'a' {
				t.Fatalf("%q, %v\n%s", b, err, errs)
			}
		}
		c.Process.Signal(os.Interrupt)
		if rest, err := out.ReadString('\n'); err != nil || len(rest) > 50000 {
			t.Fatalf("%d bytes more, %v", len(rest), err)
		}
	}
	c.Process.Signal(os.Interrupt)
	time.Sleep(20 * time.Millisecond)
	io.WriteString(in, "/set max_tokens 3\n/new\nhello\n/bye\n")
	if line, err := out.ReadString('\n'); err != nil || line != "aaa\n" {
		t.Errorf("%q, %v", line, err)
	}
	if code := wait(t, c); code != exitDone || strings.Count(errs.String(), "(stopped)") != 2 {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}

// TestTerminated: SIGTERM ends a chat that waits for input.
func TestTerminated(t *testing.T) {
	dir := constantModel(t, tokenID(t, "a"))
	c, in, out, _ := process(t, t.TempDir(), "chat", "--model", dir, "--max-tokens", "2", "--temperature", "0")
	io.WriteString(in, "hello\n")
	if _, err := out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c.Process.Signal(syscall.SIGTERM)
	if wait(t, c); time.Since(begin) > 10*time.Second {
		t.Error("it went on")
	}
}
