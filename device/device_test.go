//go:build linux && !nocuda

package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/tensor/cuda"
	"ringtail/tensor/cuda/emulator/build"
)

// outcome is what a process finds that looks for GPUs: a driver is loaded once a process.
type outcome struct {
	Auto     string // the name of the device that auto opens
	Note     string
	Error    string // of cuda
	Findings cuda.Findings
}

const childVar = "RINGTAIL_TEST_DEVICE_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) == "" {
		os.Exit(m.Run())
	}
	var o outcome
	dev, note, err := Open("auto", Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	o.Auto, o.Note = dev.Name(), note
	Close(dev)
	if dev, _, err = Open("cuda", Options{}); err != nil {
		o.Error = err.Error()
	} else {
		Close(dev)
	}
	o.Findings = cuda.Inspect()
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		os.Exit(1)
	}
}

// look runs a process that looks for GPUs, with these variables.
func look(t *testing.T, variables ...string) outcome {
	t.Helper()
	c := exec.Command(os.Args[0])
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "RINGTAIL_") && !strings.HasPrefix(name, "CUDA_") && name != "VIRTUAL_ENV" && name != "CONDA_PREFIX" {
			c.Env = append(c.Env, v)
		}
	}
	c.Env = append(append(c.Env, childVar+"=1", "XDG_CACHE_HOME="+t.TempDir()), variables...)
	var said strings.Builder
	c.Stderr = &said
	text, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, text, said.String())
	}
	var o outcome
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

