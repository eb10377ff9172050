package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A pull that fills the disk says so and leaves no half of a file under its name; with room it
// goes on, and what it had is not downloaded again. A pull that can't fit is not begun.
func TestPullFullDisk(t *testing.T) {
	server, _ := tinyHub(t)
	r := rand.New(rand.NewPCG(5, 6))
	big := make([]byte, 24<<20)
	for i := range big {
		big[i] = byte(r.Uint32())
	}
	repo := server.Add("models/acme/big", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": big})
	disk := smallDisk(t, "size=16m")
	t.Setenv("HF_HUB_CACHE", disk)
	refused(t, exitFailed, []string{"pull", "acme/big", "--quiet"}, "are to come", "HF_HOME")
	for _, q := range server.Requests() {
		if q.CDN {
			t.Errorf("begun: %+v", q)
		}
	}
	repo.NoTree = true // a mirror that doesn't say beforehand how much it is
	refused(t, exitFailed, []string{"pull", "acme/big", "--quiet"}, "no space left", "HF_HOME", "goes on where it stopped")
	if snapshots, _ := filepath.Glob(filepath.Join(disk, "models--acme--big", "snapshots", "*", "model.safetensors")); len(snapshots) > 0 {
		t.Errorf("half a file: %q", snapshots)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	server.Requests()
	result := ok(t, "", "pull", "acme/big")
	got, err := os.ReadFile(filepath.Join(strings.TrimSpace(result.out), "model.safetensors"))
	if err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if !strings.Contains(result.errors, "downloaded") || strings.Contains(result.errors, "25.2 MB downloaded") {
		t.Errorf("says %q", result.errors)
	}
	for _, q := range server.Requests() {
		if q.CDN && q.Range == "" {
			t.Errorf("began at the start: %+v", q)
		}
	}
}
