//go:build amd64 || arm64

package cpu

// relax tells the core that it is spinning.
func relax()
