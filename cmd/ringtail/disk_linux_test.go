package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// smallDisk mounts a file system of so many bytes.
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mounting needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk: training ends with an error that names a file, no checkpoint is
// half there, and once there is room the run goes on to the same bytes.
func TestFullDisk(t *testing.T) {
	dir := fixture(t)
	args := []string{"train", "sft", filepath.Join(dir, "recipe.yaml"), "--set", "train.steps=30", "--set", "checkpoint.every=1", "--set", "checkpoint.keep=100", "--quiet"}
	whole := filepath.Join(t.TempDir(), "whole")
	ok(t, "", append(args, "--dir", whole)...)
	for _, size := range []string{"40k", "300k", "700k", "1100k"} {
		t.Run(size, func(t *testing.T) {
			disk := smallDisk(t, "size="+size)
			run := filepath.Join(disk, "run")
			refused(t, exitFailed, append(args, "--dir", run), "no space left", "run")
			absent(t, filepath.Join(run, "model"))
			steps, _ := os.ReadDir(filepath.Join(run, "checkpoints"))
			for _, s := range steps {
				files, _ := os.ReadDir(filepath.Join(run, "checkpoints", s.Name()))
				if strings.HasPrefix(s.Name(), ".") || len(files) != 3 {
					t.Errorf("%s was left with %d files", s.Name(), len(files))
				}
			}
			if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(run, "recipe.yaml")); err != nil {
				return // nothing was begun
			}
			ok(t, "", "train", "sft", "--resume", "--dir", run, "--quiet")
			for _, name := range []string{"metrics.jsonl", "samples.jsonl", "model/model.safetensors"} {
				if timeless(t, filepath.Join(run, name)) != timeless(t, filepath.Join(whole, name)) {
					t.Errorf("%s differs from that of a run that went through", name)
				}
			}
		})
	}
}

func TestFullDiskForTokenizer(t *testing.T) {
	disk := smallDisk(t, "size=8k")
	out := filepath.Join(disk, "tok")
	refused(t, exitFailed, []string{"tokenizer", "train", filepath.Join(fixture(t), "data.jsonl"), "--out", out, "--vocab-size", "300"}, "no space left")
	left, err := os.ReadDir(disk)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestReadOnly: a folder that can't be written to.
func TestReadOnly(t *testing.T) {
	disk := smallDisk(t, "size=64k,ro")
	refused(t, exitFailed, []string{"train", "sft", filepath.Join(fixture(t), "recipe.yaml"), "--dir", filepath.Join(disk, "run")}, "read-only", disk)
	refused(t, exitFailed, []string{"tokenizer", "train", filepath.Join(fixture(t), "data.jsonl"), "--out", filepath.Join(disk, "tok"), "--vocab-size", "300"}, "read-only", disk)
}

// TestFullOutput: what can't be printed isn't passed over.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	dir := fixture(t)
	for _, args := range [][]string{
		{"generate", "--model", filepath.Join(dir, "run", "model"), "--prompt", "x", "--max-tokens", "3"},
		{"data", "stats", filepath.Join(dir, "data.jsonl"), "--model", filepath.Join(dir, "tok")},
		{"data", "show", filepath.Join(dir, "data.jsonl"), "--model", filepath.Join(dir, "tok")},
		{"tokenizer", "encode", "--model", filepath.Join(dir, "tok"), "hello"},
		{"tokenizer", "decode", "--model", filepath.Join(dir, "tok"), "70"},
		{"train", "sft", "--explain"},
	} {
		var errs strings.Builder
		code := run(&env{ctx: t.Context(), stdin: strings.NewReader(""), stdout: full, stderr: &errs}, args)
		refusal(t, result{code: code, errors: errs.String()}, exitFailed, "no space left")
	}
}
