// Package kernels holds the CUDA kernels that are our own: their sources, one
// self-contained file a family (FAMILY.cu, which includes common.cuh alone), and
// what NVRTC made of them, PTX (Parallel Thread Execution ISA, version 8.4), which
// a driver of branch 550 or later compiles for its GPU. So neither building nor
// running the program needs a CUDA toolkit.
//
// go generate in this folder writes ptx/: for each family and architecture the
// PTX, without its comments, packed by zstd, and in sums.txt the SHA-256 of that
// PTX and of what it was made from. It needs linux/amd64 and what scripts/nvrtc
// installs. A test of the generator fails while sources and PTX do not belong
// together.
package kernels

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

//go:generate go run ./gen

// Architectures that each family is compiled for.
const (
	Portable = "80"  // compute_80: compute capability 8.0 (Ampere) and later
	Hopper   = "90a" // compute_90a: compute capability 9.0 alone, with wgmma, TMA and setmaxnreg
)

//go:embed ptx
var files embed.FS

// Sum is a line of sums.txt: hexadecimal SHA-256 of an output's PTX, unpacked, and
// of what it was made from.
type Sum struct{ PTX, Sources string }

// Sums are the lines of sums.txt by output, "FAMILY.ARCHITECTURE".
var Sums = sync.OnceValue(func() map[string]Sum {
	text, err := files.ReadFile("ptx/sums.txt")
	if err != nil {
		panic(err) // embedded
	}
	sums, err := ParseSums(string(text))
	if err != nil {
		panic(err)
	}
	return sums
})

// ParseSums reads sums.txt: lines of an output's name and two sums; # begins a comment.
func ParseSums(text string) (map[string]Sum, error) {
	sums := map[string]Sum{}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("sums.txt:%d: %d fields, want OUTPUT PTX SOURCES (run go generate ./tensor/cuda/kernels)", i+1, len(f))
		}
		sums[f[0]] = Sum{PTX: f[1], Sources: f[2]}
	}
	return sums, nil
}

// PTX unpacks what a family was compiled to for an architecture. It is stored once
// where both are the same but for the line that names the target.
func PTX(family, arch string) ([]byte, error) {
	if _, ok := Sums()[family+"."+arch]; !ok {
		return nil, fmt.Errorf("kernels: family %s has no PTX for compute_%s in this program (run go generate ./tensor/cuda/kernels)", family, arch)
	}
	text, err := unpack(family + "." + arch)
	if errors.Is(err, fs.ErrNotExist) && arch != Portable {
		if text, err = unpack(family + "." + Portable); err == nil {
			text = Retarget(text, arch)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kernels: %w", err)
	}
	return text, nil
}

func unpack(output string) ([]byte, error) {
	packed, err := files.Open("ptx/" + output + ".ptx.zst")
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	r, err := zstd.NewReader(packed, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", output, err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", output, err)
	}
	return text, nil
}

// Retarget makes portable PTX that of another architecture, by its target's name alone.
func Retarget(ptx []byte, arch string) []byte {
	return bytes.Replace(ptx, []byte("\n.target sm_"+Portable+"\n"), []byte("\n.target sm_"+arch+"\n"), 1)
}
