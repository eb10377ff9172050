//go:build !nocuda

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ringtail/tensor/cuda/emulator/build"
)

// onEmulator runs the program as a process whose GPU is emulated.
func onEmulator(t *testing.T, variables []string, args ...string) result {
	t.Helper()
	library, err := build.Library()
	if errors.Is(err, build.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0], args...)
	c.Env = append(append(os.Environ(), cliVar+"=1", "RINGTAIL_LIBCUDA="+library, "RINGTAIL_LIBCUBLASLT="+library, "RINGTAIL_LIBCUDNN=off"), variables...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	code := wait(t, c)
	return result{code, out.String(), errs.String()}
}

// TestLostGPU: an error that ends the GPU's context ends the run with exit code 1 and its
// last checkpoint named, from which it goes on to the bytes of a run that had no error.
func TestLostGPU(t *testing.T) {
	dir := fixture(t)
	args := []string{"train", "sft", filepath.Join(dir, "recipe.yaml"), "--device", "cuda", "--seed", "5", "--set", "train.steps=12", "--set", "checkpoint.every=1", "--quiet"}
	whole, broken := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "broken")
	if r := onEmulator(t, nil, append(args, "--dir", whole)...); r.code != exitDone {
		t.Fatalf("exit code %d\n%s", r.code, r.errors)
	}
	r := onEmulator(t, []string{"RINGTAIL_EMULATOR_FAIL=cuGraphLaunch=700@12"}, append(args, "--dir", broken)...)
	r.errors = regexp.MustCompile(`(?m)^(?:no |note).*\n`).ReplaceAllString(r.errors, "")
	refusal(t, r, exitFailed, "CUDA_ERROR_ILLEGAL_ADDRESS (700)", "the last checkpoint is "+filepath.Join(broken, "checkpoints", "step-"), "--resume --dir "+broken)
	named := regexp.MustCompile(`the last checkpoint is (\S+),`).FindStringSubmatch(r.errors)
	if named == nil {
		t.Fatal(r.errors)
	}
	if _, err := os.Stat(named[1]); err != nil {
		t.Error(err)
	}
	if r := onEmulator(t, nil, append(args, "--dir", broken, "--resume")...); r.code != exitDone {
		t.Fatalf("exit code %d\n%s", r.code, r.errors)
	}
	for _, name := range []string{"metrics.jsonl", "model/model.safetensors"} {
		if timeless(t, filepath.Join(broken, name)) != timeless(t, filepath.Join(whole, name)) {
			t.Errorf("%s differs from that of a run that had no error", name)
		}
	}
}

// TestFullGPU: too little memory ends the run before its first step with what took how much
// and what to change.
func TestFullGPU(t *testing.T) {
	dir := fixture(t)
	args := []string{"train", "sft", filepath.Join(dir, "recipe.yaml"), "--device", "cuda", "--set", "train.steps=12", "--quiet", "--dir", filepath.Join(t.TempDir(), "run")}
	big := append(args, "--set", "model.new.hidden_size=256", "--set", "model.new.num_hidden_layers=4")
	r := onEmulator(t, []string{"RINGTAIL_EMULATOR_MEMORY=12000000"}, big...)
	refusal(t, r, exitFailed, "CUDA_ERROR_OUT_OF_MEMORY", "wanted for ", "held: ", "weights ", "the GPU has 11.4 MiB", "to make room, ", "optimizer.state")
	r = onEmulator(t, nil, append(big, "--gpu-memory", "12MB")...)
	refusal(t, r, exitFailed, "CUDA_ERROR_OUT_OF_MEMORY", "held: ", "--gpu-memory allows 11.4 MiB")
	refused(t, exitUsage, append(args, "--gpu-memory", "12 apples"), "12 apples", "40GiB")
}
