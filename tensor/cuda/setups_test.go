//go:build !long

package cuda

const setUps = 50