// emulator is the emulator's library.
func emulator(t *testing.T) string {
	t.Helper()
	path, err := build.Library()
	if errors.Is(err, build.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// library makes a shared library of C.
func library(t *testing.T, name, source string) string {
	t.Helper()
	for _, compiler := range []string{"cc", "gcc", "g++", "clang"} {
		path, err := exec.LookPath(compiler)
		if err != nil {
			continue
		}
		file := filepath.Join(t.TempDir(), name)
		c := exec.Command(path, "-shared", "-fPIC", "-x", "c", "-o", file, "-")
		c.Stdin = strings.NewReader(source)
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", path, err, text)
		}
		return file
	}
	t.Skip("no C compiler")
	return ""
}

// TestNoGPU: where no GPU can be used, auto takes the CPU and says in one line why not,
// and cuda fails in one line with what to do.
func TestNoGPU(t *testing.T) {
	good := emulator(t)
	bare := library(t, "libcuda.so.1", `
		int cuInit(unsigned f) { return 0; }
		int cuDriverGetVersion(int* v) { *v = 12040; return 0; }`)
	text := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(text, []byte("not a library"), 0o644); err != nil {
		t.Fatal(err)
	}
	fails := func(fault string) []string {
		return []string{"RINGTAIL_LIBCUDA=" + good, "RINGTAIL_EMULATOR_FAIL=" + fault}
	}
	for _, c := range []struct {
		name   string
		set    []string
		silent bool     // auto has nothing to say of a machine that is none for GPUs
		want   []string // in the error
	}{
		{"no driver", []string{"RINGTAIL_LIBCUDA=off"}, true, []string{"no NVIDIA driver", "install it", "--gpus all"}},
		{"a file that isn't there", []string{"RINGTAIL_LIBCUDA=/nonexistent/libcuda.so"}, false, []string{"RINGTAIL_LIBCUDA=/nonexistent/libcuda.so"}},
		{"a file that is no library", []string{"RINGTAIL_LIBCUDA=" + text}, false, []string{text}},
		{"functions missing", []string{"RINGTAIL_LIBCUDA=" + bare}, false, []string{bare, "it has no cu", "update the NVIDIA driver"}},
		{"old driver", []string{"RINGTAIL_LIBCUDA=" + good, "RINGTAIL_EMULATOR_DRIVER=12020"}, false, []string{"CUDA 12.2", "update the NVIDIA driver to branch 550"}},
		{"no device", fails("cuInit=100"), false, []string{"CUDA_ERROR_NO_DEVICE (100)", "nvidia-smi"}},
		{"devices hidden", append(fails("cuInit=100"), "CUDA_VISIBLE_DEVICES=7"), false, []string{"CUDA_VISIBLE_DEVICES=7", "unset it"}},
		{"no GPU", []string{"RINGTAIL_LIBCUDA=" + good, "RINGTAIL_EMULATOR_GPUS=0"}, false, []string{"sees no GPU", "nvidia-smi"}},
		{"mismatch", fails("cuInit=803"), false, []string{"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)", "reboot"}},
		{"insufficient", fails("cuInit=35"), false, []string{"CUDA_ERROR_INSUFFICIENT_DRIVER (35)", "update the NVIDIA driver"}},
		{"unknown", fails("cuInit=999"), false, []string{"(999)", "nvidia_uvm"}},
		{"no context", fails("cuDevicePrimaryCtxRetain=2"), false, []string{"cuDevicePrimaryCtxRetain", "CUDA_ERROR_OUT_OF_MEMORY"}},
		{"old GPU", []string{"RINGTAIL_LIBCUDA=" + good, "RINGTAIL_EMULATOR_CC=7.5"}, false, []string{"compute capability 7.5", "8.0", "device: cpu"}},
		{"PTX refused", []string{"RINGTAIL_LIBCUDA=" + good, "RINGTAIL_EMULATOR_NAME=NVIDIA H100", "RINGTAIL_EMULATOR_FAIL=cuLinkAddData=222"}, false,
			[]string{"CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222)", "NVIDIA H100", "update the NVIDIA driver to branch 550"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := look(t, c.set...)
			if o.Auto != "cpu" {
				t.Errorf("auto opened %s", o.Auto)
			}
			if c.silent != (o.Note == "") {
				t.Errorf("auto says %q", o.Note)
			}
			for _, said := range []string{o.Error, o.Note, o.Findings.Problem} {
				if strings.Contains(said, "\n") {
					t.Errorf("more than a line: %s", said)
				}
				for _, want := range c.want {
					if said != "" && !strings.Contains(said, want) {
						t.Errorf("%q doesn't say %q", said, want)
					}
				}
			}
			if !strings.HasPrefix(o.Error, "device cuda: ") || !c.silent && !strings.HasPrefix(o.Note, "the CPU is used, not the GPU: ") || o.Findings.Problem == "" {
				t.Errorf("error %q, note %q, doctor %q", o.Error, o.Note, o.Findings.Problem)
			}
			t.Log(o.Error)
		})
	}
}

// TestMissingLibraries: without one of them, or with one that is too old or too new, the
// GPU is used all the same, and it is said what that costs and what brings it.
func TestMissingLibraries(t *testing.T) {
	good := emulator(t)
	functions := ""
	for _, name := range []string{"cudnnGetCudartVersion", "cudnnCreate", "cudnnDestroy", "cudnnSetStream", "cudnnGetErrorString", "cudnnGetLastErrorString",
		"cudnnBackendCreateDescriptor", "cudnnBackendDestroyDescriptor", "cudnnBackendFinalize", "cudnnBackendSetAttribute", "cudnnBackendGetAttribute", "cudnnBackendExecute"} {
		functions += "long " + name + "(void) { return 0; }\n"
	}
	oldDNN := library(t, "libcudnn.so.9", functions+"unsigned long cudnnGetVersion(void) { return 90100; }")
	goodDNN := library(t, "libcudnn.so.9", functions+"unsigned long cudnnGetVersion(void) { return 91900; }")
	noDNN := library(t, "libcudnn.so.9", "unsigned long cudnnGetVersion(void) { return 91900; }")
	for _, c := range []struct {
		name      string
		blas, dnn string
		set       string
		want      []string // of each note
	}{
		{"all there", good, goodDNN, "", nil},
		{"no cuBLASLt", "off", goodDNN, "", []string{"no cublasLt: hidden by RINGTAIL_LIBCUBLASLT=off; matrix products run on our own kernels; pip install nvidia-cublas-cu12"}},
		{"no cuDNN", good, "off", "", []string{"no cudnn: hidden by RINGTAIL_LIBCUDNN=off; attention runs on our own kernels; pip install 'nvidia-cudnn-cu12>=9.10'"}},
		{"old cuBLASLt", good, goodDNN, "RINGTAIL_EMULATOR_BLAS=11502", []string{"is cuBLASLt 11.5.2; 12.0 is the least; pip install nvidia-cublas-cu12"}},
		{"cuBLASLt of another major", good, goodDNN, "RINGTAIL_EMULATOR_BLAS=130001", []string{"is cuBLASLt 13.0.1, for newer drivers than this one of CUDA 12.4; pip install nvidia-cublas-cu12"}},
		{"cuBLASLt that doesn't start", good, goodDNN, "RINGTAIL_EMULATOR_FAIL=cublasLtCreate=1", []string{"cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED; pip install nvidia-cublas-cu12"}},
		{"cuBLASLt is another library", noDNN, goodDNN, "", []string{"it has no cublasLtCreate; pip install nvidia-cublas-cu12"}},
		{"old cuDNN", good, oldDNN, "", []string{"is cuDNN 9.1.0; 9.10.0 is the least; pip install 'nvidia-cudnn-cu12>=9.10'"}},
		{"cuDNN without functions", good, noDNN, "", []string{"it has no cudnnGetCudartVersion; pip install 'nvidia-cudnn-cu12>=9.10'"}},
		{"neither", "off", "off", "", []string{"no cublasLt", "no cudnn"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := look(t, "RINGTAIL_LIBCUDA="+good, "RINGTAIL_LIBCUBLASLT="+c.blas, "RINGTAIL_LIBCUDNN="+c.dnn, c.set)
			if o.Auto != "cuda:0" || o.Error != "" || o.Findings.Problem != "" {
				t.Errorf("auto opened %s; cuda: %q; doctor: %q", o.Auto, o.Error, o.Findings.Problem)
			}
			notes := o.Findings.Notes
			if len(notes) != len(c.want) || o.Note != strings.Join(notes, "\n") {
				t.Fatalf("notes %q; auto says %q", notes, o.Note)
			}
			for i, want := range c.want {
				for _, part := range strings.Split(want, "; ") {
					if !strings.Contains(notes[i], part) {
						t.Errorf("%q doesn't say %q", notes[i], part)
					}
				}
			}
			for _, l := range o.Findings.Libraries {
				if (l.Problem == "") != (l.Version != "" && l.Path != "" && !strings.Contains(strings.Join(notes, " "), "no "+l.Name+":")) {
					t.Errorf("%+v beside %q", l, notes)
				}
			}
		})
	}
}
