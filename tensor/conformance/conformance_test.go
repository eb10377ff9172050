package conformance

import (
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

func TestReference(t *testing.T) {
	Run(t, func() tensor.Device { return ref.New() })
}
