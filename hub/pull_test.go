package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ringtail/hub/hubtest"
)

// content is n bytes that don't repeat.
func content(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// world is a hub with a model, and a client of it with an empty cache and its own clock.
type world struct {
	*hubtest.Server
	repo   *hubtest.Repo
	client *Client

	mu     sync.Mutex
	slept  []time.Duration
	notes  []string
	status Status
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Server: hubtest.New()}
	t.Cleanup(w.Close)
	w.repo = w.Add("models/acme/tiny", map[string][]byte{
		"config.json":       []byte(`{"model_type": "llama"}`),
		"tokenizer.json":    content(1, 5000),
		"README.md":         []byte("---\nlicense: mit\n---\n"),
		"model.safetensors": content(2, 300_000),
		"pytorch_model.bin": content(3, 200_000),
		"onnx/model.onnx":   content(4, 2000),
	})
	w.client = w.newClient(t, t.TempDir())
	return w
}

func (w *world) newClient(t *testing.T, cache string) *Client {
	c := New(w.Hub.URL, cache)
	c.PartSize = 40_000
	c.Stall = 10 * time.Second
	c.sleep = func(ctx context.Context, d time.Duration) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.slept = append(w.slept, d)
		return ctx.Err()
	}
	c.Note = func(s string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.notes = append(w.notes, s)
		if strings.Contains(s, "\n") {
			t.Errorf("a note of several lines: %q", s)
		}
	}
	c.Report = func(s Status) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.status = s
	}
	return c
}

func (w *world) pull(t *testing.T) *Pulled {
	t.Helper()
	p, err := w.client.Pull(t.Context(), tiny, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var tiny = Repo{ID: "acme/tiny", Revision: "main"}

// whole checks that the cache holds what Ringtail needs of the model, and nothing half done.
func (w *world) whole(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"config.json", "tokenizer.json", "README.md", "model.safetensors"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, w.repo.Files[name]) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(w.repo.Files[name]))
		}
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "..", "..", "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if len(b.Name()) != 40 && len(b.Name()) != 64 {
			t.Errorf("left over: %s", b.Name())
		}
	}
}

