//go:build unix && !linux

package cpu

import "unsafe"

// adviseHuge does nothing: only Linux takes the advice.
func adviseHuge(unsafe.Pointer, int) {}
