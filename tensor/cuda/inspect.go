package cuda

import (
	"fmt"
	"strings"

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
	f.GPUs, f.Driver = gpus, cu.Library.told()
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
	f.Libraries = []Library{d.blas.lib.told(), d.dnn.lib.told()}
	if len(d.dnn.nvrtc.Tried) > 0 || d.dnn.nvrtc.Path != "" {
		f.Libraries = append(f.Libraries, d.dnn.nvrtc.told())
	}
	f.Notes = d.Notes()
	d.enter()
	_, err = d.function("elementwise.add_bf16", 0)
	d.leave()
	if err != nil {
		f.Problem = fmt.Sprintf("kernels don't load: %v", err)
	}
	return f
}

// told is a library with the text of what it lacks.
func (l Library) told() Library {
	if l.Err != nil {
		l.Problem = l.Err.Error()
	}
	return l
}

// Notes says, a line each, which libraries this device does without, what that costs and
// what would bring them.
func (d *Device) Notes() []string {
	var notes []string
	major := cu.version / 1000
	missing := func(l Library, costs, wheel string) {
		if l.Err != nil {
			notes = append(notes, fmt.Sprintf("no %s: %v; %s; pip install %s brings it (RINGTAIL_CUDA_DIR names a folder, RINGTAIL_LIB%s the file)",
				l.Name, l.Err, costs, wheel, strings.ToUpper(l.Name)))
		}
	}
	missing(d.blas.lib, "matrix products run on our own kernels, at a part of the speed", "nvidia-cublas"+wheel(major))
	if d.opt.Float != tensor.F32 {
		missing(d.dnn.lib, "attention runs on our own kernels, at about half the speed", fmt.Sprintf("'nvidia-cudnn-cu%d>=9.10'", major))
		missing(d.dnn.nvrtc, "cuDNN can't compile its attention, which then runs on our own kernels", "nvidia-cuda-nvrtc"+wheel(major))
	}
	return notes
}

// wheel is the end of the names of NVIDIA's wheels for a major version: CUDA 13's have none.
func wheel(major int) string {
	if major >= 13 {
		return ""
	}
	return fmt.Sprintf("-cu%d", major)
}
