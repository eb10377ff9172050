package cpu

import (
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/conformance"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func() tensor.Device { return New() })
}
