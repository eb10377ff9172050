package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Dir is a folder being filled. Files go into Path(); Commit puts the whole
// folder under its final name.
type Dir struct {
	final string
	temp  string // "" once committed or aborted
}

// NewDir begins a folder that Commit will put at path, and makes the parents
// that are missing. What stands at path is looked at by Commit, not now.
func NewDir(path string) (*Dir, error) {
	path = filepath.Clean(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, failed("create", path, err)
	}
	temp, err := tempName(path)
	if err != nil {
		return nil, failed("create", path, err)
	}
	if err := os.Mkdir(temp, 0o777); err != nil {
		release(temp)
		return nil, failed("create", path, err)
	}
	return &Dir{final: path, temp: temp}, nil
}

// Path is the temporary folder to write into; "" after Commit or Abort.
func (d *Dir) Path() string { return d.temp }

// Commit syncs every file and folder in d and renames it to its final name.
// It refuses, with an error that wraps fs.ErrExist, if anything but an empty
// folder stands there. After an error the temporary folder is gone and the
// final name holds what it held before (see File.Commit for the one exception).
func (d *Dir) Commit() error { return d.commit(false) }

// CommitReplace is Commit, but what stands under the final name is replaced.
// On Linux and macOS the two folders change places in one step, where the file
// system can; elsewhere the old one is moved aside first, and a process killed
// between the two renames leaves the name absent until Clean puts the old
// folder back.
func (d *Dir) CommitReplace() error { return d.commit(true) }

func (d *Dir) commit(replace bool) error {
	if d.temp == "" {
		return failed("commit", d.final, os.ErrClosed)
	}
	temp := d.temp
	defer d.Abort() // after success there is nothing left to remove
	if err := syncTree(temp); err != nil {
		return failed("write", d.final, err)
	}
	taken, err := occupied(d.final)
	switch {
	case err != nil:
	case !taken:
		err = os.Rename(temp, d.final)
	case replace:
		err = replaceTree(temp, d.final)
	default:
		err = fmt.Errorf("%w; remove it or choose another name", fs.ErrExist)
	}
	if err != nil {
		return failed("write", d.final, err)
	}
	return failed("sync the folder of", d.final, syncFolder(filepath.Dir(d.final)))
}

// Abort removes the temporary folder and all in it. After Commit it does
// nothing, so that it can be deferred.
func (d *Dir) Abort() {
	if d.temp == "" {
		return
	}
	os.RemoveAll(d.temp)
	release(d.temp)
	d.temp = ""
}

// occupied says whether something would be lost at path. An empty folder is
// taken away: people make the output folder beforehand, and Windows renames
// onto nothing that exists.
func occupied(path string) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() && os.Remove(path) == nil { // fails unless empty
		return false, nil
	}
	return true, nil
}

// replaceTree puts temp in the place of final, which exists, and removes what
// stood there.
func replaceTree(temp, final string) error {
	if err := exchange(temp, final); err == nil {
		// temp now names the old content. Make the exchange durable before
		// the old content goes, or a power cut could lose both.
		if err := syncFolder(filepath.Dir(final)); err != nil {
			return err
		}
		return os.RemoveAll(temp)
	} else if !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return replaceInTwoSteps(temp, final)
}

// replaceInTwoSteps is for systems that cannot exchange names.
func replaceInTwoSteps(temp, final string) error {
	aside, err := uniqueName(oldPrefix, final)
	if err != nil {
		return err
	}
	defer release(aside)
	if err := os.Rename(final, aside); err != nil {
		return err
	}
	if err := os.Rename(temp, final); err != nil {
		return errors.Join(err, os.Rename(aside, final))
	}
	if err := syncFolder(filepath.Dir(final)); err != nil {
		return err
	}
	return os.RemoveAll(aside)
}

// syncTree brings every file below root, then every folder, to the disk.
func syncTree(root string) error {
	var folders []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			folders = append(folders, path)
			return nil
		case entry.Type().IsRegular():
			return syncFile(path)
		default:
			return nil // a link has no content of its own; its folder is synced
		}
	})
	if err != nil {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- { // the deepest first
		if err := syncFolder(folders[i]); err != nil {
			return err
		}
	}
	return nil
}
