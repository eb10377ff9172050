// Package atomicfile writes a file, or a whole folder, so that under its final
// name it is either complete or absent, whatever happens meanwhile: an error, a
// full disk, Ctrl-C, kill -9 or a power cut.
//
// The bytes go to a temporary sibling (same folder, hence same file system),
// which is synced to the disk, then renamed; the folder that holds the name is
// synced last, for a rename that only the page cache knows is lost with the
// power. The order is the one that POSIX fsync(2) and rename(2) ask for.
//
// Names of temporaries tell what they are and whose:
//
//	.tmp-PID-RANDOM-NAME   not yet complete; worthless once process PID is gone
//	.old-PID-RANDOM-NAME   what stood under NAME, moved aside by a replacement on
//	                       systems that cannot exchange two folders in one step
//
// Clean removes the first and puts back or removes the second.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a file being written. It appears under its final name with Commit,
// and not before. It is not safe for concurrent use, except for WriteAt to
// ranges that do not overlap.
type File struct {
	path string
	temp string
	f    *os.File // nil once committed or aborted
}

// Create begins a file that Commit will put at path, replacing what stands
// there. perm is taken before umask, as by os.OpenFile. The parent folder must
// exist.
func Create(path string, perm os.FileMode) (*File, error) {
	temp, err := tempName(path)
	if err != nil {
		return nil, failed("create", path, err)
	}
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		release(temp)
		return nil, failed("create", path, err)
	}
	return &File{path: path, temp: temp, f: f}, nil
}

// Path is the final name.
func (f *File) Path() string { return f.path }

// Write appends p, as io.Writer asks. Errors name the final path.
func (f *File) Write(p []byte) (int, error) {
	if f.f == nil {
		return 0, failed("write", f.path, os.ErrClosed)
	}
	n, err := f.f.Write(p)
	return n, failed("write", f.path, err)
}

// WriteAt writes p at a byte offset, as io.WriterAt asks.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if f.f == nil {
		return 0, failed("write", f.path, os.ErrClosed)
	}
	n, err := f.f.WriteAt(p, off)
	return n, failed("write", f.path, err)
}

// Commit syncs the file and renames it to its final name. After an error the
// temporary is gone and the final name holds what it held before, except that
// an error from the last step, syncing the parent folder, leaves the new file
// in place: it is complete, but may not survive a power cut.
func (f *File) Commit() error {
	if f.f == nil {
		return failed("commit", f.path, os.ErrClosed)
	}
	err := f.f.Sync()
	if cerr := f.f.Close(); err == nil {
		err = cerr // network file systems report a full disk here
	}
	f.f = nil
	if err == nil {
		err = os.Rename(f.temp, f.path)
	}
	if err != nil {
		os.Remove(f.temp)
		release(f.temp)
		return failed("write", f.path, err)
	}
	release(f.temp)
	return failed("sync the folder of", f.path, syncFolder(filepath.Dir(f.path)))
}

// Abort throws the file away. After Commit it does nothing, so that it can be
// deferred.
func (f *File) Abort() {
	if f.f == nil {
		return
	}
	f.f.Close()
	f.f = nil
	os.Remove(f.temp)
	release(f.temp)
}

// WriteFile writes to path, complete or not at all, what write produces,
// replacing what stood there. The writer is not buffered. When write returns
// an error, that error comes back and path is untouched.
func WriteFile(path string, perm os.FileMode, write func(io.Writer) error) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := write(f); err != nil {
		var own *Error
		if errors.As(err, &own) && own.Path == path {
			return err // came from f itself and names path already
		}
		return failed("write", path, err)
	}
	return f.Commit()
}

// WriteBytes is WriteFile for content that is at hand.
func WriteBytes(path string, perm os.FileMode, content []byte) error {
	return WriteFile(path, perm, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Error is an operation on a path that failed. It names the final path, not
// the temporary, since that is the one that a person knows.
type Error struct {
	Op   string // "write", "create", ...
	Path string
	Err  error
}

func (e *Error) Error() string {
	msg := fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err)
	if isDiskFull(e.Err) {
		msg += " (free some space or choose another folder; nothing was left under this name)"
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

func failed(op, path string, err error) error {
	if err == nil {
		return nil
	}
	// The os package's errors name the temporary; keep only their cause.
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	}
	return &Error{Op: op, Path: path, Err: err}
}
