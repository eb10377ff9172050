package runs

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockOS takes LockFileEx without waiting. Windows forbids others to read what
// is locked, so the locked byte lies far behind the text.
func lockOS(f *os.File) error {
	at := &windows.Overlapped{Offset: 1 << 30}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return errLocked
	}
	return err
}
