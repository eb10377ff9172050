//go:build long

package cuda

const (
	setUps = 1000
	thin   = 1
)
