package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// PullOptions say which of a repository's files are wanted. Patterns are those of
// huggingface_hub: * and ? match slashes, too.
type PullOptions struct {
	Include []string // files that match one; none: what Ringtail needs of a model, all of a data set
	Exclude []string // of those, not the ones that match one
}

// Pulled is what a pull has brought.
type Pulled struct {
	Dir     string // the snapshot's folder
	Commit  string
	Files   []RemoteFile
	LeftOut []RemoteFile // files that nobody asked for, and Ringtail has no use for
	Fresh   int64        // bytes that came over the network
}

// Status is how far a pull is.
type Status struct {
	Files, FilesDone int
	Bytes, BytesDone int64 // of all files, with what was in the cache
	Fresh            int64 // bytes that came over the network
}

// counter adds up a Status.
type counter struct {
	files, filesDone        atomic.Int64
	bytes, bytesDone, fresh atomic.Int64
}

func (c *counter) had(n int64) {
	c.filesDone.Add(1)
	c.bytesDone.Add(max(n, 0))
}

func (c *counter) finished()    { c.filesDone.Add(1) }
func (c *counter) grow(n int64) { c.bytes.Add(n) }

func (c *counter) add(n int64, fresh bool) {
	c.bytesDone.Add(n)
	if fresh {
		c.fresh.Add(n)
	}
}

func (c *counter) status() Status {
	return Status{Files: int(c.files.Load()), FilesDone: int(c.filesDone.Load()), Bytes: c.bytes.Load(), BytesDone: c.bytesDone.Load(), Fresh: c.fresh.Load()}
}

// filesAtOnce are in work at a time; their parts share Client.Connections.
const filesAtOnce = 4

// Pull brings a repository's files into the cache. After an error what has come stays, and
// another call goes on from there. The branch or tag is noted (refs) once all files are
// there: a snapshot that is found by its name is whole.
func (c *Client) Pull(ctx context.Context, repo Repo, opt PullOptions) (*Pulled, error) {
	if c.Offline {
		dir, err := c.Find(repo)
		if err != nil {
			return nil, &problem{ErrOffline, fmt.Sprintf("%s: HF_HUB_OFFLINE is set, and it is not in the cache %s", repo, c.Cache)}
		}
		return &Pulled{Dir: dir}, nil
	}
	filter, err := newFilter(opt)
	if err != nil {
		return nil, err
	}
	commit, all, err := c.list(ctx, repo)
	if err != nil {
		return nil, err
	}
	files, leftOut, err := filter.choose(repo, all)
	if err != nil {
		return nil, err
	}
	s, err := openStore(c.Cache, repo)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.root.MkdirAll("snapshots/"+commit, 0o777); err != nil {
		return nil, s.failed("create", "snapshots/"+commit, err)
	}
	d := &download{Client: c, store: s, repo: repo, commit: commit, slots: make(chan struct{}, max(1, c.Connections)), count: &counter{}}
	d.count.files.Store(int64(len(files)))
	missing := int64(0)
	for _, f := range files {
		d.count.bytes.Add(max(f.Size, 0))
		if !s.has(commit, f.Name, f.Size) && (f.Hash == "" || !s.hasBlob(f.Hash, f.Size)) {
			missing += max(f.Size, 0)
		}
	}
	if err := s.room(missing); err != nil {
		return nil, err
	}
	if err := d.all(ctx, files); err != nil {
		return nil, err
	}
	if err := s.setRef(repo.Revision, commit); err != nil {
		return nil, err
	}
	return &Pulled{Dir: s.snapshot(commit), Commit: commit, Files: files, LeftOut: leftOut, Fresh: d.count.fresh.Load()}, nil
}

// room refuses to begin what the disk can't hold. What earlier runs left is not
// counted: it is at most what they could write.
func (s *store) room(missing int64) error {
	free := freeSpace(s.dir)
	if free < 0 || missing <= free {
		return nil
	}
	entries, _ := os.ReadDir(s.dir + "/blobs")
	for _, e := range entries {
		if info, err := e.Info(); err == nil && len(e.Name()) > 11 && e.Name()[len(e.Name())-11:] == ".incomplete" {
			missing -= allocated(info)
		}
	}
	if missing <= free {
		return nil
	}
	return fmt.Errorf("%s: %s are to come, and the disk has %s: free some space, or put the cache elsewhere with HF_HOME", s.dir, Bytes(missing), Bytes(free))
}

// all downloads files, the small ones first, and reports meanwhile.
func (d *download) all(ctx context.Context, files []RemoteFile) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b RemoteFile) int { return cmp.Compare(a.Size, b.Size) })
	reports := make(chan struct{})
	go func() {
		defer close(reports)
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				d.Report(d.count.status())
			case <-ctx.Done():
				return
			}
		}
	}()
	var wg sync.WaitGroup
	work := make(chan struct{}, filesAtOnce)
	for _, f := range files {
		select {
		case work <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-work }()
			if err := d.file(ctx, f); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	err := context.Cause(ctx)
	cancel(errors.New("done"))
	<-reports
	d.Report(d.count.status())
	return err
}

// Bytes writes a size as people do.
func Bytes(n int64) string {
	for _, unit := range []struct {
		name string
		size float64
	}{{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}} {
		if v := float64(n) / unit.size; v >= 0.9995 {
			return fmt.Sprintf("%.3g %s", v, unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
