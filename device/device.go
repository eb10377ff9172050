// Package device opens devices by the names that recipes and flags give them: auto,
// cpu, cuda, cuda:N.
package device

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/cuda"
)

// Options say how a device computes.
type Options struct {
	// Dtype of weights and activations: "f32", "bf16", or "auto" or "": bf16 on a GPU.
	Dtype string
	// Memory is the most bytes that a GPU's tensors may take; 0: what it has.
	Memory int
	// Fast allows a GPU what gives other bytes on another run.
	Fast bool
	// TF32 lets a GPU round the operands of float32 products to 10 bits of fraction.
	TF32 bool
}

// CheckName refuses what no device is called.
func CheckName(name string) error {
	if _, err := index(name); err != nil && name != "" && name != "auto" && name != "cpu" {
		return fmt.Errorf("device: %q is none; use auto, cpu, cuda or cuda:N", name)
	}
	return nil
}

// index is the number of the GPU that a name stands for.
func index(name string) (int, error) {
	if name == "cuda" {
		return 0, nil
	}
	rest, ok := strings.CutPrefix(name, "cuda:")
	if !ok {
		return 0, fmt.Errorf("not a GPU: %s", name)
	}
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("not a GPU: %s", name)
	}
	return n, nil
}

// Open makes the device ready that a name stands for; "" and auto are the first GPU,
// or, where none can be used, the CPU: note then says why, unless the machine simply
// has no NVIDIA driver. On a GPU note says, a line each, what it does without. Close
// gives the device back.
func Open(name string, opt Options) (dev tensor.Device, note string, err error) {
	switch name {
	case "", "auto":
		dev, note, err := openCUDA(0, opt)
		if err == nil {
			return dev, note, nil
		}
		if cuda.HasDriver() {
			note = fmt.Sprintf("the CPU is used, not the GPU: %v", err)
		}
		if dev, err = openCPU(opt); err != nil && note != "" {
			err = fmt.Errorf("%w; %s", err, note)
		}
		return dev, note, err
	case "cpu":
		dev, err = openCPU(opt)
		return dev, "", err
	}
	n, err := index(name)
	if err != nil {
		return nil, "", CheckName(name)
	}
	if dev, note, err = openCUDA(n, opt); err != nil {
		return nil, "", fmt.Errorf("device %s: %w (ringtail doctor tells more)", name, err)
	}
	return dev, note, nil
}

func openCPU(opt Options) (tensor.Device, error) {
	if opt.Dtype == "bf16" {
		return nil, fmt.Errorf("the CPU computes in float32: train.dtype bf16 needs a GPU")
	}
	return cpu.New(), nil
}

func openCUDA(index int, opt Options) (tensor.Device, string, error) {
	float := tensor.BF16
	if opt.Dtype == "f32" {
		float = tensor.F32
	}
	d, err := cuda.Open(cuda.Options{Index: index, Float: float, Memory: opt.Memory, Fast: opt.Fast, TF32: opt.TF32})
	if err != nil {
		return nil, "", err // not a *cuda.Device that is nil
	}
	d.Preload()
	return d, strings.Join(d.Notes(), "\n"), nil
}

// Fault tells whether an error is a GPU's: a call of its driver or libraries that failed.
func Fault(err error) bool {
	var e *cuda.Error
	return errors.As(err, &e)
}

// Describe is what runs note of a device.
func Describe(dev tensor.Device) string {
	if d, ok := dev.(*cuda.Device); ok {
		return fmt.Sprintf("%s (%s, %v)", d.Name(), d.Info().Name, d.Float())
	}
	return fmt.Sprintf("%s (%s, %d threads)", dev.Name(), cpu.Level(), cpu.Threads())
}

// Close gives back what Open made ready. Nothing on the device may be used afterwards.
func Close(dev tensor.Device) {
	if d, ok := dev.(*cuda.Device); ok {
		d.Close()
	}
}
