package cuda

import (
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/conformance"
)

// openF8 is a device whose tensor cores take 8-bit floats, of a cuBLASLt with scales of rows.
func openF8(t testing.TB, opt Options) *Device {
	t.Helper()
	if !onGPU() {
		t.Setenv("RINGTAIL_EMULATOR_CC", "9.0")
		t.Setenv("RINGTAIL_EMULATOR_BLAS", "120900")
	}
	return open(t, opt)
}

// TestConformanceF8 runs the suite's sections of 8-bit floats: products by cuBLASLt. TestConformance's
// are made by kernels of our own.
func TestConformanceF8(t *testing.T) {
	options := conformance.Options{Only: []string{"AMax", "Quantize", "MatmulF8"}}
	if testing.Short() {
		options.Every = 4
	}
	for _, float := range []tensor.Dtype{tensor.F32, tensor.BF16} {
		t.Run(float.String(), func(t *testing.T) {
			d := openF8(t, Options{Float: float})
			defer d.Close()
			conformance.RunWith(t, func() tensor.Device { return d }, options)
			kinds := map[uint8]int{}
			for k, p := range d.blas.plans {
				if !p.refused {
					kinds[k.scaleA]++
				}
			}
			if kinds[scaleOne] == 0 || kinds[scaleRows] == 0 {
				t.Errorf("%d products by cuBLASLt with one scale, %d with scales of rows; expected some of each", kinds[scaleOne], kinds[scaleRows])
			}
		})
	}
}
