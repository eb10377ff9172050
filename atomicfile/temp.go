package atomicfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

const (
	tempPrefix = ".tmp-"
	oldPrefix  = ".old-"
)

// maxBase bounds what a temporary's name repeats of the final one: file
// systems end a name at 255 bytes, and prefix, pid and random digits need room.
const maxBase = 200

// inUse holds the temporaries that this process is writing. In a container a
// restarted program often has the very pid of the one that was killed, so a
// temporary with our own pid is alive only if it stands here.
var inUse struct {
	sync.Mutex
	names map[string]bool
}

func release(temp string) {
	inUse.Lock()
	delete(inUse.names, temp)
	inUse.Unlock()
}

func tempName(path string) (string, error) { return uniqueName(tempPrefix, path) }

// uniqueName gives PREFIX PID-RANDOM-BASE beside path, and notes it as ours.
func uniqueName(prefix, path string) (string, error) {
	dir, base := filepath.Split(filepath.Clean(path))
	if base == "" || base == "." || base == ".." {
		return "", errors.New("not a file name")
	}
	if len(base) > maxBase {
		if prefix == oldPrefix {
			// Clean could not tell where to put the old content back.
			return "", errors.New("name too long to be replaced safely")
		}
		base = strings.ToValidUTF8(base[:maxBase], "")
	}
	var random [6]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	name := filepath.Join(dir, prefix+strconv.Itoa(os.Getpid())+"-"+hex.EncodeToString(random[:])+"-"+base)
	inUse.Lock()
	defer inUse.Unlock()
	if inUse.names == nil {
		inUse.names = map[string]bool{}
	}
	inUse.names[name] = true
	return name, nil
}

// splitTemp takes a name apart that uniqueName made.
func splitTemp(name, prefix string) (pid int, base string, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, "", false
	}
	parts := strings.SplitN(rest, "-", 3)
	if len(parts) != 3 || len(parts[1]) != 12 || parts[2] == "" {
		return 0, "", false
	}
	if _, err := hex.DecodeString(parts[1]); err != nil {
		return 0, "", false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil || pid <= 0 {
		return 0, "", false
	}
	return pid, parts[2], true
}

// IsTemp says whether name (without folder) is one of this package's
// temporaries. A program that lists a folder leaves these out.
func IsTemp(name string) bool {
	_, _, isTemp := splitTemp(name, tempPrefix)
	_, _, isOld := splitTemp(name, oldPrefix)
	return isTemp || isOld
}

// Clean removes from the folder parent (not from folders below it) what killed
// processes left, and puts back a folder that one of them was about to replace.
// It leaves alone what a living process of this machine writes. Where machines
// or containers share a folder, pids say nothing about the others' processes,
// so call it only in a folder that has one writer, as a locked run folder has.
// A parent that does not exist is clean.
func Clean(parent string) error {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failed("clean", parent, err)
	}
	var problems []error
	for _, entry := range entries {
		path := filepath.Join(parent, entry.Name())
		if pid, _, ok := splitTemp(entry.Name(), tempPrefix); ok && !alive(pid, path) {
			problems = append(problems, failed("remove", path, os.RemoveAll(path)))
		}
		if pid, base, ok := splitTemp(entry.Name(), oldPrefix); ok && !alive(pid, path) {
			problems = append(problems, failed("put back", path, putBack(path, filepath.Join(parent, base))))
		}
	}
	return errors.Join(problems...)
}

// putBack ends a replacement that was interrupted: with the final name absent
// the old content is the only complete one; otherwise the new one is in place.
func putBack(aside, final string) error {
	if _, err := os.Lstat(final); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(aside, final)
	} else if err != nil {
		return err
	}
	return os.RemoveAll(aside)
}

func alive(pid int, path string) bool {
	if pid == os.Getpid() {
		inUse.Lock()
		defer inUse.Unlock()
		return inUse.names[path]
	}
	return processAlive(pid)
}
