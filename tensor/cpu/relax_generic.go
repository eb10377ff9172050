//go:build !amd64 && !arm64

package cpu

import "runtime"

// relax gives the core to somebody else for a moment; there is no portable way
// to tell it that it is spinning.
func relax() { runtime.Gosched() }
