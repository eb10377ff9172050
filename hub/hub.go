// Package hub downloads models and data sets from Hugging Face's hub, or a mirror of
// it, into the cache that the Python library huggingface_hub keeps, so that both
// use the same files:
//
//	CACHE/models--ORG--NAME/
//	    blobs/ETAG                  contents, named by SHA-256 (large files) or git's hash
//	    snapshots/COMMIT/FILE       links to them, ../../blobs/ETAG
//	    refs/main                   the commit that a branch or tag was last seen at
//	    .no_exist/COMMIT/FILE       empty: files that were asked for and aren't there
//	CACHE/.locks/models--ORG--NAME/ETAG.lock
//
// CACHE is $HF_HUB_CACHE, or $HF_HOME/hub, or ~/.cache/huggingface/hub. A blob appears
// under its name whole and with the right hash, or not at all; what an interrupted
// download leaves is ETAG.ringtail.incomplete, from which the next one goes on. Names that
// the hub gives are never trusted to stay in their folder.
//
// Sources: huggingface_hub 1.33 (file_download.py, utils/_cache_manager.py,
// utils/_http.py) for the layout, the headers and their meaning; the hub's API
// (/api/models/…/revision/…, /api/models/…/tree/…).
package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// DefaultEndpoint is the hub's address where HF_ENDPOINT names no other.
const DefaultEndpoint = "https://huggingface.co"

// Client talks to one hub and keeps one cache. FromEnv makes it; fields may be changed
// before its first use.
type Client struct {
	Endpoint string // without a slash at its end
	Token    string // of the account; sent to Endpoint's host alone
	Cache    string // folder
	Offline  bool   // use what is in the cache
	Agent    string // User-Agent

	Connections int           // at a time
	PartSize    int64         // files longer than this come in parts, several at a time
	Stall       time.Duration // a connection on which nothing comes for this long is given up
	Tries       int           // of a request that fails for no lasting reason, before it brings a byte

	// Note is told, in words, what is worth a line: a pause, a retry, waiting for another program.
	Note func(string)
	// Report is told how far a pull is, some times a second.
	Report func(Status)

	http  *http.Client
	sleep func(context.Context, time.Duration) error
	now   func() time.Time
}

// New makes a client with the usual settings.
func New(endpoint, cache string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // lengths are those of the files
	transport.MaxIdleConnsPerHost = 16
	return &Client{
		Endpoint: strings.TrimRight(endpoint, "/"), Cache: cache, Agent: "ringtail",
		Connections: 8, PartSize: 32 << 20, Stall: time.Minute, Tries: 6,
		Note: func(string) {}, Report: func(Status) {},
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		sleep: func(ctx context.Context, d time.Duration) error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
		now: time.Now,
	}
}

// FromEnv makes a client from the variables that huggingface_hub knows: HF_ENDPOINT,
// HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE.
func FromEnv() (*Client, error) {
	endpoint := os.Getenv("HF_ENDPOINT")
	if endpoint == "" {
		endpoint = DefaultEndpoint
	}
	if err := checkEndpoint(endpoint); err != nil {
		return nil, err
	}
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	c := New(endpoint, cache)
	c.Offline = isTrue(os.Getenv("HF_HUB_OFFLINE")) || isTrue(os.Getenv("TRANSFORMERS_OFFLINE"))
	if !isTrue(os.Getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		if c.Token, err = findToken(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// CacheDir is the cache's folder.
func CacheDir() (string, error) {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if dir := os.Getenv(name); dir != "" {
			return expand(dir)
		}
	}
	home, err := hfHome()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, "hub"), nil
}

// hfHome is the folder of Hugging Face's libraries.
func hfHome() (string, error) {
	if dir := os.Getenv("HF_HOME"); dir != "" {
		return expand(dir)
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "huggingface"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home folder for the cache of models: %w; set HF_HOME", err)
	}
	return filepath.Join(home, ".cache", "huggingface"), nil
}

// expand replaces $NAME and a leading ~, as huggingface_hub does.
func expand(path string) (string, error) {
	path = os.ExpandEnv(path)
	if path == "~" || strings.HasPrefix(path, "~/") {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		path = home + path[1:]
	}
	return path, nil
}

func isTrue(v string) bool {
	switch strings.ToUpper(v) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

// findToken is the token in the environment, or that of `hf auth login`.
func findToken() (string, error) {
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := strings.TrimSpace(os.Getenv(name)); t != "" {
			return checkToken(name, t)
		}
	}
	path := os.Getenv("HF_TOKEN_PATH")
	if path == "" {
		home, err := hfHome()
		if err != nil {
			return "", err
		}
		path = filepath.Join(home, "token")
	}
	path, err := expand(path)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return checkToken(path, strings.TrimSpace(string(text)))
}

// checkToken refuses what can't stand in a header. The token itself is never shown.
func checkToken(where, token string) (string, error) {
	if len(token) > 4096 {
		return "", fmt.Errorf("%s: longer than a token is", where)
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", fmt.Errorf("%s: holds a character that no token has", where)
		}
	}
	return token, nil
}

// checkEndpoint refuses addresses over which a token and a model would travel unprotected.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return fmt.Errorf("HF_ENDPOINT: %w", err)
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("HF_ENDPOINT is %q, expected an address such as %s", endpoint, DefaultEndpoint)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("HF_ENDPOINT: give an address without user, query or fragment")
	case u.Scheme == "http" && !isLocal(u.Hostname()):
		return fmt.Errorf("HF_ENDPOINT is %q: only https is used, except for this machine itself", endpoint)
	}
	return nil
}

// isLocal tells whether a host is this machine, by its name.
func isLocal(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// isPrivate tells whether a host is a literal address that no public hub redirects to.
func isPrivate(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified())
}