func TestPull(t *testing.T) {
	w := newWorld(t)
	p := w.pull(t)
	w.whole(t, p.Dir)
	if p.Commit != w.repo.Commit || p.Dir != filepath.Join(w.client.Cache, "models--acme--tiny", "snapshots", w.repo.Commit) {
		t.Errorf("commit %s in %s", p.Commit, p.Dir)
	}
	var left []string
	for _, f := range p.LeftOut {
		left = append(left, f.Name)
	}
	if !slices.Equal(left, []string{"onnx/model.onnx", "pytorch_model.bin"}) {
		t.Errorf("left out: %q", left)
	}
	all := int64(5000 + 300_000 + len(w.repo.Files["config.json"]) + len(w.repo.Files["README.md"]))
	if s := w.status; s.Files != 4 || s.FilesDone != 4 || s.Bytes != all || s.BytesDone != all || s.Fresh != all || p.Fresh != all {
		t.Errorf("status %+v, %d fresh; want %d bytes of 4 files", s, p.Fresh, all)
	}
	ref, err := os.ReadFile(filepath.Join(p.Dir, "..", "..", "refs", "main"))
	if err != nil || string(ref) != w.repo.Commit {
		t.Errorf("refs/main is %q, %v", ref, err)
	}
	if runtime.GOOS != "windows" {
		link, err := os.Readlink(filepath.Join(p.Dir, "model.safetensors"))
		if want := "../../blobs/" + hubtest.Hash(w.repo.Files["model.safetensors"]); err != nil || link != want {
			t.Errorf("link to %s, %v; want %s", link, err, want)
		}
	}
	parts := 0
	for _, r := range w.Requests() {
		if r.CDN && r.Range != "" {
			parts++
		}
	}
	if parts != 8 { // 300,000 bytes by 40,000
		t.Errorf("%d parts were asked for, want 8", parts)
	}

	// Once more: two questions, no download.
	again := w.pull(t)
	if n := len(w.Requests()); n != 2 || again.Fresh != 0 {
		t.Errorf("%d requests and %d bytes for what is there", n, again.Fresh)
	}
	if s := w.status; s.FilesDone != 4 || s.BytesDone != all || s.Fresh != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestPullSubfoldersAndPages(t *testing.T) {
	w := newWorld(t)
	repo := w.Add("datasets/acme/data", map[string][]byte{"a/b/c.jsonl": content(5, 3000), "ä ö%/x+y.txt": []byte("x"), "empty.txt": nil, "z.txt": []byte("z")})
	repo.PageSize = 1
	repo.Refs["refs/pr/1"] = true
	p, err := w.client.Pull(t.Context(), Repo{Dataset: true, ID: "acme/data", Revision: "refs/pr/1"}, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range repo.Files {
		got, err := os.ReadFile(filepath.Join(p.Dir, filepath.FromSlash(name)))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if ref, err := os.ReadFile(filepath.Join(p.Dir, "..", "..", "refs", "refs", "pr", "1")); err != nil || string(ref) != repo.Commit {
		t.Errorf("ref %q, %v", ref, err)
	}
}

// A mirror without sizes in its list: they come with each file.
func TestPullWithoutTree(t *testing.T) {
	w := newWorld(t)
	w.repo.NoTree = true
	w.whole(t, w.pull(t).Dir)
	if w.status.Bytes != w.status.BytesDone || w.status.Bytes < 305_000 {
		t.Errorf("status %+v", w.status)
	}
}

// The token goes to the hub and never to where it redirects.
func TestTokenStays(t *testing.T) {
	w := newWorld(t)
	w.repo.Token, w.client.Token = "hf_secret", "hf_secret"
	w.whole(t, w.pull(t).Dir)
	hub, cdn := 0, 0
	for _, r := range w.Requests() {
		switch {
		case r.CDN && r.Token != "":
			t.Errorf("the token went to the CDN: %+v", r)
		case r.CDN:
			cdn++
		case r.Token != "hf_secret":
			t.Errorf("no token: %+v", r)
		default:
			hub++
		}
	}
	if hub == 0 || cdn == 0 {
		t.Errorf("%d requests to the hub, %d to the CDN", hub, cdn)
	}
	// Nor by a redirect that the API gives.
	w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		if !cdn && strings.HasPrefix(r.URL.Path, "/api/models/") {
			http.Redirect(rw, r, w.CDN.URL+"/elsewhere", http.StatusFound)
			return true
		}
		return false
	})
	w.client.Pull(t.Context(), tiny, PullOptions{})
	for _, r := range w.Requests() {
		if r.CDN && r.Token != "" {
			t.Errorf("the token went to %+v", r)
		}
	}
}

// What the hub refuses is explained in a line that says what to do.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		setup func(w *world)
		repo  Repo
		kind  error
		want  []string
	}{
		"no such model":         {nil, Repo{ID: "acme/none", Revision: "main"}, ErrNotFound, []string{"acme/none", "check the name", "HF_TOKEN"}},
		"no such model, token":  {func(w *world) { w.client.Token = "t" }, Repo{ID: "acme/none", Revision: "main"}, ErrNotFound, []string{"acme/none", "your token"}},
		"private":               {func(w *world) { w.repo.Token = "t" }, tiny, ErrNotFound, []string{"acme/tiny", "HF_TOKEN"}},
		"bad token":             {func(w *world) { w.repo.Token, w.client.Token = "t", "bad" }, tiny, nil, []string{"token is not valid", "HF_TOKEN"}},
		"gated":                 {func(w *world) { w.repo.Token, w.repo.Gated = "t", true }, tiny, ErrGated, []string{"accept its licence at http", "/acme/tiny", "HF_TOKEN"}},
		"gated, token":          {func(w *world) { w.repo.Token, w.repo.Gated, w.client.Token = "t", true, "other" }, tiny, ErrGated, []string{"accept its licence at http", "no access"}},
		"no such revision":      {nil, Repo{ID: "acme/tiny", Revision: "v9"}, ErrNotFound, []string{`no revision "v9"`, "branches"}},
		"not a hub":             {func(w *world) { w.fail(200, "<html>") }, tiny, nil, []string{"HF_ENDPOINT"}},
		"forbidden":             {func(w *world) { w.fail(403, "no") }, tiny, nil, []string{"403", "/acme/tiny"}},
		"commit that is none":   {func(w *world) { w.fail(200, `{"sha": "../../x", "siblings": []}`) }, tiny, nil, []string{"../../x", "40 hex digits"}},
		"another commit":        {func(w *world) { w.fail(200, `{"sha": "`+strings.Repeat("a", 40)+`"}`) }, Repo{ID: "acme/tiny", Revision: strings.Repeat("b", 40)}, nil, []string{"another commit"}},
		"file without a hash":   {func(w *world) { w.header("ETag", "../../x") }, tiny, nil, []string{"../../x", "ETag"}},
		"file of other commit":  {func(w *world) { w.header("X-Repo-Commit", strings.Repeat("0", 40)) }, tiny, nil, []string{"commit 000", "expected"}},
		"no commit":             {func(w *world) { w.header("X-Repo-Commit", "") }, tiny, nil, []string{"X-Repo-Commit", "HF_ENDPOINT"}},
		"size differs":          {func(w *world) { w.header("X-Linked-Size", "17") }, tiny, nil, []string{"17", "lists"}},
		"hash differs":          {func(w *world) { w.header("X-Linked-Etag", `"`+strings.Repeat("0", 64)+`"`) }, tiny, nil, []string{"lists the hash"}},
		"size no number":        {func(w *world) { w.header("X-Linked-Size", "-5") }, tiny, nil, []string{`"-5"`}},
		"a file that is gone":   {func(w *world) { w.repo.Files["model.safetensors.index.json"] = nil; w.hide("index.json") }, tiny, ErrNotFound, []string{"no file"}},
		"redirects in a circle": {func(w *world) { w.circle() }, tiny, nil, []string{"redirects"}},
		"redirect to http":      {func(w *world) { w.redirect("http://192.0.2.1/x") }, tiny, nil, []string{"redirects to http://192.0.2.1", "refused"}},
		"redirect to ftp":       {func(w *world) { w.redirect("ftp://127.0.0.1/x") }, tiny, nil, []string{"refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if c.setup != nil {
				c.setup(w)
			}
			_, err := w.client.Pull(t.Context(), c.repo, PullOptions{})
			if err == nil {
				t.Fatal("pulled")
			}
			if c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("%v is not %v", err, c.kind)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("several lines: %q", err)
			}
			if dir, err := w.client.Find(c.repo); err == nil {
				t.Errorf("found in the cache: %s", dir)
			}
		})
	}
}

