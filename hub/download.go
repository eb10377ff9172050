package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
)

// download is a pull at work.
type download struct {
	*Client
	store  *store
	repo   Repo
	commit string
	slots  chan struct{} // one for each connection at a time
	count  *counter
}

// maxSize is more than any file on a hub has.
const maxSize = 1 << 43

// file brings one file into the cache, if it isn't there.
func (d *download) file(ctx context.Context, f RemoteFile) error {
	if d.store.has(d.commit, f.Name, f.Size) {
		d.count.had(f.Size)
		return nil
	}
	if f.Hash != "" && f.Size >= 0 && d.store.hasBlob(f.Hash, f.Size) {
		d.count.had(f.Size)
		return d.store.link(d.commit, f.Name, f.Hash)
	}
	if err := d.acquire(ctx); err != nil {
		return err
	}
	m, err := d.metadata(ctx, d.repo, d.commit, f.Name)
	d.release()
	if err != nil {
		return err
	}
	if m, err = agree(f, m); err != nil {
		return fmt.Errorf("%s: %w", d.repo, err)
	}
	if f.Size < 0 {
		d.count.grow(m.size)
	}
	path, err := d.store.lockPath(m.etag)
	if err != nil {
		return err
	}
	unlock, err := d.lock(ctx, path, f.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if d.store.hasBlob(m.etag, m.size) { // another program was faster
		d.count.had(m.size)
		return d.store.link(d.commit, f.Name, m.etag)
	}
	if err := d.blob(ctx, f.Name, m); err != nil {
		return err
	}
	return d.store.link(d.commit, f.Name, m.etag)
}

func (d *download) acquire(ctx context.Context) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *download) release() { <-d.slots }

// agree compares what the hub lists with what it says of the file itself.
func agree(f RemoteFile, m metadata) (metadata, error) {
	if f.Hash != "" && f.Hash != m.etag {
		return m, fmt.Errorf("%s: the hub lists the hash %s, and gives it as %s", f.Name, f.Hash, m.etag)
	}
	if f.Size >= 0 && m.size >= 0 && f.Size != m.size {
		return m, fmt.Errorf("%s: the hub lists %d bytes, and gives it as %d", f.Name, f.Size, m.size)
	}
	if m.size < 0 {
		m.size = f.Size
	}
	if m.size < 0 {
		return m, fmt.Errorf("%s: the hub doesn't say how long it is", f.Name)
	}
	if m.size > maxSize {
		return m, fmt.Errorf("%s: the hub says that it has %d bytes", f.Name, m.size)
	}
	return m, nil
}

// blob downloads a content under its lock. A wrong hash is tried once more from the start.
func (d *download) blob(ctx context.Context, name string, m metadata) error {
	temp := "blobs/" + m.etag + ".ringtail.incomplete"
	prefix := d.adopt(m.etag, temp)
	file, err := d.store.root.OpenFile(temp, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return d.store.failed("create", temp, err)
	}
	defer file.Close()
	p := newPartial(file, m.size, d.PartSize)
	p.adoptIfFresh(prefix)
	t := &transfer{download: d, name: name, meta: m, p: p, temp: temp}
	for attempt := 1; ; attempt++ {
		d.count.add(p.have(), false)
		err := t.run(ctx)
		if err == nil {
			err = t.check(ctx)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, ErrHash) {
			if ferr := p.flush(); ferr != nil && !isFull(ferr) {
				err = errors.Join(err, d.store.failed("write", temp, ferr))
			}
			return err
		}
		d.count.add(-p.have(), false)
		if attempt == 2 {
			file.Close()
			d.store.root.Remove(temp)
			return err
		}
		d.Note(fmt.Sprintf("%v; downloading it again from its start", err))
		if err := p.restart(p.part); err != nil {
			return d.store.failed("write", temp, err)
		}
	}
	if err := p.finish(); err != nil {
		return d.store.failed("write", temp, err)
	}
	if err := file.Close(); err != nil {
		return d.store.failed("write", temp, err)
	}
	if err := d.store.root.Rename(temp, "blobs/"+m.etag); err != nil {
		return d.store.failed("write", "blobs/"+m.etag, err)
	}
	d.count.finished()
	return nil
}

// adopt takes over what older versions of huggingface_hub left, which is the content's
// beginning; it returns its length.
func (d *download) adopt(etag, temp string) int64 {
	old := "blobs/" + etag + ".incomplete"
	info, err := d.store.root.Lstat(old)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	if _, err := d.store.root.Lstat(temp); !errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if d.store.root.Rename(old, temp) != nil {
		return 0
	}
	return info.Size()
}

func (p *partial) adoptIfFresh(n int64) {
	if p.have() == 0 && n > 0 {
		p.adopt(min(n, p.size))
	}
}

// transfer is the download of one content.
type transfer struct {
	*download
	name string
	p    *partial
	temp string

	whole bool // the server sends whole files only

	mu   sync.Mutex
	meta metadata
}

// errNoRanges is a server that sends whole files only.
var errNoRanges = errors.New("the server sends no parts of files")

// run brings what is missing, several parts at a time.
func (t *transfer) run(ctx context.Context) error {
	err := t.parts(ctx)
	if errors.Is(err, errNoRanges) {
		t.whole = true
		t.count.add(-t.p.have(), false)
		if err := t.p.restart(max(t.p.size, 1)); err != nil {
			return t.store.failed("write", t.temp, err)
		}
		err = t.parts(ctx)
	}
	return err
}

