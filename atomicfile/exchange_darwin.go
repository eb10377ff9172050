package atomicfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// exchange lets the names a and b change places in one step (renamex_np(2)).
func exchange(a, b string) error {
	err := unix.RenamexNp(a, b, unix.RENAME_SWAP)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) {
		return errors.ErrUnsupported // not APFS
	}
	return err
}
