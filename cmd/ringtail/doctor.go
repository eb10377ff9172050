package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"ringtail/tensor/cpu"
)

type doctorCmd struct {
	JSON bool `help:"Print JSON"`
}

// report is what doctor finds.
type report struct {
	OS      string   `json:"os"`
	Arch    string   `json:"arch"`
	CPU     string   `json:"cpu,omitempty"`
	Kernels string   `json:"kernels"`
	Threads int      `json:"threads"`
	Memory  uint64   `json:"memory_bytes,omitempty"`
	Free    uint64   `json:"available_bytes,omitempty"`
	Notes   []string `json:"notes"`
}

func (c *doctorCmd) Run(e *env) error {
	r := report{OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: cpuName(), Kernels: cpu.Level(), Threads: cpu.Threads()}
	r.Memory, r.Free = memory()
	if r.Kernels == "generic" {
		r.Notes = append(r.Notes, "no SIMD kernels for this processor: matrix products run in plain Go, 10 to 50 times slower; x86-64 with AVX2 and arm64 have them")
	}
	r.Notes = append(r.Notes, "GPUs are not used by this version: everything runs on the CPU")
	if c.JSON {
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	fmt.Fprintf(e.stdout, "system     %s/%s\n", r.OS, r.Arch)
	if r.CPU != "" {
		fmt.Fprintf(e.stdout, "processor  %s\n", r.CPU)
	}
	fmt.Fprintf(e.stdout, "kernels    %s\nthreads    %d\n", r.Kernels, r.Threads)
	if r.Memory > 0 {
		fmt.Fprintf(e.stdout, "memory     %.1f GiB, %.1f GiB available\n", float64(r.Memory)/(1<<30), float64(r.Free)/(1<<30))
	}
	for _, n := range r.Notes {
		fmt.Fprintln(e.stdout, "note      ", n)
	}
	return nil
}
