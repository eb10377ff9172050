//go:build !unix

package mapfile

// Release does nothing here; see release_unix.go.
func Release([]byte) {}
