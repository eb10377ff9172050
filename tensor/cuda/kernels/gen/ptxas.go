package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
)

// usage is what a kernel takes of a multiprocessor: registers a thread; bytes a
// thread of local memory for arrays (stack) and for registers that did not suffice
// (spills); bytes a block of shared memory whose size is fixed.
type usage struct {
	kernel                                            string
	registers, stack, spillStores, spillLoads, shared int
}

var (
	entryLine     = regexp.MustCompile(`Compiling entry function '(\w+)'`)
	functionLine  = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	registersLine = regexp.MustCompile(`Used (\d+) registers`)
	sharedLine    = regexp.MustCompile(`(\d+) bytes smem`)
)

// ptxas assembles PTX for the real architecture of the same number by the assembler
// of the same toolkit. What a driver's own does may differ a little.
func ptxas(tools, name, arch string, ptx []byte) ([]usage, error) {
	dir, err := os.MkdirTemp("", "ringtail-ptxas-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	in := filepath.Join(dir, name+".ptx")
	if err := os.WriteFile(in, ptx, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(tools, "nvidia", "cuda_nvcc", "bin", "ptxas"), "-v", "-arch=sm_"+arch, "-o", filepath.Join(dir, name+".cubin"), in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ptxas: %s: %w\n%s", name, err, strings.ReplaceAll(string(out), dir+string(filepath.Separator), ""))
	}
	return parseUsage(string(out)), nil
}

// parseUsage reads what ptxas -v says.
func parseUsage(text string) []usage {
	var used []usage
	number := func(s string) int {
		n, _ := strconv.Atoi(s) // digits
		return n
	}
	for line := range strings.Lines(text) {
		if m := entryLine.FindStringSubmatch(line); m != nil {
			used = append(used, usage{kernel: m[1]})
		}
		if len(used) == 0 {
			continue
		}
		u := &used[len(used)-1]
		if m := functionLine.FindStringSubmatch(line); m != nil {
			u.stack, u.spillStores, u.spillLoads = number(m[1]), number(m[2]), number(m[3])
		}
		if m := registersLine.FindStringSubmatch(line); m != nil {
			u.registers = number(m[1])
		}
		if m := sharedLine.FindStringSubmatch(line); m != nil {
			u.shared = number(m[1])
		}
	}
	return used
}

// printUsage prints a table of all kernels, and last those that spill, as a warning.
func printUsage(w io.Writer, outputs []*output) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "output\tkernel\tregisters\tstack\tspill stores\tspill loads\tshared\t")
	var spilling []string
	for _, o := range outputs {
		for _, u := range o.used {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n", o.name(), u.kernel, u.registers, u.stack, u.spillStores, u.spillLoads, u.shared)
			if u.spillStores+u.spillLoads > 0 {
				spilling = append(spilling, o.name()+": "+u.kernel)
			}
		}
	}
	t.Flush()
	if len(spilling) > 0 {
		fmt.Fprintf(w, "warning: registers spill in %d kernels: %s\n", len(spilling), strings.Join(spilling, ", "))
	}
}
