//go:build unix && !solaris && !illumos && !aix

package runs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockOS takes flock(2) without waiting.
func lockOS(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return errLocked
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK):
		return errors.ErrUnsupported
	}
	return err
}
