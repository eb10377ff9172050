//go:build !unix

package cuda

import "errors"

func mapPages(int) ([]byte, error) { return nil, errors.New("not supported on this system") }

func unmapPages([]byte) {}
