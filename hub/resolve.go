package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Find is the folder of a repository's snapshot in the cache. An error is ErrNotFound.
func (c *Client) Find(repo Repo) (string, error) { return find(c.Cache, repo) }

func find(cache string, repo Repo) (string, error) {
	dir := filepath.Join(cache, repo.folder())
	commit := repo.Revision
	if !commitHash.MatchString(commit) {
		text, err := os.ReadFile(filepath.Join(dir, "refs", filepath.FromSlash(repo.Revision)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("cache: %w", err)
		}
		if commit = strings.TrimSpace(string(text)); err != nil || !commitHash.MatchString(commit) {
			return "", &problem{ErrNotFound, absent(dir, repo)}
		}
	}
	snapshot := filepath.Join(dir, "snapshots", commit)
	if info, err := os.Stat(snapshot); err != nil || !info.IsDir() {
		return "", &problem{ErrNotFound, absent(dir, repo)}
	}
	return snapshot, nil
}

// absent says that a repository isn't in the cache, at least not at that revision.
func absent(dir string, repo Repo) string {
	what := repo.String()
	if repo.Dataset {
		what += " --dataset"
	}
	var others []string
	entries, _ := os.ReadDir(filepath.Join(dir, "snapshots"))
	for _, e := range entries {
		if commitHash.MatchString(e.Name()) {
			others = append(others, e.Name())
		}
	}
	slices.Sort(others)
	if len(others) > 3 {
		others = others[:3]
	}
	if len(others) > 0 {
		return fmt.Sprintf("%s: not in the cache at revision %s; to download it: ringtail pull %s (in the cache: %s@%s)",
			repo.ID, repo.Revision, what, repo.ID, strings.Join(others, ", @"))
	}
	return fmt.Sprintf("%s: no such file or folder here, and not in the cache of the hub; to download it: ringtail pull %s", repo, what)
}

// Resolve finds a model by what a person calls it: a path, if there is one; else the
// snapshot in the cache of ORG/NAME[@REV]. Nothing is downloaded. Names that can
// only be paths come back as they are, for their reader to say what is wrong.
func Resolve(name string) (string, error) {
	dir, isRepo, err := cached(name, false)
	switch {
	case !isRepo, err != nil && !strings.Contains(name, "/"): // a path is likelier to be meant
		return name, nil
	case err != nil:
		return "", err
	}
	return loneGGUF(dir)
}

// ResolveData finds a data set by what a person calls it: a path, if there is one;
// else the snapshot in the cache of ORG/NAME[@REV]. What is neither comes back as it is,
// since a file's name looks like one on the hub.
func ResolveData(name string) string {
	if strings.Count(name, "/") != 1 {
		return name
	}
	dir, isRepo, err := cached(name, true)
	if !isRepo || err != nil {
		return name
	}
	return dir
}

// cached finds the snapshot of what may be a repository's name, and tells whether it
// may be: no path is called so.
func cached(name string, dataset bool) (dir string, isRepo bool, err error) {
	if _, err := os.Stat(name); name == "" || !errors.Is(err, fs.ErrNotExist) || !mayBeRepo(name) {
		return "", false, nil
	}
	repo, err := ParseRepo(name, dataset)
	if err != nil {
		return "", false, nil
	}
	cache, err := CacheDir()
	if err != nil {
		return "", true, err
	}
	dir, err = find(cache, repo)
	return dir, true, err
}

// loneGGUF is the GGUF file of a snapshot that holds nothing else that is a model.
func loneGGUF(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, "config.json")); err == nil {
		return dir, nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.gguf"))
	if err != nil || len(files) == 0 {
		return dir, nil
	}
	slices.Sort(files)
	if len(files) > 1 && ggufShard.FindStringSubmatch(files[0]) == nil {
		return "", fmt.Errorf("%s holds %d GGUF files: name the one you want, as in %s", dir, len(files), files[0])
	}
	return files[0], nil
}

// mayBeRepo tells names on the hub from paths.
func mayBeRepo(name string) bool {
	if filepath.IsAbs(name) || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "~") || strings.HasSuffix(name, "/") || strings.Contains(name, `\`) {
		return false
	}
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json", ".gguf", ".safetensors", ".bin", ".pt", ".pth", ".model", ".yaml":
		return false
	}
	return strings.Count(name, "/") <= 1
}