// fail answers every question of the API.
func (w *world) fail(status int, text string) {
	w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		rw.WriteHeader(status)
		fmt.Fprint(rw, text)
		return true
	})
}

// header sets one header of answers about files.
func (w *world) header(key, value string) {
	w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		if r.Method != http.MethodHead {
			return false
		}
		b := w.repo.Files["tokenizer.json"]
		h := rw.Header()
		h.Set("X-Repo-Commit", w.repo.Commit)
		h.Set("X-Linked-Size", fmt.Sprint(len(b)))
		if strings.Contains(r.URL.Path, "tokenizer") {
			h.Set("ETag", `"`+hubtest.Hash(b)+`"`)
		}
		h.Set(key, value)
		return true
	})
	w.repo.Files = map[string][]byte{"config.json": []byte("{}"), "tokenizer.json": w.repo.Files["tokenizer.json"]}
	delete(w.repo.Files, "config.json")
}

// hide makes a file that is listed not be there.
func (w *world) hide(suffix string) {
	w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, suffix) {
			rw.Header().Set("X-Repo-Commit", w.repo.Commit)
			hubtest.Fail(rw, 404, "EntryNotFound", "Entry not found")
			return true
		}
		return false
	})
	w.repo.Files["model-00001-of-00001.safetensors"] = content(9, 2000)
	delete(w.repo.Files, "model.safetensors")
}

