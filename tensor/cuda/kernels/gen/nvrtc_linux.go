package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// nvrtc is NVIDIA's runtime compiler for CUDA C++ (NVRTC, CUDA Toolkit Documentation),
// as far as it is used here. Sizes of strings count their final zero.
type nvrtc struct {
	createProgram  func(program *uintptr, source, name string, headers int32, texts, names **byte) int32
	compileProgram func(program uintptr, options int32, texts **byte) int32
	destroyProgram func(program *uintptr) int32
	logSize        func(program uintptr, size *uint64) int32
	log            func(program uintptr, text *byte) int32
	ptxSize        func(program uintptr, size *uint64) int32
	ptx            func(program uintptr, text *byte) int32
	errorString    func(result int32) string
}

// openNVRTC loads the library from the folder that scripts/nvrtc has filled.
func openNVRTC(tools string) (*nvrtc, error) {
	lib := filepath.Join(tools, "nvidia", "cuda_nvrtc", "lib")
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	// The compiler's own headers first: NVRTC asks for them by this name and finds them loaded.
	var handle uintptr
	for _, name := range []string{"libnvrtc-builtins.so." + major + "." + minor, "libnvrtc.so." + major} {
		h, err := purego.Dlopen(filepath.Join(lib, name), purego.RTLD_NOW|purego.RTLD_GLOBAL)
		if err != nil {
			return nil, fmt.Errorf("%w: run scripts/nvrtc, or give -nvrtc the folder that it prints", err)
		}
		handle = h
	}
	var n nvrtc
	for name, f := range map[string]any{
		"nvrtcCreateProgram":     &n.createProgram,
		"nvrtcCompileProgram":    &n.compileProgram,
		"nvrtcDestroyProgram":    &n.destroyProgram,
		"nvrtcGetProgramLogSize": &n.logSize,
		"nvrtcGetProgramLog":     &n.log,
		"nvrtcGetPTXSize":        &n.ptxSize,
		"nvrtcGetPTX":            &n.ptx,
		"nvrtcGetErrorString":    &n.errorString,
	} {
		purego.RegisterLibFunc(f, handle, name)
	}
	return &n, nil
}

// compile gives a family's PTX for an architecture, without comments, and the
// warnings. Errors hold the compiler's log.
func (n *nvrtc) compile(s source, arch string) (ptx []byte, warnings string, err error) {
	var program uintptr
	texts, names := cStrings(string(s.common)), cStrings("common.cuh")
	if r := n.createProgram(&program, string(s.text), s.family+".cu", 1, &texts[0], &names[0]); r != 0 {
		return nil, "", fmt.Errorf("%s.cu: nvrtcCreateProgram: %s", s.family, n.errorString(r))
	}
	defer n.destroyProgram(&program)
	opts := cStrings(options(arch)...)
	result := n.compileProgram(program, int32(len(opts)), &opts[0])
	log, err := n.text(program, n.logSize, n.log)
	if err != nil {
		return nil, "", fmt.Errorf("%s.cu: log: %w", s.family, err)
	}
	if result != 0 {
		return nil, "", fmt.Errorf("%s.cu for compute_%s: %s\n%s", s.family, arch, n.errorString(result), log)
	}
	text, err := n.text(program, n.ptxSize, n.ptx)
	if err != nil {
		return nil, "", fmt.Errorf("%s.cu: PTX: %w", s.family, err)
	}
	if !strings.Contains(text, "V"+version+"\n") {
		return nil, "", fmt.Errorf("%s.cu: not compiled by NVRTC %s, which what is checked in must come from: run scripts/nvrtc", s.family, version)
	}
	return strip(text), strings.TrimSpace(log), nil
}

// text fetches one of a program's strings.
func (n *nvrtc) text(program uintptr, size func(uintptr, *uint64) int32, get func(uintptr, *byte) int32) (string, error) {
	var bytes uint64
	if r := size(program, &bytes); r != 0 {
		return "", fmt.Errorf("%s", n.errorString(r))
	}
	if bytes == 0 {
		return "", nil
	}
	b := make([]byte, bytes)
	if r := get(program, &b[0]); r != 0 {
		return "", fmt.Errorf("%s", n.errorString(r))
	}
	return strings.TrimRight(string(b), "\x00"), nil
}

// cStrings is an array of strings as C takes them. Go's garbage collector moves
// nothing on the heap, and keeps what the array points to.
func cStrings(ss ...string) []*byte {
	p := make([]*byte, len(ss))
	for i, s := range ss {
		p[i] = unsafe.SliceData(append([]byte(s), 0))
	}
	return p
}
