// Command emulator builds the CUDA emulator, a shared library that stands in for libcuda
// and cuBLASLt on a machine without a GPU:
//
//	go run ./tensor/cuda/emulator -o libemulator.so
//
// It prints the library's path. Environment variables of the library:
//
//	RINGTAIL_EMULATOR_MEMORY            bytes of device memory (4 GiB)
//	RINGTAIL_EMULATOR_GUARD=1           pages without access around allocations, at their ends in three of four
//	RINGTAIL_EMULATOR_SEED              of the orders of blocks, warps and lanes (1)
//	RINGTAIL_EMULATOR_THREADS           threads of the system that run blocks (one a core)
//	RINGTAIL_EMULATOR_CC                compute capability that it reports (8.0)
//	RINGTAIL_EMULATOR_MULTIPROCESSORS   multiprocessors that it reports (4)
//	RINGTAIL_EMULATOR_GPUS              how many GPUs it reports (1)
//	RINGTAIL_EMULATOR_NAME              of the GPU (Ringtail's emulator); another one has its kernels linked from PTX, which fails
//	RINGTAIL_EMULATOR_DRIVER            version of CUDA that it reports (12040)
//	RINGTAIL_EMULATOR_BLAS              version of cuBLASLt that it reports (120400)
//	RINGTAIL_EMULATOR_FAIL              calls that fail: cuInit=100,cuMemAllocAsync=2@5 (with which code, at which call)
package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"ringtail/tensor/cuda/emulator/build"
)

func main() {
	out := flag.String("o", "", "copy the library to `FILE`")
	flag.Parse()
	path, err := build.Library(flag.Args()...)
	if err == nil && *out != "" {
		err = copyFile(*out, path)
		path = *out
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(path)
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}
