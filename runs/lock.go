package runs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const lockFile = ".lock"

// errLocked comes from lockOS when another process holds the lock.
var errLocked = errors.New("locked")

// lock keeps two processes from training into one folder. It is the operating
// system's lock on an open file, which ends with the process however that
// dies, so a dead holder's lock needs no breaking. The file's content only
// tells people who holds it.
type lock struct {
	f *os.File
}

type holder struct {
	Pid   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

func acquire(dir string) (*lock, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("locking the run folder: %w", err)
	}
	switch err := lockOS(f); {
	case errors.Is(err, errLocked):
		defer f.Close()
		return nil, fmt.Errorf("%s is in use: %s trains into it; wait, stop it, or choose another folder", dir, readHolder(f))
	case errors.Is(err, errors.ErrUnsupported):
		// A file system without locks. Going on is better than never training
		// there; the worst case is two runs started into one folder by hand.
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	l := &lock{f}
	if err := l.write(); err != nil {
		l.release()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return l, nil
}

func (l *lock) write() error {
	text, err := json.Marshal(holder{os.Getpid(), hostname(), time.Now().Round(time.Second)})
	if err != nil {
		return err
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err = l.f.WriteAt(append(text, '\n'), 0)
	return err
}

func readHolder(f *os.File) string {
	text := make([]byte, 1024)
	n, _ := f.ReadAt(text, 0)
	var h holder
	if json.Unmarshal(text[:n], &h) != nil || h.Pid == 0 {
		return "another process"
	}
	s := fmt.Sprintf("process %d", h.Pid)
	if h.Host != hostname() {
		s += " on " + h.Host
	}
	return s + ", since " + h.Since.Local().Format("2006-01-02 15:04")
}

// release empties the file and gives the lock up. The file stays: removing it
// could take it from under a process that has just opened it.
func (l *lock) release() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}