func (w *world) circle() {
	w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		http.Redirect(rw, r, r.URL.Path, http.StatusFound)
		return true
	})
}

func (w *world) redirect(to string) {
	w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		http.Redirect(rw, r, to, http.StatusFound)
		return true
	})
}

// Names from the hub that lead out of the folder, in either kind of list.
func TestNamesAreRefused(t *testing.T) {
	for _, name := range []string{"../x", "a/../../x", "/etc/x", `a\b`, "C:x", "a//b", "./a", "a/.", "", "x\x00", "a\nb", "con", "a/NUL.txt", "a.", strings.Repeat("x", 300)} {
		for _, noTree := range []bool{false, true} {
			w := newWorld(t)
			w.repo.NoTree = noTree
			w.repo.Files = map[string][]byte{name: []byte("x"), "config.json": []byte("{}")}
			_, err := w.client.Pull(t.Context(), tiny, PullOptions{Include: []string{"*"}})
			if err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("%q: %v", name, err)
			}
			filepath.WalkDir(w.client.Cache, func(path string, e fs.DirEntry, err error) error {
				if err == nil && !e.IsDir() {
					t.Errorf("%q: wrote %s", name, path)
				}
				return nil
			})
		}
	}
}

// Failures that pass: the same files in the end.
func TestRecovers(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(w *world) func(http.ResponseWriter, *http.Request, bool) bool
		slept []time.Duration // at least these pauses, in this order
	}{
		"cut in the middle": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			var n atomic.Int64
			return func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				if !cdn || n.Add(1)%2 == 0 {
					return false
				}
				return cut(rw, r, w, 1000)
			}
		}, nil},
		"slowed down": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			return first(1, func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Retry-After", "17")
				rw.WriteHeader(http.StatusTooManyRequests)
			})
		}, []time.Duration{17 * time.Second}},
		"slowed down until a time": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			w.client.now = func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
			return first(1, func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Retry-After", "Thu, 01 Jan 2026 00:00:09 GMT")
				rw.WriteHeader(http.StatusServiceUnavailable)
			})
		}, []time.Duration{9 * time.Second}},
		"slowed down by RateLimit": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			return first(1, func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("RateLimit", `"api";r=0;t=42`)
				rw.WriteHeader(http.StatusTooManyRequests)
			})
		}, []time.Duration{42 * time.Second}},
		"errors of the server": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			return first(3, func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(http.StatusBadGateway) })
		}, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}},
		"connection closed": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			return first(2, func(rw http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
		}, []time.Duration{time.Second}},
		"no ranges": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			return func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				if cdn {
					r.Header.Del("Range")
				}
				return false
			}
		}, nil},
		"no ranges, cut": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			var n atomic.Int64
			return func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				if !cdn {
					return false
				}
				r.Header.Del("Range")
				return n.Add(1) > 8 && n.Load() < 12 && cut(rw, r, w, 100)
			}
		}, nil},
		"expired address": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			var n atomic.Int64
			return func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				if cdn && n.Add(1) == 3 {
					w.Expire()
				}
				return false
			}
		}, nil},
		"one wrong content": {func(w *world) func(http.ResponseWriter, *http.Request, bool) bool {
			var n atomic.Int64
			return func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				return cdn && r.Header.Get("Range") != "" && n.Add(1) == 2 && wrong(rw, r)
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.Fault(c.fault(w))
			w.whole(t, w.pull(t).Dir)
			if len(w.slept) < len(c.slept) || !slices.Equal(w.slept[:len(c.slept)], c.slept) {
				t.Errorf("pauses %v, want %v", w.slept, c.slept)
			}
			if w.status.BytesDone != w.status.Bytes {
				t.Errorf("status %+v", w.status)
			}
		})
	}
}

