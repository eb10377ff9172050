package cuda

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"ringtail/tensor/cuda/emulator/build"
)

var buildEmulator = sync.OnceValues(func() (string, error) { return build.Library() })

// emulated is the path of the emulator's library, which stands in for libcuda and
// cuBLASLt. The test is skipped where it can't be built.
func emulated(t testing.TB) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the emulator is built for Linux only")
	}
	path, err := buildEmulator()
	if errors.Is(err, build.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}
