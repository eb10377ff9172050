package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// Findings is what a machine offers for this device: for ringtail doctor.
type Findings struct {
	Driver    Library   `json:"driver"`
	GPUs      []Info    `json:"gpus,omitempty"`
	Problem   string    `json:"problem,omitempty"` // why no GPU can be used
	Libraries []Library `json:"libraries,omitempty"`
	Notes     []string  `json:"notes,omitempty"` // what is missing, what it costs, what would bring it
}

// Inspect looks for GPUs and libraries, and opens the first GPU to see that they work.
func Inspect() Findings {
	var f Findings
	gpus, err := Devices()
	f.Driver, f.GPUs = cu.Library, gpus
	if err != nil {
		f.Problem = err.Error()
		return f
	}
	d, err := Open(Options{Float: tensor.BF16})
	if err != nil {
		f.Problem = err.Error()
		return f
	}
	defer d.Close()
	major := cu.version / 1000
	f.Libraries = []Library{d.blas.lib, d.dnn.lib}
	if d.dnn.nvrtc.Name != "" {
		f.Libraries = append(f.Libraries, d.dnn.nvrtc)
	}
	if d.blas.lib.Err != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("without cuBLASLt matrix products run on our own kernels, at a part of the speed; pip install nvidia-cublas%s brings it, or set RINGTAIL_CUDA_DIR to its folder", wheel(major)))
	}
	if d.dnn.lib.Err != nil {
		f.Notes = append(f.Notes, fmt.Sprintf("without cuDNN attention runs on our own kernels, at about half the speed; pip install nvidia-cudnn-cu%d brings it, or set RINGTAIL_CUDA_DIR to its folder", major))
	}
	d.enter()
	_, err = d.function("elementwise.add_bf16", 0)
	d.leave()
	if err != nil {
		f.Problem = fmt.Sprintf("kernels don't load: %v", err)
	}
	return f
}

// wheel is the end of the names of NVIDIA's wheels for a major version: CUDA 13's have none.
func wheel(major int) string {
	if major >= 13 {
		return ""
	}
	return fmt.Sprintf("-cu%d", major)
}
