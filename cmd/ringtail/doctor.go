package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"ringtail/tensor/cpu"
	"ringtail/tensor/cuda"
)

type doctorCmd struct {
	JSON bool `help:"Print JSON"`
}

// report is what doctor finds.
type report struct {
	OS      string         `json:"os"`
	Arch    string         `json:"arch"`
	CPU     string         `json:"cpu,omitempty"`
	Kernels string         `json:"kernels"`
	Threads int            `json:"threads"`
	Memory  uint64         `json:"memory_bytes,omitempty"`
	Free    uint64         `json:"available_bytes,omitempty"`
	CUDA    *cuda.Findings `json:"cuda,omitempty"`
	Notes   []string       `json:"notes"`
}

func (c *doctorCmd) Run(e *env) error {
	r := report{OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: cpuName(), Kernels: cpu.Level(), Threads: cpu.Threads()}
	r.Memory, r.Free = memory()
	if r.Kernels == "generic" {
		r.Notes = append(r.Notes, "no SIMD kernels for this processor: matrix products run in plain Go, 10 to 50 times slower; x86-64 with AVX2 and arm64 have them")
	}
	found := cuda.Inspect()
	r.CUDA = &found
	if found.Problem != "" {
		r.Notes = append(r.Notes, "no GPU is used: "+found.Problem)
	}
	r.Notes = append(r.Notes, found.Notes...)
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
	for i, g := range found.GPUs {
		fmt.Fprintf(e.stdout, "cuda:%d     %s, compute capability %d.%d, %d multiprocessors, %.1f GiB\n", i, g.Name, g.Capability/10, g.Capability%10,
			g.Multiprocessors, float64(g.Memory)/(1<<30))
	}
	for _, l := range append([]cuda.Library{found.Driver}, found.Libraries...) {
		switch {
		case l.Path != "" && l.Problem == "":
			fmt.Fprintf(e.stdout, "%-10s %s (%s)\n", l.Name, l.Version, l.Path)
		case len(l.Tried) > 0 && len(found.GPUs) > 0:
			fmt.Fprintf(e.stdout, "%-10s missing: %s; looked at %s\n", l.Name, l.Problem, strings.Join(l.Tried, ", "))
		case l.Problem != "" && (l.Name != "cuda" || l.Path != ""):
			fmt.Fprintf(e.stdout, "%-10s not used: %s\n", l.Name, l.Problem)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintln(e.stdout, "note      ", n)
	}
	return nil
}
