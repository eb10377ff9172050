package hub

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Cached is a repository in the cache.
type Cached struct {
	Repo       // Revision is empty
	Dir        string
	Size       int64 // of all contents, each counted once
	Incomplete int64 // bytes of downloads that have not ended
	Snapshots  []Snapshot
}

// Snapshot is a commit of which files are in the cache.
type Snapshot struct {
	Commit string
	Dir    string
	Refs   []string // branches and tags that were last seen at it
	Files  int
	Size   int64
	Time   time.Time // of the newest content
}

// Scan lists the cache's repositories by name, those of huggingface_hub among them. A
// cache that isn't there is empty.
func Scan(cache string) ([]Cached, error) {
	entries, err := os.ReadDir(cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	var all []Cached
	for _, e := range entries {
		repo, ok := repoOfFolder(e.Name())
		if !ok {
			continue
		}
		c, err := scanRepo(cache, repo)
		if err != nil {
			return nil, err
		}
		if len(c.Snapshots) > 0 || c.Incomplete > 0 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b Cached) int { return cmp.Or(compareBool(a.Dataset, b.Dataset), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// repoOfFolder reads models--ORG--NAME.
func repoOfFolder(name string) (Repo, bool) {
	kind, id, ok := strings.Cut(name, "--")
	if !ok || kind != "models" && kind != "datasets" {
		return Repo{}, false
	}
	r, err := ParseRepo(strings.ReplaceAll(id, "--", "/"), kind == "datasets")
	if err != nil {
		return Repo{}, false
	}
	r.Revision = ""
	return r, true
}

func scanRepo(cache string, repo Repo) (Cached, error) {
	c := Cached{Repo: repo, Dir: filepath.Join(cache, repo.folder())}
	refs := map[string][]string{}
	root := filepath.Join(c.Dir, "refs")
	filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		text, err := os.ReadFile(path)
		name, rerr := filepath.Rel(root, path)
		if commit := strings.TrimSpace(string(text)); errors.Join(err, rerr) == nil && commitHash.MatchString(commit) {
			refs[commit] = append(refs[commit], filepath.ToSlash(name))
		}
		return nil
	})
	snapshots, err := os.ReadDir(filepath.Join(c.Dir, "snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("cache: %w", err)
	}
	contents := map[string]int64{}
	for _, e := range snapshots {
		if !commitHash.MatchString(e.Name()) {
			continue
		}
		s := Snapshot{Commit: e.Name(), Dir: filepath.Join(c.Dir, "snapshots", e.Name()), Refs: refs[e.Name()]}
		for _, content := range s.contents() {
			info, err := os.Stat(content)
			if err != nil {
				continue // a link to what is gone
			}
			s.Files++
			s.Size += info.Size()
			contents[content] = info.Size()
			if info.ModTime().After(s.Time) {
				s.Time = info.ModTime()
			}
		}
		slices.Sort(s.Refs)
		c.Snapshots = append(c.Snapshots, s)
	}
	for _, n := range contents {
		c.Size += n
	}
	blobs, _ := os.ReadDir(filepath.Join(c.Dir, "blobs"))
	for _, b := range blobs {
		if info, err := b.Info(); err == nil && strings.HasSuffix(b.Name(), ".incomplete") {
			c.Incomplete += max(allocated(info), 0)
		}
	}
	return c, nil
}

// contents are the files that a snapshot's links lead to, or the files themselves where
// there are no links.
func (s *Snapshot) contents() []string {
	var out []string
	filepath.WalkDir(s.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if to, err := os.Readlink(path); err == nil {
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(path), to)
			}
			path = to
		}
		out = append(out, path)
		return nil
	})
	return out
}

// Remove takes a repository out of the cache or, where repo names a revision, that snapshot
// and the contents that no other snapshot has. It returns the bytes that this frees. A
// repository that a program is downloading stays.
func Remove(cache string, repo Repo) (freed int64, err error) {
	dir := filepath.Join(cache, repo.folder())
	if _, err := os.Stat(dir); err != nil {
		what := repo
		what.Revision = DefaultRevision
		return 0, &problem{ErrNotFound, fmt.Sprintf("%s: not in the cache %s", what, cache)}
	}
	unlock, err := lockAll(cache, repo)
	if err != nil {
		return 0, err
	}
	defer unlock()
	c, err := scanRepo(cache, repo)
	if err != nil {
		return 0, err
	}
	if repo.Revision == "" {
		return c.Size + c.Incomplete, removeFolder(cache, repo)
	}
	at := slices.IndexFunc(c.Snapshots, func(s Snapshot) bool { return s.Commit == repo.Revision || slices.Contains(s.Refs, repo.Revision) })
	if at < 0 {
		return 0, &problem{ErrNotFound, absent(dir, repo)}
	}
	if len(c.Snapshots) == 1 {
		return c.Size + c.Incomplete, removeFolder(cache, repo)
	}
	return removeSnapshot(c, at)
}

// removeFolder takes the whole repository away. Links in it are not followed.
func removeFolder(cache string, repo Repo) error {
	root, err := os.OpenRoot(cache)
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	defer root.Close()
	if err := root.RemoveAll(repo.folder()); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

func removeSnapshot(c Cached, at int) (freed int64, err error) {
	s := c.Snapshots[at]
	kept := map[string]bool{}
	for i, other := range c.Snapshots {
		if i != at {
			for _, content := range other.contents() {
				kept[content] = true
			}
		}
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return 0, fmt.Errorf("cache: %w", err)
	}
	defer root.Close()
	contents := s.contents()
	for _, ref := range s.Refs {
		if err := root.Remove("refs/" + ref); err != nil {
			return 0, fmt.Errorf("cache: %w", err)
		}
	}
	if err := root.RemoveAll("snapshots/" + s.Commit); err != nil {
		return 0, fmt.Errorf("cache: %w", err)
	}
	if err := root.RemoveAll(".no_exist/" + s.Commit); err != nil {
		return 0, fmt.Errorf("cache: %w", err)
	}
	blobs := filepath.Join(c.Dir, "blobs")
	for _, content := range contents {
		if kept[content] {
			continue
		}
		kept[content] = true // counted once
		if filepath.Dir(content) == blobs {
			info, err := root.Lstat("blobs/" + filepath.Base(content))
			if err != nil {
				continue
			}
			if err := root.Remove("blobs/" + filepath.Base(content)); err != nil {
				return freed, fmt.Errorf("cache: %w", err)
			}
			freed += info.Size()
		}
	}
	return freed, nil
}

// lockAll takes every lock of a repository that there is, and fails if a program has one.
func lockAll(cache string, repo Repo) (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			unlockFile(f)
			f.Close()
		}
	}
	dir := filepath.Join(cache, ".locks", repo.folder())
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lock") {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, e.Name()), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if err := tryLock(f); err != nil {
			f.Close()
			unlock()
			return nil, fmt.Errorf("%s: a program is downloading it; wait for it or end it first", repo.ID)
		}
		held = append(held, f)
	}
	return unlock, nil
}
