package train

import (
	"fmt"

	"ringtail/device"
	"ringtail/model"
	"ringtail/tensor"
)

// checkDevice refuses devices that there are none of, and number formats that a named
// device hasn't got.
func checkDevice(name, dtype, state string) error {
	if err := device.CheckName(name); err != nil {
		return err
	}
	switch {
	case name == "cpu" && dtype == "bf16":
		return fmt.Errorf("train.dtype bf16 needs a GPU: the CPU computes in float32")
	case state == "bf16" && (name == "cpu" || dtype == "f32"):
		return fmt.Errorf("optimizer.state bf16 needs weights in bfloat16: a GPU and train.dtype bf16")
	}
	return nil
}

// numbers gives options of a trained model the types that the recipe asks for on a
// device. once tells whether every step is a single micro-batch, whose backward pass can
// make the gradients in the arena.
func numbers(opt *model.Options, dev tensor.Device, gradients, state string, once bool) error {
	float := dev.Float()
	switch {
	case gradients == "bf16" && float != tensor.BF16:
		return fmt.Errorf("train.gradients bf16 needs train.dtype bf16; %s computes in %v", dev.Name(), float)
	case state == "bf16" && float != tensor.BF16:
		return fmt.Errorf("optimizer.state bf16 needs train.dtype bf16; %s computes in %v", dev.Name(), float)
	}
	opt.Grad, opt.State, opt.GradsInArena = float.Wide(), float.Wide(), once
	if gradients == "bf16" || gradients == "auto" && once {
		opt.Grad = float
	}
	if state == "bf16" {
		opt.State = float
	}
	return nil
}

// once tells whether a step is always a single micro-batch.
func (t *Train) once(d *Data) bool {
	if t.BatchTokens > 0 {
		return t.BatchTokens <= t.MicroTokens
	}
	return t.Batch*d.MaxTokens <= t.MicroTokens
}
