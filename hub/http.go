package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds of what a server may make us do.
const (
	maxRedirects = 10
	maxJSON      = 64 << 20 // bytes of an answer of the API
	longestPause = 5 * time.Minute
)

// send makes one request and follows redirects itself: within the hub's host with the
// token, to another host without it. With stay, a redirect to another host is the answer.
// An answer that is no success comes back as a *statusError. A server that sends nothing
// for Client.Stall is given up, before its answer and within its body.
func (c *Client) send(ctx context.Context, method, address string, header http.Header, stay bool) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stalled := fmt.Errorf("nothing came for %s", c.Stall)
	w := &watched{ctx: ctx, cancel: cancel, stall: c.Stall}
	w.timer = time.AfterFunc(c.Stall, func() { cancel(connectionError{stalled}) })
	resp, err := c.follow(w, method, address, header, stay)
	if err != nil {
		w.timer.Stop()
		cancel(nil)
		return resp, err
	}
	w.ReadCloser = resp.Body
	resp.Body = w
	return resp, nil
}

// watched is a body that resets, with every byte, the timer that gives it up.
type watched struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(w.stall)
	}
	if err != nil && err != io.EOF && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.cancel(nil)
	return err
}

func (c *Client) follow(w *watched, method, address string, header http.Header, stay bool) (*http.Response, error) {
	base, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	for range maxRedirects {
		w.timer.Reset(w.stall)
		req, err := http.NewRequestWithContext(w.ctx, method, at.String(), nil)
		if err != nil {
			return nil, err
		}
		for k, v := range header {
			req.Header[k] = v
		}
		req.Header.Set("User-Agent", c.Agent)
		req.Header.Set("Accept-Encoding", "identity")
		if c.Token != "" && sameOrigin(at, base) {
			req.Header.Set("Authorization", "Bearer "+c.Token)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, connection(w.ctx, err)
		}
		if !isRedirect(resp) {
			if resp.StatusCode/100 != 2 {
				c.noteRetryAfter(resp)
				drain(resp)
				return resp, newStatusError(resp)
			}
			return resp, nil
		}
		next, err := at.Parse(resp.Header.Get("Location"))
		if err != nil {
			drain(resp)
			return nil, fmt.Errorf("%s redirects to an address that is none: %w", hostOf(at), err)
		}
		if err := checkRedirect(base, at, next); err != nil {
			drain(resp)
			return nil, err
		}
		if stay && !sameOrigin(next, at) {
			drain(resp)
			resp.Header.Set("Location", next.String())
			return resp, nil
		}
		drain(resp)
		at = next
	}
	return nil, &problem{errors.New("redirects"), fmt.Sprintf("%s: more than %d redirects, one after another", hostOf(at), maxRedirects)}
}

// checkRedirect refuses redirects that give up encryption, or lead from a public hub
// into this machine or its network.
func checkRedirect(base, from, to *url.URL) error {
	refuse := func(why string) error {
		return &problem{errors.New("redirect"), fmt.Sprintf("%s redirects to %s://%s, which is refused: %s", hostOf(from), to.Scheme, to.Host, why)}
	}
	switch {
	case to.Scheme != "https" && to.Scheme != "http" || to.Host == "":
		return refuse("not an address of the web")
	case to.Scheme == "http" && base.Scheme == "https":
		return refuse("it gives up encryption")
	case isPrivate(to.Hostname()) && !isPrivate(base.Hostname()):
		return refuse("an address within this network")
	case to.Scheme == "http" && !isLocal(to.Hostname()):
		return refuse("only https is used, except for this machine itself")
	}
	return nil
}

// sameOrigin tells whether two addresses are of one scheme, host and port.
func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

func isRedirect(r *http.Response) bool {
	switch r.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return r.Header.Get("Location") != ""
	}
	return false
}

// drain lets a connection be used again.
func drain(r *http.Response) {
	io.Copy(io.Discard, io.LimitReader(r.Body, 64<<10))
	r.Body.Close()
}

func hostOf(u *url.URL) string {
	if u == nil {
		return "the hub"
	}
	return u.Host
}

// connectionError is a failure below HTTP, worth another try.
type connectionError struct{ error }

func (e connectionError) Unwrap() error { return e.error }

