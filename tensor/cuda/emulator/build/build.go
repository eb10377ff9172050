// Package build makes the CUDA emulator: one shared library of the kernels of
// tensor/cuda/kernels, compiled for the CPU, and of libcuda's and cuBLASLt's entry points
// (tensor/cuda/emulator/runtime). It needs a C++ compiler and the repository's sources.
package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/cpu"
)

// ErrNoCompiler says that no C++ compiler is in PATH.
var ErrNoCompiler = errors.New("no C++ compiler (g++, c++ or clang++) is in PATH")

// Library builds the emulator from the repository around the working directory and
// returns the library's path. Files more than those of tensor/cuda/kernels may be given:
// families of tests. What was built before from the same sources lies in the user's cache,
// or where that can't be written, in the temporary folder.
func Library(more ...string) (string, error) {
	root, err := repository()
	if err != nil {
		return "", err
	}
	b := builder{device: filepath.Join(root, "tensor", "cuda")}
	if b.compiler, err = compiler(); err != nil {
		return "", err
	}
	if b.cache, err = cacheFolder(); err != nil {
		return "", err
	}
	b.flags = []string{"-O2", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-math-errno", "-fstack-clash-protection", "-pthread", "-Wall", "-Wno-unknown-pragmas",
		"-Wno-unused-function", "-Wno-unused-variable", "-Wno-unused-but-set-variable", "-DRINGTAIL_EMULATOR"}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI2 {
		b.flags = append(b.flags, "-march=x86-64-v3")
	}
	families, err := filepath.Glob(filepath.Join(b.device, "kernels", "*.cu"))
	if err != nil {
		return "", err
	}
	for _, path := range more {
		if path, err = filepath.Abs(path); err != nil {
			return "", err
		}
		families = append(families, path)
	}
	parts, err := filepath.Glob(filepath.Join(b.device, "emulator", "runtime", "*.cpp"))
	if err != nil {
		return "", err
	}
	return b.library(families, parts)
}

// repository is the folder of ringtail's go.mod, at or above the working directory.
func repository() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module ringtail\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s: not in ringtail's repository, whose sources the emulator is built from", start)
		}
	}
}

func compiler() (string, error) {
	for _, name := range []string{"g++", "c++", "clang++"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoCompiler
}

func cacheFolder() (string, error) {
	folders := []string{filepath.Join(os.TempDir(), fmt.Sprintf("ringtail-emulator-%d", os.Getuid()))}
	if user, err := os.UserCacheDir(); err == nil {
		folders = slices.Insert(folders, 0, filepath.Join(user, "ringtail", "emulator"))
	}
	var err error
	for _, folder := range folders {
		if err = os.MkdirAll(folder, 0o700); err != nil {
			continue
		}
		var probe *os.File
		if probe, err = os.CreateTemp(folder, "probe"); err == nil {
			probe.Close()
			os.Remove(probe.Name())
			return folder, nil
		}
	}
	return "", fmt.Errorf("no folder for the emulator's library: %w", err)
}

type builder struct {
	device   string // tensor/cuda
	compiler string
	cache    string
	flags    []string
}

// library compiles each source to an object and links them. Objects are kept by a hash of
// all that goes into them: after a change of one family only it is compiled.
func (b *builder) library(families, parts []string) (string, error) {
	forKernels, err := b.headers("kernels/*.cuh", "emulator/*.h")
	if err != nil {
		return "", err
	}
	forParts, err := b.headers("emulator/runtime/*.h")
	if err != nil {
		return "", err
	}
	forParts = append(forParts, forKernels...)
	sources := append(slices.Clone(families), parts...)
	objects, errs := make([]string, len(sources)), make([]error, len(sources))
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.NumCPU())
	for i, path := range sources {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if i < len(families) {
				objects[i], errs[i] = b.object(path, true, forKernels)
			} else {
				objects[i], errs[i] = b.object(path, false, forParts)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	name := "emulator-" + hash([]byte(strings.Join(objects, "\n"))) + ".so"
	return b.make(name, func(out string) *exec.Cmd {
		return exec.Command(b.compiler, append([]string{"-shared", "-pthread", "-Wl,-Bsymbolic", "-Wl,-z,defs", "-o", out}, objects...)...)
	})
}

// headers is the text of all headers that a source may include, for its hash.
func (b *builder) headers(patterns ...string) ([]byte, error) {
	var all []byte
	for _, pattern := range patterns {
		paths, err := filepath.Glob(filepath.Join(b.device, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			all = append(all, text...)
		}
	}
	return all, nil
}

// object compiles a family, in a namespace of its own, or a part of the emulator.
func (b *builder) object(path string, family bool, headers []byte) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	base := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	unit := fmt.Sprintf("#include %q\n", path)
	if family {
		// Device compilers take alignas after SHARED; C++ takes it there as an attribute only.
		unit = fmt.Sprintf("#define RINGTAIL_FAMILY %q\n#include \"common.cuh\"\n#define alignas(n) __attribute__((aligned(n)))\nnamespace family_%s {\n#include %q\n}\n",
			base, base, path)
	}
	flags := append(slices.Clone(b.flags), "-I"+filepath.Join(b.device, "kernels"), "-I"+filepath.Join(b.device, "emulator"))
	name := base + "-" + hash([]byte(b.compiler), []byte(strings.Join(flags, "\n")), []byte(unit), headers, text) + ".o"
	return b.make(name, func(out string) *exec.Cmd {
		command := exec.Command(b.compiler, append(flags, "-x", "c++", "-c", "-o", out, "-")...)
		command.Stdin = strings.NewReader(unit)
		return command
	})
}

// make runs a command that writes a file and moves it to its name in the cache, unless it
// is there. Of several processes that want the same file one makes it.
func (b *builder) make(name string, command func(out string) *exec.Cmd) (string, error) {
	path := filepath.Join(b.cache, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	digits := name[:strings.LastIndexByte(name, '.')]
	unlock, err := lockFile(filepath.Join(b.cache, "lock-"+digits[len(digits)-2:])) // one of 256: locks are never removed
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	temporary, err := os.CreateTemp(b.cache, name+".*")
	if err != nil {
		return "", err
	}
	temporary.Close()
	defer os.Remove(temporary.Name())
	var output bytes.Buffer
	run := command(temporary.Name())
	run.Stdout, run.Stderr = &output, &output
	if err := run.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, output.String())
	}
	return path, os.Rename(temporary.Name(), path)
}

func hash(parts ...[]byte) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d\n", len(part))
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