// first lets a fault answer the first n requests of all.
func first(n int64, f func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request, bool) bool {
	var count atomic.Int64
	return func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		if count.Add(1) > n {
			return false
		}
		f(rw, r)
		return true
	}
}

// bytesOf is what a request to the CDN asks for.
func (w *world) bytesOf(r *http.Request) (b []byte, from, to, size int) {
	for _, f := range w.repo.Files {
		if "/"+hubtest.Hash(f) == r.URL.Path {
			b = f
		}
	}
	size = len(b)
	to = size
	if rg := r.Header.Get("Range"); rg != "" {
		fmt.Sscanf(rg, "bytes=%d-%d", &from, &to)
		to++
	}
	return b[from:to], from, to, size
}

// cut sends n bytes of an answer, and breaks the connection.
func cut(rw http.ResponseWriter, r *http.Request, w *world, n int) bool {
	b, from, to, size := w.bytesOf(r)
	rw.Header().Set("Content-Length", fmt.Sprint(len(b)))
	if r.Header.Get("Range") != "" {
		rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
		rw.WriteHeader(http.StatusPartialContent)
	}
	rw.Write(b[:min(n, len(b)/2)])
	rw.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// wrong sends zeros.
func wrong(rw http.ResponseWriter, r *http.Request) bool {
	var from, to int
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
	rw.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", from, to))
	rw.WriteHeader(http.StatusPartialContent)
	rw.Write(make([]byte, to-from+1))
	return true
}

// Failures that last end in an error; nothing wrong is left under a blob's name.
func TestGivesUp(t *testing.T) {
	onCDN := func(f func(rw http.ResponseWriter, r *http.Request)) func(*world) {
		return func(w *world) {
			w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				if cdn {
					f(rw, r)
				}
				return cdn
			})
		}
	}
	for name, c := range map[string]struct {
		setup func(w *world)
		want  []string
		tries int // pauses
	}{
		"wrong content": {func(w *world) {
			w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				return cdn && r.Header.Get("Range") != "" && wrong(rw, r)
			})
		}, []string{"SHA-256", "expected", "model.safetensors"}, 0},
		"wrong small file": {func(w *world) {
			w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "config.json") {
					return false
				}
				fmt.Fprintf(rw, "%*d", len(w.repo.Files["config.json"]), 1)
				return true
			})
		}, []string{"git hash", "config.json"}, 0},
		"server down": {func(w *world) { w.fail(503, "") }, []string{"503", "run the command again"}, 5},
		"far too long": {onCDN(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Retry-After", "86400")
			rw.WriteHeader(429)
		}), []string{"429", "24h"}, 0},
		"no such range": {onCDN(func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(416) }), []string{"fewer bytes"}, 0},
		"another range": {onCDN(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Range", "bytes 5-9/10")
			rw.WriteHeader(206)
			rw.Write(make([]byte, 5))
		}), []string{"bytes 5-9/10"}, 0},
		"another length": {onCDN(func(rw http.ResponseWriter, r *http.Request) { rw.Write(make([]byte, 7)) }), []string{"7 bytes"}, 0},
		"packed": {onCDN(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			rw.Write([]byte("x"))
		}), []string{"Content-Encoding"}, 0},
		"always expired": {onCDN(func(rw http.ResponseWriter, r *http.Request) { rw.WriteHeader(403) }), []string{"403"}, 0},
		"always cut": {func(w *world) {
			w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool { return cdn && cut(rw, r, w, 0) })
		}, []string{"connection broke", "tried 6 times"}, 5},
		"stalls": {func(w *world) {
			w.client.Stall = 20 * time.Millisecond
			w.client.Tries = 2
			onCDN(func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Content-Length", "1000000")
				rw.WriteHeader(200)
				rw.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(5 * time.Second):
				}
			})(w)
			w.repo.Files = map[string][]byte{"model.safetensors": content(1, 1_000_000)}
			w.client.PartSize = 1 << 20
		}, []string{"nothing came for 20ms"}, 1},
		"stalls before the answer": {func(w *world) {
			w.client.Stall = 20 * time.Millisecond
			w.client.Tries = 2
			w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				select {
				case <-r.Context().Done():
				case <-time.After(5 * time.Second):
				}
				return true
			})
		}, []string{"nothing came for 20ms"}, 1},
		"huge": {func(w *world) {
			w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
				if !strings.Contains(r.URL.Path, "/tree/") {
					return false
				}
				fmt.Fprint(rw, `[{"type": "file", "path": "model.safetensors", "size": 4611686018427387904}]`)
				return true
			})
		}, []string{"free some space"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.setup(w)
			_, err := w.client.Pull(t.Context(), tiny, PullOptions{})
			if err == nil {
				t.Fatal("pulled")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not say %q", err, part)
				}
			}
			if len(w.slept) < c.tries || strings.Contains(err.Error(), "\n") {
				t.Errorf("%d pauses, want %d; %q", len(w.slept), c.tries, err)
			}
			blobs, _ := os.ReadDir(filepath.Join(w.client.Cache, "models--acme--tiny", "blobs"))
			for _, b := range blobs {
				if strings.HasSuffix(b.Name(), ".incomplete") {
					continue
				}
				got, _ := os.ReadFile(filepath.Join(w.client.Cache, "models--acme--tiny", "blobs", b.Name()))
				if h := hubtest.Hash(got); h != b.Name() {
					t.Errorf("blob %s holds %s", b.Name(), h)
				}
			}
			if _, err := w.client.Find(tiny); !errors.Is(err, ErrNotFound) {
				t.Errorf("half a model is found: %v", err)
			}
		})
	}
}

