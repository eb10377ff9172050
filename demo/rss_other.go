//go:build !linux

package demo

import "runtime"

// peakRSS is what the Go runtime has had of the system, in bytes, where the system doesn't say.
func peakRSS() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
