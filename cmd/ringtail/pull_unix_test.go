//go:build unix

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A pull that is killed in the middle of a file leaves no half of one; the next goes on
// from what was noted. Ctrl-C says how.
func TestPullKilled(t *testing.T) {
	server, cache := tinyHub(t)
	r := rand.New(rand.NewPCG(1, 2))
	big := make([]byte, 40<<20)
	for i := range big {
		big[i] = byte(r.Uint32())
	}
	server.Add("models/acme/big", map[string][]byte{"config.json": []byte("{}"), "model.safetensors": big})
	for _, how := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		var sent atomic.Int64
		server.Fault(func(w http.ResponseWriter, r *http.Request, cdn bool) bool {
			if !cdn {
				return false
			}
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(big)))
			w.Header().Set("Content-Length", fmt.Sprint(to+1-from))
			w.WriteHeader(http.StatusPartialContent)
			if from == 0 { // half of the first part, and no more
				w.Write(big[:18<<20])
				w.(http.Flusher).Flush()
				sent.Add(1)
			}
			<-r.Context().Done()
			return true
		})
		c, _, _, stderr := process(t, t.TempDir(), "pull", "acme/big")
		for end := time.Now().Add(20 * time.Second); sent.Load() == 0 && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(300 * time.Millisecond)
		c.Process.Signal(how)
		if code := wait(t, c); how == syscall.SIGINT && (code != exitFailed || !strings.Contains(stderr.String(), "goes on from here")) {
			t.Errorf("exit code %d, %q", code, stderr)
		}
		blobs, _ := filepath.Glob(filepath.Join(cache, "models--acme--big", "blobs", "*.incomplete"))
		if len(blobs) != 1 {
			t.Fatalf("left: %q", blobs)
		}
		refused(t, exitFailed, []string{"show", "acme/big"}, "ringtail pull acme/big")

		server.Fault(nil)
		server.Requests()
		result := ok(t, "", "pull", "acme/big")
		first := ""
		for _, q := range server.Requests() {
			if q.CDN && (first == "" || len(q.Range) < len(first) || len(q.Range) == len(first) && q.Range < first) {
				first = q.Range
			}
		}
		if !strings.HasPrefix(first, "bytes=16") && !strings.HasPrefix(first, "bytes=17") && !strings.HasPrefix(first, "bytes=18") { // of 18.9 million, noted every 8 MiB or at the end
			t.Errorf("after %v it went on at %s", how, first)
		}
		got, err := os.ReadFile(filepath.Join(strings.TrimSpace(result.out), "model.safetensors"))
		if err != nil || !bytes.Equal(got, big) {
			t.Errorf("after %v: %d bytes, %v", how, len(got), err)
		}
		ok(t, "", "rm", "acme/big", "--yes")
	}
}