// A pull that was stopped goes on where it was: by Ctrl-C, and by a death that left no time
// to note anything.
func TestResume(t *testing.T) {
	for _, death := range []bool{false, true} {
		w := newWorld(t)
		big := content(7, 12<<20)
		w.repo.Files["model.safetensors"] = big
		w.client.PartSize, w.client.Connections = 16<<20, 1
		ctx, cancel := context.WithCancel(t.Context())
		var sent atomic.Int64
		w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
			if !cdn || sent.Add(1) > 1 {
				return false
			}
			b, _, _, _ := w.bytesOf(r)
			rw.Header().Set("Content-Length", fmt.Sprint(len(b)))
			rw.Write(b[:9<<20])
			rw.(http.Flusher).Flush()
			time.Sleep(50 * time.Millisecond)
			cancel()
			<-r.Context().Done()
			return true
		})
		if _, err := w.client.Pull(ctx, tiny, PullOptions{Include: []string{"model.safetensors"}}); !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped: %v", err)
		}
		blobs := filepath.Join(w.client.Cache, "models--acme--tiny", "blobs")
		left := filepath.Join(blobs, hubtest.Hash(big)+".ringtail.incomplete")
		info, err := os.Stat(left)
		if err != nil || info.Size() < int64(len(big)) {
			t.Fatalf("what is left: %v, %v", info, err)
		}
		if death { // the note as it was after the first 8 MB, the content beyond it torn
			f, err := os.OpenFile(left, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			p := newPartial(f, int64(len(big)), 16<<20)
			p.done[0] = 8 << 20
			f.WriteAt(make([]byte, 1<<20), 8<<20)
			p.flush()
			f.Close()
		}
		w.Fault(nil)
		w.Requests()
		p := w.pull(t)
		w.whole(t, p.Dir)
		if p.Fresh < 3<<20 || p.Fresh > 5<<20 {
			t.Errorf("%d bytes came again, of which some 3 or 4 million were missing", p.Fresh)
		}
		if death && !slices.ContainsFunc(w.Requests(), func(r hubtest.Request) bool { return strings.HasPrefix(r.Range, "bytes=8388608-") }) {
			t.Error("did not go on at byte 8388608")
		}
	}
}

