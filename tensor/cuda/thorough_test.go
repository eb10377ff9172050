//go:build !long

package cuda

const (
	setUps = 50
	// thin is of how many trials of the conformance suite one runs on the emulator.
	thin = 4
)
