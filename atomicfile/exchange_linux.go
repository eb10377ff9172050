package atomicfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// exchange lets the names a and b change places in one step (renameat2(2)).
func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return errors.ErrUnsupported // the file system or the kernel has no such call
	}
	return err
}