// What an old huggingface_hub left is the beginning; a note that lies is found out by the hash.
func TestResumeOthers(t *testing.T) {
	w := newWorld(t)
	model := w.repo.Files["model.safetensors"]
	blobs := filepath.Join(w.client.Cache, "models--acme--tiny", "blobs")
	os.MkdirAll(blobs, 0o777)
	os.WriteFile(filepath.Join(blobs, hubtest.Hash(model)+".incomplete"), model[:250_000], 0o666)
	p := w.pull(t)
	w.whole(t, p.Dir)
	if p.Fresh > 60_000 {
		t.Errorf("%d bytes came", p.Fresh)
	}

	w = newWorld(t)
	blobs = filepath.Join(w.client.Cache, "models--acme--tiny", "blobs")
	os.MkdirAll(blobs, 0o777)
	os.WriteFile(filepath.Join(blobs, hubtest.Hash(model)+".incomplete"), make([]byte, 250_000), 0o666)
	p = w.pull(t)
	w.whole(t, p.Dir)
	if len(w.notes) != 1 || !strings.Contains(w.notes[0], "downloading it again") {
		t.Errorf("notes %q", w.notes)
	}
}

// Two pulls at once into one cache bring each file once.
func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t)
	w.Fault(func(rw http.ResponseWriter, r *http.Request, cdn bool) bool {
		if cdn {
			time.Sleep(10 * time.Millisecond)
		}
		return false
	})
	clients := []*Client{w.client, w.newClient(t, w.client.Cache), w.newClient(t, w.client.Cache)}
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			p, err := c.Pull(t.Context(), tiny, PullOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			w.whole(t, p.Dir)
		})
	}
	wg.Wait()
	asked := map[string]int{}
	for _, r := range w.Requests() {
		if r.CDN {
			asked[r.Path+" "+r.Range]++
		}
	}
	for what, n := range asked {
		if n > 1 {
			t.Errorf("%s was asked for %d times", what, n)
		}
	}
	if len(asked) != 9 { // eight parts of one file, one of the other
		t.Errorf("%d parts: %v", len(asked), asked)
	}
}

// Waiting for another program ends with Ctrl-C.
func TestLockInterrupted(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.client.Cache, ".locks", "models--acme--tiny")
	os.MkdirAll(dir, 0o777)
	for _, name := range []string{"config.json", "README.md", "tokenizer.json", "model.safetensors"} {
		unlock, err := w.client.lock(t.Context(), filepath.Join(dir, hubtest.Hash(w.repo.Files[name])+".lock"), name)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := w.client.Pull(ctx, tiny, PullOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.notes) == 0 || !strings.Contains(w.notes[0], "another program") {
		t.Errorf("notes %q", w.notes)
	}
}

func TestOffline(t *testing.T) {
	w := newWorld(t)
	w.client.Offline = true
	if _, err := w.client.Pull(t.Context(), tiny, PullOptions{}); !errors.Is(err, ErrOffline) {
		t.Errorf("error %v", err)
	}
	w.client.Offline = false
	want := w.pull(t).Dir
	w.Requests()
	w.client.Offline = true
	p, err := w.client.Pull(t.Context(), tiny, PullOptions{})
	if err != nil || p.Dir != want || len(w.Requests()) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// A file that the list promises and the hub doesn't have is noted as huggingface_hub notes it.
func TestNoExist(t *testing.T) {
	w := newWorld(t)
	w.repo.Files["model.safetensors.index.json"] = []byte("{}")
	w.hide("index.json")
	if _, err := w.client.Pull(t.Context(), tiny, PullOptions{}); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(w.client.Cache, "models--acme--tiny", ".no_exist", w.repo.Commit, "model.safetensors.index.json")); err != nil {
		t.Error(err)
	}
}
