package hub

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Repo is a repository at a revision.
type Repo struct {
	Dataset  bool
	ID       string // ORG/NAME, or NAME of the oldest models
	Revision string // branch, tag or commit
}

// DefaultRevision is the branch that is meant where none is named.
const DefaultRevision = "main"

var (
	idPart     = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$`)
	revision   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}$`)
	commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)
	etagName   = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)
)

// ParseRepo reads ORG/NAME[@REV]. Rules of names are huggingface_hub's, so that one
// name is always one folder of the cache.
func ParseRepo(name string, dataset bool) (Repo, error) {
	id, rev, hasRev := strings.Cut(name, "@")
	if !hasRev {
		rev = DefaultRevision
	}
	parts := strings.Split(id, "/")
	bad := func(why string) (Repo, error) {
		return Repo{}, fmt.Errorf("%q is no name on the hub (%s); expected ORG/NAME or ORG/NAME@REVISION", name, why)
	}
	switch {
	case len(parts) > 2:
		return bad("more than one /")
	case len(id) > 96:
		return bad("longer than 96 characters")
	case strings.Contains(id, "--") || strings.Contains(id, ".."):
		return bad("-- and .. are not allowed")
	case strings.HasSuffix(id, ".git"):
		return bad(".git at its end")
	}
	for _, p := range parts {
		if !idPart.MatchString(p) {
			return bad("letters, digits, -, _ and . only, neither - nor . first or last")
		}
	}
	if err := checkRevision(rev); err != nil {
		return Repo{}, fmt.Errorf("%q: %w", name, err)
	}
	return Repo{Dataset: dataset, ID: id, Revision: rev}, nil
}

// checkRevision keeps a revision from leaving the folder refs.
func checkRevision(rev string) error {
	if !revision.MatchString(rev) || strings.Contains(rev, "..") || strings.Contains(rev, "//") || path.Clean(rev) != rev ||
		strings.HasSuffix(rev, ".lock") || strings.HasSuffix(rev, ".tmp") {
		return fmt.Errorf("revision %q is none that git allows", rev)
	}
	return nil
}

// String is how a person writes the repository.
func (r Repo) String() string {
	if r.Revision == DefaultRevision {
		return r.ID
	}
	return r.ID + "@" + r.Revision
}

// kind is the hub's word for what the repository holds.
func (r Repo) kind() string {
	if r.Dataset {
		return "dataset"
	}
	return "model"
}

// folder is the repository's folder in the cache.
func (r Repo) folder() string { return r.kind() + "s--" + strings.ReplaceAll(r.ID, "/", "--") }

// page is the repository's address for people.
func (r Repo) page(endpoint string) string {
	if r.Dataset {
		return endpoint + "/datasets/" + r.ID
	}
	return endpoint + "/" + r.ID
}

// checkFile refuses names of files that would lead out of their folder, or mean
// something else on another system.
func checkFile(name string) error {
	refuse := func(why string) error {
		if len(name) > 200 {
			name = name[:200] + "..."
		}
		return fmt.Errorf("file name %q is refused: %s", name, why)
	}
	switch {
	case name == "" || len(name) > 4096:
		return refuse("empty or too long")
	case strings.ContainsAny(name, "\\:") || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return refuse("backslash, colon or control character")
	case path.IsAbs(name) || path.Clean(name) != name:
		return refuse("not a plain relative path")
	}
	for _, part := range strings.Split(name, "/") {
		switch {
		case part == "." || part == "..":
			return refuse("not a plain relative path")
		case len(part) > 255:
			return refuse("a part of it is too long")
		case strings.HasSuffix(part, ".") || strings.HasSuffix(part, " ") || reserved.MatchString(part):
			return refuse("a name that Windows keeps for itself")
		}
	}
	return nil
}

// reserved are the names of Windows' devices, with or without an ending.
var reserved = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)
