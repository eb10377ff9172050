//go:build !linux

package cpu

// machineMemory is how much memory this process may use at most; not known here.
func machineMemory() int64 { return 0 }
