// Package hubtest is a server for tests that behaves like Hugging Face's hub, with a
// second one, at another address, that large files are redirected to as to the hub's
// CDN. Either can be made to fail.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// LFSFrom is the length from which a file is a large one.
const LFSFrom = 1000

// Server is a hub and its CDN.
type Server struct {
	Hub, CDN *httptest.Server

	mu    sync.Mutex
	repos map[string]*Repo // models/ORG/NAME
	log   []Request
	fault func(w http.ResponseWriter, r *http.Request, cdn bool) bool
	sig   int
	known map[*byte]string // hashes of contents, which tests replace but don't change
}

// Repo is a repository at one commit.
type Repo struct {
	Commit   string
	Refs     map[string]bool // branches and tags at it
	Files    map[string][]byte
	Token    string // without it the repository can't be read
	Gated    bool   // says so to those who can't
	NoTree   bool   // a mirror without the list of sizes
	PageSize int    // files a page of the list; 0: all
}

// Request is one that was made.
type Request struct {
	CDN                        bool
	Method, Path, Range, Token string
}

// New starts a server. Close ends it.
func New() *Server {
	s := &Server{repos: map[string]*Repo{}, known: map[*byte]string{}}
	s.Hub = httptest.NewServer(http.HandlerFunc(s.hub))
	s.CDN = httptest.NewServer(http.HandlerFunc(s.cdn))
	s.CDN.URL = strings.Replace(s.CDN.URL, "127.0.0.1", "localhost", 1) // another name, too
	return s
}

// Close ends both servers.
func (s *Server) Close() {
	s.Hub.CloseClientConnections()
	s.CDN.CloseClientConnections()
	s.Hub.Close()
	s.CDN.Close()
}

// Add adds a repository, models/ORG/NAME or datasets/ORG/NAME, with branch main.
func (s *Server) Add(name string, files map[string][]byte) *Repo {
	h := sha1.New()
	for _, f := range sortedKeys(files) {
		fmt.Fprintf(h, "%s %x\n", f, sha256.Sum256(files[f]))
	}
	r := &Repo{Commit: hex.EncodeToString(h.Sum(nil)), Refs: map[string]bool{"main": true}, Files: files}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[name] = r
	return r
}

func sortedKeys(m map[string][]byte) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Fault sets what is asked first, of every request: it answers one itself, and returns
// true, or leaves it alone. nil: none.
func (s *Server) Fault(f func(w http.ResponseWriter, r *http.Request, cdn bool) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Requests lists what was asked, and forgets it.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

// Expire makes the CDN's addresses that were given so far invalid.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sig++
}

// GitHash is the name that git gives a content.
func GitHash(b []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", len(b))
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

// Hash is the ETag of a file.
func Hash(b []byte) string {
	if len(b) >= LFSFrom {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	return GitHash(b)
}

// enter notes a request, and lets the fault answer it.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, cdn bool) bool {
	s.mu.Lock()
	s.log = append(s.log, Request{CDN: cdn, Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"), Token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")})
	fault := s.fault
	s.mu.Unlock()
	return fault != nil && fault(w, r, cdn)
}

// Fail is an answer as the hub gives it.
func Fail(w http.ResponseWriter, status int, code, message string) {
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"error": message})
}

func (s *Server) hub(w http.ResponseWriter, r *http.Request) {
	if s.enter(w, r, false) {
		return
	}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/")
	api := false
	if rest, ok := strings.CutPrefix(path, "api/resolve-cache/"); ok {
		path = rest
	} else if rest, ok := strings.CutPrefix(path, "api/"); ok {
		path, api = rest, true
	}
	parts := strings.Split(path, "/")
	if parts[0] != "models" && parts[0] != "datasets" {
		parts = append([]string{"models"}, parts...)
	}
	if len(parts) < 3 {
		Fail(w, 404, "", "Not found")
		return
	}
	s.mu.Lock()
	repo := s.repos[strings.Join(parts[:3], "/")]
	s.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case repo == nil && token == "":
		Fail(w, 401, "RepoNotFound", "Repository not found")
		return
	case repo == nil:
		Fail(w, 404, "RepoNotFound", "Repository not found")
		return
	case repo.Token != "" && repo.Token != token && token == "bad":
		Fail(w, 401, "", "Invalid credentials in Authorization header")
		return
	case repo.Token != "" && repo.Token != token && repo.Gated && !(api && len(parts) > 3 && parts[3] == "revision"):
		status := 403
		if token == "" {
			status = 401
		}
		Fail(w, status, "GatedRepo", "Access to model "+parts[1]+"/"+parts[2]+" is restricted.")
		return
	case repo.Token != "" && repo.Token != token && !repo.Gated:
		Fail(w, 401, "RepoNotFound", "Repository not found")
		return
	}
	rest := parts[3:]
	if len(rest) == 0 {
		rest = []string{"revision", "main"}
	}
	if len(rest) < 2 {
		Fail(w, 404, "", "Not found")
		return
	}
	rev, _ := url.PathUnescape(rest[1])
	if rev != repo.Commit && !repo.Refs[rev] {
		Fail(w, 404, "RevisionNotFound", "Invalid rev id: "+rev)
		return
	}
	switch {
	case api && rest[0] == "revision":
		var siblings []map[string]string
		for _, f := range sortedKeys(repo.Files) {
			siblings = append(siblings, map[string]string{"rfilename": f})
		}
		json.NewEncoder(w).Encode(map[string]any{"id": parts[1] + "/" + parts[2], "sha": repo.Commit, "siblings": siblings,
			"private": false, "gated": repo.Gated, "downloads": 0, "likes": 0, "tags": []string{}})
	case api && rest[0] == "tree" && !repo.NoTree:
		s.tree(w, r, repo)
	case api:
		Fail(w, 404, "", "Not found")
	case rest[0] == "resolve":
		name, _ := url.PathUnescape(strings.Join(rest[2:], "/"))
		s.resolve(w, r, repo, strings.Join(parts[:3], "/"), name)
	default:
		Fail(w, 404, "", "Not found")
	}
}

