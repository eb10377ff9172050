package conformance

import (
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

func TestReference(t *testing.T) {
	Run(t, func() tensor.Device { return ref.New() })
}

// TestRoundedReference: operations that round once, when they store, pass.
func TestRoundedReference(t *testing.T) {
	for d, every := range map[tensor.Dtype]int{tensor.BF16: 3, tensor.F16: 8} {
		t.Run(d.String(), func(t *testing.T) {
			RunWith(t, func() tensor.Device { return ref.NewRounded(d) }, Options{Every: every})
		})
	}
}
