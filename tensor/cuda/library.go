package cuda

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Library is a native library: where it was found, or where it was looked for.
type Library struct {
	Name    string   `json:"name"`              // "cublasLt"
	Path    string   `json:"path,omitempty"`    // of the file that was opened, or the name that the loader resolved
	Version string   `json:"version,omitempty"` // as it says itself
	Tried   []string `json:"tried,omitempty"`   // places looked at, in order
	Problem string   `json:"problem,omitempty"` // Err's text; made by Inspect
	Err     error    `json:"-"`                 // why it isn't there, or isn't used

	handle uintptr
}

// The search for libcuda, libcublasLt, libcudnn and libnvrtc goes through these places in this
// order, and within each from the newest major version that the driver can run downwards:
//
//  1. RINGTAIL_LIBCUDA, RINGTAIL_LIBCUBLASLT, RINGTAIL_LIBCUDNN, RINGTAIL_LIBNVRTC: a file; "off" hides the library
//  2. RINGTAIL_CUDA_DIR: a folder, or several as in PATH
//  3. $CUDA_HOME/lib64 and $CUDA_PATH/lib64
//  4. Python environments (the nvidia-* wheels): $VIRTUAL_ENV, $CONDA_PREFIX, that of the python3 in PATH, the user's
//  5. the system's loader (LD_LIBRARY_PATH, ldconfig)
//  6. /usr/local/cuda/lib64 and /usr/local/cuda-*/lib64, newest first
func (l *Library) find(sonames ...string) {
	variable := "RINGTAIL_LIB" + strings.ToUpper(l.Name)
	if file := os.Getenv(variable); file != "" {
		if file == "off" {
			l.Err = fmt.Errorf("hidden by %s=off", variable)
			return
		}
		l.open(file)
		if l.Err != nil {
			l.Err = fmt.Errorf("%s=%s: %w", variable, file, l.Err)
		}
		return
	}
	for _, soname := range sonames {
		for _, dir := range filepath.SplitList(os.Getenv("RINGTAIL_CUDA_DIR")) {
			if l.try(filepath.Join(dir, soname)) || l.try(filepath.Join(dir, "lib64", soname)) || l.try(filepath.Join(dir, "lib", soname)) {
				return
			}
		}
	}
	before, after := libraryFolders()
	for _, soname := range sonames {
		for _, dir := range before {
			if l.try(filepath.Join(dir, soname)) {
				return
			}
		}
	}
	for _, soname := range sonames {
		l.Tried = append(l.Tried, soname+" (system)")
		if l.open(soname); l.Err == nil {
			return
		}
	}
	for _, soname := range sonames {
		for _, dir := range after {
			if l.try(filepath.Join(dir, soname)) {
				return
			}
		}
	}
	l.Err = fmt.Errorf("%s was not found", sonames[0])
}

// try opens a file if it is there.
func (l *Library) try(path string) bool {
	if _, err := os.Stat(path); err != nil {
		l.Tried = append(l.Tried, path)
		return false
	}
	l.open(path)
	if l.Err != nil {
		l.Tried = append(l.Tried, fmt.Sprintf("%s (%v)", path, l.Err))
	}
	return l.Err == nil
}

func (l *Library) open(path string) {
	if l.handle, l.Err = openLibrary(path); l.Err == nil {
		l.Path = path
	}
}

// libraryFolders lists the folders of toolkits and Python environments to look in before
// the system's loader is asked, and those after.
func libraryFolders() (before, after []string) {
	for _, variable := range []string{"CUDA_HOME", "CUDA_PATH"} {
		if dir := os.Getenv(variable); dir != "" {
			before = append(before, filepath.Join(dir, "lib64"), filepath.Join(dir, "lib"))
		}
	}
	for _, root := range pythonPrefixes() {
		for _, packages := range []string{"lib/python3*/site-packages", "lib/python3*/dist-packages", "lib/python3/dist-packages"} {
			before = append(before, newestFirst(filepath.Join(root, packages, "nvidia", "*", "lib"))...)
		}
	}
	after = append([]string{"/usr/local/cuda/lib64"}, newestFirst("/usr/local/cuda-*/lib64")...)
	return before, after
}

func pythonPrefixes() []string {
	var out []string
	add := func(dir string) {
		if dir != "" && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	add(os.Getenv("VIRTUAL_ENV"))
	add(os.Getenv("CONDA_PREFIX"))
	if python, err := exec.LookPath("python3"); err == nil {
		if python, err = filepath.Abs(python); err == nil {
			add(filepath.Dir(filepath.Dir(python)))
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		add(filepath.Join(home, ".local"))
	}
	return out
}

func newestFirst(pattern string) []string {
	dirs, _ := filepath.Glob(pattern)
	sort.Sort(sort.Reverse(sort.StringSlice(dirs)))
	return dirs
}

// sonames are the file names of a library for major versions from newest down.
func sonames(name string, majors ...int) []string {
	var out []string
	for _, m := range majors {
		out = append(out, fmt.Sprintf("lib%s.so.%d", name, m))
	}
	return out
}
