package hub

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Kinds of failures that a caller may want to tell apart.
var (
	ErrGated    = errors.New("gated")
	ErrNotFound = errors.New("not found")
	ErrOffline  = errors.New("offline")
	ErrHash     = errors.New("wrong hash")
)

// problem is an error with a kind and a message that says what to do.
type problem struct {
	kind error
	text string
}

func (p *problem) Error() string { return p.text }
func (p *problem) Unwrap() error { return p.kind }

// statusError is an answer of the hub that isn't a success; retry says whether another
// try may bring one.
type statusError struct {
	status int
	code   string // X-Error-Code
	text   string // X-Error-Message
	url    string
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s answers %d %s", e.url, e.status, http.StatusText(e.status))
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

func (e *statusError) retry() bool {
	switch e.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// newStatusError reads what the hub says of a failure in its headers.
func newStatusError(r *http.Response) *statusError {
	return &statusError{status: r.StatusCode, code: r.Header.Get("X-Error-Code"), text: printable(r.Header.Get("X-Error-Message")), url: hostOf(r.Request.URL)}
}

// printable makes a server's text fit into a line of ours.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}

// explain turns an answer about a repository, or a file in it, into what a person can act on.
func (c *Client) explain(repo Repo, file string, err error) error {
	var s *statusError
	if !errors.As(err, &s) {
		return err
	}
	page := repo.page(c.Endpoint)
	what := repo.kind()
	if what == "dataset" {
		what = "data set"
	}
	switch {
	case s.code == "GatedRepo" || s.status == http.StatusForbidden && strings.Contains(s.text, "gated"):
		if c.Token == "" {
			return &problem{ErrGated, fmt.Sprintf("%s is gated: accept its licence at %s, then set HF_TOKEN to a token of that account (%s/settings/tokens)", repo.ID, page, c.Endpoint)}
		}
		return &problem{ErrGated, fmt.Sprintf("%s is gated, and the account of your token has no access: accept its licence at %s", repo.ID, page)}
	case s.code == "RevisionNotFound":
		return &problem{ErrNotFound, fmt.Sprintf("%s has no revision %q; see %s/tree/main for its branches and tags", repo.ID, repo.Revision, page)}
	case s.code == "EntryNotFound":
		return &problem{ErrNotFound, fmt.Sprintf("%s has no file %s", repo, file)}
	case s.status == http.StatusUnauthorized && c.Token != "" && s.code != "RepoNotFound":
		return &problem{s, fmt.Sprintf("%s: your token is not valid (401%s): make a new one at %s/settings/tokens and set HF_TOKEN", repo.ID, colon(s.text), c.Endpoint)}
	case s.status == http.StatusUnauthorized || s.code == "RepoNotFound" || s.status == http.StatusNotFound:
		if c.Token == "" {
			return &problem{ErrNotFound, fmt.Sprintf("%s: no such %s at %s, or a private one: check the name; if you have access, set HF_TOKEN", repo.ID, what, c.Endpoint)}
		}
		return &problem{ErrNotFound, fmt.Sprintf("%s: no such %s at %s, or your token has no access to it: check the name", repo.ID, what, c.Endpoint)}
	case s.status == http.StatusForbidden:
		return &problem{s, fmt.Sprintf("%s: access refused (403%s): see %s", repo.ID, colon(s.text), page)}
	}
	return fmt.Errorf("%s: %w", repo.ID, err)
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}