func (t *transfer) parts(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range t.p.done {
		if from, to := t.p.next(i); from == to {
			continue
		}
		if err := t.acquire(ctx); err != nil {
			cancel(err)
			break
		}
		wg.Go(func() {
			defer t.release()
			if err := t.one(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// one brings one part, over as many requests as it takes.
func (t *transfer) one(ctx context.Context, i int) error {
	for failed := 0; ; {
		from, to := t.p.next(i)
		if from == to {
			return nil
		}
		if t.whole && from > 0 {
			t.count.add(-from, false)
			t.p.rewind(i)
			from = 0
		}
		place := t.location()
		header := http.Header{}
		if from > 0 || to < t.p.size {
			header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
		}
		resp, err := t.send(ctx, http.MethodGet, place, header, false)
		if err == nil {
			err = t.receive(resp, i, from, to)
			if at, _ := t.p.next(i); at > from && !t.whole {
				failed = 0
			}
			if err == nil {
				continue
			}
		}
		failed++
		var s *statusError
		if errors.As(err, &s) {
			switch {
			case s.status == http.StatusRequestedRangeNotSatisfiable:
				return fmt.Errorf("%s: %s has fewer bytes than the %d that the hub says: try again later", t.name, s.url, t.p.size)
			case s.status/100 == 4 && !s.retry() && t.elsewhere(place) && failed < t.Tries:
				// Addresses at other hosts are signed, and hold for an hour or so.
				if err := t.refresh(ctx, place); err != nil {
					return err
				}
				continue
			}
		}
		if aerr := t.again(ctx, failed, resp, err); aerr != nil {
			if errors.Is(aerr, errNoRanges) || ctx.Err() != nil {
				return aerr
			}
			return fmt.Errorf("%s: %w", t.name, t.explain(t.repo, t.name, aerr))
		}
	}
}

// receive writes an answer's body into part i, of which bytes from … to−1 were asked for.
func (t *transfer) receive(resp *http.Response, i int, from, to int64) error {
	defer resp.Body.Close()
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return fmt.Errorf("%s: the server packs it (Content-Encoding %s), which was not asked for", t.name, printable(enc))
	}
	switch {
	case resp.StatusCode == http.StatusPartialContent:
		if err := checkRange(resp.Header.Get("Content-Range"), from, to, t.p.size); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	case from > 0 || to < t.p.size:
		return errNoRanges
	}
	if n := resp.ContentLength; n >= 0 && n != to-from {
		return fmt.Errorf("%s: the server sends %d bytes, expected %d", t.name, n, to-from)
	}
	buf := make([]byte, 256<<10)
	for from < to {
		n, err := resp.Body.Read(buf[:min(int64(len(buf)), to-from)])
		if n > 0 {
			if werr := t.p.write(i, buf[:n]); werr != nil {
				return t.store.failed("write", t.temp, werr)
			}
			t.count.add(int64(n), true)
			from += int64(n)
		}
		if err == io.EOF && from < to {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			var conn connectionError
			if errors.As(err, &conn) {
				return err
			}
			return connectionError{fmt.Errorf("%s: the connection broke (%w)", t.name, err)}
		}
	}
	return nil
}

// checkRange compares Content-Range: bytes FROM-LAST/SIZE with what was asked for.
func checkRange(header string, from, to, size int64) error {
	want := fmt.Sprintf("bytes %d-%d/%d", from, to-1, size)
	if strings.TrimSpace(header) == want {
		return nil
	}
	if span, total, ok := strings.Cut(header, "/"); ok && total == "*" && span == strings.TrimSuffix(want, "/"+strconv.FormatInt(size, 10)) {
		return nil
	}
	return fmt.Errorf("the server sends %q, expected %q", printable(header), want)
}

func (t *transfer) location() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.meta.location
}

// elsewhere tells whether an address is not the hub's.
func (t *transfer) elsewhere(address string) bool {
	a, err1 := url.Parse(address)
	b, err2 := url.Parse(t.Endpoint)
	return errors.Join(err1, err2) == nil && !sameOrigin(a, b)
}

// refresh asks the hub for another address, unless another part just has.
func (t *transfer) refresh(ctx context.Context, old string) error {
	if t.location() != old {
		return nil
	}
	m, err := t.metadata(ctx, t.repo, t.commit, t.name)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.etag != t.meta.etag {
		return fmt.Errorf("%s: the hub now gives it as %s, and did as %s", t.name, m.etag, t.meta.etag)
	}
	if m.location == old {
		return t.sleep(ctx, 0) // the next failure counts; nothing is gained by asking faster
	}
	t.meta.location = m.location
	return nil
}

// check compares the content's hash with the blob's name: SHA-256 of large files, of others
// git's, which is SHA-1 of "blob SIZE\0" and the content.
func (t *transfer) check(ctx context.Context) error {
	var h hash.Hash
	kind := "SHA-256"
	switch len(t.meta.etag) {
	case 64:
		h = sha256.New()
	case 40:
		h, kind = sha1.New(), "git hash"
		fmt.Fprintf(h, "blob %d\x00", t.p.size)
	default:
		return nil // a mirror's own
	}
	if _, err := hex.DecodeString(t.meta.etag); err != nil {
		return nil
	}
	r := &interruptible{ctx, io.NewSectionReader(t.p.f, 0, t.p.size)}
	if _, err := io.CopyBuffer(h, r, make([]byte, 1<<20)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return t.store.failed("read", t.temp, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, t.meta.etag) {
		return &problem{ErrHash, fmt.Sprintf("%s: its %s is %s, expected %s: the server, or something on the way, changes the content; nothing of it is kept", t.name, kind, got, t.meta.etag)}
	}
	return nil
}

// interruptible is a reader that ends with its context.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}
