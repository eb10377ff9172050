// Command gen compiles the kernels by NVRTC, NVIDIA's compiler library, which
// needs no GPU, and writes their PTX to tensor/cuda/kernels/ptx. Run it by go
// generate there; its output is checked in. scripts/nvrtc installs what it needs.
//
//	gen             compile the families whose sources have changed, write ptx/
//	gen -check      compile all and compare with ptx/ (as far as NVRTC repeats itself: shape.go), writing nothing
//	gen -ptxas      also assemble every output, and print what each kernel takes
//
// A family that doesn't compile keeps its old outputs.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"ringtail/tensor/cuda/kernels"
)

func main() {
	dir := flag.String("dir", ".", "`folder` of package kernels")
	tools := flag.String("nvrtc", "", "`folder` that scripts/nvrtc printed (default: where it installs)")
	check := flag.Bool("check", false, "compare with what is checked in, write nothing")
	assemble := flag.Bool("ptxas", false, "assemble every output, print registers, spills and shared memory")
	flag.Parse()
	if err := run(*dir, *tools, *check, *assemble); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// output is one family compiled for one architecture.
type output struct {
	source
	arch string
	ptx  []byte
	made string // the sum of what ptx was made from
	log  string // of NVRTC
	used []usage
	err  error
}

func (o *output) name() string { return o.family + "." + o.arch }

// keep takes what was generated before, if there is something.
func (o *output) keep() bool {
	old, ok := kernels.Sums()[o.name()]
	if !ok {
		return false
	}
	ptx, err := kernels.PTX(o.family, o.arch)
	if err != nil || hash(ptx) != old.PTX {
		return false
	}
	o.ptx, o.made = ptx, old.Sources
	return true
}

// make compiles, unless what was made of the same sources will do.
func (o *output) make(n *nvrtc, always bool) {
	if sum := o.sum(o.arch); always || !o.keep() || o.made != sum {
		o.made = sum
		o.ptx, o.log, o.err = n.compile(o.source, o.arch)
	}
}

func run(dir, tools string, check, assemble bool) error {
	if tools == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("%w: give -nvrtc the folder that scripts/nvrtc prints", err)
		}
		tools = filepath.Join(cache, "ringtail", "nvrtc-"+version)
	}
	sources, err := readSources(dir)
	if err != nil {
		return err
	}
	nvrtc, err := openNVRTC(tools)
	if err != nil {
		return err
	}

	var outputs []*output
	for _, s := range sources {
		for _, arch := range archs {
			outputs = append(outputs, &output{source: s, arch: arch})
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, o := range outputs {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if o.make(nvrtc, check); o.err == nil && assemble {
				o.used, o.err = ptxas(tools, o.name(), o.arch, o.ptx)
			}
		})
	}
	wg.Wait()
	var errs []error
	for _, o := range outputs {
		if o.log != "" {
			fmt.Fprintf(os.Stderr, "%s for compute_%s:\n%s\n", o.family, o.arch, o.log)
		}
		errs = append(errs, o.err)
	}
	if assemble {
		printUsage(os.Stdout, outputs)
	}
	if check {
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return compare(dir, outputs)
	}
	outputs = slices.DeleteFunc(outputs, func(o *output) bool { return o.err != nil && !o.keep() })
	return errors.Join(append(errs, write(dir, outputs))...)
}

// sums is the content of sums.txt.
func sums(outputs []*output) string {
	var b strings.Builder
	b.WriteString("# Written by go generate ./tensor/cuda/kernels: output, SHA-256 of its PTX, SHA-256 of what it was made from.\n")
	for _, o := range outputs {
		fmt.Fprintf(&b, "%s %s %s\n", o.name(), hash(o.ptx), o.made)
	}
	return b.String()
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// compare reports every output that isn't in ptx/ as its sources say.
func compare(dir string, outputs []*output) error {
	text, err := os.ReadFile(filepath.Join(dir, "ptx", "sums.txt"))
	if err != nil {
		return err
	}
	listed, err := kernels.ParseSums(string(text))
	if err != nil {
		return err
	}
	var bad, varied []string
	for _, o := range outputs {
		old := output{source: o.source, arch: o.arch}
		sum := listed[o.name()]
		delete(listed, o.name())
		if sum.Sources != o.made || !old.keep() || hash(old.ptx) != sum.PTX {
			bad = append(bad, o.name()+" (made from other sources)")
		} else if bytes.Equal(old.ptx, o.ptx) {
			continue
		} else if err := alike(old.ptx, o.ptx); err != nil {
			bad = append(bad, fmt.Sprintf("%s (%v)", o.name(), err))
		} else {
			varied = append(varied, o.name())
		}
	}
	for name := range listed {
		bad = append(bad, name+" (its sources are gone)")
	}
	if len(varied) > 0 {
		fmt.Printf("%s: other registers or operands, the same instructions (NVRTC's choice varies)\n", strings.Join(varied, ", "))
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return fmt.Errorf("ptx/ is out of date; commit what go generate ./tensor/cuda/kernels makes: %s", strings.Join(bad, ", "))
	}
	fmt.Printf("%d outputs are what their sources compile to\n", len(outputs))
	return nil
}

// write replaces the outputs whose PTX has changed, removes those whose family is
// gone, and writes sums.txt last.
func write(dir string, outputs []*output) error {
	dir = filepath.Join(dir, "ptx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// One goroutine, for the bytes must not depend on how many processors there are.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	keep := []string{"sums.txt"}
	portable := map[string][]byte{}
	for _, o := range outputs {
		if o.arch == kernels.Portable {
			portable[o.family] = o.ptx
		} else if bytes.Equal(o.ptx, kernels.Retarget(portable[o.family], o.arch)) {
			continue // kernels.PTX makes it of the portable one
		}
		name := o.name() + ".ptx.zst"
		keep = append(keep, name)
		if err := writeFile(filepath.Join(dir, name), enc.EncodeAll(o.ptx, nil)); err != nil {
			return err
		}
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range there {
		if !slices.Contains(keep, f.Name()) {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return writeFile(filepath.Join(dir, "sums.txt"), []byte(sums(outputs)))
}

// writeFile replaces a file if its content changed.
func writeFile(path string, content []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(content) {
		return nil
	}
	return os.WriteFile(path, content, 0o644)
}