// connection takes the address off an error of net/http: a signed one is long, and secret.
func connection(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause // the server stalled, or the person has enough
	}
	var u *url.Error
	if errors.As(err, &u) {
		host := "the hub"
		if at, perr := url.Parse(u.URL); perr == nil {
			host = at.Host
		}
		return connectionError{fmt.Errorf("%s: %w", host, u.Err)}
	}
	return connectionError{err}
}

// retryAfterKey carries the pause that an answer asks for from send to again.
const retryAfterKey = "X-Ringtail-Retry-After"

// noteRetryAfter finds the pause that an answer asks for: Retry-After in seconds or as a
// date, or the hub's RateLimit ("api";r=0;t=42).
func (c *Client) noteRetryAfter(r *http.Response) {
	pause := time.Duration(-1)
	if v := r.Header.Get("Retry-After"); v != "" {
		if s, err := strconv.ParseUint(strings.TrimSpace(v), 10, 31); err == nil {
			pause = time.Duration(s) * time.Second
		} else if at, err := http.ParseTime(v); err == nil {
			pause = max(at.Sub(c.now()), 0)
		}
	} else if v := r.Header.Get("RateLimit"); v != "" && r.StatusCode == http.StatusTooManyRequests {
		for _, field := range strings.Split(v, ";") {
			if s, ok := strings.CutPrefix(strings.TrimSpace(field), "t="); ok {
				if n, err := strconv.ParseUint(s, 10, 31); err == nil {
					pause = time.Duration(n) * time.Second
				}
			}
		}
	}
	r.Header.Del(retryAfterKey)
	if pause >= 0 {
		r.Header.Set(retryAfterKey, pause.String())
	}
}

// again decides whether a request that failed is to be made once more, and waits until
// then: as long as the server asks, or 1, 2, 4, … seconds. failed counts the tries in a row
// that brought nothing. It returns nil to try again.
func (c *Client) again(ctx context.Context, failed int, resp *http.Response, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var s *statusError
	var conn connectionError
	if !(errors.As(err, &s) && s.retry()) && !errors.As(err, &conn) {
		return err
	}
	if failed >= c.Tries {
		return fmt.Errorf("%w (tried %d times; run the command again to go on)", err, failed)
	}
	pause := min(time.Second<<(failed-1), 30*time.Second)
	if resp != nil {
		if d, perr := time.ParseDuration(resp.Header.Get(retryAfterKey)); perr == nil {
			if d > longestPause {
				return fmt.Errorf("%w; it asks to wait %s: run the command again then", err, d)
			}
			pause = d
		}
	}
	c.Note(fmt.Sprintf("%v; trying again in %s", err, pause))
	return c.sleep(ctx, pause)
}

// getJSON asks the API, and returns the address of the next page, if there is one.
func (c *Client) getJSON(ctx context.Context, address string, into any) (next string, err error) {
	for failed := 0; ; {
		resp, err := c.send(ctx, http.MethodGet, address, nil, false)
		if err == nil {
			err = readJSON(resp, into)
			if err == nil {
				return nextPage(resp), nil
			}
		}
		failed++
		if err := c.again(ctx, failed, resp, err); err != nil {
			return "", err
		}
	}
}

func readJSON(resp *http.Response, into any) error {
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxJSON+1))
	if err != nil {
		return connectionError{fmt.Errorf("%s: %w", hostOf(resp.Request.URL), err)}
	}
	if len(text) > maxJSON {
		return fmt.Errorf("%s: an answer of more than %d bytes", hostOf(resp.Request.URL), maxJSON)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: an answer that is not the hub's (%w): is HF_ENDPOINT right, and no proxy in between?", hostOf(resp.Request.URL), err)
	}
	return nil
}

// nextPage is the address in Link: <…>; rel="next".
func nextPage(r *http.Response) string {
	for _, link := range r.Header.Values("Link") {
		for _, part := range strings.Split(link, ",") {
			target, params, ok := strings.Cut(strings.TrimSpace(part), ">")
			if ok && strings.HasPrefix(target, "<") && strings.Contains(params, `rel="next"`) {
				if u, err := r.Request.URL.Parse(target[1:]); err == nil {
					return u.String()
				}
			}
		}
	}
	return ""
}
