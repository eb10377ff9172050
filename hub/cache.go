package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"ringtail/atomicfile"
)

// store is a repository's folder in the cache. All writing goes through root, which
// no name leads out of.
type store struct {
	cache string
	repo  Repo
	dir   string
	root  *os.Root
}

// cacheTag marks the cache for backup programs: https://bford.info/cachedir/
const cacheTag = "Signature: 8a477f597d28d172789f06886806bc55\n" +
	"# This file is a cache directory tag that marks a cache of models and data sets.\n"

// openStore opens a repository's folder, made if it isn't there.
func openStore(cache string, repo Repo) (*store, error) {
	dir := filepath.Join(cache, repo.folder())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	tag := filepath.Join(cache, "CACHEDIR.TAG")
	if _, err := os.Stat(tag); errors.Is(err, fs.ErrNotExist) {
		_ = os.WriteFile(tag, []byte(cacheTag), 0o666) // of no importance
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	s := &store{cache: cache, repo: repo, dir: dir, root: root}
	for _, d := range []string{"blobs", "refs", "snapshots"} {
		if err := root.MkdirAll(d, 0o777); err != nil {
			root.Close()
			return nil, s.failed("create", d, err)
		}
	}
	return s, nil
}

func (s *store) close() { s.root.Close() }

// failed names the file in the cache and, for a full disk, what to do.
func (s *store) failed(op, name string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	}
	at := filepath.Join(s.dir, filepath.FromSlash(name))
	if isFull(err) {
		return fmt.Errorf("%s %s: %w: free some space, or put the cache elsewhere with HF_HOME, and run the command again; it goes on where it stopped", op, at, err)
	}
	return fmt.Errorf("%s %s: %w", op, at, err)
}

// snapshot is the folder of a commit.
func (s *store) snapshot(commit string) string { return filepath.Join(s.dir, "snapshots", commit) }

// has tells whether a commit's file is in the cache, with the size that it is to have (−1: any).
func (s *store) has(commit, file string, size int64) bool {
	info, err := os.Stat(filepath.Join(s.snapshot(commit), filepath.FromSlash(file)))
	return err == nil && info.Mode().IsRegular() && (size < 0 || info.Size() == size)
}

// hasBlob tells whether a content is in the cache. huggingface_hub may keep it
// elsewhere and leave a link here.
func (s *store) hasBlob(etag string, size int64) bool {
	info, err := os.Stat(filepath.Join(s.dir, "blobs", etag))
	return err == nil && info.Mode().IsRegular() && (size < 0 || info.Size() == size)
}

// link makes a commit's file of a blob: a relative link or, where there are none, a copy.
func (s *store) link(commit, file, etag string) error {
	name := path.Join("snapshots", commit, file)
	if err := s.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return s.failed("create", path.Dir(name), err)
	}
	target := strings.Repeat("../", strings.Count(name, "/")) + "blobs/" + etag
	if old, err := s.root.Readlink(name); err == nil && filepath.ToSlash(old) == target {
		return nil
	}
	temp := "blobs/" + tempName("link") // not beside its place: who lists a snapshot must not find it
	err := s.root.Symlink(filepath.FromSlash(target), temp)
	if err != nil {
		// Windows without the right to make links, some network disks.
		err = s.copyBlob(etag, temp)
	}
	if err == nil {
		err = s.root.Rename(temp, name)
	}
	if err != nil {
		s.root.Remove(temp)
		return s.failed("link", name, err)
	}
	return nil
}

// copyBlob is a hard link or, where there are none either, a copy.
func (s *store) copyBlob(etag, to string) error {
	from := "blobs/" + etag
	if s.root.Link(from, to) == nil {
		return nil
	}
	in, err := s.root.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := s.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}

// tempName is a name that nobody else takes.
func tempName(what string) string {
	return fmt.Sprintf(".%s.%d.%x.tmp", what, os.Getpid(), time.Now().UnixNano())
}

// setRef notes the commit that a branch or tag is at.
func (s *store) setRef(rev, commit string) error {
	if rev == commit {
		return nil
	}
	name := "refs/" + rev
	if old, err := s.root.ReadFile(name); err == nil && string(old) == commit {
		return nil
	}
	if err := s.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return s.failed("create", path.Dir(name), err)
	}
	return atomicfile.WriteBytes(filepath.Join(s.dir, filepath.FromSlash(name)), 0o666, []byte(commit))
}

// markAbsent notes that a commit lacks a file, as huggingface_hub does. It is a help, not a need.
func (c *Client) markAbsent(repo Repo, commit, file string) {
	s, err := openStore(c.Cache, repo)
	if err != nil {
		return
	}
	defer s.close()
	name := path.Join(".no_exist", commit, file)
	if s.root.MkdirAll(path.Dir(name), 0o777) == nil {
		_ = s.root.WriteFile(name, nil, 0o666)
	}
}

// lockPath is the file that huggingface_hub locks while it downloads a blob.
func (s *store) lockPath(etag string) (string, error) {
	dir := filepath.Join(s.cache, ".locks", s.repo.folder())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("cache: %w", err)
	}
	return filepath.Join(dir, etag+".lock"), nil
}
