package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"ringtail/tensor/cuda/kernels"
)

// version is the NVRTC whose PTX is checked in: that of CUDA 12.4, the oldest which
// knows what Hopper's kernels use, so that drivers from branch 550 on take its PTX.
// Another compiles to other bytes. scripts/nvrtc pins the same.
const version = "12.4.127"

// archs are the virtual architectures (compute_…) of every family, the portable one
// first.
var archs = []string{kernels.Portable, kernels.Hopper}

// options compile every family: arithmetic as IEEE 754 has it, except that a
// multiplication and an addition may be fused. (No line numbers and no paths are
// put into PTX unless asked for.)
func options(arch string) []string {
	return []string{
		"--gpu-architecture=compute_" + arch,
		"--std=c++17",
		"--fmad=true",
		"--ftz=false",
		"--prec-div=true",
		"--prec-sqrt=true",
	}
}

// source is a family's source with the header that it includes.
type source struct {
	family string
	text   []byte // FAMILY.cu
	common []byte // common.cuh
}

// sum is the hexadecimal SHA-256 of everything that the PTX for an architecture is
// made from.
func (s source) sum(arch string) string {
	h := sha256.New()
	for _, part := range []string{version, strings.Join(options(arch), " "), string(s.common), string(s.text)} {
		// With lengths, so that no two lists of parts give the same bytes.
		fmt.Fprintf(h, "%d\n", len(part))
		io.WriteString(h, part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// readSources reads the families in dir, in the order of their names.
func readSources(dir string) ([]source, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.cu"))
	if err != nil {
		return nil, err
	}
	common, err := os.ReadFile(filepath.Join(dir, "common.cuh"))
	if err != nil {
		return nil, fmt.Errorf("%w: give -dir the folder of package kernels", err)
	}
	var sources []source
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source{strings.TrimSuffix(filepath.Base(path), ".cu"), text, common})
	}
	return sources, nil
}

// strip removes comments that end a line, the spaces before them, and empty lines,
// so that PTX holds nothing but its program.
func strip(ptx string) []byte {
	var b strings.Builder
	for line := range strings.Lines(ptx) {
		quoted := false
		for i := 0; i < len(line); i++ {
			if line[i] == '"' {
				quoted = !quoted
			} else if !quoted && strings.HasPrefix(line[i:], "//") {
				line = line[:i]
			}
		}
		if line = strings.TrimRight(line, " \t\r\n"); line != "" {
			b.WriteString(line)
			b.WriteByte('\n')
		}
	}
	return []byte(b.String())
}

// entries are the names of the kernels in PTX.
func entries(ptx []byte) []string {
	var names []string
	for line := range strings.Lines(string(ptx)) {
		if rest, ok := strings.CutPrefix(line, ".visible .entry "); ok {
			name, _, _ := strings.Cut(rest, "(")
			names = append(names, name)
		}
	}
	return names
}
