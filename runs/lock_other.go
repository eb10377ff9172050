//go:build (!unix && !windows) || solaris || illumos || aix

package runs

import (
	"errors"
	"os"
)

func lockOS(*os.File) error { return errors.ErrUnsupported }
