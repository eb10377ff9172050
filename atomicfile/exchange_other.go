//go:build !linux && !darwin

package atomicfile

import "errors"

// exchange does not exist here.
func exchange(a, b string) error { return errors.ErrUnsupported }
