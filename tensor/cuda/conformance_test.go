package cuda

import (
	"os"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/conformance"
)

// testGPU is the environment variable that makes tests run on the machine's GPU; without it
// they run on the emulator.
const testGPU = "RINGTAIL_TEST_GPU"

// onGPU tells whether tests run on a GPU.
func onGPU() bool { return os.Getenv(testGPU) != "" }

// open is a device for a test: of the machine's GPU where RINGTAIL_TEST_GPU is set, else emulated.
func open(t testing.TB, opt Options) *Device {
	t.Helper()
	if !onGPU() {
		library := emulated(t)
		for _, name := range []string{"CUDA", "CUBLASLT"} {
			t.Setenv("RINGTAIL_LIB"+name, library)
		}
		t.Setenv("RINGTAIL_LIBCUDNN", "off")
	}
	d, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestConformance runs the whole suite on a GPU and, with the tag long, on the emulator;
// else a part of it there.
func TestConformance(t *testing.T) {
	options := conformance.Options{}
	if !onGPU() && thin > 1 {
		options.Every = thin
		if testing.Short() {
			options.Every = 4 * thin
		}
	}
	for _, float := range []tensor.Dtype{tensor.F32, tensor.BF16} {
		t.Run(float.String(), func(t *testing.T) {
			d := open(t, Options{Float: float})
			defer d.Close()
			conformance.RunWith(t, func() tensor.Device { return d }, options)
		})
	}
}
