package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// RemoteFile is a file of a repository, as the hub lists it.
type RemoteFile struct {
	Name string
	Size int64  // −1 where the list doesn't say
	Hash string // the name of its blob: SHA-256 of a large file, git's hash of a small one; "" if not said
}

const maxFiles = 1_000_000

// list finds the commit that a revision is at, and its files.
func (c *Client) list(ctx context.Context, repo Repo) (commit string, files []RemoteFile, err error) {
	base := fmt.Sprintf("%s/api/%ss/%s", c.Endpoint, repo.kind(), repo.ID)
	var info struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Name string `json:"rfilename"`
		} `json:"siblings"`
	}
	if _, err := c.getJSON(ctx, base+"/revision/"+url.PathEscape(repo.Revision), &info); err != nil {
		return "", nil, c.explain(repo, "", err)
	}
	if !commitHash.MatchString(info.SHA) {
		return "", nil, fmt.Errorf("%s: the hub names the commit %q, expected 40 hex digits", repo, printable(info.SHA))
	}
	if commitHash.MatchString(repo.Revision) && info.SHA != repo.Revision {
		return "", nil, fmt.Errorf("%s: the hub answers with another commit, %s", repo, info.SHA)
	}
	files, err = c.tree(ctx, base+"/tree/"+info.SHA+"?recursive=true")
	var s *statusError
	if errors.As(err, &s) && (s.status == http.StatusNotFound || s.status == http.StatusNotImplemented) {
		files, err = nil, nil // a mirror that has no such list; sizes come with each file
		for _, f := range info.Siblings {
			files = append(files, RemoteFile{Name: f.Name, Size: -1})
		}
	}
	if err != nil {
		return "", nil, c.explain(repo, "", err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		if err := checkFile(f.Name); err != nil {
			return "", nil, fmt.Errorf("%s: %w", repo, err)
		}
		if seen[f.Name] {
			return "", nil, fmt.Errorf("%s: the hub lists %s twice", repo, f.Name)
		}
		seen[f.Name] = true
	}
	return info.SHA, files, nil
}

// tree lists the files of a commit with their sizes, page by page.
func (c *Client) tree(ctx context.Context, address string) ([]RemoteFile, error) {
	var files []RemoteFile
	for address != "" {
		var page []struct {
			Type string `json:"type"`
			Path string `json:"path"`
			Size int64  `json:"size"`
			OID  string `json:"oid"`
			LFS  *struct {
				OID  string `json:"oid"`
				Size int64  `json:"size"`
			} `json:"lfs"`
		}
		next, err := c.getJSON(ctx, address, &page)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			if e.Type != "file" {
				continue
			}
			f := RemoteFile{Name: e.Path, Size: e.Size, Hash: e.OID}
			if e.LFS != nil {
				f.Size, f.Hash = e.LFS.Size, e.LFS.OID
			}
			if f.Size < 0 || f.Hash != "" && !etagName.MatchString(f.Hash) {
				return nil, fmt.Errorf("%s: the hub lists a size of %d bytes and the hash %q", printable(f.Name), f.Size, printable(f.Hash))
			}
			files = append(files, f)
		}
		if len(files) > maxFiles {
			return nil, fmt.Errorf("a repository of more than %d files", maxFiles)
		}
		if next != "" && len(page) == 0 {
			return nil, errors.New("the hub's list of files has an empty page and no end")
		}
		if next != "" {
			if err := c.samePlace(next); err != nil {
				return nil, err
			}
		}
		address = next
	}
	return files, nil
}

// samePlace refuses a next page elsewhere.
func (c *Client) samePlace(address string) error {
	a, err1 := url.Parse(address)
	b, err2 := url.Parse(c.Endpoint)
	if errors.Join(err1, err2) != nil || !sameOrigin(a, b) {
		return fmt.Errorf("the hub's list of files goes on at another host, which is refused")
	}
	return nil
}

// metadata is what the hub says of one file before it sends it.
type metadata struct {
	etag     string
	size     int64
	location string // where the content is: at the hub, or signed, at another host
}

// metadata asks for a file's hash, size and place. Large files lie at another host; the
// redirect there carries the headers, and is not followed.
func (c *Client) metadata(ctx context.Context, repo Repo, commit, file string) (metadata, error) {
	address := c.resolveURL(repo, commit, file)
	for failed := 0; ; {
		resp, err := c.send(ctx, http.MethodHead, address, nil, true)
		if err == nil {
			resp.Body.Close()
			return readMetadata(resp, commit, file)
		}
		failed++
		if aerr := c.again(ctx, failed, resp, err); aerr != nil {
			var s *statusError
			if errors.As(aerr, &s) && s.code == "EntryNotFound" && resp.Header.Get("X-Repo-Commit") == commit {
				c.markAbsent(repo, commit, file)
			}
			return metadata{}, c.explain(repo, file, aerr)
		}
	}
}

func (c *Client) resolveURL(repo Repo, commit, file string) string {
	parts := strings.Split(file, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return repo.page(c.Endpoint) + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}

func readMetadata(resp *http.Response, commit, file string) (metadata, error) {
	h := resp.Header
	if got := h.Get("X-Repo-Commit"); got != commit {
		if got == "" {
			return metadata{}, fmt.Errorf("%s: the answer has no X-Repo-Commit, so it is not the hub's: is HF_ENDPOINT right, and no proxy in between?", file)
		}
		return metadata{}, fmt.Errorf("%s: the hub answers with commit %s, expected %s", file, printable(got), commit)
	}
	etag := h.Get("X-Linked-Etag")
	if etag == "" {
		etag = h.Get("ETag")
	}
	etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
	if !etagName.MatchString(etag) || strings.Contains(etag, "..") {
		return metadata{}, fmt.Errorf("%s: the hub gives the ETag %q, expected a hash", file, printable(etag))
	}
	m := metadata{etag: etag, size: -1, location: resp.Request.URL.String()}
	size := h.Get("X-Linked-Size")
	if isRedirect(resp) {
		m.location = h.Get("Location")
	} else if size == "" {
		size = h.Get("Content-Length")
	}
	if size != "" {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n < 0 {
			return metadata{}, fmt.Errorf("%s: the hub gives the size %q", file, printable(size))
		}
		m.size = n
	}
	return m, nil
}