// tree lists files with their sizes, in pages.
func (s *Server) tree(w http.ResponseWriter, r *http.Request, repo *Repo) {
	names := sortedKeys(repo.Files)
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	names = names[min(from, len(names)):]
	if repo.PageSize > 0 && len(names) > repo.PageSize {
		names = names[:repo.PageSize]
		q := r.URL.Query()
		q.Set("cursor", strconv.Itoa(from+repo.PageSize))
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, s.Hub.URL, r.URL.EscapedPath(), q.Encode()))
	}
	page := []map[string]any{}
	var folders []string
	for _, f := range names {
		if i := strings.IndexByte(f, '/'); i > 0 && !slices.Contains(folders, f[:i]) {
			folders = append(folders, f[:i])
			page = append(page, map[string]any{"type": "directory", "path": f[:i], "oid": GitHash([]byte(f[:i])), "size": 0})
		}
		b := repo.Files[f]
		e := map[string]any{"type": "file", "path": f, "size": len(b), "oid": GitHash(b)}
		if len(b) >= LFSFrom {
			e["oid"] = GitHash([]byte("pointer to " + Hash(b)))
			e["lfs"] = map[string]any{"oid": Hash(b), "size": len(b), "pointerSize": 134}
		}
		page = append(page, e)
	}
	json.NewEncoder(w).Encode(page)
}

// resolve gives a small file after a redirect within the hub, and a large one by a redirect to the CDN.
func (s *Server) resolve(w http.ResponseWriter, r *http.Request, repo *Repo, repoName, name string) {
	b, ok := repo.Files[name]
	w.Header().Set("X-Repo-Commit", repo.Commit)
	if !ok {
		Fail(w, 404, "EntryNotFound", "Entry not found")
		return
	}
	if len(b) < LFSFrom {
		w.Header().Set("ETag", `"`+Hash(b)+`"`)
		if !strings.HasPrefix(r.URL.Path, "/api/resolve-cache/") {
			w.Header().Set("Location", "/api/resolve-cache/"+repoName+"/resolve/"+repo.Commit+"/"+escape(name))
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		return
	}
	s.mu.Lock()
	sig := s.sig
	s.mu.Unlock()
	w.Header().Set("X-Linked-Etag", `"`+Hash(b)+`"`)
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(b)))
	w.Header().Set("ETag", `"`+Hash([]byte("pointer to "+Hash(b)))+`"`)
	w.Header().Set("Location", fmt.Sprintf("%s/%s?signature=%d", s.CDN.URL, Hash(b), sig))
	w.WriteHeader(http.StatusFound)
}

func escape(name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// cdn serves contents by their hash, parts of them too.
func (s *Server) cdn(w http.ResponseWriter, r *http.Request) {
	if s.enter(w, r, true) {
		return
	}
	s.mu.Lock()
	sig := s.sig
	var content []byte
	for _, repo := range s.repos {
		for _, b := range repo.Files {
			if len(b) < LFSFrom {
				continue
			}
			hash, ok := s.known[&b[0]]
			if !ok {
				hash = Hash(b)
				s.known[&b[0]] = hash
			}
			if "/"+hash == r.URL.Path {
				content = b
			}
		}
	}
	s.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "": // what a signed address at a store of objects answers
		http.Error(w, "Only one auth mechanism allowed", http.StatusBadRequest)
	case r.URL.Query().Get("signature") != strconv.Itoa(sig):
		http.Error(w, "Request has expired", http.StatusForbidden)
	case content == nil:
		http.NotFound(w, r)
	default:
		w.Header().Set("ETag", `"cdn"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}
